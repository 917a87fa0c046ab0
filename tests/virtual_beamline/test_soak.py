"""Ten minutes of scanning at 10 Hz: the IOC's memory does not grow. Only in ``make soak``."""

import os
import statistics
import time

import psutil
import pytest

from tests.virtual_beamline.conftest import wait_for

MINUTES = float(os.environ.get("SOAK_MINUTES", "10"))
RATE = 10.0  # points a second
ALLOWED = 300_000
"""Bytes a minute, 500 a point: one step of Python's allocator (1 MB) in 8 minutes does not look like a leak."""


def _slope(times, values):
    return statistics.linear_regression(times, values).slope


@pytest.mark.soak
@pytest.mark.timeout(60 * (MINUTES + 5))
def test_memory_is_flat_while_it_scans(gp, virtual_beamline):
    import epics

    ioc = psutil.Process(virtual_beamline.pid)
    heard = []
    monitors = [
        epics.PV(
            f"{gp.prefix}{name}", auto_monitor=True, callback=lambda **_: heard.append(1) if len(heard) < 9 else None
        )
        for name in [f"m{number}.RBV" for number in range(1, 17)] + [f"userCalc{number}" for number in range(1, 21)]
    ]
    gp.put("m1.VELO", 20)
    gp.put("m1.ACCL", 0.02)
    gp.put("scaler1.TP", 0.02)
    began, points = time.monotonic(), 0
    minutes, sizes = [], []
    while (elapsed := time.monotonic() - began) < 60 * MINUTES:
        assert gp.put("m1", 0.01 * (points % 50), timeout=30)
        assert gp.put("scaler1.CNT", 1, timeout=30)
        gp.get("userCalc1")
        points += 1
        if points % 10 == 0:
            minutes.append(elapsed / 60)
            sizes.append(ioc.memory_info().rss)
        due = began + points / RATE
        wait_for(lambda due=due: time.monotonic() >= due)
    assert points > 0.9 * 60 * MINUTES * RATE  # it has really scanned
    assert heard
    steady = len(sizes) // 5  # what is used for the first time is allocated in the beginning
    assert _slope(minutes[steady:], sizes[steady:]) < ALLOWED
    for monitor in monitors:
        monitor.disconnect()
