"""Suspenders hold a run while something is wrong, let it go on, and end it when that takes too long."""

import threading

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ophyd import Signal
from ophyd.sim import SynAxis, det

from instrument.config.errors import UserError
from instrument.framework.engine import RunEngine, RunInterruptedError
from instrument.framework.suspenders import Condition, Suspender, Suspenders

numbers = st.floats(-1e6, 1e6)


@given(value=numbers, low=numbers, gap=st.floats(1e-3, 1e6), margin=st.floats(0, 100))
def test_a_band_is_good_inside_and_better_before_it_goes_on(value, low, gap, margin):
    band = Condition(low=low, high=low + gap, resume_low=low + margin)
    assert (band.complaint(value) is None) == (low <= value <= low + gap)
    if band.complaint(value, tripped=True) is None:
        assert value >= low + margin
        assert band.complaint(value) is None


def test_what_is_wrong_is_said():
    assert Condition(low=50).complaint(0.0) == "0, below 50"
    assert Condition(high=35).complaint(40) == "40, above 35"
    assert Condition(low=50).complaint(float("nan")) == "nan, which is no number"
    assert Condition(only="open").complaint("close") == "close, not open"
    assert Condition(only="open").complaint("Open") is None
    assert [str(c) for c in (Condition(low=1, high=2), Condition(high=2), Condition(only="open"))] == [
        "1 < value < 2",
        "value < 2",
        "only open",
    ]


@pytest.fixture
def bench():
    """An engine, a signal that is watched, and what was told."""
    engine = RunEngine({})
    signal, told = Signal(name="current", value=100.0), []
    engine.subscribe(lambda name, doc: told.append(doc["exit_status"]), "stop")

    def make(tell=told.append, **options):
        return Suspenders(engine, [Suspender("beam", signal, Condition(low=50), tell=tell, **options)])

    return engine, signal, told, make


def points(signal, values):
    """A scan in which the signal takes these values from another thread, one at each point."""
    motor = SynAxis(name="motor")

    def at_point(detectors, step, pos_cache):
        yield from bps.one_nd_step(detectors, step, pos_cache)
        value = values.pop(0) if values else 100.0
        thread = threading.Thread(target=signal.put, args=(value,))
        thread.start()
        thread.join(5)
        yield from bps.sleep(0.05)

    return bp.scan([det], motor, 0, 1, 4, per_step=at_point)


def test_a_run_is_held_and_goes_on(bench):
    engine, signal, told, make = bench
    events = []
    engine.subscribe(lambda name, doc: events.append(doc["seq_num"]), "event")
    tell = when_told(engine, told, events, {"suspended": lambda: signal.put(100.0)})
    make(tell, settle=0.05).switch("beam", on=True)
    engine(points(signal, [100.0, 0.0]))
    assert told == [
        ("suspended: beam: current is 0, below 50; it goes on by itself, Ctrl-C ends the run", 2),
        ("beam is good again (current): the run goes on in 0.05 s", 2),
        "success",
    ]
    assert sorted(set(events)) == [1, 2, 3, 4]


def test_a_run_that_is_held_for_too_long_is_ended(bench):
    engine, signal, told, make = bench
    make(abort_after=0.3).switch("beam", on=True)
    with pytest.raises(RunInterruptedError, match=r"aborted \(beam: current is 0, below 50, for 0.3 s\)"):
        engine(points(signal, [100.0, 0.0]))
    assert told[1:] == ["beam: current is 0, below 50, for 0.3 s: the run is ended", "abort"]
    assert engine.state == "idle"


def test_a_plan_does_not_begin_before_all_is_well(bench):
    engine, signal, told, make = bench
    suspenders = make(when_told(engine, told, [], {"waiting": lambda: signal.put(60.0)}))
    signal.put(0.0)
    suspenders.switch("beam", on=True)
    engine(bp.count([det]))
    assert told == [
        ("waiting: beam: current is 0, below 50; it goes on by itself, Ctrl-C ends it", 0),
        ("beam is good again (current): the run goes on", 0),
        "success",
    ]


def when_told(engine, told, events, answers):
    """What shows lines: notes how many points there were by then, and after a line does what stands for its words.

    It does so once the engine waits: what is good again sooner is not told.
    """
    waits = threading.Event()
    engine.msg_hook = lambda message: waits.set() if message.command == "wait_for" else None

    def tell(line):
        told.append((line, len(events)))
        for words, answer in answers.items():
            if words in line:
                threading.Thread(target=lambda answer=answer: waits.wait(20) and answer()).start()

    return tell


def test_a_run_that_was_paused_does_not_go_on_before_all_is_well(bench):
    engine, signal, told, _ = bench
    events = []
    engine.subscribe(lambda name, doc: events.append(doc["seq_num"]), "event")
    tell = when_told(engine, told, events, {"waiting": lambda: signal.put(100.0)})
    Suspenders(engine, [Suspender("beam", signal, Condition(low=50), tell=tell)]).switch("beam", on=True)

    def shots(detectors):
        yield from bps.one_shot(detectors)
        if len(events) == 2:
            yield from bps.checkpoint()
            yield from bps.pause()

    with pytest.raises(RunInterruptedError, match="paused"):
        engine(bp.count([det], 4, per_shot=shots))
    signal.put(0.0)
    engine.resume()
    assert told == [
        ("waiting: beam: current is 0, below 50; it goes on by itself, Ctrl-C ends it", 2),
        ("beam is good again (current): the run goes on", 2),
        "success",
    ]
    assert len(events) == 4


def test_a_run_waits_for_all_that_hold_it(bench):
    engine, signal, told, _ = bench
    events = []
    engine.subscribe(lambda name, doc: events.append(doc["seq_num"]), "event")
    tell = when_told(
        engine,
        told,
        events,
        {
            "suspended: shutter": lambda: signal.put(60.0),
            "shutter still holds": lambda: signal.put(100.0),
        },
    )
    suspenders = Suspenders(
        engine,
        [
            Suspender("beam", signal, Condition(low=50), tell=tell),
            Suspender("shutter", signal, Condition(low=50, resume_low=90), tell=tell),
        ],
    )
    suspenders.switch("beam", on=True)
    suspenders.switch("shutter", on=True)
    engine(points(signal, [100.0, 0.0]))
    lines = [line for line, _ in told[:-1]]
    assert [line.split(": ")[:2] for line in lines[:2]] == [["suspended", "beam"], ["suspended", "shutter"]]
    assert lines[2:] == [
        "beam is good again (current): shutter still holds the run",
        "shutter is good again (current): the run goes on",
    ]
    assert len({count for _, count in told[:-1]}) == 1  # no point meanwhile
    assert told[-1] == "success"
    assert sorted(set(events)) == [1, 2, 3, 4]


def test_off_means_off(bench):
    engine, signal, told, make = bench
    suspenders = make()
    suspenders.switch("beam", on=True)
    assert suspenders.prompt() == "beam"
    suspenders.switch("beam", on=False)
    signal.put(0.0)
    engine(bp.count([det]))
    assert told == ["success"]
    assert suspenders.prompt() == ""
    with pytest.raises(UserError, match=r"no suspender is named 'baem'; did you mean 'beam'\?"):
        suspenders.switch("baem", on=True)
