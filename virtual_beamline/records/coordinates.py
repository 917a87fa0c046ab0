"""The coordinate systems of a motor record, and how a write to one field moves the others.

Three coordinates name one position: *user* (VAL), *dial* (DVAL) and *raw* steps (RVAL)::

    user = dial * DIR + OFF        dial = raw * MRES        MRES = UREV / SREV

Each function takes anything that has the motor record's fields as attributes (the record itself, in the IOC), is
called after one field was written, and makes the others agree, as the motor record's documentation has it. None
changes anything before it raises.
"""

from __future__ import annotations

import math
from typing import Protocol

RAW_LARGEST = 2**31 - 1
"""RVAL and the position register are 32-bit numbers."""


class CoordinateError(ValueError):
    """A value that no position can have: not a number, or beyond the 32 bits of the position register."""


class Coordinates(Protocol):
    """The fields that take part."""

    VAL: float
    DVAL: float
    RVAL: int
    OFF: float
    DIR: int
    FOFF: int
    MRES: float
    SREV: int
    UREV: float
    HLM: float
    LLM: float
    DHLM: float
    DLLM: float
    RHLM: float
    RLLM: float


def sign(motor: Coordinates) -> int:
    """1 or -1: how user and dial coordinates lie to each other."""
    return -1 if motor.DIR else 1


def to_user(motor: Coordinates, dial: float) -> float:
    """The user coordinate of a dial coordinate."""
    return dial * sign(motor) + motor.OFF


def to_dial(motor: Coordinates, user: float) -> float:
    """The dial coordinate of a user coordinate."""
    return (user - motor.OFF) * sign(motor)


def nearest(value: float) -> int:
    """The nearest whole number, halves away from zero."""
    return math.floor(value + 0.5) if value >= 0 else -math.floor(-value + 0.5)


def to_raw(dial: float, step: float) -> int:
    """The steps of a dial coordinate.

    Raises:
        CoordinateError: it is not finite, or beyond the position register.
    """
    steps = dial / step
    if not math.isfinite(steps) or abs(steps) > RAW_LARGEST:
        msg = f"position {dial} in steps of {step} is beyond the position register"
        raise CoordinateError(msg)
    return nearest(steps)


def from_raw(motor: Coordinates, raw: int) -> float:
    """The dial coordinate of steps; by way of revolutions, so that 411 steps of 0.001 are 0.411 to the last digit."""
    return raw * motor.UREV / motor.SREV


# -- drive fields: where to go ---------------------------------------------------------------------------------


def target_user(motor: Coordinates, user: float) -> None:
    """VAL was written, to move there."""
    dial = to_dial(motor, user)
    raw = to_raw(dial, motor.MRES)
    motor.VAL, motor.DVAL, motor.RVAL = user, dial, raw


def target_dial(motor: Coordinates, dial: float) -> None:
    """DVAL was written, to move there."""
    raw = to_raw(dial, motor.MRES)
    motor.VAL, motor.DVAL, motor.RVAL = to_user(motor, dial), dial, raw


def target_raw(motor: Coordinates, raw: int) -> None:
    """RVAL was written, to move there."""
    dial = from_raw(motor, raw)
    motor.VAL, motor.DVAL, motor.RVAL = to_user(motor, dial), dial, raw


# -- calibration: what the present position is called (SET = 1) -------------------------------------------------


def define_user(motor: Coordinates, user: float) -> bool:
    """VAL was written, to call the present position so.

    Returns:
        Whether the position register has to be loaded with DVAL; else the offset took it up.
    """
    if motor.FOFF:
        target_user(motor, user)
        return True
    offset = user - motor.DVAL * sign(motor)
    if not math.isfinite(offset):
        msg = f"position {user} is no number"
        raise CoordinateError(msg)
    motor.VAL, motor.OFF = user, offset
    follow_dial_limits(motor)
    return False


def define_dial(motor: Coordinates, dial: float) -> None:
    """DVAL was written, to call the present position so; the position register has to be loaded with it."""
    raw = to_raw(dial, motor.MRES)
    if motor.FOFF:
        motor.VAL = to_user(motor, dial)
    else:
        motor.OFF = motor.VAL - dial * sign(motor)
    motor.DVAL, motor.RVAL = dial, raw
    follow_dial_limits(motor)


def follow_offset(motor: Coordinates) -> None:
    """OFF was written: the same dial position has another user coordinate."""
    if not math.isfinite(motor.OFF):
        msg = f"offset {motor.OFF} is no number"
        raise CoordinateError(msg)
    motor.VAL = to_user(motor, motor.DVAL)
    follow_dial_limits(motor)


def follow_direction(motor: Coordinates) -> None:
    """DIR was written: a frozen offset stays, and VAL changes; else VAL stays, and the offset changes."""
    if motor.FOFF:
        motor.VAL = to_user(motor, motor.DVAL)
    else:
        motor.OFF = motor.VAL - motor.DVAL * sign(motor)
    follow_dial_limits(motor)


# -- limits -----------------------------------------------------------------------------------------------------


def follow_dial_limits(motor: Coordinates) -> None:
    """DHLM, DLLM, OFF, DIR or MRES changed: the limits in the other coordinates."""
    ends = to_user(motor, motor.DHLM), to_user(motor, motor.DLLM)
    raw_ends = motor.DHLM / motor.MRES, motor.DLLM / motor.MRES
    # DIR or MRES below zero exchange high and low; limits that are crossed stay crossed.
    motor.HLM, motor.LLM = ends if sign(motor) > 0 else ends[::-1]
    motor.RHLM, motor.RLLM = raw_ends if motor.MRES > 0 else raw_ends[::-1]


def follow_user_limit(motor: Coordinates, field: str) -> None:
    """HLM or LLM was written."""
    dial = to_dial(motor, motor.HLM if field == "HLM" else motor.LLM)
    if not math.isfinite(dial):
        msg = f"limit {field} is no number"
        raise CoordinateError(msg)
    if (field == "HLM") == (sign(motor) > 0):
        motor.DHLM = dial
    else:
        motor.DLLM = dial
    follow_dial_limits(motor)


def has_limits(motor: Coordinates) -> bool:
    """Both dial limits zero switch them off."""
    return not motor.DHLM == motor.DLLM == 0


def within_limits(motor: Coordinates, dial: float) -> bool:
    """Whether a dial position is allowed; a rounding error beyond a limit is."""
    if not has_limits(motor):
        return True
    slack = 1e-9 * max(abs(motor.DHLM), abs(motor.DLLM), abs(motor.OFF), 1.0)
    return motor.DLLM - slack <= dial <= motor.DHLM + slack


# -- resolution -------------------------------------------------------------------------------------------------


def resolution(motor: Coordinates, field: str) -> tuple[float, float]:
    """MRES and UREV after ``field`` (MRES, UREV or SREV) was written.

    Raises:
        CoordinateError: zero, negative steps per revolution, or not a number.
    """
    if motor.SREV <= 0:
        msg = f"SREV {motor.SREV}: steps per revolution must be positive"
        raise CoordinateError(msg)
    step, turn = (motor.MRES, motor.MRES * motor.SREV) if field == "MRES" else (motor.UREV / motor.SREV, motor.UREV)
    if not (math.isfinite(step) and math.isfinite(turn) and step and turn):
        msg = f"{field}: a step of {step}, {turn} per revolution, is no resolution"
        raise CoordinateError(msg)
    return step, turn


def rescale(motor: Coordinates, step: float, turn: float, *, keep_raw: bool) -> None:
    """A step is now ``step`` long: with ``keep_raw`` (SET = 1) dial and user follow raw, else raw follows dial."""
    if keep_raw:
        dial = motor.RVAL * step
        if not math.isfinite(dial):
            msg = f"{motor.RVAL} steps of {step} are beyond all positions"
            raise CoordinateError(msg)
        motor.DVAL, motor.VAL = dial, to_user(motor, dial)
    else:
        motor.RVAL = to_raw(motor.DVAL, step)
    motor.MRES, motor.UREV = step, turn
    follow_dial_limits(motor)
