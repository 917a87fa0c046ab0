"""What is asked for wrongly is refused in one line that names it; nothing moves, nothing is recorded."""

import pytest

from tests.faults.session import RETURNED, Session, run_shown


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    with Session(tmp_path_factory.mktemp("refused")) as session:
        yield session


@pytest.mark.parametrize(
    "command", ["m1.move(40000)", "RE(bps.mv(m1, 40000))", "%mov m1 40000", "RE(bps.mvr(m1, 4e4))"]
)
def test_a_move_beyond_limits_moves_nothing(session, command):
    before = session.pv("gp:m1.VAL"), session.pv("gp:m1.RBV"), session.scan_id
    assert session.shows(command) == (
        "m1: 40000 degrees is outside of its limits -32000 to 32000 degrees; it was not moved"
    )
    assert (session.pv("gp:m1.VAL"), session.pv("gp:m1.RBV"), session.scan_id) == before
    assert session.pv("gp:m1.DMOV") == "1"


def test_a_scan_that_leaves_the_limits_half_way_keeps_what_it_has(session):
    session.run("m1.high_limit_travel.put(0.15, wait=True)")
    number = session.scan_id + 1
    assert session.shows("RE(bp.scan([noisy], m1, 0.1, 0.3, 3))") == run_shown(
        number,
        "scan",
        ["m1", "noisy"],
        [["0.10000"]],
        "m1: 0.2 degrees is outside of its limits -32000 to 0.15 degrees; it was not moved",
    )
    assert session.last_run() == (
        number,
        "fail",
        "m1: 0.2 degrees is outside of its limits -32000 to 0.15 degrees; it was not moved",
        1,
    )
    assert (session.pv("gp:m1.RBV"), session.pv("gp:m1.DMOV"), session.pv("gp:m1.LVIO")) == ("0.10000", "1", "0")
    session.run("m1.high_limit_travel.put(32000, wait=True)")
    session.check_next_scan("m1")


MISSPELT = {
    "RE(bp.scan([nosy], m1, 0, 1, 3))": "NameError: name 'nosy' is not defined; did you mean 'noisy'?",
    "RE(bp.scan([noisy], mm1, 0, 1, 3))": "NameError: name 'mm1' is not defined; did you mean 'm1'?",
    "RE(bp.scann([noisy], m1, 0, 1, 3))": (
        "AttributeError: module 'bluesky.plans' has no attribute 'scann'; did you mean 'scan'?"
    ),
    "RE(findpeak_multipas())": "NameError: name 'findpeak_multipas' is not defined; did you mean 'findpeak_multipass'?",
    "RE(bp.scan([noisy], m1, 0, 1, nun=3))": (
        "TypeError: scan() got an unexpected keyword argument 'nun'; did you mean 'num'?"
    ),
    "m1.mov(3)": "AttributeError: m1 has no attribute 'mov'; did you mean 'move'?",
    "listdevice('m17')": "no device is named 'm17'; did you mean 'm7'?",
    "RE(bp.scan([noisy], m1, 0, 1))": (
        "ValueError: The number of points to scan must be provided as the last positional argument or as keyword "
        "argument 'num'."
    ),
}


def test_a_misspelt_name_is_told_with_its_nearest(session):
    before = session.pv("gp:m1.VAL"), session.scan_id
    assert {command: session.shows(command) for command in MISSPELT} == MISSPELT
    assert (session.pv("gp:m1.VAL"), session.scan_id) == before
    session.check_next_scan("m1")


def test_a_plan_that_is_not_run_says_how_it_is(session):
    before = session.pv("gp:m1.VAL"), session.scan_id
    assert session.shows("[bps.mv(m1, 5)]") == "Out: [mv is a plan that has not run; run it with RE(mv(...))]"
    assert session.shows("print(lup([noisy], m1, -1, 1, 5))").splitlines()[-1] == (
        "`print(lup([noisy], m1, -1, 1, 5))`: the plan lup was never run; type lup(...) as a statement of its "
        "own, or RE(...) it"
    )
    assert (session.pv("gp:m1.VAL"), session.scan_id) == before
    session.check_next_scan("m1")


UNSTORABLE = {
    "RE(bp.scan([noisy], m1, 5, 6, 2, md={'operator': object()}))": "metadata key 'operator' is an object, which "
    "cannot be stored: the run was not started; give numbers, text, lists, dictionaries or arrays",
    "RE(bp.scan([noisy], m1, 5, 6, 2), operator={'names': [print]})": "metadata key 'operator.names[0]' is a "
    "builtin_function_or_method, which cannot be stored: the run was not started; give numbers, text, lists, "
    "dictionaries or arrays",
    "RE(bp.scan([noisy], m1, 5, 6, 2, md={'sample': 5}))": "metadata key 'sample' is a int: give it as text or a "
    "dictionary",
    "RE.md['operator'] = {1, 2}": "RE.md['operator'] is of type set, which cannot be kept between sessions: give "
    "numbers, text, lists or dictionaries",
}


def test_metadata_that_cannot_be_stored_starts_no_run(session):
    before = session.pv("gp:m1.VAL"), session.value("len(cat)")
    assert {command: session.shows(command) for command in UNSTORABLE} == UNSTORABLE
    assert (session.pv("gp:m1.VAL"), session.value("len(cat)")) == before
    assert session.value("'operator' in RE.md") is False
    session.check_next_scan("m1")


def test_all_this_was_no_trouble(session):
    """The traceback of the last one line is there for who wants it, and in the log."""
    session.run("m1.mov")
    assert session.run("last_error()").splitlines()[0] == "Traceback (most recent call last):"
    assert session.shows("RE(bp.count([noisy]))").endswith(RETURNED)
    assert session.exit() == 0
    log = (session.directory / ".logs" / "ipython_logger.log").read_text()
    assert "AttributeError: mov" in log
