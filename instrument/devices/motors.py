"""Motors."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any

from ophyd import Component, EpicsMotor, EpicsSignal, EpicsSignalRO
from ophyd.epics_motor import HomeEnum
from ophyd.signal import EpicsSignalBase
from ophyd.status import MoveStatus
from ophyd.utils.epics_pvs import AlarmSeverity, AlarmStatus

from instrument.devices.errors import MoveEndedError, check_position
from instrument.devices.offline import answers, tell_first_values
from instrument.devices.statuses import ForgetsFirst, fail_waiting, wait_or_stop


class Motor(ForgetsFirst, EpicsMotor):
    """An EPICS motor record, with its steps per revolution.

    Fewer degrees per step: a higher `steps_per_revolution`. The range shrinks with the step, because the record
    counts steps in 32 bits.

    What no scan reads is connected at first use: with 16 motors that is a quarter of the PVs of a session.
    """

    lazy_wait_for_connection = False

    # Without ophyd's check of limits, which now and then keeps those from before set_lim(); check_value() knows better.
    user_setpoint = Component(EpicsSignal, ".VAL", limits=False, auto_monitor=True)
    offset_freeze_switch = Component(EpicsSignal, ".FOFF", kind="omitted", lazy=True)
    set_use_switch = Component(EpicsSignal, ".SET", kind="omitted", lazy=True)
    motor_is_moving = Component(EpicsSignalRO, ".MOVN", kind="omitted", lazy=True)
    home_forward = Component(EpicsSignal, ".HOMF", kind="omitted", lazy=True)
    home_reverse = Component(EpicsSignal, ".HOMR", kind="omitted", lazy=True)
    steps_per_revolution = Component(EpicsSignal, ".SREV", kind="omitted", lazy=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._order = threading.RLock()  # a move begins before the end of one is judged, or afterwards
        super().__init__(*args, **kwargs)
        tell_first_values(self)

    @cached_property
    def dial_setpoint(self) -> EpicsSignal:
        """The dial position, for who redefines it; no part of the motor that `summary()` shows and scans stage."""
        return EpicsSignal(f"{self.prefix}.DVAL", name=f"{self.name}_dial_setpoint", parent=self)

    @property
    def connected(self) -> bool:
        """Whether the motor can be used; fields that are connected at first use count once they have answered."""
        return answers(self)

    @property
    def limits(self) -> tuple[float, float]:
        """The soft limits, as their own monitors have them; ophyd's asks the setpoint, and can miss a change."""
        low: Any = self.low_limit_travel.get()
        high: Any = self.high_limit_travel.get()
        return low, high

    def move(self, position: float, wait: bool = True, **kwargs: Any) -> MoveStatus:
        """Go to a position; see `ophyd.EpicsMotor.move`.

        A move under way is redirected, and its status fails. (ophyd's would then stop the motor: the new move.)
        """
        self.check_value(position)
        with self._order:
            fail_waiting(
                self, MoveEndedError(f"{self.name}: another move, to {position:g}, took the place of this one")
            )
            status = super().move(position, wait=False, **kwargs)
        if wait:
            wait_or_stop(self, status)
        return status

    def home(self, direction: HomeEnum | str, wait: bool = True, **kwargs: Any) -> MoveStatus:
        """Find the home switch, "forward" or "reverse"; see `ophyd.EpicsMotor.home`. A move under way fails."""
        direction = HomeEnum(direction)
        with self._order:
            fail_waiting(self, MoveEndedError(f"{self.name}: homing took the place of this move"))
            status = super().home(direction, wait=False, **kwargs)
        if wait:
            wait_or_stop(self, status)
        return status

    def stop(self, *, success: bool = False) -> None:
        """Stop the motor.

        Args:
            success: What the status of the move under way shall say.
        """
        if not success:
            fail_waiting(self, MoveEndedError(f"{self.name}: was stopped"))
        super().stop(success=success)

    def _move_changed(
        self, timestamp: float | None = None, value: Any = None, sub_type: str | None = None, **kwargs: Any
    ) -> None:
        """Read whether the motor stands, where, and whether in alarm, before the end of a move is judged by it.

        What the monitors say may be old on a busy machine. The end of the move before, told when the next one has
        begun, ended that one. And EPICS base queues a client's monitors in groups of 36, and posts one group after the
        other: in a session with 16 motors the DMOV of some comes before the RBV of the same moment, and a move that
        failed was told as success.
        """
        with self._order:
            if value == 1 and self._moving:
                if (_now(self.motor_done_move) or {}).get("value") == 0:
                    return  # another DMOV will come
                readback: EpicsSignalBase = self.user_readback
                if where := _now(readback):
                    readback._read_changed(**where)  # noqa: SLF001  ophyd's get() leaves the alarm to the monitor
                    self._position = where["value"]  # at once; who follows the position is told on ophyd's thread
            try:
                super()._move_changed(timestamp=timestamp, value=value, sub_type=sub_type, **kwargs)
            except TimeoutError as error:  # ophyd has asked a limit switch; nothing would end the move any more
                why = f"the move ended at {self._position:g}, but a limit switch does not answer ({error})"
                fail_waiting(self, MoveEndedError(f"{self.name}: {why}"))

    def _done_moving(
        self, success: bool = True, timestamp: float | None = None, value: Any = None, **kwargs: Any
    ) -> None:
        """Tell who waits for a move that failed why it did; ophyd says only that it failed."""
        if not success:
            fail_waiting(self, MoveEndedError(f"{self.name}: the move ended at {self.position:g}, {self._why()}"))
        super()._done_moving(success=success, timestamp=timestamp, value=value, **kwargs)

    def _why(self) -> str:
        for switch, which in ((self.high_limit_switch, "high"), (self.low_limit_switch, "low")):
            if switch.get():
                return f"at its {which} limit switch"
        severity, status = self.user_readback.alarm_severity, self.user_readback.alarm_status
        return f"in alarm: {AlarmSeverity(severity).name} {AlarmStatus(status).name}"

    def check_value(self, pos: float) -> None:
        """Refuse a target outside of the soft limits.

        Raises:
            OutOfLimitsError: The message names the motor and its limits.
        """
        check_position(self.name, pos, self.limits, self.motor_egu.get())


def _now(signal: EpicsSignalBase) -> dict[str, Any] | None:
    """What a PV says if it is asked: value, timestamp, alarm; None if it does not answer in time."""
    pv: Any = signal._read_pv  # noqa: SLF001  ophyd's get() raises after a time-out, and tells the value alone
    return pv.get_with_metadata(form="time", timeout=signal.timeout, use_monitor=False)
