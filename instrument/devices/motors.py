"""Motors."""

from __future__ import annotations

from ophyd import Component, EpicsMotor, EpicsSignal

from instrument.devices.errors import check_position


class Motor(EpicsMotor):
    """An EPICS motor record, with its steps per revolution.

    Fewer degrees per step: a higher `steps_per_revolution`. The range shrinks with the step, because the record
    counts steps in 32 bits.
    """

    steps_per_revolution = Component(EpicsSignal, ".SREV", kind="omitted", auto_monitor=True)

    def check_value(self, pos: float) -> None:
        """Refuse a target outside of the soft limits.

        Raises:
            OutOfLimitsError: The message names the motor and its limits.
        """
        check_position(self.name, pos, self.limits, self.motor_egu.get())
