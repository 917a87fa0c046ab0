"""Stock device classes of ophyd and apstools, unmodified, on the scaler record."""

from __future__ import annotations

import pytest

from tests.virtual_beamline.conftest import DEADLINE, wait_for
from tests.virtual_beamline.test_scaler import NAMES, scaler  # noqa: F401  (a fixture)


@pytest.fixture
def counter(scaler):  # noqa: F811  (the fixture above)
    from ophyd.scaler import ScalerCH

    device = ScalerCH(f"{scaler.client.prefix}scaler1", name="scaler1")
    device.wait_for_connection(timeout=DEADLINE)
    return device


@pytest.fixture
def epics_scaler(scaler):  # noqa: F811
    from ophyd import EpicsScaler

    device = EpicsScaler(f"{scaler.client.prefix}scaler1", name="scaler")
    device.wait_for_connection(timeout=DEADLINE)
    return device


def count(device, timeout=20):
    device.stage()
    try:
        device.trigger().wait(timeout)
        return {name: reading["value"] for name, reading in device.read().items()}
    finally:
        device.unstage()


def test_scaler_ch_takes_the_names_of_the_channels(counter):
    counter.select_channels()
    assert [name for name in counter.read() if name != "scaler1_time"] == NAMES
    assert {*counter.hints["fields"]} == {*NAMES}


def test_scaler_ch_counts(counter):
    counter.select_channels(["I0", "diode"])
    counter.preset_time.put(0.25, wait=True)
    data = count(counter)
    assert data.keys() == {"I0", "diode", "scaler1_time"}
    assert data["scaler1_time"] == 0.25
    assert data["I0"] == pytest.approx(1250, abs=250)
    counter.select_channels()
    assert count(counter)["timebase"] == 2_500_000


def test_scaler_ch_refuses_a_channel_that_has_no_such_name(counter):
    with pytest.raises(RuntimeError, match="nonsense is not configured"):
        counter.select_channels(["nonsense"])


def test_scaler_ch_stops_at_the_preset_of_a_channel(counter):
    counter.select_channels()
    counter.preset_time.put(20, wait=True)
    counter.channels.chan02.preset.put(1000, wait=True)
    assert counter.channels.chan02.gate.get() == "Y"
    data = count(counter)
    assert data["I0"] == 1000
    assert data["scaler1_time"] == pytest.approx(0.2, abs=0.06)


def test_staging_ends_background_counting_only_for_epics_scaler(epics_scaler):
    epics_scaler.count_mode.put("AutoCount", wait=True)
    wait_for(lambda: epics_scaler.count_mode.get() == "AutoCount")
    epics_scaler.preset_time.put(0.1, wait=True)
    count(epics_scaler)
    wait_for(lambda: epics_scaler.count_mode.get() == "AutoCount")


def test_epics_scaler_counts_with_presets_and_gates(epics_scaler):
    epics_scaler.preset_time.put(0.1, wait=True)
    assert count(epics_scaler)["scaler_channels_chan1"] == 1_000_000
    assert epics_scaler.time.get() == 0.1
    epics_scaler.preset_time.put(20, wait=True)
    epics_scaler.presets.preset4.put(100, wait=True)
    assert epics_scaler.gates.gate4.get() == 1
    assert count(epics_scaler)["scaler_channels_chan4"] == 100
    epics_scaler.gates.gate4.put(0, wait=True)
    epics_scaler.preset_time.put(0.1, wait=True)
    count(epics_scaler)
    assert epics_scaler.time.get() == 0.1


def test_a_stop_ends_the_trigger_with_the_counts_so_far(epics_scaler):
    epics_scaler.preset_time.put(100, wait=True)
    status = epics_scaler.trigger()
    wait_for(lambda: epics_scaler.channels.chan1.get() > 0)
    assert not status.done
    epics_scaler.count.put(0)
    status.wait(DEADLINE)
    assert 0 < epics_scaler.time.get() < 50


def test_a_run_counts_as_long_as_it_says(counter):
    import bluesky.plans as bp
    from bluesky import RunEngine

    counter.select_channels()
    counter.preset_time.put(0.1, wait=True)
    events = []
    RunEngine({})(bp.count([counter], num=4), {"event": lambda _, document: events.append(document["data"])})
    assert [data["timebase"] for data in events] == [1_000_000] * 4
    assert len({data["I0"] for data in events}) > 1


def test_apstools_takes_the_channels_that_have_names(counter, epics_scaler):
    from apstools.devices import use_EPICS_scaler_channels

    use_EPICS_scaler_channels(counter)
    assert [name for name in counter.channels.read_attrs if "." not in name] == [f"chan0{n}" for n in range(1, 7)]
    use_EPICS_scaler_channels(epics_scaler)
    assert epics_scaler.channels.read_attrs == [f"chan{number}" for number in range(1, 7)]
