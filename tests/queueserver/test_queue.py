"""A real queue server, its worker's session, and what people do with the queue."""

import re
import signal
import stat
import textwrap
from pathlib import Path

import pytest
import zmq
from spec2nexus.spec import SpecDataFile

from instrument import cli
from instrument.framework.index import RunIndex
from instrument.framework.runfiles import DataDirectory
from instrument.queueserver import client, redis
from instrument.queueserver.client import Address, Queue, QueueError, parse
from instrument.queueserver.places import QueueDirectory

from .servers import DEADLINE, Server, is_alive, serving, until


@pytest.fixture
def typed(server, monkeypatch, capfd):
    """`instrument ...` in the server's directory: exit code and output. In this process: each would take a second."""

    def run(*words):
        monkeypatch.chdir(server.directory)
        capfd.readouterr()
        code = cli.main(words)
        shown = capfd.readouterr()
        return code, (shown.out + shown.err).strip()

    return run


def last_run(directory):
    """Scan number, plan and end of the newest run."""
    data = DataDirectory(directory / ".data")
    index = RunIndex(data.index, data.runs)
    index.refresh()
    row = index.rows()[0]
    assert row.stop is not None
    return row.start["scan_id"], row.start["plan_name"], row.stop["exit_status"]


def test_a_scan_is_submitted_from_the_command_line_and_its_files_are_written(server, queue, typed):
    code, shown = typed("queue", "add", "ascan", "m1", "-0.2", "0.2", "4", "0.1")
    assert re.fullmatch(r"ascan m1 -0\.2 0\.2 4 0\.1 is number 1 in the queue \(\w{8}\)", shown), shown
    assert typed("queue", "add", "count([scaler1], num=2)")[1].startswith("count [scaler1] num=2 is number 2")
    assert typed("queue", "add", "--front", "mv", "m1", "0.1")[1].startswith("mv m1 0.1 is number 1")
    shown = typed("queue", "list")[1].splitlines()
    assert [line.split()[1] for line in shown[3:6]] == ["mv", "ascan", "count"]
    code, shown = typed("queue", "start", "--wait")
    assert code == 0, shown
    assert "|         5 |" in shown  # the table of the scan is followed
    assert shown.endswith("3 plans have run: completed, completed, completed; the queue server is idle")
    number, *rest = last_run(server.directory)
    assert rest == ["count", "success"]
    shown = typed("queue", "history", "-n", "2")[1]
    assert re.search(rf"ascan m1 -0\.2 0\.2 4 0\.1 +completed +{number - 1}\b", shown), shown
    (spec,) = until(lambda: list(server.directory.glob("*.dat")), "there is a SPEC file")
    until(lambda: str(number) in SpecDataFile(str(spec)).scans, "the scan is in the SPEC file")
    scan = SpecDataFile(str(spec)).scans[str(number - 1)]
    assert scan.data["m1"] == pytest.approx([-0.2, -0.1, 0, 0.1, 0.2])


def test_a_scan_is_submitted_from_a_script(server, queue, typed):
    item = queue.add("dscan", "m1", -0.1, 0.1, 2, 0.1, md={"sample": "silver behenate"})
    queue.start()
    assert queue.wait()["manager_state"] == "idle"
    (done,) = [one for one in queue.history() if one["item_uid"] == item["item_uid"]]
    assert done["result"]["exit_status"] == "completed"
    assert typed("runs", "--text", "behenate")[1].count("dscan") == 1


def test_a_running_plan_is_paused_goes_on_and_is_aborted(server, queue, typed):
    queue.add("ascan", "m1", 0, 0.1, 200, 0.2)
    assert typed("queue", "start")[0] == 0
    until(lambda: queue.ask("re_runs", option="open")["run_list"], "its run has begun")
    assert typed("queue", "pause") == (0, "paused; `instrument queue resume` or `abort`")
    shown = typed("queue", "status")[1]
    assert re.search(r"state +paused\n.*session +paused\n.*runs now +ascan m1 0 0\.1 200 0\.2", shown, re.DOTALL), shown
    assert typed("queue", "resume")[0] == 0
    until(lambda: queue.status()["re_state"] == "running", "it goes on")
    assert typed("queue", "abort") == (0, "aborted; it is first in the queue again")
    assert [item["name"] for item in queue.items()] == ["ascan"]
    assert last_run(server.directory)[1:] == ("ascan", "abort")
    assert typed("queue", "remove", "1") == (0, "removed ascan m1 0 0.1 200 0.2")
    queue.add("mv", "m1", 2)  # has no checkpoint
    queue.start()
    until(lambda: queue.status()["re_state"] == "running", "it runs")
    with pytest.raises(QueueError, match=r"the plan ended before it paused|paused only in .running. state"):
        queue.pause(at_once=False)
    queue.add("ascan", "m1", 0, 0.1, 1, 0.1)
    queue.start()
    queue.wait()
    assert last_run(server.directory)[1:] == ("ascan", "success")


def test_a_queue_of_short_plans_is_aborted_in_its_midst(server, queue):
    """Whether a plan runs, ends or begins at that moment: nothing runs afterwards, and each run has its end."""
    for round_ in range(3):
        before = len(queue.history())
        for _ in range(30):
            queue.add("count", ["noisy"])
        queue.start()
        until(lambda before=before, round_=round_: len(queue.history()) > before + round_, "some have run")
        try:
            queue.abort()
        except QueueError as error:
            assert str(error) == "the plan ended before it was aborted; the queue has stopped"  # noqa: PT017
        assert queue.status()["manager_state"] == "idle"
        ran = len(queue.history()) - before
        completed = [item["result"]["exit_status"] for item in queue.history()[before:]].count("completed")
        assert ran < 30
        assert len(queue.items()) == 30 - completed
        name, status = last_run(server.directory)[1:]
        # A plan that is aborted before its run began, or after its run's end, leaves no aborted run.
        assert name == "count"
        assert status == "success" or (status == "abort" and ran > completed)
        queue.ask("queue_clear")
    with pytest.raises(QueueError, match="no plan runs"):
        queue.abort()


def test_a_plan_that_fails_stays_and_says_why(server, queue, typed):
    queue.add("mv", "m99", 1)
    code, shown = typed("queue", "start", "--wait")
    assert code == 1
    assert shown.endswith("1 plans have run: failed; the queue server is idle")
    assert "no device is named 'm99'; did you mean 'm9'?" in typed("queue", "history")[1]
    assert [item["name"] for item in queue.items()] == ["mv"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("add asca m1 0 1 4", "there is no plan 'asca' that the queue may run; did you mean 'ascan'?"),
        ("add ascan m1 0 x 4", "Input should be a valid number, unable to parse string as a number"),
        ("add ascan m1 0", "missing a required argument: 'finish'"),
        ("add timescan nope=1", "got an unexpected keyword argument 'nope'"),
        ("add count([scaler1]", "is no plan: '(' was never closed"),
        ("add ascan(m1,0,len(x),4)", "'len(x)' is neither a name nor a value"),
        ("add", "which plan? write"),
        ("add --front", "which plan? write"),
        ("add mv(**{'a':1})", "\"**{'a': 1}\" is neither a name nor a value"),
        ("add ct(md={[1]:2})", "'{[1]: 2}' is neither a name nor a value"),
        ("add ct(md={**x})", "'{**x}' is neither a name nor a value"),
        ("add mv(*moves)", "'*moves' is neither a name nor a value"),
        ("start", "the queue is empty: add a plan first"),
        ("resume", "RE Manager is not paused: current state is 'idle'"),
        ("pause", "can be paused only in 'running' state. Current state: 'idle'"),
        ("remove 7", "'7' is no number or uid of one of the 0 plans in the queue"),
        ("plans asca", "there is no plan 'asca' that the queue may run"),
    ],
)
def test_what_can_not_be_done_is_refused_in_one_line(queue, typed, words, told):
    code, shown = typed("queue", *words.split())
    assert code == 2
    assert told in shown
    assert "\n" not in shown
    assert queue.items() == []


def test_plans_and_devices_are_listed_with_what_they_take(server, queue, typed):
    shown = typed("queue", "plans")[1].splitlines()
    assert (
        "dscan(motor, start: float, finish: float, intervals: int, time: float | None=None, detectors=None, "
        "md: dict[str, Any] | None=None)"
    ) in shown
    assert {"count", "scan", "rel_scan", "grid_scan", "mv", "umv", "ct"} <= {line.partition("(")[0] for line in shown}
    assert "  intervals: int: One less than points." in typed("queue", "plans", "ascan")[1].splitlines()
    assert re.search(r"^m1 +Motor +readable movable$", typed("queue", "devices")[1], re.MULTILINE)
    assert queue.plans()["darks_flats"]["parameters"][3]["default"] == "'adsimdet'"


def test_nobody_without_the_key_controls_the_beamline(server, monkeypatch):
    address = server.files.read_address()
    public, _ = zmq.curve_keypair()
    monkeypatch.setattr(client, "ANSWERS_WITHIN", 1.0)
    for key in ("", public.decode()):
        with (
            Queue(Address(address.control, address.info, key, 0)) as stranger,
            pytest.raises(QueueError, match="does not answer"),
        ):
            stranger.status()
    assert address.control.startswith("tcp://127.0.0.1:")
    for path in (server.files.keys, server.files.address, server.files.manager, server.files.redis_settings):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    code, shown = server.instrument("qserver")
    assert code == 2
    assert shown.startswith(
        f"a queue server runs in {server.directory / '.data'} already: pid {server.process.pid} on "
    )


def test_bluesky_s_own_client_reaches_it_through_the_environment(server, monkeypatch):
    address = server.files.read_address()
    assert address is not None
    exported = next(line for line in server.lines if "export" in line).partition("export ")[2]
    for name, value in (pair.split("=", 1) for pair in exported.split(" ")):
        monkeypatch.setenv(name, value.strip("'"))
    from bluesky_queueserver_api.zmq import REManagerAPI

    api = REManagerAPI()
    try:
        status = api.status()
        assert status is not None
        assert status["worker_environment_exists"]
    finally:
        api.close()
    with client.connect() as ours:
        assert ours.address.control == address.control


def test_a_server_that_ends_puts_things_back_and_one_that_is_killed_loses_nothing(tmp_path):
    with serving(tmp_path) as server, server.connect() as queue:
        queue.add("ascan", "m1", 0, 0.1, 200, 0.2)
        queue.add("mv", "m1", 1)
        queue.start()
        until(lambda: queue.ask("re_runs", option="open")["run_list"], "its run has begun")
        assert server.end(signal.SIGINT) == 0
        assert "the plan that runs is aborted; it stays first in the queue" in server.lines
    with pytest.raises(QueueError, match=r"no queue server runs in .*: start one with `instrument qserver`"):
        server.connect()
    assert last_run(server.directory)[1:] == ("ascan", "abort")
    permissions = server.files.permissions
    permissions.write_text(permissions.read_text().replace("forbidden_plans: [null]", "forbidden_plans: [':^mv']"))

    with serving(tmp_path, "--closed") as server, server.connect() as queue:
        assert [item["name"] for item in queue.items()] == ["ascan", "mv"]
        with pytest.raises(QueueError, match="there is no plan 'mv' that the queue may run"):
            queue.add("mv", "m1", 2)  # the beamline's own file says so now
        assert queue.add("umv", "m1", 2)
        children = descendants(server.process.pid)
        assert len(children) >= 3  # Redis, the watchdog, the manager
        server.end(signal.SIGKILL)
    until(lambda: not any(map(is_alive, children)), "nothing of it is left")
    with serving(tmp_path) as server, server.connect() as queue:
        assert [item["name"] for item in queue.items()] == ["ascan", "mv", "umv"]
        hangs = """
            import bluesky.plan_stubs, bluesky.preprocessors
            def hangs():
                yield from bluesky.preprocessors.finalize_wrapper(
                    bluesky.plan_stubs.sleep(1000), bluesky.plan_stubs.sleep(1000)
                )
        """
        task = queue.ask("script_upload", script=textwrap.dedent(hangs))["task_uid"]
        queue.api.wait_for_completed_task(task, timeout=int(DEADLINE))
        queue.add("hangs", front=True)
        queue.start()
        until(lambda: queue.status()["re_state"] == "running", "it runs")
        children = descendants(server.process.pid)
        server.process.send_signal(signal.SIGINT)
        until(lambda: "the plan that runs is aborted; it stays first in the queue" in server.lines, "it is aborted")
        assert server.end(signal.SIGINT) == 0
        assert "the session is ended at once (told to end once more); what it moves is not stopped" in server.lines
    until(lambda: not any(map(is_alive, children)), "nothing of it is left")
    with serving(tmp_path, "--closed") as server, server.connect() as queue:
        assert [item["name"] for item in queue.items()] == ["hangs", "ascan", "mv", "umv"]


def test_a_server_that_is_told_to_end_while_it_starts_ends(tmp_path):
    server = Server(tmp_path, "--closed")
    until(server.files.redis_settings.exists, "its Redis is started")
    assert server.end(signal.SIGINT) == 0, server.lines
    assert server.lines == []
    assert not server.files.address.exists()


def test_a_facility_s_redis_keeps_the_queue(server, tmp_path):
    elsewhere = QueueDirectory(tmp_path / "redis")
    elsewhere.make()
    beamline = tmp_path / "beamline"
    files = QueueDirectory(beamline / ".data" / "queue")
    beamline.mkdir()
    files.make()
    files.plans_and_devices.write_bytes(server.files.plans_and_devices.read_bytes())
    with redis.embedded(elsewhere) as uri:
        with serving(beamline, "--closed", "--redis", uri) as other, other.connect() as queue:
            assert redis.public(uri) in other.lines[0]
            assert uri not in "\n".join(other.lines)
            queue.add("mv", "m1", 3)
            another = tmp_path / "another"
            another.mkdir()
            (another / "iconfig.yml").write_text(f"devices: []\nqueue: {{name: west, redis: '{uri}'}}\n")
            with serving(another, "--closed") as west, west.connect() as its_queue:
                assert its_queue.items() == []
            name = files.name.read_text().strip()
            (another / "iconfig.yml").write_text(f"devices: []\nqueue: {{name: {name}, redis: '{uri}'}}\n")
            code, shown = west.instrument("qserver", "--closed")
            assert code == 2
            assert shown == (
                f"another queue server keeps the queue instrument_{name} in the Redis {redis.public(uri)}: end it, or "
                "give this one a name of its own (iconfig.yml, queue: name:)"
            )
        with serving(beamline, "--closed", "--redis", uri) as other, other.connect() as queue:
            assert [item["args"] for item in queue.items()] == [["m1", 3]]
    assert not list(files.redis.iterdir())
    code, shown = other.instrument("qserver", "--redis", uri)
    assert code == 2
    assert re.fullmatch(rf"the Redis {re.escape(redis.public(uri))} does not answer \(.*\); start it, or .*", shown)


def descendants(pid):
    """The processes that a process has started, and theirs."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(text.rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {pid})


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["ascan", "m1", "-1", "1", "20", "0.5"], ("ascan", ["m1", -1, 1, 20, 0.5], {})),
        (["count", "[scaler1,noisy]", "num=3"], ("count", [["scaler1", "noisy"]], {"num": 3})),
        (["count([scaler1], num=3)"], ("count", [["scaler1"]], {"num": 3})),
        (["mv", "temperature.ramp_limit", "5"], ("mv", ["temperature.ramp_limit", 5], {})),
        (["ct", "md={'a': True}"], ("ct", [], {"md": {"a": True}})),
        (["snapshot", "gp:m1.RBV", "comment=a b"], ("snapshot", ["gp:m1.RBV"], {"comment": "a b"})),
    ],
)
def test_a_plan_is_typed_as_at_the_prompt(typed, meant):
    assert parse(typed) == meant
