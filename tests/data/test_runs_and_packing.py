"""Runs are found by what people remember of them, checked against their files, and taken along to another machine."""

import time
from datetime import datetime, timedelta

import bluesky.plans as bp
import intake
import numpy as np
import pytest
from bluesky.preprocessors import run_decorator
from hypothesis import given
from hypothesis import strategies as st
from ophyd.sim import det, motor

from instrument.cli import main
from instrument.config.errors import UserError
from instrument.framework import packing, runs
from instrument.framework.image_roots import ImageRoots
from tests.data.consumers import FileConsumer


@pytest.fixture
def three_runs(laboratory):
    (count,) = laboratory.engine(bp.count([det], 2), sample="dirt")
    (scan,) = laboratory.engine(bp.scan([det], motor, 0, 1, 3), sample="gold from a river")

    @run_decorator()
    def fails():
        raise ValueError("broken")
        yield

    with pytest.raises(ValueError, match="broken"):
        laboratory.engine(fails())
    return laboratory, count, scan


def columns(table):
    return [dict(zip(table.labels, row, strict=True)) for row in table.rows]


def test_runs_are_listed_newest_first_with_plan_points_and_status(three_runs):
    laboratory, count, scan = three_runs
    listed = columns(runs.table(laboratory.index))
    assert [(row["scan_id"], row["plan"], row["points"], row["status"]) for row in listed] == [
        (3, "fails", 0, "fail"),
        (2, "scan", 3, "success"),
        (1, "count", 2, "success"),
    ]
    assert [row["uid"] for row in listed[1:]] == [scan[:7], count[:7]]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"plan": "scan"}, [2]),
        ({"text": "river"}, [2]),
        ({"metadata": {"sample": "dirt"}}, [1]),
        ({"since": "1 h"}, [3, 2, 1]),
        ({"until": "1 h"}, []),
        (
            {"until": f"{datetime.now() + timedelta(days=1):%Y-%m-%d}", "plan": "count"},
            [1],
        ),  # the gate may see midnight
        ({"num": 2}, [3, 2]),
        ({"num": 10**30}, [3, 2, 1]),
        ({"plan": "nothing like it"}, []),
    ],
)
def test_runs_are_found_by_plan_text_metadata_and_time(three_runs, asked, expected):
    laboratory, *_ = three_runs
    assert [row["scan_id"] for row in columns(runs.table(laboratory.index, **asked))] == expected


@given(st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)).map(lambda when: when.replace(microsecond=0)))
def test_a_time_that_is_written_out_is_that_time(when):
    assert runs.moment(f"{when:%Y-%m-%d %H:%M:%S}") == when.timestamp()


@given(st.dates(datetime(1990, 1, 1).date(), datetime(2100, 1, 1).date()))
def test_a_day_is_all_of_it(day):
    noon = datetime(day.year, day.month, day.day, 12).timestamp()
    assert runs.moment(f"{day}") < noon < runs.moment(f"{day}", end=True)
    assert runs.moment(f"{day:%Y-%m}") < noon < runs.moment(f"{day:%Y-%m}", end=True)


@pytest.mark.parametrize("text", ["yesterdy", "", "2026-13-01", "5 parsecs"])
def test_what_is_no_time_is_refused_in_one_line(text):
    with pytest.raises(UserError, match="is no time: write a date"):
        runs.moment(text)


@pytest.mark.parametrize(
    ("text", "end"), [("0001-01-01", False), ("9999-12-31", True), ("9999-12", True), (datetime.min, False)]
)
def test_a_time_that_is_too_far_away_is_refused_in_one_line(text, end):
    with pytest.raises(UserError, match="is too far away: write a date between"):
        runs.moment(text, end=end)


@pytest.mark.parametrize("num", [0, -1, 2.5, True, "3"])
def test_a_number_of_runs_that_is_none_is_refused(laboratory, num):
    with pytest.raises(UserError, match="how many runs"):
        runs.table(laboratory.index, num=num)


def test_packed_runs_open_elsewhere_with_databroker(three_runs, tmp_path):
    laboratory, count, scan = three_runs
    packed = packing.pack(laboratory.index.rows(), tmp_path / "packed")
    assert (packed.runs, packed.present) == (3, 0)
    catalog = intake.open_catalog(str(tmp_path / "packed" / "catalog.yml"))["packed"]
    assert len(catalog) == 3
    assert catalog[scan].primary.read()["det"].shape == (3,)
    assert catalog[count].metadata["start"]["sample"] == "dirt"


def test_packing_again_adds_only_what_is_new(three_runs, tmp_path):
    laboratory, *_ = three_runs
    packing.pack(laboratory.index.rows(), tmp_path / "packed")
    laboratory.engine(bp.count([det]))
    again = packing.pack(laboratory.index.rows(), tmp_path / "packed")
    assert (again.runs, again.present) == (1, 3)


def test_packing_that_failed_or_was_interrupted_goes_on(three_runs, tmp_path, monkeypatch, capsys):
    laboratory, count, _ = three_runs
    (tmp_path / ".data").symlink_to(laboratory.data.root)
    monkeypatch.chdir(tmp_path)
    rows = laboratory.index.rows()
    path = laboratory.path(count)  # the oldest, and the last to be packed
    away = path.rename(path.with_suffix(".away"))
    with pytest.raises(packing.PackingError, match="No such file"):
        packing.pack(rows, tmp_path / "packed")
    away.rename(path)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(packing, "_copy_run", interrupt)
        assert main(["catalog", "pack", "packed"]) == 130
    assert capsys.readouterr().err == "interrupted: what is written is complete, and the same command goes on\n"
    again = packing.pack(rows, tmp_path / "packed")
    assert (again.runs, again.present) == (1, 2)


def test_a_run_that_goes_on_is_left_out_and_packed_whole_later(laboratory, make_laboratory, tmp_path):
    told = []

    def pack_now(name, _document):
        if name == "event":
            laboratory.index.refresh()
            told.append(str(packing.pack(laboratory.index.rows(), tmp_path / "packed")))

    laboratory.engine(bp.count([det]))
    laboratory.engine.subscribe(pack_now)
    (uid,) = laboratory.engine(bp.count([det]))
    assert told == ["1 runs, 0 files, 1 runs that go on were left out"]
    packing.pack(laboratory.index.rows(), tmp_path / "packed")
    other = make_laboratory(tmp_path / "other")
    packing.unpack(tmp_path / "packed", other.data)
    assert other.journal.close_orphans() == []
    assert other.index.find_uid(uid).stop["exit_status"] == "success"


def test_unpacked_runs_are_in_the_journal_once(three_runs, tmp_path, make_laboratory):
    laboratory, *_ = three_runs
    packing.pack(laboratory.index.rows(), tmp_path / "packed")
    other = make_laboratory(tmp_path / "other")
    assert packing.unpack(tmp_path / "packed", other.data).runs == 3
    assert packing.unpack(tmp_path / "packed", other.data).present == 3
    other.index.refresh()
    assert other.index.count() == 3


def test_unpacked_runs_go_to_no_file_of_the_next_session(laboratory, make_laboratory, tmp_path, monkeypatch):
    consumer = FileConsumer(tmp_path / "files")
    other = make_laboratory(tmp_path / "other" / ".data")
    other.outbox.add(consumer)
    other.outbox.start()  # from now on it has every run
    other.close()
    laboratory.engine(bp.count([det]))
    packing.pack(laboratory.index.rows(), tmp_path / "packed")
    monkeypatch.chdir(tmp_path / "other")
    assert main(["catalog", "unpack", str(tmp_path / "packed")]) == 0

    again = make_laboratory(tmp_path / "other" / ".data")
    again.index.refresh()
    assert again.index.count() == 1
    again.outbox.add(consumer)
    again.outbox.start()
    (uid,) = again.engine(bp.count([det]))
    assert again.outbox.wait(30)
    assert consumer.uids == [uid]


def test_images_go_along_and_are_read_from_where_they_are_then(laboratory, tmp_path):
    files = tmp_path / "detector"
    files.mkdir()
    np.save(files / "frame_0.npy", np.arange(6).reshape(2, 3))

    uid = laboratory.engine(_run_with_a_file(files))[0]
    packed = packing.pack(laboratory.index.rows(), tmp_path / "packed", images=True)
    assert (packed.files, packed.missing) == (1, [])
    (files / "frame_0.npy").unlink()
    catalog = intake.open_catalog(str(tmp_path / "packed" / "catalog.yml"))["packed"]
    image = catalog[uid].primary.read()["img"]
    assert image.values.reshape(2, 3).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_images_of_unpacked_runs_are_found_without_a_setting_and_packed_again(laboratory, tmp_path, make_laboratory):
    files = tmp_path / "detector"
    files.mkdir()
    np.save(files / "frame_0.npy", np.arange(6).reshape(2, 3))
    uid = laboratory.engine(_run_with_a_file(files))[0]
    packing.pack(laboratory.index.rows(), tmp_path / "packed", images=True)
    other = make_laboratory(tmp_path / "other")
    told = str(packing.unpack(tmp_path / "packed", other.data))
    assert told == f"1 runs, files of images stay in {tmp_path}/packed/assets"
    (files / "frame_0.npy").write_bytes(b"no image")
    assert _frame(other, uid) is None  # what lies where the run says comes first
    (files / "frame_0.npy").unlink()
    assert _frame(other, uid) == [[0, 1, 2], [3, 4, 5]]
    other.index.refresh()
    roots = ImageRoots({}, other.data.root)
    again = packing.pack(other.index.rows(), tmp_path / "again", images=True, roots=roots)
    assert (again.files, again.missing) == (1, [])
    catalog = intake.open_catalog(str(tmp_path / "again" / "catalog.yml"))["packed"]
    assert catalog[uid].primary.read()["img"].values.reshape(2, 3).tolist() == [[0, 1, 2], [3, 4, 5]]


def _frame(laboratory, uid):
    from instrument.framework.embedded import EmbeddedCatalog  # databroker, which no other worker need wait for

    try:
        return EmbeddedCatalog(laboratory.data.root)[uid].primary.read()["img"].values.reshape(2, 3).tolist()
    except (ValueError, UserError):
        return None


def test_a_file_that_is_missing_is_named(laboratory, tmp_path):
    laboratory.engine(_run_with_a_file(tmp_path / "nowhere"))
    packed = packing.pack(laboratory.index.rows(), tmp_path / "packed", images=True)
    assert packed.missing == [tmp_path / "nowhere" / "frame_0.npy"]
    assert "1 files are missing" in str(packed)


def test_a_directory_that_holds_something_else_is_not_packed_into(laboratory, tmp_path):
    (tmp_path / "thesis.txt").write_text("do not touch")
    with pytest.raises(packing.PackingError, match="holds something else"):
        packing.pack(laboratory.index.rows(), tmp_path)


def test_the_command_line_lists_checks_and_repairs(three_runs, tmp_path, monkeypatch, capsys):
    laboratory, _, scan = three_runs
    (tmp_path / ".data").symlink_to(laboratory.data.root)
    monkeypatch.chdir(tmp_path)
    assert main(["runs", "--plan", "scan"]) == 0
    assert scan[:7] in capsys.readouterr().out
    assert main(["catalog", "check"]) == 0
    assert capsys.readouterr().out == "3 runs, 0 problems\n"

    garbage = laboratory.path(scan).with_name("garbage.msgpack")
    garbage.write_bytes(b"\x00garbage")
    assert main(["catalog", "check"]) == 1
    assert "garbage.msgpack is not a run" in capsys.readouterr().out
    garbage.unlink()

    laboratory.data.index.write_bytes(b"no database")
    assert main(["catalog", "check", "--repair"]) == 0
    assert capsys.readouterr().out.endswith("3 runs, 0 problems\n")
    assert main(["runs", "--since", "yesterdy"]) == 2


def test_looking_makes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 0
    assert list(tmp_path.iterdir()) == []


def _run_with_a_file(directory):
    """A run whose one event refers to a file, as area detectors do."""
    from ophyd import Device
    from ophyd.sim import NullStatus, new_uid

    class Camera(Device):
        def trigger(self):
            return NullStatus()

        def stage(self):
            self.resource = new_uid()
            self.datum = f"{self.resource}/0"
            self._documents = [
                (
                    "resource",
                    {
                        "spec": "NPY_SEQ",
                        "root": str(directory),
                        "resource_path": "frame",
                        "resource_kwargs": {},
                        "path_semantics": "posix",
                        "uid": self.resource,
                    },
                ),
                (
                    "datum",
                    {"resource": self.resource, "datum_id": self.datum, "datum_kwargs": {"index": 0}},
                ),
            ]
            return [self]

        def unstage(self):
            return [self]

        def describe(self):
            return {"img": {"source": "camera", "dtype": "array", "shape": [2, 3], "external": "FILESTORE:"}}

        def read(self):
            return {"img": {"value": self.datum, "timestamp": time.time()}}

        def collect_asset_docs(self):
            documents, self._documents = self._documents, []
            yield from documents

    return bp.count([Camera(name="camera")])
