"""ROI1, Proc1, Trans1, CC1 and Over1: what they pass on is what numpy makes of the camera's frame."""

import numpy as np
import pytest

from tests.virtual_beamline.conftest import wait_for

COLOR_AXES = {"RGB1": 2, "RGB2": 1, "RGB3": 0}


@pytest.fixture
def camera_frame(ad):
    """The frame that image1 shows of the camera itself: the settings make it the same each time."""

    def take(*shape, **settings):
        ad.set("cam1:", SimMode="LinearRamp", Gain=1, GainY=3, Noise=0, **settings)
        return frame_of("SIM1", *shape)

    def frame_of(port, *shape):
        ad.set("image1:", NDArrayPort=port, EnableCallbacks=1, BlockingCallbacks=1)
        ad.set("cam1:", Reset=1, SizeX=64, SizeY=48)
        ad.acquire()
        return ad.frame(*shape)

    take.of = frame_of
    return take


# -- ROI ---------------------------------------------------------------------------------------------------------------


def test_roi_cuts_bins_reverses_scales_and_converts(ad, pipe, camera_frame):
    plain = camera_frame(48, 64)
    pipe(
        "ROI1:",
        MinX=3,
        SizeX=41,
        BinX=2,
        ReverseX=1,
        MinY=5,
        SizeY=30,
        BinY=3,
        EnableScale=1,
        Scale=4,
        DataTypeOut="Float32",
    )
    found = camera_frame.of("ROI1", 10, 20)
    part = plain[5:35, 3:43].reshape(10, 3, 20, 2).sum(axis=(1, 3))[:, ::-1] / 4
    np.testing.assert_array_equal(found, part.astype(np.float32))
    sizes = [ad.get(f"ROI1:{name}_RBV") for name in ("ArraySizeX", "ArraySizeY", "MaxSizeX", "MaxSizeY", "ArraySize0")]
    assert sizes == [20, 10, 64, 48, 64]
    assert ad.text("image1:DataType_RBV") == "Float32"


def test_roi_sums_that_are_too_large_become_the_limit(ad, pipe, camera_frame):
    plain = camera_frame(48, 64)
    pipe("ROI1:", BinX=4, BinY=4)
    sums = plain.reshape(12, 4, 16, 4).sum(axis=(1, 3))
    assert sums.max() > 255
    np.testing.assert_array_equal(camera_frame.of("ROI1", 12, 16), np.minimum(sums, 255))


def test_roi_readbacks_tell_how_far_the_array_reaches(ad, pipe, camera_frame):
    camera_frame(48, 64)
    pipe("ROI1:", MinX=60, SizeX=500, BinX=9, MinY=400)
    assert ad.get("ROI1:SizeX_RBV") == 500  # until a frame tells
    camera_frame.of("ROI1", 1, 1)
    names = ("MinX", "SizeX", "BinX", "MinY", "SizeY")
    assert [ad.get(f"ROI1:{name}_RBV") for name in names] == [60, 4, 4, 47, 1]
    ad.set("cam1:", SizeX=1024)  # announced before the next frame
    assert [ad.get(f"ROI1:{name}_RBV") for name in names[:3]] == [60, 500, 9]
    ad.set("ROI1:", MinX=10, AutoSizeX=1)
    ad.acquire()
    assert ad.get("ROI1:SizeX_RBV") == 1014
    ad.set("ROI1:", EnableX=0)
    assert [ad.get(f"ROI1:ArraySize{axis}_RBV") for axis in "XY"] == [1024, 1]
    assert not ad.put("ROI1:BinX", 0) or ad.get("ROI1:BinX.SEVR") == 3
    assert ad.get("ROI1:BinX_RBV") == 9


@pytest.mark.parametrize("mode", COLOR_AXES)
def test_roi_takes_one_color(ad, pipe, camera_frame, mode):
    axis = COLOR_AXES[mode]
    shape = [48, 64]
    shape.insert(axis, 3)
    plain = camera_frame(*shape, ColorMode=mode, GainGreen=2)
    pipe("ROI1:", MinZ=1, SizeZ=1, MinX=8, SizeX=16, CollapseDims=1)
    found = camera_frame.of("ROI1", 48, 16)
    np.testing.assert_array_equal(found, np.take(plain, 1, axis)[:, 8:24])
    assert ad.text("image1:ColorMode_RBV") == "Mono"
    assert ad.get("image1:NDimensions_RBV") == 2


# -- Trans -------------------------------------------------------------------------------------------------------------

TRANSFORMS = {
    "None": lambda image: image,
    "Rot90": lambda image: np.rot90(image, -1),
    "Rot180": lambda image: image[::-1, ::-1],
    "Rot270": np.rot90,
    "Mirror": np.fliplr,
    "Rot90Mirror": lambda image: image.swapaxes(0, 1),
    "Rot180Mirror": np.flipud,
    "Rot270Mirror": lambda image: image.swapaxes(0, 1)[::-1, ::-1],
}


def test_all_transforms(ad, pipe, camera_frame):
    plain = camera_frame(48, 64)
    pipe("Trans1:")
    for name, expected in TRANSFORMS.items():
        ad.set("Trans1:", Type=name)
        shape = expected(plain).shape
        assert (ad.get("image1:ArraySize1_RBV"), ad.get("image1:ArraySize0_RBV")) == shape  # before the first frame
        np.testing.assert_array_equal(camera_frame.of("TRANS1", *shape), expected(plain), err_msg=name)


def test_a_transform_of_colors(ad, pipe, camera_frame):
    plain = camera_frame(48, 3, 64, ColorMode="RGB2", GainRed=2)
    pipe("Trans1:", Type="Rot90")
    found = camera_frame.of("TRANS1", 64, 3, 48)
    np.testing.assert_array_equal(found.swapaxes(1, 2), np.rot90(plain.swapaxes(1, 2), -1))


# -- CC ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["Mono", *COLOR_AXES])
def test_color_modes_convert_into_each_other(ad, pipe, camera_frame, source):
    shape = [48, 64]
    if source != "Mono":
        shape.insert(COLOR_AXES[source], 3)
    plain = camera_frame(*shape, ColorMode=source, GainGreen=2)
    image = np.moveaxis(plain, COLOR_AXES[source], 2) if source != "Mono" else np.stack([plain] * 3, axis=2)
    pipe("CC1:")
    for target in ("Mono", *COLOR_AXES):
        ad.set("CC1:", ColorModeOut=target)
        expected = np.floor(image.mean(axis=2)) if target == "Mono" else np.moveaxis(image, 2, COLOR_AXES[target])
        np.testing.assert_array_equal(camera_frame.of("CC1", *expected.shape), expected, err_msg=target)
        assert ad.text("image1:ColorMode_RBV") == target


def test_false_colors_tell_all_intensities_apart(ad, pipe, camera_frame):
    plain = camera_frame(48, 64)
    for name in ("Rainbow", "Iron"):
        pipe("CC1:", ColorModeOut="RGB1", FalseColor=name)
        found = camera_frame.of("CC1", 48, 64, 3)
        assert len(np.unique(found.reshape(-1, 3), axis=0)) == len(np.unique(plain))
        assert not found[plain == 0].any()
    brightness = [found[plain == value].sum() for value in (20, 60, 100, 140, 180)]  # of Iron: brighter is brighter
    counts = [(plain == value).sum() for value in (20, 60, 100, 140, 180)]
    assert np.all(np.diff(np.divide(brightness, counts)) > 0)


# -- Proc --------------------------------------------------------------------------------------------------------------


def test_background_and_flat_field(ad, pipe, camera_frame):
    ad.set("cam1:", ImageMode="Single", SizeX=64, SizeY=48, Noise=0, Gain=100, FrameType="Background", Offset=20)
    pipe("Proc1:", DataTypeOut="Float64")
    assert ad.text("Proc1:ValidBackground_RBV") == "Invalid"
    ad.acquire()
    dark = ad.frame(48, 64)
    ad.set("Proc1:", SaveBackground=1)
    ad.wait("Proc1:SaveBackground", 0)
    assert ad.text("Proc1:ValidBackground_RBV") == "Valid"
    ad.set("Proc1:", EnableBackground=1)
    ad.set("cam1:", SimMode="LinearRamp", FrameType="Normal", Gain=1, GainY=2, Reset=1)
    ad.acquire()
    flat = ad.frame(48, 64)
    ad.set("Proc1:", SaveFlatField=1)
    ad.set("Proc1:", EnableFlatField=1, ScaleFlatField=50)
    ad.set("cam1:", GainX=3, Reset=1)
    ad.acquire()
    found = ad.frame(48, 64)
    ad.set("Proc1:", EnableBackground=0, EnableFlatField=0)
    ad.set("cam1:", Reset=1)
    ad.acquire()
    raw = ad.frame(48, 64)
    assert np.ptp(dark) == 0
    assert dark[0, 0] == 20
    safe = np.where(flat == 0, 1, flat)
    np.testing.assert_allclose(found, np.where(flat == 0, 50, (raw - dark) / safe * 50))
    assert (flat == 0).any()
    ad.set("cam1:", SizeX=32)
    ad.acquire()
    assert ad.text("Proc1:ValidBackground_RBV") == "Invalid"


def test_offset_scale_and_clips(ad, pipe, camera_frame):
    plain = camera_frame(48, 64)
    pipe(
        "Proc1:",
        DataTypeOut="Float64",
        EnableOffsetScale=1,
        Offset=-10,
        Scale=2.5,
        EnableLowClip=1,
        LowClip=0,
        EnableHighClip=1,
        HighClip=300,
    )
    np.testing.assert_allclose(camera_frame.of("PROC1", 48, 64), np.clip((plain - 10) * 2.5, 0, 300))


def test_automatic_offset_and_scale_fill_the_output(ad, pipe, camera_frame):
    camera_frame(48, 64, DataType="UInt16")
    pipe("Proc1:", DataTypeOut="UInt8")
    done = ad.start_put("Proc1:AutoOffsetScale", 1)
    camera_frame.of("PROC1", 48, 64)
    wait_for(lambda: done, what="AutoOffsetScale done")
    found = camera_frame.of("PROC1", 48, 64)
    assert (found.min(), found.max()) == (0, 255)
    assert ad.text("Proc1:EnableOffsetScale") == "Enable"


FILTERS = {
    "RecursiveAve": lambda frames: [sum(frames[: n + 1]) / (n + 1) for n in range(len(frames))],
    "Average": lambda frames: [sum(frames[: n + 1]) / 4 for n in range(len(frames))],
    "Sum": lambda frames: [sum(frames[: n + 1]) for n in range(len(frames))],
    "Difference": lambda frames: [frames[max(0, n)] - frames[max(0, n - 1)] for n in range(len(frames))],
    "RecursiveAveDiff": lambda frames: [
        frames[n] - (sum(frames[:n]) / n if n else frames[0]) for n in range(len(frames))
    ],
    "CopyToFilter": lambda frames: frames,
}


def test_all_filters(ad, pipe, camera_frame):
    first = camera_frame(48, 64)
    frames = [(first + n) % 256 for n in range(4)]  # the ramp rises by 1 from frame to frame
    pipe("Proc1:", EnableFilter=1, NumFilter=4, DataTypeOut="Float64")
    for name, expected in FILTERS.items():
        ad.set("Proc1:", FilterType=name, ResetFilter=1)
        ad.set("cam1:", Reset=1)
        for number, each in enumerate(expected(frames), start=1):
            ad.acquire()
            np.testing.assert_allclose(ad.frame(48, 64), each, atol=1e-9, err_msg=f"{name} {number}")
            assert ad.get("Proc1:NumFiltered_RBV") == number
    assert ad.get("Proc1:NumFilterRecip") == 0.25


def test_sums_of_n_arrays_begin_again_and_only_the_last_is_passed_on(ad, pipe, camera_frame):
    first = camera_frame(48, 64)
    pipe("Proc1:", EnableFilter=1, NumFilter=3, DataTypeOut="Float64", FilterType="Sum")
    ad.set("Proc1:", AutoResetFilter=1, FilterCallbacks="Array N only")
    ad.set("image1:", ArrayCounter=0)
    ad.set("cam1:", Reset=1, ImageMode="Multiple", NumImages=6)
    ad.acquire()
    assert ad.get("image1:ArrayCounter_RBV") == 2
    np.testing.assert_allclose(ad.frame(48, 64), sum((first + n) % 256 for n in (3, 4, 5)))


# -- Over --------------------------------------------------------------------------------------------------------------


def overlay(ad, number, **settings):
    ad.set(f"Over1:{number}:", **settings, Use=1)


def test_shapes_are_drawn_where_they_are_wanted(ad, pipe, camera_frame):
    plain = camera_frame(48, 64)
    pipe("Over1:")
    overlay(ad, 1, Shape="Rectangle", PositionX=10, PositionY=5, SizeX=20, SizeY=10, WidthX=2, WidthY=1, Green=200)
    expected = plain.copy()
    expected[5:16, 10:31] = 200
    expected[6:15, 12:29] = plain[6:15, 12:29]
    np.testing.assert_array_equal(camera_frame.of("OVER1", 48, 64), expected)
    overlay(ad, 1, Shape="Cross", CenterX=30, CenterY=20, SizeX=20, SizeY=10, WidthX=1, WidthY=1, DrawMode="XOR")
    expected = plain.astype(np.int64)
    expected[20, 20:41] ^= 200
    expected[[15, 16, 17, 18, 19, 21, 22, 23, 24, 25], 30] ^= 200
    np.testing.assert_array_equal(camera_frame.of("OVER1", 48, 64), expected)
    assert [ad.get(f"Over1:1:{name}") for name in ("PositionX", "PositionX_RBV", "PositionY_RBV")] == [20, 20, 15]
    overlay(ad, 1, Shape="Ellipse", DrawMode="Set", Green=255, SizeX=40, SizeY=20)
    drawn = camera_frame.of("OVER1", 48, 64) != plain
    assert drawn[20, [10, 50]].all()
    assert drawn[[10, 30], 30].all()
    assert not drawn[20, 12:49].any()
    assert not drawn[12:29, 30].any()
    assert [ad.get(f"Over1:{name}_RBV") for name in ("MaxSizeX", "MaxSizeY")] == [64, 48]


def test_a_shape_across_the_edge_and_colors(ad, pipe, camera_frame):
    plain = camera_frame(48, 64, 3, ColorMode="RGB1")
    pipe("Over1:")
    overlay(
        ad, 2, Shape="Rectangle", DrawMode="Set", PositionX=-5, PositionY=40, SizeX=10, SizeY=30, WidthX=9, WidthY=9
    )
    overlay(ad, 2, Red=1, Green=2, Blue=300)
    found = camera_frame.of("OVER1", 48, 64, 3)
    assert (found[40:, :6] == (1, 2, 255)).all()  # beyond the limit of the type: the limit
    np.testing.assert_array_equal(found[:, 6:], plain[:, 6:])


def test_text_is_written_with_the_time_of_the_frame(ad, pipe, camera_frame):
    camera_frame(48, 64)
    pipe("Over1:")
    base = {"Shape": "Text", "PositionX": 2, "PositionY": 3, "SizeX": 60, "SizeY": 20, "DrawMode": "Set", "Green": 255}
    overlay(ad, 8, **base, DisplayText="HI", TimeStampFormat="")
    plain = camera_frame.of("SIM1", 48, 64)
    drawn = camera_frame.of("OVER1", 48, 64) != plain
    ys, xs = np.nonzero(drawn)
    assert 2 <= xs.min()
    assert xs.max() < 2 + 2 * 6
    assert 3 <= ys.min()
    assert ys.max() < 3 + 13
    overlay(ad, 8, Font="9x15 Bold")
    assert (camera_frame.of("OVER1", 48, 64) != plain).sum() > drawn.sum()
    overlay(ad, 8, DisplayText="", TimeStampFormat="%S.%03f")
    assert (camera_frame.of("OVER1", 48, 64) != plain)[:, 2 + 4 * 9 :].any()  # six characters


def test_a_link_moves_an_overlay(ad, pipe, camera_frame):
    camera_frame(48, 64)
    pipe("Over1:", "Stats1:")
    ad.put("Over1:3:PositionXLink.DOL", "ad:ROI1:MinY_RBV CP")
    ad.set("ROI1:", MinY=17)
    ad.wait("Over1:3:PositionX_RBV", 17)
    ad.set("ROI1:", MinY=11)
    ad.wait("Over1:3:PositionX_RBV", 11)
    ad.put("Over1:3:PositionXLink.DOL", "")


def test_what_is_no_image_goes_through(ad, pipe, camera_frame):
    plain = camera_frame(48, 64, 3, ColorMode="RGB1", GainBlue=2)
    pipe("ROI1:", MinZ=2, SizeZ=1)  # of shape (48, 64, 1)
    for number, prefix in enumerate(("Trans1:", "CC1:", "Over1:")):
        source = ("ROI1", "TRANS1", "CC1")[number]
        ad.set(prefix, NDArrayPort=source, EnableCallbacks=1, BlockingCallbacks=1, ArrayCallbacks=1)
    ad.set("Trans1:", Type="Rot90")
    ad.set("CC1:", ColorModeOut="RGB3")
    overlay(ad, 1, Shape="Rectangle", PositionX=0, PositionY=0, SizeX=9, SizeY=9)
    np.testing.assert_array_equal(camera_frame.of("OVER1", 48, 64), plain[..., 2])
