"""Settings of a device for the time of a run: put together, and confirmed by one deadline.

ophyd puts one setting after the other and waits for each, however long: a second for an area detector with a few
plugins, and for ever if the IOC does not take a value.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from ophyd import EpicsSignal

from instrument.config.errors import UserError

CONFIRMED_WITHIN = 5.0  # s; until the IOC shows what was put
_POLL = 0.002  # s


class SettingError(UserError):
    """The IOC did not take a setting."""


def apply(settings: Mapping[Any, Any], *, within: float = CONFIRMED_WITHIN) -> dict[Any, Any]:
    """Put values, all at once in their order, and wait until the signals show them.

    Args:
        settings: Values by signal; enums as text or number.
        within: How long to wait (s).

    Returns:
        What the signals that had another value had before.

    Raises:
        SettingError: A signal does not show its value; what was put remains.
    """
    before = {signal: signal.get() for signal in settings}
    changing = {signal: value for signal, value in settings.items() if not shows(signal, value, before[signal])}
    for signal, value in changing.items():
        signal.put(value)
    end = time.monotonic() + within
    for signal, value in changing.items():
        pause = _POLL
        while not shows(signal, value, found := signal.get()):
            if time.monotonic() > end:
                pv = getattr(signal, "setpoint_pvname", signal.name)
                raise SettingError(f"{pv} does not take {value!r} ({signal.name}): it is {found!r} after {within:g} s")
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
    return {signal: before[signal] for signal in changing}


def shows(signal: Any, wanted: Any, found: Any) -> bool:
    """Whether what a signal has is what was put, as text, number or path."""
    choices = getattr(signal, "enum_strs", None) or ()
    if choices:
        return _text(wanted, choices) == _text(found, choices)
    if isinstance(wanted, str) or isinstance(found, str):
        return str(wanted).rstrip("/\\") == str(found).rstrip("/\\")
    if isinstance(wanted, int | float) and isinstance(found, int | float):
        tolerance = (signal.tolerance if isinstance(signal, EpicsSignal) else None) or 0.0
        return math.isclose(wanted, found, rel_tol=1e-6, abs_tol=tolerance)
    return bool(wanted == found)


def _text(value: Any, choices: tuple[str, ...]) -> str:
    return choices[int(value)] if isinstance(value, int | float) and 0 <= value < len(choices) else str(value)
