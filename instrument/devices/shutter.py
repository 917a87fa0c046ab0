"""Shutters."""

from __future__ import annotations

import random
import threading
from typing import Any

from ophyd import Component, Device, Signal
from ophyd.status import DeviceStatus

from instrument.devices.errors import BusyDeviceError, OutOfLimitsError

RESPONSE = (0.1, 0.9)  # s; a PSS shutter takes this long, at random, to report its new state


class SimulatedShutter(Device):
    """A beamline shutter without hardware; behaves as `apstools.devices.SimulatedApsPssShutterWithStatus`.

    Args:
        prefix: Unused; there are no PVs.
        delay_s: Further time (s) that a change takes after the state has changed.
        kwargs: What `ophyd.Device` takes.
    """

    busy = Component(Signal, value=False)
    open_signal = Component(Signal, value=0)
    close_signal = Component(Signal, value=0)
    pss_state = Component(Signal, value="close")

    unknown_state = "unknown"

    def __init__(self, prefix: str = "", *, delay_s: float = 1.2, **kwargs: Any) -> None:
        self.delay_s = delay_s
        self.valid_open_values = ["open", "opened"]
        self.valid_close_values = ["close", "closed"]
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        super().__init__(prefix, **kwargs)

    @property
    def state(self) -> str:
        """`open`, `close` or `unknown`."""
        value = str(self.pss_state.get()).lower()
        if value in self.valid_open_values:
            return self.valid_open_values[0]
        if value in self.valid_close_values:
            return self.valid_close_values[0]
        return self.unknown_state

    @property
    def isOpen(self) -> bool:  # noqa: N802  the name that people know
        """Whether the shutter is open."""
        return self.state == self.valid_open_values[0]

    @property
    def isClosed(self) -> bool:  # noqa: N802  the name that people know
        """Whether the shutter is closed."""
        return self.state == self.valid_close_values[0]

    @property
    def choices(self) -> list[str]:
        """What `set` takes."""
        return self.valid_open_values + self.valid_close_values

    def addOpenValue(self, text: str) -> list[str]:  # noqa: N802  the name that people know
        """Take `text` for "open" too; returns the choices."""
        self.valid_open_values.append(str(text).lower())
        return self.choices

    def addCloseValue(self, text: str) -> list[str]:  # noqa: N802  the name that people know
        """Take `text` for "close" too; returns the choices."""
        self.valid_close_values.append(str(text).lower())
        return self.choices

    def validTarget(self, target: object, should_raise: bool = True) -> bool:  # noqa: N802  the name that people know
        """Whether `set` takes a value.

        Raises:
            OutOfLimitsError: It does not, and `should_raise`.
        """
        valid = str(target).lower() in self.choices
        if not valid and should_raise:
            raise OutOfLimitsError(f"{self.name}: {target!r} is none of {', '.join(self.choices)}")
        return valid

    def inPosition(self, target: object) -> bool:  # noqa: N802  the name that people know
        """Whether the shutter is where `target` says."""
        self.validTarget(target)
        return self.isOpen if str(target).lower() in self.valid_open_values else self.isClosed

    def check_value(self, value: object, **kwargs: Any) -> None:
        """Refuse what `set` does not take."""
        self.validTarget(value)

    def open(self) -> None:
        """Open the shutter, and return when it is open."""
        self.set("open").wait()

    def close(self) -> None:
        """Close the shutter, and return when it is closed."""
        self.set("close").wait()

    def set(self, value: object, **_: Any) -> DeviceStatus:
        """Open or close the shutter, see `choices`.

        Returns:
            A status that is done when the shutter has moved.

        Raises:
            BusyDeviceError: It is moving.
            OutOfLimitsError: Not one of `choices`.
        """
        self.validTarget(value)
        with self._lock:
            if self.busy.get():
                raise BusyDeviceError(f"{self.name}: is moving; wait until it has")
            status = DeviceStatus(self)
            if self.inPosition(value):
                status.set_finished()
                return status
            self._stopped.clear()
            self.busy.put(True)
        opening = str(value).lower() in self.valid_open_values
        threading.Thread(target=self._move, args=(opening, status), daemon=True, name=f"{self.name} moves").start()
        return status

    def stop(self, *, success: bool = False) -> None:
        """Do not wait for a move any longer; the shutter stays in the state that it has."""
        self._stopped.set()

    def _move(self, opening: bool, status: DeviceStatus) -> None:
        request = self.open_signal if opening else self.close_signal
        try:
            request.put(1)
            if not self._stopped.wait(random.uniform(*RESPONSE)):
                self.pss_state.put(self.valid_open_values[0] if opening else self.valid_close_values[0])
                self._stopped.wait(self.delay_s)
        finally:
            request.put(0)
            self.busy.put(False)
            if self._stopped.is_set():
                status.set_exception(BusyDeviceError(f"{self.name}: stopped while it moved; it is {self.state}"))
            else:
                status.set_finished()
