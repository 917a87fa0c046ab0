"""Setting again what a snapshot has: dry run first, refused as a whole, recorded, undone; what goes wrong amidst."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from instrument.devices.pvs import PvReading
from instrument.devices.restoring import MotorState, record_and_field, steps
from instrument.framework.comparison import Tolerance
from instrument.framework.snapshots import BEFORE, OUTCOME, Entry, Snapshot
from tests.snapshot.test_taking import runs, wait_until
from virtual_beamline.client import read_text

DEADLINE = 60.0


def recorded(run, stream):
    """A stream of a run: value by name of the PV."""
    from instrument.framework.runfiles import RunFile

    return {entry.name: entry.value for entry in Snapshot.of(iter(RunFile(run.path)), stream).entries}


def newest(tmp_path):
    return runs(tmp_path)[0]


SETTABLE = ("gp:gp:text1", "gp:m1", "gp:gp:float1", "gp:ACCESS", "gp:gp:longtext1", "gp:gp:array1")
THEN = {
    "gp:gp:text1": "then",
    "gp:m1": 0.2,
    "gp:gp:float1": 3.5,
    "gp:ACCESS": 1,
    "gp:gp:longtext1": list(b"a long text, longer than the forty characters of a string"),
    "gp:gp:array1": [1.5, 2.5, 3.5],
}
NOW = {
    "gp:gp:text1": "now",
    "gp:m1": 0.0,
    "gp:gp:float1": 4.5,
    "gp:ACCESS": 0,
    "gp:gp:longtext1": list(b"short\0"),
    "gp:gp:array1": [9.0],
}


def test_a_restore_is_dry_first_sets_in_the_order_given_and_is_undone_by_one_command(snapshot, put, get, tmp_path):
    for pv, value in THEN.items():
        put(pv, value)
    uid = snapshot(*SETTABLE, "gp:m1.RBV", "gp:userCalc1", "gp:IOC_CPU_LOAD", "gp:m2", "-q").out.strip()
    for pv, value in NOW.items():
        put(pv, value)
    then = {**THEN, "gp:gp:longtext1": bytes(THEN["gp:gp:longtext1"]).decode()}
    now = {**NOW, "gp:gp:longtext1": "short"}

    told = snapshot("--restore", "-1")
    assert (told.code, told.err) == (0, "")
    table = [line.split()[0] for line in told.out.splitlines() if line.startswith("gp:")]
    assert table == [*SETTABLE, "gp:m1.RBV", "gp:userCalc1", "gp:IOC_CPU_LOAD", "gp:m2"]
    assert told.out.endswith(
        f"\ndry run: 6 would be set, nothing was; bluesky_snapshot --restore {uid[:7]} --write sets them\n"
    )
    assert len(runs(tmp_path)) == 1
    assert get("gp:m1", "gp:gp:float1", "gp:ACCESS", "gp:gp:text1") == [0.0, 4.5, 0, "now"]
    assert snapshot("--diff", "-1").out.splitlines()[-1] in {"8 of 10 differ", "9 of 10 differ"}  # the load may have

    told = snapshot("--restore", uid[:7], "--write")
    assert (told.code, told.err) == (0, "")
    for line in (
        "gp:m1.RBV  left as it is: read-only (no write access)",
        "gp:userCalc1  left as it is: read-only (the swait record computes it)",
        "gp:IOC_CPU_LOAD  left as it is: read-only (the ai record reads it from a device)",
        "gp:m2  as it is",
    ):
        name, what = line.split("  ")
        assert any(row.startswith(f"{name} ") and row.rstrip().endswith(what) for row in told.out.splitlines()), line
    assert told.out.endswith("\n6 of 6 were set; bluesky_snapshot --undo sets back what they had\n")
    assert "\ngp:m1: 0.0 -> 0.2: set\n" in told.out
    assert get("gp:m1", "gp:m1.RBV", "gp:m1.DMOV") == [0.2, pytest.approx(0.2), 1]

    run = newest(tmp_path)
    assert run.start["plan_name"] == "snapshot_restore"
    assert run.start["snapshot"]["uid"] == uid
    assert run.stop["exit_status"] == "success"
    assert shown(recorded(run, BEFORE)) == now
    assert shown(recorded(run, "primary")) == then
    assert recorded(run, OUTCOME) == dict.fromkeys(SETTABLE, "set")
    times = [time for pv, time in times_of(run).items() if pv in SETTABLE]
    assert times == sorted(times)  # each was set when the one before had arrived

    told = snapshot("--undo")
    assert (told.code, told.err) == (0, "")
    assert get("gp:m1", "gp:m1.RBV", "gp:gp:float1", "gp:ACCESS", "gp:gp:text1") == [
        0.0,
        pytest.approx(0.0),
        4.5,
        0,
        "now",
    ]
    undone = newest(tmp_path)
    assert undone.start["undoes"]["uid"] == run.uid
    assert shown(recorded(undone, "primary")) == now
    assert list(recorded(undone, BEFORE)) == list(reversed(SETTABLE))
    assert "6 would be set" in snapshot("--undo", "--dry-run").out  # once more would undo that
    assert "nothing is to be set: 6 are as in the snapshot" in snapshot("--undo", str(run.start["scan_id"])).out


def shown(values):
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in values.items()}


def times_of(run):
    from instrument.framework.runfiles import RunFile

    return {entry.name: entry.timestamp for entry in Snapshot.of(iter(RunFile(run.path))).entries}


def test_past_a_limit_nothing_at_all_is_set(snapshot, put, get, tmp_path):
    put("gp:gp:float1", 1)
    put("gp:m3", 0.5)
    snapshot("gp:gp:float1", "gp:m3", "-q")
    put("gp:m3", 0.0)
    put("gp:gp:float1", 2)
    put("gp:m3.HLM", 0.25)
    try:
        for arguments in (["--write"], []):
            told = snapshot("--restore", "-1", *arguments)
            line = "snapshot_restore: refused, nothing was set (gp:m3: 0.5 is outside of its limits -32000 to 0.25)"
            assert (told.code, told.err) == (2, f"bluesky_snapshot: {line}\n")
            assert "refused: 0.5 is outside of its limits -32000 to 0.25" in told.out
        assert get("gp:gp:float1", "gp:m3.RBV") == [2.0, 0.0]
        assert len(runs(tmp_path)) == 1
    finally:
        put("gp:m3.HLM", 32000)


def test_onto_an_ioc_that_is_offline_nothing_at_all_is_set(shell, snapshot, fresh_beamline, put, get, tmp_path):
    other = fresh_beamline(prefix="sky:")
    shell.variables.pop("VIRTUAL_BEAMLINE")
    shell.variables["EPICS_CA_ADDR_LIST"] += " " + other.environment.variables["EPICS_CA_ADDR_LIST"]
    put("gp:gp:float1", 1)
    assert shell.run("gp:gp:float1", "sky:gp:float1", "-q").returncode == 0
    put("gp:gp:float1", 2)
    other.stop()
    done = shell.run("--restore", "-1", "--write", "--timeout", "4")
    assert done.returncode == 2
    assert done.stderr == (
        "bluesky_snapshot: snapshot_restore: refused, nothing was set "
        "(sky:gp:float1: it does not answer (no answer in 4 s))\n"
    )
    assert get("gp:gp:float1") == 2.0
    assert len(runs(tmp_path)) == 1


@pytest.mark.parametrize("fault", ["the IOC dies", "Ctrl-C"])
def test_what_was_and_was_not_set_is_told_and_recorded_when_a_restore_ends_amidst(
    shell, fresh_beamline, put, get, tmp_path, fault
):
    other = fresh_beamline(prefix="sky:")
    shell.variables.pop("VIRTUAL_BEAMLINE")
    shell.variables["EPICS_CA_ADDR_LIST"] += " " + other.environment.variables["EPICS_CA_ADDR_LIST"]
    put("gp:gp:float1", 1)
    put("gp:m4.VELO", 1)
    put("gp:m4", 0.0)
    put("gp:gp:float2", 1)
    moving = "sky:m1" if fault == "the IOC dies" else "gp:m4"
    assert shell.run("gp:gp:float1", moving, "gp:gp:float2", "-q").returncode == 0
    put("gp:gp:float1", 2)
    put("gp:gp:float2", 2)
    away = (
        f"import epics; epics.caput('{moving}', 0.5, wait=True, connection_timeout=20); "
        f"assert epics.caput('{moving}.VELO', 0.02, wait=True, connection_timeout=20) == 1"  # it takes 25 s to go back
    )
    subprocess.run([sys.executable, "-c", away], env=shell.environment, check=True, timeout=DEADLINE)
    process = shell.start("--restore", "-1", "--write")
    try:
        wait_until(lambda: get("gp:gp:float1") == 1.0, "the first was never set")
        if fault == "Ctrl-C":
            wait_until(lambda: get("gp:m4.DMOV") == 0, "the motor never moved")
            os.kill(process.pid, signal.SIGINT)
        else:
            address = other.environment.ca_address
            wait_until(lambda: read_text("sky:m1.DMOV", address, DEADLINE) == "0", "the motor never moved")
            os.kill(other.pid, signal.SIGKILL)
        out, err = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        put("gp:m4.VELO", 1)
    assert process.returncode == 1
    run = newest(tmp_path)
    outcomes = recorded(run, OUTCOME)
    assert outcomes["gp:gp:float1"] == "set"
    assert outcomes["gp:gp:float2"] == "not tried"
    assert "\ngp:gp:float1: 2.0 -> 1.0: set\n" in out
    assert "\ngp:gp:float2: 2.0 -> 1.0: not tried\n" in out
    assert "\n1 of 3 were set; bluesky_snapshot --undo sets back what they had\n" in out
    assert get("gp:gp:float1", "gp:gp:float2") == [1.0, 2.0]
    if fault == "Ctrl-C":
        assert outcomes["gp:m4"] == "not set: interrupted"
        assert run.stop["exit_status"] == "abort"
        assert "\nbluesky_snapshot: interrupted: motors are told to stop; the lines above say what was set" in err
        wait_until(lambda: get("gp:m4.DMOV") == 1, "the motor was not stopped")
        assert 0.05 < get("gp:m4.RBV") <= 0.5  # on its way to 0
    else:
        assert outcomes["sky:m1"] == "not set: sky:m1: its IOC went away while it was set"
        assert run.stop["exit_status"] == "fail"
        assert err == (
            "bluesky_snapshot: snapshot_restore: 1 of 3 were set; sky:m1: not set: sky:m1: its IOC went away while it "
            "was set; 1 not tried; bluesky_snapshot --undo sets back what was set\n"
        )


def test_a_value_that_is_not_taken_is_told(snapshot, put, get):
    put("gp:m5", 0.1)
    snapshot("gp:m5", "-q")
    put("gp:m5", 0.0)
    put("gp:m5_able", "Disable")
    try:
        told = snapshot("--restore", "-1", "--write")
        assert told.code == 1
        assert told.err.startswith("bluesky_snapshot: snapshot_restore: 0 of 1 were set; gp:m5: set, but it is 0.0; ")
    finally:
        put("gp:m5_able", "Enable")


@pytest.mark.parametrize(
    ("fields", "outcome", "next_time"),
    [
        # an encoder that shows 0.3 or 0, never 0.2
        (
            {"UEIP": 1, "ERES": 0.3, "RTRY": 0},
            "set, but the motor is at 0.3, out of retries",
            "move: the motor is at 0.3, out of retries",
        ),
        ({"CNEN": 0}, "set, but it is 0.0 (the motor is at 0, in MAJOR alarm)", "move"),
    ],
)
def test_a_motor_that_did_not_arrive_is_told(snapshot, put, get, fields, outcome, next_time):
    put("gp:m7", 0.2)
    snapshot("gp:m7", "-q")
    put("gp:m7", 0.0)
    usual = {field: get(f"gp:m7.{field}") for field in fields}
    for field, value in fields.items():
        put(f"gp:m7.{field}", value)
    try:
        told = snapshot("--restore", "-1", "--write")
        assert told.code == 1
        assert f"\ngp:m7: 0.0 -> 0.2: {outcome}\n" in told.out
        assert told.err.startswith(f"bluesky_snapshot: snapshot_restore: 0 of 1 were set; gp:m7: {outcome}; ")
        (row,) = [line for line in snapshot("--restore", "-1").out.splitlines() if line.startswith("gp:m7")]
        assert row.split(maxsplit=3)[3].strip() == next_time
    finally:
        for field, value in usual.items():
            put(f"gp:m7.{field}", value)
    told = snapshot("--restore", "-1", "--write")
    assert (told.code, told.err) == (0, "")
    assert get("gp:m7", "gp:m7.RBV", "gp:m7.MISS", "gp:m7.SEVR") == [0.2, pytest.approx(0.2), 0, 0]


def test_a_motor_within_the_tolerance_that_is_asked_for_is_where_it_was_sent_to(snapshot, put, get):
    put("gp:m8", 0.25)
    put("gp:m8.SPDB", 1.0)  # setpoint deadband: it is not sent as near as that
    put("gp:m8", 0.2)
    snapshot("gp:m8", "gp:m8.DVAL", "-q")
    try:
        assert get("gp:m8.RBV") == pytest.approx(0.25)
        assert snapshot("--restore", "-1").out.count("move: the motor is at 0.25") == 2
        assert "nothing is to be set: 2 are as in the snapshot" in snapshot("--restore", "-1", "--relative", "0.3").out
        assert "2 would be set" in snapshot("--restore", "-1", "--tolerance", "0.01").out

        put("gp:m8", 0.4)
        told = snapshot("--restore", "-1", "--tolerance", "0.1", "--write")
        assert (told.code, told.err) == (0, "")
        assert get("gp:m8", "gp:m8.RBV") == [0.2, pytest.approx(0.25)]
        put("gp:m8", 0.4)
        told = snapshot("--restore", "-1", "--tolerance", "0.01", "--write")
        assert told.code == 1
        assert "\ngp:m8: 0.4 -> 0.2: set, but the motor is at 0.25\n" in told.out
    finally:
        put("gp:m8.SPDB", 0.0)


def test_what_is_changed_by_setting_another_pv_is_told(snapshot, put, get):
    put("gp:m6.OFF", 1.0)
    put("gp:m6", 2.0)
    snapshot("gp:m6", "gp:m6.OFF", "-q")
    put("gp:m6.OFF", 0.5)  # the position is 1.5 now
    put("gp:m6", 2.0)  # and as in the snapshot again, for another offset
    try:
        told = snapshot("--restore", "-1", "--write")
        assert told.code == 1
        assert "\ngp:m6.OFF: 0.5 -> 1.0: set\n" in told.out
        assert "\ngp:m6: 2.0 -> 2.0: not set, since it was the same, but now it is 2.5\n" in told.out
        assert snapshot("--restore", "-1", "--write").code == 0  # what is left
        assert get("gp:m6", "gp:m6.OFF") == [2.0, 1.0]
    finally:
        put("gp:m6.OFF", 0.0)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--restore", "-1"], "there is no snapshot -1: none is recorded here"),
        (["--undo"], "there is no restore -1: none is recorded here"),
        (["--restore", "-1", "--undo"], "--restore and --undo are two things: ask for one at a time"),
        (["--restore", "-1", "gp:m1"], "--restore takes no PVs, and gp:m1 would be recorded without it"),
        (["--restore", "-1", "--html", "x"], "--html says nothing to --restore: leave it out"),
        (["--write", "gp:m1"], "--write says nothing to a snapshot: leave it out"),
    ],
)
def test_a_mistake_is_told_in_one_line(snapshot, arguments, line):
    told = snapshot(*arguments)
    assert (told.code, told.out, told.err) == (2, "", f"bluesky_snapshot: {line}\n")


# --- what is done with which PV


def decided(value, now, *, name="a", facts=None, count=1, writable=True, then=None, **known):
    entry = Entry("a", {"source": f"PV:{name}", **(then or {})}, value)
    reading = PvReading(name, now, 0.0, {"source": f"PV:{name}", **known}, writable, count)
    (step,) = steps([entry], {name: reading}, {name: facts or {"RTYP": "ao"}}, {}, Tolerance())
    return step.action, step.reason


LIMITS = {"lower_ctrl_limit": -1.0, "upper_ctrl_limit": 1.0}


@pytest.mark.parametrize(
    ("arguments", "action"),
    [
        ({"value": 1.0, "now": 1.0}, ("same", "")),
        ({"value": 1.0, "now": 2.0}, ("set", "")),
        ({"value": 1.0, "now": 2.0, "facts": {"RTYP": "motor"}}, ("move", "")),
        ({"value": 1.0, "now": 2.0, "facts": {"RTYP": "motor"}, "name": "a.VELO"}, ("set", "")),
        ({"value": 1.0, "now": 2.0, "writable": False}, ("leave", "read-only (no write access)")),
        ({"value": 2.0, "now": 1.0, **LIMITS}, ("refuse", "2 is outside of its limits -1 to 1")),
        ({"value": float("nan"), "now": 1.0, **LIMITS}, ("refuse", "nan is outside of its limits -1 to 1")),
        # control limits of other records are those of a display
        ({"value": 2.0, "now": 1.0, "facts": {"RTYP": "sub"}, "name": "a.A", **LIMITS}, ("set", "")),
        ({"value": 1.0, "now": 2.0, "facts": {"RTYP": "calc"}}, ("leave", "read-only (the calc record computes it)")),
        ({"value": 1.0, "now": 2.0, "facts": {"RTYP": "calc"}, "name": "a.A"}, ("set", "")),
        ({"value": 1, "now": 2, "facts": {"RTYP": "ai", "DTYP": "Soft Channel", "INP": ""}}, ("set", "")),
        ({"value": 1, "now": 2, "facts": {"RTYP": "ai", "DTYP": "Soft Channel", "INP": "3"}}, ("set", "")),
        (
            {"value": 1, "now": 2, "facts": {"RTYP": "ai", "DTYP": "Soft Channel", "INP": "b.VAL CP NMS"}},
            ("leave", "read-only (the ai record reads it from b.VAL CP NMS)"),
        ),
        (
            {"value": 1, "now": 2, "facts": {"RTYP": "bi", "DTYP": "asynInt32", "INP": "@asyn(x)"}},
            ("leave", "read-only (the bi record reads it from a device)"),
        ),
        (
            {"value": "b", "now": "a", "facts": {"RTYP": "waveform", "DTYP": "asynOctetWrite"}, "count": 256},
            ("set", ""),  # file names of areaDetector
        ),
        (
            {"value": "b", "now": "a", "facts": {"RTYP": "waveform", "DTYP": "asynOctetRead"}, "count": 256},
            ("leave", "read-only (the waveform record reads it from a device)"),
        ),
        (
            {"value": "b", "now": "a", "facts": {"RTYP": "waveform", "DTYP": "Parameter"}, "count": 256},
            ("set", ""),  # the same of the simulated one
        ),
        (
            {"value": "b", "now": "a", "facts": {"RTYP": "waveform", "DTYP": "Parameter"}, "count": 9, "name": "a_RBV"},
            ("leave", "read-only (the waveform record reads it from a device)"),
        ),
        ({"value": 1, "now": 0, "then": {"enum_strs": ["a", "b"]}, "enum_strs": ["b", "a"]}, ("same", "")),
        (
            {"value": 1, "now": 0, "then": {"enum_strs": ["a", "b"]}, "enum_strs": ["a", "c"]},
            ("refuse", "it has no state 'b' any more"),
        ),
        ({"value": "a", "now": 1.0}, ("refuse", "it was text then, and is not now")),
        ({"value": [1, 2, 3], "now": [1, 2], "count": 2}, ("refuse", "it had 3 values then, and has room for 2 now")),
        ({"value": [], "now": [1, 2], "count": 2}, ("leave", "an empty array can't be written")),
    ],
)
def test_what_is_done_with_a_pv(arguments, action):
    assert decided(**arguments) == action


AT_REST = {
    "RBV": 1.0,
    "DRBV": -1.0,
    "RRBV": 500,
    "DIFF": 0.0,
    "RDBD": 0.001,
    "PREC": 3,
    "DMOV": 1,
    **dict.fromkeys(("MISS", "HLS", "LLS", "SEVR"), 0),
}


@pytest.mark.parametrize(
    ("fields", "arrived", "told"),
    [
        ({}, True, "the motor is at 1"),
        ({"DIFF": -0.5, "RDBD": 0.5}, True, "the motor is at 1"),
        ({"DIFF": 0.002}, False, "the motor is at 1"),
        ({"DIFF": 0.002, "PREC": 2}, True, "the motor is at 1"),  # seen by nobody
        ({"DIFF": 0.002, "PREC": 0}, False, "the motor is at 1"),  # what nobody has set
        ({"MISS": 1}, False, "the motor is at 1, out of retries"),
        ({"HLS": 1}, True, "the motor is at 1, at its high limit switch"),  # where it was to go
        ({"LLS": 1, "DIFF": -3.0}, False, "the motor is at 1, at its low limit switch"),
        ({"SEVR": 1}, True, "the motor is at 1"),
        ({"SEVR": 2}, False, "the motor is at 1, in MAJOR alarm"),
        ({"SEVR": 3, "DMOV": 0, "DIFF": 1.0}, False, "the motor is at 1, moving, in INVALID alarm"),
    ],
)
def test_whether_a_motor_is_where_it_was_sent_to(fields, arrived, told):
    state = MotorState.of(AT_REST | fields)
    assert (state.arrived(state.readback + fields.get("DIFF", 0.0), Tolerance()), str(state)) == (arrived, told)


@pytest.mark.parametrize(
    ("wanted", "fields", "sent_by", "arrived"),
    [
        (1.1, {}, "VAL", True),
        (0.9, {}, "VAL", True),
        (1.3, {}, "VAL", False),
        (1.1, {"MISS": 1}, "VAL", False),
        (1.1, {"SEVR": 2}, "VAL", False),
        (1.1, {"SEVR": 1}, "VAL", True),
        (1.1, {"HLS": 1}, "VAL", False),  # the switch is why it is not there
        (0.9, {"HLS": 1}, "VAL", True),
        (0.9, {"LLS": 1}, "VAL", False),
        (1.1, {"LLS": 1}, "VAL", True),
        (-1.1, {}, "DVAL", True),
        (1.1, {}, "DVAL", False),  # it is at -1 there
        (-1.1, {"LLS": 1}, "DVAL", False),  # which may be either direction
        (-1.1, {"HLS": 1}, "DVAL", False),
        (500, {}, "RVAL", True),
    ],
)
def test_a_tolerance_allows_a_motor_more_but_not_at_the_limit_that_stopped_it(wanted, fields, sent_by, arrived):
    state = MotorState.of(AT_REST | {"DIFF": 0.1} | fields, sent_by)
    assert state.arrived(wanted, Tolerance(0.2)) == arrived
    assert not state.arrived(state.readback + 0.1, Tolerance())


def test_what_is_no_pv_or_was_not_read_is_left(virtual_beamline):
    soft = Entry("a", {"source": "SIM:a"}, 1)
    unread = Entry("b", {"source": "PV:b"}, problem="no answer in 3 s")
    gone = Entry("c", {"source": "PV:c"}, 1)
    found = steps([soft, unread, gone], {}, {}, {"b": "x", "c": "no answer in 3 s"}, Tolerance())
    assert [(step.action, step.reason) for step in found] == [
        ("leave", "it is no EPICS PV"),
        ("leave", "it was not read then (no answer in 3 s)"),
        ("refuse", "it does not answer (no answer in 3 s)"),
    ]


@pytest.mark.parametrize(
    ("pv", "record", "field"),
    [("gp:m1", "gp:m1", "VAL"), ("gp:m1.RBV", "gp:m1", "RBV"), ("a.DESC$", "a", "DESC"), ('a.{"dbnd":{}}', "a", "VAL")],
)
def test_the_record_and_field_of_a_pv(pv, record, field):
    assert record_and_field(pv) == (record, field)
