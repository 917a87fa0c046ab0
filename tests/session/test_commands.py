"""What a person types and sees: plans that run as statements, SPEC's commands, with and without parentheses."""

import re

import pytest

from tests.faults.session import Session, until


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    with Session(tmp_path_factory.mktemp("commands")) as session:
        yield session


def position(session, motor="m1"):
    return float(session.pv(f"gp:{motor}.RBV"))


# --- the rule: a bare expression statement that is a plan is run


@pytest.mark.parametrize(
    ("typed", "ends_at"),
    [
        ("mv(m1, 0.1)", 0.1),
        ("mv(m1, 0.2);", 0.2),
        ("mv('m1', 0.3)", 0.3),
        ("mv m1 0.4", 0.4),
        ("mv m1, 0.5", 0.5),
        ("for x in (0.1, 0.6): mv(m1, x)", 0.6),
        ("for x in (0.1, 0.7): mv m1 x", 0.7),
        ("if m1: mv m1 0.8; mvr m1 0.1", 0.9),
        ("mv m1 2*0.5", 1.0),
        ("RE(mv(m1, 1.1))", 1.1),
        ("bps.mv(m1, 1.2)", 1.2),
    ],
)
def test_a_statement_that_is_a_plan_is_run(session, typed, ends_at):
    shown = session.shows(f"{typed}\n" if typed.startswith(("for", "if")) else typed)
    if typed.startswith(("for", "if")):  # an empty line ended the block
        session.until_prompt()
    assert shown in ("", "...:", "Out: ()")
    assert position(session) == ends_at


def test_the_same_command_composes(session):
    session.run("exec('def there_and_back(motor, far):\\n yield from mv(motor, far)\\n yield from mvr(motor, -far)')")
    session.run("mv m1 0")
    assert session.shows("there_and_back(m1, 0.3)") == ""
    assert position(session) == 0
    assert session.shows("bps.rd(m1)") == "Out: 0.0"


def test_python_stays_python(session):
    before = position(session)
    assert session.shows("[type(p).__name__ for p in [1, 'a']]") == "Out: ['int', 'str']"
    assert session.shows("(i for i in [1])").startswith("Out: <generator object at ")
    assert session.shows("mv = 3; mv").endswith("Out: 3")
    assert session.shows("mv -1") == "Out: 2"
    assert session.run("mv m1 3").count("SyntaxError: invalid syntax") == 1
    session.run("del mv; from instrument.collection import mv")
    assert session.shows("mv m1 0.2") == ""
    session.run("mv m1 0")
    assert before == 0


def test_a_plan_that_nobody_runs_is_told(session):
    assert session.shows("p = mv(m1, 3)") == ""
    assert session.shows("p = 1") == (
        "`p = mv(m1, 3)`: the plan mv was never run; type mv(...) as a statement of its own, or RE(...) it"
    )
    session.run("exec('def forgets():\\n mv(m1, 3)\\n yield from mv(m1, 0.5)')")
    assert session.shows("forgets()") == "mv(...) in forgets: the plan mv was never run; write `yield from mv(...)`"
    assert position(session) == 0.5
    session.run("p = mv(m1, 0)")
    assert session.shows("p") == ""
    assert position(session) == 0
    assert session.shows("p") == "this plan has run already: make it again with mv(...)"
    session.run("exec('def five():\\n yield 5')")
    assert session.shows("five()") == "five(...) is no plan: it yields 5, where a plan yields messages"


# --- commands


def test_moves_show_where_the_motors_are(session):
    assert session.shows("umv m1 0.3 m2 -0.2") == "m1: 0 -> 0.3 degrees\nm2: 0 -> -0.2 degrees"
    assert session.shows("umvr m2 0.2") == "m2: -0.2 -> 0 degrees"
    shown = session.run("wa").splitlines()
    assert re.fullmatch(r"m1 +0\.3 +0\.3 +-32000 +32000 +degrees", shown[3])
    assert len([line for line in shown if line.startswith("m")]) == 17
    assert session.run("wm m2 temperature").count("\n") == 5
    session.run("mv m1 0")


def test_ct_counts_and_records_nothing(session):
    number = session.scan_id
    shown = session.shows("ct 0.2")
    assert shown.splitlines()[0] == "timebase = 2e+06  1e+07/s"
    assert [line.split()[0] for line in shown.splitlines()] == ["timebase", "I0", "scint", "diode", "noisy"]
    assert session.scan_id == number
    assert session.pv("gp:scaler1.TP") == "1.000"


SCANS = {
    "ascan m1 0 0.2 2 0.1": (["m1"], [["0.00000"], ["0.10000"], ["0.20000"]], "m1 0 to 0.2"),
    "dscan m1 -0.1 0.1 2 0.1": (["m1"], [["0.10000"], ["0.20000"], ["0.30000"]], "m1 0.1 to 0.3"),
    "a2scan m1 0 0.1 m2 0 -0.1 1 0.1": (
        ["m1", "m2"],
        [["0.00000", "0.00000"], ["0.10000", "-0.10000"]],
        "m1 0 to 0.1, m2 -0.1 to 0",
    ),
    "d2scan m1 0 0.1 m2 0 0.1 1 0.1": (
        ["m1", "m2"],
        [["0.10000", "-0.10000"], ["0.20000", "0.00000"]],
        "m1 0.1 to 0.2, m2 -0.1 to 0",
    ),
    "mesh m1 0 0.1 1 m2 0 0.1 1 0.1": (
        ["m2", "m1"],
        [["0.00000", "0.00000"], ["0.00000", "0.10000"], ["0.10000", "0.00000"], ["0.10000", "0.10000"]],
        "m2 0 to 0.1, m1 0 to 0.1",
    ),
    "dmesh m1 0 0.1 1 m2 0 0.1 1 0.1": (
        ["m2", "m1"],
        [["0.10000", "0.10000"], ["0.10000", "0.20000"], ["0.20000", "0.10000"], ["0.20000", "0.20000"]],
        "m2 0.1 to 0.2, m1 0.1 to 0.2",
    ),
    "lookupscan m1 [0,0.3] 0.1": (["m1"], [["0.00000"], ["0.30000"]], "m1 0 to 0.3"),
    "timescan 0.1 0 2": ([], [[], []], None),
}


def test_scans(session):
    """Each names what is to come, then shows its points, and is recorded under its own name."""
    session.run("mv m1 0 m2 0")
    for typed, (motors, rows, ranges) in SCANS.items():
        if typed.startswith("dscan"):
            session.run("mv m1 0.2")
        name, number = typed.split()[0], session.scan_id + 1
        shown = session.shows(typed).splitlines()
        about = re.sub(r"about \S+ s", "about <seconds> s", shown[0])
        expected = f"{name}: {len(rows)} points of scaler1 noisy{', ' + ranges if ranges else ''}, about <seconds> s"
        assert about.endswith(expected), typed
        table = [[c.strip() for c in line.strip("|").split("|")] for line in shown if line.startswith("|")]
        assert table[0][2:] == [*motors, "timebase", "I0", "scint", "diode", "noisy"], typed
        assert [row[2 : 2 + len(motors)] for row in table[1:]] == rows, typed
        assert shown[-1] == f"generator {name} ['<uid>'] (scan num: {number})", typed
        assert session.last_run() == (number, "success", "", len(rows)), typed
        assert session.pv("gp:scaler1.TP") == "1.000"


def test_a_relative_scan_comes_back_after_ctrl_c(session):
    session.run("mv m2 0.5")
    session.type("dscan m2 1 9 8 0.1")
    session.wait_for(r"\|         1 \|")
    session.press("c")
    session.until_prompt()
    until(lambda: session.pv("gp:m2.DMOV") == "1")
    assert position(session, "m2") == 0.5
    assert session.last_run()[1:3] == ("abort", "Ctrl-C")
    assert session.pv("gp:scaler1.TP") == "1.000"


@pytest.mark.parametrize("typed", ["mv m2 20", "umv m2 20", "mvr m2 20", "umvr m2 20", "timescan 0.1", "ct 60"])
def test_ctrl_c_ends_each(session, typed):
    session.type(typed)
    if "mv" in typed:
        session.until_moving("m2", position(session, "m2") + 0.3)
    elif "timescan" in typed:
        session.wait_for(r"\|         2 \|")
    else:
        until(lambda: session.pv("gp:scaler1.CNT") == "Count")
    session.press("c")
    assert "aborted (Ctrl-C); motors are told to stop, the data so far is kept" in session.until_prompt()
    until(lambda: (session.pv("gp:m2.DMOV"), session.pv("gp:scaler1.CNT")) == ("1", "Done"))
    assert session.pv("gp:scaler1.TP") == "1.000"
    assert session.shows("ct 0.1").startswith("timebase = 1e+06")


def test_limits_and_coordinates(session):
    session.run("mv m2 0")
    assert session.shows("set_lm m2 -5 5").endswith("m2: limits -32000 32000 -> -5 5")
    assert session.shows("mv m2 6") == "mv: m2 would go to 6, outside of its limits -5 to 5; nothing moved"
    assert session.shows("ascan m2 4 6 4 0.1") == (
        "ascan: point 4 of 5: m2: 5.5 degrees is outside of its limits -5 to 5 degrees; nothing moved"
    )
    assert session.shows("set_user m2 3").endswith("m2: set_user 3; user position 0 -> 3")
    assert (session.pv("gp:m2.RBV"), session.pv("gp:m2.DRBV")) == ("3.00000", "0.00000")
    assert session.shows("set_dial m2 1").endswith("m2: set_dial 1; user position 3 -> 4")
    assert (session.pv("gp:m2.RBV"), session.pv("gp:m2.DRBV"), session.pv("gp:m2.SET")) == ("4.00000", "1.00000", "Use")
    for typed in ("set_dial m2 0", "set_user m2 0", "set_lm m2 -32000 32000"):
        session.run(typed)


def test_tw_steps_a_motor_by_keys(session):
    session.run("mv m1 0")
    session.type("tw m1 0.1")
    for answer, where in (("", "0.1"), ("-", "0"), ("0.5", "0"), ("+", "0.5"), ("fast", "0.5")):
        session.wait_for(r"step \S+\? ")
        session.process.sendline(answer)
        until(lambda where=where: float(session.pv("gp:m1.RBV")) == float(where))
    assert "'fast': Enter or + steps up" in session.wait_for(r"m1 0.5, step 0.5\? ")
    session.process.sendline("q")
    session.until_prompt()


WRONG = {
    "mv m17 3": "no device is named 'm17'; did you mean 'm7'?",
    "mv m1": "mv needs motor and position, as in mv m1 1, not m1; nothing moved",
    "mv m1 1mm": "mv: m1='1mm' is no number; nothing moved",
    "mv m1 nan": "mv: m1='nan' is no number; nothing moved",
    "mv(m1, float('nan'))": "mv: m1=nan is no place to go; nothing moved",
    "asca m1 -1 1 10 1": "there is no command 'asca'; did you mean 'ascan'?",
    "ascan m1 -1 1 0 1": "ascan: intervals=0 has to be a whole number, 1 or more; nothing moved",
    "ascan m1 -1 1 10 -1": "ascan: time=-1 has to be more than 0; nothing moved",
    "ascan m1 -1 1": "ascan: missing a required argument: 'intervals'; it takes motor, start, finish, intervals, time, "
    "detectors, md; nothing moved",
    "ascan": "ascan motor start finish intervals [time]; ascan? tells more",
    "set_lm m1 5 -5": "set_lm: low 5 is above high -5: give the lower limit first; nothing is changed",
    "ct 0": "ct: time=0 has to be more than 0; nothing moved",
    "mv shutter halfway": "shutter: 'halfway' is none of open, opened, close, closed",
    "wm shutter": "wm: shutter has no position",
    "counters m17": "no device is named 'm17'; did you mean 'm7'?",
}


def test_what_is_typed_wrongly_is_one_line_and_moves_nothing(session):
    before = session.pv("gp:m1.VAL"), session.scan_id
    assert {typed: session.shows(typed) for typed in WRONG} == WRONG
    assert (session.pv("gp:m1.VAL"), session.scan_id) == before


def test_what_counts_is_chosen(session):
    assert session.shows("counters noisy") == "counting with noisy"
    assert session.shows("ct 0.1").split()[0] == "noisy"
    assert session.shows("counters default") == "counting with scaler1 noisy"
