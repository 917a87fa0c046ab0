"""adsimdet on the area detector `ad:`: what it is, what it writes, and what it refuses before a run."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from ophyd.device import Staged

from instrument.config.errors import UserError
from instrument.devices.area_detector import area_detector
from instrument.devices.image_files import DEFAULT_TEMPLATE
from instrument.framework.engine import RunEngine

from .conftest import DEADLINE, wait_until


@pytest.fixture(scope="module")
def adsimdet(area_detector, tmp_path_factory):
    made = make(tmp_path_factory.mktemp("data"))
    made.hdf1.file_template.set(DEFAULT_TEMPLATE).wait(DEADLINE)  # other tests have used the camera
    yield made
    made.unstage()


def make(directory: Path, **options):
    options = {"cam": "SimDetectorCam", "plugins": ["hdf1", "image", "pva"], **options}
    made = area_detector_of(**options)
    made.use_data_directory(directory)
    made.wait_for_connection(timeout=DEADLINE)
    made.after_connection()
    return made


def area_detector_of(**options):
    return area_detector(prefix="ad:", name="adsimdet", **options)


@pytest.fixture
def documents():
    return []


@pytest.fixture
def engine(documents):
    engine = RunEngine({})
    engine.subscribe(lambda name, document: documents.append((name, document)))
    return engine


@pytest.fixture(autouse=True)
def as_found(adsimdet):
    """Every test begins with a short exposure, full frames and names made for each run."""
    yield
    assert adsimdet._staged == Staged.no
    for signal in (adsimdet.hdf1.file_name, adsimdet.hdf1.file_path):
        signal.put("")
    for attr, value in {
        "acquire_time": 0.001,
        "acquire_period": 0.005,
        "size.size_x": 1024,
        "num_exposures": 1,
    }.items():
        getattr(adsimdet.cam, attr).set(value).wait(DEADLINE)
    adsimdet.frames_per_trigger = 1


def file_of(documents) -> Path:
    (resource,) = [document for name, document in documents if name == "resource"]
    return Path(resource["root"]) / resource["resource_path"]


def refused(engine, plan, *parts: str) -> str:
    """The one line that a plan ends with."""
    with pytest.raises(UserError) as caught:
        engine(plan)
    line = str(caught.value)
    assert "\n" not in line
    assert all(part in line for part in parts), line
    return line


def test_it_hints_at_no_column_of_a_table(adsimdet):
    assert adsimdet.hints == {}


def test_a_run_writes_its_frames_to_one_hdf5_file_that_the_documents_name(adsimdet, engine, documents):
    adsimdet.frames_per_trigger = 2
    engine(bp.count([adsimdet], num=3))
    (descriptor,) = [document for name, document in documents if name == "descriptor"]
    key = descriptor["data_keys"]["adsimdet_image"]
    assert (key["shape"], key["dtype_numpy"], key["external"]) == ([2, 1024, 1024], "|u1", "FILESTORE:")
    (resource,) = [document for name, document in documents if name == "resource"]
    assert (resource["spec"], resource["resource_kwargs"]) == ("AD_HDF5", {"frame_per_point": 2})
    path = file_of(documents)
    assert path.is_relative_to(adsimdet.hdf1.data_directory / "images" / time.strftime("%Y"))
    with h5py.File(path) as file:
        frames = file["entry/data/data"][()]
        assert frames.shape == (6, 1024, 1024)
        assert len({frame.tobytes() for frame in frames}) == 6


def test_what_a_run_sets_is_set_back(adsimdet, engine):
    adsimdet.cam.image_mode.set("Single").wait(DEADLINE)
    before = {signal: signal.get() for signal in (adsimdet.cam.image_mode, adsimdet.hdf1.enable, adsimdet.image.enable)}
    engine(bp.count([adsimdet]))
    assert {signal: signal.get() for signal in before} == before


def test_an_exposure_that_is_over_before_trigger_returns_is_not_missed(adsimdet, engine, documents):
    """Also with a client that delays what comes after the put, as a busy machine does."""
    adsimdet.cam.acquire_time.set(0.0).wait(DEADLINE)
    adsimdet.stage()
    try:
        generate = adsimdet.hdf1.generate_datum

        points: list[int] = []

        def late(*args, **kwargs):
            wait_until(lambda: adsimdet.hdf1.num_captured.get() == len(points), "the frame was in the file")
            wait_until(lambda: not adsimdet.cam.acquire.get(), "the acquisition was over")
            return generate(*args, **kwargs)

        adsimdet.hdf1.generate_datum = late
        for point in range(20):
            points.append(point)
            adsimdet.trigger().wait(DEADLINE)
    finally:
        del adsimdet.hdf1.generate_datum
        adsimdet.unstage()


def test_names_and_directories_are_the_users_to_choose_and_nothing_is_overwritten(
    adsimdet, engine, documents, tmp_path
):
    adsimdet.hdf1.file_name.put("sample_A")
    adsimdet.hdf1.file_path.put(str(tmp_path))
    adsimdet.hdf1.file_number.set(7).wait(DEADLINE)
    engine(bp.count([adsimdet]))
    assert file_of(documents) == tmp_path / "sample_A_007.h5"
    content = file_of(documents).read_bytes()
    adsimdet.hdf1.file_number.set(7).wait(DEADLINE)
    documents.clear()
    line = refused(engine, bp.count([adsimdet]), "adsimdet", f"{tmp_path}/sample_A_007.h5 exists", "file_number.put(8)")
    assert documents == []
    assert (tmp_path / "sample_A_007.h5").read_bytes() == content
    eval(line.partition(", or ")[2], {"adsimdet": adsimdet})  # it tells what to type
    engine(bp.count([adsimdet]))
    assert file_of(documents) == tmp_path / "sample_A_008.h5"
    adsimdet.hdf1.file_name.put("")
    adsimdet.hdf1.file_path.put("")
    documents.clear()
    engine(bp.count([adsimdet]))
    assert file_of(documents).name.startswith("adsimdet_")
    assert file_of(documents).is_relative_to(adsimdet.hdf1.data_directory)


def test_a_missing_directory_is_told_before_anything_moves_and_not_made(adsimdet, engine, documents, tmp_path):
    adsimdet.hdf1.file_path.put(str(tmp_path / "no" / "such"))
    refused(engine, bp.count([adsimdet]), "adsimdet", f"no directory {tmp_path}/no/such", "file_path.put(")
    assert (documents, list(tmp_path.iterdir())) == ([], [])
    adsimdet.hdf1.file_path.put("")
    engine(bp.count([adsimdet]))


def test_a_read_path_that_leads_elsewhere_is_told_before_anything_moves(adsimdet, engine, documents, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = make(adsimdet.hdf1.data_directory, read_path=str(elsewhere))
    refused(engine, bp.count([other]), "does not find in", "read_path in devices.yml")
    assert documents == []
    elsewhere.rmdir()
    refused(engine, bp.count([other]), f"sees no directory {elsewhere}", "read_path in devices.yml")
    engine(bp.count([adsimdet]))


def test_a_read_path_that_is_another_way_to_the_same_directory_is_what_the_documents_name(
    adsimdet, engine, documents, tmp_path
):
    (tmp_path / "seen_by_ioc").mkdir()
    (tmp_path / "seen_here").symlink_to("seen_by_ioc")
    paths = {"write_path": f"{tmp_path}/seen_by_ioc/%Y", "read_path": f"{tmp_path}/seen_here/%Y"}
    other = make(adsimdet.hdf1.data_directory, **paths)
    engine(bp.count([other]))
    path = file_of(documents)
    assert path.is_relative_to(tmp_path / "seen_here")
    (resource,) = [document for name, document in documents if name == "resource"]
    assert resource["root"] == str(tmp_path / "seen_here")
    assert h5py.File(path)["entry/data/data"].shape == (1, 1024, 1024)


def test_a_dry_run_tells_of_the_files_and_changes_nothing(adsimdet, engine, documents, tmp_path, monkeypatch):
    from ophyd.sim import motor

    from instrument.plans import ascan
    from instrument.plans.preflight import asked

    def scan():
        return ascan(motor, 0, 1, 2, detectors=[adsimdet])

    def settings():
        hdf1 = adsimdet.hdf1
        return [
            str(s.get()) for s in (hdf1.file_path, hdf1.file_name, hdf1.file_number, hdf1.capture, hdf1.num_capture)
        ]

    def told(*words):
        before = settings()
        for dry in (lambda: asked("ascan", scan()), lambda: engine(scan())):
            with pytest.raises(UserError) as caught:
                dry()
            line = str(caught.value)
            assert line.startswith("ascan: adsimdet: ")
            assert line.endswith("; nothing moved")
            assert all(word in line for word in words), line
        assert (documents, settings()) == ([], before)

    assert asked("ascan", scan()).points == 3
    adsimdet.hdf1.file_path.put(str(tmp_path / "no" / "such"))
    told(f"the IOC has no directory {tmp_path}/no/such")
    adsimdet.hdf1.file_path.put(str(tmp_path))
    adsimdet.hdf1.file_name.put("taken")
    adsimdet.hdf1.file_number.set(1).wait(DEADLINE)
    (tmp_path / "taken_001.h5").write_text("precious")
    told("taken_001.h5 exists", "file_number.put(2)")
    adsimdet.hdf1.file_name.put("")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=4096))
    told("is full (4 kB free, a point takes 1024 kB): make room")
    adsimdet.hdf1.file_path.put("")
    adsimdet.frames_per_trigger = 3
    adsimdet.cam.data_type.set("UInt16").wait(DEADLINE)
    try:
        wait_until(lambda: str(adsimdet.hdf1.data_type.get()) == "UInt16", "the plugin expects UInt16")
        told(
            "is full (4 kB free, a point takes 6144 kB): make room"
        )  # in the directory of the day, made at a run's start
    finally:
        adsimdet.cam.data_type.set("UInt8").wait(DEADLINE)
        wait_until(lambda: str(adsimdet.hdf1.data_type.get()) == "UInt8", "the plugin expects UInt8")


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_what_is_no_exposure_time_is_refused_at_once(adsimdet, engine, value):
    refused(engine, bps.mv(adsimdet.cam.acquire_time, value), "adsimdet_cam_acquire_time", "is no time in seconds")
    adsimdet.stage_sigs["cam.acquire_time"] = value
    try:
        refused(engine, bp.count([adsimdet]), "adsimdet_cam_acquire_time", "is no time in seconds")
    finally:
        del adsimdet.stage_sigs["cam.acquire_time"]
    engine(bp.count([adsimdet]))


def test_frames_after_num_capture_end_the_run_and_those_before_are_kept(adsimdet, engine, documents):
    adsimdet.hdf1.stage_sigs["num_capture"] = 2
    try:
        refused(engine, bp.count([adsimdet], num=4), "NumCapture is 2", "2 points of this run are in")
    finally:
        adsimdet.hdf1.stage_sigs["num_capture"] = 0
    assert sum(name == "event" for name, _ in documents) == 2
    assert h5py.File(file_of(documents))["entry/data/data"].shape == (2, 1024, 1024)
    engine(bp.count([adsimdet]))


def test_a_frame_of_another_shape_ends_the_run_and_those_before_are_kept(adsimdet, engine, documents):
    def plan():
        yield from bps.open_run()
        yield from bps.trigger_and_read([adsimdet])
        yield from bps.mv(adsimdet.cam.size.size_x, 512)
        yield from bps.trigger_and_read([adsimdet])

    def staged():
        yield from bps.stage(adsimdet)
        try:
            yield from plan()
        finally:
            yield from bps.unstage(adsimdet)

    refused(engine, staged(), "a frame was not written", "(1024, 512)", "1 point of this run")
    assert h5py.File(file_of(documents))["entry/data/data"].shape == (1, 1024, 1024)
    adsimdet.cam.size.size_x.set(1024).wait(DEADLINE)
    engine(bp.count([adsimdet]))


def test_another_number_of_frames_in_the_midst_of_a_run_is_refused(adsimdet, engine, documents):
    def one_point(detectors):
        yield from bps.trigger_and_read(detectors)
        yield from bps.abs_set(adsimdet.cam.num_images, 3, wait=True)

    refused(engine, bp.count([adsimdet], num=2, per_shot=one_point), "frames per point were 1", "are 3 now")
    engine(bp.count([adsimdet]))


def test_a_misspelt_plugin_or_camera_is_told_with_the_nearest_match():
    with pytest.raises(UserError, match="did you mean 'SimDetectorCam'"):
        area_detector_of(cam="SimDetecorCam")
    with pytest.raises(UserError, match="no plugin 'hfd1'; did you mean 'hdf1'"):
        area_detector_of(plugins=["hfd1"])
    with pytest.raises(UserError, match="adsimdet has no plugin 'stat1'"):
        area_detector_of(plugins=["hdf1"], record=["stat1"])


def test_a_file_writer_whose_files_no_document_would_tell_of_is_refused():
    with pytest.raises(UserError, match=r"can't keep the files of 'tiff1' .TIFFPlugin_V34.*: record hdf1 instead"):
        area_detector_of(plugins=["hdf1", "tiff1"], record=["tiff1"])
    made = area_detector_of(plugins=["hdf1", "jpeg1"])
    with pytest.raises(UserError, match="can't keep the files of 'jpeg1'"):
        made.select_plugins("jpeg1")
    assert made.read_attrs == ["hdf1"]


def test_a_point_that_is_taken_again_while_its_exposure_goes_on_has_frames_of_its_own(adsimdet, engine):
    """As a run does that was paused in an exposure."""
    adsimdet.cam.acquire_time.set(0.3).wait(DEADLINE)
    adsimdet.stage()
    try:
        first, second = adsimdet.trigger(), adsimdet.trigger()
        second.wait(DEADLINE)
        assert first.done
        assert adsimdet.hdf1.num_captured.get() == 2
        (_, one), (_, other) = [doc for doc in adsimdet.collect_asset_docs() if doc[0] == "datum"]
        assert (one["datum_kwargs"], other["datum_kwargs"]) == ({"point_number": 0}, {"point_number": 1})
    finally:
        adsimdet.unstage()


def test_an_acquisition_is_late_only_when_no_more_frames_come(adsimdet, engine, documents, monkeypatch):
    """What takes longer than the exposures is the shutter here, and may be the compression."""
    cam = adsimdet.cam
    try:
        for signal, value in ((cam.shutter_mode, 1), (cam.shutter_open_delay, 0.5)):
            signal.set(value).wait(DEADLINE)
        monkeypatch.setattr(adsimdet, "timeout", 2.0)
        adsimdet.frames_per_trigger = 6
        engine(bp.count([adsimdet]))
        with h5py.File(file_of(documents)) as file:
            assert len(file["entry/data/data"]) == 6
        cam.shutter_open_delay.set(1000).wait(DEADLINE)
        monkeypatch.setattr(adsimdet, "timeout", 0.5)
        refused(engine, bp.count([adsimdet]), "adsimdet: no end of the acquisition in ", "the camera is 'Acquire'")
    finally:
        for signal in (cam.shutter_mode, cam.shutter_open_delay):
            signal.set(0).wait(DEADLINE)


def test_an_exposure_ends_with_its_run(adsimdet, engine):
    adsimdet.cam.acquire_time.set(100).wait(DEADLINE)
    adsimdet.stage()
    waiting = [adsimdet.trigger(), adsimdet.trigger()]
    wait_until(lambda: adsimdet.cam.detector_state.get() == 1, "the camera acquires")
    adsimdet.unstage()
    for status in waiting:
        status.wait(DEADLINE)
    assert adsimdet.cam.acquire.get() == 0
    wait_until(lambda: adsimdet.cam.detector_state.get() != 1, "the camera does nothing")


@pytest.mark.usefixtures("patient_ophyd")
def test_a_run_is_recorded_as_that_of_apstools_is(adsimdet, engine, documents, tmp_path):
    """The same data keys, configuration and references to frames, but for names of files."""
    from apstools.devices import ad_creator

    paths = {"write_path_template": f"{tmp_path}/", "read_path_template": f"{tmp_path}/"}
    stock = ad_creator("ad:", name="adsimdet", plugins=["cam", "image", "pva", {"hdf1": paths}])
    stock.read_attrs = ["hdf1"]
    stock.hdf1.read_attrs = []
    stock.stage_sigs["cam.num_images"] = 1
    found = []
    for camera in (stock, adsimdet):
        documents.clear()
        engine(bp.count([camera], num=2))
        (descriptor,) = [document for name, document in documents if name == "descriptor"]
        (resource,) = [document for name, document in documents if name == "resource"]
        key = descriptor["data_keys"]["adsimdet_image"]
        frames = h5py.File(file_of(documents))["entry/data/data"]
        found.append(
            {
                "keys": set(descriptor["data_keys"]),
                "image": {name: key[name] for name in ("dtype", "external", "source")},
                "frame": tuple(key["shape"])[-2:],
                "configuration": {n for n in descriptor["configuration"]["adsimdet"]["data"] if "_cam_" in n},
                "resource": (resource["spec"], resource["resource_kwargs"], resource["path_semantics"]),
                "datum": [document["datum_kwargs"] for name, document in documents if name == "datum"],
                "frames": (frames.shape, frames.dtype),
            }
        )
    assert found[0] == found[1]


def test_a_detector_that_records_statistics_is_made_and_shown_while_its_ioc_does_not_answer():
    made = area_detector(prefix="nobody:", name="absent", plugins=["hdf1", "stats1"], record=["stats1", "hdf1"])
    assert "stats1" in repr(made)
    assert made.stats1.total.connected is False
    made.destroy()


def test_stock_handlers_read_the_frames_of_each_point(adsimdet, engine, documents):
    from area_detector_handlers.handlers import AreaDetectorHDF5Handler

    adsimdet.frames_per_trigger = 2
    engine(bp.count([adsimdet], num=2))
    handler = AreaDetectorHDF5Handler(str(file_of(documents)), frame_per_point=2)
    points = [np.asarray(handler(**document["datum_kwargs"])) for name, document in documents if name == "datum"]
    assert [point.shape for point in points] == [(2, 1024, 1024)] * 2
    handler.close()
