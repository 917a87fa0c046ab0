"""The index answers as the files would, whatever happened to it or to them."""

import os
import re
import shutil
import time
from pathlib import Path

import bluesky.plans as bp
import hypothesis.strategies as st
import mongomock
import numpy as np
import ophyd.sim
import pytest
from hypothesis import example, given, settings

from instrument.framework.index import RunIndex, _New, translate
from instrument.framework.runfiles import Layout, RunFile, RunFileError, RunWriter, glance, run_path


def write_run(runs, uid, when=1_000_000.0, stop=True, **metadata):
    """A small run as the journal writes it, without the journal."""
    start = {"uid": uid, "time": when, **metadata}
    writer = RunWriter(run_path(runs, start), create=True)
    writer.append("start", start)
    if stop:
        writer.append("stop", {"uid": f"{uid}-stop", "run_start": uid, "time": when + 1, "exit_status": "success"})
    writer.close()
    return writer.path


@pytest.fixture
def runs(tmp_path):
    directory = tmp_path / "data" / "runs"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture
def index(tmp_path, runs):
    index = RunIndex(tmp_path / "data" / "index.sqlite", runs)
    yield index
    index.close()


def test_files_that_others_put_there_are_found_at_once(index, runs):
    assert index.refresh() == []
    for number in range(20):
        write_run(runs, f"run-{number}", when=1e6 * number, scan_id=number)
        assert index.refresh() == []
        assert index.newest(0).uid == f"run-{number}"


def test_a_file_that_comes_within_one_tick_of_the_last_look_is_found(index, runs):
    directory = write_run(runs, "one").parent
    index.refresh()
    before = directory.stat()
    write_run(runs, "two")
    os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a clock with coarse ticks has it
    assert index.refresh() == []
    assert set(index.uids()) == {"one", "two"}


def test_a_directory_is_looked_through_only_when_it_changed(index, runs, monkeypatch):
    looks = []
    scan = index._scan
    monkeypatch.setattr(index, "_scan", lambda directory, *rest: (looks.append(directory), scan(directory, *rest))[1])
    directory = write_run(runs, "one").parent
    for path in (directory, directory.parent, runs):
        os.utime(path, (1, 1))
    index.refresh()
    assert directory in looks
    looks.clear()
    index.refresh()
    assert looks == []
    write_run(runs, "two")
    index.refresh()
    assert looks == [directory]
    assert set(index.uids()) == {"one", "two"}


def test_the_writer_keeps_the_index_so_that_nothing_is_looked_through(laboratory, monkeypatch):
    laboratory.engine(bp.count([ophyd.sim.det]))
    for path in (laboratory.path(laboratory.emitted[0][1]["uid"]).parent, laboratory.data.runs):
        os.utime(path, (1, 1))
    laboratory.index.refresh()
    looks = []
    monkeypatch.setattr(laboratory.index, "_scan", lambda directory, *_: looks.append(directory) or [])
    for _ in range(5):
        (uid,) = laboratory.engine(bp.count([ophyd.sim.det]))
        laboratory.index.refresh()
        assert laboratory.index.newest(0).uid == uid
    assert looks == []


def test_a_run_that_goes_on_in_another_session_is_followed(laboratory):
    journal = laboratory.journal
    journal("start", {"uid": "run", "time": 1.0, "scan_id": 1})
    reader = RunIndex(None, laboratory.data.runs)
    assert reader.refresh() == []
    assert reader.with_uid("run")[0].stop is None
    journal("descriptor", {"uid": "d", "run_start": "run", "name": "primary", "time": 1.0, "data_keys": {}})
    assert reader.refresh() == []
    journal("stop", {"uid": "s", "time": 2.0, "run_start": "run", "exit_status": "success"})
    assert reader.refresh() == []
    assert reader.with_uid("run")[0].stop["uid"] == "s"


def test_files_that_were_moved_or_removed_are_known_to_be(index, runs):
    paths = [write_run(runs, f"run-{number}", when=1e6 + number) for number in range(3)]
    index.refresh()
    paths[0].unlink()
    elsewhere = runs / "2030" / "01"
    elsewhere.mkdir(parents=True)
    moved = shutil.move(paths[1], elsewhere)
    assert index.refresh() == []
    assert set(index.uids()) == {"run-1", "run-2"}
    assert index.with_uid("run-1")[0].path == elsewhere / os.path.basename(moved)


def test_a_deleted_index_is_rebuilt_from_the_files(laboratory, make_laboratory):
    uids = [laboratory.engine(bp.count([ophyd.sim.det], num=n))[0] for n in (1, 2, 3)]
    before = [(row.uid, row.start, row.stop) for row in laboratory.index.rows()]
    laboratory.close()
    for path in laboratory.data.root.glob("index.sqlite*"):
        path.unlink()
    second = make_laboratory()
    assert second.index.refresh() == []
    assert [(row.uid, row.start, row.stop) for row in second.index.rows()] == before
    assert second.index.uids() == uids[::-1]
    assert second.index.check() == []
    assert all(row.layout is not None for row in second.index.rows())  # found out by the check


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 300])
def test_an_index_that_is_no_database_is_replaced(tmp_path, runs, content):
    write_run(runs, "run")
    path = tmp_path / "data" / "index.sqlite"
    path.write_bytes(content)
    index = RunIndex(path, runs)
    index.refresh()
    assert index.uids() == ["run"]
    assert index.path == path
    index.close()


def test_an_index_of_another_version_is_replaced(index, tmp_path, runs):
    write_run(runs, "run")
    index.refresh()
    index._database.execute("PRAGMA user_version = 99")
    index.close()
    second = RunIndex(tmp_path / "data" / "index.sqlite", runs)
    second.refresh()
    assert second.uids() == ["run"]
    second.close()


def test_an_index_that_cannot_be_written_is_kept_in_memory(tmp_path, runs):
    write_run(runs, "run")
    (tmp_path / "file").touch()
    index = RunIndex(tmp_path / "file" / "index.sqlite", runs)
    assert index.path is None
    index.refresh()
    assert index.uids() == ["run"]


GARBAGE = {
    "noise": os.urandom(5000),
    "text": b"this is not a run\n" * 10,
    "another msgpack": b"\x93\x01\x02\x03",
    "a document of another kind first": b"\x92\xa4stop\x80",
    "a start document without a time": b"\x92\xa5start\x81\xa3uid\xa1x",
    "half a start document": b"\x92\xa5start\x82\xa3uid",
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_garbage_file_is_named_in_one_line_and_the_rest_is_there(index, runs, kind):
    good = write_run(runs, "good")
    bad = good.with_name("bad.msgpack")
    bad.write_bytes(GARBAGE[kind])
    (line,) = index.refresh()
    assert str(bad) in line
    assert "left out of the catalog" in line
    assert "\n" not in line
    assert index.refresh() == []  # said once
    assert index.uids() == ["good"]
    again = RunIndex(index.path, runs)
    assert again.refresh() == [line]  # and once in the next session
    bad.unlink()
    again.refresh()
    assert again.unreadable() == []
    again.close()
    bad.write_bytes(GARBAGE[kind])
    with pytest.raises(RunFileError, match="is not a run"):
        glance(bad)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_in_a_file_is_not_loaded(index, runs, tmp_path):
    import msgpack
    import msgpack_numpy

    pickled = msgpack_numpy.encode(np.array([Bomb(tmp_path / "exploded")], dtype=object))
    path = run_path(runs, {"uid": "run", "time": 1e6})
    path.parent.mkdir(parents=True)
    path.write_bytes(msgpack.packb(["start", {"uid": "run", "time": 1e6, "sample": pickled}]))
    (_, start), *_ = list(RunFile(path))
    index.refresh()
    index.newest(0)
    assert start["sample"][b"kind"] == b"O"
    assert not (tmp_path / "exploded").exists()
    msgpack_numpy.decode(start["sample"])  # as any other reader would
    assert (tmp_path / "exploded").exists()


def test_garbage_that_was_mended_is_taken_in(index, runs):
    good = write_run(runs, "good")
    content = good.read_bytes()
    good.write_bytes(b"x" * 50)
    assert len(index.refresh()) == 1
    draft = good.with_suffix(".new")
    draft.write_bytes(content)
    draft.replace(good)
    assert index.refresh() == []
    assert index.uids() == ["good"]


def test_a_truncated_file_shows_what_it_has_and_is_named(laboratory, make_laboratory):
    (uid,) = laboratory.engine(bp.count([ophyd.sim.det], num=10))
    laboratory.engine(bp.count([ophyd.sim.det]))
    path = laboratory.path(uid)
    laboratory.close()
    os.truncate(path, path.stat().st_size - 400)
    laboratory.data.index.unlink()
    second = make_laboratory()
    (line,) = second.index.refresh()
    assert line.startswith((f"{path} has no stop document", f"{path} ends within a document"))
    assert second.index.count() == 2
    row = second.index.with_uid(uid)[0]
    assert row.stop is None
    assert [name for name, _ in RunFile(row.path)][:3] == ["start", "descriptor", "event"]


def test_a_second_copy_of_a_run_is_named_and_counted_once(index, runs):
    path = write_run(runs, "run")
    copy = runs / "2031" / "01"
    copy.mkdir(parents=True)
    shutil.copy(path, copy)
    (line,) = index.refresh()
    assert "is a second copy of the run in" in line
    assert index.count() == 1


def test_damage_in_the_middle_is_found_by_the_check(laboratory):
    (uid,) = laboratory.engine(bp.count([ophyd.sim.det], num=10))
    path = laboratory.path(uid)
    content = bytearray(path.read_bytes())
    offset, _, _ = next(iter(laboratory.index.rows()[0].layout.spans.values()))[0]
    content[offset + 5] = 0xC1  # a byte that msgpack never uses
    path.write_bytes(content)
    problems = laboratory.index.check()
    assert any(f"{path} has no document at byte {offset}" in line for line in problems)


def test_runs_are_found_by_number_and_by_the_beginning_of_their_uid(index, runs):
    for number in range(12):
        write_run(runs, f"abc{number}-x", when=1e6 + number, scan_id=number % 6)
    index.refresh()
    assert index.with_scan_id(3).uid == "abc9-x"  # the newer of two
    assert index.with_scan_id(99) is None
    assert [row.uid for row in index.with_uid("abc11")] == ["abc11-x"]
    assert {row.uid for row in index.with_uid("abc1")} == {"abc1-x", "abc10-x", "abc11-x"}
    assert len(index.with_uid("abc")) == 10  # enough to say that it is ambiguous
    assert index.newest(11).uid == "abc0-x"
    assert index.newest(12) is None
    assert index.newest(0, {"scan_id": 2}).uid == "abc8-x"
    assert index.last_scan_id() == 5
    assert (
        index.describe()
        == f"12 runs, the last is 5: no plan, {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(1e6 + 11))}"
    )


def test_a_layout_survives_packing():
    layout = Layout()
    layout.add("start", {"uid": "x"}, 0, 10)
    layout.add("event", {"descriptor": "a"}, 10, 20)
    layout.add("event", {"descriptor": "a"}, 20, 30)
    layout.add("event_page", {"descriptor": "b", "seq_num": [1, 2]}, 30, 40)
    layout.add("event", {"descriptor": "a"}, 40, 50)
    assert layout.spans == {"a": [[10, 30, 2], [40, 50, 1]], "b": [[30, 40, 2]]}
    assert Layout.unpack(layout.pack()) == layout
    assert (layout.count("a"), layout.count("b"), layout.count("c")) == (3, 2, 0)


# -- searches, against MongoDB's semantics in the words of mongomock -------------------------------------------------

scalars = st.one_of(
    st.integers(-3, 3), st.sampled_from([0.5, -1.5, 2.0]), st.sampled_from(["scan", "count", "a b", ""]), st.booleans()
)
fields = st.sampled_from(["plan_name", "scan_id", "sample", "sample.name", "motors", "missing", "time"])
documents = st.fixed_dictionaries(
    {},
    optional={
        "plan_name": st.sampled_from(["scan", "count", "rel_scan"]),
        "scan_id": st.integers(0, 4),
        "sample": st.one_of(scalars, st.fixed_dictionaries({}, optional={"name": scalars, "mass": scalars})),
        "motors": st.lists(st.sampled_from(["m1", "m2", 3]), max_size=3),
        "note": st.none() | scalars,
    },
)
conditions = st.one_of(
    scalars,
    st.builds(
        lambda operator, value: {operator: value}, st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), st.integers(-2, 3)
    ),
    st.builds(lambda operator, value: {operator: value}, st.sampled_from(["$eq", "$ne"]), scalars),
    st.builds(
        lambda operator, values: {operator: values}, st.sampled_from(["$in", "$nin"]), st.lists(scalars, max_size=3)
    ),
    st.builds(lambda value: {"$exists": value}, st.booleans()),
    st.builds(lambda value: {"$regex": value}, st.sampled_from(["^s", "a", "count$"])),
    st.just({"$gte": 0, "$lt": 2}),
    st.sampled_from(["m1", "m2"]),
    st.lists(st.sampled_from(["m1", "m2", 3]), max_size=2),
    # not the empty one: mongomock takes it for no condition, MongoDB for an empty dictionary
    st.fixed_dictionaries({}, optional={"name": scalars, "mass": scalars}).filter(bool),
)
queries = st.recursive(
    st.dictionaries(fields, conditions, max_size=2),
    lambda inner: st.builds(
        lambda operator, parts: {operator: parts},
        st.sampled_from(["$and", "$or"]),
        st.lists(inner, min_size=1, max_size=2),
    ),
    max_leaves=3,
)


def booleans_and_numbers_mixed(value):
    """MongoDB tells true from 1; Python, mongoquery and SQLite do not."""
    if isinstance(value, dict):
        return any(booleans_and_numbers_mixed(item) for item in value.values())
    if isinstance(value, list):
        return any(booleans_and_numbers_mixed(item) for item in value)
    return isinstance(value, bool)


@given(stored=st.lists(documents, max_size=6), query=queries)
@example(stored=[{}], query={"plan_name": {"$ne": "scan"}})
@example(stored=[{}], query={"scan_id": {"$nin": [1]}})
@example(stored=[{"sample": "scan"}, {"sample": 3}], query={"sample": {"$gt": 1}})
@example(stored=[{"sample": {"name": 1}}], query={"sample.name": {"$lt": 2}})
@settings(max_examples=200, deadline=None)
def test_a_search_finds_what_mongodb_would_find(stored, query):
    stored = [{key: value for key, value in one.items() if not booleans_and_numbers_mixed(value)} for one in stored]
    starts = [{"uid": f"run{n}", "time": float(n), **one} for n, one in enumerate(stored)]
    if booleans_and_numbers_mixed({key: value for key, value in query.items() if "$exists" not in str(value)}):
        return
    collection = mongomock.MongoClient().db.runs
    for start in starts:
        collection.insert_one({**start})
    expected = {document["uid"] for document in collection.find(query)}
    index = RunIndex(None, Path("nowhere"))
    with index._transaction() as database:
        index._insert(database, [_New(f"{start['uid']}.msgpack", start["time"], start, None, 1) for start in starts])
    assert set(index.uids(query)) == expected
    assert index.count(query) == len(expected)
    assert {row.uid for row in index.rows(query)} == expected
    newest = index.newest(0, query)
    assert (newest.uid if newest else None) == max(expected, key=lambda uid: int(uid[3:]), default=None)
    index.close()


def test_common_searches_leave_nothing_to_python():
    for query in (
        {"plan_name": "scan"},
        {"time": {"$gte": 1.0, "$lt": 2.0}},
        {"$and": [{"plan_name": "scan"}, {"sample.name": "x"}]},
        {"$or": [{"plan_name": "scan"}, {"scan_id": {"$in": [1, 2]}}]},
        {"$text": {"$search": "steel"}},
        {"sample": {"$exists": True}},
        {"sample.name": {"$regex": "^st", "$options": "i"}},
        {"sample": re.compile("x")},
        {"x": np.float64(3)},
        None,
        {},
    ):
        assert translate(query)[2] is None
    # a whole dictionary is compared in Python, but only those of runs that have all of its values
    where, parameters, rest = translate({"sample": {"name": "x"}})
    assert "SELECT run FROM metadata" in where
    assert (parameters, rest) == (("sample.name", "x"), {"sample": {"$eq": {"name": "x"}}})
    assert translate({"sample": {}}) == ("(1)", (), {"sample": {"$eq": {}}})
    assert translate({"note": None})[2] == {"note": None}


@pytest.mark.parametrize(
    "pattern",
    ["^glass 1", "^glass", "^gl", "^glas?s", "^glass*", "^glass{1}", "^glas+", "^(g|s)", "^glass|steel", "^", "^g.ass",
     r"^glass\s", "glass", "ss 1$", "^GLASS", "^(?i:GLASS)", "^Å"],
)  # fmt: skip
@pytest.mark.parametrize("flags", [0, re.IGNORECASE])
def test_a_regular_expression_finds_what_python_finds_wherever_it_is_looked_for(pattern, flags):
    names = [
        "glass",
        "glass 1",
        "glass 12",
        "gla",
        "glas",
        "glasss",
        "steel",
        "Glass 1",
        "a glass 1",
        "gl\uffff",
        "Ångström",
    ]
    index = RunIndex(None, Path("nowhere"))
    starts = [{"uid": f"run{n}", "time": float(n), "sample": name} for n, name in enumerate(names)]
    with index._transaction() as database:
        index._insert(database, [_New(f"{start['uid']}.msgpack", start["time"], start, None, 1) for start in starts])
    expected = [start["uid"] for start in reversed(starts) if re.search(pattern, start["sample"], flags)]
    assert index.uids({"sample": re.compile(pattern, flags)}) == expected
    options = {"$options": "i"} if flags else {}
    assert index.uids({"sample": {"$regex": pattern, **options}}) == expected
    index.close()


def test_an_index_whose_making_was_cut_short_searches_as_fast_as_any(tmp_path, runs):
    index = RunIndex(tmp_path / "index.sqlite", runs)
    for name in ("metadata_key", "metadata_run"):
        index._database.execute(f"DROP INDEX {name}")
    index.close()
    again = RunIndex(tmp_path / "index.sqlite", runs)
    plan = again._database.execute(
        "EXPLAIN QUERY PLAN SELECT run FROM metadata WHERE key = 'a' AND value = 1"
    ).fetchall()
    assert "metadata_key" in str(plan)
    again.close()


def test_text_search_finds_words_phrases_and_leaves_out(index, runs):
    write_run(runs, "one", purpose="aligning the sample stage", sample={"name": "steel_17"})
    write_run(runs, "two", purpose="align the beam", user="Ångström")
    index.refresh()

    def found(text):
        return set(index.uids({"$text": {"$search": text}}))

    assert found("align") == {"one", "two"}
    assert found("stage beam") == {"one", "two"}
    assert found('"the sample"') == {"one"}
    assert found("align -beam") == {"one"}
    assert found("STEEL") == {"one"}
    assert found("ångström") == {"two"}
    for nothing in ("", "missing", '"', "*", "a AND", 'NEAR(x "'):
        assert found(nothing) <= {"one", "two"}


def test_arrays_and_numpy_numbers_in_metadata_are_searched(laboratory):
    (uid,) = laboratory.engine(
        bp.count([ophyd.sim.det]), positions=np.array([1.5, 2.5]), gain=np.float32(0.5), mode=np.int8(3)
    )
    assert laboratory.index.uids({"positions": 2.5}) == [uid]
    assert laboratory.index.uids({"gain": {"$lt": 1}}) == [uid]
    assert laboratory.index.uids({"mode": np.int64(3)}) == [uid]
