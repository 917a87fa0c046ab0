"""Every consumer, every fault: no run is held up, and in the end there is exactly one copy of each, in order."""

import contextlib
import os
import threading
import time

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import ophyd.sim
import pytest
from bluesky.preprocessors import run_decorator

from instrument.callbacks import shipping
from tests.faults_page import fault

from .cases import CASES, MAY_MOUNT, Shipped, TiledPlace, clean
from .consumers import FeedFiles, FileConsumer
from .test_journal import Signal

os.environ.setdefault("TILED_RETRY_ATTEMPTS", "2")  # Tiled's client goes on for most of a minute

pytestmark = pytest.mark.usefixtures("short_pauses")

ONE_COPY = "the run is recorded; each consumer has exactly one copy of each run in the end, in order"


@pytest.fixture
def early_second_chance(monkeypatch):
    """What a server failed at is tried again in the time of a test."""
    monkeypatch.setattr(shipping, "SECOND_CHANCE", 1.0)


@pytest.fixture(scope="module")
def tiled_place(tmp_path_factory):
    place = TiledPlace(tmp_path_factory.mktemp("tiled"))
    yield place
    place.stop()


@pytest.fixture(params=CASES)
def case(request, laboratory, tmp_path):
    kind = CASES[request.param]
    case = kind(tmp_path, laboratory, kind.needs and request.getfixturevalue(kind.needs))
    yield case
    if isinstance(case, Shipped) and hasattr(case, "shipper"):
        case.shipper.close()
    clean(tmp_path / "place")


def count(num=1):
    return bp.count([ophyd.sim.det], num=num)


def emit(laboratory, number, **start):
    """A run of one point as the RunEngine emits it, without the time that it takes."""
    uid = f"{number:08d}-run"
    now = time.time()
    keys = {"x": {"dtype": "number", "shape": [], "source": "test", "object_name": "x"}}
    for name, document in (
        ("start", {"uid": uid, "time": now, "scan_id": number, "plan_name": "count", "plan_args": {}, **start}),
        ("descriptor", {"uid": f"{uid}-d", "run_start": uid, "time": now, "name": "primary", "data_keys": keys,
                        "object_keys": {"x": ["x"]}, "hints": {}, "configuration": {}}),
        ("event", {"uid": f"{uid}-e", "descriptor": f"{uid}-d", "time": now, "seq_num": 1, "data": {"x": 0.5},
                   "timestamps": {"x": now}, "filled": {}}),
        ("stop", {"uid": f"{uid}-s", "run_start": uid, "time": now, "exit_status": "success",
                  "num_events": {"primary": 1}}),
    ):  # fmt: skip
        laboratory.journal(name, document)
        laboratory.outbox(name, document)
    return uid


@fault("A consumer raises on a document, of each kind", ONE_COPY)
@pytest.mark.parametrize("kind", ["start", "descriptor", "resource", "datum", "event", "stop"])
def test_raises(laboratory, case, kind, tmp_path, wait_until):
    raised = []

    def before(name):
        if name == kind and not raised:
            raised.append(name)
            raise RuntimeError("broken")

    case.intercept(before)
    case.add()

    @run_decorator(md={"plan_name": "with_files"})
    def with_files():
        yield from bps.trigger_and_read([ophyd.sim.det])
        (uid,) = laboratory.journal._open
        resource = {"uid": f"{uid}-r", "run_start": uid, "spec": "NONE", "root": str(tmp_path), "resource_path": "x",
                    "resource_kwargs": {}, "path_semantics": "posix"}  # fmt: skip
        laboratory.journal("resource", resource)
        laboratory.journal("datum", {"datum_id": f"{uid}-r/0", "resource": f"{uid}-r", "datum_kwargs": {}, "uid": "d"})
        yield from bps.trigger_and_read([ophyd.sim.det])

    uids = [laboratory.engine(plan)[0] for plan in (with_files(), count())]
    assert case.wait()
    assert raised == [kind]
    assert case.copies() == uids
    wait_until(lambda: len(laboratory.reports) > 1)  # told by the consumer's thread, after the mark
    (line, again) = laboratory.reports
    assert line.endswith("yet: RuntimeError: broken; it is tried again")
    assert case.consumer.name in again
    assert case.row() == (2, 0, "")


@fault("A consumer hangs", "no run waits for it; another consumer has every run meanwhile; when it goes on: one copy")
def test_hangs(laboratory, case, tmp_path, wait_until):
    gate = threading.Event()
    case.intercept(lambda name: gate.wait())
    other = (FeedFiles if isinstance(case, Shipped) else FileConsumer)(tmp_path / "other", "other")
    case.add(other)
    uids = [laboratory.engine(count())[0] for _ in range(3)]
    assert not case.wait(0.05)
    assert case.copies() == []
    wait_until(lambda: (other.whole if isinstance(case, Shipped) else other.uids) == uids)
    assert case.copies() == []
    gate.set()
    assert case.wait()
    assert case.copies() == uids


PLACES = {
    "down": "The server is down, or the directory cannot be had",
    "disk_full": "The disk of a consumer is full",
    "directory_removed": "The directory of a consumer is removed",
    "read_only": "The directory of a consumer, or its server, is read-only",
}


def unusable(case, place):
    """The context in which its place cannot be used."""
    if place in {"disk_full", "read_only"} and not MAY_MOUNT and not isinstance(case, Shipped):
        pytest.skip("NOT RUN: a full or read-only disk needs mount, which this machine does not allow")
    return getattr(case, place)()


@pytest.mark.usefixtures("early_second_chance")
@pytest.mark.parametrize(
    "place",
    [
        pytest.param(place, marks=fault(f"{text}, from the start; it comes back", ONE_COPY))
        for place, text in PLACES.items()
    ],
)
def test_its_place_cannot_be_used_at_the_start(laboratory, case, place, wait_until):
    with unusable(case, place):
        case.add()
        uids = [laboratory.engine(count())[0] for _ in range(3)]
        wait_until(lambda: case.row()[:2] == (0, 3) and case.row()[2])
        assert not case.wait(0.1)
        assert laboratory.reports[0].startswith(f"{case.consumer.name}: run 1 is not ")
        assert "\n" not in laboratory.reports[0]
        told = list(laboratory.reports)
        assert len({line.partition(":")[2].split(":")[0] for line in told}) == len(
            told
        )  # each once, however often tried
    wait_until(case.wait)
    assert case.copies() == uids
    assert case.row() == (3, 0, "")


@pytest.mark.usefixtures("early_second_chance")
@pytest.mark.parametrize(
    "place",
    [
        pytest.param(place, marks=fault(f"{text}, in the midst of a run; it comes back", ONE_COPY))
        for place, text in PLACES.items()
    ],
)
def test_its_place_is_lost_in_mid_run(laboratory, case, place, wait_until):
    case.add()
    uids = [*laboratory.engine(count())]
    assert case.wait()
    with contextlib.ExitStack() as broken:

        @run_decorator(md={"plan_name": "mid_run"})
        def mid_run():
            yield from bps.trigger_and_read([ophyd.sim.det])
            if isinstance(case, Shipped):
                wait_until(lambda: case.shipper._lines[case.consumer.name].feeds)
            broken.enter_context(unusable(case, place))
            yield from bps.trigger_and_read([ophyd.sim.det])

        uids += laboratory.engine(mid_run())
        uids += laboratory.engine(count())
        wait_until(lambda: case.row()[1] and case.row()[2])
        assert not case.wait(0.1)
        assert laboratory.index.count({"scan_id": {"$gt": 0}}) == 3
    wait_until(case.wait)
    assert case.copies() == uids
    assert case.row() == (3, 0, "")


@fault("The server is down for an hour of runs; it comes back (360 runs; NeXus: 60, Tiled: 12)", ONE_COPY)
@pytest.mark.usefixtures("early_second_chance")
def test_down_for_an_hour_of_runs(laboratory, case, wait_until):
    with case.down():
        case.add()
        uids = [emit(laboratory, number) for number in range(1, case.hour + 1)]
        assert not case.wait(0.05)
        assert case.row()[:2] == (0, case.hour)
    assert case.wait()
    assert case.copies() == uids
    wait_until(lambda: len(laboratory.reports) > 1)
    assert len(laboratory.reports) == 2  # that it fails, and that it does no more


@fault("The clock jumps back by a day", "runs keep their order, `cat[-1]` is the last, each consumer has each once")
def test_the_clock_jumps_back(laboratory, case, monkeypatch):
    case.add()
    uids = [*laboratory.engine(count())]
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86_400)
    uids += laboratory.engine(count())
    assert laboratory.index.newest(0).uid == uids[-1]
    assert case.wait()
    assert sorted(case.copies()) == sorted(uids)


@fault(
    "1,000 one-point runs back to back (NeXus: 60, MongoDB: 200, Tiled: 12)",
    "each consumer has each of them once, in order",
)
def test_runs_back_to_back(laboratory, case):
    case.add()
    uids = [emit(laboratory, number) for number in range(1, case.many + 1)]
    assert case.wait(120)
    assert case.copies() == uids
    assert laboratory.index.count() == case.many


@fault("A run of 100,000 events (MongoDB: 10,000, Tiled: 5,000)", "each consumer has it whole, once, and the next run")
def test_a_run_of_a_hundred_thousand_events(laboratory, case):
    case.add()
    uid, now = "long", time.time()
    keys = {"x": {"dtype": "number", "shape": [], "source": "test", "object_name": "x"}}
    feed = [
        ("start", {"uid": uid, "time": now, "scan_id": 1, "plan_name": "count", "plan_args": {}}),
        ("descriptor", {"uid": "d", "run_start": uid, "time": now, "name": "primary", "data_keys": keys,
                        "object_keys": {"x": ["x"]}, "hints": {}, "configuration": {}}),
    ]  # fmt: skip
    event = {"descriptor": "d", "time": now, "data": {"x": 0.5}, "timestamps": {"x": now}, "filled": {}}
    stop = {"uid": "s", "run_start": uid, "time": now, "exit_status": "success", "num_events": {"primary": case.long}}
    for name, document in feed:
        laboratory.journal(name, document)
        laboratory.outbox(name, document)
    for number in range(case.long):
        laboratory.journal("event", {**event, "uid": f"e{number}", "seq_num": number + 1})
    laboratory.journal("stop", stop)
    laboratory.outbox("stop", stop)
    uids = [uid, emit(laboratory, 2)]
    assert case.wait(120)
    assert case.copies() == uids


ODD = {
    "numpy": np.float32(0.5),
    "array": np.arange(6, dtype="u2").reshape(2, 3),
    "bytes": b"\x00\xff",
    "nan": float("nan"),
    "complex": 1 + 2j,
    "date": np.datetime64("2026-11-21T04:00"),
    "large": 2**64 - 1,
    "text": "Ångström 温度",
    "none": None,
}


@fault(
    "Event data without a plain form: numpy, arrays, bytes, NaN, complex, dates, 64 bits, None",
    "a consumer has the run, or sets it aside and says why in one line; the next run is there",
)
def test_odd_event_data(laboratory, case):
    case.add()
    odd = [laboratory.engine(bp.count([Signal(value)]))[0] for value in ODD.values()]
    (plain,) = laboratory.engine(count())
    case.wait(90)
    copies = case.copies()
    assert copies == [uid for uid in [*odd, plain] if uid in copies]  # each once, in order
    assert copies[-1] == plain, laboratory.reports
    assert odd[0] in copies
    told = [line for line in laboratory.reports if " cannot be " in line]
    assert [line.split(" cannot be ")[0] for line in told] == [
        f"{case.consumer.name}: run {number}" for number, uid in enumerate(odd, 1) if uid not in copies
    ]
    assert not any("\n" in line for line in told)
    assert case.row()[:2] == (len(copies), len(told))


@fault("Killed between its write and its mark", "the run is delivered again, and there is one copy")
def test_a_lost_mark(laboratory, case):
    case.add()
    uids = [laboratory.engine(count())[0] for _ in range(2)]
    assert case.wait()
    if isinstance(case, Shipped):
        case.shipper.marks._execute("UPDATE deliveries SET state = 'ready'")
    else:
        laboratory.outbox._database.execute("UPDATE deliveries SET state = 'ready'")
    uids += laboratory.engine(count())
    assert case.wait()
    assert case.copies() == uids
    assert case.row() == (3, 0, "")
