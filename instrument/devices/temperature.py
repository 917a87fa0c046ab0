"""A temperature controller that is simulated by a swait record."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from ophyd import Component, EpicsSignal, PVPositioner, Signal
from ophyd.device import required_for_connection
from ophyd.positioner import PositionerBase
from ophyd.status import MoveStatus

from instrument.config.names import LOGGER_NAME
from instrument.devices.errors import MoveEndedError, check_position
from instrument.devices.statuses import ForgetsFirst, fail_waiting, wait_or_stop

logger = logging.getLogger(LOGGER_NAME)


class TemperatureController(ForgetsFirst, PVPositioner):
    """A setpoint, and a readback that creeps towards it.

    The record computes `A+max(-D,min(D,(B-A)))+C*(RNDM-0.5)` at its scan rate, A being its own last value. It has no
    field that tells when the readback has arrived, so this class does: a move is done when the readback is within
    `tolerance` of the target, at once if it already is. `stop()` makes the readback the setpoint.

    Whatever concerns a move happens under one lock, because moves begin on the user's thread and end on that of
    Channel Access: without it, the end of one move can be taken for that of the next.
    """

    setpoint = Component(EpicsSignal, ".B", auto_monitor=True)
    readback = Component(EpicsSignal, ".VAL", kind="hinted", auto_monitor=True)
    done = Component(Signal, value=True)
    done_value = True

    calculation = Component(EpicsSignal, ".CALC", auto_monitor=True)
    description = Component(EpicsSignal, ".DESC", auto_monitor=True)
    max_change = Component(EpicsSignal, ".D", auto_monitor=True)
    noise = Component(EpicsSignal, ".C", auto_monitor=True)
    previous_value_pv = Component(EpicsSignal, ".INAN", auto_monitor=True)
    scanning_rate = Component(EpicsSignal, ".SCAN", auto_monitor=True)
    tolerance = Component(EpicsSignal, ".E", auto_monitor=True)
    report_dmov_changes = Component(Signal, value=False, kind="omitted")

    def __init__(self, prefix: str = "", **kwargs: Any) -> None:
        self._lock = threading.RLock()
        self._target: float | None = None
        self._latest: float | None = None
        self._tolerance = 0.0
        self._writing = False
        super().__init__(prefix, **kwargs)
        self.tolerance.subscribe(self._tolerance_changed, run=False)
        self.setpoint.subscribe(self._setpoint_changed, run=False)

    @property
    def inposition(self) -> bool:
        """Whether the readback is within tolerance of the target."""
        with self._lock:
            return self._inposition()

    @property
    def moving(self) -> bool:
        """Whether the readback is on its way."""
        return self._moving

    @property
    def precision(self) -> Any:
        """Digits after the point that are worth showing."""
        return self.readback.precision

    def check_value(self, pos: float) -> None:
        """Refuse a target outside of the limits.

        Raises:
            OutOfLimitsError: The message names the controller and its limits.
        """
        check_position(self.name, pos, self.limits, self.egu)

    def move(
        self,
        position: float,
        wait: bool = True,
        timeout: float | None = None,
        moved_cb: Callable[..., Any] | None = None,
    ) -> MoveStatus:
        """Go to a temperature.

        Args:
            position: The target, in the units of `egu`.
            wait: Return only when it is reached.
            timeout: Longest time that this may take (s); None for as long as it takes.
            moved_cb: Called with the status when the move has ended.

        Returns:
            A status that is done when the target is reached.
        """
        with self._lock:
            self.check_value(position)
            instead = f"another move, to {position:g}, took the place of this one"
            fail_waiting(self, MoveEndedError(f"{self.name}: {instead}"))
            status = PositionerBase.move(self, position, timeout=timeout, moved_cb=moved_cb)
            self._begin(float(position))
            try:
                self._write(float(position))
            except Exception:
                self._end(success=False)
                raise
            self._end_if_there()
        if wait:
            wait_or_stop(self, status)
        return status

    def stop(self, *, success: bool = False) -> None:
        """Stay at the temperature reached so far; does nothing if the target is reached.

        Args:
            success: What the status of the move under way shall say.
        """
        with self._lock:
            if not self._moving:
                return
            here = self._latest
            try:
                if here is not None:
                    self._target = here
                    self._write(here)
            finally:
                if not success:
                    fail_waiting(self, MoveEndedError(f"{self.name}: was stopped"))
                self._end(success=success)

    # --- on the threads of Channel Access

    @required_for_connection
    def _pos_changed(self, timestamp: Any = None, value: Any = None, **kwargs: Any) -> None:
        self._set_position(value, timestamp=timestamp)
        with self._lock:
            self._latest = value
            self._end_if_there()

    def _move_changed(self, timestamp: Any = None, value: Any = None, sub_type: Any = None, **kwargs: Any) -> None:
        """`done` only tells about a move; `_begin` and `_end` make it."""

    def _tolerance_changed(self, value: Any = None, **_: Any) -> None:
        with self._lock:
            self._tolerance = value
            self._end_if_there()

    def _setpoint_changed(self, value: Any = None, **_: Any) -> None:
        """The setpoint has a new value: the echo of a move, the first one ever, or somebody else's."""
        with self._lock:
            if self._writing or value == self._target:
                return
            if self._target is None and not self._moving:
                self._target = value
                return
            # Echoes come late, and more than once: what the record holds now is asked for behind the last write.
            now: Any = self.setpoint.get(use_monitor=False)
            if now != self._target:
                self._begin(now)
                self._end_if_there()

    # --- under the lock

    def _write(self, setpoint: float) -> None:
        self._writing = True  # ophyd tells of what it writes at once
        try:
            self.setpoint.put(setpoint)
        finally:
            self._writing = False

    def _inposition(self) -> bool:
        if self._latest is None or self._target is None:
            return False
        tolerance = self._tolerance if self._tolerance > 0 else 10.0 ** -(self.precision or 0)
        return abs(self._latest - self._target) <= tolerance

    def _begin(self, target: float) -> None:
        self._target = target
        self._report(done=False)
        if not self._moving:
            self._moving = self._started_moving = True
            self._run_subs(sub_type=self.SUB_START, timestamp=time.time(), value=target)

    def _end_if_there(self) -> None:
        if self._moving and self._inposition():
            self._end(success=True)

    def _end(self, *, success: bool) -> None:
        self._moving = False
        self._report(done=True)
        self._done_moving(success=success, timestamp=time.time(), value=self._latest)

    def _report(self, *, done: bool) -> None:
        if self.report_dmov_changes.get() and done != self.done.get():
            logger.debug("%s reached: %s", self.name, done)
        self.done.put(done)
