"""`cam1:`: what it acquires, how it counts, and what it refuses."""

import time

import numpy as np
import pytest

from tests.virtual_beamline.conftest import wait_for
from virtual_beamline.area_detector.detector import make_ports
from virtual_beamline.area_detector.image_statistics import centroid, projections
from virtual_beamline.area_detector.ndarray import DATA_TYPES
from virtual_beamline.area_detector.port import Detector
from virtual_beamline.physics import World


@pytest.fixture
def seen(ad):
    """The camera, with frames shown by image1 and no noise."""
    ad.set("image1:", EnableCallbacks=1)
    ad.set("cam1:", Noise=0)
    return ad


def spot(shape=(1024, 1024), center=(400, 300), width=(20, 10), height=100.0):
    """What the documentation says that a peak is: a Gaussian, cut off at 4 sigma."""
    y, x = np.indices(shape)
    dx, dy = x - center[0], y - center[1]
    inside = (abs(dx + 0.5) < 4 * width[0]) & (abs(dy + 0.5) < 4 * width[1])
    return inside * height * np.exp(-((dx / width[0]) ** 2 + (dy / width[1]) ** 2) / 2)


def test_a_put_to_acquire_ends_with_the_acquisition(ad):
    ad.set("cam1:", ImageMode="Multiple", NumImages=3, AcquireTime=0.4, AcquirePeriod=0.5)
    ad.text("cam1:DetectorState_RBV")  # connects
    began = time.monotonic()
    done = ad.start_put("cam1:Acquire", 1)
    ad.wait("cam1:Acquire_RBV", 1)
    assert not done
    ad.wait("cam1:DetectorState_RBV", "Acquire", text=True)
    wait_for(lambda: done)
    assert done[0] - began >= 1.4  # two periods and an exposure
    assert (ad.get("cam1:NumImagesCounter_RBV"), ad.get("cam1:ArrayCounter_RBV")) == (3, 3)
    assert (ad.get("cam1:Acquire_RBV"), ad.get("cam1:Acquire"), ad.get("cam1:AcquireBusy")) == (0, 0, 0)
    assert (ad.text("cam1:DetectorState_RBV"), ad.text("cam1:StatusMessage_RBV")) == ("Idle", "Waiting for acquisition")


def test_single_takes_one_image_and_continuous_goes_on_until_it_is_stopped(ad):
    ad.set("cam1:", ImageMode="Single", NumImages=5)
    ad.acquire()
    assert ad.get("cam1:ArrayCounter_RBV") == 1
    ad.set("cam1:", ImageMode="Continuous", AcquirePeriod=0.05)
    done = ad.start_put("cam1:Acquire", 1)
    wait_for(lambda: ad.get("cam1:NumImagesCounter_RBV") > 20)
    wait_for(lambda: 10 < ad.get("cam1:ArrayRate_RBV") < 25, what="a rate near 20 Hz")
    assert not done
    ad.stop()
    wait_for(lambda: done)
    assert ad.text("cam1:DetectorState_RBV") == "Idle"
    assert ad.get("cam1:ArrayCounter_RBV") == ad.get("cam1:NumImagesCounter_RBV") + 1


def test_a_long_exposure_counts_down_and_can_be_stopped(ad):
    ad.set("cam1:", AcquireTime=100)
    done = ad.start_put("cam1:Acquire", 1)
    first = wait_for(lambda: ad.get("cam1:TimeRemaining_RBV"))
    assert 90 < first <= 100
    wait_for(lambda: 0 < ad.get("cam1:TimeRemaining_RBV") < first)
    ad.stop()
    wait_for(lambda: done)
    assert (ad.text("cam1:DetectorState_RBV"), ad.text("cam1:StatusMessage_RBV")) == ("Aborted", "Acquisition stopped")
    assert (ad.get("cam1:TimeRemaining_RBV"), ad.get("cam1:ArrayCounter_RBV")) == (0, 0)


def test_every_start_is_followed_by_one_end_for_who_monitors_it(ad):
    import epics

    heard = []
    pv = epics.PV("ad:cam1:Acquire_RBV", auto_monitor=True, callback=lambda value, **_: heard.append(value))
    wait_for(lambda: heard == [0])
    for _ in range(30):
        ad.acquire()
    wait_for(lambda: len(heard) == 61, what=f"60 changes, not {len(heard) - 1}")
    assert heard == [0] + [1, 0] * 30
    pv.disconnect()


@pytest.mark.parametrize("data_type", DATA_TYPES)
def test_the_pixels_are_right_in_each_data_type(seen, data_type):
    seen.set("cam1:", DataType=data_type, Offset=3)
    seen.acquire()
    dtype = np.dtype(data_type.lower())
    assert seen.get("image1:ArraySize_RBV") == 1024 * 1024 * dtype.itemsize
    assert seen.text("image1:DataType_RBV") == data_type
    added = spot() if dtype.kind == "f" else np.trunc(spot())
    np.testing.assert_allclose(seen.frame(), 3 + added, rtol=1e-6)


def test_pixels_saturate(seen):
    seen.set("cam1:", Gain=1000, Offset=40)
    seen.acquire()
    np.testing.assert_array_equal(seen.frame(), np.minimum(40 + np.trunc(spot(height=1000)), 255))


@pytest.mark.parametrize(
    ("color_mode", "shape", "axis"),
    [("RGB1", (1024, 1024, 3), 2), ("RGB2", (1024, 3, 1024), 1), ("RGB3", (3, 1024, 1024), 0)],
)
def test_colors(seen, color_mode, shape, axis):
    seen.set("cam1:", ColorMode=color_mode, GainRed=1, GainGreen=0.5, GainBlue=2)
    # known before the first frame
    assert tuple(seen.get(f"image1:ArraySize{n}_RBV") for n in (2, 1, 0)) == shape
    seen.acquire()
    seen.set("cam1:", GainRed=1, GainGreen=1, GainBlue=1)
    frame = seen.frame(*shape)
    for color, gain in enumerate((1, 0.5, 2)):
        np.testing.assert_array_equal(frame.take(color, axis), np.trunc(spot(height=100 * gain)))
    assert (seen.text("image1:ColorMode_RBV"), seen.get("image1:ArraySizeZ_RBV")) == (color_mode, 3)


def test_a_region_binned_and_mirrored(seen):
    seen.set("cam1:", DataType="UInt16", MinX=300, SizeX=201, MinY=200, SizeY=150, BinX=2, BinY=3, ReverseX=1)
    assert (seen.get("HDF1:ArraySize0_RBV"), seen.get("HDF1:ArraySize1_RBV")) == (100, 50)  # before it is taken
    seen.acquire()
    region = np.trunc(spot())[200:350, 300:500]
    binned = region.reshape(50, 3, 100, 2).sum((1, 3))
    np.testing.assert_array_equal(seen.frame(50, 100), binned[:, ::-1])


def test_a_region_beyond_the_sensor_is_cut(ad):
    ad.set("cam1:", MinX=1000, SizeX=500, BinY=0)
    assert [ad.get(f"cam1:{name}_RBV") for name in ("MinX", "SizeX", "BinY")] == [1000, 24, 1]


def test_the_linear_ramp_goes_on_from_image_to_image(seen):
    seen.set("cam1:", SimMode="LinearRamp", Gain=2, GainX=3, GainY=5, AcquireTime=0.001, Reset=1)
    y, x = np.indices((1024, 1024))
    for number in range(3):
        seen.acquire()
        np.testing.assert_array_equal(seen.frame(), (2 * (3 * x + 5 * y) + 2 * number) % 256)
    seen.put("cam1:Reset", 1)
    seen.acquire()
    assert seen.frame()[0, 0] == 0
    assert seen.get("cam1:Reset_RBV") == 0


def test_sines(seen):
    seen.set("cam1:", SimMode="Sine", DataType="Float64", Gain=1, XSine1Amplitude=10, XSine1Frequency=2, XSine1Phase=90)
    seen.set("cam1:", XSine2Amplitude=1, XSine2Frequency=4, XSineOperation="Multiply", YSine1Amplitude=0)
    seen.set("cam1:", YSine2Amplitude=5, YSine2Frequency=1, YSine2Phase=0, YSineOperation="Add", Reset=1)
    seen.acquire()
    t = np.arange(1024) / 1024 * 2 * np.pi
    expected = 5 * np.sin(t)[:, None] + 10 * np.cos(2 * t) * np.sin(4 * t)
    np.testing.assert_allclose(seen.frame(), expected, atol=1e-9)


def test_offset_and_noise_and_dark_and_flat_frames(seen):
    seen.set("cam1:", DataType="Float64", Offset=20, Noise=4, SimMode="Offset&Noise")
    seen.acquire()
    dark = seen.frame()
    assert (dark.min() >= 20, dark.max() <= 24, dark.mean()) == (True, True, pytest.approx(22, abs=0.02))
    seen.set("cam1:", SimMode="Peaks", FrameType="Background")
    seen.acquire()
    assert seen.frame().max() <= 24  # of singles, which round
    assert not np.array_equal(seen.frame(), dark)  # other noise
    seen.set("cam1:", FrameType="FlatField")
    seen.acquire()
    flat = seen.frame()
    assert (flat.min() >= 120, flat.max() <= 124) == (True, True)


def test_each_frame_has_noise_of_its_own(seen):
    seen.set("cam1:", Noise=12)
    frames = []
    for _ in range(6):
        seen.acquire()
        frames.append(seen.frame())
    totals = [int(frame.sum(dtype=np.int64)) for frame in frames]
    assert len({frame.tobytes() for frame in frames}) == 6
    # Of independent pixels, uniform from 0 to 11; parts of the noise are shared.
    sigma = np.sqrt((12**2 - 1) / 12 * frames[0].size)
    assert np.ptp(totals) < 8 * sigma
    shared = np.corrcoef([frame[600:, 600:].reshape(-1) for frame in frames])
    assert np.abs(shared[~np.eye(6, dtype=bool)]).max() < 0.05


def test_dark_and_flat_frames_show_how_the_pixels_differ_and_free_an_image_of_it(seen):
    seen.set("cam1:", DataType="Float64", FixedPattern=1)
    frames = {}
    for kind in ("Background", "FlatField", "Normal"):
        seen.set("cam1:", FrameType=kind)
        seen.acquire()
        frames[kind] = seen.frame()
    dark, flat, image = frames["Background"], frames["FlatField"], frames["Normal"]
    assert (dark[0, -1], dark[512, 512]) == (pytest.approx(12, abs=0.1), 0)
    light = flat - dark
    assert 0.01 < light[400:600, 400:600].std() / 100 < 0.1
    assert light[:50, :50].mean() < 0.95 * light[400:600, 400:600].mean()
    assert np.abs(image - spot()).max() > 1
    np.testing.assert_allclose((image - dark) / light * 100, spot(), atol=1e-9)
    seen.acquire()
    np.testing.assert_array_equal(seen.frame(), image)  # the same in each one


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_centroid_of_a_world_s_spot_is_right_without_setting_anything(seed):
    detector = Detector("ad:")
    make_ports(detector, World(seed))
    image = detector.ports["SIM1"].take_image().data
    found = centroid(projections(image, detector.ports["STATS1"]["CentroidThreshold"]))
    assert (found.x, found.y) == pytest.approx(World(seed).spot.center, abs=2)


def test_a_grid_of_peaks_of_varied_heights(seen):
    seen.set("cam1:", PeakStartX=100, PeakStepX=300, PeakNumX=3, PeakStartY=200, PeakStepY=500, PeakNumY=2)
    seen.set("cam1:", PeakVariation=50, DataType="Float64")
    seen.acquire()
    heights = seen.frame()[200:701:500, 100:701:300]
    assert heights.shape == (2, 3)
    assert ((heights >= 101) & (heights <= 150)).all()
    assert len(np.unique(heights)) > 1


def test_exposures_are_added_up(seen):
    seen.set("cam1:", NumExposures=3, DataType="UInt16")
    seen.acquire()
    np.testing.assert_array_equal(seen.frame(), 3 * np.trunc(spot()))
    assert seen.get("cam1:NumExposuresCounter_RBV") == 3


def test_external_triggers_are_waited_for(ad):
    ad.set("cam1:", TriggerMode="External", ImageMode="Multiple", NumImages=2)
    done = ad.start_put("cam1:Acquire", 1)
    for number in (1, 2):
        ad.wait("cam1:DetectorState_RBV", "Waiting", text=True)
        assert ad.get("cam1:ArrayCounter_RBV") == number - 1
        assert not done
        ad.put("cam1:Acquire", 1, wait=False)  # each further one is a trigger
        ad.wait("cam1:ArrayCounter_RBV", number)
    wait_for(lambda: done)


def test_a_trigger_during_another_acquisition_starts_no_exposure_of_the_next(ad):
    ad.set("cam1:", AcquireTime=1)
    done = ad.start_put("cam1:Acquire", 1)
    ad.wait("cam1:DetectorState_RBV", "Acquire", text=True)
    ad.put("cam1:Acquire", 1, wait=False)
    wait_for(lambda: done)
    ad.set("cam1:", TriggerMode="External", AcquireTime=0)
    done = ad.start_put("cam1:Acquire", 1)
    ad.wait("cam1:StatusMessage_RBV", "Waiting for a trigger", text=True)
    ad.stop()
    wait_for(lambda: done)
    assert ad.get("cam1:ArrayCounter_RBV") == 1


def test_a_million_peaks_are_one_image(seen):
    seen.set("cam1:", PeakStartX=0, PeakStepX=1, PeakNumX=1000, Gain=0.02, DataType="Float32")
    seen.set("cam1:", PeakStartY=0, PeakStepY=1, PeakNumY=1000)
    seen.acquire()
    width, height = (seen.get(f"cam1:PeakWidth{axis}_RBV") for axis in "XY")
    assert seen.frame()[500, 500] == pytest.approx(0.02 * 2 * np.pi * width * height, rel=1e-3)


def test_shutters(ad):
    ad.set("cam1:", ShutterMode="Detector output", AcquireTime=1)
    ad.put("cam1:ShutterControl", "Open")
    assert ad.text("cam1:ShutterStatus_RBV") == "Open"
    ad.put("cam1:ShutterControl", "Close")
    done = ad.start_put("cam1:Acquire", 1)
    ad.wait("cam1:ShutterStatus_RBV", "Open", text=True)
    wait_for(lambda: done)
    assert ad.text("cam1:ShutterStatus_RBV") == "Closed"
    ad.set("cam1:", ShutterMode="EPICS PV", AcquireTime=0.5)
    ad.put("cam1:ShutterOpenEPICS.OUT", "ad:cam1:PeakNumX.VAL PP")  # any PV serves as a shutter here
    ad.put("cam1:ShutterOpenEPICS.OCAL", "7")
    ad.acquire()
    assert ad.get("cam1:PeakNumX_RBV") == 7
    ad.put("cam1:ShutterOpenEPICS.OUT", "")


def test_acquire_waits_for_plugins_if_it_shall(ad, images):
    ad.set("HDF1:", EnableCallbacks=1, FileWriteMode="Stream", NumCapture=4, Compression="zlib")
    ad.put("HDF1:Capture", 1, wait=False)
    ad.wait("HDF1:Capture_RBV", 1)
    ad.set("cam1:", ImageMode="Multiple", NumImages=4)
    ad.acquire()
    assert (ad.get("HDF1:NumCaptured_RBV"), ad.get("cam1:NumQueuedArrays"), ad.get("HDF1:QueueFree")) == (4, 0, 20)
    ad.set("HDF1:", Compression="None")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("AcquireTime", float("nan"), "it is no number"),
        ("AcquireTime", -1, "0 to 1e+06 s"),
        ("AcquirePeriod", float("inf"), "0 to 1e+06 s"),
        ("NumImages", 0, "at least 1"),
        ("NumExposures", -3, "at least 1"),
        ("PeakWidthX", 0, "at least 1 pixel"),
        ("PeakNumY", 10_000_000, "0 to 1000 peaks"),
        ("ImageMode", 7, "there are 3 choices"),
    ],
)
def test_bad_values_are_refused_in_one_line_and_the_next_acquisition_works(ad, name, value, why):
    before = ad.get(f"cam1:{name}_RBV")
    ad.put(f"cam1:{name}", value, wait=False)
    wait_for(lambda: ad.text("cam1:StatusMessage_RBV").endswith(f"refused: {why}"))
    assert ad.text("cam1:StatusMessage_RBV").startswith(f"{name} = ")
    assert ad.get(f"cam1:{name}_RBV") == before
    assert ad.text(f"cam1:{name}.SEVR") == "INVALID"
    ad.put(f"cam1:{name}", before)
    ad.acquire()


def test_the_spot_is_of_the_world_and_a_seed_repeats_it():
    assert World(5).spot == World(5).spot != World(6).spot
    for seed in range(50):
        spot_of = World(seed).spot
        assert all(100 <= center <= 900 for center in spot_of.center)
        assert spot_of.height + spot_of.noise < 255
