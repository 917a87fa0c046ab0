"""NeXus files of runs of every kind: valid, with the right default plot, whole or not there."""

import contextlib
import pickle
import signal
import subprocess
import sys

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import h5py
import numpy as np
import pytest
from apstools.callbacks import NXWriter
from ophyd import Component, Device, Signal
from ophyd.sim import SynSignal, det, det4, motor, motor1, motor2, motor3

from instrument.callbacks.nexus import NexusWriter, file_name
from instrument.config.errors import UserError
from instrument.config.models import Nexus
from tests.terminal import ROOT

from .nexus import Files, assert_valid, findings

PRIMARY = "/entry/instrument/bluesky/streams/primary"


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path / "nexus")


motors_sum = SynSignal(func=lambda: sum(each.position for each in (motor1, motor2, motor3)), name="motors_sum")


class OnPurposeError(Exception):
    """A plan's own."""


class Odd(Device):
    """Signals of kinds that HDF5 does not take as they are."""

    text = Component(Signal, value="äöü", kind="normal")
    number = Component(Signal, value=None, kind="normal")
    ragged = Component(Signal, value=[1, 2], kind="normal")
    words = Component(Signal, value=["a", "bc"], kind="normal")
    flag = Component(Signal, value=True, kind="normal")
    rows = Component(Signal, value=np.ones((2, 3)), kind="normal")


def odd_values(odd):
    """Three points whose text, numbers and array lengths change."""

    @bpp.run_decorator(md={"plan_name": "odd_values"})
    def plan():
        for point, number in enumerate((1.5, None, 3)):
            yield from bps.mv(odd.text, "x" * point)
            yield from bps.mv(odd.number, number)
            yield from bps.mv(odd.ragged, list(range(point + 1)))
            yield from bps.trigger_and_read([odd])

    return plan()


class Tunable(Device):
    """Its configuration may change within a run, which makes a second descriptor of the stream."""

    value = Component(Signal, value=1.0, kind="hinted")
    gain = Component(Signal, value=1, kind="config")


def configured_in_between(tunable):
    @bpp.stage_decorator([tunable])
    @bpp.run_decorator(md={"plan_name": "configured", "detectors": ["tunable"]})
    def plan():
        for number in range(3):
            yield from bps.configure(tunable, {"gain": number})
            yield from bps.mv(tunable.value, number)
            yield from bps.trigger_and_read([tunable])

    return plan()


def fails_before_its_first_point():
    @bpp.run_decorator(md={"plan_name": "fails"})
    def plan():
        yield from bps.null()
        raise OnPurposeError

    return plan()


def fails_after_two_points():
    @bpp.run_decorator(md={"plan_name": "fails", "motors": ["motor"], "detectors": ["det"]})
    def plan():
        for place in range(2):
            yield from bps.mv(motor, place)
            yield from bps.trigger_and_read([det, motor])
        raise OnPurposeError

    return plan()


def with_baseline(plan):
    return bpp.baseline_wrapper(plan, [motor1, motor2])


def with_monitor(plan):
    return bpp.monitor_during_wrapper(plan, [Signal(name="monitored", value=1)])


PLANS = {
    "count": lambda: bp.count([det], num=3),
    "one point": lambda: bp.count([det]),
    "scan": lambda: bp.scan([det], motor, -1, 1, 5),
    "two motors": lambda: bp.scan([det4], motor1, -1, 1, motor2, -1, 1, num=4),
    "grid": lambda: bp.grid_scan([det4], motor1, -1, 1, 3, motor2, -1, 1, 4, snake_axes=True),
    "baseline": lambda: with_baseline(bp.scan([det], motor, -1, 1, 3)),
    "monitor": lambda: with_monitor(bp.count([det], num=2)),
    "odd values": lambda: odd_values(Odd(name="odd")),
    "names": lambda: bp.count([Signal(name="gp:m1-rbv", value=1), Signal(name="2θ", value=2)]),
    "no detectors": lambda: bpp.run_wrapper(bps.trigger_and_read([motor])),
    "fails before its first point": fails_before_its_first_point,
    "fails after two points": fails_after_two_points,
}


@pytest.fixture
def record(run_engine):
    """Run a plan, which may fail on purpose, and give its documents."""

    def run(plan, **md):
        documents = []
        token = run_engine.subscribe(lambda name, doc: documents.append((name, doc)))
        with contextlib.suppress(OnPurposeError):
            run_engine(plan, **md)
        run_engine.unsubscribe(token)
        return documents

    return run


@pytest.mark.parametrize("plan", PLANS)
def test_punx_finds_neither_errors_nor_warnings(files, record, plan):
    documents = record(PLANS[plan](), sample="dirt", title="a title", nothing=None, nested={"list": [1, None]})
    assert_valid(files.write(documents))


def test_punx_would_find_an_error(files, record):
    path = files.write(record(bp.count([det])))
    with h5py.File(path, "a") as file:
        file["entry/data"].attrs["signal"] = "nothing"
    bad, _ = findings(path)
    assert any("nothing" in line for line in bad)


# --- what is in the file


def text(dataset):
    return dataset.asstr()[()] if dataset.shape == () else [item.decode() for item in dataset[:]]


def test_values_of_every_kind_are_kept(files, record):
    with h5py.File(files.write(record(odd_values(Odd(name="odd"))))) as file:
        data = file[PRIMARY]
        assert text(data["odd_text/value"]) == ["", "x", "xx"]
        np.testing.assert_equal(data["odd_number/value"][:], [1.5, np.nan, 3])
        assert text(data["odd_ragged/value"]) == ["[0]", "[0, 1]", "[0, 1, 2]"]
        assert data["odd_words/value"][0].tolist() == [b"a", b"bc"]
        assert data["odd_flag/value"][:].tolist() == [True] * 3
        assert data["odd_rows/value"].shape == (3, 2, 3)


def test_names_that_nexus_does_not_allow_are_changed_and_kept_as_long_names(files, record):
    with h5py.File(files.write(record(PLANS["names"]()))) as file:
        assert sorted(file[PRIMARY]) == ["_2_", "gp_m1_rbv"]
        assert file[f"{PRIMARY}/gp_m1_rbv/value"].attrs["long_name"] == "gp:m1-rbv"
        assert file["entry/data"].attrs["signal"] == "gp_m1_rbv"


def test_a_stream_with_several_descriptors_is_one_stream(files, record):
    documents = record(configured_in_between(Tunable(name="tunable")))
    assert sum(name == "descriptor" for name, _ in documents) > 1
    path = files.write(documents)
    with h5py.File(path) as file:
        assert file[f"{PRIMARY}/tunable_value/value"][:].tolist() == [0, 1, 2]
    assert_valid(path)


def test_pages_are_taken_as_the_events_that_they_hold(files, record):
    from event_model import pack_event_page

    documents = record(bp.count([det], num=3))
    events = [doc for name, doc in documents if name == "event"]
    paged = [*documents[:2], ("event_page", pack_event_page(*events)), documents[-1]]
    with h5py.File(files.write(paged)) as file:
        assert file["entry/data/det"].shape == (3,)


def test_the_title_is_the_runs_own_if_it_has_one(files, record):
    with h5py.File(files.write(record(bp.count([det])))) as file:
        start = text(file["entry/entry_identifier"])
        assert text(file["entry/title"]) == f"count-S0001-{start[:7]}"
    with h5py.File(files.write(record(bp.count([det]), title="dirt at 20 K"))) as file:
        assert text(file["entry/title"]) == "dirt at 20 K"


def test_what_iconfig_says_of_the_site_is_in_the_file(files, record):
    site = {
        "source": {"name": "Advanced Photon Source", "short_name": "APS", "energy": 6.0, "current": "motor1"},
        "monochromator": {"energy": "motor2", "wavelength": "nothing"},
        "sample": {"name": "silver", "description": "a disc", "temperature": "det"},
        "user": {"name": "A. Scientist"},
    }
    path = files.write(record(with_baseline(bp.count([det], num=2))), **site)
    with h5py.File(path) as file:
        source = file["entry/instrument/source"]
        assert (text(source["name"]), source["name"].attrs["short_name"]) == ("Advanced Photon Source", "APS")
        assert (source["energy"][()], source["energy"].attrs["units"]) == (6.0, "GeV")
        assert text(source["probe"]) == "x-ray"  # apstools' own, where nothing is given
        baseline = file["entry/instrument/bluesky/streams/baseline"]
        assert source["current"] == baseline["motor1/value_start"]
        assert file["entry/instrument/monochromator/energy"] == baseline["motor2/value_start"]
        assert "wavelength" not in file["entry/instrument/monochromator"]
        assert file["entry/sample/temperature"] == file[f"{PRIMARY}/det/value"]
        assert (text(file["entry/sample/name"]), text(file["entry/contact/name"])) == ("silver", "A. Scientist")
        assert text(file["entry/contact/role"]) == "contact"
    assert_valid(path)


def test_the_runs_sample_comes_before_that_of_iconfig(files, record):
    site = {"sample": {"name": "silver", "description": "a disc"}}
    with h5py.File(files.write(record(bp.count([det]), sample="gold"), **site)) as file:
        assert (text(file["entry/sample/name"]), text(file["entry/sample/description"])) == ("gold", "a disc")
    sample = {"name": "gold", "chemical_formula": "Au", "thickness": 0.1}
    with h5py.File(files.write(record(bp.count([det]), sample=sample), **site)) as file:
        assert text(file["entry/sample/chemical_formula"]) == "Au"
        assert file["entry/sample/thickness"][()] == 0.1


# --- the default plot


def default_plot(path):
    """Signal and axes as a reader finds them, following @default from the root."""
    with h5py.File(path) as file:
        entry = file[file.attrs["default"]]
        data = entry[entry.attrs["default"]]
        return data.attrs["signal"], list(data.attrs.get("axes", [])), data[data.attrs["signal"]].shape


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ("count", ("det", [], (3,))),
        ("scan", ("det", ["motor"], (5,))),
        ("two motors", ("det4", ["motor1"], (4,))),
        ("grid", ("det4", ["motor1", "motor2"], (3, 4))),
        ("baseline", ("det", ["motor"], (3,))),
        ("no detectors", ("motor", [], (1,))),
        ("odd values", ("odd_rows", [], (3, 2, 3))),
        ("fails after two points", ("det", ["motor"], (2,))),
    ],
)
def test_the_default_plot_is_signal_against_motor(files, record, plan, expected):
    assert default_plot(files.write(record(PLANS[plan]()))) == expected


def test_several_motors_share_the_dimension_of_the_signal(files, record):
    with h5py.File(files.write(record(PLANS["two motors"]()))) as file:
        attributes = file["entry/data"].attrs
        assert (attributes["motor1_indices"], attributes["motor2_indices"]) == (0, 0)


@pytest.mark.parametrize("snake", [False, True, [motor2], [motor3], [motor2, motor3]])
def test_each_point_of_a_grid_is_where_its_motors_were(files, record, snake):
    grid = (motor1, 1, 3, 3, motor2, 10, 40, 4, motor3, 100, 200, 2)
    path = files.write(record(bp.grid_scan([motors_sum], *grid, snake_axes=snake)))
    with h5py.File(path) as file:
        assert file["entry"].attrs["default"] == "grid"
        data = file["entry/grid"]
        one, two, three = (data[name][:] for name in data.attrs["axes"])
        assert (one.tolist(), two.tolist(), three.tolist()) == ([1, 2, 3], [10, 20, 30, 40], [100, 200])
        expected = one[:, None, None] + two[None, :, None] + three[None, None, :]
        np.testing.assert_allclose(data["motors_sum"][:], expected)
    assert_valid(path)


def test_a_grid_that_was_not_finished_has_nan_where_it_did_not_get_to(files, record):
    def stops_early():
        for number, message in enumerate(bp.grid_scan([det4], motor1, 1, 3, 3, motor2, 1, 4, 4)):
            if number == 60:
                raise OnPurposeError
            yield message

    with h5py.File(files.write(record(stops_early()))) as file:
        points = file["entry/data/det4"].shape[0]
        assert 0 < points < 12
        values = file["entry/grid/det4"][:]
        assert values.shape == (3, 4)
        assert np.isfinite(values).ravel().tolist() == [True] * points + [False] * (12 - points)


def test_a_detector_without_hints_is_plotted(files, record):
    class Quiet(Device):
        name_of_it = Component(Signal, value="quiet", kind="normal")
        counts = Component(Signal, value=3, kind="normal")

    path = files.write(record(bp.scan([Quiet(name="quiet")], motor, -1, 1, 3)))
    assert default_plot(path) == ("quiet_counts", ["motor"], (3,))
    assert_valid(path)


def test_somebody_chooses_signal_and_axes(files, record):
    writer = files.writer()
    writer.nxdata_signal, writer.nxdata_signal_axes = "motor1", ["motor2"]
    path = files.write(record(PLANS["two motors"]()), writer)
    assert default_plot(path) == ("motor1", ["motor2"], (4,))


def test_nexusformat_plots_signal_against_motor(files, record):
    from nexusformat.nexus import nxload

    tree = nxload(str(files.write(record(PLANS["two motors"]()))))
    plotted = tree.plottable_data
    assert (plotted.nxsignal.nxname, [axis.nxname for axis in plotted.nxaxes]) == ("det4", ["motor1"])


# --- which file, and that it is whole


def test_file_names_follow_the_pattern():
    start = {"scan_id": 7, "plan_name": "a/../b c", "uid": "c888d282-1094", "time": 0, "proposal_id": "../x"}
    assert file_name(Nexus().pattern, start) == "00007-a_.._b_c-c888d28.hdf"
    assert file_name("{proposal_id}/{uid:.4}.h5", start) == "_x/c888.h5"
    assert file_name(Nexus().pattern, {"uid": "c888d282", "time": 0}) == "00000-none-c888d28.hdf"


def test_a_run_that_is_there_is_not_written_again(files, record):
    documents = record(bp.count([det]))
    path = files.write(documents)
    before = path.stat()
    assert files.write(documents) == path
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert list(path.parent.iterdir()) == [path]


def test_what_is_there_and_is_something_else_is_left_as_it_is(files, record):
    documents = record(bp.count([det]))
    path = files.directory / file_name(Nexus().pattern, documents[0][1])
    path.parent.mkdir()
    path.write_text("my notes")
    with pytest.raises(UserError, match="exists and is no NeXus file of a run: it is left as it is; move it away"):
        files.write(documents)
    assert path.read_text() == "my notes"


def test_a_pattern_that_two_runs_share_loses_neither(files, record):
    first, second = record(bp.count([det])), record(bp.count([det]))
    second[0][1]["scan_id"] = first[0][1]["scan_id"]
    site = {"pattern": "{scan_id}.hdf"}
    path = files.write(first, **site)
    with pytest.raises(UserError, match=f"exists and holds run {first[0][1]['uid'][:7]}: it is left as it is"):
        files.write(second, **site)
    assert files.write(first, **site) == path


def test_a_name_that_somebody_chose_holds_the_last_run(files, record, tmp_path):
    writer = files.writer()
    writer.file_name = tmp_path / "mine.h5"
    first, second = record(bp.count([det])), record(bp.count([det]))
    for documents in (first, second):
        assert files.write(documents, writer) == tmp_path / "mine.h5"
        with h5py.File(tmp_path / "mine.h5") as file:
            assert text(file["entry/entry_identifier"]) == documents[0][1]["uid"]
    (tmp_path / "mine.h5").write_text("my notes")
    with pytest.raises(UserError, match="no NeXus file of a run"):
        files.write(first, writer)


def test_a_directory_that_somebody_chose_holds_names_by_the_pattern(files, record, tmp_path):
    writer = files.writer()
    writer.file_path = tmp_path / "elsewhere"
    assert files.write(record(bp.count([det])), writer).parent == tmp_path / "elsewhere"


def test_a_run_that_has_not_ended_makes_no_file(files, record):
    documents = record(bp.count([det]))
    with pytest.raises(UserError, match="run 1 has not ended"):
        files.write(documents[:-1])
    assert not files.directory.exists() or list(files.directory.iterdir()) == []


def test_a_directory_that_was_removed_is_made_again(files, record):
    import shutil

    files.write(record(bp.count([det])))
    shutil.rmtree(files.directory)
    assert files.write(record(bp.count([det]))).exists()


def test_a_directory_that_cannot_be_made_is_told(tmp_path, record):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't be written .Not a directory.; the run is safe in the journal"):
        Files(tmp_path / "file" / "nexus").write(record(bp.count([det])))


WRITE_UNTIL_KILLED = """
import os, pickle, signal, sys
from pathlib import Path
from instrument.framework import wholefiles
from tests.callbacks.nexus import Files
directory, run, place = sys.argv[1:]
def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if place == "before the rename":
    wholefiles.os.fsync = killed
else:
    wholefiles.sync_directory = killed
Files(Path(directory)).write(pickle.loads(Path(run).read_bytes()))
"""


@pytest.mark.parametrize("place", ["before the rename", "after the rename"])
def test_a_writer_that_is_killed_leaves_a_whole_file_or_none_and_the_next_one_makes_one_copy(
    files, record, tmp_path, place
):
    documents = [(str(name), dict(doc)) for name, doc in record(bp.count([det], num=3))]
    (tmp_path / "run").write_bytes(pickle.dumps(documents))
    command = [sys.executable, "-c", WRITE_UNTIL_KILLED, str(files.directory), str(tmp_path / "run"), place]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = list(files.directory.iterdir())
    assert [path.name.startswith(".") for path in left] == [place == "before the rename"]
    path = files.write(documents)
    assert list(files.directory.iterdir()) == [path]
    assert_valid(path)


# --- the class that lays it out


class OwnWriter(NXWriter):
    def get_sample_title(self):
        return f"run {self.scan_id}"

    def write_slits(self, parent):
        self.create_NX_group(parent, "slits:NXnote")


def test_a_site_s_own_writer_lays_out_the_file(files, record):
    path = files.write(record(bp.count([det])), writer=f"{__name__}.OwnWriter")
    with h5py.File(path) as file:
        assert (text(file["entry/title"]), file.attrs["creator"]) == ("run 1", "OwnWriter")
        assert "slits" in file["entry/instrument"]
    assert_valid(path)


def test_that_of_the_aps_works_too(files, record):
    path = files.write(record(bp.count([det])), writer="apstools.callbacks.NXWriterAPS", source={"name": "APS"})
    with h5py.File(path) as file:
        assert (text(file["entry/instrument/source/name"]), file.attrs["creator"]) == ("APS", "NXWriterAPS")
    assert_valid(path)


@pytest.mark.parametrize(
    ("writer", "message"), [("apstools.nothing.X", "can't be imported"), ("json.JSONDecoder", "is no subclass of")]
)
def test_a_writer_that_is_none_is_told(files, record, writer, message):
    with pytest.raises(UserError, match=rf"`nexus: writer: {writer}` of iconfig.yml {message}"):
        files.write(record(bp.count([det])), writer=writer)


# --- the receiver


def test_a_run_that_goes_on_is_left_to_the_outbox_and_one_that_is_replayed_is_written(tmp_path, record):
    enabled = []
    documents = record(bp.count([det]))
    live = {documents[0][1]["uid"]}
    writer = NexusWriter(Nexus(), tmp_path, is_live=live.__contains__, enable=lambda: enabled.append(True))
    for name, doc in documents:
        writer.receiver(name, doc)
    assert (enabled, list(tmp_path.iterdir())) == ([True], [])
    assert "file" in writer.assign(documents[0][1])
    assert writer.assign({**documents[0][1], "uid": "another"}) == {"skip": True}  # it was unsubscribed
    live.clear()
    for name, doc in documents:
        writer.receiver(name, doc)
    assert list(tmp_path.iterdir()) == [writer.output_nexus_file]


# --- iconfig.yml


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{scanid}.hdf", "there is no field 'scanid'; did you mean 'scan_id'"),
        ("{weather}-{uid}.hdf", "there is no field 'weather'; there are scan_id, plan_name"),
        ("run.hdf", "gives every run the same file"),
        ("{scan_id:05q}.hdf", "makes no file name"),
        ("{scan_id}.hdf{", "makes no file name"),
        ("/data/{scan_id}.hdf", "must make the name of a file in `directory`"),
        ("../{scan_id}.hdf", "must make the name of a file in `directory`"),
        ("{scan_id}/", "must make the name of a file in `directory`"),
    ],
)
def test_a_pattern_that_makes_no_names_is_refused(pattern, message):
    with pytest.raises(ValueError, match=message):
        Nexus(pattern=pattern)
