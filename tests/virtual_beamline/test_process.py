"""The beamline's process: whose child it is, what ends it, what it leaves, and that many live side by side."""

import json
import os
import shlex
import signal
import socket
import struct
import subprocess
import sys

import psutil
import pytest

from tests.virtual_beamline.conftest import DEADLINE, wait_for
from virtual_beamline import supervisor
from virtual_beamline.client import CaContextExistsError, PvNotAnsweringError, read_text
from virtual_beamline.supervisor import BeamlineStartError, lease_ports, running

COMMAND = [sys.executable, "-m", "virtual_beamline"]

# A parent that starts a beamline, says its pid and id, and then does nothing.
PARENT = """
import sys, time
from virtual_beamline import supervisor
beamline = supervisor.start()
beamline.wait_ready()
{more}
print(beamline.pid, beamline.id, flush=True)
time.sleep(600)
"""


def _is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def parent():
    """Starts parents in process groups of their own, as a shell does."""
    started = []

    def start(more=""):
        process = subprocess.Popen(
            [sys.executable, "-c", PARENT.format(more=more)], stdout=subprocess.PIPE, text=True, process_group=0
        )
        started.append(process)
        pid, beamline_id = process.stdout.readline().split()
        return process, int(pid), beamline_id

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def test_it_ends_with_its_parent_even_by_kill_9(parent):
    process, pid, beamline_id = parent()
    assert _is_alive(pid)
    process.kill()
    process.wait()
    wait_for(lambda: not _is_alive(pid), what="end of the beamline")
    assert beamline_id not in {beamline.id for beamline in running()}


def test_it_ends_with_its_parent_though_a_forked_child_lives_on(parent):
    process, pid, _ = parent(more="import os\nif os.fork() == 0: time.sleep(600)")
    children = wait_for(lambda: [c for c in psutil.Process(process.pid).children() if c.pid != pid], what="fork")
    process.kill()
    process.wait()
    try:
        wait_for(lambda: not _is_alive(pid), what="end of the beamline")
    finally:
        children[0].kill()


def test_ctrl_c_in_the_parent_does_not_reach_it(parent):
    process, pid, beamline_id = parent(
        more="import signal; signal.signal(signal.SIGINT, lambda *_: print('caught', flush=True))"
    )
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    assert process.stdout.readline().strip() == "caught"
    assert os.getsid(pid) == pid
    assert _is_alive(pid)
    address = next(beamline for beamline in running() if beamline.id == beamline_id).environment.ca_address
    assert read_text("gp:BEAMLINE_ID", address, DEADLINE) == beamline_id


def test_beamlines_live_side_by_side_and_stop_ends_only_the_one_it_names(fresh_beamline):
    first, second = fresh_beamline(), fresh_beamline(prefix="sky:")
    assert first.environment.ca_address != second.environment.ca_address
    assert {first.id, second.id} <= {beamline.id for beamline in running()}
    with pytest.raises(PvNotAnsweringError):
        read_text("gp:BEAMLINE_ID", second.environment.ca_address, 0.5)
    done = subprocess.run([*COMMAND, "stop", first.id], check=True, capture_output=True, text=True)
    assert f"stopped {first.id}" in done.stderr
    assert wait_for(lambda: first.poll() is not None)
    assert read_text("sky:BEAMLINE_ID", second.environment.ca_address, DEADLINE) == second.id
    status = subprocess.run([*COMMAND, "status"], check=True, capture_output=True, text=True).stdout
    assert second.id in status
    assert first.id not in status


def test_start_gives_the_shell_what_any_client_needs_and_outlives_the_command(tmp_path):
    read = (
        "import epics; get = lambda pv: epics.caget(pv, timeout=30, connection_timeout=30); "
        "print(get('gp:BEAMLINE_ID'), get('gp:m1.DESC'))"
    )
    python = shlex.quote(sys.executable)
    script = f"""
        eval "$({python} -m virtual_beamline start --log-dir {tmp_path})"
        echo $VIRTUAL_BEAMLINE
        {python} -c {shlex.quote(read)}
        {python} -m virtual_beamline stop
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "VIRTUAL_"))}
    done = subprocess.run(["bash", "-ec", script], check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    beamline_id, seen = done.stdout.splitlines()
    assert seen == f"{beamline_id} motor 1"
    assert (tmp_path / f"{beamline_id}.log").exists()
    assert beamline_id not in {beamline.id for beamline in running()}
    # The repeater is the beamline's own: no client has spawned one that stays.
    assert "caRepeater" not in done.stderr
    names = [process.info["name"] or "" for process in psutil.process_iter(["name"])]
    repeaters = [name for name in names if "repeater" in name.lower()]
    assert repeaters == []


def test_run_serves_in_the_foreground_until_ctrl_c():
    process = subprocess.Popen([*COMMAND, "run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        exports = _exports(process.stdout)
        host, port = exports["EPICS_CA_ADDR_LIST"].split()[0].split(":")
        assert read_text("gp:BEAMLINE_ID", (host, int(port)), DEADLINE) == exports["VIRTUAL_BEAMLINE"]
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0
    finally:
        process.kill()
        process.communicate()


def _exports(stream):
    """``export`` lines up to the last one, VIRTUAL_BEAMLINE."""
    found = {}
    for line in stream:
        if line.startswith("export "):
            name, value = shlex.split(line)[1].split("=", 1)
            found[name] = value
            if name == "VIRTUAL_BEAMLINE":
                break
    return found


def test_a_seed_repeats_the_world_and_another_makes_another(fresh_beamline):
    def centre(seed):
        beamline = fresh_beamline(seed=seed)
        value = read_text("gp:userCalc1.B", beamline.environment.ca_address, DEADLINE)
        beamline.stop()
        return value

    assert centre(5) == centre(5) != centre(6)


def _start_error(tmp_path, **arguments):
    beamline = supervisor.start(log_dir=tmp_path, **arguments)
    with pytest.raises(BeamlineStartError) as caught:
        beamline.wait_ready()
    message = str(caught.value)
    assert str(beamline.log_file) in message
    assert "\n" not in message
    return message


def test_a_port_that_was_taken_meanwhile_is_named_in_one_line(tmp_path):
    lease = lease_ports()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", lease.first))
        message = _start_error(tmp_path, lease=lease)
    lease.release()
    assert f"cannot serve on 127.0.0.1:{lease.first}" in message
    assert "Address already in use" in message


def test_an_interface_that_does_not_exist_is_named_in_one_line(tmp_path):
    assert "cannot serve on 203.0.113.7:" in _start_error(tmp_path, listen="203.0.113.7")


def test_another_server_on_the_port_is_noticed(fresh_beamline, tmp_path):
    """Two CA servers can share a UDP port without an error, so that a client may reach the wrong one."""
    beamline = fresh_beamline(log_dir=tmp_path)
    impostor = supervisor.RunningBeamline(
        id="vb-expected",
        pid=beamline.pid,
        prefix=beamline.prefix,
        environment=beamline.environment,
        log_file=beamline.log_file,
        lease_number=beamline.lease_number,
        started=beamline.started,
        process=beamline._process,
    )
    with pytest.raises(BeamlineStartError, match=f"another beamline \\({beamline.id}\\)"):
        impostor.wait_ready(timeout=2)


def test_ports_are_leased_once_and_freed_with_the_process(fresh_beamline):
    beamline = fresh_beamline()
    lease = lease_ports()
    assert lease.number != beamline.lease_number
    with socket.socket() as server:
        server.bind(("127.0.0.1", beamline.environment.ca_address[1] + 5))  # a port that belongs to the lease
        lease.release()
    os.kill(beamline.pid, signal.SIGKILL)
    wait_for(lambda: beamline.poll() is not None)
    assert beamline.id not in {other.id for other in running()}


def test_a_crash_is_told_and_it_can_start_again_where_its_clients_look_for_it():
    lease = lease_ports()
    beamline = supervisor.start(lease=lease)
    beamline.wait_ready()
    os.kill(beamline.pid, signal.SIGKILL)
    assert wait_for(beamline.poll) == -signal.SIGKILL
    assert beamline.id not in {other.id for other in running()}  # though its parent keeps the ports
    again = supervisor.start(lease=lease, beamline_id=beamline.id)
    again.wait_ready()
    assert again.environment == beamline.environment
    again.stop()
    lease.release()


def test_a_lease_passes_over_ports_that_a_stranger_uses():
    lease = lease_ports()
    lease.release()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", lease.first + 6))
        other = lease_ports()
        other.release()
    assert other.number != lease.number


def test_it_serves_on_loopback_only(fresh_beamline):
    beamline = fresh_beamline()
    ports = range(beamline.environment.ca_address[1], beamline.environment.ca_address[1] + 8)
    sockets = psutil.Process(beamline.pid).net_connections("inet")
    served = [s for s in sockets if s.status == psutil.CONN_LISTEN or s.laddr.port in ports]
    assert len(served) >= 6
    addresses = {s.laddr.ip for s in served}
    assert addresses == {"127.0.0.1", "224.0.0.128"}  # the latter is pvAccess's multicast on the loopback interface


class PvAccess:
    """As much of the pvAccess protocol as it takes to ask a server for a channel."""

    CONNECTION_VALIDATION, CREATE_CHANNEL, CONNECTION_VALIDATED = 1, 7, 9

    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._stream = self._socket.makefile("rb")
        self._receive(self.CONNECTION_VALIDATION)
        self._send(self.CONNECTION_VALIDATION, struct.pack("<ihh", 1 << 14, 1 << 10, 0) + b"\x09anonymous\xff")
        self._receive(self.CONNECTION_VALIDATED)

    def _send(self, command, payload):
        self._socket.sendall(struct.pack("<BBBBi", 0xCA, 2, 0, command, len(payload)) + payload)

    def _receive(self, wanted):
        while True:
            magic, _, flags, command = self._stream.read(4)
            assert magic == 0xCA
            (size,) = struct.unpack(">i" if flags & 0x80 else "<i", self._stream.read(4))
            if flags & 1:  # a control message: its size field is data
                continue
            payload = self._stream.read(size)
            if command == wanted:
                return payload

    def has(self, name):
        self._send(self.CREATE_CHANNEL, struct.pack("<hiB", 1, 1, len(name)) + name.encode())
        return self._receive(self.CREATE_CHANNEL)[8] == 0xFF  # after both channel ids: the status OK

    def close(self):
        self._stream.close()
        self._socket.close()


def test_pvaccess_serves_the_same_records(fresh_beamline):
    beamline = fresh_beamline()
    client = PvAccess(int(beamline.environment.variables["EPICS_PVA_SERVER_PORT"]))
    assert client.has("gp:m1.RBV")
    assert client.has("gp:userCalc1")
    assert not client.has("gp:nothing")
    client.close()


def test_a_bad_prefix_is_refused():
    done = subprocess.run([*COMMAND, "start", "--prefix", "a b"], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "'a b' cannot begin PV names" in done.stderr


def test_stop_without_a_beamline_says_so():
    environment = {**os.environ, "VIRTUAL_BEAMLINE": "vb-none"}
    done = subprocess.run([*COMMAND, "stop"], check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "no virtual beamline vb-none is running" in done.stderr


def test_list_names_every_pv_that_is_served(gp, virtual_beamline):
    lines = subprocess.run([*COMMAND, "list"], check=True, capture_output=True, text=True).stdout.splitlines()
    names = [line.split()[0] for line in lines if line.startswith("gp:")]  # those of ad: have tests of their own
    assert len(names) == len(set(names)) == gp.get("RECORD_CNT")
    types = {line.split()[0]: line.split()[1] for line in lines}
    assert types["gp:m16"] == "motor"
    for name in names[:: len(names) // 20]:
        assert gp.get(f"{name.removeprefix('gp:')}.RTYP", text=True) == types[name]
        assert gp.get(f"{name.removeprefix('gp:')}.DESC", text=True) in next(
            line for line in lines if line.split()[0] == name
        )


def test_an_environment_is_not_applied_behind_the_back_of_a_ca_context(gp, fresh_beamline):
    gp.get("HEARTBEAT")
    other = fresh_beamline()
    before = dict(os.environ)
    with pytest.raises(CaContextExistsError, match="restart"):
        other.environment.apply()
    assert dict(os.environ) == before


def test_the_state_file_goes_with_an_orderly_end(fresh_beamline):
    beamline = fresh_beamline()
    state_file = supervisor.runtime_directory() / f"{beamline.lease_number}.json"
    assert json.loads(state_file.read_text())["id"] == beamline.id
    beamline.stop()
    assert beamline.poll() == 0
    assert not state_file.exists()
