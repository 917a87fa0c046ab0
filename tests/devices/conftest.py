"""Devices on the virtual beamline of the test process."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

DEADLINE = 20.0  # s; generous, because several test processes share two cores


def wait_until(condition: Callable[[], object], what: str, deadline: float = DEADLINE) -> None:
    """Return when a condition holds."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, f"waited {deadline} s until {what}"
        time.sleep(0.005)


@pytest.fixture(scope="session", autouse=True)
def beamline(virtual_beamline):
    """Up before the first channel is made: its repeater must be found, else libca starts one on its port."""
    return virtual_beamline


@pytest.fixture(scope="session")
def devices(beamline, area_detector):
    """All devices of the packaged configuration, connected."""
    from instrument.config import load
    from instrument.devices.health import Health
    from instrument.devices.registry import build

    made = build(load().devices)
    health = Health(made, DEADLINE, core=set(made))
    health.connect_all()
    assert health.names("connected") == list(made)
    return made
