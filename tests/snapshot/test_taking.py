"""What a snapshot records, and what bad input gets: one line each, and nothing recorded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from instrument.framework.index import RunIndex
from instrument.framework.runfiles import DataDirectory, RunFile
from instrument.framework.snapshots import UNREACHABLE, Snapshot
from virtual_beamline.client import read_text

DEADLINE = 60.0


def runs(directory):
    data = DataDirectory(directory / ".data")
    index = RunIndex(None, data.runs)
    index.refresh()
    found = index.rows()
    index.close()
    return found


def values(told):
    return {pv["name"]: pv for pv in json.loads(told.out)["pvs"]}


# --- what is recorded


def test_numbers_texts_long_texts_arrays_and_enumerations_are_recorded_as_what_they_are(snapshot, put):
    text = "a text of more than forty characters, as CHAR waveforms hold them: Å, µm"
    put("gp:gp:longtext1", list(text.encode()))
    put("gp:gp:text1", "text")
    put("gp:gp:array1", [1.5, -2.0])
    put("gp:gp:longtext2", [1, 2, 200])
    put("gp:gp:int1", 7)
    pvs = (
        "gp:gp:int1",
        "gp:gp:text1",
        "gp:gp:longtext1",
        "gp:gp:longtext2",
        "gp:gp:array1",
        "gp:ACCESS",
        "gp:m1.DESC$",
    )
    told = snapshot(*pvs, "--json")
    assert told.code == 0
    found = values(told)
    assert [found[pv]["value"] for pv in pvs] == [7, "text", text, [1, 2, 200], [1.5, -2.0], 0, "motor 1"]
    assert found["gp:ACCESS"]["text"] == "Running"
    report = snapshot("--show").out
    assert f" gp:gp:longtext1 {text}\n" in report
    assert " gp:gp:array1    [1.5, -2.0] " in report


def test_long_arrays_are_shown_by_their_ends_and_recorded_whole(snapshot, put):
    put("gp:gp:array2", list(range(1000)))
    report = snapshot("gp:gp:array2").out
    assert " [0.0, 1.0, 2.0, ... 997.0, 998.0, 999.0] (1000 values)\n" in report
    assert json.loads(snapshot("--show", "--json").out)["pvs"][0]["value"] == [float(n) for n in range(1000)]


def test_the_order_given_is_kept_in_the_documents_and_the_report_is_sorted(snapshot, tmp_path):
    pvs = ["gp:m3.DESC", "gp:m1", "gp:m2.VAL", "gp:m1.RBV"]
    report = snapshot(*pvs).out
    (run,) = runs(tmp_path)
    (descriptor,) = (document for name, document in RunFile(run.path) if name == "descriptor")
    assert [key["source"] for key in descriptor["data_keys"].values()] == [f"PV:{pv}" for pv in pvs]
    assert [line.split()[3] for line in report.splitlines() if " PV " in line] == sorted(pvs)


def test_names_that_differ_only_in_signs_have_keys_of_their_own():
    from instrument.devices.pvs import unique_keys

    assert unique_keys(["a:b", "a.b", "a_b", "1a"]) == {"a:b": "a_b", "a.b": "a_b_2", "a_b": "a_b_3", "1a": "_1a"}


def test_a_pv_that_does_not_answer_is_a_line_and_exit_code_1_and_the_others_are_recorded(snapshot):
    told = snapshot("gp:m1", "gp:no.pe", "gp:no_pe", "gp:m2", "--timeout", "3")  # their data keys would be one
    assert told.code == 1
    lines = [f"bluesky_snapshot: {pv} is not in the snapshot: no answer in 3 s" for pv in ("gp:no.pe", "gp:no_pe")]
    assert told.err.splitlines() == lines
    rows = [line.split(maxsplit=2) for line in told.out.splitlines() if "PV  " in line]
    for pv in ("gp:no.pe", "gp:no_pe"):
        assert ["PV", pv, "not read: no answer in 3 s"] in [[*row[:2], row[2].rstrip()] for row in rows]
    assert told.out.count(" PV     gp:m") == 2
    assert snapshot("--show").out == told.out


def test_an_unreachable_pv_is_a_line_although_another_has_the_data_key_that_it_would_have():
    answers = {"a_b": {"source": "PV:a.b", "dtype": "number", "shape": []}}
    silent = {"a_b": {"source": "PV:a_b", "dtype": "string", "shape": []}}
    documents = [("start", {"uid": "1"})]
    for stream, data_keys, value in (("primary", answers, 1.5), (UNREACHABLE, silent, "no answer")):
        documents.append(("descriptor", {"uid": stream, "name": stream, "data_keys": data_keys}))
        documents.append(("event", {"descriptor": stream, "data": {"a_b": value}, "timestamps": {"a_b": 0.0}}))
    assert [(entry.name, entry.shown) for entry in Snapshot.of(documents).entries] == [
        ("a.b", "1.5"),
        ("a_b", "not read: no answer"),
    ]


def test_pvs_come_from_files_too(snapshot, tmp_path):
    (tmp_path / "motors.txt").write_text("# motors\ngp:m1  gp:m2\n\ngp:m3.VAL # and a comment\n")
    told = snapshot("@motors.txt", "gp:m4", "--json")
    assert told.code == 0
    assert set(values(told)) == {"gp:m1", "gp:m2", "gp:m3.VAL", "gp:m4"}


def test_quiet_prints_the_uid_only_and_the_list_has_what_was_said_of_each(snapshot, tmp_path):
    given = "proposal_id=GUP-1, purpose=just tuned, situation=routine"  # one that every run has, and two others
    uid = snapshot("gp:m1", "-q", "-m", given).out.strip()
    (run,) = runs(tmp_path)
    assert run.uid == uid
    listed = snapshot("--list").out
    assert f"1       {uid[:8]} " in listed
    assert f" {given}\n" in listed
    shown = snapshot("--show").out
    assert "\nproposal_id: GUP-1\npurpose: just tuned\nscan_id: 1\nsituation: routine\n" in shown
    assert "beamline_id" not in shown  # which says nothing about this one
    assert snapshot("--list", "-q").out.strip() == uid
    assert snapshot("--show", uid[:6], "-q").out.strip() == uid
    assert snapshot("--show", "1", "-q").out.strip() == uid


def test_the_run_is_as_those_of_sessions_are_and_no_spec_file_takes_it(snapshot, tmp_path):
    import sqlite3

    snapshot("gp:m1")
    (run,) = runs(tmp_path)
    assert run.start["scan_id"] == 1
    assert {"login_id", "beamline_id", "versions"} <= run.start.keys()
    assert run.stop["exit_status"] == "success"
    with sqlite3.connect(
        tmp_path / ".data" / "outbox.sqlite"
    ) as marks:  # as a session that writes SPEC files leaves it
        marks.execute("INSERT INTO consumers VALUES ('spec', 0)")
    snapshot("gp:m1")
    with sqlite3.connect(tmp_path / ".data" / "outbox.sqlite") as marks:
        marked = marks.execute("SELECT scan_id, consumer, state FROM deliveries").fetchall()
    assert marked == [("2", "spec", "not wanted")]


# --- what bad input gets


NO_PV = 'no PV is given: name some, as in bluesky_snapshot gp:m1 gp:m2 -m "purpose=just tuned"'
PAIRS = 'write -m "key=value, key=value", and no comma in a value'
WHICH = "give -1 for the last snapshot, a scan number or the beginning of a uid; bluesky_snapshot --list shows them"
HELP = "bluesky_snapshot --help tells more"
SILENT = "nothing answers, so nothing is recorded"
CATALOG = "bluesky_class.yml has no such catalog"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], NO_PV),
        (["gp:m1", "gp:m2", "gp:m1"], "gp:m1 is given twice: give each PV once"),
        (["gp:m1", "@list"], "gp:m1 is given twice (list:2): give each PV once"),
        (["@list", "@list"], "gp:m2 is given twice (list:1): give each PV once"),
        (["@nowhere"], "the list of PVs nowhere can't be read (No such file or directory)"),
        (["@empty"], "the list of PVs empty names none: write one or more in a line"),
        (["gp:m1", ""], "a PV without a name is given: leave out the empty quotes"),
        (["gp:m1", "-m", "purpose"], f"-m \"purpose\": 'purpose' is no key=value; {PAIRS}"),
        (["gp:m1", "-m", "a=1, =2"], f"-m \"a=1, =2\": '=2' is no key=value; {PAIRS}"),
        (["gp:m1", "-m", ""], f"-m \"\": '' is no key=value; {PAIRS}"),
        (["gp:m1", "-m", "a=1, a=2"], '-m "a=1, a=2": a is given twice'),
        (["gp:m1", "-m", "uid=1"], '-m "uid=1": uid is set by the run itself: choose another key'),
        (["gp:m1", "-b", "clas_2021_03"], f"-b clas_2021_03: {CATALOG}; did you mean 'class_2021_03'?"),
        (["gp:m1", "-b", "x"], f"-b x: {CATALOG}; there are class_2021_03, embedded"),
        (["gp:m1", "--timeout", "no"], f"argument --timeout: 'no' is no time: give seconds, more than 0; {HELP}"),
        (["gp:m1", "--tomeout", "1"], f"unrecognized arguments: --tomeout 1; {HELP}"),
        (["gp:m1", "--show"], "--show takes no PVs, and gp:m1 would be recorded without it"),
        (["--show", "--list"], "--show and --list are two things: ask for one at a time"),
        (["--show", "-m", "a=1"], "-m says nothing to --show: leave it out"),
        (["--list", "0"], "--list 0: how many snapshots to list is a whole number, 1 or more"),
        (["--show"], "there is no snapshot -1: none is recorded here"),
        (["--show", "17"], f"there is no run 17: {WHICH}"),
        (["--show", "f00"], f"there is no run f00: {WHICH}"),
        (
            ["gp:no", "gp:nor", "--timeout", "0.2"],
            f"snapshot: {SILENT} (gp:no: no answer in 0.2 s; gp:nor: no answer in 0.2 s): check the names and the IOC",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line_and_nothing_is_recorded(snapshot, tmp_path, arguments, line):
    (tmp_path / "list").write_text("gp:m2\ngp:m1\n")
    (tmp_path / "empty").write_text("# nothing\n")
    told = snapshot(*arguments)
    assert (told.code, told.out, told.err) == (2, "", f"bluesky_snapshot: {line}\n")
    assert runs(tmp_path) == []


def test_another_kind_of_run_is_no_snapshot(snapshot, tmp_path):
    from bluesky import RunEngine, plan_stubs

    from instrument.callbacks.journal import Journal

    journal = Journal(DataDirectory(tmp_path / ".data").runs)
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(journal)

    def scan():
        yield from plan_stubs.open_run({"plan_name": "scan", "scan_id": 5})
        yield from plan_stubs.close_run()

    (uid,) = engine(scan())
    journal.close()
    told = snapshot("--show", uid[:8])
    line = f"run 5 ({uid[:7]}) is a scan, not a snapshot: bluesky_snapshot --list shows the snapshots"
    assert (told.code, told.err) == (2, f"bluesky_snapshot: {line}\n")


# --- IOCs with faults


def wait_until(condition, what):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def is_client(process, port):
    """Whether a process holds a connection to a port."""
    try:
        connections = psutil.Process(process.pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(c.status == psutil.CONN_ESTABLISHED and c.raddr and c.raddr.port == port for c in connections)


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (signal.SIGKILL, "its IOC went away while it was read"),
        (signal.SIGSTOP, "it was connected, but sent no value in 5 s"),
    ],
)
def test_an_ioc_that_dies_or_hangs_while_it_is_read_costs_its_own_pvs_only(shell, fresh_beamline, fault, line):
    other = fresh_beamline(prefix="sky:")
    shell.variables.pop("VIRTUAL_BEAMLINE")
    shell.variables["EPICS_CA_ADDR_LIST"] += " " + other.environment.variables["EPICS_CA_ADDR_LIST"]
    # gp:nope keeps it waiting until the other IOC has gone
    process = shell.start("gp:m9", "sky:m1", "gp:nope", "--timeout", "5")
    try:
        address = other.environment.ca_address
        wait_until(lambda: is_client(process, address[1]), "never connected")
        for _ in range(20):  # its channel, too: the IOC has answered others since
            read_text("sky:m1", address, DEADLINE)
        os.kill(other.pid, fault)
        out, err = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        if fault == signal.SIGSTOP:
            os.kill(other.pid, signal.SIGCONT)
    assert process.returncode == 1
    assert err.splitlines() == [
        f"bluesky_snapshot: sky:m1 is not in the snapshot: {line}",
        "bluesky_snapshot: gp:nope is not in the snapshot: no answer in 5 s",
    ]
    assert " PV     gp:m9   0.0 " in out
    assert f"not read: {line}" in out


LARGE_ARRAY = """
record(waveform, "big:large") { field(FTVL, "DOUBLE") field(NELM, "10000") }
record(ao, "big:small") { field(VAL, "1") field(PINI, "YES") }
"""
FILL = "import epics; assert epics.caput('big:large', [1.0] * 10000, wait=True, connection_timeout=30) == 1"


def test_an_array_larger_than_the_set_size_is_told_as_such(shell, tmp_path):
    from virtual_beamline import supervisor

    database = tmp_path / "large.db"
    database.write_text(LARGE_ARRAY)
    lease = supervisor.lease_ports()
    variables = dict(lease.environment("big").variables)
    variables |= {"EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1", "EPICS_CA_SERVER_PORT": str(lease.first)}
    variables |= {"EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1", "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO"}
    ioc = subprocess.Popen(
        [sys.executable, "-m", "epicscorelibs.ioc", "-d", str(database)],
        env={**shell.environment, **variables},
        stdin=subprocess.PIPE,  # it ends when this does
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        shell.variables.pop("VIRTUAL_BEAMLINE")
        shell.variables["EPICS_CA_ADDR_LIST"] = variables["EPICS_CA_ADDR_LIST"]
        subprocess.run([sys.executable, "-c", FILL], env=shell.environment, check=True)
        small = {"EPICS_CA_MAX_ARRAY_BYTES": "16384", "EPICS_CA_AUTO_ARRAY_BYTES": "NO"}
        done = shell.run("big:large", "big:small", "--timeout", "3", **small)
        assert done.returncode == 1
        assert done.stderr == (
            "bluesky_snapshot: big:large is not in the snapshot: its 10000 values are more than "
            "EPICS_CA_MAX_ARRAY_BYTES=16384 lets through: set it higher, here and at the IOC\n"
        )
        assert " PV     big:small 1.0 " in done.stdout
        assert shell.run("big:large", "--timeout", "10").returncode == 0
    finally:
        ioc.kill()
        ioc.communicate()
        lease.release()
