"""Count: for how long, with what; SPEC's ct and timescan."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bluesky import Msg
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator, short_uid

from instrument.framework import screen
from instrument.plans import checks, preflight
from instrument.plans.checks import plan
from instrument.plans.moves import set_back
from instrument.plans.preflight import count_time_of

TakeReading = Callable[[Sequence[Any]], MsgGenerator[Any]]


def counting_for(seconds: float | None, detectors: Sequence[Any], inner: MsgGenerator[Any]) -> MsgGenerator[Any]:
    """Run a plan with the detectors' count times set, and set them back afterwards.

    Args:
        seconds: Count time; None leaves them as they are.
        detectors: Those that count for a time are set.
        inner: The plan.
    """
    changes: list[Any] = []
    before_changes: list[tuple[Any, float]] = []
    for signal in count_times(detectors) if seconds is not None else ():
        before = yield from bps.rd(signal, default_value=seconds)
        if before != seconds:
            changes += [signal, seconds]
            before_changes.append((signal, before))
    if not changes:
        return (yield from inner)

    def changed() -> MsgGenerator[Any]:
        yield from bps.mv(*changes)
        return (yield from inner)

    def set_all_back() -> MsgGenerator[None]:
        for signal, before in before_changes:
            yield from set_back(signal, before)

    return (yield from bpp.finalize_wrapper(changed(), set_all_back))


def count_times(detectors: Sequence[Any]) -> list[Any]:
    """The signals that say for how long detectors count; those that don't count for a time have none."""
    return [signal for detector in detectors if (signal := count_time_of(detector)) is not None]


def reading_for(seconds: float | None, detectors: Sequence[Any]) -> TakeReading:
    """How a point is read: where no detector counts for a time, that time is waited first."""
    if seconds is None or any(count_time_of(detector) is not None for detector in detectors):
        return bps.trigger_and_read

    def waited(devices: Sequence[Any], name: str = "primary") -> MsgGenerator[Any]:
        yield from bps.sleep(seconds)
        return (yield from bps.trigger_and_read(devices, name=name))

    return waited


def step_for(time: float | None, detectors: Sequence[Any]) -> Callable[..., MsgGenerator[Any]]:
    """How a point is made: bluesky's `one_nd_step`, and its messages without the stubs where it is run dry.

    Each of the ten stubs of a point formats the whole call stack, in case that nobody iterates it: 0.7 ms a point.
    """
    take_reading = reading_for(time, detectors)

    def step(detectors: Sequence[Any], step: Mapping[Any, float], pos_cache: dict[Any, Any]) -> MsgGenerator[Any]:
        if not preflight.is_dry():
            return (yield from bps.one_nd_step(detectors, step, pos_cache, take_reading))
        for motor, position in step.items():
            if position != pos_cache[motor]:
                yield Msg("set", motor, position, group="set")
                pos_cache[motor] = position
        yield Msg("wait", None, group="set")
        if take_reading is not bps.trigger_and_read:
            yield Msg("sleep", None, time)
        for detector in detectors:
            yield Msg("trigger", detector, group="trigger")
        yield Msg("wait", None, group="trigger")
        yield Msg("create", None, name="primary")
        for device in (*detectors, *step):
            yield Msg("read", device)
        yield Msg("save")
        return None

    return step


@plan
def ct(time: float = 1.0, *, detectors: Any) -> MsgGenerator[dict[str, Any]]:
    """Count, and print what was counted; nothing is recorded.

    Args:
        time: For how long (s).
        detectors: What counts.

    Returns:
        What was read, by signal.

    Raises:
        UserError: An argument is wrong, or a detector is offline.
    """
    time = checks.number("ct", "time", time, positive=True)
    detectors = checks.detectors_of("ct", detectors)

    def count() -> MsgGenerator[dict[str, Any]]:
        group = short_uid("ct")
        wait = False
        for detector in detectors:
            if callable(getattr(detector, "trigger", None)):
                yield from bps.trigger(detector, group=group)
                wait = True
        if wait:
            yield from bps.wait(group)
        found: dict[str, Any] = {}
        for detector in detectors:
            reading = yield from bps.read(detector)
            fields = _fields(detector) or list(reading or ())
            found |= {field: reading[field]["value"] for field in fields if reading and field in reading}
        return found

    yield from preflight.forecast("ct", lambda: _staged(detectors, count()))
    found = yield from counting_for(time, detectors, _staged(detectors, count()))
    if preflight.is_dry():
        return found
    counted = {field for detector in detectors if count_time_of(detector) is not None for field in _fields(detector)}
    width = max(map(len, found), default=0)
    for field, value in found.items():
        rate = f"  {value / time:.6g}/s" if field in counted and isinstance(value, int | float) else ""
        screen.tell(f"{field:>{width}} = {value if not isinstance(value, float) else format(value, '.6g')}{rate}")
    return found


def _fields(detector: Any) -> list[str]:
    return (getattr(detector, "hints", None) or {}).get("fields", [])


def _staged(detectors: Sequence[Any], inner: MsgGenerator[Any]) -> MsgGenerator[Any]:
    return (yield from bpp.stage_wrapper(inner, detectors))


@plan
def timescan(
    time: float = 1.0,
    sleep: float = 0.0,
    points: int | None = None,
    *,
    detectors: Any,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Count again and again, until Ctrl-C or for a number of points.

    Args:
        time: Count time of each point (s).
        sleep: Pause between points (s).
        points: How many; None: until Ctrl-C.
        detectors: What counts.
        md: Metadata.

    Returns:
        The run's uid.
    """
    name = "timescan"
    time = checks.number(name, "time", time, positive=True)
    sleep = checks.number(name, "sleep", sleep, least=0.0)
    if points is not None:
        points = checks.count(name, "points", points)
    detectors = checks.detectors_of(name, detectors)
    arguments = {"time": time, "sleep": sleep, "points": points}
    metadata = {"plan_name": name, "plan_args": {**arguments, "detectors": names(detectors)}, **(md or {})}
    shot = functools.partial(bps.one_shot, take_reading=reading_for(time, detectors))

    def scan(num: int | None) -> MsgGenerator[str]:
        return bp.count(detectors, num, sleep, per_shot=shot, md=metadata)

    yield from preflight.announced(
        name,
        lambda: counting_for(time, detectors, scan(points or 1)),
        points=points,
        known=count_times(detectors),
        endless=points is None,
    )
    return (yield from counting_for(time, detectors, scan(1 if points is None and preflight.is_dry() else points)))


def names(devices: Sequence[Any]) -> list[str]:
    """Names of devices."""
    return [device.name for device in devices]
