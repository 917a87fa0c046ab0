"""Device classes of ophyd and apstools, unmodified: each takes frames through the RunEngine and reads them back."""

import h5py
import numpy as np
import pytest
import tifffile

from tests.virtual_beamline.conftest import wait_for

pytestmark = pytest.mark.usefixtures("patient_ophyd")


@pytest.fixture(scope="module")
def engine():
    from bluesky import RunEngine

    made = RunEngine({}, call_returns_result=True)
    made.documents = []
    made.subscribe(lambda name, document: made.documents.append((name, document)))
    return made


@pytest.fixture
def run(engine):
    """Count a detector; gives the documents by name."""

    def count(detector, num=3, **settings):
        from bluesky import plans as bp

        engine.documents.clear()
        engine(bp.count([detector], num=num, **settings))
        found = {}
        for name, document in engine.documents:
            found.setdefault(name, []).append(document)
        assert found["stop"][0]["exit_status"] == "success"
        assert len(found["event"]) == num
        return found

    return count


def reads(detector, *plugins):
    """What the runs record: of the plugins nothing but their files."""
    detector.read_attrs = [plugin.attr_name for plugin in plugins]
    for plugin in plugins:
        plugin.read_attrs = []


def frames_of(documents, detector):
    """The frames of a run, by the stock handlers."""
    from area_detector_handlers.handlers import AreaDetectorHDF5Handler, AreaDetectorTiffHandler

    handlers = {"AD_HDF5": AreaDetectorHDF5Handler, "AD_TIFF": AreaDetectorTiffHandler}
    resources = {r["uid"]: r for r in documents["resource"]}
    found = []
    for datum in documents["datum"]:
        resource = resources[datum["resource"]]
        path = f"{resource['root'].rstrip('/')}/{resource['resource_path']}"
        handler = handlers[resource["spec"]](path, **resource["resource_kwargs"])
        found.append(np.asarray(handler(**datum["datum_kwargs"])))
    (described,) = [v for k, v in documents["descriptor"][0]["data_keys"].items() if k.endswith("_image")]
    assert tuple(described["shape"]) in {np.squeeze(frames).shape for frames in found} | {f.shape for f in found}
    return found


def check_spots(frames):
    """All show the spot where it is, and no two have the same noise."""
    for frame in frames:
        assert np.unravel_index(np.squeeze(frame).argmax(), (1024, 1024)) == pytest.approx((300, 400), abs=8)
    assert len({frame.tobytes() for frame in frames}) == len(frames)


def test_ophyd_sim_detector(ad, run):
    from ophyd import SimDetector, SingleTrigger

    class Stock(SingleTrigger, SimDetector):
        pass

    det = Stock("ad:", name="det")
    det.read_attrs = ["cam"]
    det.cam.read_attrs = ["array_counter"]
    documents = run(det, num=3)
    assert [event["data"]["det_cam_array_counter"] for event in documents["event"]] == [1, 2, 3]
    configuration = documents["descriptor"][0]["configuration"]["det"]["data"]
    assert configuration["det_cam_model"] == "Basic simulator"


def test_ophyd_hdf5_plugin_with_filestore_iterative_write(ad, run, images):
    from ophyd import Component, HDF5Plugin, SimDetector, SingleTrigger
    from ophyd.areadetector.filestore_mixins import FileStoreHDF5IterativeWrite

    class Writer(HDF5Plugin, FileStoreHDF5IterativeWrite):
        pass

    class Stock(SingleTrigger, SimDetector):
        hdf1 = Component(Writer, "HDF1:", write_path_template=f"{images}/")

    det = Stock("ad:", name="det")
    reads(det, det.hdf1)
    det.stage_sigs["cam.num_images"] = 2
    frames = frames_of(run(det, num=3), det)
    assert [frame.shape for frame in frames] == [(2, 1024, 1024)] * 3
    check_spots([each for frame in frames for each in frame])
    assert ad.get("HDF1:DroppedArrays_RBV") == 0


def test_ophyd_tiff_plugin_with_filestore_iterative_write(ad, run, images):
    from ophyd import Component, SimDetector, SingleTrigger, TIFFPlugin
    from ophyd.areadetector.filestore_mixins import FileStoreTIFFIterativeWrite

    class Writer(TIFFPlugin, FileStoreTIFFIterativeWrite):
        pass

    class Stock(SingleTrigger, SimDetector):
        tiff1 = Component(Writer, "TIFF1:", write_path_template=f"{images}/")

    det = Stock("ad:", name="det")
    reads(det, det.tiff1)
    det.stage_sigs["cam.num_images"] = 1
    documents = run(det, num=3)
    check_spots(frames_of(documents, det))
    assert len(list(images.glob("*.tiff"))) == 3


@pytest.mark.parametrize("kind", ["ImagePlugin", "ImagePlugin_V34"])
def test_ophyd_image_plugin(ad, run, kind):
    from ophyd import Component, SimDetector, SingleTrigger
    from ophyd.areadetector import plugins

    class Stock(SingleTrigger, SimDetector):
        image = Component(getattr(plugins, kind), "image1:")

    det = Stock("ad:", name="det")
    reads(det, det.image)
    # In colors: of a Mono frame ophyd takes the depth, which is 0, for its first dimension, with any IOC.
    ad.set("cam1:", ColorMode="RGB1")
    run(det, num=2)
    image = det.image.shaped_image.get()
    assert image.shape == (1024, 1024, 3)
    check_spots([image[..., color] for color in range(3)])
    if kind == "ImagePlugin":  # that of V34 counts dimensions in text
        np.testing.assert_array_equal(det.image.image, image)
    ad.set("cam1:", ColorMode="Mono")
    run(det, num=1)
    check_spots([det.image.array_data.get().reshape(1024, 1024)])


def test_ophyd_pva_plugin(ad, run):
    from ophyd import Component, SimDetector, SingleTrigger
    from ophyd.areadetector.plugins import PvaPlugin_V34
    from p4p.client.thread import Context

    class Stock(SingleTrigger, SimDetector):
        pva = Component(PvaPlugin_V34, "Pva1:")

    det = Stock("ad:", name="det")
    reads(det, det.pva)
    run(det, num=2)
    assert det.pva.pv_name.get() == "ad:Pva1:Image"
    with Context("pva") as context:
        frame = context.get(det.pva.pv_name.get(), timeout=10)
    check_spots([np.asarray(frame)])


def test_apstools_classes_and_hdf5_names_of_the_users_choice(ad, run, images):
    from apstools.devices import (
        AD_EpicsFileNameHDF5Plugin,
        AD_plugin_primed,
        AD_prime_plugin2,
        CamMixin_V34,
        SingleTrigger_V34,
    )
    from ophyd import ADComponent, DetectorBase, SimDetectorCam
    from ophyd.areadetector.plugins import ImagePlugin_V34, PvaPlugin_V34

    class Cam(CamMixin_V34, SimDetectorCam):
        pass

    class Stock(SingleTrigger_V34, DetectorBase):
        cam = ADComponent(Cam, "cam1:")
        image = ADComponent(ImagePlugin_V34, "image1:")
        pva = ADComponent(PvaPlugin_V34, "Pva1:")
        hdf1 = ADComponent(
            AD_EpicsFileNameHDF5Plugin,
            "HDF1:",
            write_path_template=f"{images}/",
            read_path_template=f"{images}/",
        )

    det = Stock("ad:", name="det")
    reads(det, det.image, det.pva, det.hdf1)
    assert AD_plugin_primed(det.hdf1)  # from boot, without a frame
    det.cam.data_type.put("UInt16")
    wait_for(lambda: AD_plugin_primed(det.hdf1), what="primed for the new type")
    AD_prime_plugin2(det.hdf1)
    for name, value in {
        "create_directory": -5,
        "file_path": f"{images}/",
        "file_name": "mine",
        "file_number": 7,
        "file_template": "%s%s_%4.4d.h5",
        "auto_increment": 1,
        "auto_save": 1,
        "array_counter": 0,
        "compression": "zlib",
        "num_capture": 3,
    }.items():
        getattr(det.hdf1, name).set(value).wait(10)
    det.hdf1.num_capture.set(3).wait(10)
    det.cam.stage_sigs["num_images"] = 3
    det.cam.stage_sigs["acquire_time"] = 0.002
    documents = run(det, num=1)
    frames = frames_of(documents, det)
    assert frames[0].shape == (3, 1024, 1024)
    assert frames[0].dtype == np.uint16
    check_spots(list(frames[0]))
    with h5py.File(images / "mine_0007.h5") as file:
        assert file["entry/data/data"].compression == "gzip"
    assert det.hdf1.file_number.get() == 8


@pytest.mark.parametrize("writer", ["tiff", "jpeg"])
def test_apstools_image_files_of_the_users_choice(ad, run, images, writer):
    from apstools.devices import AD_EpicsFileNameJPEGPlugin, AD_EpicsFileNameTIFFPlugin, ad_creator

    kinds = {"tiff": AD_EpicsFileNameTIFFPlugin, "jpeg": AD_EpicsFileNameJPEGPlugin}
    suffix = f"{writer.upper()}1:"
    det = ad_creator(
        "ad:",
        name="det",
        plugins=[
            "cam",
            {
                writer: {
                    "class": kinds[writer],
                    "suffix": suffix,
                    "write_path_template": f"{images}/",
                    "read_path_template": f"{images}/",
                }
            },
        ],
    )
    plugin = getattr(det, writer)
    reads(det, plugin)
    ad.set(suffix, FileName="mine", FileTemplate=f"%s%s_%3.3d.{writer}", NumCapture=2, AutoSave=1)
    det.cam.stage_sigs["num_images"] = 2
    run(det, num=1)
    files = wait_for(lambda: sorted(images.glob(f"mine_*.{writer}"))[1:] and sorted(images.glob(f"mine_*.{writer}")))
    from PIL import Image

    read = tifffile.imread if writer == "tiff" else lambda file: np.asarray(Image.open(file))
    for file in files:
        assert np.unravel_index(read(file).argmax(), (1024, 1024)) == pytest.approx((300, 400), abs=10)


def test_ad_creator_with_the_default_plugins(ad, run, images):
    from apstools.devices import ad_creator

    det = ad_creator(
        "ad:",
        name="det",
        plugins=[
            "cam",
            "image",
            "pva",
            {"hdf1": {"write_path_template": f"{images}/", "read_path_template": f"{images}/"}},
        ],
    )
    reads(det, det.image, det.pva, det.hdf1)
    check_spots([np.squeeze(frame) for frame in frames_of(run(det, num=2), det)])


def test_apstools_frame_types_and_local_names(ad, run, images):
    """What a scan of dark, white and data frames sets up (names of FrameType's choices), and asks afterwards."""
    from apstools.devices import AD_full_file_name_local, ad_creator, ensure_AD_plugin_primed
    from apstools.devices.area_detector_support import AD_setup_FrameType

    paths = {"write_path_template": f"{images}/", "read_path_template": f"{images}/"}
    det = ad_creator("ad:", name="det", plugins=["cam", {"hdf1": paths}])
    reads(det, det.hdf1)
    ensure_AD_plugin_primed(det.hdf1, allow=True)
    try:
        AD_setup_FrameType("ad:", scheme="DataExchange")
        for number, name in enumerate(("/exchange/data", "/exchange/data_dark", "/exchange/data_white")):
            ad.put("cam1:FrameType", number)
            assert ad.text("cam1:FrameType_RBV") == name
        ad.set("cam1:", FrameType=1)
        (dark,) = frames_of(run(det, num=1), det)
    finally:
        AD_setup_FrameType("ad:", scheme="reset")
    assert ad.text("cam1:FrameType_RBV.ONST") == "Background"
    assert dark.max() < 20
    path = AD_full_file_name_local(det.hdf1)
    with h5py.File(path) as file:
        assert np.array_equal(file["entry/data/data"], dark)


def test_each_plugin_that_ad_creator_knows_connects_if_it_is_here(ad):
    from apstools.devices import PLUGIN_DEFAULTS, ad_creator

    here = [
        *("cam", "image", "pva", "attr1", "cc1", "overlay1", "process1", "transform1"),
        *(f"roi{number}" for number in range(1, 5)),
        *(f"stats{number}" for number in range(1, 6)),
    ]
    writers = {"hdf1", "tiff1", "jpeg1"}
    # Absent, because nothing computes them: PVs that pretend are worse than none.
    absent = {"badpix1", "cb1", "cc2", "codec1", "fft1", "gather1", "roistat1", "scatter1", "magick1", "netcdf1"}
    assert {*here, *writers, *absent} == set(PLUGIN_DEFAULTS)
    det = ad_creator("ad:", name="det", plugins=here)
    for name in here:
        getattr(det, name).wait_for_connection(timeout=20)


@pytest.mark.timeout(120)  # a lost one is waited for without end
def test_no_completion_is_lost_at_a_period_of_5_ms(ad, engine):
    """Each acquisition's end is told, once."""
    from bluesky import plans as bp
    from ophyd import SimDetector, SingleTrigger

    class Stock(SingleTrigger, SimDetector):
        pass

    det = Stock("ad:", name="det")
    det.read_attrs = ["cam"]
    det.cam.read_attrs = ["array_counter"]
    det.stage_sigs.update({"cam.acquire_time": 0.001, "cam.acquire_period": 0.005, "cam.num_images": 1})
    engine.documents.clear()
    engine(bp.count([det], num=100))
    counters = [document["data"]["det_cam_array_counter"] for name, document in engine.documents if name == "event"]
    assert counters == list(range(1, 101))
