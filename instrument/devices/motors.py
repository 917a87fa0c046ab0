"""Motors."""

from __future__ import annotations

from ophyd import Component, EpicsMotor, EpicsSignal, EpicsSignalRO

from instrument.devices.errors import check_position


class Motor(EpicsMotor):
    """An EPICS motor record, with its steps per revolution.

    Fewer degrees per step: a higher `steps_per_revolution`. The range shrinks with the step, because the record
    counts steps in 32 bits.

    What no scan reads is connected at first use: with 16 motors that is a quarter of the PVs of a session.
    """

    lazy_wait_for_connection = False

    offset_freeze_switch = Component(EpicsSignal, ".FOFF", kind="omitted", lazy=True)
    set_use_switch = Component(EpicsSignal, ".SET", kind="omitted", lazy=True)
    motor_is_moving = Component(EpicsSignalRO, ".MOVN", kind="omitted", lazy=True)
    home_forward = Component(EpicsSignal, ".HOMF", kind="omitted", lazy=True)
    home_reverse = Component(EpicsSignal, ".HOMR", kind="omitted", lazy=True)
    steps_per_revolution = Component(EpicsSignal, ".SREV", kind="omitted", lazy=True)

    def check_value(self, pos: float) -> None:
        """Refuse a target outside of the soft limits.

        Raises:
            OutOfLimitsError: The message names the motor and its limits.
        """
        check_position(self.name, pos, self.limits, self.motor_egu.get())
