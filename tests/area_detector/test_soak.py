"""Ten minutes of acquisition into viewers and file writers: the IOC's memory does not grow. Only in ``make soak``."""

import os
import statistics
import time

import psutil
import pytest

from tests.virtual_beamline.conftest import wait_for

MINUTES = float(os.environ.get("SOAK_MINUTES", "10"))
ALLOWED = 1_000_000
"""Bytes a minute; one frame a minute that is not given back is more."""
FILES = 100  # frames of a file


@pytest.mark.soak
@pytest.mark.timeout(60 * (MINUTES + 5))
def test_memory_is_flat_while_it_acquires(ad, images, area_detector):
    import epics

    ioc = psutil.Process(area_detector.pid)
    heard = []
    monitor = epics.PV("ad:image1:ArrayData", auto_monitor=True, callback=lambda **_: heard.append(1))
    ad.set("cam1:", ImageMode="Continuous", AcquireTime=0.001, AcquirePeriod=0.02, PeakVariation=10, FixedPattern=1)
    for plugin in ("image1:", "Pva1:"):
        ad.set(plugin, EnableCallbacks=1, MinCallbackTime=0.2)
    ad.set("HDF1:", EnableCallbacks=1, FileWriteMode="Stream", NumCapture=FILES, AutoIncrement=0)
    ad.set("TIFF1:", EnableCallbacks=1, AutoSave=1, AutoIncrement=0, MinCallbackTime=0.5)
    ad.put("cam1:Acquire", 1, wait=False)
    began, minutes, sizes, files = time.monotonic(), [], [], 0
    while (elapsed := time.monotonic() - began) < 60 * MINUTES:
        if not ad.get("HDF1:Capture_RBV"):
            ad.put("HDF1:Capture", 1, wait=False)
            ad.wait("HDF1:Capture_RBV", 1)
            files += 1
        minutes.append(elapsed / 60)
        sizes.append(ioc.memory_info().rss)
        due = time.monotonic() + 0.5
        wait_for(lambda due=due: time.monotonic() >= due)
    frames = ad.get("cam1:ArrayCounter_RBV")
    ad.stop()
    monitor.disconnect()
    assert frames > 60 * MINUTES * 20  # it has really acquired
    assert files > frames / FILES / 3
    assert heard
    steady = len(sizes) // 5  # what is used for the first time is allocated in the beginning
    assert statistics.linear_regression(minutes[steady:], sizes[steady:]).slope < ALLOWED
