"""The RunEngine keeps documents first, ends in good order, and fails what waits on a dead device."""

import os
import signal
import threading
import time

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky import Msg
from ophyd import Device
from ophyd.sim import SynAxis, det, motor
from ophyd.status import Status

from instrument.config.errors import UserError
from instrument.framework.engine import RunEngine, RunInterruptedError, TraceMessages, during_task


@pytest.fixture
def documents():
    return []


@pytest.fixture
def engine(documents):
    return RunEngine({}, journal=lambda name, doc: documents.append((name, doc)), during_task=during_task(lambda: None))


def stop_document(documents):
    name, doc = documents[-1]
    assert name == "stop"
    return doc


def press_when(condition, number=signal.SIGINT, deadline=20.0):
    """Send a signal to this process as soon as `condition()` holds."""

    def wait():
        end = time.monotonic() + deadline
        while not condition() and time.monotonic() < end:
            threading.Event().wait(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def names(documents):
    return [name for name, _ in documents]


def endless(*, checkpoint=False, cleanup=()):
    @bpp.run_decorator()
    def inner():
        if checkpoint:
            yield from bps.checkpoint()
        yield from bps.sleep(3600)

    def finish():
        for step in cleanup:
            yield from bps.sleep(step)

    yield from bpp.finalize_wrapper(inner(), finish())


def unwrapped():
    yield from bps.open_run()
    yield from bps.sleep(3600)


def endless_move():
    class Slow(SynAxis):
        stopped = False

        def set(self, value):
            return Status(self)

        def stop(self, *, success=False):
            Slow.stopped = True

    slow = Slow(name="slow")
    slow.stopped = False
    yield from bps.open_run()
    yield from bps.mv(slow, 1)


@pytest.mark.parametrize("plan", [endless, lambda: endless(checkpoint=True), unwrapped, endless_move])
def test_one_ctrl_c_ends_the_run_as_aborted_also_without_checkpoints(engine, documents, plan):
    press_when(lambda: "start" in names(documents) and engine.state == "running")
    with pytest.raises(RunInterruptedError, match=r"the run was aborted \(Ctrl-C\)"):
        engine(plan())
    assert stop_document(documents)["exit_status"] == "abort"
    assert stop_document(documents)["reason"] == "Ctrl-C"
    assert engine.state == "idle"


def test_after_ctrl_c_the_next_scan_works(engine, documents):
    press_when(lambda: engine.state == "running")
    with pytest.raises(RunInterruptedError):
        engine(endless())
    engine(bp.count([det], 2))
    assert stop_document(documents)["exit_status"] == "success"


def test_ctrl_c_twice_skips_the_clean_up(engine, documents):
    steps = []

    def cleanup():
        steps.append("begun")
        yield from bps.sleep(3600)
        steps.append("ended")

    def plan():
        yield from bpp.finalize_wrapper(unwrapped(), cleanup())

    press_when(lambda: engine.state == "running" and "start" in names(documents))
    press_when(lambda: steps == ["begun"] and (threading.Event().wait(0.2) or True))
    with pytest.raises(RunInterruptedError):
        engine(plan())
    assert steps == ["begun"]
    assert stop_document(documents)["exit_status"] == "abort"


def test_ctrl_backslash_pauses_and_the_run_can_be_resumed(engine, documents):
    go_on = threading.Event()

    @bpp.run_decorator()
    def plan():
        yield from bps.checkpoint()
        while not go_on.is_set():
            yield from bps.sleep(0.01)

    press_when(lambda: engine.state == "running" and "start" in names(documents), signal.SIGQUIT)
    with pytest.raises(RunInterruptedError, match=r"RE\.resume\(\)"):
        engine(plan())
    assert engine.state == "paused"
    assert "stop" not in names(documents)
    go_on.set()
    engine.resume()
    assert stop_document(documents)["exit_status"] == "success"


def test_a_subscriber_that_raises_on_stop_starves_neither_journal_nor_delivery(documents):
    delivered = []
    engine = RunEngine(
        {},
        journal=lambda name, doc: documents.append((name, doc)),
        delivery=lambda name, _doc: delivered.append(name),
    )

    def broken(_name, _doc):
        raise ValueError("broken")

    engine.subscribe(broken, "stop")
    with pytest.raises(ValueError, match="broken"):
        engine(bp.count([det]))
    assert names(documents) == delivered == ["start", "descriptor", "event", "stop"]


def test_a_journal_that_fails_fails_the_run():
    def full(name, _doc):
        if name == "event":
            raise UserError("disk full")

    engine = RunEngine({}, journal=full)
    with pytest.raises(UserError, match="disk full"):
        engine(bp.count([det], 3))


def test_resetting_the_engine_does_not_lose_the_journal(engine, documents):
    engine.reset()
    engine(bp.count([det]))
    assert names(documents) == ["start", "descriptor", "event", "stop"]


def test_a_device_that_may_not_be_used_is_refused_before_it_is_touched(documents):
    def check(msg: Msg):
        if msg.obj is motor:
            raise UserError("motor is offline")

    engine = RunEngine({}, journal=lambda name, doc: documents.append((name, doc)), check_message=check)
    with pytest.raises(UserError, match="motor is offline"):
        engine(bp.scan([det], motor, 0, 1, 3))
    assert documents == []
    engine(bp.count([det]))


def test_what_waits_on_a_dead_device_fails_with_its_line(engine, documents):
    class Dead(Device):
        def trigger(self):
            return Status(self)

        def read(self):
            return {}

    dead = Dead(name="dead")
    waiting = threading.Event()
    engine.waiting_hook = lambda statuses: waiting.set() if statuses else None

    def die():
        waiting.wait(20)
        engine.fail_pending(dead, UserError("dead went offline"))

    threading.Thread(target=die, daemon=True).start()
    with pytest.raises(UserError, match="dead went offline"):
        engine(bp.count([dead]))
    assert stop_document(documents)["exit_status"] == "fail"
    assert stop_document(documents)["reason"] == "dead went offline"


def test_a_detector_that_is_left_counting_is_stopped(engine, documents):
    class Counter(Device):
        stopped = False

        def trigger(self):
            return Status(self)

        def stop(self, *, success=False):
            self.stopped = True

    counter = Counter(name="counter")
    waiting = threading.Event()
    engine.waiting_hook = lambda statuses: waiting.set() if statuses else None
    press_when(waiting.is_set)
    with pytest.raises(RunInterruptedError):
        engine(bp.count([counter]))
    assert counter.stopped


def test_tracing_prints_each_message(engine):
    lines = []
    engine.msg_hook = TraceMessages(lines.append)
    engine(bps.mv(motor, 3))
    assert [line.split()[1:3] for line in lines] == [["set", "motor"], ["wait", "-"]]


def test_drawing_happens_on_the_main_thread_while_the_plan_runs(documents):
    threads = set()
    engine = RunEngine({}, during_task=during_task(lambda: threads.add(threading.current_thread())))

    def plan():
        while not threads:
            yield from bps.sleep(0.01)

    engine(plan())
    assert threads == {threading.main_thread()}


def test_refused_metadata_take_no_scan_number(documents):
    def refuse(metadata):
        if "bad" in metadata:
            raise UserError("metadata key 'bad' cannot be stored")

    engine = RunEngine({}, journal=lambda name, doc: documents.append((name, doc)), md_validator=refuse)
    with pytest.raises(UserError, match="'bad'"):
        engine(bp.count([det]), bad=object())
    engine(bp.count([det]))
    assert documents[0][1]["scan_id"] == 1
