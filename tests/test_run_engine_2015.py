"""What a RunEngine session could do in 2015 (run_engine_2015.txt), done with today's: one test per section.

The engine is the session's own, with the journal and the catalog behind it. Where time and motion matter, the motors
are those of the virtual beamline.
"""

import os
import signal
import threading
import time
import traceback
from types import SimpleNamespace

import numpy as np
import pytest

from instrument.config.errors import UserError


@pytest.fixture
def lab(tmp_path):
    """A session's engine, journal and catalog, and the simulated devices of the reference."""
    import ophyd.sim
    from bluesky import Msg
    from bluesky import plan_stubs as bps
    from bluesky import plans as bp
    from bluesky import preprocessors as bpp

    from instrument.callbacks.journal import Journal
    from instrument.framework.catalog import open_catalog
    from instrument.framework.engine import RunEngine, during_task
    from instrument.framework.index import RunIndex
    from instrument.framework.runfiles import DataDirectory

    data = DataDirectory(tmp_path / "data")
    index = RunIndex(data.index, data.runs)
    journal = Journal(data.runs, index=index)
    config = SimpleNamespace(catalog="embedded", root_map={})
    cat, db = open_catalog(config, data=data.root, index=index)
    engine = RunEngine({"beamline_id": "test"}, journal=journal, during_task=during_task(lambda: None))
    documents = []
    engine.subscribe(lambda name, doc: documents.append((name, doc)))
    messages = []
    engine.msg_hook = messages.append
    motor = ophyd.sim.SynAxis(name="motor")
    det = ophyd.sim.SynGauss("sg", motor, "motor", center=0, Imax=1, sigma=1)
    yield SimpleNamespace(
        **dict(RE=engine, cat=cat, db=db, documents=documents, messages=messages, motor=motor, det=det),
        **dict(Msg=Msg, bps=bps, bp=bp, bpp=bpp),
        names=lambda: [name for name, _ in documents],
        of=lambda kind: [doc for name, doc in documents if name == kind],
        commands=lambda: [message.command for message in messages],
    )
    journal.close()
    index.close()


@pytest.fixture(scope="module")
def motors(virtual_beamline):
    """Three motors of the virtual beamline, all at 0, and a signal to read."""
    from instrument.devices.motors import Motor

    made = [Motor(f"{virtual_beamline.prefix}m{number}", name=f"m{number}") for number in (3, 4, 5)]
    for motor in made:
        motor.wait_for_connection(timeout=10)
    return made


@pytest.fixture
def at_zero(motors):
    for motor in motors:
        motor.move(0, wait=False)
    deadline = time.monotonic() + 30
    while any(motor.moving or abs(motor.position) > 0.01 for motor in motors):
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)
    return motors


def when(condition, act, deadline=20.0):
    """Call `act` from another thread as soon as `condition()` holds."""

    def wait():
        end = time.monotonic() + deadline
        while not condition() and time.monotonic() < end:
            threading.Event().wait(0.005)
        act()

    threading.Thread(target=wait, daemon=True).start()


# --- The Run Engine processes messages


def test_a_message_has_a_command_an_object_arguments_and_keywords(lab):
    message = lab.Msg("set", lab.motor, 5, group="A")
    assert (message.command, message.obj, message.args, message.kwargs) == ("set", lab.motor, (5,), {"group": "A"})


def test_simple_scan_set_and_read(lab):
    def simple_scan(motor):
        """Set, wait, read."""
        yield from lab.bps.open_run()
        yield lab.Msg("set", motor, 5, group="A")
        yield lab.Msg("wait", None, group="A")
        yield lab.Msg("read", motor)
        yield from lab.bps.close_run()

    (uid,) = lab.RE(simple_scan(lab.motor))
    assert lab.names() == ["start", "stop"]
    (start,), (stop,) = lab.of("start"), lab.of("stop")
    assert (start["uid"], start["beamline_id"]) == (uid, "test")
    assert (stop["run_start"], stop["exit_status"], stop["reason"]) == (uid, "success", "")
    assert lab.motor.readback.get() == 5


def test_messages_without_a_run_leave_no_documents(lab):
    assert lab.RE([lab.Msg("set", lab.motor, 5), lab.Msg("read", lab.motor)]) == ()
    assert lab.documents == []


def test_simple_scan_with_a_detector(lab):
    seen = {}

    def simple_scan2(motor, det):
        """Set, trigger the detector, read."""
        yield from lab.bps.mv(motor, 5)
        yield from lab.bps.trigger(det, wait=True)
        seen.update((yield lab.Msg("read", det)))

    lab.RE(simple_scan2(lab.motor, lab.det))
    assert seen["sg"]["value"] == pytest.approx(3.7266531720786709e-06)  # the reference's figure
    assert "timestamp" in seen["sg"]


# --- Two-way communication


def test_adaptive_scan_goes_on_until_the_detector_reads_less(lab):
    places = []

    @lab.bpp.run_decorator()
    def adaptive_scan(motor, det, threshold):
        i = 0
        while True:
            places.append(i)
            yield from lab.bps.mv(motor, i)
            reading = yield from lab.bps.trigger_and_read([det, motor])
            if reading["sg"]["value"] < threshold:
                return (yield from lab.bps.rd(det))
            i += 1

    lab.RE(adaptive_scan(lab.motor, lab.det, 0.2))
    assert places == [0, 1, 2]
    assert [event["data"]["sg"] for event in lab.of("event")] == pytest.approx([1, 0.60653065971263342, 0.1353352832])


# --- Sleep and wait


def test_sleep(lab):
    times = []

    def sleepy_scan(motor, det):
        yield from lab.bps.mv(motor, 5)
        times.append(time.monotonic())
        yield from lab.bps.sleep(0.3)
        times.append(time.monotonic())
        yield from lab.bps.trigger(det, wait=True)

    lab.RE(sleepy_scan(lab.motor, lab.det))
    assert times[1] - times[0] >= 0.3


def test_wait_for_one_motor(lab, at_zero):
    (motor, *_) = at_zero
    states = []

    def wait_one(motor, det):
        yield from lab.bps.abs_set(motor, 0.5, group="A")
        states.append(motor.position)
        yield from lab.bps.wait(group="A")
        states.append(motor.position)
        yield from lab.bps.trigger_and_read([det])

    lab.RE(lab.bpp.run_wrapper(wait_one(motor, lab.det)))
    assert states[0] < 0.5
    assert states[1] == pytest.approx(0.5, abs=0.001)


def test_wait_for_two_motors_that_move_together(lab, at_zero):
    first, second, _ = at_zero
    arrivals = {}
    for motor in (first, second):
        motor.subscribe(
            lambda *_, motor=motor, **__: arrivals.setdefault(motor.name, time.monotonic()), "done_moving", run=False
        )
    begin = time.monotonic()
    lab.RE(lab.bps.mv(first, 1, second, 1))
    took = time.monotonic() - begin
    each = 1 / first.velocity.get() + first.acceleration.get()
    assert [motor.position for motor in (first, second)] == pytest.approx([1, 1], abs=0.001)
    assert took < 2 * each + 1
    assert abs(arrivals[first.name] - arrivals[second.name]) < each


def test_wait_for_groups_at_different_points(lab, at_zero):
    *both, last = at_zero
    reads = []

    @lab.bpp.run_decorator()
    def wait_complex(motors, det):
        for motor in motors[:-1]:
            yield from lab.bps.abs_set(motor, 0.2, group="A")
        yield from lab.bps.abs_set(motors[-1], 4, group="B")
        yield from lab.bps.wait(group="A")
        reads.append([motor.position for motor in motors])
        yield from lab.bps.trigger_and_read([det])
        yield from lab.bps.wait(group="B")
        reads.append([motor.position for motor in motors])
        yield from lab.bps.trigger_and_read([det])

    lab.RE(wait_complex([*both, last], lab.det))
    early, late = reads
    assert early[:2] == pytest.approx([0.2, 0.2], abs=0.001)
    assert early[2] < 3.9
    assert late[2] == pytest.approx(4, abs=0.001)
    assert len(lab.of("event")) == 2


# --- Runs can be aborted


def test_ctrl_c_is_caught_between_messages_and_the_run_ends_in_good_order(lab):
    @lab.bpp.run_decorator()
    def endless(motor, det):
        while True:
            yield from lab.bps.mv(motor, 1)
            yield from lab.bps.trigger_and_read([motor, det])

    when(lambda: len(lab.of("event")) > 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(UserError, match="aborted"):
        lab.RE(endless(lab.motor, lab.det))
    (stop,) = lab.of("stop")
    assert stop["exit_status"] == "abort"
    assert "Ctrl-C" in stop["reason"]
    assert lab.RE.state == "idle"
    lab.RE(lab.bp.count([lab.det]))  # and the next one works


def test_after_a_pause_messages_since_the_checkpoint_are_repeated(lab):
    @lab.bpp.run_decorator()
    def sleepy_scan_checkpoints(motor, det):
        yield from lab.bps.checkpoint()
        yield from lab.bps.abs_set(motor, 5, wait=True)
        yield from lab.bps.sleep(2)
        yield from lab.bps.trigger_and_read([det])

    when(lambda: "sleep" in lab.commands(), lab.RE.request_pause)
    with pytest.raises(UserError, match=r"RE\.resume"):
        lab.RE(sleepy_scan_checkpoints(lab.motor, lab.det))
    assert lab.RE.state == "paused"
    before = lab.commands()
    lab.RE.resume()
    assert lab.commands()[len(before) :][:4] == ["set", "wait", "sleep", "trigger"]
    assert lab.of("stop")[0]["exit_status"] == "success"


def test_a_pause_in_the_midst_of_a_move_can_be_resumed_at_once(lab, at_zero):
    (motor, *_) = at_zero

    @lab.bpp.run_decorator()
    def moving(target):
        yield from lab.bps.checkpoint()
        yield from lab.bps.mv(motor, target)

    for target in (2, 4, 6):  # whether the motor has come to rest when it is set again is a matter of milliseconds
        when(lambda target=target: motor.position > target - 1.9, lab.RE.request_pause)
        with pytest.raises(UserError, match=r"RE\.resume"):
            lab.RE(moving(target))
        lab.RE.resume()
        assert motor.position == pytest.approx(target, abs=0.01)
    assert {stop["exit_status"] for stop in lab.of("stop")} == {"success"}


@pytest.mark.parametrize(
    ("end", "status"),
    [("stop", "success"), ("abort", "abort"), ("halt", "abort")],
)
def test_a_paused_run_can_be_ended_in_three_ways(lab, end, status):
    cleaned = []

    def clean():
        cleaned.append(True)
        yield from lab.bps.null()

    plan = lab.bpp.finalize_wrapper(lab.bpp.run_wrapper(lab.bps.pause()), clean())
    with pytest.raises(UserError):
        lab.RE(plan)
    getattr(lab.RE, end)(*(["not needed"] if end == "abort" else []))
    (stop,) = lab.of("stop")
    assert stop["exit_status"] == status
    assert cleaned == ([] if end == "halt" else [True])
    if end == "abort":
        assert stop["reason"] == "not needed"
    assert lab.RE.state == "idle"


def test_an_error_in_a_plan_has_its_full_traceback(lab):
    """What threads could be switched off for: today the traceback reaches into the plan anyway."""

    def simple_scan(motor):
        yield from lab.bps.mv(motor, 1)
        raise ZeroDivisionError("in the plan")

    with pytest.raises(ZeroDivisionError, match="in the plan") as caught:
        lab.RE(simple_scan(lab.motor))
    assert "simple_scan" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


# --- Functions subscribe to the live data stream


def test_create_and_save_make_events_and_one_descriptor(lab):
    @lab.bpp.run_decorator()
    def simple_scan_saving(motor, det):
        for place in (5, 6):
            yield from lab.bps.mv(motor, place)
            yield from lab.bps.create()
            yield from lab.bps.read(motor)
            yield from lab.bps.read(det)
            yield from lab.bps.save()

    lab.RE(simple_scan_saving(lab.motor, lab.det))
    assert lab.names() == ["start", "descriptor", "event", "event", "stop"]
    (descriptor,) = lab.of("descriptor")
    assert {"motor", "sg"} <= set(descriptor["data_keys"])
    assert descriptor["data_keys"]["sg"]["dtype"] == "number"
    assert [event["seq_num"] for event in lab.of("event")] == [1, 2]
    assert [event["data"]["motor"] for event in lab.of("event")] == [5, 6]
    assert all(type(doc) is dict for _, doc in lab.documents)


def test_streams_have_names(lab):
    @lab.bpp.run_decorator()
    def two_streams():
        yield from lab.bps.trigger_and_read([lab.det])
        yield from lab.bps.trigger_and_read([lab.motor], name="where")

    lab.RE(two_streams())
    assert [descriptor["name"] for descriptor in lab.of("descriptor")] == ["primary", "where"]


def test_subscribe_for_one_run_or_for_all_until_unsubscribed(lab):
    once, always = [], []
    lab.RE(lab.bp.count([lab.det], 2), {"event": lambda _name, doc: once.append(doc["time"])})
    token = lab.RE.subscribe(lambda _name, doc: always.append(doc["time"]), "event")
    assert isinstance(token, int)
    lab.RE(lab.bp.count([lab.det], 3))
    lab.RE.unsubscribe(token)
    lab.RE(lab.bp.count([lab.det], 4))
    assert (len(once), len(always)) == (2, 3)


def test_live_plotting(lab):
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from bluesky.callbacks.mpl_plotting import LivePlot

    from instrument.callbacks.live import BestEffort

    def stepscan(motor, detector):
        for i in range(-5, 5):
            yield from lab.bps.mv(motor, i)
            yield from lab.bps.trigger_and_read([motor, detector])

    _, axes = plt.subplots()
    bec = BestEffort()
    plan = lab.bpp.run_wrapper(stepscan(lab.motor, lab.det), md={"motors": ["motor"]})
    lab.RE(plan, [LivePlot("sg", "motor", ax=axes), bec])
    stock = axes.lines[0]
    assert list(stock.get_xdata()) == list(range(-5, 5))
    bec.draw(force=True)
    ours = plt.figure("sg vs motor").axes[0].lines[0]
    assert (list(ours.get_xdata()), list(ours.get_ydata())) == (list(stock.get_xdata()), list(stock.get_ydata()))
    assert max(stock.get_ydata()) == 1
    plt.close("all")


def test_who_must_have_each_document_is_called_on_the_scans_thread_and_can_stop_it(lab):
    threads = set()

    def critical(_name, _doc):
        threads.add(threading.current_thread())
        if len(lab.of("event")) == 3:
            raise RuntimeError("the disk is full")

    lab.RE.subscribe(critical)
    with pytest.raises(RuntimeError, match="the disk is full"):
        lab.RE(lab.bp.count([lab.det], 10))
    assert threads == {lab.RE._th}
    assert len(lab.of("event")) == 3
    assert lab.of("stop")[0]["exit_status"] == "fail"


# --- Saving documents, and having them back


def test_a_run_is_in_the_catalog_on_the_next_line(lab):
    (uid,) = lab.RE(lab.bp.scan([lab.det], lab.motor, -1, 1, 5))
    run = lab.cat[-1]
    assert run.metadata["start"]["uid"] == uid
    assert run.metadata["stop"]["exit_status"] == "success"
    data = run.primary.read()
    assert list(data["motor"].values) == [-1, -0.5, 0, 0.5, 1]
    assert list(data["sg"].values) == pytest.approx(list(np.exp(-(data["motor"].values ** 2) / 2)))


def test_header_and_table_of_the_older_interface(lab):
    lab.RE(lab.bp.count([lab.det], 3), owner="tester")
    header = lab.db[-1]
    assert (header.start["owner"], header.start["beamline_id"]) == ("tester", "test")
    assert (header.stop["exit_status"], header.stop["reason"]) == ("success", "")
    (descriptor,) = header.descriptors
    assert set(descriptor["data_keys"]) == {"sg"}
    assert list(header.table()["sg"]) == [1.0, 1.0, 1.0] or len(header.table()) == 3


# --- Fly scans


class FlyMagic:
    """The reference's flyer: kicked off at once, then it has fifteen angles and their sines to give."""

    parent = None

    def __init__(self, name, theta, sine):
        self.name = name
        self._keys = theta, sine

    def kickoff(self):
        from ophyd.status import Status

        self._began = time.time()
        return _finished(Status())

    def complete(self):
        from ophyd.status import Status

        return _finished(Status())

    def read_configuration(self):
        return {}

    def describe_configuration(self):
        return {}

    def describe_collect(self):
        key = {"source": self.name, "dtype": "number", "shape": []}
        return {self.name: dict.fromkeys(self._keys, key)}

    def collect(self):
        for step, theta in enumerate(np.linspace(0, 2 * np.pi, 15)):
            when_ = self._began + step * 0.01
            values = dict(zip(self._keys, (float(theta), float(np.sin(theta))), strict=True))
            yield {"time": when_, "data": values, "timestamps": dict.fromkeys(values, when_)}


def _finished(status):
    status.set_finished()
    return status


REFERENCE_SINES = [0, 0.4338837, 0.7818315, 0.9749279, 0.9749279, 0.7818315, 0.4338837, 0, -0.4338837, -0.7818315]


def test_fly_scan(lab):
    (uid,) = lab.RE(lab.bp.fly([FlyMagic("flyer", "theta", "sin")]))
    assert [command for command in lab.commands() if command in ("kickoff", "complete", "collect")] == [
        "kickoff",
        "complete",
        "collect",
    ]
    assert {"event", "event_page"} & set(lab.names())
    data = lab.cat[uid].flyer.read()
    assert list(data["sin"].values[:10]) == pytest.approx(REFERENCE_SINES, abs=1e-6)
    assert data["theta"].values[1] == pytest.approx(0.448799, abs=1e-6)
    frame = data.to_dataframe()
    assert {"sin", "theta"} <= set(frame.columns)
    assert len(frame) == 15


def test_fly_and_step_scan_in_one_run_in_two_streams(lab):
    flyer = FlyMagic("flyer", "theta", "sin")

    @lab.bpp.run_decorator()
    def fly_step_gen(flyer, motor):
        for x in range(-5, 5):
            yield from lab.bps.mv(motor, x)
            yield from lab.bps.trigger_and_read([motor])
            yield from lab.bps.kickoff(flyer, wait=True)
            yield from lab.bps.complete(flyer, wait=True)
            yield from lab.bps.collect(flyer)

    lab.RE(fly_step_gen(flyer, lab.motor))
    run = lab.cat[-1]
    assert sorted(run) == ["flyer", "primary"]
    assert list(run.primary.read()["motor"].values) == list(range(-5, 5))
    assert run.flyer.read()["sin"].shape == (150,)
    assert run.metadata["stop"]["num_events"] == {"primary": 10, "flyer": 150}
