"""Arguments of plans are checked before the first message, so that a mistake moves nothing. One line each."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any

from bluesky.utils import Plan

from instrument.config.errors import UserError
from instrument.framework.positioners import is_positioner, is_read_only

# Plans that also take motor, start, finish and intervals, as SPEC does; Python would miss another argument there.
IN_SPEC_ORDER = {"lup": "lup m1 -0.2 0.2 20"}


class PlanArgumentError(UserError, TypeError):
    """A plan or command was called with arguments that it does not take, or without what it needs; also a TypeError."""


def plan(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: bluesky's `plan`, which tells a misspelt argument in one line.

    (bluesky's own adds the traceback of a half-made object to Python's message.)
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Plan:
        fitting(function.__name__, signature, args, kwargs)
        return Plan(function, *args, **kwargs)

    wrapper._is_plan_ = True  # type: ignore[attr-defined]
    return wrapper


def fitting(name: str, signature: inspect.Signature, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Make sure that the arguments of a call fit.

    Raises:
        PlanArgumentError: They do not; the line says what is taken.
    """
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise PlanArgumentError(_call_mistake(name, signature, args, kwargs, str(error))) from None


def _call_mistake(name: str, signature: inspect.Signature, args: Sequence[Any], given: dict[str, Any], why: str) -> str:
    takes = f"it takes {', '.join(signature.parameters) or 'no arguments'}; nothing moved"
    for argument in given:
        if argument not in signature.parameters:
            near = difflib.get_close_matches(argument, signature.parameters, 1)
            hint = f": did you mean {near[0]!r}?" if near else ";"
            return f"{name} has no argument {argument!r}{hint} {takes}"
    if name in IN_SPEC_ORDER and not given.keys() & {"start", "finish"} and len(args) in (2, 3):
        if is_number(args[1]):
            missing = "the intervals are" if len(args) == 3 else "finish and intervals are"
            return f"{name}: {missing} missing, as in {IN_SPEC_ORDER[name]}; nothing moved"
    return f"{name}: {why}; {takes}"


def motor_of(plan: str, motor: Any) -> Any:
    """`motor`, if it can be moved.

    Raises:
        UserError: It is something else, its name for instance, or a signal that is only read.
    """
    if isinstance(motor, str):
        raise UserError(
            f"{plan}: {motor!r} is text, not a motor: give the device itself, without quotes; nothing moved"
        )
    if not callable(getattr(motor, "set", None)) or not hasattr(motor, "name"):
        raise UserError(f"{plan}: {_shown(motor)} can't be moved: give a motor; nothing moved")
    if is_read_only(motor):
        raise UserError(f"{plan}: {motor.name} is read-only, it can't be moved: give a motor; nothing moved")
    return motor


def moves_of(plan: str, moves: Sequence[Any], *, relative: bool = False) -> list[tuple[Any, Any]]:
    """Pairs of motor and position; of what has a number for a position, a finite one within its limits.

    Args:
        plan: Its name, for messages.
        moves: Motor, position, motor, position, ...
        relative: The positions are distances.

    Raises:
        UserError: Something is missing, named twice, or no place to go.
    """
    if not moves or len(moves) % 2:
        what = "distance" if relative else "position"
        given = " ".join(map(_shown, moves)) or "nothing"
        raise UserError(f"{plan} needs motor and {what}, as in {plan} m1 1, not {given}; nothing moved")
    pairs = []
    for motor, position in zip(moves[::2], moves[1::2], strict=True):
        motor_of(plan, motor)
        if any(motor is other for other, _ in pairs):
            raise UserError(f"{plan}: {motor.name} is named twice; nothing moved")
        if relative or is_positioner(motor):
            target = number(plan, motor.name, position)
            if not relative:
                within_limits(plan, motor, (target,))
        else:
            target = position
            check = getattr(motor, "check_value", None)
            if callable(check):
                check(target)
        pairs.append((motor, target))
    return pairs


def detectors_of(plan: str, detectors: Any) -> list[Any]:
    """A list of detectors, made of one or of several.

    Raises:
        UserError: There is none, or one is something else.
    """
    given = list(detectors) if isinstance(detectors, list | tuple | set) else [detectors]
    if not given:
        raise UserError(f"{plan}: no detector is given; nothing moved")
    for detector in given:
        if isinstance(detector, str):
            raise UserError(
                f"{plan}: {detector!r} is text, not a detector: give the device itself, without quotes; nothing moved"
            )
        if not callable(getattr(detector, "read", None)) or not hasattr(detector, "name"):
            raise UserError(f"{plan}: {_shown(detector)} can't be read: give a detector; nothing moved")
    return given


def is_number(value: Any) -> bool:
    """Whether it is a number, as a position is, and no motor."""
    return isinstance(value, Real) and not isinstance(value, bool)


def number(plan: str, name: str, value: Any, *, positive: bool = False, least: float | None = None) -> float:
    """`value`, if it is a finite number.

    Raises:
        UserError: It is not, or it is 0 or less where it has to be positive, or less than `least`.
    """
    try:
        if isinstance(value, bool | str):
            raise TypeError
        result = float(value)
    except (TypeError, ValueError):
        raise UserError(f"{plan}: {name}={_shown(value)} is no number; nothing moved") from None
    if not math.isfinite(result):
        raise UserError(f"{plan}: {name}={result} is no place to go; nothing moved")
    if positive and result <= 0:
        raise UserError(f"{plan}: {name}={result:g} has to be more than 0; nothing moved")
    if least is not None and result < least:
        raise UserError(f"{plan}: {name}={result:g} has to be {least:g} or more; nothing moved")
    return result


def count(plan: str, name: str, value: Any, least: int = 1) -> int:
    """`value`, if it is a whole number, `least` or more.

    Raises:
        UserError: It is not.
    """
    try:
        whole = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        whole = least - 1
    if whole < least:
        raise UserError(f"{plan}: {name}={_shown(value)} has to be a whole number, {least} or more; nothing moved")
    return whole


def within_limits(plan: str, motor: Any, targets: Iterable[float]) -> None:
    """Refuse targets beyond the soft limits, as far as the motor knows them without being asked (equal ones are none).

    Raises:
        UserError: A target is beyond them.
    """
    limits = getattr(motor, "limits", None)
    if not isinstance(limits, tuple | list) or len(limits) != 2:
        return
    low, high = limits
    if low is None or high is None or not low < high:
        return
    for target in targets:
        if not low <= target <= high:
            raise UserError(
                f"{plan}: {motor.name} would go to {target:g}, outside of its limits {low:g} to {high:g}; nothing moved"
            )


def clipped(motor: Any, *targets: float) -> list[float]:
    """Targets, those beyond the soft limits replaced by the limit, as far as the motor knows them."""
    limits = getattr(motor, "limits", None)
    if not isinstance(limits, tuple | list) or len(limits) != 2 or None in limits or not limits[0] < limits[1]:
        return list(targets)
    return [min(max(target, limits[0]), limits[1]) for target in targets]


def _shown(value: Any) -> str:
    text = getattr(value, "name", None) or getattr(value, "__name__", None) or repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
