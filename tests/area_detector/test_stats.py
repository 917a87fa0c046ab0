"""Stats1, its time series, and Attr1, against numpy on the frame that image1 shows."""

import numpy as np
import pytest

from tests.virtual_beamline.conftest import wait_for


@pytest.fixture
def frame(ad, pipe):
    """Take one frame with Stats1 as it boots, and with settings; gives the frame."""

    def take(camera=None, **settings):
        ad.set("cam1:", **(camera or {}))
        pipe("Stats1:", **settings)
        ad.acquire()
        assert ad.get("Stats1:UniqueId_RBV") == ad.get("image1:UniqueId_RBV")
        return ad.frame(*(int(ad.get(f"cam1:ArraySize{axis}_RBV")) for axis in "YX"))

    return take


@pytest.mark.parametrize("dtype", ["UInt8", "Int16", "UInt32", "Float32", "Float64"])
def test_statistics_equal_numpys(ad, frame, dtype):
    image = frame({"DataType": dtype, "SizeX": 700, "Noise": 30}, BgdWidth=3)
    border = image.copy()
    border[3:-3, 3:-3] = np.nan
    y, x = np.unravel_index(image.argmax(), image.shape)
    expected = {
        "MinValue": image.min(),
        "MaxValue": image.max(),
        "MaxX": x,
        "MaxY": y,
        "MeanValue": image.mean(),
        "Sigma": image.std(),
        "Total": image.sum(),
        "Net": image.sum() - np.nanmean(border) * image.size,
    }
    assert {name: ad.get(f"Stats1:{name}_RBV") for name in expected} == pytest.approx(expected)


def test_centroid_of_the_spot(ad, frame):
    image = frame({"PeakStartX": 420, "PeakStartY": 310}, CentroidThreshold=20)
    above = np.where(image >= 20, image, 0)
    y, x = np.indices(image.shape)
    center = [(above * places).sum() / above.sum() for places in (x, y)]
    assert [ad.get(f"Stats1:Centroid{axis}_RBV") for axis in "XY"] == pytest.approx(center)
    assert center == pytest.approx([420, 310], abs=0.5)
    places = zip((x, y), center, strict=True)
    sigma = [np.sqrt((above * (place - mean) ** 2).sum() / above.sum()) for place, mean in places]
    assert [ad.get(f"Stats1:Sigma{axis}_RBV") for axis in "XY"] == pytest.approx(sigma)
    assert ad.get("Stats1:CentroidTotal_RBV") == above.sum()
    assert ad.get("Stats1:Eccentricity_RBV") > 0.2  # PeakWidthX is twice PeakWidthY
    assert ad.get("Stats1:Orientation_RBV") == pytest.approx(0, abs=1)
    ad.set("Stats1:", CentroidThreshold=1000)  # at once, on the last frame
    ad.wait("Stats1:CentroidTotal_RBV", 0)


def test_profiles(ad, frame):
    image = frame(ComputeProfiles=1, CursorX=410, CursorY=290, CentroidThreshold=20)
    above = np.where(image >= 20, image, 0)
    x, y = (round(ad.get(f"Stats1:Centroid{axis}_RBV")) for axis in "XY")
    expected = {
        "AverageX": image.mean(axis=0),
        "AverageY": image.mean(axis=1),
        "ThresholdX": above.mean(axis=0),
        "ThresholdY": above.mean(axis=1),
        "CentroidX": image[y],
        "CentroidY": image[:, x],
        "CursorX": image[290],
        "CursorY": image[:, 410],
    }
    for name, profile in expected.items():
        np.testing.assert_allclose(ad.get(f"Stats1:Profile{name}_RBV"), profile, err_msg=name)
    assert ad.get("Stats1:CursorVal") == image[290, 410]
    assert [ad.get(f"Stats1:ProfileSize{axis}_RBV") for axis in "XY"] == [1024, 1024]
    ad.set("Stats1:", CursorY=5)
    wait_for(lambda: np.array_equal(ad.get("Stats1:ProfileCursorX_RBV"), image[5]), what="profile at the new cursor")


def test_histogram_and_entropy(ad, frame):
    image = frame(ComputeHistogram=1, HistSize=40, HistMin=2, HistMax=52)
    counts, edges = np.histogram(image, 40, (2, 52))
    np.testing.assert_array_equal(ad.get("Stats1:Histogram_RBV"), counts)
    np.testing.assert_allclose(ad.get("Stats1:HistogramX_RBV"), edges[:-1])
    assert ad.get("Stats1:HistBelow_RBV") == (image < 2).sum()
    assert ad.get("Stats1:HistAbove_RBV") == (image > 52).sum()
    filled = counts[counts > 0]
    assert ad.get("Stats1:HistEntropy_RBV") == pytest.approx(-(filled * np.log(filled)).sum() / image.size)


def test_what_is_not_computed_stays(ad, frame):
    frame()
    total = ad.get("Stats1:Total_RBV")
    frame({"Noise": 50}, ComputeStatistics=0)
    assert ad.get("Stats1:Total_RBV") == total
    ad.set("Stats1:", Total=7)  # statistics have setpoints
    assert ad.get("Stats1:Total_RBV") == 7
    ad.set("Stats1:", Reset=1)
    assert [ad.get(f"Stats1:{name}_RBV") for name in ("Total", "CentroidX", "Sigma")] == [0, 0, 0]
    ad.wait("Stats1:Reset", 0)


def test_colors_have_statistics_but_no_centroid(ad, frame):
    pixels = (1024, 1024, 3)
    frame({"ColorMode": "RGB1"})
    image = ad.frame(*pixels)
    y, x, _ = np.unravel_index(image.argmax(), pixels)
    assert ad.get("Stats1:Total_RBV") == image.sum()
    assert [ad.get(f"Stats1:Max{axis}_RBV") for axis in "XY"] == [x, y]


# -- time series -------------------------------------------------------------------------------------------------------


def test_a_time_series_of_fixed_length(ad, frame):
    frame()
    ad.set("Stats1:TS:", TSNumPoints=4, TSAcquireMode="Fixed length", TSAveragingTime=0, TSTimePerPoint=0)
    done = ad.start_put("Stats1:TS:TSAcquire", 1)
    ad.wait("Stats1:TS:TSAcquiring", 1)
    totals, stamps = [], []
    for gain in (60, 70, 80, 90):
        assert not done
        ad.set("cam1:", Gain=gain)
        ad.acquire()
        totals.append(ad.get("Stats1:Total_RBV"))
        stamps.append(ad.get("Stats1:TimeStamp_RBV"))
    wait_for(lambda: done, what="TSAcquire done")  # a put with completion ends with the last point
    np.testing.assert_array_equal(ad.get("Stats1:TSTotal"), totals)
    np.testing.assert_array_equal(ad.get("Stats1:TSTimestamp"), stamps)
    assert len(set(totals)) == 4
    assert (ad.get("Stats1:TS:TSAcquiring"), ad.get("Stats1:TS:TSCurrentPoint")) == (0, 4)
    for name in ("MinValue", "MaxX", "Net", "Sigma", "CentroidX", "SigmaXY", "KurtosisY", "Orientation"):
        assert ad.get(f"Stats1:TS{name}")[-1] == ad.get(f"Stats1:{name}_RBV"), name


def test_a_circular_time_series_keeps_the_last_points_and_averages(ad, frame):
    frame()
    ad.set("Stats1:TS:", TSNumPoints=2, TSAcquireMode="Circ. buffer", TSTimePerPoint=0.1, TSAveragingTime=0.22)
    assert (ad.get("Stats1:TS:TSNumAverage"), ad.get("Stats1:TS:TSAveragingTime_RBV")) == (2, pytest.approx(0.2))
    np.testing.assert_allclose(ad.get("Stats1:TS:TSTimeAxis"), [-0.2, 0])
    ad.put("Stats1:TS:TSAcquire", 1, wait=False)
    ad.wait("Stats1:TS:TSAcquiring", 1)
    totals = []
    for gain in (40, 50, 60, 70, 80, 90):
        ad.set("cam1:", Gain=gain)
        ad.acquire()
        totals.append(ad.get("Stats1:Total_RBV"))
    ad.wait("Stats1:TS:TSCurrentPoint", 1)
    ad.set("Stats1:TS:", TSRead=1)
    np.testing.assert_allclose(ad.get("Stats1:TSTotal"), [np.mean(totals[2:4]), np.mean(totals[4:6])])
    ad.set("Stats1:TS:", TSAcquire=0)
    assert ad.get("Stats1:TS:TSAcquiring") == 0


def test_attributes_have_values_sums_and_a_time_series(ad, pipe):
    pipe("Attr1:", **{"1:AttrName": "NDArrayUniqueId", "2:AttrName": "ColorMode", "3:AttrName": "no such"})
    ad.set("cam1:", ArrayCounter=10)
    ad.set("Attr1:", Reset=1, TSNumPoints=3, TSControl="Erase/Start")
    ad.set("cam1:", ImageMode="Multiple", NumImages=5)
    ad.acquire()
    assert (ad.get("Attr1:1:Value_RBV"), ad.get("Attr1:1:ValueSum_RBV")) == (15, 11 + 12 + 13 + 14 + 15)
    np.testing.assert_array_equal(ad.get("Attr1:1:TSArrayValue"), [11, 12, 13])
    np.testing.assert_array_equal(ad.get("Attr1:3:TSArrayValue"), [np.nan] * 3)
    assert (ad.text("Attr1:TSAcquiring"), ad.get("Attr1:TSCurrentPoint")) == ("Done", 3)
    ad.set("Attr1:", Reset=1)
    assert [ad.get(f"Attr1:{name}") for name in ("1:ValueSum_RBV", "TSCurrentPoint")] == [0, 0]


def test_an_acquisition_ends_when_all_readbacks_are_of_its_frame(ad, pipe):
    pipe("Stats1:", ComputeHistogram=1)
    ad.set("Stats1:", BlockingCallbacks=0)
    ad.set("cam1:", ArrayCounter=0, AcquireTime=0)
    late = []
    for number in range(1, 41):
        ad.set("cam1:", Gain=number)
        ad.acquire()
        seen = [ad.get(f"Stats1:{name}_RBV") for name in ("MaxValue", "UniqueId", "HistEntropy", "ArrayCounter")]
        if seen[1] != number or abs(seen[0] - number) > 12:
            late.append((number, *seen))
    assert not late


def test_a_time_series_of_what_is_no_statistics_ends_at_once(ad, frame):
    frame()
    ad.set("Stats1:TS:", NDArrayAddress=0, TSNumPoints=5, TSAcquireMode="Fixed length")
    done = ad.start_put("Stats1:TS:TSAcquire", 1)
    ad.wait("Stats1:TS:TSAcquiring", 1)
    ad.set("Stats1:", ArrayCallbacks=1)
    ad.acquire()
    wait_for(lambda: done, what="TSAcquire done")
    assert (ad.get("Stats1:TS:TSAcquiring"), ad.get("Stats1:TS:TSCurrentPoint")) == (0, 0)
    assert not ad.put("Stats1:TS:NDArrayAddress", 7) or ad.get("Stats1:TS:NDArrayAddress.SEVR") == 3
    ad.set("Stats1:TS:", NDArrayAddress=1)
