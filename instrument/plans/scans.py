"""SPEC's scans, with SPEC's order of arguments: intervals (one less than points), then the count time.

Each is run dry first: a limit that a point would leave, or a device that is not there, is told in one line before
anything moves; otherwise what is to come is told in one line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator

from instrument.config.errors import UserError
from instrument.plans import checks, preflight
from instrument.plans.checks import plan
from instrument.plans.counting import count_times, counting_for, names, step_for


@plan
def ascan(
    motor: Any,
    start: float,
    finish: float,
    intervals: int,
    time: float | None = None,
    *,
    detectors: Any,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Scan one motor between two positions.

    Args:
        motor: What is moved.
        start: The first position.
        finish: The last position.
        intervals: One less than points.
        time: Count time of each point (s); None: as the detectors are set.
        detectors: What is read.
        md: Metadata.

    Returns:
        The run's uid.

    Raises:
        UserError: An argument is wrong, or a point is outside of the limits; nothing has moved.

    Example:
        ascan(m1, -1, 1, 20, 0.5)       ascan m1 -1 1 20 0.5
    """
    return (yield from _line("ascan", [(motor, start, finish)], intervals, time, detectors, md))


@plan
def dscan(
    motor: Any,
    start: float,
    finish: float,
    intervals: int,
    time: float | None = None,
    *,
    detectors: Any,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Scan one motor about where it is, and move it back there.

    Args:
        motor: What is moved.
        start: The first position, relative to where the motor is.
        finish: The last position, relative to where the motor is.
        intervals: One less than points.
        time: Count time of each point (s); None: as the detectors are set.
        detectors: What is read.
        md: Metadata.
    """
    return (yield from _line("dscan", [(motor, start, finish)], intervals, time, detectors, md, relative=True))


@plan
def a2scan(
    motor: Any,
    start: float,
    finish: float,
    motor2: Any,
    start2: float,
    finish2: float,
    intervals: int,
    time: float | None = None,
    *,
    detectors: Any,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Scan two motors together, each between two positions; see `ascan`."""
    moves = [(motor, start, finish), (motor2, start2, finish2)]
    return (yield from _line("a2scan", moves, intervals, time, detectors, md))


@plan
def d2scan(
    motor: Any,
    start: float,
    finish: float,
    motor2: Any,
    start2: float,
    finish2: float,
    intervals: int,
    time: float | None = None,
    *,
    detectors: Any,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Scan two motors together about where they are, and move them back; see `dscan`."""
    moves = [(motor, start, finish), (motor2, start2, finish2)]
    return (yield from _line("d2scan", moves, intervals, time, detectors, md, relative=True))


@plan
def mesh(
    motor: Any,
    start: float,
    finish: float,
    intervals: int,
    motor2: Any,
    start2: float,
    finish2: float,
    intervals2: int,
    time: float | None = None,
    *,
    detectors: Any,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Scan two motors over a grid: the first one along a line at each position of the second.

    Args:
        motor: The fast motor.
        start: Its first position.
        finish: Its last position.
        intervals: Its intervals, one less than points.
        motor2: The slow motor.
        start2: Its first position.
        finish2: Its last position.
        intervals2: Its intervals.
        time: Count time of each point (s); None: as the detectors are set.
        detectors: What is read.
        md: Metadata.
    """
    fast, slow = (motor, start, finish, intervals), (motor2, start2, finish2, intervals2)
    return (yield from _grid("mesh", fast, slow, time, detectors, md))


@plan
def dmesh(
    motor: Any,
    start: float,
    finish: float,
    intervals: int,
    motor2: Any,
    start2: float,
    finish2: float,
    intervals2: int,
    time: float | None = None,
    *,
    detectors: Any,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Scan two motors over a grid about where they are, and move them back; see `mesh`."""
    fast, slow = (motor, start, finish, intervals), (motor2, start2, finish2, intervals2)
    return (yield from _grid("dmesh", fast, slow, time, detectors, md, relative=True))


@plan
def lookupscan(*arguments: Any, detectors: Any, md: dict[str, Any] | None = None) -> MsgGenerator[str]:
    """Scan motors over lists of positions, all motors moving to their next one together.

    Args:
        arguments: Motor, positions, motor, positions, ...; last the count time of each point (s), if any.
        detectors: What is read.
        md: Metadata.

    Example:
        lookupscan(m1, [0, 0.1, 0.5], 1)
    """
    name = "lookupscan"
    time = arguments[-1] if len(arguments) % 2 else None
    pairs = arguments[: len(arguments) // 2 * 2]
    if not pairs:
        raise UserError(f"{name} needs motor and positions, as in {name}(m1, [0, 0.1, 0.5], 1); nothing moved")
    time = None if time is None else checks.number(name, "time", time, positive=True)
    detectors = checks.detectors_of(name, detectors)
    lists: list[Any] = []
    for motor, positions in zip(pairs[::2], pairs[1::2], strict=True):
        checks.motor_of(name, motor)
        if isinstance(positions, str) or not hasattr(positions, "__iter__"):
            raise UserError(f"{name}: {motor.name} needs a list of positions, not {positions!r}; nothing moved")
        lists += [motor, [checks.number(name, motor.name, position) for position in positions]]
    lengths = {len(positions) for positions in lists[1::2]}
    if len(lengths) != 1 or 0 in lengths:
        raise UserError(f"{name}: each motor needs as many positions, 1 or more, as the others; nothing moved")
    (points,) = lengths
    metadata = _metadata(
        name, detectors, md, time=time, positions=dict(zip(names(lists[::2]), lists[1::2], strict=True))
    )

    def scan() -> MsgGenerator[str]:
        step = step_for(time, detectors)
        return counting_for(time, detectors, bp.list_scan(detectors, *lists, per_step=step, md=metadata))

    yield from preflight.announced(name, scan, points=points, known=count_times(detectors))
    return (yield from scan())


# --- what they have in common


def _line(
    name: str,
    moves: Sequence[tuple[Any, Any, Any]],
    intervals: Any,
    time: Any,
    detectors: Any,
    md: dict[str, Any] | None,
    *,
    relative: bool = False,
) -> MsgGenerator[str]:
    points = checks.count(name, "intervals", intervals) + 1
    time = None if time is None else checks.number(name, "time", time, positive=True)
    detectors = checks.detectors_of(name, detectors)
    ranges = _ranges(name, moves)
    metadata = _metadata(name, detectors, md, **_arguments(ranges), intervals=points - 1, time=time)
    origin = yield from _origin(ranges, relative=relative)
    arguments = [part for motor, start, finish in _about(ranges, origin) for part in (motor, start, finish)]

    def scan() -> MsgGenerator[str]:
        inner = bp.scan(detectors, *arguments, num=points, per_step=step_for(time, detectors), md=metadata)
        return _and_back(counting_for(time, detectors, inner), origin)

    yield from preflight.announced(name, scan, points=points, known=count_times(detectors))
    return (yield from scan())


def _grid(
    name: str,
    fast: tuple[Any, Any, Any, Any],
    slow: tuple[Any, Any, Any, Any],
    time: Any,
    detectors: Any,
    md: dict[str, Any] | None,
    *,
    relative: bool = False,
) -> MsgGenerator[str]:
    columns = checks.count(name, "intervals", fast[3]) + 1
    rows = checks.count(name, "intervals2", slow[3]) + 1
    time = None if time is None else checks.number(name, "time", time, positive=True)
    detectors = checks.detectors_of(name, detectors)
    ranges = _ranges(name, (fast[:3], slow[:3]))
    arguments = {
        **_arguments(ranges[:1]),
        "intervals": columns - 1,
        **_arguments(ranges[1:], first=2),
        "intervals2": rows - 1,
    }
    metadata = _metadata(name, detectors, md, **arguments, time=time)
    origin = yield from _origin(ranges, relative=relative)
    quick, outer = _about(ranges, origin)

    def scan() -> MsgGenerator[str]:
        step = step_for(time, detectors)
        inner = bp.grid_scan(detectors, *outer, rows, *quick, columns, False, per_step=step, md=metadata)
        return _and_back(counting_for(time, detectors, inner), origin)

    yield from preflight.announced(name, scan, points=rows * columns, known=count_times(detectors))
    return (yield from scan())


def _ranges(name: str, moves: Sequence[tuple[Any, Any, Any]]) -> list[tuple[Any, float, float]]:
    ranges = []
    for number, (motor, start, finish) in enumerate(moves, 1):
        suffix = "" if number == 1 else str(number)
        checks.motor_of(name, motor)
        if any(motor is other for other, _, _ in ranges):
            raise UserError(f"{name}: {motor.name} is named twice; nothing moved")
        ranges.append(
            (
                motor,
                checks.number(name, f"start{suffix}", start),
                checks.number(name, f"finish{suffix}", finish),
            )
        )
    return ranges


def _arguments(ranges: Sequence[tuple[Any, float, float]], first: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, (motor, start, finish) in enumerate(ranges, first):
        suffix = "" if number == 1 else str(number)
        found |= {f"motor{suffix}": motor.name, f"start{suffix}": start, f"finish{suffix}": finish}
    return found


def _metadata(name: str, detectors: Sequence[Any], md: dict[str, Any] | None, **arguments: Any) -> dict[str, Any]:
    return {"plan_name": name, "plan_args": {**arguments, "detectors": names(detectors)}, **(md or {})}


def _origin(ranges: Sequence[tuple[Any, float, float]], *, relative: bool) -> MsgGenerator[dict[Any, float]]:
    """Where the motors are, of a relative scan."""
    origin = {}
    for motor, _, _ in ranges if relative else ():
        origin[motor] = float((yield from bps.rd(motor, default_value=0.0)))
    return origin


def _about(ranges: Sequence[tuple[Any, float, float]], origin: dict[Any, float]) -> list[tuple[Any, float, float]]:
    return [(m, origin.get(m, 0.0) + start, origin.get(m, 0.0) + finish) for m, start, finish in ranges]


def _and_back(inner: MsgGenerator[Any], origin: dict[Any, float]) -> MsgGenerator[Any]:
    if not origin:
        return (yield from inner)
    back = [part for pair in origin.items() for part in pair]

    def move_back() -> MsgGenerator[None]:
        yield from bps.mv(*back)

    return (yield from bpp.finalize_wrapper(inner, move_back))
