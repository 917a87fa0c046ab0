"""Stock device classes of ophyd and apstools, unmodified, on the motor record."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import threading

import pytest

from tests.virtual_beamline.conftest import DEADLINE, connected_motor, wait_for
from tests.virtual_beamline.test_motor import DEFAULTS, Axis

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
_numbers = itertools.cycle(range(13, 17))


@pytest.fixture
def number(gp):
    """A motor at 0, as fast as the other tests' motors."""
    axis = Axis(gp, f"m{next(_numbers)}")
    axis.reset()
    yield axis.name
    axis.reset()
    assert DEFAULTS["VELO"] == axis.VELO


@pytest.fixture
def make(gp, number):
    """Make a device of the class, with apstools' mixins if there are any, on the motor."""

    def make_device(*mixins):
        from ophyd import EpicsMotor

        kind = type("Motor", (*mixins, EpicsMotor), {}) if mixins else EpicsMotor
        return connected_motor(kind(f"{gp.prefix}{number}", name="motor"))

    return make_device


@pytest.fixture
def motor(make):
    return make()


def let_ophyd_finish():
    """Wait until stock ophyd has done with the last move: one begun meanwhile would be forgotten, and never end."""
    import ophyd

    over = threading.Event()
    ophyd.cl.get_dispatcher().get_thread_context("monitor").run(over.set)
    assert over.wait(DEADLINE)


def move(motor, *args, **kwargs):
    try:
        return motor.move(*args, **kwargs)
    finally:
        let_ophyd_finish()


def is_told_at(motor, position):
    """Wait until the readback has come, which may be after the end of the move: base keeps no order of them."""
    wait_for(lambda: motor.position == position, what=f"readback {position}, not {motor.position}")


def test_ophyd_moves_it_and_waits(motor):
    status = move(motor, 1.5, wait=True, timeout=20)
    assert status.done
    assert status.success
    is_told_at(motor, 1.5)
    assert not motor.moving


def test_ophyd_sees_a_move_to_where_it_is(motor):
    move(motor, 1, timeout=20)
    for _ in range(5):
        assert move(motor, 1, timeout=20).success


def test_ophyd_sees_many_short_moves_in_a_row(motor):
    for target in (0.01, 0.02, 0.01, 0.03, 0.02):
        assert move(motor, target, timeout=20).success
        is_told_at(motor, target)


def test_set_gives_a_status_that_ends_with_the_motion(motor):
    from ophyd.status import wait as status_wait

    status = motor.set(30)
    wait_for(lambda: motor.moving)
    assert not status.done
    status_wait(status, timeout=20)
    is_told_at(motor, 30)


def test_ophyd_stops_it(motor):
    status = move(motor, 1000, wait=False)
    wait_for(lambda: motor.position > 1)
    motor.stop()
    wait_for(lambda: status.done)
    wait_for(lambda: not motor.moving)
    setpoint, readback = (signal.get(use_monitor=False) for signal in (motor.user_setpoint, motor.user_readback))
    assert setpoint == readback < 500


def test_ophyd_knows_the_limits_and_refuses_what_lies_beyond(motor):
    from ophyd.utils import LimitError

    wait_for(lambda: motor.limits[0] < motor.limits[1])  # what was asked for while connecting has come
    for _ in range(5):  # ophyd keeps those of before now and then, when both are set at once
        motor.set_lim(-3, 4)
        with contextlib.suppress(AssertionError):
            wait_for(lambda: tuple(motor.limits) == (-3, 4), timeout=5)
            break
        motor.set_lim(-5, 6)
    assert tuple(motor.limits) == (-3, 4)
    with pytest.raises(LimitError, match=r"value 4\.5 outside of range"):
        move(motor, 4.5)
    is_told_at(motor, 0)
    assert (motor.get_lim(1), motor.get_lim(-1)) == (4, -3)
    assert move(motor, -3, timeout=20).success


def test_ophyd_redefines_the_position(motor):
    move(motor, 1, timeout=20)
    motor.set_current_position(5)
    is_told_at(motor, 5)
    assert motor.user_offset.get(use_monitor=False) == 4
    assert not motor.moving
    move(motor, 6, timeout=20)
    is_told_at(motor, 6)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_ophyd_homes_it(motor, direction):
    move(motor, 2, timeout=20)
    assert motor.home(direction, wait=True, timeout=30).success
    is_told_at(motor, motor.user_setpoint.get(use_monitor=False))


ALARMED = """
from ophyd import EpicsMotor
from ophyd.utils import UnknownStatusFailure
from tests.virtual_beamline.conftest import connected_motor
motor = connected_motor(EpicsMotor(PREFIX, name="motor"))
try:
    motor.move(motor.position + 1, wait=True, timeout=30)
except UnknownStatusFailure:
    print("failed")
"""


def test_an_alarm_fails_the_move(gp, number, virtual_beamline):
    """In a process of its own, with fewer monitors than base has in one queue: those come in the order of posting.

    Beyond 36 monitors base keeps no order among them, and stock ophyd takes such a move for a success if DMOV comes
    before RBV; `instrument.devices.motors.Motor` does not (tests/devices).
    """
    gp.put(f"{number}.CNEN", 0)
    script = ALARMED.replace("PREFIX", repr(f"{gp.prefix}{number}"))
    variables = virtual_beamline.environment.variables
    environment = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert told.stdout == "failed\n", told.stderr
    assert gp.get(f"{number}.RBV") == 0
    gp.put(f"{number}.CNEN", 1)


def test_ophyd_reads_and_describes_it(motor):
    move(motor, 1, timeout=20)
    told = {"motor": 1, "motor_user_setpoint": 1}
    wait_for(lambda: {name: value["value"] for name, value in motor.read().items()} == told, what=f"{told}")
    description = motor.describe()["motor"]
    assert (description["units"], description["precision"]) == ("degrees", 5)
    configuration = {name: value["value"] for name, value in motor.read_configuration().items()}
    assert configuration == {
        "motor_user_offset": 0,
        "motor_user_offset_dir": 0,
        "motor_velocity": 20,
        "motor_acceleration": 0.05,
        "motor_motor_egu": "degrees",
    }
    assert motor.report["position"] == 1


def test_a_scan_and_a_plan_that_stops_it_leave_it_where_they_should(motor):
    import bluesky.plan_stubs as bps
    import bluesky.plans as bp
    from bluesky import RunEngine

    def step(detectors, step, pos_cache):
        def reading(devices):
            is_told_at(motor, step[motor])
            yield from bps.trigger_and_read(devices)

        let_ophyd_finish()
        yield from bps.one_nd_step(detectors, step, pos_cache, take_reading=reading)

    engine = RunEngine({})
    positions = []
    engine(
        bp.scan([motor], motor, -1, 1, 5, per_step=step),
        {"event": lambda _, document: positions.append(document["data"]["motor"])},
    )
    assert positions == [-1, -0.5, 0, 0.5, 1]

    def stopping_plan():
        let_ophyd_finish()
        yield from bps.abs_set(motor, 1000, group="A")
        yield from bps.stop(motor)
        yield from bps.wait("A")

    engine(stopping_plan())
    wait_for(lambda: not motor.moving)
    assert motor.user_setpoint.get(use_monitor=False) < 500


# -- apstools ---------------------------------------------------------------------------------------------------


def test_apstools_dial_coordinates(make):
    from apstools.devices import EpicsMotorDialMixin

    motor = make(EpicsMotorDialMixin)
    motor.user_offset.put(10, wait=True)
    motor.dial.put(2, wait=True, use_complete=True)
    wait_for(lambda: motor.position == 12)
    assert motor.dial.get() == 2


def test_apstools_raw_coordinates(make):
    from apstools.devices import EpicsMotorRawMixin

    motor = make(EpicsMotorRawMixin)
    motor.raw.put(150, wait=True, use_complete=True)
    wait_for(lambda: motor.position == 1.5)
    assert motor.raw.get() == 150


def test_apstools_limits(make):
    import bluesky.plan_stubs as bps
    from apstools.devices.motor_mixins import EpicsMotorLimitsMixin
    from bluesky import RunEngine

    motor = make(EpicsMotorLimitsMixin)

    def plan():
        yield from motor.set_lim(-2, 3)
        yield from bps.null()

    RunEngine({})(plan())
    wait_for(lambda: tuple(motor.limits) == (-2, 3))
    assert (motor.get_lim(1), motor.get_lim(-1)) == (3, -2)


def test_apstools_enable(make):
    from apstools.devices import EpicsMotorEnableMixin

    motor = make(EpicsMotorEnableMixin)
    assert motor.enabled
    motor.disable_motor()
    wait_for(lambda: not motor.enabled)
    motor.user_setpoint.put(1, force=True)
    motor.enable_motor()
    wait_for(lambda: motor.enabled)
    assert (motor.user_setpoint.get(use_monitor=False), motor.position) == (0, 0)
    assert move(motor, 1, timeout=20).success


def test_apstools_resolution(make):
    from apstools.devices import EpicsMotorResolutionMixin

    motor = make(EpicsMotorResolutionMixin)
    motor.steps_per_rev.put(2000, wait=True)
    wait_for(lambda: motor.resolution.get() == 0.001)
    assert motor.units_per_rev.get() == 2
    move(motor, 0.123, timeout=20)
    is_told_at(motor, 0.123)


def test_apstools_servo(make):
    from apstools.devices import EpicsMotorServoMixin

    motor = make(EpicsMotorServoMixin)
    assert motor.servo.get() == "Enable"
    motor.servo.put("Disable", wait=True)
    wait_for(lambda: motor.servo.get() == "Disable")
    motor.servo.put("Enable", wait=True)


def test_every_field_of_the_apstools_motor_classes_is_served(make):
    from apstools.devices import (
        EpicsMotorDialMixin,
        EpicsMotorEnableMixin,
        EpicsMotorRawMixin,
        EpicsMotorResolutionMixin,
        EpicsMotorServoMixin,
    )
    from apstools.devices.motor_mixins import EpicsMotorLimitsMixin

    motor = make(
        EpicsMotorDialMixin,
        EpicsMotorEnableMixin,
        EpicsMotorLimitsMixin,
        EpicsMotorRawMixin,
        EpicsMotorResolutionMixin,
        EpicsMotorServoMixin,
    )
    assert motor.connected
    assert move(motor, 1, timeout=20).success
    is_told_at(motor, 1)
    values = {name: signal.get() for name, signal in motor.get_instantiated_signals()}
    assert values["motor.user_readback"] == 1
    assert None not in values.values()


# -- pyepics ----------------------------------------------------------------------------------------------------


def test_pyepics_motor_moves_tweaks_and_keeps_to_the_limits(gp):
    import epics

    Axis(gp, "m8").reset()  # a motor of its own: see conftest.Client for what pyepics and ophyd cannot share
    motor = epics.Motor(f"{gp.prefix}m8")
    assert motor.move(1, wait=True, timeout=20) == 0
    wait_for(lambda: motor.get_position(readback=True) == 1)
    motor.tweak_val = 0.5
    motor.tweak(wait=True)
    wait_for(lambda: motor.get_position(readback=True) == 1.5)
    assert motor.move(50_000) == -12, "outside of the soft limits"
    motor.set_position(7)
    wait_for(lambda: (motor.get_position(readback=True), motor.OFF) == (7, 5.5))
    Axis(gp, "m8").reset()
