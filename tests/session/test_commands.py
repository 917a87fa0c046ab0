"""What a person types and sees: plans that run as statements, SPEC's commands, with and without parentheses."""

import re

import pytest

from tests.faults.session import Session, until, write_config
from tests.session.devices import DEVICES
from tests.terminal import ROOT


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    directory = tmp_path_factory.mktemp("commands")
    packaged = (ROOT / "instrument/config/iconfig.yml").read_text()
    packaged = packaged.replace("devices: [devices.yml]", "").replace("seed: null", "seed: 7")
    config = write_config(directory, packaged, devices=DEVICES)
    with Session(directory, arguments=("--config", str(config))) as session:
        yield session


@pytest.fixture(autouse=True)
def limits_as_they_were(session):
    """What a test sets, and fails before it sets it back, is in nobody else's way."""
    yield
    for motor in ("m1", "m2"):
        if [float(session.pv(f"gp:{motor}.{limit}")) for limit in ("LLM", "HLM")] != [-32000, 32000]:
            session.run(f"set_lm {motor} -32000 32000")


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


LINES = {
    "mv m1 3; print(1)": "mv(m1, 3); print(1)",
    "lookupscan m1 [0,  # mm\n 0.3] 0.1": "lookupscan(m1, [0, 0.3], 0.1)",
}


PYTHON = (
    'def note(comment, n):\n    comment += f" {n}"\n    return comment\n',
    "for comment in notes:\n    comment -= 1\n    comment in notes\n",
    'class Note:\n    comment : str = ""\n',
    'newfile = "a"\nnewfile += ".dat"\n%time x = newfile\n',
    "comment == 3\n",
    "key = lambda positions: positions and positions[0]\n",
)


def test_names_of_commands_are_variables_where_python_has_them(session):
    transform = "[get_ipython().transform_cell(cell).replace('get_ipython().run_line_magic', '') for cell in {}]"
    shown = session.value(transform.format(PYTHON))
    assert shown == [cell.replace("%time x = newfile", "('time', 'x = newfile')") for cell in PYTHON]


def test_a_line_without_parentheses_is_one_statement_and_the_rest_stays(session):
    shown = {typed: session.value(f"get_ipython().transform_cell({typed!r})") for typed in LINES}
    assert shown == {typed: f"{code}\n" for typed, code in LINES.items()}


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


def test_a_plan_of_the_users_own_that_is_called_without_yield_from_is_told(session):
    plans = "def aside():\n    yield from mv(m1, 3)\n\ndef calls_aside():\n    aside()\n    yield from mv(m1, 0.25)\n"
    (session.directory / "mine.py").write_text(plans)
    session.run("%run -i mine.py")
    hint = "the plan aside is never run; write `yield from aside(...)`"
    for typed in ("calls_aside()", "RE(calls_aside())"):
        assert f"`aside()` in calls_aside (mine.py, line 5): {hint}" in session.shows(typed)
    session.run("get_ipython().run_cell('def calls_too():\\n    aside()\\n    yield from mv(m1, 0.5)\\n');")
    assert f"`aside()` in calls_too (line 2): {hint}" in session.shows("calls_too()")
    assert position(session) == 0.5
    session.run("mv m1 0; del aside, calls_aside, calls_too")


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


@pytest.mark.parametrize(
    "typed",
    [
        "ascan m2 0 10 20 0.1",
        "a2scan m2 0 10 m3 0 10 20 0.1",
        "d2scan m2 0 10 m3 0 10 20 0.1",
        "mesh m2 0 10 20 m3 0 10 2 0.1",
        "lookupscan m2 [0,5,10] 0.1",
        "dmesh m2 0 10 20 m3 0 10 2 0.1",
        "lup noisy m2 0 10 11",
        "lineup2 noisy m2 0 10 11",
        "for _ in range(3): ascan m2 0 10 20 0.1",
    ],
)
def test_ctrl_c_ends_each_scan_and_the_next_one_works(session, typed):
    session.run("mv m2 0 m3 0")
    number = session.scan_id + 1
    session.process.sendline(f"{typed}\n" if typed.startswith("for") else typed)
    session.wait_for(r"\|         1 \|")
    until(lambda: session.pv("gp:m2.DMOV") == "0", "a move to the second point")
    session.press("c")
    assert "the run was aborted (Ctrl-C); motors are told to stop, the data so far is kept" in session.until_prompt()
    if typed.startswith("for"):
        session.run("")
    until(lambda: [session.pv(f"gp:{motor}.DMOV") for motor in ("m2", "m3")] == ["1", "1"], "motors that stand")
    assert session.last_run()[:3] == (number, "abort", "Ctrl-C")
    assert session.pv("gp:scaler1.TP") == "1.000"
    if typed.startswith("d"):  # about where it was, and back there
        assert (position(session, "m2"), position(session, "m3")) == (0, 0)
    assert session.shows("timescan 0.1 0 1").endswith(f"generator timescan ['<uid>'] (scan num: {number + 1})")


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


def test_ctrl_c_in_tw_stops_the_motor_and_asks_again_and_leaves_when_it_asks(session):
    session.run("mv m2 0")
    session.type("tw m2 20")
    session.wait_for(r"step 20\? ")
    session.process.sendline("+")
    session.until_moving()
    session.press("c")
    assert "the plan was aborted (Ctrl-C); motors are told to stop" in session.wait_for(r"m2 \S+, step 20\? ")
    session.press("c")
    session.until_prompt()
    until(lambda: session.pv("gp:m2.DMOV") == "1")
    assert 0.3 < position(session, "m2") < 20
    session.run("mv m2 0")


FIELDS = ("m2.LLM", "m2.HLM", "m2.SET", "m2.FOFF", "m2.OFF", "m2.RBV", "m2.DRBV", "scaler1.TP")
IN_HALVES = ("set_lm('m2', -5, 5)", "set_user(m2, 3)", "set_dial(m2, 3)", "ascan(m2, 0, 0.1, 1, 0.3)", "ct(0.3)")


@pytest.mark.parametrize("typed", IN_HALVES)
def test_ctrl_c_half_way_through_setting_something_leaves_it_as_it_was(session, typed):
    session.run('mv m2 0; exec(\'def halt():\\n print("half " + "way"); yield from bps.sleep(600)\')')
    session.run("once = lambda msg, met=[]: (None, None if msg.command != 'set' or met else met.append(1) or halt())")
    before = [session.pv(f"gp:{field}") for field in FIELDS]
    session.type(f"RE(bpp.plan_mutator({typed}, once))")
    session.wait_for("half way")
    until(lambda: [session.pv(f"gp:{field}") for field in FIELDS] != before, "what is set")
    session.press("c")
    shown = session.until_prompt()
    assert "the plan was aborted (Ctrl-C)" in shown
    assert "never run" not in shown
    session.run("del halt, once")
    assert [session.pv(f"gp:{field}") for field in FIELDS] == before


WRONG = {
    "mv m17 3": "no device is named 'm17'; did you mean 'm7'?",
    "mv m1": "mv needs motor and position, as in mv m1 1, not m1; nothing moved",
    "mv m1 1mm": "mv: m1='1mm' is no number; nothing moved",
    "mv noisy 1": "mv: noisy is read-only, it can't be moved: give a motor; nothing moved",
    "tw noisy": "tw: noisy is read-only, it can't be moved: give a motor; nothing moved",
    "ascan noisy -1 1 20": "ascan: noisy is read-only, it can't be moved: give a motor; nothing moved",
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
    "ascan(m1 -1 1 20 0.5)": "ascan(m1 -1 1 20 0.5) is no Python; did you mean ascan(m1, -1, 1, 20, 0.5)?",
    "RE(ascan m1 0 1 2)": "RE(ascan m1 0 1 2) is no Python; did you mean RE(ascan(m1, 0, 1, 2))?",
    "plan = mv m1 3": "plan = mv m1 3 is no Python; did you mean plan = mv(m1, 3)?",
    "mv (m1 -3, m2 aligned)": "mv (m1 -3, m2 aligned) is no Python; did you mean mv(m1, -3, m2, 'aligned')?",
    "mv(m1, 3mm)": "SyntaxError: invalid decimal literal: mv(m1, 3mm)",
    "for i in range(3) mv m1 i": "SyntaxError: invalid syntax: for i in range(3) mv m1 i",
    "counters m17": "no device is named 'm17'; did you mean 'm7'?",
    "wa m1": "wa: too many positional arguments; it takes no arguments; nothing moved",
    "estimate ascan m1 -1 1 20 0.5": "estimate: too many positional arguments; it takes plan; nothing moved",
    "cen(signl='noisy')": "cen has no argument 'signl': did you mean 'signal'? it takes signal; nothing moved",
}


def test_what_is_typed_wrongly_is_one_line_and_moves_nothing(session):
    before = session.pv("gp:m1.VAL"), session.scan_id
    assert {typed: session.shows(typed) for typed in WRONG} == WRONG
    assert (session.pv("gp:m1.VAL"), session.scan_id) == before


def test_what_counts_is_chosen(session):
    assert session.shows("counters noisy") == "counting with noisy"
    assert session.shows("ct 0.1").split()[0] == "noisy"
    assert session.shows("counters default") == "counting with scaler1 noisy"


# --- after a scan


@pytest.fixture(scope="module")
def peak(session):
    """Where the simulated peak is, and its width; it has been scanned."""
    center, width = float(session.pv("gp:userCalc1.B")), 2 * float(session.pv("gp:userCalc1.C"))
    session.run(f"c = {center}; w = {width}")
    session.run("ascan m1 c-5*w c+5*w 40 0.1")
    return center, width


def test_what_the_last_scan_shows(session, peak):
    center, width = peak
    number = session.scan_id
    for key in ("cen", "com", "peak", "pic"):
        told, out = session.shows(key).splitlines()
        assert told.startswith(f"{'peak' if key == 'pic' else key} of noisy in scan {number}: m1 ")
        new = float(told.rpartition(" -> ")[2])
        assert new == pytest.approx(center, abs=width / 2 if key in ("peak", "pic") else width / 5)
        assert float(out.removeprefix("Out: ")) == pytest.approx(new, abs=1e-5)
    assert float(session.shows("fwhm").rpartition("Out: ")[2]) == pytest.approx(width, rel=0.3)
    assert session.shows("fit lorentzian").splitlines()[1].startswith("Out: lorentzian: amplitude ")
    assert session.value("fit('lorentzian')['center']") == pytest.approx(center, abs=width / 10)
    assert session.value("fit('gaussian')['fwhm']") == pytest.approx(width, rel=0.4)


def test_goto_moves_there(session, peak):
    center, width = peak
    number = session.scan_id
    for key in ("cen", "com", "peak"):
        session.run("mv m1 0")
        assert session.shows(f"goto_{key}").startswith(f"{key} of noisy in scan {number}: m1 0 -> ")
        assert position(session) == pytest.approx(center, abs=width / 2)
    session.run("mv m1 c+w; set_lm m1 c+w/2 c+9*w")
    before = position(session)
    assert re.fullmatch(
        rf"cen of noisy in scan {number}: m1 would go to \S+, outside of its .* nothing moved",
        session.shows("goto_cen"),
    )
    assert position(session) == before
    session.run("set_lm m1 -32000 32000")


@pytest.mark.parametrize("typed", ["goto_cen", "goto_position there"])
def test_ctrl_c_ends_going_somewhere(session, peak, typed):
    number = session.scan_id
    session.run("save_position there m1; mv m1 c+2")
    far = position(session)
    session.type(typed)
    until(lambda: position(session) < far - 0.2, "a motor on its way")
    session.press("c")
    assert "the plan was aborted (Ctrl-C); motors are told to stop" in session.until_prompt()
    until(lambda: session.pv("gp:m1.DMOV") == "1", "a motor that stands")
    assert far - 2 < position(session) < far
    assert session.scan_id == number
    session.run("goto_position there")


def test_a_flank_is_told_as_such(session, peak):
    session.run("ascan m1 c+w/2 c+4*w 12 0.1")  # of fewer points, the noise makes nothing of it now and then
    number, before = session.scan_id, position(session)
    for typed in ("cen", "goto_cen", "com noisy"):
        assert session.shows(typed).startswith(f"noisy in scan {number} is a flank, its highest at the end m1 ")
    assert position(session) == before
    assert session.shows("cen nosy") == f"scan {number} has no signal 'nosy'; did you mean 'noisy'?"
    assert session.shows("fit gausian") == "fit: no model 'gausian'; did you mean 'gaussian'?"
    session.run("mv m1 c+2*w")
    shown = session.shows("lup noisy m1 -1.5*w 1.5*w 11").splitlines()[-1]
    assert re.search(rf"lup: noisy in scan {number + 1} is a flank, its highest at .* beyond it; m1 went back", shown)
    shown = session.shows("lineup2 noisy m1 -w w 11")
    assert re.search(r"lineup2: m1 from \S+ to \S+ \(cen of noisy, stable after \d scans\)", shown)
    assert position(session) == pytest.approx(peak[0], abs=peak[1] / 5)


def test_lup_in_specs_order_counts_with_what_counts(session, peak):
    session.run("mv m1 c")
    shown = session.shows("lup m1 -2.5*w 2.5*w 20 0.1")
    assert re.search(r"lup: 21 points of scaler1 noisy, m1 ", shown)
    assert re.search(rf"lup: m1 from \S+ to \S+ \(cen of noisy, scan {session.scan_id}\)", shown)
    assert position(session) == pytest.approx(peak[0], abs=peak[1] / 2)
    assert session.pv("gp:scaler1.TP") == "1.000"
    assert re.search(r" lup m1 -\S+ \S+ 20 0.1 +21 +success", session.shows("showscans 1"))


def test_two_motors_go_to_the_peak_together(session, peak):
    session.run("a2scan m1 c-3*w c+3*w m2 0 1 24 0.1")
    assert ", m2 1 -> 0." in session.shows("goto_cen")
    assert position(session) == pytest.approx(peak[0], abs=peak[1] / 5)
    assert position(session, "m2") == pytest.approx(0.5, abs=0.05)


# --- beforehand


def test_estimate_and_summarize_move_nothing(session):
    before = session.pv("gp:m1.VAL"), session.scan_id
    told = session.shows("estimate ascan(m1,-1,1,20,0.5)")
    assert re.fullmatch(r"Out: ascan: 21 points of scaler1 noisy, m1 -1 to 1, about \d+ s", told)
    assert 10.5 < session.value("estimate(ascan(m1, -1, 1, 20, 0.5)).seconds") < 25
    shown = session.shows("summarize(ascan(m1, 0, 1, 1, 0.1))").splitlines()
    assert [line.strip() for line in shown[:5]] == [
        "scaler1_preset_time -> 0.1",
        "=================================== Open Run ===================================",
        "m1 -> 0.0",
        "Read ['scaler1', 'noisy', 'm1']",
        "m1 -> 1.0",
    ]
    assert session.shows("estimate(timescan(1))") == "Out: timescan: points until Ctrl-C of scaler1 noisy"
    assert session.shows("estimate(ascan(m1, 0, 4e4, 2, 1))") == (
        "ascan: point 3 of 3: m1: 40000 degrees is outside of its limits -32000 to 32000 degrees; nothing moved"
    )
    assert session.shows("estimate(3)").startswith("estimate needs a plan, as in estimate(ascan(")
    assert (session.pv("gp:m1.VAL"), session.scan_id) == before


def test_a_plan_that_is_forgotten_in_a_dry_run_is_told(session):
    session.run("exec('def forgets():\\n mv(m1, 3)\\n yield from mv(m1, 0.5)')")
    shown = session.shows("estimate(forgets())").splitlines()
    assert shown[0] == "the plan mv was never run; write `yield from mv(...)`"
    assert re.fullmatch(r"Out: forgets: m1 to 0.5, about \S+ s", shown[1])
    assert "in forgets" in session.shows("forgets()")  # where, when it is run
    session.run("mv m1 0")


# --- positions


def test_positions_are_saved_and_gone_back_to(session):
    session.run("mv m1 0.3 m2 1")
    assert session.shows("save_position aligned m1 m2") == "saved as 'aligned': m1 0.3, m2 1"
    session.run("mv m1 0 m2 0")
    session.run("save_position aligned m1 m2")
    assert re.search(r"aligned <time>   2     m1 0, m2 0", session.shows("positions").replace("<time> ", "<time>   "))
    assert session.shows("goto_position aligned 1").splitlines()[1:] == [
        "  m1          0 -> 0.3 degrees",
        "  m2          0 -> 1 degrees",
    ]
    assert (position(session), position(session, "m2")) == (0.3, 1)
    assert session.shows("goto_position alined") == "no position is named 'alined'; did you mean 'aligned'?"
    session.run("set_lm m2 0.5 2")
    assert "goto_position: m2 would go to 0, outside of its limits 0.5 to 2" in session.shows("goto_position aligned")
    assert (position(session), position(session, "m2")) == (0.3, 1)
    session.run("set_lm m2 -32000 32000")


def test_a_position_has_any_word_for_a_name(session):
    """Also one that means something to Python, as `in m1` does."""
    session.run("mv m1 0.1")
    for name in ("in", "not", "12", "2theta"):
        assert session.shows(f"save_position {name} m1") == f"saved as {name!r}: m1 0.1"
        assert session.shows(f"goto_position {name}") == f"all motors are at {name!r} of <time>"
    assert "0    <time> m1 0.1" in session.shows("positions in")


def test_a_motor_that_is_a_component_is_a_motor(session, peak):
    """Slits.top drives what m1 drives."""
    session.run("ascan slits.top c-5*w c+5*w 24 0.1")
    number = session.scan_id
    assert session.shows("cen").startswith(f"cen of noisy in scan {number}: slits_top ")
    assert session.shows("fit lorentzian").startswith(f"fit of noisy in scan {number}: slits_top ")
    assert session.shows("goto_cen").startswith(f"cen of noisy in scan {number}: slits_top ")
    assert position(session) == pytest.approx(peak[0], abs=peak[1] / 2)
    session.run("mv slits.top 0.3")
    assert session.shows("save_position slit slits.top") == "saved as 'slit': slits.top 0.3"
    session.run("mv slits.top 0")
    assert session.shows("goto_position slit").splitlines()[1:] == ["  slits_top          0 -> 0.3 degrees"]
    assert position(session) == 0.3
    session.run("save_position everything")
    told = session.run("positions everything")
    assert "m1 0.3" in told
    assert "slits.top 0.3" in told
    assert re.search(r"slits.top +0.3 +0.3 ", session.shows("wa"))


# --- what it is about


def test_file_sample_proposal_comment(session):
    assert session.shows("newsample iron oxide") == "sample: none -> iron oxide"
    assert session.shows("newproposal 1234") == "proposal_id: training -> 1234"
    assert "test.dat" in session.shows(f"newfile {session.directory}/test.dat")
    assert session.shows('comment it\'s a "test"').endswith('comment: it\'s a "test"')
    number = session.scan_id + 1
    session.run("ascan m1 0 0.1 1 0.1")
    session.run("mesh m1 0 0.1 1 m2 0 0.1 1 0.1")
    shown = session.shows("showscans 2")
    assert re.search(rf"{number + 1} +<time> +mesh m1 0 0.1 1 m2 0 0.1 1 0.1 +4 +success", shown)
    assert re.search(rf"{number} +<time> +ascan m1 0 0.1 1 0.1 +2 +success", shown)
    session.run("wait_for_files()")
    text = (session.directory / "test.dat").read_text()
    assert f"#S {number}  ascan m1 0 0.1 1 0.1\n" in text
    assert 'it\'s a "test"\n' in text
    assert session.value("cat[-1].metadata['start']['sample']") == "iron oxide"
    assert "#MD proposal_id = 1234\n" in text


def test_a_text_is_taken_as_it_is_on_each_line_of_a_cell(session):
    shown = session.run('if m1:\n    newsample it\'s wet\n    comment the 2nd "one", it is\n')
    assert " -> it's wet\n" in shown
    assert shown.endswith('comment: the 2nd "one", it is')
    assert session.value("RE.md['sample']") == "it's wet"
    shown = session.shows("mv m1 0; comment it is there; newsample nickel oxide").splitlines()
    assert shown[0].endswith("comment: it is there")
    assert shown[1:] == ["sample: it's wet -> nickel oxide"]
    session.run('text = """of two lines,\ncomment and newsample are words"""')
    assert session.value("text") == "of two lines,\ncomment and newsample are words"
    session.run("del text")


def test_what_is_plotted_is_chosen(session):
    assert session.shows("plotselect nosy") == "plotselect: no counter has a signal 'nosy'; did you mean 'noisy'?"
    assert session.shows("plotselect I0 noisy") == "plotting I0 noisy"
    session.run("ascan m1 0 0.2 4 0.1")
    assert session.value("bec.last_scan.signals") == ("I0", "noisy")
    assert session.shows("peak").startswith("peak of I0 in scan")
    session.run("plotselect noisy")
    assert session.shows("peak").startswith("peak of noisy in scan")  # the same scan, looked at again
    assert session.shows("plotselect all") == "plotting all hinted signals"


def test_a_scan_that_has_no_centre_is_not_replaced_by_an_older_one(session, peak):
    session.run("ascan m1 c-w c+w 4 0.1; mesh m1 0 0.1 1 m2 0 0.1 1 0.1")
    number, before = session.scan_id, (position(session), position(session, "m2"))
    for typed in ("cen", "goto_cen", "fit"):
        assert session.shows(typed) == f"scan {number} was a mesh: scan one motor"
    assert (position(session), position(session, "m2")) == before
    session.run("RE(bp.scan([noisy], m1, 0, 0, 1))")
    assert session.shows("cen") == f"scan {number + 1} has too few points to look for a peak in: scan again"


# --- suspenders


def test_a_scan_waits_for_the_beam(session):
    shown = session.run("suspenders")
    assert re.search(r"beam +off +ring_current +10[0-2]\S* +50 < value +2 s +3600 s", shown)
    assert session.shows("suspenders baem on") == "no suspender is named 'baem'; did you mean 'beam'?"
    session.run("suspenders beam on")
    assert "[beam] " in session.process.before  # and in front of the prompt
    session.run("from threading import Timer; mv m1 0")
    session.run("beam_at = lambda state, seconds: Timer(seconds, ring.beam.put, (state,)).start()")
    session.run("token = RE.subscribe(lambda *_: (beam_at('lost', 0.5), beam_at('stored', 3.5)), 'start')")
    shown = session.shows("ascan m1 0 1 4 0.5")
    session.run("RE.unsubscribe(token)")
    assert "suspended: beam: ring_current is 0, below 50; it goes on by itself, Ctrl-C ends the run" in shown
    assert "beam is good again (ring_current): the run goes on in <seconds> s" in shown.replace("2 s", "<seconds> s")
    session.run("ring.beam.put('lost')")
    until(lambda: session.pv("gp:ring:current") == "0.000")
    session.run("1")
    session.type("ct 1")
    session.wait_for("waiting: beam: ring_current is 0, below 50; it goes on by itself, Ctrl-C ends it")
    session.press("c")
    session.until_prompt()
    assert "[beam!] " in session.process.before
    session.run("suspenders all off")
    assert session.last_run()[1:] == ("success", "", 5)
    assert session.shows("ct 0.1").startswith("timebase")
    session.run("ring.beam.put('stored')")
