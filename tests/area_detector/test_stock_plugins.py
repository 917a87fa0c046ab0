"""Plugin classes of ophyd, unmodified, on `ad:`: each takes frames through the RunEngine and gives right numbers."""

import pytest
from ophyd.areadetector import plugins

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
        signal.wait_for_connection(timeout=3)
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
