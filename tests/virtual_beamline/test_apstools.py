"""Unmodified classes of apstools.synApps against ``gp:``: each behaves, not only connects."""

import os
import socket
import time

import psutil
import pytest

from tests.virtual_beamline.conftest import wait_for

TIMEOUT = 30


def _connected(device):
    device.wait_for_connection(timeout=TIMEOUT)
    return device


def _value(signal, expected, tolerance=1e-9):
    wait_for(lambda: signal.get() == pytest.approx(expected, abs=tolerance), what=f"{signal.pvname} == {expected}")


@pytest.fixture
def position(gp):
    """A signal that stands for a motor's readback."""
    from ophyd import EpicsSignal

    return _connected(EpicsSignal(f"{gp.prefix}gp:float11", name="position"))


@pytest.fixture
def swait(gp):
    from apstools.synApps import SwaitRecord

    device = _connected(SwaitRecord(f"{gp.prefix}userCalc3", name="swait"))
    yield device
    device.reset()


def test_swait_setup_lorentzian_draws_a_peak(swait, position):
    from apstools.synApps import setup_lorentzian_swait

    setup_lorentzian_swait(swait, position, center=0.3, width=0.1, scale=1000, noise=0)
    assert swait.scanning_rate.get(as_string=True) == "I/O Intr"
    for x in (-1, 0.2, 0.3, 0.4, 2):
        position.put(x - 10, wait=True)
        position.put(x, wait=True)
        _value(swait.calculated_value, 950 / (1 + ((x - 0.3) / 0.1) ** 2), 1e-6)


def test_swait_setup_gaussian_has_the_noise_it_is_told(swait, position):
    from apstools.synApps import setup_gaussian_swait

    setup_gaussian_swait(swait, position, center=0, width=1, scale=1000, noise=0.1)
    values = set()
    position.put(0, wait=True)  # from wherever it was
    wait_for(lambda: 950 <= swait.calculated_value.get() <= 1050, what="a value of the peak")
    for step in range(20):
        position.put((step + 1) % 2 * 1e-9, wait=True)
        values.add(round(wait_for(swait.calculated_value.get), 6))
        time.sleep(0)
    assert len(values) > 5
    assert all(950 <= value <= 1050 for value in values)


def test_swait_setup_random_and_incrementer_go_on_by_themselves(swait):
    from apstools.synApps import setup_incrementer_swait, setup_random_number_swait

    setup_random_number_swait(swait)
    values = set()
    wait_for(lambda: values.add(swait.calculated_value.get()) or len(values) > 3, what="random numbers")
    assert all(0 <= value <= 1 for value in values)
    setup_incrementer_swait(swait, scan=".1 second", limit=4)
    values = set()
    wait_for(lambda: values.add(swait.calculated_value.get()) or values >= {0.0, 1.0, 2.0, 3.0}, what="all numbers")


def test_user_calcs_device_resets_all_its_calcs(gp):
    from apstools.synApps import UserCalcsDevice

    before = {n: (gp.get(f"userCalc{n}.CALC", text=True)) for n in (1, 8)}
    calcs = _connected(UserCalcsDevice(gp.prefix, name="calcs"))
    assert before[1].startswith("D*(0.95+E*RNDM)")
    calcs.calc5.calculation.put("A+7", wait=True)
    calcs.calc5.channels.A.input_value.put(1, wait=True)
    _value(calcs.calc5.calculated_value, 8)
    calcs.calc5.reset()
    assert calcs.calc5.calculation.get() == "0"
    calcs.enable.put("Disable", wait=True)
    try:
        calcs.calc5.process_record.put(1, wait=True)
        wait_for(lambda: calcs.calc5.alarm_status.get() == 18, what="DISABLE alarm")
    finally:
        calcs.enable.put("Enable", wait=True)


def test_user_calcouts_device_computes_and_writes(gp):
    from apstools.synApps import UserCalcoutDevice

    calcouts = _connected(UserCalcoutDevice(gp.prefix, name="calcouts"))
    calcout = calcouts.calcout4
    calcout.reset()
    calcout.channels.A.input_pv.put(f"{gp.prefix}gp:float9 CP", wait=True)
    calcout.channels.B.input_value.put(100, wait=True)
    calcout.output_pv.put(f"{gp.prefix}gp:float8 PP", wait=True)
    calcout.calculation.put("A+B", wait=True)
    gp.put("gp:float9", 5)
    _value(calcout.calculated_value, 105)
    gp.wait("gp:float8", 105)
    calcouts.enable.put("Disable", wait=True)
    try:
        gp.put("gp:float9", 6)
        calcout.process_record.put(1, wait=True)
        assert gp.get("gp:float8") == 105
    finally:
        calcouts.enable.put("Enable", wait=True)
    calcout.reset()
    assert calcout.calculation.get() == "0"


def test_setup_lorentzian_calcout_draws_a_peak(gp, position):
    from apstools.synApps import CalcoutRecord, setup_lorentzian_calcout

    calcout = _connected(CalcoutRecord(f"{gp.prefix}userCalcOut5", name="calcout"))
    setup_lorentzian_calcout(calcout, position, center=1, width=2, scale=10, noise=0)
    position.put(3, wait=True)
    _value(calcout.calculated_value, 4.75, 1e-6)
    calcout.reset()


def test_busy_record_completes_when_it_is_done(gp):
    from apstools.synApps import BusyRecord

    busy = _connected(BusyRecord(f"{gp.prefix}mybusy1", name="busy"))
    assert busy.state.enum_strs == ("Done", "Busy")
    gp.put("mybusy1.HIGH", 0)
    done = gp.start_put("mybusy1", "Busy")
    gp.wait("mybusy1", 1)
    assert not done
    busy.state.put("Done")
    wait_for(lambda: done)
    gp.wait("mybusy1", 0)


def test_ioc_stats_device_has_true_values(gp, virtual_beamline):
    from apstools.synApps import IocStatsDevice

    stats = _connected(IocStatsDevice(gp.prefix, name="gp_stats"))
    ioc = psutil.Process(virtual_beamline.pid)
    assert stats.host_name.get() == socket.gethostname()[:39]
    assert stats.cpu_count.get() == os.cpu_count()
    assert stats.memory_max.get() == psutil.virtual_memory().total
    gp.put("MEM_USED.PROC", 1)
    assert stats.memory_used.get() == pytest.approx(ioc.memory_info().rss, rel=0.1)
    gp.put("FD_FREE.PROC", 1)
    assert stats.file_descriptors_max_.get() - gp.get("FD_FREE") == pytest.approx(ioc.num_fds(), abs=3)
    gp.put("CA_CONN_CNT.PROC", 1)
    gp.put("CA_CLNT_CNT.PROC", 1)
    assert gp.get("CA_CONN_CNT") >= 30  # the signals of this device alone
    assert gp.get("CA_CLNT_CNT") >= 1
    assert stats.epics_version.get().startswith("EPICS 7.0")
    assert stats.records_count.get() > 280
    started = time.mktime(time.strptime(stats.startup_time.get(), "%m/%d/%Y %H:%M:%S"))
    assert started == pytest.approx(ioc.create_time(), abs=60)  # s; it imports first, and the machine may be busy
    assert abs(time.mktime(time.strptime(stats.time_of_day.get(), "%m/%d/%Y %H:%M:%S")) - time.time()) < 10
    assert stats.access.get() == "Running"
    assert stats.suspended_task_count.get() == 0
    assert 0 <= stats.ioc_cpu_load.get() <= 100
    assert 0 <= stats.system_cpu_load.get() <= 100


def test_ioc_stats_move_on_at_their_rates(gp):
    for name in ("HEARTBEAT", "UPTIME", "TOD", "iso8601"):
        before = gp.get(name)
        wait_for(lambda name=name, before=before: gp.get(name) != before, what=f"a new {name}")
        assert gp.get(f"{name}.SCAN", text=True) == "1 second"
    for name in ("IOC_CPU_LOAD", "SYS_CPU_LOAD", "MEM_FREE", "FD_FREE", "CA_CONN_CNT"):
        assert gp.get(f"{name}.SCAN", text=True) == "10 second"


def test_ioc_cpu_load_rises_with_load(gp):
    gp.put("IOC_CPU_LOAD.SCAN", "Passive")  # else it may read in the midst of this
    try:
        gp.put("IOC_CPU_LOAD.PROC", 1)
        idle_since = time.monotonic()
        wait_for(lambda: time.monotonic() - idle_since > 0.5)
        gp.put("IOC_CPU_LOAD.PROC", 1)
        idle = gp.get("IOC_CPU_LOAD")
        busy_since = time.monotonic()
        while time.monotonic() - busy_since < 0.5:
            gp.get("userCalc4")
        gp.put("IOC_CPU_LOAD.PROC", 1)
        assert gp.get("IOC_CPU_LOAD") > idle
    finally:
        gp.put("IOC_CPU_LOAD.SCAN", "10 second")
