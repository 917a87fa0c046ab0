"""Our thin classes are those of apstools: same components, kinds and PVs, same behaviour on the same IOC."""

from __future__ import annotations

import time

import apstools.devices
import apstools.synApps
import pytest
from ophyd import Device
from ophyd.device import do_not_wait_for_lazy_connection

from instrument.config import UserError
from instrument.devices.calcout import UserCalcout
from instrument.devices.iocstats import IocStats
from instrument.devices.shutter import RESPONSE, SimulatedShutter
from instrument.devices.swait import UserCalc

from .conftest import DEADLINE, wait_until

_kept = []  # destroying a device while it connects can crash libca


def structure(device: Device) -> dict[str, tuple]:
    """PV, kind and class of each signal by its dotted name."""
    _kept.append(device)
    found = {}
    with do_not_wait_for_lazy_connection(device):
        for walk in device.walk_signals(include_lazy=True):
            signal = walk.item
            pvs = getattr(signal, "pvname", None), getattr(signal, "setpoint_pvname", None)
            found[walk.dotted_name] = (pvs, signal.kind.name, type(signal).__name__)
    return found


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (UserCalc, apstools.synApps.swait.UserCalcN, "gp:userCalc3"),
        (UserCalcout, apstools.synApps.calcout.UserCalcoutN, "gp:userCalcOut3"),
    ],
)
def test_records_have_the_same_components_kinds_and_pvs(ours, theirs, prefix):
    one, other = ours(prefix, name="x"), theirs(prefix, name="x")
    assert structure(one) == structure(other)
    one.wait_for_connection(timeout=DEADLINE)


def test_ioc_statistics_are_the_same_but_for_a_misspelt_pv():
    ours, theirs = structure(IocStats("gp:", name="x")), structure(apstools.synApps.IocStatsDevice("gp:", name="x"))
    assert theirs.pop("uptime")[0] == ("gp::UPTIME", None)
    assert ours.pop("uptime")[0] == ("gp:UPTIME", None)
    assert ours == theirs


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("calcs", apstools.synApps.UserCalcsDevice), ("calcouts", apstools.synApps.UserCalcoutDevice)],
)
def test_banks_have_all_that_apstools_banks_have_and_ten_more(devices, name, theirs):
    ours = devices[name]
    for attr, component in theirs._sig_attrs.items():
        assert ours._sig_attrs[attr].suffix == component.suffix, attr
    assert ours._sig_attrs["enable"].kind == theirs._sig_attrs["enable"].kind
    assert len(ours.component_names) == 21


def test_ioc_statistics_put_together_what_the_ioc_splits(devices):
    stats = devices["gp_stats"]
    wait_until(lambda: stats.memory_used_percentage.get() > 0, "memory is known")
    assert 0 < stats.memory_used_percentage.get() <= 100
    assert stats.application_directory.get() == stats._app_dir1.get() + stats._app_dir2.get()


def test_a_calc_is_reset_and_used_by_its_attributes(devices):
    calc = devices["calcs"].calc15
    calc.reset()
    assert calc.calculation.get() == "0"
    assert calc.description.get() == "gp:userCalc15"
    calc.channels.A.input_value.put(3)
    calc.channels.B.input_value.put(4)
    calc.calculation.put("sqrt(A*A+B*B)")
    calc.process_record.put(1)
    wait_until(lambda: calc.value == 5, "it is calculated")
    theirs = apstools.synApps.SwaitRecord("gp:userCalc15", name="theirs")
    theirs.wait_for_connection(timeout=DEADLINE)
    assert theirs.value == 5
    theirs.reset()
    assert calc.calculation.get() == "0"
    theirs.destroy()


def test_a_calcout_is_reset_and_used_by_its_attributes(devices):
    calcout = devices["calcouts"].calcout15
    calcout.reset()
    calcout.channels.A.input_value.put(20)
    calcout.calculation.put("A+1")
    calcout.process_record.put(1)
    wait_until(lambda: calcout.value == 21, "it is calculated")
    calcout.reset()
    assert calcout.calculation.get() == "0"


@pytest.fixture(params=["ours", "theirs"])
def shutter(request):
    """Both shutters, one after the other: what is tested is true of both."""
    cls = SimulatedShutter if request.param == "ours" else apstools.devices.SimulatedApsPssShutterWithStatus
    return cls(name="shutter", delay_s=0)


def test_a_shutter_opens_and_closes(shutter):
    assert (shutter.state, shutter.isOpen, shutter.isClosed) == ("close", False, True)
    began = time.monotonic()
    status = shutter.set("open")
    assert not status.done
    assert shutter.busy.get()
    with pytest.raises(RuntimeError):
        shutter.set("close")
    status.wait(DEADLINE)
    assert time.monotonic() - began >= RESPONSE[0]
    assert (shutter.state, shutter.isOpen, shutter.isClosed) == ("open", True, False)
    shutter.set("opened").wait(0.05)  # it is
    shutter.close()
    assert shutter.isClosed
    shutter.open()
    assert shutter.isOpen


def test_a_shutter_takes_what_it_knows_and_nothing_else(shutter):
    assert shutter.choices == ["open", "opened", "close", "closed"]
    shutter.addOpenValue("O")
    assert shutter.validTarget("o")
    with pytest.raises(ValueError, match="'ajar'"):
        shutter.set("ajar")
    assert shutter.inPosition("Closed")


def test_shutters_have_the_same_components():
    ours = SimulatedShutter(name="x")
    theirs = apstools.devices.SimulatedApsPssShutterWithStatus(name="x")
    assert set(ours.component_names) == set(theirs.component_names)
    assert {k: v[1:] for k, v in structure(ours).items()} == {k: v[1:] for k, v in structure(theirs).items()}
    assert list(ours.read()) == list(theirs.read())


def test_a_stopped_shutter_fails_its_move():
    shutter = SimulatedShutter(name="shutter", delay_s=60)
    status = shutter.set("open")
    shutter.stop()
    with pytest.raises(UserError, match="shutter: stopped while it moved"):
        status.wait(DEADLINE)
    assert not shutter.busy.get()
