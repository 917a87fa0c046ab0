"""What all plugins have: queues, switches, connections, attributes; and image1 and Pva1."""

import h5py
import numpy as np
import pytest

from tests.virtual_beamline.conftest import wait_for
from virtual_beamline.area_detector.ndarray import DATA_TYPES
from virtual_beamline.area_detector.port import Detector
from virtual_beamline.area_detector.pva import Pva

XML = """<Attributes>
  <Attribute name="Exposure" type="PARAM" source="AcquireTime" description="s per frame"/>
  <Attribute name="Mode" type="PARAM" source="ImageMode"/>
  <Attribute name="Operator" type="CONST" source="$(WHO=nobody)" datatype="STRING"/>
  <Attribute name="Gain" type="EPICS_PV" source="ad:cam1:Gain_RBV" dbrtype="DBR_NATIVE"/>
</Attributes>"""


def take(ad, count, period=0.001):
    ad.set("cam1:", ImageMode="Multiple", NumImages=count, AcquireTime=0, AcquirePeriod=period)
    ad.acquire()


def frames_come(ad, count):
    number = ad.get("cam1:ArrayCounter_RBV")
    wait_for(lambda: ad.get("cam1:ArrayCounter_RBV") > number + count)


def test_a_disabled_plugin_gets_nothing_and_an_enabled_one_all(ad):
    take(ad, 3)
    assert ad.get("image1:ArrayCounter_RBV") == 0
    ad.set("image1:", EnableCallbacks=1)
    take(ad, 3)
    assert ad.get("image1:ArrayCounter_RBV") == 3
    assert ad.get("image1:UniqueId_RBV") == ad.get("cam1:ArrayCounter_RBV") == 6
    assert ad.get("image1:TimeStamp_RBV") == ad.get("cam1:TimeStamp_RBV")
    seconds, nanoseconds = ad.get("image1:EpicsTSSec_RBV"), ad.get("image1:EpicsTSNsec_RBV")
    assert seconds + 631152000 + nanoseconds * 1e-9 == pytest.approx(ad.get("image1:TimeStamp_RBV"), abs=1e-6)
    ad.set("cam1:", ArrayCallbacks=0)
    take(ad, 2)
    assert ad.get("image1:ArrayCounter_RBV") == 3


def test_sizes_are_known_before_a_frame_even_by_disabled_plugins(ad):
    ad.set("cam1:", SizeX=640, SizeY=480, DataType="Int32", ColorMode="RGB1")
    for plugin in ("image1", "Pva1", "HDF1", "TIFF1", "JPEG1"):
        assert [ad.get(f"{plugin}:ArraySize{n}_RBV") for n in range(4)] == [3, 640, 480, 0]
        assert list(ad.get(f"{plugin}:Dimensions_RBV")) == [3, 640, 480]
        assert (ad.get(f"{plugin}:NDimensions_RBV"), ad.text(f"{plugin}:DataType_RBV")) == (3, "Int32")


def test_a_full_queue_drops_and_says_so(ad, images):
    ad.set("HDF1:", EnableCallbacks=1, QueueSize=2, FileWriteMode="Stream", NumCapture=0, Compression="zlib")
    ad.put("HDF1:Capture", 1, wait=False)
    ad.wait("HDF1:Capture_RBV", 1)
    take(ad, 60)  # more than the queue and the writer's own memory hold
    ad.put("HDF1:Capture", 0, wait=False)
    ad.wait("HDF1:Capture_RBV", 0)
    captured, dropped = ad.get("HDF1:NumCaptured_RBV"), ad.get("HDF1:DroppedArrays_RBV")
    assert dropped > 0
    assert captured + dropped == 60
    assert (ad.get("HDF1:QueueFree"), ad.get("HDF1:QueueUse"), ad.get("HDF1:QueueSize_RBV")) == (2, 0, 2)
    ad.set("HDF1:", Compression="None")


def test_with_blocking_callbacks_the_camera_waits_and_nothing_is_dropped(ad, images):
    ad.set("HDF1:", EnableCallbacks=1, QueueSize=1, BlockingCallbacks=1, FileWriteMode="Stream", NumCapture=10)
    ad.set("cam1:", WaitForPlugins=0)
    ad.put("HDF1:Capture", 1, wait=False)
    ad.wait("HDF1:Capture_RBV", 1)
    take(ad, 10)
    assert (ad.get("HDF1:NumCaptured_RBV"), ad.get("HDF1:DroppedArrays_RBV")) == (10, 0)


def test_frames_that_come_too_soon_are_not_taken(ad):
    ad.set("image1:", EnableCallbacks=1, MinCallbackTime=100)
    take(ad, 5)
    assert (ad.get("image1:ArrayCounter_RBV"), ad.get("image1:DroppedArrays_RBV")) in {(1, 0), (0, 0)}
    ad.put("image1:MaxArrayRate", 4)
    ad.wait("image1:MinCallbackTime_RBV", 0.25)
    ad.put("image1:MaxArrayRate", 0)
    ad.wait("image1:MinCallbackTime_RBV", 0)


def test_a_plugin_is_plugged_into_another_one_while_frames_come(ad):
    ad.set("cam1:", ImageMode="Continuous", AcquireTime=0.001, AcquirePeriod=0.01)
    ad.set("image1:", EnableCallbacks=1, ArrayCallbacks=1)
    ad.set("Pva1:", EnableCallbacks=1)
    ad.put("cam1:Acquire", 1, wait=False)
    wait_for(lambda: ad.get("Pva1:ArrayCounter_RBV") > 3)
    ad.put("Pva1:NDArrayPort", "Image1")
    ad.put("image1:EnableCallbacks", 0)
    frames_come(ad, 10)  # what it had still has gone through
    before = wait_for(lambda: ad.get("Pva1:ArrayCounter_RBV"))
    ad.put("Pva1:ArrayCounter", 0)
    frames_come(ad, 10)
    assert ad.get("Pva1:ArrayCounter_RBV") <= 1 < before  # image1 takes none, so it passes none on
    ad.put("image1:EnableCallbacks", 1)
    wait_for(lambda: ad.get("Pva1:ArrayCounter_RBV") > 3)
    ad.stop()


@pytest.mark.parametrize(
    ("plugin", "port", "why"),
    [
        ("image1", "NOSUCH", r"there is no such port \(there are SIM1, Image1, "),
        ("image1", "Image1", "it gets its own arrays from here"),
        ("image1", "PVA1", "it gets its own arrays from here"),
    ],
)
def test_a_port_that_makes_no_sense_is_refused(ad, plugin, port, why):
    ad.put("Pva1:NDArrayPort", "Image1")
    ad.put(f"{plugin}:NDArrayPort", port, wait=False)
    wait_for(lambda: ad.text(f"{plugin}:NDArrayPort.SEVR") == "INVALID")
    assert ad.text(f"{plugin}:NDArrayPort_RBV") == "SIM1"
    ad.put(f"{plugin}:NDArrayPort", "SIM1")
    assert ad.text(f"{plugin}:NDArrayPort.SEVR") == "NO_ALARM"


def test_a_plugin_can_work_on_the_last_frame_again(ad):
    ad.set("image1:", EnableCallbacks=1)
    take(ad, 1)
    ad.put("image1:ProcessPlugin", 1)
    ad.wait("image1:ArrayCounter_RBV", 2)
    assert ad.get("image1:UniqueId_RBV") == 1


def test_output_is_limited_to_a_rate(ad):
    ad.set("image1:", EnableCallbacks=1, ArrayCallbacks=1, MaxByteRate=1_100_000, DroppedOutputArrays=0)
    ad.set("Pva1:", EnableCallbacks=1, NDArrayPort="Image1")
    take(ad, 6)
    passed, dropped = ad.get("Pva1:ArrayCounter_RBV"), ad.get("image1:DroppedOutputArrays_RBV")
    ad.set("image1:", MaxByteRate=0)
    assert (passed >= 1, dropped >= 3, passed + dropped) == (True, True, 6)


def test_attributes_of_an_xml_file_travel_with_the_frames_into_the_file(ad, images):
    file = images / "attributes.xml"
    file.write_text(XML)
    ad.set("cam1:", NDAttributesMacros="WHO=me", NDAttributesFile=str(file), AcquireTime=0.004, Gain=77)
    assert ad.text("cam1:NDAttributesStatus") == "Attributes file OK"
    ad.set("HDF1:", EnableCallbacks=1, AutoSave=1)
    ad.acquire()
    with h5py.File(ad.text("HDF1:FullFileName_RBV")) as written:
        group = written["entry/instrument/NDAttributes"]
        assert (group["Exposure"][0], group["Gain"][0]) == (0.004, 77)
        assert (group["Mode"].asstr()[0], group["Operator"].asstr()[0]) == ("Single", "me")
        assert group["Exposure"].attrs["NDAttrDescription"] == "s per frame"
        assert group["Gain"].attrs["NDAttrSource"] == "ad:cam1:Gain_RBV"
        assert group["NDArrayUniqueId"][0] == ad.get("cam1:ArrayCounter_RBV")
        assert group["NDArrayTimeStamp"][0] == ad.get("cam1:TimeStamp_RBV")
    for text, status in (
        (str(images / "none.xml"), "File not found"),
        ("<Attributes><Attribute", "XML syntax error"),
        ('<Attributes><Attribute name="A" type="CONST" source="$(B)"/></Attributes>', "Macro substitution error"),
        ('<Attributes><Attribute name="A" type="CONST" source="x" datatype="INT"/></Attributes>', "XML syntax error"),
        ('<Attributes><Attribute name="A" type="PARAM" source="Dimensions"/></Attributes>', "Attributes file OK"),
        ("", "Attributes file OK"),
    ):
        ad.put("cam1:NDAttributesFile", text)
        ad.acquire()
        with h5py.File(ad.text("HDF1:FullFileName_RBV")) as written:  # none of them has an attribute
            assert {"A", "Gain"}.isdisjoint(written["entry/instrument/NDAttributes"])
        assert ad.text("cam1:NDAttributesStatus") == status


def test_frames_that_cannot_be_served_over_pvaccess_have_no_name():
    detector = Detector("ad:")
    viewer = Pva(detector, "Pva1:", "PVA1", "SIM1", ("203.0.113.1", 0))  # an address for documentation: no machine's
    viewer.started()
    viewer.write("EnableCallbacks", 1)  # it starts at once
    wait_for(lambda: viewer["PvName"] == "", timeout=30)


@pytest.mark.parametrize("data_type", DATA_TYPES)
def test_frames_over_pvaccess(ad, data_type):
    from p4p.client.thread import Context

    ad.set("Pva1:", EnableCallbacks=1)
    ad.set("image1:", EnableCallbacks=1)
    ad.set("cam1:", DataType=data_type, SizeX=100, SizeY=50, MinX=350, MinY=270, ColorMode="RGB1")
    ad.acquire()
    with Context("pva", nt=False) as context:
        value = context.get("ad:Pva1:Image", timeout=30)
    assert value.getID() == "epics:nt/NTNDArray:1.0"
    pixels = np.asarray(value.value)
    assert pixels.dtype == np.dtype(data_type.lower())
    np.testing.assert_array_equal(pixels, ad.frame(50, 100, 3).reshape(-1))
    assert [each.size for each in value.dimension] == [3, 100, 50]
    assert value.uniqueId == ad.get("cam1:ArrayCounter_RBV")
    assert {each.name: each.value for each in value.attribute} == {"ColorMode": 2}
    stamp = value.timeStamp.secondsPastEpoch + value.timeStamp.nanoseconds * 1e-9
    assert stamp == pytest.approx(ad.get("cam1:TimeStamp_RBV"), abs=1e-5)


def test_the_records_are_served_over_pvaccess_too(ad):
    from p4p.client.thread import Context

    with Context("pva") as context:
        assert context.get("ad:cam1:Model_RBV", timeout=30) == "Basic simulator"
