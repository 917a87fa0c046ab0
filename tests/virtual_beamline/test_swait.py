"""The swait record, over Channel Access, as a stock client sees it."""

import itertools
import time

import pytest

from tests.virtual_beamline.conftest import wait_for

_numbers = itertools.cycle(range(11, 19))


@pytest.fixture
def calc(gp):
    """A user calc that no other test uses at the same time, in its initial state before and after."""
    name = f"userCalc{next(_numbers)}"

    def reset():
        gp.put(f"{name}.SCAN", "Passive")
        for field, value in {"OUTN": "", "DOLN": "", "ODLY": 0, "OOPT": "Every Time", "DOPT": "Use VAL"}.items():
            gp.put(f"{name}.{field}", value)
        gp.put(f"{name}.OEVT", 0)
        for letter in "ABCDEFGHIJKL":
            gp.put(f"{name}.IN{letter}N", "")
            gp.put(f"{name}.IN{letter}P", "Yes")
            gp.put(f"{name}.{letter}", 0)
        gp.put(f"{name}.CALC", "0")
        gp.put(f"{name}.VAL", 0)
        gp.put(f"{name}.MDEL", 0)

    reset()
    yield name
    reset()


def _links_connected(gp, calc):
    """Process until no link is invalid."""
    wait_for(lambda: gp.put(f"{calc}.PROC", 1) and gp.get(f"{calc}.SEVR") == 0, what=f"links of {calc}")


def test_a_put_to_an_operand_evaluates_the_expression(gp, calc):
    gp.put(f"{calc}.CALC", "A*2+B")
    gp.put(f"{calc}.B", 1)
    gp.put(f"{calc}.A", 20)
    assert gp.get(calc) == 41
    assert gp.get(f"{calc}.LA") == 20


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("A+max(-D,min(D,(B-A)))+C*(RNDM-0.5)", 12.0),  # the simulated temperature: from 10 towards 25 by at most 2
        ("(A<B)?D:7", 2.0),
        ("D^3%7", 1.0),
        ("SQRT(B)", 5.0),
        ("B:=D;B+A", 12.0),
    ],
)
def test_expressions_are_those_of_epics_base(gp, calc, expression, value):
    for letter, operand in {"A": 10, "B": 25, "C": 0, "D": 2}.items():
        gp.put(f"{calc}.{letter}", operand)
    gp.put(f"{calc}.CALC", expression)
    assert gp.get(calc) == pytest.approx(value)


def test_a_bad_expression_sets_clcv_and_alarm_and_a_good_one_clears_them(gp, calc):
    gp.put(f"{calc}.CALC", "A+*")
    assert gp.get(f"{calc}.CLCV") != 0
    assert gp.get(f"{calc}.STAT", text=True) == "CALC"
    assert gp.get(f"{calc}.SEVR", text=True) == "INVALID"
    gp.put(f"{calc}.CALC", "A+1")
    assert gp.get(f"{calc}.CLCV") == 0
    assert gp.get(f"{calc}.SEVR") == 0
    assert gp.get(calc) == 1


@pytest.mark.parametrize("letter", "ABCDEFGHIJKL")
def test_each_input_follows_the_pv_it_names(gp, calc, letter):
    gp.put("gp:float20", ord(letter))
    gp.put(f"{calc}.CALC", f"{letter}+0.5")
    gp.put(f"{calc}.IN{letter}N", f"{gp.prefix}gp:float20")
    _links_connected(gp, calc)
    assert gp.get(calc) == ord(letter) + 0.5


def test_an_input_can_be_a_number(gp, calc):
    gp.put(f"{calc}.INCN", "2.5")
    gp.put(f"{calc}.CALC", "C*2")
    assert gp.get(calc) == 5


def test_an_input_that_does_not_exist_is_a_link_alarm_and_keeps_the_value(gp, calc):
    gp.put(f"{calc}.CALC", "A+3")
    gp.put(f"{calc}.INAN", f"{gp.prefix}nothing")
    gp.put(f"{calc}.PROC", 1)
    assert gp.get(f"{calc}.STAT", text=True) == "LINK"
    assert gp.get(calc) == 3


def test_io_intr_processes_on_change_of_the_inputs_that_say_so(gp, calc):
    gp.put(f"{calc}.CALC", "A+B")
    gp.put(f"{calc}.INAN", f"{gp.prefix}gp:float19")
    gp.put(f"{calc}.INBN", f"{gp.prefix}gp:float18")
    gp.put(f"{calc}.INBP", "No")
    gp.put("gp:float19", 0)
    gp.put("gp:float18", 0)
    _links_connected(gp, calc)
    gp.put(f"{calc}.SCAN", "I/O Intr")
    gp.put("gp:float18", 100)
    gp.put("gp:float19", 1)
    gp.wait(calc, 101)
    gp.put("gp:float18", 200)  # INBP is "No": nothing happens
    for value in range(2, 5):
        gp.put("gp:float17", value)
    assert gp.get(calc) == 101
    gp.put("gp:float19", 2)
    gp.wait(calc, 202)


def test_scan_periods_process_it(gp, calc):
    gp.put(f"{calc}.CALC", "VAL+1")
    gp.put(f"{calc}.SCAN", ".1 second")
    wait_for(lambda: gp.get(calc) >= 5, what="five periods")


@pytest.mark.parametrize(
    ("option", "written"),
    [
        ("Every Time", [0, 1, 1, 0, 2]),
        ("On Change", [1, 0, 2]),
        ("When Zero", [0, 0]),
        ("When Non-zero", [1, 1, 2]),
        ("Transition To Zero", [0]),
        ("Transition To Non-zero", [1, 2]),
        ("Never", []),
    ],
)
def test_each_output_option_writes_when_it_says(gp, calc, option, written):
    target = "gp:float16"
    gp.put(f"{calc}.OUTN", f"{gp.prefix}{target}")
    gp.put(f"{calc}.CALC", "A")
    _links_connected(gp, calc)
    gp.put(f"{calc}.OOPT", option)
    seen = []
    for value in (0, 1, 1, 0, 2):
        gp.put(target, -1)
        gp.put(f"{calc}.A", value)  # ends when the output has been written
        now = gp.get(target)
        seen += [now] if now != -1 else []
    assert seen == written


def test_the_output_can_be_a_desired_value_from_a_pv_or_a_put(gp, calc):
    gp.put("gp:float15", 7)
    gp.put(f"{calc}.OUTN", f"{gp.prefix}gp:float14")
    gp.put(f"{calc}.DOPT", "Use DOL")
    gp.put(f"{calc}.DOLD", 3)
    assert gp.get(f"{calc}.DOLV") == 1
    _links_connected(gp, calc)
    assert gp.get("gp:float14") == 3
    gp.put(f"{calc}.DOLN", f"{gp.prefix}gp:float15")
    gp.wait(f"{calc}.DOLV", 0)
    gp.put(f"{calc}.PROC", 1)
    assert gp.get("gp:float14") == 7
    assert gp.get(f"{calc}.DOLD") == 7


def test_the_output_is_delayed_by_odly_and_completion_waits_for_it(gp, calc):
    gp.put(f"{calc}.OUTN", f"{gp.prefix}gp:float13")
    gp.put(f"{calc}.CALC", "A")
    _links_connected(gp, calc)
    gp.put("gp:float13", -1)
    gp.put(f"{calc}.ODLY", 0.3)
    started = time.monotonic()
    done = gp.start_put(f"{calc}.A", 9)
    gp.wait(calc, 9)
    wait_for(lambda: done)
    assert done[0] - started >= 0.3
    assert gp.get("gp:float13") == 9


def test_completion_waits_for_what_the_output_started(gp, calc):
    gp.put(f"{calc}.OUTN", f"{gp.prefix}mybusy5")
    gp.put(f"{calc}.CALC", "A")
    _links_connected(gp, calc)  # writes 0, which a busy record completes at once
    gp.put(f"{calc}.OOPT", "Never")
    gp.put(f"{calc}.A", 1)
    gp.put(f"{calc}.OOPT", "Every Time")
    done = gp.start_put(f"{calc}.PROC", 1)
    gp.wait("mybusy5", 1)
    assert gp.get(f"{calc}.PACT") == 1
    assert not done
    gp.put("mybusy5", 0, wait=False)
    wait_for(lambda: done)
    gp.wait(f"{calc}.PACT", 0)


def test_another_output_ends_the_waiting_for_the_first(gp, calc):
    gp.put(f"{calc}.OUTN", f"{gp.prefix}mybusy5")
    gp.put(f"{calc}.CALC", "A")
    _links_connected(gp, calc)
    done = gp.start_put(f"{calc}.A", 1)
    gp.wait("mybusy5", 1)
    assert not done
    gp.put(f"{calc}.OUTN", "", wait=False)  # a put with completion would wait for the first one
    wait_for(lambda: done)
    gp.wait(f"{calc}.PACT", 0)
    gp.put("mybusy5", 0, wait=False)
    gp.wait("mybusy5", 0)


def test_the_output_posts_its_event(gp, calc):
    gp.put("userCalc20.CALC", "VAL+1")
    gp.put("userCalc20.EVNT", "17")
    gp.put("userCalc20.SCAN", "Event")
    before = gp.get("userCalc20")
    gp.put(f"{calc}.OEVT", 17)
    gp.put(f"{calc}.PROC", 1)
    gp.wait("userCalc20", before + 1)
    gp.put("userCalc20.SCAN", "Passive")


def test_monitors_keep_to_mdel(gp, calc):
    import epics

    gp.put(f"{calc}.CALC", "A")
    gp.put(f"{calc}.MDEL", 5)
    heard = []
    pv = epics.PV(gp.prefix + calc, auto_monitor=True, callback=lambda value, **_: heard.append(value))
    assert pv.wait_for_connection(timeout=10)
    wait_for(lambda: heard)
    for value in (1, 2, 3, 20, 21):
        gp.put(f"{calc}.A", value)
    wait_for(lambda: 20 in heard)
    assert not {1, 2, 3, 21} & set(heard)
    assert gp.get(f"{calc}.MLST") == 20
    pv.disconnect()


def test_limits_and_precision_are_those_of_the_record(gp, calc):
    for field, value in {"PREC": 2, "HOPR": 50, "LOPR": -50}.items():
        gp.put(f"{calc}.{field}", value)
    control = gp.pv(calc).get_ctrlvars()
    assert control["precision"] == 2
    assert (control["lower_disp_limit"], control["upper_disp_limit"]) == (-50, 50)
    gp.put(f"{calc}.PREC", 5)


@pytest.mark.parametrize("switch", ["userCalcEnable", "{calc}Enable"])
def test_the_enables_disable(gp, calc, switch):
    switch = switch.format(calc=calc)
    gp.put(f"{calc}.CALC", "A")
    gp.put(f"{calc}.A", 1)
    gp.put(switch, "Disable")
    try:
        gp.put(f"{calc}.A", 2)
        assert gp.get(calc) == 1
        assert gp.get(f"{calc}.STAT") == 18  # DISABLE; CA enums carry 16 names only
    finally:
        gp.put(switch, "Enable")
    gp.put(f"{calc}.PROC", 1)
    assert gp.get(calc) == 2
