"""`instrument doctor` finds what is really wrong, says what to do, and changes nothing."""

import itertools
import os
import re
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from instrument.callbacks.journal import Journal
from instrument.callbacks.outbox import Outbox
from instrument.doctor.examination import examine
from instrument.framework.index import RunIndex
from instrument.framework.runfiles import DataDirectory
from tests.faults.test_disk import IN_NAMESPACE, MAY_MOUNT
from tests.terminal import ROOT, clean_environment

DEADLINE = 120  # s, generous: the machine may be busy
CRASHES = """
import os, pathlib, sys
from instrument.callbacks.journal import Journal
from instrument.framework.index import RunIndex
from instrument.framework.runfiles import DataDirectory
data = DataDirectory(pathlib.Path(sys.argv[1]))
Journal(data.runs, index=RunIndex(data.index, data.runs))("start", {"uid": "22222222-open", "time": 1.7e9})
os._exit(9)
"""
BEAMLINES = re.compile(r"virtual beamlines? (of other|vb-)")  # those of other tests on this machine


def run(directory, *arguments, wrapper=(), **variables):
    """`instrument ...` in a directory: the exit code, and what was printed."""
    done = subprocess.run(
        [*wrapper, sys.executable, "-m", "instrument.cli", *arguments],
        cwd=directory,
        env=clean_environment(directory, **{"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **variables}),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def tree(directory):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in directory.rglob("*")}


def found(topic, **options):
    """The findings on one topic, as (status, text and advice)."""
    return [
        (one.status, f"{one.text} -> {one.advice}")
        for one in examine(**options)
        if one.topic == topic and not BEAMLINES.search(one.text)
    ]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working directory, and a configuration in it whose IOCs are somebody else's."""
    monkeypatch.chdir(tmp_path)
    for name in ("VIRTUAL_BEAMLINE", "INSTRUMENT_CONFIG", "MPLBACKEND", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)

    def write(iconfig="", devices=""):
        (tmp_path / "devices.yml").write_text(devices)
        (tmp_path / "iconfig.yml").write_text(iconfig)
        return tmp_path / "iconfig.yml"

    return write


def test_where_all_is_well_it_says_so_and_leaves_nothing_behind(tmp_path):
    code, shown = run(tmp_path, "doctor")
    assert code == 0, shown
    lines = shown.splitlines()
    assert len(lines) < 40
    topics = {line.split()[1] for line in lines[1:-1] if not line.startswith(" ")}
    assert topics == {"Python", "packages", "config", "CA", "IOCs", "ports", "time-outs", "catalog", "disk", "display"}
    assert "a session here starts gp: and ad: itself" in shown
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_with_mistakes_hides_nothing_else(tmp_path):
    (tmp_path / "iconfig.yml").write_text("catalog: embedded\nvirtual_beamline: {strat: true}\nlive: {table: maybe\n")
    code, shown = run(
        tmp_path, "doctor", "--config", ".", EPICS_CA_ADDR_LIST="no.such.host.invalid", MPLBACKEND="QtQuick3"
    )
    assert code == 1
    assert re.search(r"wrong +config +iconfig\.yml:4: is not valid YAML", shown), shown
    assert re.search(r"wrong +CA +EPICS_CA_ADDR_LIST names 'no.such.host.invalid'", shown), shown
    assert re.search(r"wrong +display +MPLBACKEND=QtQuick3 is no backend", shown), shown
    assert shown.splitlines()[-1].startswith("3 wrong"), shown
    for line, after in itertools.pairwise(shown.splitlines()):
        assert line[:5] != "wrong" or after.lstrip().startswith("-> "), line  # each says what to do


def test_mistakes_are_those_of_instrument_check(place):
    config = place("virtual_beamline: {strat: true}\n", "ophyd.EpicsMotr:\n- {name: m1, prefix: 'x:m1'}\n")
    statuses, texts = zip(*found("config", config=config), strict=True)
    assert set(statuses) == {"wrong"}
    assert "did you mean 'start'?" in texts[0] + texts[1]
    assert "did you mean 'ophyd.EpicsMotor'?" in texts[0] + texts[1]


def test_a_package_that_is_missing_is_named(tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not entry.name.lower().startswith(("pydantic", "msgpack-", "msgpack.", "__editable__", "_editable")):
            (site / entry.name).symlink_to(entry)
    (site / "msgpack").unlink()
    where = {"PYTHONPATH": os.pathsep.join((str(site), str(ROOT)))}
    begin = [sys.executable, "-S", "-m", "instrument.cli"]
    environment = clean_environment(tmp_path, **where)

    def say(command):
        done = subprocess.run(
            [*begin, command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    code, shown, _ = say("doctor")
    assert code == 1
    assert re.search(r"wrong +packages +msgpack is missing, pydantic is missing\n +-> .*pip install", shown), shown
    assert re.search(r"wrong +config +not looked at, since pydantic", shown), shown
    assert re.search(r"ok +disk", shown), shown
    code, shown, told = say("check")
    assert (code, shown, len(told.splitlines())) == (2, "", 1)
    assert "`instrument doctor` tells" in told


@pytest.mark.skipif(not MAY_MOUNT, reason="NOT RUN: a full disk needs a mount namespace")
def test_a_disk_that_is_full_and_one_that_can_not_be_written(tmp_path):
    for name in ("data", "spec"):
        (tmp_path / name).mkdir()
    (tmp_path / "logs").write_text("a file")
    (tmp_path / "iconfig.yml").write_text("directories: {data: data, spec: spec, logs: logs/here}\ndevices: []\n")
    prepare = (
        "mount -t tmpfs -o size=4m tmpfs data; head -c 3900000 /dev/zero > data/images; "
        'mount --bind spec spec; mount -o remount,bind,ro spec; exec "$@"'
    )
    code, shown = run(tmp_path, "doctor", "--config", ".", wrapper=(*IN_NAMESPACE, prepare, "sh"))
    assert code == 1, shown
    assert re.search(r"wrong +disk +0 MB free for \S+/data\n +-> make room", shown), shown
    assert re.search(r"wrong +disk +\S+/spec can't be written, and spec goes there\n +-> ", shown), shown
    assert re.search(r"wrong +disk +\S+/logs/here: \S+/logs is a file\n +-> ", shown), shown


def test_devices_that_answer_and_those_that_do_not(virtual_beamline, place):
    devices = """\
instrument.devices.motors.Motor:
- {name: m1, prefix: "gp:m1"}
- {name: m99, prefix: "gp:m99"}
instrument.devices.swait.UserCalcs:
- {name: calcs, prefix: "gp:"}
ophyd.EpicsSignalRO:
- {name: noisy, read_pv: "gp:userCalc1"}
- {name: ring, read_pv: "S:SRcurrentAI"}
"""
    config = place("virtual_beamline: {start: false}\n", devices)
    host, port = virtual_beamline.address
    told = found("IOCs", config=config)
    assert told[0][0] == "warning"
    assert told[0][1].startswith(f"gp: 3 of 4 devices answer at {host}:{port} -> ")
    assert "silent is m99 (gp:m99.RBV)" in told[0][1]
    assert told[1] == ("wrong", "S: 0 of 1 device answer -> start the IOC, or see CA: silent is ring (S:SRcurrentAI)")


def test_devices_of_another_ioc_are_not_found_beside_the_virtual_beamline(place):
    config = place("", "ophyd.EpicsMotor:\n- {name: far, prefix: '9idc:m1'}\n- {name: m1, prefix: 'gp:m1'}\n")
    told = dict(found("IOCs", config=config))
    assert told["warning"].startswith("far: not of the virtual beamline")


def test_the_environment_of_channel_access(place, monkeypatch):
    config = place("virtual_beamline: {start: false}\n")
    monkeypatch.setenv("EPICS_CA_ADDR_LIST", "")
    monkeypatch.setenv("EPICS_CA_AUTO_ADDR_LIST", "NO")
    monkeypatch.setenv("EPICS_CA_MAX_ARRAY_BYTES", "16384")
    monkeypatch.setenv("EPICS_CA_CONN_TMO", "soon")
    statuses = [status for status, _ in found("CA", config=config)]
    assert statuses == ["wrong", "wrong", "warning"]


def test_a_beamline_that_is_named_but_gone(place, monkeypatch):
    monkeypatch.setenv("VIRTUAL_BEAMLINE", "vb-00000000")
    told = [one for one in examine(config=place()) if "vb-00000000" in one.text]
    assert [(one.status, "unset VIRTUAL_BEAMLINE" in one.advice) for one in told] == [("wrong", True)]


def test_variables_that_are_not_those_of_the_beamline_that_is_named(virtual_beamline, place, monkeypatch):
    monkeypatch.setenv("VIRTUAL_BEAMLINE", virtual_beamline.id)
    assert found("CA", config=place())[0][0] == "ok"
    monkeypatch.setenv("EPICS_CA_ADDR_LIST", "127.0.0.1:5064")
    ((status, text),) = found("CA", config=place())
    assert status == "warning"
    assert text.startswith("EPICS_CA_ADDR_LIST is not what vb-")


def test_a_port_that_is_taken(place):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = place(f"tiled: {{port: {port}}}\nqueue: {{port: 0, info_port: {port}}}\n")
        told = found("ports", config=config)
        assert (
            "warning",
            f"127.0.0.1:{port} can't be used by `instrument tiled serve` (Address already in use) -> "
            "another port in iconfig.yml, `tiled: {port: 8001}`; 0 is any free one",
        ) in told
        assert (
            "warning",
            f"127.0.0.1:{port} can't be used by `instrument qserver` (Address already in use) -> "
            f"another port in iconfig.yml, `queue: {{info_port: {port + 1}}}`; 0 is any free one",
        ) in told
    assert [status for status, _ in found("ports", config=config)] == ["ok", "ok", "ok"]
    config = place(f"tiled: {{port: 0}}\nqueue: {{port: 0, info_port: 0, redis: 'redis://:s3cr3t@127.0.0.1:{port}'}}\n")
    (status, text) = found("ports", config=config)[-1]
    assert status == "warning"
    assert text.startswith(f"the Redis redis://127.0.0.1:{port} does not answer (")
    assert "s3cr3t" not in text


def test_runs_without_an_end_or_not_delivered_and_an_index_that_is_damaged(place, tmp_path):
    class Refuses:
        name = "refuses"

        def assign(self, start):
            return {}

        def deliver(self, documents, assignment, notes):
            raise ValueError("no ink")

    data = DataDirectory(tmp_path / ".data")
    config = place()
    assert found("catalog", config=config)[0][1].startswith("no runs yet")
    subprocess.run(
        [sys.executable, "-c", CRASHES, str(data.root)], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    index = RunIndex(data.index, data.runs)
    journal = Journal(data.runs, index=index)
    outbox = Outbox(data.runs, data.outbox, report=lambda _: None, index=index)
    outbox.add(Refuses())
    outbox.start()
    start = {"uid": "11111111-whole", "time": 1.7e9, "scan_id": 1}
    stop = {"uid": "s", "time": 1.7e9, "run_start": start["uid"], "exit_status": "success", "num_events": {}}
    for document in (("start", start), ("stop", stop)):
        journal(*document)
        outbox(*document)
    outbox.wait(10, for_failing=False)
    status, text = found("catalog", config=config)[0]
    assert (status, "2 runs in" in text, f"pid {os.getpid()}" in text) == ("ok", True, True)
    journal.close()
    outbox.close(0)
    index.close()
    before = tree(tmp_path)
    (_, unfinished) = found("catalog", config=config)
    assert unfinished[0] == "warning"
    assert unfinished[1].startswith("1 run without an end, nobody writes them: 2222222 -> ")
    ((status, text),) = found("outbox", config=config)
    assert status == "warning"
    assert text.startswith("1 run not delivered to refuses (ValueError: no ink) -> ")
    assert tree(tmp_path) == before
    data.index.write_bytes(b"garbage" * 1000)
    ((status, text),) = found("catalog", config=config)
    assert status == "wrong"
    assert "`instrument catalog check --repair` makes it anew" in text
