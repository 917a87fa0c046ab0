"""The journal records what is emitted, as it is, or refuses it by name."""

import datetime
import enum
import json
import sys
import threading
import time
from functools import partial
from pathlib import Path

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import event_model
import msgpack
import numpy as np
import ophyd.sim
import pytest
from bluesky.preprocessors import run_decorator
from hypothesis import given, settings
from hypothesis import strategies as st

from instrument.callbacks.journal import Journal
from instrument.config.errors import UserError
from instrument.framework.runfiles import FORMAT_FILE, RunFile, RunFileError, RunWriter, UnstorableError, unstorable
from tests.faults_page import fault


def plain(value):
    """Documents as every format gives them back: tuples are lists."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def scan(points=5):
    return bp.scan([ophyd.sim.det], ophyd.sim.motor, -1, 1, points)


class Signal:
    """A detector that reads whatever it was given."""

    parent = None

    def __init__(self, value, name="signal"):
        self.name = name
        self.value = value

    def read(self):
        return {self.name: {"value": self.value, "timestamp": time.time()}}

    def describe(self):
        return {self.name: {"source": "test", "dtype": "string", "shape": []}}

    def read_configuration(self):
        return {}

    def describe_configuration(self):
        return {}


def test_the_file_holds_every_document_in_the_order_of_emission(laboratory):
    (uid,) = laboratory.engine(scan())
    assert plain(list(RunFile(laboratory.path(uid)))) == plain(laboratory.emitted)
    assert [name for name, _ in laboratory.emitted] == ["start", "descriptor", *["event"] * 5, "stop"]


def test_each_document_is_in_the_file_before_the_next_subscriber_hears_of_it(laboratory):
    seen = []

    def look(name, document):
        (path,) = laboratory.data.runs.rglob("*.msgpack")
        seen.append(plain(list(RunFile(path))[-1]) == plain((name, document)))

    laboratory.engine.subscribe(look)
    laboratory.engine(scan(3))
    assert seen == [True] * 6


def test_files_lie_by_year_and_month_beside_a_schema_version(laboratory):
    (uid,) = laboratory.engine(scan(1))
    now = time.localtime(laboratory.emitted[0][1]["time"])
    assert laboratory.path(uid) == laboratory.data.runs / f"{now.tm_year}/{now.tm_mon:02d}/{uid}.msgpack"
    assert json.loads((laboratory.data.runs / FORMAT_FILE).read_text()) == {"format": "suitcase-msgpack", "schema": 1}


def test_runs_of_a_newer_schema_are_refused_by_name(laboratory):
    laboratory.data.runs.mkdir(parents=True)
    (laboratory.data.runs / FORMAT_FILE).write_text('{"format": "suitcase-msgpack", "schema": 2}')
    with pytest.raises(RunFileError, match=r"schema version 2.*reads 1"):
        laboratory.engine(scan(1))


def test_runs_that_are_open_at_the_same_time_each_have_their_file(laboratory):
    @run_decorator(md={"which": "inner"})
    def inner():
        yield from bps.trigger_and_read([ophyd.sim.det], name="inner")

    @bluesky_run_key("outer")
    @run_decorator(md={"which": "outer"})
    def outer():
        yield from bps.trigger_and_read([ophyd.sim.det])
        yield from bluesky_set_key("inner", inner())
        yield from bps.trigger_and_read([ophyd.sim.det])

    uids = laboratory.engine(outer())
    names = {}
    for uid in uids:
        run = RunFile(laboratory.path(uid))
        documents = list(run)
        assert documents[0][1]["uid"] == documents[-1][1]["run_start"] == uid
        names[documents[0][1]["which"]] = [name for name, _ in documents]
    assert names == {
        "outer": ["start", "descriptor", "event", "event", "stop"],
        "inner": ["start", "descriptor", "event", "stop"],
    }


def bluesky_set_key(key, plan):
    from bluesky.preprocessors import set_run_key_wrapper

    return set_run_key_wrapper(plan, key)


def bluesky_run_key(key):
    return lambda plan: lambda: bluesky_set_key(key, plan())


VALUES = {
    "numpy float32": np.float32(0.1),
    "numpy int8": np.int8(-3),
    "numpy bool": np.bool_(True),
    "numpy float64": np.float64(0.1),
    "complex": 1 + 2j,
    "image": np.arange(12, dtype=np.uint16).reshape(3, 4),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "every second": np.arange(10)[::2],
    "empty": np.zeros((0, 4)),
    "text array": np.array(["a", "bb"]),
    "record array": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "date array": np.array(["2026-11-21"], dtype="datetime64[D]"),
    "date": np.datetime64("2026-11-21T04:00"),
    "duration": np.timedelta64(3, "s"),
    "bytes": b"\x00\xff",
    "infinity": float("inf"),
    "largest": 2**64 - 1,
    "smallest": -(2**63),
    "none": None,
    "list": [1, [2, "three"], {"four": 4.0}],
    "text": "Ångström 温度",
}


@fault(
    "Unusual event data: numpy scalars and arrays, bytes, infinity, dates, None", "stored and read back as they were"
)
@pytest.mark.parametrize("kind", VALUES)
def test_what_a_detector_returns_is_stored_faithfully(laboratory, kind):
    value = VALUES[kind]
    (uid,) = laboratory.engine(bp.count([Signal(value)]))
    (event,) = [document for name, document in RunFile(laboratory.path(uid)) if name == "event"]
    stored = event["data"]["signal"]
    if isinstance(value, np.ndarray):
        assert stored.dtype == value.dtype
        assert stored.shape == value.shape
    np.testing.assert_equal(stored, value)


def test_not_a_number_is_stored_as_such(laboratory):
    (uid,) = laboratory.engine(bp.count([Signal(float("nan"))]))
    assert np.isnan(list(RunFile(laboratory.path(uid)))[2][1]["data"]["signal"])


class Colour(enum.Enum):
    RED = 1


class Mode(enum.StrEnum):
    FAST = "fast"


REFUSED = {
    "datetime": (datetime.datetime(2026, 11, 21), "a datetime.datetime"),
    "enumeration": (Colour.RED, "an enumeration (Colour); give its value"),
    "path": (Path(), "PosixPath"),
    "set": ({1, 2}, "a set"),
    "object array": (np.array([object()]), "an array of objects"),
    "large integer": (2**64, "an integer of more than 64 bits"),
    "integer key": ({1: "one"}, "has a key 1 that is no text"),
    "half a character": ("\ud800", "not valid Unicode"),
}


@fault(
    "Event data that cannot be stored: datetime, enumeration, set, objects, more than 64 bits",
    "the run fails and names the key; the next one works",
)
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_stored_fails_the_run_by_name_and_the_next_run_works(laboratory, kind):
    value, reason = REFUSED[kind]
    with pytest.raises(UnstorableError) as caught:
        laboratory.engine(bp.count([Signal({"inside": [value]})]))
    assert "event document: key 'signal" in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    (row,) = laboratory.index.rows()
    assert [name for name, _ in RunFile(row.path)] == ["start", "descriptor", "stop"]
    assert row.stop["exit_status"] == "fail"
    laboratory.engine(scan(1))


def test_a_text_enumeration_is_stored_as_its_text(laboratory):
    (uid,) = laboratory.engine(bp.count([Signal(Mode.FAST)]))
    assert list(RunFile(laboratory.path(uid)))[2][1]["data"]["signal"] == "fast"


@fault("Metadata that cannot be stored", "refused by name before the run starts")
@pytest.mark.parametrize("kind", REFUSED)
def test_metadata_that_cannot_be_stored_is_refused_before_the_run_starts(laboratory, kind):
    value, reason = REFUSED[kind]
    with pytest.raises(UnstorableError) as caught:
        laboratory.engine(scan(1), sample={"name": "x", "notes": [value]})
    assert str(caught.value).startswith("metadata key 'sample.notes[0]")
    assert reason in str(caught.value)
    assert "the run was not started" in str(caught.value)
    assert laboratory.emitted == []
    assert list(laboratory.data.runs.rglob("*.msgpack")) == []
    laboratory.engine(scan(1))


def test_metadata_that_nothing_validated_is_refused_with_no_file_left_behind(laboratory):
    laboratory.engine.md_validator = lambda metadata: None
    with pytest.raises(UserError, match="'when' is a datetime"):
        laboratory.engine(scan(1), when=datetime.datetime(2026, 11, 21))
    assert list(laboratory.data.runs.rglob("*.msgpack")) == []


storable = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
anything = st.recursive(
    storable | st.integers() | st.dates() | st.just(object()) | st.dictionaries(st.integers(), st.none(), max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None)
@given(value=anything)
def test_every_value_is_read_back_as_it_was_or_is_refused(value, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run.msgpack"
    writer = RunWriter(path, create=True)
    try:
        writer.append("start", {"uid": "x", "time": 1.0, "value": value})
    except UnstorableError:
        assert unstorable({"value": value})
        assert path.stat().st_size == 0
    else:
        assert list(RunFile(path)) == [("start", {"uid": "x", "time": 1.0, "value": value})]
        (name, _), *rest = msgpack.Unpacker(path.open("rb"), raw=False)  # any msgpack reader can read it
        assert (name, rest) == ("start", [])
    finally:
        writer.close()


def test_pages_datums_and_bulk_documents_are_recorded(laboratory):
    run = event_model.compose_run()
    descriptor = run.compose_descriptor("primary", {"x": {"source": "s", "dtype": "number", "shape": []}})
    resource = run.compose_resource(spec="S", root="/", resource_path="r", resource_kwargs={})
    page = descriptor.compose_event_page(data={"x": [1, 2]}, timestamps={"x": [1, 2]}, seq_num=[1, 2], time=[1, 2])
    event = descriptor.compose_event(data={"x": 3}, timestamps={"x": 3}, seq_num=3)
    documents = [
        ("start", run.start_doc),
        ("resource", resource.resource_doc),
        ("descriptor", descriptor.descriptor_doc),
        ("event_page", page),
        ("datum", resource.compose_datum({"i": 0})),
        ("datum_page", resource.compose_datum_page({"i": [1, 2]})),
        ("bulk_events", {"primary": [event]}),
        ("stop", run.compose_stop()),
    ]
    for name, document in documents:
        laboratory.journal(name, document)
    stored = RunFile(laboratory.path(run.start_doc["uid"]))
    assert [name for name, _ in stored] == [
        "start", "resource", "descriptor", "event_page", "datum", "datum_page", "event_page", "stop",
    ]  # fmt: skip
    stored.survey()
    events = stored.event_pages(descriptor.descriptor_doc["uid"])
    assert [value for part in events for value in part["data"]["x"]] == [1, 2, 3]
    datums = stored.datum_pages(resource.resource_doc["uid"])
    assert [value for part in datums for value in part["datum_kwargs"]["i"]] == [0, 1, 2]


def test_a_resource_that_does_not_name_its_run_goes_to_the_open_one(laboratory):
    laboratory.journal("start", {"uid": "run", "time": 1.0})
    laboratory.journal("resource", {"uid": "r", "spec": "S"})
    laboratory.journal("datum", {"datum_id": "r/0", "resource": "r", "datum_kwargs": {}})
    laboratory.journal("stop", {"uid": "s", "time": 2.0, "run_start": "run", "exit_status": "success"})
    assert [name for name, _ in RunFile(laboratory.path("run"))] == ["start", "resource", "datum", "stop"]


def test_an_event_that_comes_after_its_run_ended_is_no_error(laboratory):
    (uid,) = laboratory.engine(scan(1))
    size = laboratory.path(uid).stat().st_size
    laboratory.journal(*next(item for item in laboratory.emitted if item[0] == "event"))
    assert laboratory.path(uid).stat().st_size == size


def test_monitors_and_the_scan_may_emit_at_the_same_time(laboratory, request):
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-5)
    journal = laboratory.journal
    journal("start", {"uid": "run", "time": 1.0})
    for stream in "ab":
        journal("descriptor", {"uid": stream, "run_start": "run", "name": stream, "time": 1.0, "data_keys": {}})

    def emit(stream):
        for number in range(500):
            journal("event", {"uid": f"{stream}{number}", "descriptor": stream, "data": {}, "seq_num": number})

    threads = [threading.Thread(target=emit, args=(stream,)) for stream in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal("stop", {"uid": "stop", "time": 2.0, "run_start": "run", "exit_status": "success"})
    (row,) = laboratory.index.rows()
    run = RunFile(row.path)
    assert run.survey() == row.layout
    assert [name for name, _ in run].count("event") == 1000
    assert not run.damage
    for stream in "ab":
        numbers = [
            document["seq_num"] for name, document in run if name == "event" and document["descriptor"] == stream
        ]
        assert numbers == list(range(500))


@fault("A session ends with a run open", "it is closed with `exit_status: fail`")
def test_a_run_that_is_open_when_the_journal_closes_gets_a_stop_document(laboratory):
    laboratory.journal("start", {"uid": "run", "time": 1.0})
    laboratory.journal.close()
    (row,) = laboratory.index.rows()
    assert (row.stop["exit_status"], row.stop["reason"]) == ("fail", "session ended")
    assert list(RunFile(row.path))[-1][1] == row.stop


@fault("Power cut", "what is older than the sync interval (1 s) is on the disk, descriptors and stop documents at once")
def test_a_document_is_on_the_disk_within_the_interval(make_laboratory, monkeypatch, wait_until):
    import os

    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(os.fstat(descriptor).st_size), real(descriptor)))
    journal = make_laboratory(fsync_interval=0.02).journal
    journal("start", {"uid": "run", "time": 1.0})
    journal("descriptor", {"uid": "d", "run_start": "run", "name": "primary", "time": 1.0, "data_keys": {}})
    (path,) = journal.directory.rglob("*.msgpack")
    assert path.stat().st_size in synced  # at the descriptor, at once
    journal("event", {"uid": "e", "descriptor": "d", "data": {"x": 1}, "seq_num": 1})
    size = path.stat().st_size
    wait_until(lambda: size in synced)


def test_the_journal_does_not_wait_for_the_disk_at_events(make_laboratory, monkeypatch):
    import os

    laboratory = make_laboratory(fsync_interval=3600)
    laboratory.engine(scan(1))  # makes the month's directory
    calls = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append(threading.current_thread()), real(descriptor)))
    laboratory.engine(scan(50))
    assert len(calls) == 3  # the descriptor, the name of the file, the stop document


def test_a_journal_without_an_index_finds_its_orphans(tmp_path):
    first = Journal(tmp_path)
    first("start", {"uid": "run", "time": 1.0, "scan_id": 4})
    first._open["run"].close()  # its process ends
    (line,) = Journal(tmp_path).close_orphans()
    assert line.startswith("run 4 (run) was left open")


@fault("A run of 100,000 events (journal)", "recorded and read")
@pytest.mark.soak
def test_a_run_of_a_hundred_thousand_events_is_recorded_and_read(laboratory):
    journal = laboratory.journal
    journal("start", {"uid": "run", "time": 1.0, "scan_id": 1})
    journal("descriptor", {"uid": "d", "run_start": "run", "name": "primary", "time": 1.0, "data_keys": {"x": {}}})
    for number in range(100_000):
        event = {"uid": str(number), "descriptor": "d", "seq_num": number + 1, "time": 1.0 + number, "filled": {}}
        journal("event", {**event, "data": {"x": number / 7}, "timestamps": {"x": 1.0}})
    journal("stop", {"uid": "s", "run_start": "run", "time": 2e5, "exit_status": "success"})
    (row,) = laboratory.index.rows()
    assert row.layout.count("d") == 100_000
    assert len(row.layout.pack()) < 1000  # however long the run is
    pages = RunFile(row.path, row.layout).event_pages("d")
    assert [value for page in pages for value in page["data"]["x"]] == [number / 7 for number in range(100_000)]
