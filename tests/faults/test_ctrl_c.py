r"""Ctrl-C stops what runs, wherever it runs, and Ctrl-\ pauses it; the IOC gets neither."""

import pytest

from tests.faults.session import CTRL_C, RETURNED, Session, masked, run_shown, until

PLAN_ENDED = f"{CTRL_C}\nthe plan was aborted (Ctrl-C); motors are told to stop, the data so far is kept"
RUN_ENDED = "the run was aborted (Ctrl-C); motors are told to stop, the data so far is kept"
PAUSED = (
    "^\\Pausing...\npaused: RE.resume() goes on, RE.stop() or RE.abort('why') ends it in good order, RE.halt() at once"
)
HEADER = "| seq_num | time | m2 | noisy |\n"
STEP = 1.5  # takes long enough for a key to be pressed before the next point, also on a busy machine
ROWS = [["0.00000"], ["1.50000"]]
SCAN = "RE(bp.scan([noisy], m2, 0, 60, 41))"


@pytest.fixture(scope="module")
def module_session(tmp_path_factory):
    with Session(tmp_path_factory.mktemp("ctrl_c")) as session:
        yield session


@pytest.fixture
def session(module_session):
    """The session with m2 at 0; whatever the test did, its IOC lives on and its next scan works."""
    pid = module_session.beamline.pid
    module_session.run("RE(bps.mv(m2, 0))")
    yield module_session
    assert module_session.beamline.pid == pid
    module_session.check_next_scan()


def shown_after(session, key, before=""):
    session.press(key)
    return masked(before + session.until_prompt(), session.directory)


def is_stopped(session, motor="m2", target=20):
    """The motor stands, short of its target, and stands still."""
    session.until_pv(f"gp:{motor}.DMOV", "1")
    position = session.pv(f"gp:{motor}.RBV")
    assert 0 < float(position) < target
    assert session.pv(f"gp:{motor}.MOVN") == "0"
    assert session.pv(f"gp:{motor}.RBV") == position
    return True


def test_in_a_move(session):
    session.type("RE(bps.mv(m2, 20))")
    session.until_moving()
    assert shown_after(session, "c") == PLAN_ENDED
    assert is_stopped(session)


def test_in_a_move_without_the_engine(session):
    session.type("m2.move(20)")
    session.until_moving()
    assert shown_after(session, "c") == "^CKeyboardInterrupt"
    assert is_stopped(session)


def test_in_a_move_by_magic(session):
    session.type("%mov m2 20")
    session.until_moving()
    assert shown_after(session, "c") == CTRL_C
    assert is_stopped(session)


def test_in_a_count(session):
    number = session.scan_id + 1
    session.run("scaler1.preset_time.put(100, wait=True)")
    session.type("RE(bp.count([scaler1], num=3))")
    session.until_pv("gp:scaler1.CNT", "Count")
    until(lambda: float(session.pv("gp:scaler1.T")) > 0.3)
    assert shown_after(session, "c") == run_shown(number, "count", [], [], CTRL_C, RUN_ENDED)
    assert session.pv("gp:scaler1.CNT") == "Done"
    assert 0 < float(session.pv("gp:scaler1.T")) < 100  # the counts so far
    assert session.last_run() == (number, "abort", "Ctrl-C", 0)
    session.run("scaler1.preset_time.put(0.1, wait=True)")
    assert session.shows("RE(bp.count([scaler1]))") == run_shown(
        number + 1, "count", ["timebase", "I0", "scint", "diode"], [[]], RETURNED
    )


def test_in_a_sleep(session):
    session.run("from bluesky import Msg")
    session.run("def told(msg): print('sleeping') if msg.command == 'sleep' else None\n")
    session.run("RE.msg_hook = told")
    session.type("RE(bps.sleep(600))")
    before = session.wait_for("sleeping\r\n")
    shown = shown_after(session, "c", before)
    session.run("RE.msg_hook = None")
    assert shown == f"sleeping\n{PLAN_ENDED}"


def test_in_a_plan_without_checkpoints(session):
    session.run("def plan():\n    for target in range(1, 10): yield from bps.abs_set(m2, 2 * target, wait=True)\n")
    session.type("RE(plan())")
    session.until_moving()
    assert shown_after(session, "c") == PLAN_ENDED
    assert is_stopped(session)


def test_in_a_scan(session):
    number = session.scan_id + 1
    session.type(SCAN)
    before = session.wait_for(r"\|         2 \|[^\n]*\n")
    session.until_moving(beyond=STEP + 0.1)
    # the points that came meanwhile are in the table, whichever they are
    shown = shown_after(session, "c", before)
    points = shown.count("<noisy>")
    rows = [[f"{point * STEP:.5f}"] for point in range(points)]
    assert points >= 2
    lines = run_shown(number, "scan", ["m2", "noisy"], rows).splitlines()
    assert sorted(shown.splitlines()) == sorted([*lines, *CTRL_C.splitlines(), RUN_ENDED])
    assert is_stopped(session)
    assert session.last_run() == (number, "abort", "Ctrl-C", points)
    assert session.value("wait_for_files()") is True
    scan = str(session.value("specwriter.spec_filename.read_text()")).rpartition("\n#S ")[2]
    assert scan.startswith(f"{number}  scan(")
    data = [line for line in scan.splitlines() if line and not line.startswith("#")]
    assert [float(line.split()[0]) for line in data[1:]] == [point * STEP for point in range(points)]
    assert scan.rstrip().endswith("exit_status = abort")


@pytest.mark.parametrize("pause", ["time.sleep(600)", "[n for n in iter(int, 1)]"])
def test_between_runs(session, pause):
    number = session.scan_id + 1
    session.run("import time; bec.disable_table()")
    session.process.sendline(f"for turn in range(9): RE(bp.count([noisy])); print('be' 'tween', turn); {pause}")
    session.wait_for("between 0")
    assert shown_after(session, "c") == "^CKeyboardInterrupt"
    session.run("bec.enable_table()")
    assert session.last_run() == (number, "success", "", 1)


def test_a_loop_of_runs_ends_whenever_the_key_falls(session):
    """In a run, at its end, at its begin or between two: one Ctrl-C, and there is no next run."""
    session.run("from bluesky import Msg; quick = [Msg('null')]")
    for turn in range(10):
        session.process.sendline(
            f"for turn in range(10**9): RE(quick); print('\\rturn', turn) if turn == {turn * 37} else None"
        )
        session.wait_for(rf"\rturn {turn * 37}\r\n")
        assert shown_after(session, "c") in {"^CKeyboardInterrupt", PLAN_ENDED, f"{CTRL_C}\nKeyboardInterrupt"}
    assert session.value("RE.state") == "idle"


def test_a_key_that_falls_into_a_destructor_is_not_lost(session):
    """Between two runs: Python only tells of an exception there, and goes on."""
    falls = "import signal; Falls = type('Falls', (), {'__del__': lambda self: signal.raise_signal(signal.SIGINT)})"
    session.run(falls)
    assert session.shows("Falls(); [None for _ in iter(int, 1)]") == "KeyboardInterrupt"


def test_twice(session):
    """The clean-up of a plan that takes its time is skipped, the motor is stopped all the same."""
    session.run(
        "def plan():\n"
        "    try: yield from bps.mv(m2, 20)\n"
        "    finally:\n"
        "        yield from bps.sleep(0.3); print('cleaning up'); yield from bps.sleep(600)\n"
    )
    session.type("RE(plan())")
    session.until_moving()
    session.press("c")
    before = session.wait_for("cleaning up\r\n")
    assert shown_after(session, "c", before) == "\n".join(
        [
            CTRL_C,
            "cleaning up",
            "^C",
            "Ctrl-C twice: ending at once, without the plan's clean-up.",
            "the plan was aborted (Ctrl-C); motors are told to stop, the data so far is kept",
        ]
    )
    assert is_stopped(session)


@pytest.mark.parametrize(
    ("command", "shown", "status", "reason"),
    [
        ("RE.abort('the wrong sample')", "Aborting: running cleanup", "abort", "the wrong sample"),
        ("RE.stop()", "Stopping: running cleanup", "success", ""),
        ("RE.halt()", "Halting: skipping cleanup", "abort", ""),
    ],
)
def test_paused_and_ended(session, command, shown, status, reason):
    number = session.scan_id + 1
    session.type(SCAN)
    before = session.wait_for(r"\|         2 \|[^\n]*\n")
    assert shown_after(session, "\\", before) == run_shown(
        number, "scan", ["m2", "noisy"], ROWS, PAUSED, complete=False
    )
    session.until_pv("gp:m2.DMOV", "1")
    end = ["+---+", f"generator scan ['<uid>'] (scan num: {number})"]
    assert session.shows(command) == "\n".join([f"{shown} and marking exit_status as '{status}'...", *end, RETURNED])
    assert session.last_run() == (number, status, reason, 2)


def test_paused_and_resumed(session):
    number = session.scan_id + 1
    session.type("RE(bp.scan([noisy], m2, 0, 3, 3))")
    before = session.wait_for(r"\|         2 \|[^\n]*\n")
    assert shown_after(session, "\\", before) == run_shown(
        number, "scan", ["m2", "noisy"], ROWS, PAUSED, complete=False
    )
    end = ["+---+", f"generator scan ['<uid>'] (scan num: {number})", RETURNED]
    assert masked(HEADER + session.run("RE.resume()")).splitlines()[1:] == ["| 3 | <time> | 3.00000 | <noisy> |", *end]
    assert session.last_run() == (number, "success", "", 3)


def test_at_the_prompt(session):
    """IPython's own word at the plain prompt; `test_real_prompt` has the one that people see."""
    assert shown_after(session, "c") == "^C\nKeyboardInterrupt escaped interact()"
    session.press("\\")
    shown = session.wait_for(r"what runs here\.\r\n")
    assert masked(shown) == "^\\\nCtrl-\\ pauses a plan, and none runs; Ctrl-C ends what runs here."
    assert session.shows("1 + 1") == "Out: 2"


def test_what_a_test_that_failed_leaves_behind_is_cleared_away(session):
    """As conftest.py does it, so that the tests after it have their own chance."""
    session.type("RE(bps.mv(m2, 20))")
    session.until_moving()
    session.recover()
    session.type(SCAN)
    session.wait_for(r"\|         1 \|[^\n]*\n")
    session.press("\\")
    session.wait_for("paused: ")
    session.recover()
    assert session.value("RE.state") == "idle"
