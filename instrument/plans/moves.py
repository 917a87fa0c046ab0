"""Move motors, and say where they are: SPEC's mv, mvr, umv, umvr, set_lm, set_dial, set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from bluesky import Msg
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator, short_uid
from ophyd import Device

from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.devices import offline
from instrument.framework import screen
from instrument.plans import checks, preflight
from instrument.plans.checks import plan

logger = logging.getLogger(LOGGER_NAME)

# s between two looks at a signal that connects, or that is being set, and how many
LOOK, LOOKS = 0.02, 150
SAME_PLACE = 1e-9  # units; a motor that is closer to where it is to go is there
LINE_INTERVAL = 0.1  # s between two looks at a position that is shown live


@plan
def mv(*moves: Any) -> MsgGenerator[None]:
    """Move motors to positions, all at the same time, and wait for them.

    Args:
        moves: Motor, position, motor, position, ...

    Raises:
        UserError: An argument is wrong, or a position is outside of the limits; nothing has moved.

    Example:
        mv(m1, 3)       mv m1 3       mv m1 3 m2 -1
    """
    pairs = yield from _there("mv", moves)
    yield from bps.mv(*(part for pair in pairs for part in pair))


@plan
def mvr(*moves: Any) -> MsgGenerator[None]:
    """Move motors by distances from where they are, and wait for them.

    Args:
        moves: Motor, distance, motor, distance, ...

    Raises:
        UserError: See `mv`.
    """
    pairs = yield from _from_here("mvr", moves)
    yield from bps.mv(*(part for pair in pairs for part in pair))


@plan
def umv(*moves: Any) -> MsgGenerator[None]:
    """Move motors to positions as `mv` does, and show where they are on one line while they move.

    Args:
        moves: Motor, position, motor, position, ...
    """
    yield from _shown((yield from _there("umv", moves)))


@plan
def umvr(*moves: Any) -> MsgGenerator[None]:
    """Move motors by distances as `mvr` does, and show where they are on one line while they move.

    Args:
        moves: Motor, distance, motor, distance, ...
    """
    yield from _shown((yield from _from_here("umvr", moves)))


def _there(name: str, moves: Sequence[Any]) -> MsgGenerator[list[tuple[Any, Any]]]:
    """Pairs of motor and position, once all of them answer: one that is offline is told before another one moves."""
    for motor in moves[::2]:
        device = getattr(motor, "root", motor)
        gone = isinstance(device, Device) and not offline.answers(device)
        if gone or not (yield from _connects(motor)):
            yield from bps.read(motor)  # which the engine refuses, or waits for a device that is connecting
    return checks.moves_of(name, moves)


def _from_here(name: str, moves: Sequence[Any]) -> MsgGenerator[list[tuple[Any, Any]]]:
    pairs = []
    for motor, distance in checks.moves_of(name, moves, relative=True):
        here = float((yield from bps.rd(motor, default_value=0.0)))
        pairs.append((motor, here + distance))
    for motor, target in pairs:
        checks.within_limits(name, motor, (target,))
    return pairs


def _shown(pairs: Sequence[tuple[Any, Any]]) -> MsgGenerator[None]:
    if preflight.is_dry():
        yield from bps.mv(*(part for pair in pairs for part in pair))
        return
    group, motors = short_uid("umv"), [motor for motor, _ in pairs]
    live = screen.LiveLine()
    began = yield from _positions(motors)
    try:
        statuses = []
        for motor, target in pairs:
            statuses.append((yield Msg("set", motor, target, group=group)))
        while any(status is not None and not status.done for status in statuses):
            live.show(_line(motors, (yield from _positions(motors))))
            yield from bps.sleep(LINE_INTERVAL)
        yield from bps.wait(group)
    finally:
        live.clear()
    ended = yield from _positions(motors)
    for motor, old, new in zip(motors, began, ended, strict=True):
        live.end(f"{motor.name}: {_number(old)} -> {_number(new)}{_unit(motor)}")


def _positions(motors: Sequence[Any]) -> MsgGenerator[list[Any]]:
    found: dict[Any, Any] = {}
    for motor in motors:
        found[motor] = yield from bps.rd(motor, default_value=0.0)
    return list(found.values())


def _line(motors: Sequence[Any], positions: Sequence[Any]) -> str:
    pairs = zip(motors, positions, strict=True)
    return "   ".join(f"{motor.name} {_number(position)}{_unit(motor)}" for motor, position in pairs)


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _unit(motor: Any) -> str:
    unit = getattr(motor, "egu", "")
    return f" {unit}" if isinstance(unit, str) and unit else ""


@plan
def set_lm(motor: Any, low: float, high: float) -> MsgGenerator[None]:
    """Set a motor's soft limits (user units).

    Args:
        motor: An EPICS motor.
        low: The lower limit.
        high: The upper limit.

    Raises:
        UserError: The limits are reversed, or the motor has none that can be set; nothing is changed.
    """
    motor = checks.motor_of("set_lm", motor)
    low, high = checks.number("set_lm", "low", low), checks.number("set_lm", "high", high)
    if low > high:
        raise UserError(f"set_lm: low {low:g} is above high {high:g}: give the lower limit first; nothing is changed")
    yield from bps.rd(motor, default_value=0.0)  # one that is offline is told at once
    low_signal = yield from _part("set_lm", motor, "low_limit_travel")
    high_signal = yield from _part("set_lm", motor, "high_limit_travel")
    before = yield from _positions([low_signal, high_signal])

    def put_back(_error: Exception) -> MsgGenerator[None]:
        for signal, limit in zip((low_signal, high_signal), before, strict=True):
            yield from set_back(signal, limit)

    yield from bpp.contingency_wrapper(bps.mv(low_signal, low, high_signal, high), except_plan=put_back)
    if not preflight.is_dry():
        logger.info("%s: limits %g %g -> %g %g", motor.name, *before, low, high)


@plan
def set_user(motor: Any, position: float) -> MsgGenerator[None]:
    """Say that where a motor is, is `position` in user units: its offset changes, nothing moves.

    Args:
        motor: An EPICS motor.
        position: What its position is to be called.

    Raises:
        UserError: The motor can't be redefined; nothing is changed.
    """
    yield from _redefine("set_user", motor, position, "user_setpoint")


@plan
def set_dial(motor: Any, position: float) -> MsgGenerator[None]:
    """Say that where a motor is, is `position` in dial units, as its controller knows it; nothing moves.

    The user position changes with it, the offset stays.

    Args:
        motor: An EPICS motor of ours (instrument.devices.motors.Motor).
        position: What its dial position is to be called.

    Raises:
        UserError: The motor can't be redefined; nothing is changed.
    """
    motor = checks.motor_of("set_dial", motor)
    position = checks.number("set_dial", "position", position)
    yield from bps.rd(motor, default_value=0.0)  # one that is offline is told at once
    # A motor record with a variable offset would keep the user position instead.
    frozen = yield from _part("set_dial", motor, "offset_freeze_switch")
    before = yield from bps.rd(frozen, default_value=0)

    def redefined() -> MsgGenerator[None]:
        if before != 1:
            yield from bps.abs_set(frozen, 1, wait=True)
        yield from _redefine("set_dial", motor, position, "dial_setpoint")

    def thaw() -> MsgGenerator[None]:
        if before != 1:
            yield from set_back(frozen, before)

    yield from bpp.finalize_wrapper(redefined(), thaw)


def _redefine(name: str, motor: Any, position: float, part: str) -> MsgGenerator[None]:
    motor = checks.motor_of(name, motor)
    position = checks.number(name, "position", position)
    before = yield from bps.rd(motor, default_value=0.0)
    use = yield from _part(name, motor, "set_use_switch")
    target = yield from _part(name, motor, part)

    def redefine() -> MsgGenerator[None]:
        yield from bps.abs_set(use, 1, wait=True)
        yield from bps.abs_set(target, position, wait=True)

    def use_again() -> MsgGenerator[None]:
        yield from set_back(use, 0)

    yield from bpp.finalize_wrapper(redefine(), use_again)
    after = yield from bps.rd(motor, default_value=0.0)
    if not preflight.is_dry():
        logger.info("%s: %s %g; user position %s -> %s", motor.name, name, position, _number(before), _number(after))


def _part(name: str, motor: Any, part: str) -> MsgGenerator[Any]:
    """A component of a motor, once it is connected, which may be only at its first use."""
    signal = getattr(motor, part, None)
    if signal is None:
        raise UserError(f"{name}: {motor.name} is no EPICS motor with {part}; nothing is changed")
    if not (yield from _connects(signal)):
        raise UserError(f"{name}: no answer from {signal.pvname}; nothing is changed")
    return signal


def _connects(signal: Any) -> MsgGenerator[bool]:
    """Whether a signal answers, now or in a moment: components are connected at their first use."""
    for _ in range(1 if preflight.is_dry() else LOOKS):
        if offline.answers(signal):
            return True
        yield from bps.sleep(LOOK)
    return False


def set_back(signal: Any, value: Any) -> MsgGenerator[None]:
    """Set a signal in the clean-up of a plan, which may have been interrupted while it was being set."""
    for _ in range(LOOKS):
        try:
            yield from bps.abs_set(signal, value, wait=True)
        except RuntimeError:  # of ophyd: "Another set() call is still in progress"
            yield from bps.sleep(LOOK)
        else:
            return
    yield from bps.abs_set(signal, value, wait=True)


@plan
def go_back(what: str, places: Sequence[tuple[Any, float]]) -> MsgGenerator[None]:
    """Move motors to where they were, after a table of where they are and where they go.

    Args:
        what: Where that is, for the table.
        places: Motors and positions.

    Raises:
        UserError: A position is outside of the limits; nothing has moved.
    """
    pairs = checks.moves_of("goto_position", [part for place in places for part in place])
    here = yield from _positions([motor for motor, _ in pairs])
    differ = [(m, old, new) for (m, new), old in zip(pairs, here, strict=True) if abs(new - old) > SAME_PLACE]
    width = max((len(motor.name) for motor, _, _ in differ), default=0)
    if not preflight.is_dry():
        screen.tell(f"to {what}:" if differ else f"all motors are at {what}")
        for motor, old, new in differ:
            screen.tell(f"  {motor.name:<{width}} {_number(old):>10} -> {_number(new)}{_unit(motor)}")
    if differ:
        yield from bps.mv(*(part for motor, _, new in differ for part in (motor, new)))
