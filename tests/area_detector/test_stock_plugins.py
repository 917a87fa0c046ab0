"""Plugin classes of ophyd, unmodified, on `ad:`: each takes frames through the RunEngine and gives right numbers."""

import numpy as np
import pytest
from ophyd.areadetector import plugins

pytestmark = pytest.mark.usefixtures("patient_ophyd")

# Signals whose PVs are not served: parts of ADCore's databases and of asyn that do nothing for a client, or that ADCore
# of today has no more. All others of a class connect.
BASE = {
    *("asyn_io", "dim_sa", "dim0_sa", "dim1_sa", "dim2_sa", "array_size_all", "max_array_rate_cout"),
    *("pool_free_buffers", "pool_max_buffers", "pool_used_buffers", "empty_free_list", "num_queued_arrays"),
    *("queue_free_low", "queue_use_high", "queue_use_hihi"),
    # one thread for each plugin, so arrays are always in order
    *("disordered_arrays", "max_threads", "num_threads"),
    *("sort_free", "sort_free_low", "sort_mode", "sort_size", "sort_time"),
}
LIMITS = {"max_size_x", "max_size_y", "set_xhopr", "set_yhopr", "set_hopr"}  # they set the display limits of others
OLD_SERIES = {"ts_acquiring", "ts_control", "ts_current_point", "ts_num_points", "ts_read"}  # until ADCore 3.3
OLD_TRANSFORMS = {  # four transforms in a row, until ADCore 2.1
    *("name_", "origin_location", "t1_max_size", "t2_max_size", "t3_max_size", "t4_max_size", "types"),
    *("array_size", "width", "height", "depth"),
}
SEQUENCES = {
    *("average_seq", "copy_to_filter_seq", "difference_seq", "filter_type_seq", "recursive_ave_diff_seq"),
    *("recursive_ave_seq", "sum_seq", "port_backup", "read_background_tiff_seq", "read_flat_field_tiff_seq"),
}
CLASSES = [
    ("ROI1:", "ROIPlugin", LIMITS | {"max_xy"}),
    ("ROI1:", "ROIPlugin_V34", LIMITS | {"max_xy"}),
    ("Stats1:", "StatsPlugin", LIMITS | OLD_SERIES | {"max_size"}),
    ("Stats1:", "StatsPlugin_V34", LIMITS | {"max_size", "resets"}),
    ("Proc1:", "ProcessPlugin", SEQUENCES),
    ("Proc1:", "ProcessPlugin_V34", SEQUENCES),
    ("Trans1:", "TransformPlugin", OLD_TRANSFORMS),
    ("Trans1:", "TransformPlugin_V34", set()),
    ("CC1:", "ColorConvPlugin", set()),
    ("CC1:", "ColorConvPlugin_V34", set()),
    ("Over1:", "OverlayPlugin", LIMITS),
    ("Over1:", "OverlayPlugin_V34", LIMITS),
    ("Attr1:", "AttributePlugin_V34", set()),
    ("Stats1:TS:", "TimeSeriesPlugin_V34", set()),
]


def connects(signal):
    try:
        signal.wait_for_connection(timeout=30)
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(("prefix", "name", "absent"), CLASSES, ids=[name for _, name, _ in CLASSES])
def test_all_signals_connect_but_those_that_are_not_served(ad, monkeypatch, prefix, name, absent):
    monkeypatch.setattr("ophyd.Device.lazy_wait_for_connection", False)
    device = getattr(plugins, name)(f"ad:{prefix}", name="plugin")
    signals = {walk.dotted_name: walk.item for walk in device.walk_signals(include_lazy=True)}
    expected = {name for name in signals if not (BASE | absent).intersection(name.split("."))}
    assert len(expected) > 20
    assert not {name for name in expected if not connects(signals[name])}
    assert not {name for name in signals.keys() - expected if signals[name].connected}


# -- frames through the RunEngine --------------------------------------------------------------------------------------


def detector_with(cam="SimDetectorCam", **components):
    """A detector of stock classes that shows the image of its last plugin."""
    import ophyd
    from ophyd import ADComponent, DetectorBase, SingleTrigger

    namespace = {"cam": ADComponent(getattr(ophyd, cam), "cam1:")}
    for attribute, (name, prefix) in components.items():
        namespace[attribute] = ADComponent(getattr(plugins, name), prefix)
    det = type("Stock", (SingleTrigger, DetectorBase), namespace)("ad:", name="det")
    det.stage_sigs["cam.num_images"] = 1
    source = det.cam
    for attribute in components:
        plugin = getattr(det, attribute)
        plugin.read_attrs = []
        plugin.nd_array_port.set(source.port_name.get()).wait(10)
        ad_callbacks = f"{plugin.prefix}ArrayCallbacks"
        epics_put(ad_callbacks, 1)
        source = plugin
    det.validate_asyn_ports()
    return det


def epics_put(pv, value):
    import epics

    assert epics.caput(pv, value, wait=True, timeout=10) == 1


@pytest.fixture
def count(ad):
    """Count a detector of stock classes; gives the data of the events."""
    from bluesky import RunEngine
    from bluesky import plans as bp

    engine = RunEngine({})

    def run(detector, num=2):
        events = []
        engine(bp.count([detector], num=num), {"event": lambda _, document: events.append(document["data"])})
        return events

    yield run
    for prefix in ("ROI1:", "Stats1:", "Proc1:", "Trans1:", "CC1:", "Over1:", "image1:"):
        ad.set(prefix, NDArrayPort="SIM1", EnableCallbacks=0, BlockingCallbacks=0)


def image_of(ad, det):
    """The frame of the last event; it went through all plugins."""
    assert det.image.unique_id.get() == det.cam.array_counter.get()
    sizes = [int(ad.get(f"image1:ArraySize{number}_RBV")) for number in (2, 1, 0)]
    return ad.frame(*(size for size in sizes if size))


VERSIONS = pytest.mark.parametrize("version", ["", "_V34"])


@VERSIONS
def test_roi_and_stats_in_a_row(ad, pipe, count, version):
    pipe("ROI1:")
    pipe("Stats1:")
    det = detector_with(
        roi1=(f"ROIPlugin{version}", "ROI1:"),
        stats1=(f"StatsPlugin{version}", "Stats1:"),
        image=(f"ImagePlugin{version}", "image1:"),
    )
    det.roi1.set({"x": (380, 41), "y": (290, 21)}).wait(10)
    det.roi1.data_type_out.set("UInt16").wait(10)
    det.stats1.stage_sigs["compute_profiles"] = "Yes"
    det.read_attrs = ["stats1"]
    sigma = "sigma_readout" if version else "sigma"
    det.stats1.read_attrs = ["total", "mean_value", sigma, "centroid.x", "profile_average.x"]
    events = count(det)
    image = image_of(ad, det)
    assert image.shape == (21, 41)
    assert (det.roi1.array_size_xyz.get() if version else det.roi1.array_size.get()[::-1]) == (41, 21, 0)
    found = events[-1]
    assert found["det_stats1_total"] == image.sum()
    assert found["det_stats1_mean_value"] == pytest.approx(image.mean())
    assert found[f"det_stats1_{sigma}"] == pytest.approx(image.std())
    assert found["det_stats1_centroid_x"] == pytest.approx(
        np.average(np.arange(41), weights=np.where(image >= 1, image, 0).sum(axis=0))
    )
    np.testing.assert_allclose(found["det_stats1_profile_average_x"], image.mean(axis=0))


@VERSIONS
def test_process_transform_color_and_overlay_in_a_row(ad, pipe, count, version):
    for prefix in ("Proc1:", "Trans1:", "CC1:", "Over1:"):
        pipe(prefix)
    ad.set("cam1:", SizeX=200, SizeY=100, PeakStartX=150, PeakStartY=40)
    det = detector_with(
        proc1=(f"ProcessPlugin{version}", "Proc1:"),
        trans1=(f"TransformPlugin{version}", "Trans1:"),
        cc1=(f"ColorConvPlugin{version}", "CC1:"),
        over1=(f"OverlayPlugin{version}", "Over1:"),
        image=(f"ImagePlugin{version}", "image1:"),
    )
    det.proc1.stage_sigs.update({"enable_offset_scale": "Enable", "scale": 2.0, "offset": 5.0})
    if version:
        det.trans1.type_.set("Rot90").wait(10)
    else:  # the class knows the transform plugin of ADCore before 2.1
        ad.set("Trans1:", Type="Rot90")
    ad.set("CC1:", ColorModeOut="RGB1")
    mark = det.over1.overlay_1
    for name, value in {"use": 1, "shape": 1, "position_x": 3, "position_y": 4, "size_x": 5, "size_y": 5}.items():
        getattr(mark, name).set(value).wait(10)
    for name, value in {"red": 0, "green": 255, "blue": 7}.items():
        getattr(mark, name).set(value).wait(10)
    count(det)
    image = image_of(ad, det)
    assert image.shape == (200, 100, 3)
    assert tuple(image[4, 3]) == (0, 255, 7)
    y, x = np.unravel_index(image[20:, :, 0].argmax(), (180, 100))
    assert (x, y + 20) == (pytest.approx(99 - 40, abs=8), pytest.approx(150, abs=8))  # turned clockwise
    assert image[20:].max() == pytest.approx((105 + 5) * 2, abs=15)
    assert image[20:].min() >= 10


def test_what_ad_creator_picks(ad, pipe, count):
    from apstools.devices import ad_creator

    for prefix in ("ROI1:", "Stats1:", "Proc1:", "Trans1:", "CC1:", "Over1:"):
        pipe(prefix)
    names = ["roi1", "stats1", "process1", "transform1", "cc1", "overlay1", "image"]
    for prefix in ("ROI1:", "Stats1:", "Proc1:", "Trans1:", "CC1:", "Over1:", "image1:"):
        ad.set(prefix, NDArrayPort="SIM1")
    det = ad_creator("ad:", name="det", plugins=["cam", *names])
    for name in names:
        getattr(det, name).read_attrs = []
    det.read_attrs = ["stats1"]
    det.stats1.read_attrs = ["total", "max_value"]
    det.cam.stage_sigs["num_images"] = 1
    events = count(det)
    image = image_of(ad, det)
    assert (events[-1]["det_stats1_total"], events[-1]["det_stats1_max_value"]) == (image.sum(), image.max())
    for name in names:
        assert getattr(det, name).unique_id.get() == det.cam.array_counter.get(), name
