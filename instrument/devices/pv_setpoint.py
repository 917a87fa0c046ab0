"""One PV that is set with completion, as the RunEngine sets a motor."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from instrument.config.errors import UserError
from instrument.devices.pvs import CHAR, STRING, Completion, attach

GONE = "its IOC went away while it was set"
ANSWER = 5.0  # s; how long an IOC may take to say that it is still there
LOOK = 0.1  # s; how often a set that goes on looks whether its IOC is still there


class SetError(UserError):
    """A PV was not set."""


class PvSetpoint:
    """A PV by name; done when all that setting it brings about is done (a motor has arrived).

    Args:
        pv: Its name.
        stop_pv: The PV that stops what setting it has begun, by a 1; None if there is none.
    """

    parent = None

    def __init__(self, pv: str, *, stop_pv: str | None = None) -> None:
        self.name = pv
        self._stop_pv = stop_pv
        self._going = threading.Event()

    def set(self, value: Any) -> Completion:
        """Begin to set it.

        Args:
            value: A number, text, the index of an enumeration, or an array.
        """
        done = Completion()

        def work() -> None:
            try:
                self._put(value)
            except Exception as error:
                done.finish(error)
            else:
                done.finish()

        threading.Thread(target=work, name=f"set {self.name}", daemon=True).start()
        return done

    def stop(self, success: bool = True) -> None:
        """Stop what is going on, if it can be stopped.

        Args:
            success: As the RunEngine gives it; to a PV it makes no difference.
        """
        if self._stop_pv is not None and self._going.is_set():
            ca = attach()
            channel = ca.create_channel(self._stop_pv, connect=True)
            if ca.isConnected(channel):
                ca.put(channel, 1)

    def _put(self, value: Any) -> None:
        ca = attach()
        channel = ca.create_channel(self.name, connect=True)
        if not ca.isConnected(channel):
            raise SetError(f"{self.name} does not answer")
        if not ca.write_access(channel):
            raise SetError(f"{self.name} is read-only")
        written = threading.Event()
        self._going.set()
        try:
            wire = _for_wire(value, ca.field_type(channel), ca.element_count(channel))
            ca.put(channel, wire, callback=lambda **_: written.set())
            while not written.wait(LOOK):
                if not ca.isConnected(channel):
                    raise SetError(f"{self.name}: {GONE}")
            # pyepics calls back for a put that was lost with the connection, too.
            if not ca.isConnected(channel) or ca.get(channel, count=1, timeout=ANSWER) is None:
                raise SetError(f"{self.name}: {GONE}")
        finally:
            self._going.clear()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


def _for_wire(value: Any, native: int, count: int) -> Any:
    """What pyepics shall be given: text in an array of characters as its bytes, arrays as lists."""
    if native == CHAR and count > 1 and isinstance(value, str):
        return list((value.encode() + b"\0")[:count])
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if native == STRING and isinstance(value, list):
        return [str(item) for item in value]
    return value
