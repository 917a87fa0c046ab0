"""What a device can't do, told in one line."""

from __future__ import annotations

import math

from ophyd.utils import DisconnectedError, LimitError

from instrument.config.errors import UserError


class OfflineError(UserError, DisconnectedError):
    """A device was used that does not answer; also ophyd's DisconnectedError."""


class OutOfLimitsError(UserError, LimitError):
    """A move was refused because of its target; also ophyd's LimitError, hence a ValueError."""


class BusyDeviceError(UserError, RuntimeError):
    """A device was told to do something while it does something else."""


class MoveEndedError(UserError):
    """A move ended before its target because of a stop or of another move."""


def check_position(name: str, position: object, limits: tuple[float, float], units: str) -> None:
    """Refuse a target that is no number, or outside of limits (equal limits are none).

    Raises:
        OutOfLimitsError: The message names the device, the target and the limits.
    """
    try:
        number = float(position)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise OutOfLimitsError(f"{name}: {position!r} is no position; give a number") from None
    low, high = limits
    shown = f" {units}" if units else ""
    if math.isnan(number):
        raise OutOfLimitsError(f"{name}: nan is no position; give a number")
    if low < high and not low <= number <= high:
        message = f"{name}: {number:g}{shown} is outside of its limits {low:g} to {high:g}{shown}; it was not moved"
        raise OutOfLimitsError(message)
