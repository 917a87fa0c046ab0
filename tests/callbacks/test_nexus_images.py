"""Images in NeXus files: referred to, read with h5py alone, also after the files moved; a missing one is named."""

import json
import shutil
import subprocess
import sys

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import h5py
import numpy as np
import pytest
from ophyd.sim import det, motor

from instrument.callbacks.nexus_file import NexusFile
from instrument.callbacks.nexus_images import ImageFileError, as_seen_from
from instrument.config.errors import UserError
from instrument.config.models import Nexus

from .camera import Camera
from .nexus import Files, assert_valid

IMAGE = "/entry/instrument/bluesky/streams/primary/camera_image"


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path / "data" / "nexus")


@pytest.fixture
def camera(tmp_path):
    return Camera(tmp_path / "data" / "images")


def read_elsewhere(path, *addresses):
    """What h5py alone reads, in a process of its own: each dataset's shape, and the first pixel of each frame."""
    script = (
        "import h5py, json, sys\n"
        "with h5py.File(sys.argv[1]) as file:\n"
        "    data = [file[address] for address in sys.argv[2:]]\n"
        "    print(json.dumps([[d.shape, d[..., 0, 0].tolist()] for d in data]))"
    )
    command = [sys.executable, "-c", script, str(path), *addresses]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_frames_are_read_with_h5py_alone_and_nothing_is_copied(files, camera, record):
    camera.shape = (256, 256)
    path = files.write(record(bp.scan([camera], motor, -1, 1, 3)))
    addresses = (f"{IMAGE}/value", "entry/data/camera_image", "entry/instrument/detectors/camera_image/data/value")
    assert read_elsewhere(path, *addresses) == [[[3, 256, 256], [0, 1, 2]]] * 3
    with h5py.File(path) as file:
        assert file[f"{IMAGE}/value"].is_virtual
        assert file[f"{IMAGE}/value"].attrs["source_address"] == "/entry/data/data"
        assert file[f"{IMAGE}/value"].attrs["source_file"] == f"../images/{camera.file.name}"
    assert path.stat().st_size < 256 * 256 * 2  # less than one frame
    assert_valid(path)


def test_several_frames_of_a_point_are_a_dimension_of_their_own(files, camera, record):
    camera.frames = 2
    path = files.write(record(bp.scan([camera], motor, -1, 1, 3)))
    assert read_elsewhere(path, f"{IMAGE}/value") == [[[3, 2, 4, 5], [[0, 1], [2, 3], [4, 5]]]]
    assert_valid(path)


def test_nexusformat_plots_images_against_the_motor(files, camera, record):
    from nexusformat.nexus import nxload

    plotted = nxload(str(files.write(record(bp.scan([camera], motor, -1, 1, 2))))).plottable_data
    assert plotted.nxsignal.nxname == "camera_image"
    assert [axis.nxname for axis in plotted.nxaxes] == ["motor", "row", "column"]


def test_the_default_plot_of_a_detector_is_its_image(files, camera, record):
    with h5py.File(files.write(record(bp.count([camera], num=2)))) as file:
        data = file["entry/data"]
        assert (data.attrs["signal"], "axes" in data.attrs) == ("camera_image", False)
    with h5py.File(files.write(record(bp.scan([camera], motor, -1, 1, 2)))) as file:
        data = file["entry/data"]
        assert (data.attrs["signal"], data.attrs["axes"].tolist()) == ("camera_image", ["motor", "row", "column"])
        assert file["entry/data/column"][:].tolist() == [0, 1, 2, 3, 4]
    path = files.write(record(bp.scan([det, camera], motor, -1, 1, 2)))
    with h5py.File(path) as file:
        assert (file["entry/data"].attrs["signal"], file["entry/data"].attrs["axes"].tolist()) == ("det", ["motor"])
    assert_valid(path)


def test_frames_of_several_files_are_one_dataset(files, camera, record):
    @bpp.run_decorator(md={"plan_name": "restaged", "detectors": ["camera"]})
    def plan():
        for _ in range(2):
            yield from bps.stage(camera)
            for _ in range(2):
                yield from bps.trigger_and_read([camera])
            yield from bps.unstage(camera)

    assert read_elsewhere(files.write(record(plan())), f"{IMAGE}/value") == [[[4, 4, 5], [0, 1, 0, 1]]]


def test_compressed_frames_are_read_too(files, camera, record):
    camera.compression = "gzip"
    assert read_elsewhere(files.write(record(bp.count([camera], num=2))), f"{IMAGE}/value") == [[[2, 4, 5], [0, 1]]]


def test_data_and_images_that_move_together_stay_together(files, camera, record, tmp_path):
    path = files.write(record(bp.count([camera], num=2)))
    (tmp_path / "data").rename(tmp_path / "moved")
    moved = tmp_path / "moved" / path.relative_to(tmp_path / "data")
    assert read_elsewhere(moved, f"{IMAGE}/value") == [[[2, 4, 5], [0, 1]]]


def test_paths_are_relative_unless_nothing_is_shared(tmp_path):
    assert as_seen_from(tmp_path / "a" / "b", tmp_path / "c.h5") == "../../c.h5"
    assert as_seen_from(tmp_path, tmp_path / "c.h5") == "c.h5"
    assert as_seen_from(tmp_path, "/mnt/detector/c.h5") == "/mnt/detector/c.h5"
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    assert as_seen_from(tmp_path / "link", tmp_path / "c.h5") == "../../c.h5"


def test_images_are_found_where_the_root_map_says(camera, record, tmp_path):
    documents = record(bp.count([camera], num=2))
    camera.directory.rename(tmp_path / "archive")
    file = NexusFile(tmp_path / "run.h5", Nexus(), root_map={str(camera.directory): str(tmp_path / "archive")})
    for name, doc in documents:
        file.take(name, doc)
    assert read_elsewhere(tmp_path / "run.h5", f"{IMAGE}/value") == [[[2, 4, 5], [0, 1]]]


def test_a_missing_image_is_named_and_the_run_can_be_written_later(files, camera, record, tmp_path):
    documents = record(bp.count([camera], num=2))
    aside = shutil.move(camera.file, tmp_path)
    with pytest.raises(ImageFileError) as told:
        files.write(documents)
    assert str(told.value) == (
        f"image file {camera.file} is missing: bring it back, or tell by `root_map` in iconfig.yml where files moved, "
        "then export the run"
    )
    assert not files.directory.exists() or list(files.directory.iterdir()) == []
    shutil.move(aside, camera.file)
    assert_valid(files.write(documents))


def test_a_file_that_is_late_is_waited_for_and_one_of_an_old_run_is_not(files, camera, record):
    documents = record(bp.count([camera]))
    camera.file.unlink()
    with pytest.raises(ImageFileError) as late:
        files.write(documents)
    assert (late.value.transient, late.value.final) == (True, False)
    documents[-1][1]["time"] -= 3600
    with pytest.raises(ImageFileError) as old:
        files.write(documents)
    assert (old.value.transient, old.value.final) == (False, True)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.write_bytes(b"no HDF5"), r"image file .*\.h5 can't be read \(.*signature not found.*\)"),
        (lambda path: h5py.File(path, "w").close(), r"image file .*\.h5 has no /entry/data/data"),
    ],
)
def test_an_image_file_that_is_none_is_named(files, camera, record, damage, told):
    documents = record(bp.count([camera]))
    damage(camera.file)
    with pytest.raises(ImageFileError, match=told):
        files.write(documents)


def test_frames_that_never_came_read_as_zero_and_are_told(files, camera, record, caplog):
    camera.fails_after = 3
    camera.frames = 2
    path = files.write(record(bp.count([camera], num=3)))
    assert read_elsewhere(path, f"{IMAGE}/value") == [[[3, 2, 4, 5], [[0, 1], [0, 0], [0, 0]]]]
    assert f"{camera.file} has 3 frames, the run refers to 6: the rest reads as 0" in caplog.text


def test_frames_of_two_shapes_are_told(files, camera, record):
    @bpp.run_decorator(md={"plan_name": "reshaped"})
    def plan():
        for shape in ((4, 5), (6, 5)):
            camera.shape = shape
            yield from bps.stage(camera)
            yield from bps.trigger_and_read([camera])
            yield from bps.unstage(camera)

    with pytest.raises(UserError, match=r"its images have several shapes of frames \(\(4, 5\), \(6, 5\)\)"):
        files.write(record(plan()))


def test_images_that_are_no_hdf5_are_copied(files, record, tmp_path):
    from PIL import Image

    frames = [np.full((3, 4), value, "u2") for value in (7, 9)]
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"tiff_{number:03d}.tiff")
    documents = with_tiffs(record(bp.count([Camera(tmp_path / "unused")], num=2)), tmp_path)
    path = files.write(documents)
    for left in tmp_path.glob("*.tiff"):
        left.unlink()
    assert read_elsewhere(path, f"{IMAGE}/value") == [[[2, 3, 4], [7, 9]]]
    assert_valid(path)


def with_tiffs(documents, directory):
    """The same run, its images in files of AD_TIFF."""
    for name, doc in documents:
        if name == "resource":
            kwargs = {"template": "%s%s_%3.3d.tiff", "filename": "tiff", "frame_per_point": 1}
            doc.update(spec="AD_TIFF", root="/", resource_path=f"{directory}/".lstrip("/"), resource_kwargs=kwargs)
    return documents


def test_images_of_a_kind_that_nobody_reads_are_told(files, record, tmp_path):
    camera = Camera(tmp_path, spec="AD_NONSENSE")
    with pytest.raises(UserError, match="nothing installed reads images of spec AD_NONSENSE"):
        files.write(record(bp.count([camera])))
