"""What a plan would do, before anything moves: bluesky's simulator runs it dry.

Each target is checked against its device's limits, each device for being there and for whatever it asks for itself
(`check_before_run`, of detectors that write files), and the time is estimated from speeds and count times.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from bluesky import Msg
from bluesky import plan_stubs as bps
from bluesky.simulators import RunEngineSimulator
from bluesky.utils import MsgGenerator

from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.devices import offline
from instrument.framework.positioners import is_positioner, is_read_only

# What a point costs beside moves and counts, s: messages, Channel Access, the motor record's own 0.1 s. As measured on
# the virtual beamline.
PER_MOVE, PER_POINT = 0.08, 0.03
logger = logging.getLogger(LOGGER_NAME)

_dry: ContextVar[DryRun | None] = ContextVar("dry", default=None)  # what runs the plan, if that is run dry
ENDLESS = 100_000  # points; a plan that has more, and did not say so, is taken for one that goes on until Ctrl-C
AT_ONCE = 500  # messages; after as many the engine has its turn, to see Ctrl-C for instance
NOTHING_MOVED = "; nothing moved"  # the end of the line that a plan is refused with
NOT_MOVED = "; it was not moved"  # the end of the line that our devices refuse a target with


@dataclass(frozen=True)
class Kinematics:
    """How a motor moves.

    Attributes:
        position: Where it is (its unit).
        velocity: Unit per second.
        acceleration: Time to full speed (s).
    """

    position: float
    velocity: float
    acceleration: float

    def time_to(self, start: float, end: float) -> float:
        """How long a move takes (s): a trapezoid of speed, or a triangle where full speed is not reached."""
        distance = abs(end - start)
        if distance == 0.0 or self.velocity <= 0.0:
            return 0.0
        if distance >= self.velocity * self.acceleration:
            return distance / self.velocity + self.acceleration
        return 2.0 * math.sqrt(distance * self.acceleration / self.velocity)


@dataclass(repr=False)
class Forecast:
    """What a plan would do.

    Attributes:
        name: Of the plan.
        points: Events that it would record.
        ranges: Lowest and highest target of each device that it would move, by the device's name, in order.
        counters: Names of what it would trigger or read, but for what it moves.
        seconds: How long it would take (s); at least, if `at_least`.
        at_least: Something in it takes a time that nobody can tell.
        endless: It would go on until somebody ends it.
    """

    name: str
    points: int = 0
    ranges: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    counters: list[str] = field(default_factory=list)
    seconds: float = 0.0
    at_least: bool = False
    endless: bool = False

    def __repr__(self) -> str:
        return self.line()

    def line(self) -> str:
        """The forecast in one line."""
        parts = []
        if self.endless:
            parts.append("points until Ctrl-C")
        elif self.points:
            parts.append(f"{self.points} point{'' if self.points == 1 else 's'}")
        counters = [name for name in self.counters if name not in self.ranges]
        if counters and parts:
            parts[-1] += f" of {' '.join(counters)}"
        for name, (low, high) in self.ranges.items():
            numbers = isinstance(low, float)
            parts.append(f"{name} {low:g} to {high:g}" if numbers and low != high else f"{name} to {_shown(high)}")
        if not self.endless:
            parts.append(f"{'at least' if self.at_least else 'about'} {duration(self.seconds)}")
        return f"{self.name}: {', '.join(parts)}"


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 99.5:
        return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min" if minutes < 99.5 else f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def kinematics(motor: Any) -> MsgGenerator[Kinematics | None]:
    """How a motor moves, asked by messages; None of what has no velocity."""
    velocity, acceleration = getattr(motor, "velocity", None), getattr(motor, "acceleration", None)
    if velocity is None or acceleration is None or not hasattr(velocity, "read") or not hasattr(acceleration, "read"):
        return None
    return Kinematics(
        float((yield from bps.rd(motor, default_value=0.0))),
        float((yield from bps.rd(velocity, default_value=1.0))),
        float((yield from bps.rd(acceleration, default_value=0.0))),
    )


def count_time_of(detector: Any) -> Any:
    """The signal that says for how long a detector counts (s); None if it does not count for a time."""
    preset = getattr(detector, "preset_time", None)
    if preset is None:
        preset = getattr(getattr(detector, "cam", None), "acquire_time", None)
    return preset


@contextlib.contextmanager
def no_stacks() -> Iterator[None]:
    """Have Python format no frames of a stack, in all threads.

    Each of bluesky's stubs formats the whole stack when it is made, in case that nobody iterates it: 1.5 ms for a point
    of its `scan`. A stub that nobody iterates is told without the place then.
    """
    missing = object()
    before = getattr(sys, "tracebacklimit", missing)
    sys.tracebacklimit = 0
    try:
        yield
    finally:
        if before is missing:
            del sys.tracebacklimit
        else:
            sys.tracebacklimit = before  # type: ignore[assignment]


class _EnoughSeen(Exception):  # noqa: N818  no error
    """A plan has gone on for so long that it has no end."""


def is_dry() -> bool:
    """Is this plan run dry?"""
    return _dry.get() is not None


class DryRun:
    """Runs plans dry with bluesky's RunEngineSimulator and notes what they would do.

    Nothing is asked of any device but its limits and whether it is there.

    Args:
        name: What to call the plan.
        known: What signals and positioners read, as far as it is known; others read as None.
        points: How many points are expected.
        ask: Reads what is not known; None: it reads as None.
    """

    def __init__(
        self,
        name: str,
        known: Mapping[Any, Any] | None = None,
        points: int | None = None,
        ask: Callable[[Any], Any] | None = None,
    ) -> None:
        self.forecast = Forecast(name)
        self.moved: dict[Any, None] = {}  # positioners, in order
        self.triggered: dict[Any, None] = {}
        self.steps: list[tuple[str, Any, Any]] = []  # what takes time: ("set", obj, target) ...
        self._known = dict(known or {})
        self._points = points
        self._before = 0  # points of the plan before those
        self._ask = ask
        self._answer: Any = None  # to the last message
        self._in_event = False
        self._ready: set[int] = set()
        self._handlers = {
            "stage": self._stage,
            "set": self._set,
            "read": self._read,
            "locate": self._read,
            "trigger": self._trigger,
            "wait": self._wait,
            "sleep": self._sleep,
            "create": self._create,
            "save": self._save,
            "kickoff": self._unknown_time,
            "complete": self._unknown_time,
        }

    def run(self, plan: Any) -> None:
        """Run a plan dry, without a pause.

        Raises:
            UserError: A target is out of limits, or a device can't be used.
        """
        for _ in self.walk(plan):
            pass

    def expect(self, points: int | None, *, endless: bool) -> None:
        """Be told by the plan how many points follow."""
        self._points, self._before = points, self.forecast.points
        self.forecast.endless |= endless

    def walk(self, plan: Any) -> MsgGenerator[None]:
        """Run a plan dry, with a message now and then that does nothing, so that the engine has its turn.

        Raises:
            UserError: A target is out of limits, or a device can't be used.
        """
        iterator = iter(plan)
        try:
            while self._some_of(iterator):
                yield from bps.sleep(0)
        except _EnoughSeen:
            self.forecast.endless = True
        except UserError:
            raise
        except Exception as error:
            name = self.forecast.name
            raise UserError(
                f"{name}: goes by what it measures, so it can't be told beforehand what it does "
                f"({type(error).__name__}: {error})"
            ) from error
        finally:
            iterator.close()

    def _some_of(self, plan: Any) -> bool:
        """Take the next messages; False at the end."""
        outer = _dry.set(self)
        try:
            with no_stacks():
                for _ in range(AT_ONCE):
                    self._answer = self._take(plan.send(self._answer))
        except StopIteration:
            return False
        finally:
            _dry.reset(outer)
        return True

    # --- messages

    def _take(self, msg: Msg) -> Any:
        handle = self._handlers.get(msg.command)
        if handle is None:
            return None
        if msg.obj is not None and id(msg.obj) not in self._ready:
            self._require(msg.obj)
        return handle(msg)

    def _stage(self, msg: Msg) -> None:
        check = getattr(msg.obj, "check_before_run", None)
        if callable(check):
            try:
                check()
            except UserError as error:
                raise UserError(f"{self.forecast.name}: {error}; nothing moved") from error

    def _require(self, obj: Any) -> None:
        """See once that a device is there; what of it is connected at first use may not be yet."""
        self._ready.add(id(obj))
        root = getattr(obj, "root", obj)
        if not offline.answers_soon(root):
            raise UserError(f"{self.forecast.name}: {offline.error(root)}; nothing moved")

    def _set(self, msg: Msg) -> None:
        obj, target = msg.obj, msg.args[0]
        if is_read_only(obj):
            raise UserError(f"{self.forecast.name}: {obj.name} is read-only, it can't be moved; nothing moved")
        check = getattr(obj, "check_value", None)
        if callable(check):
            try:
                check(target)
            except Exception as error:
                point = self.forecast.points - self._before + 1
                of = f" of {self._points}" if self._points else ""
                where = f"point {point}{of}: " if self._points else ""
                reason = str(error).removesuffix(NOT_MOVED) or f"{obj.name} refuses {target!r}"
                raise UserError(f"{self.forecast.name}: {where}{reason}; nothing moved") from error
        self.steps.append(("set", obj, (target, msg.kwargs.get("group"))))
        self._known[obj] = target
        if is_positioner(obj) or hasattr(type(obj), "stop"):
            self.moved[obj] = None
            value = float(target) if isinstance(target, int | float) else target
            low, high = self.forecast.ranges.get(obj.name, (value, value))
            ordered = isinstance(low, float) and isinstance(value, float)
            self.forecast.ranges[obj.name] = (min(low, value), max(high, value)) if ordered else (value, value)

    def _read(self, msg: Msg) -> Any:
        obj = msg.obj
        if self._in_event and obj not in self.moved and obj.name not in self.forecast.counters:
            self.forecast.counters.append(obj.name)
        if obj not in self._known and self._ask is not None:
            self._known[obj] = self._ask(obj)
        value = self._known.get(obj)
        if value is None:
            return None
        if msg.command == "locate":
            return {"setpoint": value, "readback": value}
        return {obj.name: {"value": value, "timestamp": 0.0}}

    def _trigger(self, msg: Msg) -> None:
        self.triggered[msg.obj] = None
        if msg.obj.name not in self.forecast.counters:
            self.forecast.counters.append(msg.obj.name)
        self.steps.append(("trigger", msg.obj, (None, msg.kwargs.get("group"))))

    def _wait(self, msg: Msg) -> bool:
        self.steps.append(("wait", None, msg.kwargs.get("group") or (msg.args or [None])[0]))
        return True

    def _sleep(self, msg: Msg) -> None:
        self.steps.append(("sleep", None, float(msg.args[0])))

    def _create(self, _msg: Msg) -> None:
        self._in_event = True

    def _save(self, _msg: Msg) -> None:
        self._in_event = False
        self.forecast.points += 1
        if self.forecast.points > self._before + max(ENDLESS, self._points or 0):
            raise _EnoughSeen
        self.steps.append(("save", None, None))

    def _unknown_time(self, _msg: Msg) -> None:
        self.forecast.at_least = True

    # --- time

    def clock(self, motors: Mapping[Any, Kinematics | None], count_times: Mapping[Any, float]) -> Forecast:
        """Fill in how long it takes.

        Args:
            motors: How each of what is moved moves.
            count_times: How long each of what is triggered counts (s) unless the plan sets that.
        """
        forecast = self.forecast
        where = {motor: moves.position for motor, moves in motors.items() if moves is not None}
        presets = {count_time_of(detector): detector for detector in self.triggered}
        counts = dict(count_times)
        running: dict[Any, float] = {}
        for kind, obj, what in self.steps:
            if kind == "set":
                target, group = what
                moves = motors.get(obj)
                if obj in presets:
                    counts[presets[obj]] = float(target)
                elif moves is not None:
                    took = moves.time_to(where[obj], float(target)) + PER_MOVE
                    where[obj] = float(target)
                    running[group] = max(running.get(group, 0.0), took)
                elif obj in self.moved:
                    forecast.at_least = True
            elif kind == "trigger":
                running[what[1]] = max(running.get(what[1], 0.0), counts.get(obj, 0.0))
            elif kind == "wait":
                forecast.seconds += running.pop(what, 0.0)
            elif kind == "sleep":
                forecast.seconds += what
            else:
                forecast.seconds += PER_POINT
        return forecast


def forecast(
    name: str, make: Callable[[], MsgGenerator[Any]], *, points: int | None = None, known: Iterable[Any] = ()
) -> MsgGenerator[Forecast]:
    """Run a plan dry, and tell what it would do.

    Args:
        name: What to call it.
        make: Makes the plan.
        points: How many points it has.
        known: Signals and motors that it reads, to be read before.

    Raises:
        UserError: It would leave a limit, or something is not ready; one line that names the point.
    """
    values = {}
    for obj in known:
        values[obj] = yield from bps.rd(obj, default_value=0.0)
    dry = DryRun(name, values, points)
    yield from dry.walk(make())
    motors = {}
    for motor in dry.moved:
        motors[motor] = yield from kinematics(motor)
    count_times = {}
    for detector in dry.triggered:
        signal = count_time_of(detector)
        if signal is not None:
            count_times[detector] = float((yield from bps.rd(signal, default_value=1.0)))
    return dry.clock(motors, count_times)


def announced(
    name: str,
    make: Callable[[], MsgGenerator[Any]],
    *,
    points: int | None = None,
    known: Iterable[Any] = (),
    endless: bool = False,
    tell: bool = True,
) -> MsgGenerator[None]:
    """Tell in one line what a plan is about to do, unless not to `tell`; refuse it in one line if it can't.

    See `forecast`.
    """
    if (outer := _dry.get()) is not None:
        outer.expect(points, endless=endless)
        return
    found = yield from forecast(name, make, points=points, known=known)
    found.endless |= endless
    if tell:
        logger.info("%s", found.line())


@contextlib.contextmanager
def after_moves(stays: str) -> Iterator[None]:
    """Have a refusal of a later part of a plan tell where the parts before have left the motor, not that nothing moved.

    Args:
        stays: What is true instead; not told in a dry run, where nothing moves.
    """
    try:
        yield
    except UserError as error:
        reason = str(error)
        if is_dry() or not reason.endswith(NOTHING_MOVED):
            raise
        raise UserError(f"{reason.removesuffix(NOTHING_MOVED)}; {stays}") from error


def asked(name: str, plan: Any) -> Forecast:
    """What a plan would do, the devices asked at once: for the prompt, not for plans.

    Args:
        name: What to call it.
        plan: A plan that has not run; it is used up.

    Raises:
        UserError: It would leave a limit, or something is not ready.
    """

    def ask(obj: Any) -> Any:
        if is_positioner(obj):
            return obj.position
        is_signal = hasattr(obj, "get") and not hasattr(obj, "component_names")  # a camera has hundreds of them
        return obj.get() if is_signal else None

    dry = DryRun(name, ask=ask)
    dry.run(plan)

    def answer(messages: MsgGenerator[Any]) -> Any:
        simulator = RunEngineSimulator()
        simulator.add_handler(
            ("read", "locate"),
            lambda msg: (
                {"readback": ask(msg.obj)} if msg.command == "locate" else {msg.obj.name: {"value": ask(msg.obj)}}
            ),
        )
        simulator.simulate_plan(messages)
        return simulator.return_value

    return dry.clock(
        {motor: answer(kinematics(motor)) for motor in dry.moved},
        {d: float(signal.get()) for d in dry.triggered if (signal := count_time_of(d)) is not None},
    )
