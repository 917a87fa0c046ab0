"""The temperature controller: a positioner whose moves end when they should, and which really stops."""

from __future__ import annotations

import math
import threading

import ophyd
import pytest
from ophyd.status import StatusTimeoutError
from ophyd.utils import LimitError

from instrument.config import UserError
from instrument.devices.errors import MoveEndedError

from .conftest import DEADLINE, wait_until


@pytest.fixture
def temperature(devices):
    """The controller at 25, updating ten times a second, without noise."""
    controller = devices["temperature"]
    attrs = ("scanning_rate", "noise", "max_change", "tolerance")
    kept = {attr: getattr(controller, attr).get(use_monitor=False) for attr in attrs}
    controller.scanning_rate.put(".1 second", use_complete=True)
    controller.noise.put(0)
    controller.max_change.put(100)
    controller.move(25, timeout=DEADLINE)
    yield controller
    controller.stop()
    controller.max_change.put(100)
    controller.move(25, timeout=DEADLINE)
    for attr, value in kept.items():
        getattr(controller, attr).put(value, use_complete=True)


def test_a_move_ends_when_the_readback_is_within_tolerance(temperature):
    temperature.max_change.put(1)
    temperature.tolerance.put(0.25)
    status = temperature.set(30)
    assert not status.done
    assert temperature.moving
    assert temperature.done.get() is False
    status.wait(DEADLINE)
    assert math.isclose(temperature.position, 30, abs_tol=0.25)
    assert temperature.inposition
    assert temperature.done.get() is True
    assert temperature.setpoint.get(use_monitor=False) == 30


def test_setting_the_value_it_already_has_ends_at_once(temperature):
    temperature.scanning_rate.put("10 second")  # no further update can help it to its end
    temperature.set(25).wait(3)
    temperature.set(25 + temperature.tolerance.get() / 2).wait(3)


def test_a_stop_holds_the_temperature_reached_and_fails_the_move(temperature):
    temperature.max_change.put(0.5)
    status = temperature.set(200)
    wait_until(lambda: temperature.position > 27, "it moves")
    temperature.stop()
    with pytest.raises(MoveEndedError, match=r"^temperature: was stopped$"):
        status.wait(DEADLINE)
    held = temperature.setpoint.get(use_monitor=False)  # the monitor of the setpoint may still be on its way
    assert 27 < held < 100
    assert not temperature.moving
    wait_until(lambda: math.isclose(temperature.readback.get(use_monitor=False), held, abs_tol=1e-6), "it is held")


def test_a_stop_in_position_writes_nothing(temperature):
    temperature.noise.put(0.5)
    before = temperature.setpoint.get(use_monitor=False)
    wait_until(lambda: temperature.position != before, "there is noise")
    temperature.stop()
    assert temperature.setpoint.get(use_monitor=False) == before


def test_a_new_target_redirects(temperature):
    temperature.max_change.put(0.5)
    first = temperature.set(200)
    second = temperature.set(26)
    second.wait(DEADLINE)
    with pytest.raises(MoveEndedError, match=r"^temperature: another move, to 26, took the place of this one$"):
        first.wait(DEADLINE)
    assert abs(temperature.position - 26) <= temperature.tolerance.get()


def test_the_end_of_one_move_is_not_that_of_the_next(temperature):
    """Short moves in a row, while the readback updates on the thread of Channel Access."""
    temperature.tolerance.put(0.01)
    for target in [20, 30] * 10:
        temperature.set(target).wait(DEADLINE)
        assert abs(temperature.position - target) <= 0.01


def test_somebody_elses_setpoint_is_noticed(temperature):
    other = ophyd.EpicsSignal("gp:userCalc8.B", name="other")
    temperature.max_change.put(1)
    other.put(40)
    wait_until(lambda: not temperature.done.get(), "it is moving")
    wait_until(temperature.done.get, "it has arrived")
    assert abs(temperature.position - 40) <= temperature.tolerance.get()
    other.destroy()


@pytest.mark.parametrize("target", [300, -20.5, math.nan, math.inf, "warm", None])
def test_a_target_outside_of_the_limits_is_refused(temperature, target):
    with pytest.raises(UserError, match=r"^temperature: ") as caught:
        temperature.set(target)
    assert isinstance(caught.value, LimitError)
    assert temperature.setpoint.get(use_monitor=False) == 25
    assert not temperature.moving


def test_a_timeout_stops_the_controller_and_leaves_it_usable(temperature):
    temperature.max_change.put(0.1)
    with pytest.raises(StatusTimeoutError):
        temperature.set(100, timeout=0.2).wait(DEADLINE)
    wait_until(lambda: not temperature.moving, "it is stopped")
    assert temperature.setpoint.get(use_monitor=False) < 100
    temperature.max_change.put(100)
    temperature.set(25).wait(DEADLINE)


def test_it_can_be_moved_from_several_threads(temperature):
    """Each move ends, whoever began it; the last one wins."""
    statuses = []
    threads = [threading.Thread(target=lambda n=n: statuses.append(temperature.set(20 + n))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: all(status.done for status in statuses), "all moves have ended")
    assert sum(status.success for status in statuses) >= 1
    wait_until(lambda: not temperature.moving, "the last move has ended")
    assert abs(temperature.position - temperature.setpoint.get(use_monitor=False)) <= temperature.tolerance.get()
