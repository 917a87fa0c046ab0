"""`HDF1:`, `TIFF1:` and `JPEG1:`: names, modes, what is in the files, and what happens when they cannot be written."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.virtual_beamline.conftest import wait_for
from virtual_beamline.area_detector.file_plugin import FileError, create_directories, full_file_name
from virtual_beamline.area_detector.ndarray import DATA_TYPES

TRY = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/tmp"]
MAY_MOUNT = shutil.which("unshare") is not None and not subprocess.run(TRY, capture_output=True, check=False).returncode


def capture(ad, count, plugin="HDF1:", mode="Stream", **settings):
    """Capture ``count`` frames of ``NumCapture`` as many; gives the file's name."""
    ad.set(plugin, EnableCallbacks=1, FileWriteMode=mode, **{"NumCapture": count, **settings})
    ad.put(f"{plugin}Capture", 1, wait=False)
    ad.wait(f"{plugin}Capture_RBV", 1)
    take(ad, count)
    return Path(ad.text(f"{plugin}FullFileName_RBV"))


def take(ad, count):
    ad.set("cam1:", ImageMode="Multiple", NumImages=count, AcquireTime=0, AcquirePeriod=0.001)
    ad.acquire()


def message(ad, plugin="HDF1:"):
    return ad.text(f"{plugin}WriteStatus"), ad.text(f"{plugin}WriteMessage")


def refused(ad, text, plugin="HDF1:"):
    """Capture is refused with a message, and frames go on."""
    ad.put(f"{plugin}Capture", 1)  # with completion: it ends, as nothing is captured
    assert (ad.get(f"{plugin}Capture_RBV"), *message(ad, plugin)) == (0, "Write error", text)
    before = ad.get("cam1:ArrayCounter_RBV")
    take(ad, 2)
    assert ad.get("cam1:ArrayCounter_RBV") == before + 2


# -- names


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("%s%s_%3.3d.h5", "/a/b_007.h5"),
        ("%s%s_%6.6d.h5", "/a/b_000007.h5"),
        ("%s%s%d.tif", "/a/b7.tif"),
        ("%s%s.h5", "/a/b.h5"),
        ("%s_.h5", "/a/_.h5"),
    ],
)
def test_file_names_are_made_as_c_makes_them(template, name):
    assert full_file_name(template, "/a/", "b", 7) == name


@pytest.mark.parametrize("template", ["", "%d%s", "%q", "%s%s%d%s", "%"])
def test_a_template_that_makes_no_name_is_told(template):
    with pytest.raises(FileError, match="makes no file name"):
        full_file_name(template, "/a/", "b", 7)


@pytest.mark.parametrize(
    ("depth", "missing", "made"),
    [(0, 1, False), (-1, 1, True), (-1, 2, False), (-3, 3, True), (1, 3, True), (99, 1, False)],
)
def test_directories_are_made_as_deep_as_allowed(tmp_path, depth, missing, made):
    path = tmp_path.joinpath(*"abc"[:missing])
    create_directories(path, depth)
    assert path.is_dir() == made


def test_the_file_path_is_checked_whenever_it_or_the_permission_to_make_it_changes(ad, tmp_path):
    path = tmp_path / "x" / "y"
    ad.put("HDF1:FilePath", str(path))
    assert (ad.text("HDF1:FilePath_RBV"), ad.get("HDF1:FilePathExists_RBV")) == (f"{path}/", 0)
    ad.put("HDF1:CreateDirectory", -2)
    assert (ad.get("HDF1:FilePathExists_RBV"), path.is_dir()) == (1, True)


def test_numbers_go_on_by_themselves_if_they_shall(ad, images):
    ad.set("TIFF1:", EnableCallbacks=1, AutoSave=1, FileNumber=8, FileTemplate="%s%s_%3.3d.tif")
    take(ad, 2)
    assert sorted(path.name for path in images.iterdir()) == ["image_008.tif", "image_009.tif"]
    assert ad.get("TIFF1:FileNumber_RBV") == 10
    ad.wait("TIFF1:FileNumber", 10)  # follows
    ad.set("TIFF1:", AutoIncrement=0)
    take(ad, 2)  # the same file twice
    assert (ad.get("TIFF1:FileNumber_RBV"), len(list(images.iterdir()))) == (10, 3)
    ad.set("TIFF1:", AutoSave=0)
    take(ad, 2)
    assert len(list(images.iterdir())) == 3
    ad.put("TIFF1:WriteFile", 1)
    assert (images / "image_010.tif").stat().st_mtime_ns
    assert ad.get("TIFF1:ArrayCounter_RBV") == 4  # those that were saved by themselves


# -- modes


def test_a_stream_ends_with_num_capture_and_a_put_to_capture_with_it(ad, images):
    ad.set("HDF1:", EnableCallbacks=1, FileWriteMode="Stream", NumCapture=3)
    done = ad.start_put("HDF1:Capture", 1)
    ad.wait("HDF1:Capture_RBV", 1)
    file = Path(ad.text("HDF1:FullFileName_RBV"))
    assert (file, ad.get("HDF1:FileNumber_RBV"), file.exists()) == (images / "image_001.h5", 2, True)
    take(ad, 2)
    assert (ad.get("HDF1:NumCaptured_RBV"), ad.get("HDF1:WriteFile_RBV"), done) == (2, 1, [])
    take(ad, 1)
    wait_for(lambda: done)
    assert (ad.get("HDF1:Capture_RBV"), ad.get("HDF1:WriteFile_RBV")) == (0, 0)
    with h5py.File(file) as written:
        assert written["entry/data/data"].shape == (3, 1024, 1024)
        assert written["entry/data/data"] == written["entry/instrument/detector/data"]
        attributes = written["entry/instrument/NDAttributes"]
        assert list(attributes["NDArrayUniqueId"]) == [1, 2, 3]
        assert list(attributes["ColorMode"]) == [0, 0, 0]
        assert {len(values) for values in attributes.values()} == {3}
        assert written["entry"].attrs["NX_class"] == "NXentry"
    assert ad.get("HDF1:RunTime") > 0


def test_frames_after_num_capture_are_not_written_and_that_is_told(ad, images):
    ad.set("HDF1:", EnableCallbacks=1, FileWriteMode="Stream", NumCapture=2)
    ad.put("HDF1:Capture", 1, wait=False)
    ad.wait("HDF1:Capture_RBV", 1)
    take(ad, 5)
    assert message(ad) == ("Write OK", "not written: 3 frames that came after the 2 of NumCapture")
    with h5py.File(images / "image_001.h5") as written:
        assert len(written["entry/data/data"]) == 2
    ad.put("HDF1:Capture", 1, wait=False)
    ad.wait("HDF1:Capture_RBV", 1)
    assert message(ad) == ("Write OK", "")


def test_a_stream_without_a_number_goes_on_until_it_is_stopped(ad, images):
    file = capture(ad, 4, NumCapture=0)
    assert ad.get("HDF1:Capture_RBV") == 1
    ad.put("HDF1:Capture", 0, wait=False)
    ad.wait("HDF1:Capture_RBV", 0)
    with h5py.File(file) as written:
        assert len(written["entry/data/data"]) == 4


def test_lazy_open_makes_the_file_with_the_first_frame(ad, images):
    ad.set("HDF1:", EnableCallbacks=1, FileWriteMode="Stream", NumCapture=1, LazyOpen=1)
    ad.put("HDF1:Capture", 1, wait=False)
    ad.wait("HDF1:Capture_RBV", 1)
    ad.set("cam1:", SizeX=100)  # what the file holds may still change
    assert list(images.iterdir()) == []
    take(ad, 1)
    with h5py.File(images / "image_001.h5") as written:
        assert written["entry/data/data"].shape == (1, 1024, 100)


def test_captured_frames_are_written_when_told(ad, images):
    capture(ad, 3, mode="Capture")
    assert (ad.get("HDF1:NumCaptured_RBV"), list(images.iterdir())) == (3, [])
    ad.put("HDF1:WriteFile", 1)
    with h5py.File(images / "image_001.h5") as written:
        assert len(written["entry/data/data"]) == 3
    ad.put("HDF1:WriteFile", 1)
    assert message(ad) == ("Write error", "there are no captured arrays to write")
    file = capture(ad, 2, mode="Capture", AutoSave=1)
    assert (file.name, file.exists()) == ("image_002.h5", True)


def test_what_is_written_when_told_is_the_last_frame_whatever_has_been_announced_since(ad, images):
    ad.set("HDF1:", EnableCallbacks=1)
    take(ad, 1)
    ad.set("cam1:", SizeX=100)
    ad.put("HDF1:WriteFile", 1)
    with h5py.File(images / "image_001.h5") as written:
        assert written["entry/data/data"].shape == (1, 1024, 1024)
        assert written["entry/data/data"][0].max() > 90
        assert list(written["entry/instrument/NDAttributes/NDArrayUniqueId"]) == [1]


def test_a_temporary_name_until_the_file_is_complete(ad, images):
    ad.set("HDF1:", EnableCallbacks=1, FileWriteMode="Stream", NumCapture=1, TempSuffix=".part")
    ad.put("HDF1:Capture", 1, wait=False)
    ad.wait("HDF1:Capture_RBV", 1)
    assert [path.name for path in images.iterdir()] == ["image_001.h5.part"]
    take(ad, 1)
    assert [path.name for path in images.iterdir()] == ["image_001.h5"]


# -- what is in an HDF5 file


@pytest.mark.parametrize(
    ("settings", "filters"),
    [
        ({"Compression": "None"}, set()),
        ({"Compression": "zlib", "ZLevel": 1}, {"gzip"}),
        ({"Compression": "szip"}, {"szip"}),
        ({"Compression": "N-bit", "NumDataBits": 8}, {"5"}),
        ({"Compression": "Blosc", "BloscCompressor": "zstd", "BloscShuffle": "Bit shuffle"}, {"32001"}),
        ({"Compression": "BSLZ4"}, {"32008"}),
        ({"Compression": "LZ4"}, {"32004"}),
    ],
    ids=lambda value: value["Compression"] if isinstance(value, dict) else "",
)
def test_compression_loses_nothing(ad, images, settings, filters):
    import hdf5plugin  # noqa: F401  (registers the filters)

    ad.set("image1:", EnableCallbacks=1)
    ad.set("cam1:", DataType="UInt16", SizeX=200, SizeY=100, MinX=350, MinY=250)
    file = capture(ad, 2, **settings)
    ad.set("HDF1:", Compression="None")
    if settings["Compression"] == "szip" and not h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP):
        assert message(ad) == ("Write error", "Compression szip: this HDF5 library has no szip")
        return
    assert message(ad) == ("Write OK", "")
    with h5py.File(file) as written:
        data = written["entry/data/data"]
        assert set(data._filters) == filters
        assert data.chunks == (1, 100, 200)
        np.testing.assert_array_equal(data[-1], ad.frame(100, 200))


@pytest.mark.parametrize("data_type", DATA_TYPES)
def test_all_data_types_are_written_as_they_are(ad, images, data_type):
    ad.set("image1:", EnableCallbacks=1)
    ad.set("cam1:", DataType=data_type, SizeX=64, SizeY=32, MinX=380, MinY=280, ColorMode="RGB1")
    with h5py.File(capture(ad, 1)) as written:
        data = written["entry/data/data"]
        assert data.dtype == np.dtype(data_type.lower())
        np.testing.assert_array_equal(data[0], ad.frame(32, 64, 3))


def test_chunks_flushes_performance_and_alignment(ad, images):
    ad.set("cam1:", SizeX=200, SizeY=100)
    ad.set("HDF1:", NumRowChunks=50, NumColChunks=40, NumFramesChunks=3, StorePerform=1, BoundaryAlign=4096)
    file = capture(ad, 7, NumFramesFlush=2)
    ad.set("HDF1:", NumRowChunks=0, NumColChunks=0, NumFramesChunks=1, StorePerform=0, BoundaryAlign=0)
    ad.set("HDF1:", NumFramesFlush=0)
    assert ad.get("HDF1:SWMRCbCounter_RBV") == 3
    with h5py.File(file) as written:
        data = written["entry/data/data"]
        assert (data.shape, data.chunks) == ((7, 100, 200), (3, 50, 40))
        assert all(data.id.get_chunk_info(n).byte_offset % 4096 == 0 for n in range(data.id.get_num_chunks()))
        timing = written["entry/instrument/performance/timestamp"][:]
        assert timing.shape == (7, 5)
        assert (np.diff(timing[:, 1]) > 0).all()


def test_a_file_can_be_read_while_it_is_written(ad, images):
    ad.set("HDF1:", EnableCallbacks=1, FileWriteMode="Stream", NumCapture=4, SWMRMode=1)
    ad.put("HDF1:Capture", 1, wait=False)
    ad.wait("HDF1:Capture_RBV", 1)
    assert ad.get("HDF1:SWMRActive_RBV") == 1
    with h5py.File(images / "image_001.h5", swmr=True, libver="latest") as reader:
        data = reader["entry/data/data"]
        for count in (2, 4):
            take(ad, 2)
            data.refresh()
            assert len(data) == count
            assert data[count - 1].max() > 90
    ad.wait("HDF1:SWMRActive_RBV", 0)
    ad.set("HDF1:", SWMRMode=0)


def test_a_writer_that_is_killed_leaves_the_frames_that_it_has_flushed_and_no_others(ad, images):
    ad.set("HDF1:", NumFramesFlush=1)
    file = capture(ad, 3, NumCapture=10)
    left = file.rename(images / "left.h5")  # what others see of it now is what is there after a kill -9
    shutil.copy(left, images / "copy.h5")
    with h5py.File(images / "copy.h5") as written:
        assert ad.get("HDF1:NumCaptured_RBV") == 3
        assert len(written["entry/data/data"]) == len(written["entry/instrument/NDAttributes/NDArrayUniqueId"]) == 3
        assert written["entry/data/data"][-1].max() > 90
    ad.put("HDF1:Capture", 0, wait=False)
    ad.wait("HDF1:Capture_RBV", 0)
    ad.set("HDF1:", NumFramesFlush=0)


def test_an_existing_file_is_written_anew(ad, images):
    (images / "image_001.h5").write_text("something else")
    file = capture(ad, 2)
    assert file == images / "image_001.h5"
    with h5py.File(file) as written:
        assert len(written["entry/data/data"]) == 2


def test_jpeg_keeps_what_it_can(ad, images):
    from PIL import Image

    ad.set("cam1:", ColorMode="RGB3", GainRed=1, GainGreen=0.3, GainBlue=0)
    ad.set("JPEG1:", EnableCallbacks=1, AutoSave=1, JPEGQuality=95)
    take(ad, 1)
    ad.set("cam1:", GainGreen=1, GainBlue=1)
    with Image.open(ad.text("JPEG1:FullFileName_RBV")) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (1024, 1024), "RGB")
        np.testing.assert_allclose(np.asarray(image, float)[300, 400], [105, 35, 5], atol=12)


# -- what cannot be written


def test_a_missing_directory(ad, images):
    ad.set("HDF1:", EnableCallbacks=1, FileWriteMode="Stream", NumCapture=2, FilePath=f"{images}/none")
    refused(ad, f"there is no directory {images}/none")
    ad.set("HDF1:", FilePath=f"{images}")
    assert capture(ad, 2).exists()
    assert message(ad) == ("Write OK", "")


def test_a_directory_that_is_no_directory(ad, images):
    (images / "image_001.h5").mkdir()
    ad.set("HDF1:", EnableCallbacks=1, FileWriteMode="Stream")
    refused(ad, f"{images}/image_001.h5 is a directory")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"FileWriteMode": "Single"}, "Capture needs FileWriteMode Capture or Stream"),
        ({"FileWriteMode": "Capture", "NumCapture": 0}, "FileWriteMode Capture needs NumCapture of 1 or more"),
        (
            {"FileWriteMode": "Capture", "NumCapture": 100_000},
            "100000 frames are 100000 MB, more than 2048 MB: use Stream",
        ),
        (
            {"FileWriteMode": "Stream", "FileTemplate": "%d"},
            "FileTemplate '%d' makes no file name of a path, a name and a number",
        ),
        (
            {"FileWriteMode": "Stream", "Compression": "N-bit", "NumDataBits": 12},
            "Compression N-bit: uint8 has no bits 0 to 11 to keep",
        ),
    ],
    ids=lambda value: "",
)
def test_settings_that_make_no_file(ad, images, settings, why):
    ad.set("HDF1:", EnableCallbacks=1, **settings)
    refused(ad, why)
    ad.set("HDF1:", FileTemplate="%s%s_%3.3d.h5", Compression="None", NumDataBits=8)


def test_a_frame_of_another_size_ends_the_stream_and_what_was_written_stays(ad, images):
    file = capture(ad, 3, NumCapture=10)
    ad.set("cam1:", SizeX=100)
    take(ad, 1)
    ad.wait("HDF1:Capture_RBV", 0)
    status, text = message(ad)
    assert status == "Write error"
    assert text == "frame 4 is uint8 (1024, 100), the file's are uint8 (1024, 1024): start a new file"
    with h5py.File(file) as written:
        assert len(written["entry/data/data"]) == 3


def test_an_attribute_that_a_file_cannot_hold_ends_the_capture_with_a_message(ad, images):
    number = '<Attributes><Attribute name="A" type="CONST" source="99999999999999999999" datatype="INT"/></Attributes>'
    ad.put("cam1:NDAttributesFile", number)
    ad.set("HDF1:", EnableCallbacks=1)
    take(ad, 1)
    capture(ad, 1)
    ad.wait("HDF1:Capture_RBV", 0)
    ad.put("cam1:NDAttributesFile", "")
    status, text = message(ad)
    assert (status, text.split(":")[0]) == ("Write error", "OverflowError")
    assert capture(ad, 1).exists()
    assert message(ad) == ("Write OK", "")


def test_jpeg_of_other_than_8_bits(ad, images):
    ad.set("cam1:", DataType="UInt16")
    ad.set("JPEG1:", EnableCallbacks=1, AutoSave=1)
    take(ad, 1)
    assert message(ad, "JPEG1:") == (
        "Write error",
        "JPEG holds UInt8 pixels, Mono or RGB, not uint16: set DataType of the camera",
    )
    assert list(images.iterdir()) == []


DISKS = """
    mkdir full readonly
    mount -t tmpfs -o size=8m tmpfs full
    mount --bind readonly readonly
    mount -o remount,bind,ro readonly
    exec "$@"
"""


class SmallDisks:
    """Runs scripts in a mount namespace of their own, where `full` has room for 8 MB and `readonly` for nothing."""

    def __init__(self, directory):
        self.directory = directory

    def run(self, script):
        return subprocess.run(
            ["unshare", "-rm", "sh", "-ec", DISKS, "sh", sys.executable, "-c", textwrap.dedent(script)],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def small_disks(tmp_path):
    if not MAY_MOUNT:
        pytest.skip("NOT RUN: a full disk needs a mount namespace, which this machine does not allow")
    return SmallDisks(tmp_path)


def test_no_room_and_no_permission_end_the_capture_with_a_message_and_not_the_acquisition(small_disks):
    done = small_disks.run("""
        import os, time
        from virtual_beamline import supervisor
        lease = supervisor.lease_ports()
        lease.environment("x").apply()
        ioc = supervisor.start_area_detector("vb-disks", "ad:", lease, seed=1)
        ioc.wait_ready()
        from tests.area_detector.conftest import Camera
        from tests.area_detector.test_files import capture, message, take
        ad = Camera("ad:")
        ad.set("cam1:", WaitForPlugins="Yes")
        for blocking in (0, 1):
            ad.set("HDF1:", BlockingCallbacks=blocking, FilePath=f"{os.getcwd()}/full")
            capture(ad, 30)
            ad.wait("HDF1:Capture_RBV", 0)
            print(ad.get("cam1:NumImagesCounter_RBV"), ad.get("HDF1:NumCaptured_RBV") < 12, *message(ad))
            os.system("rm -f full/*")
        capture(ad, 3)
        print(*message(ad))
        ad.set("HDF1:", FilePath=f"{os.getcwd()}/readonly")
        ad.put("HDF1:Capture", 1)
        print(*message(ad))
        ad.set("TIFF1:", EnableCallbacks=1, AutoSave=1, FilePath=f"{os.getcwd()}/full")
        take(ad, 20)
        print(ad.get("cam1:NumImagesCounter_RBV"), *message(ad, "TIFF1:"))
        print(ioc.poll())
        ioc.stop()
        print(ioc.poll())
    """)
    assert done.stdout.replace(f"{small_disks.directory}/", "").splitlines() == [
        "30 True Write error full/image_001.h5: No space left on device",
        "30 True Write error full/image_002.h5: No space left on device",
        "Write OK ",
        "Write error readonly/image_004.h5: Read-only file system",
        "20 Write error full/image_020.tif: No space left on device",
        "None",
        "0",
    ], done.stderr
