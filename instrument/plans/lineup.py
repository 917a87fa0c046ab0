"""Scan a motor through a peak, and what is known of the peak afterwards."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator

from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.framework import screen
from instrument.framework.statistics import PeakStatistics, peak_statistics
from instrument.plans import checks, preflight
from instrument.plans.checks import plan
from instrument.plans.counting import count_times

logger = logging.getLogger(LOGGER_NAME)

KEYS = ("cen", "com", "max", "min")
FEWEST_POINTS = 3  # of a scan that is to show a peak
SAME_WIDTH = 0.25  # part of its width by which that of a stable peak may change from scan to scan


@dataclass(frozen=True)
class Lineup:
    """A scan through a peak.

    Attributes:
        uid: Of the run; None in a dry run.
        scan_id: Of the run.
        signal: What was measured.
        statistics: Of the peak, positions in the motor's unit.
        position: Where the motor is left.
    """

    uid: str | None
    scan_id: int | None
    signal: str
    statistics: PeakStatistics
    position: float


class _Readings:
    """Collects two columns of a run's primary stream, as the run is recorded."""

    def __init__(self, motor: Any, detector: Any, signal: str | None) -> None:
        self._motor, self._detector, self._signal = motor.name, detector.name, signal
        self._descriptors: set[str] = set()
        self.x_name, self.signal = motor.name, signal or detector.name
        self.scan_id: int | None = None
        self.x: list[float] = []
        self.y: list[float] = []

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        if name == "start":
            self.scan_id = doc.get("scan_id")
        elif name == "descriptor" and doc.get("name") == "primary":
            self._descriptors.add(doc["uid"])
            self.x_name = _hinted(doc, self._motor)
            self.signal = self._signal or _hinted(doc, self._detector)
        elif name == "event" and doc["descriptor"] in self._descriptors:
            data = doc["data"]
            if self.x_name in data and self.signal in data:
                self.x.append(data[self.x_name])
                self.y.append(data[self.signal])


def _hinted(descriptor: dict[str, Any], name: str) -> str:
    """The field that stands for a device."""
    fields = descriptor.get("hints", {}).get(name, {}).get("fields") or descriptor["object_keys"].get(name)
    return fields[0] if fields else name


def scan_peak(
    detectors: Sequence[Any],
    motor: Any,
    low: float,
    high: float,
    num: int,
    *,
    signal: str | None = None,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[Lineup]:
    """Scan `motor` from `low` to `high` and measure the peak of the first detector. The motor stays at `high`.

    Args:
        detectors: What is read; the peak is looked for in the first one.
        motor: What is moved.
        low: Where the scan begins.
        high: Where it ends.
        num: How many points.
        signal: Which signal shows the peak; the detector's hinted one if it is not given.
        md: Metadata.
    """
    readings = _Readings(motor, detectors[0], signal)
    uid = yield from bpp.subs_wrapper(bp.scan(list(detectors), motor, low, high, num, md=md), {"all": [readings]})
    if uid is not None and not readings.y:
        raise UserError(f"scan {readings.scan_id} has no readings of {readings.signal!r}: no peak can be looked for")
    try:
        statistics = peak_statistics(readings.x, readings.y)
    except (TypeError, ValueError):
        raise UserError(f"{readings.signal} is no number in scan {readings.scan_id}: it has no peak") from None
    return Lineup(uid, readings.scan_id, readings.signal, statistics, high)


def signal_of(plan_name: str, detector: Any, signal: str | None) -> str | None:
    """Which signal of `detector` shows the peak; None if the run will tell.

    Raises:
        UserError: The detector has several, and none is named.
    """
    hints = getattr(detector, "hints", None)
    fields = hints.get("fields", []) if isinstance(hints, dict) else []
    if signal is None and len(fields) > 1:
        raise UserError(
            f"{plan_name}: {detector.name} has several signals ({', '.join(fields)}): "
            f"say which, as in signal={fields[-1]!r}; nothing moved"
        )
    return signal if signal is not None else (fields[0] if fields else None)


def position_of(motor: Any) -> MsgGenerator[float]:
    """Where a motor is; 0 in a dry run."""
    return float((yield from bps.rd(motor, default_value=0.0)))


@plan
def lup(
    detectors: Any,
    motor: Any,
    start: float,
    finish: float,
    num: int = 11,
    key: str = "cen",
    *,
    signal: str | None = None,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[Lineup]:
    """Line up: scan a motor about where it is, then move it to the peak. Without a peak in the scan it goes back.

    Args:
        detectors: What is read; the peak is looked for in the first one.
        motor: What is moved.
        start: Where the scan begins, relative to where the motor is (its unit).
        finish: Where the scan ends, relative to where the motor is.
        num: How many points.
        key: Where to go: "cen" (mid-point between the half heights), "com" (centre of mass), "max" or "min".
        signal: Which signal of the first detector, if it has several.
        md: Metadata.

    Returns:
        What was found.

    Raises:
        UserError: An argument is wrong, or the scan would leave the motor's limits; nothing has moved.
    """
    detectors = checks.detectors_of("lup", detectors)
    motor = checks.motor_of("lup", motor)
    start, finish = checks.number("lup", "start", start), checks.number("lup", "finish", finish)
    num = checks.count("lup", "num", num, FEWEST_POINTS)
    if start == finish:
        raise UserError(f"lup: start and finish are both {start:g}: there is nothing to scan; nothing moved")
    if key not in KEYS:
        raise UserError(f"lup: key={key!r} is no statistic of a peak; there are {', '.join(KEYS)}; nothing moved")
    signal = signal_of("lup", detectors[0], signal)

    origin = yield from position_of(motor)
    checks.within_limits("lup", motor, (origin + start, origin + finish))
    yield from _announced("lup", detectors, motor, origin + start, origin + finish, num)
    found = yield from scan_peak(detectors, motor, origin + start, origin + finish, num, signal=signal, md=md)
    place = _place(found.statistics, key)
    target = origin if place is None else place
    yield from bps.mv(motor, target)
    names = (found.signal, found.scan_id)
    if place is not None:
        logger.info("lup: %s from %g to %g (%s of %s, scan %s)", motor.name, origin, target, key, *names)
    elif found.uid is not None:  # not a dry run
        logger.warning("lup: %s; %s went back to %g", no_peak(found, motor), motor.name, origin)
    return Lineup(found.uid, found.scan_id, found.signal, found.statistics, target)


def _announced(
    name: str, detectors: Sequence[Any], motor: Any, low: float, high: float, num: int
) -> MsgGenerator[None]:
    """Run a scan dry before it moves anything, and tell in one line what it will do."""

    def scan() -> MsgGenerator[Any]:
        return bp.scan(list(detectors), motor, low, high, num)

    yield from preflight.announced(name, scan, points=num, known=count_times(detectors))


def _place(statistics: PeakStatistics, key: str) -> float | None:
    """Where a statistic is, if the scan has seen the whole peak."""
    if not statistics.found or not statistics.inside:
        return None
    place = statistics[key]
    return place[0] if isinstance(place, tuple) else place


def no_peak(found: Lineup, motor: Any) -> str:
    """Why there is no peak to go to, and where to look for it."""
    which = f"{found.signal} in scan {found.scan_id}"
    statistics = found.statistics
    if not statistics.found or statistics.max is None or statistics.min is None:
        return f"no peak of {which}"
    down = statistics.height is not None and statistics.height < 0 and statistics.kind != "edge"
    if down and statistics.cen is not None:  # half of a dip, or a peak that falls to a plateau: what lies at its side
        down = abs(statistics.cen - statistics.min[0]) < abs(statistics.cen - statistics.max[0])
    place = (statistics.min if down else statistics.max)[0]
    return (
        f"{which} is a flank, its {'lowest' if down else 'highest'} at the end {motor.name} {place:g}: scan beyond it"
    )


@plan
def lineup2(
    detectors: Any,
    motor: Any,
    start: float,
    finish: float,
    num: int = 11,
    *,
    most: int = 5,
    width_factor: float = 1.5,
    stable: float = 0.1,
    key: str = "cen",
    signal: str | None = None,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[list[Lineup]]:
    """Line up again and again, each scan about the last peak and as wide as that asks for, until the peak is stable.

    A scan that sees a flank only is followed by a wider one about its highest end, one that sees nothing by a wider
    one. Without a peak the motor goes back.

    Args:
        detectors: What is read; the peak is looked for in the first one.
        motor: What is moved; it is left at the peak.
        start: Where the first scan begins, relative to where the motor is (its unit).
        finish: Where the first scan ends, relative to where the motor is.
        num: How many points each scan has.
        most: How many scans at the most.
        width_factor: Half the range of the next scan, in widths (FWHM) of the peak.
        stable: The peak is stable when it moves by less than this, in its widths, and is as wide as before to a
            quarter: scans too coarse to see the peak agree about a wrong place now and then, not about its width.
        key: Where to go: "cen", "com", "max" or "min".
        signal: Which signal of the first detector, if it has several.
        md: Metadata.

    Returns:
        What each scan found.

    Raises:
        UserError: An argument is wrong, or the first scan would leave the motor's limits; nothing has moved. Later
            ones end at the limits.
    """
    name = "lineup2"
    detectors = checks.detectors_of(name, detectors)
    motor = checks.motor_of(name, motor)
    start, finish = checks.number(name, "start", start), checks.number(name, "finish", finish)
    num, most = checks.count(name, "num", num, FEWEST_POINTS), checks.count(name, "most", most)
    width_factor = checks.number(name, "width_factor", width_factor, positive=True)
    stable = checks.number(name, "stable", stable, positive=True)
    if start == finish:
        raise UserError(f"{name}: start and finish are both {start:g}: there is nothing to scan; nothing moved")
    if key not in KEYS:
        raise UserError(f"{name}: key={key!r} is no statistic of a peak; there are {', '.join(KEYS)}; nothing moved")
    signal = signal_of(name, detectors[0], signal)
    origin = yield from position_of(motor)
    low, high = origin + start, origin + finish
    found: list[Lineup] = []
    place: float | None = None
    width: float | None = None
    reached = False
    checks.within_limits(name, motor, (low, high))
    yield from _announced(f"{name}, first scan", detectors, motor, low, high, num)
    for number in range(1, most + 1):
        if number > 1:
            low, high = checks.clipped(motor, low, high)
            if low == high:
                break
        metadata = {**(md or {}), "plan_name": name, "scan_sequence": number}
        one = yield from scan_peak(detectors, motor, low, high, num, signal=signal, md=metadata)
        found.append(one)
        if one.uid is None:  # a dry run
            break
        statistics, before = one.statistics, place
        place = _place(statistics, key)
        if place is not None and statistics.fwhm:
            moved = math.inf if before is None else abs(place - before)
            changed = math.inf if width is None else abs(statistics.fwhm - width)
            if moved < stable * statistics.fwhm and changed < SAME_WIDTH * statistics.fwhm:
                reached = True
                break
            width = statistics.fwhm
            low, high = place - width_factor * statistics.fwhm, place + width_factor * statistics.fwhm
        elif place is None and statistics.found and statistics.max and statistics.min:
            top = statistics.min if (statistics.height or 0) < 0 and statistics.kind != "edge" else statistics.max
            low, high = top[0] - abs(high - low), top[0] + abs(high - low)
        else:  # perhaps too narrow to tell a peak from its background
            low, high = low - (high - low) / 2, high + (high - low) / 2
    target = origin if place is None else place
    yield from bps.mv(motor, target)
    last = found[-1]
    if place is not None:
        how = f"stable after {len(found)} scans" if reached else f"not yet stable after {len(found)} scans"
        logger.info("%s: %s from %g to %g (%s of %s, %s)", name, motor.name, origin, target, key, last.signal, how)
        for one in found:
            where = _place(one.statistics, key)
            width = one.statistics.fwhm
            logger.info(
                "   scan %s: %s %s, FWHM %s",
                one.scan_id,
                key,
                "-" if where is None else f"{where:.6g}",
                "-" if width is None or where is None else f"{width:.4g}",
            )
    elif last.uid is not None:
        logger.warning("%s: %s; %s went back to %g", name, no_peak(last, motor), motor.name, origin)
    return [Lineup(one.uid, one.scan_id, one.signal, one.statistics, target) for one in found]


@plan
def goto(what: str, places: Sequence[tuple[Any, float]]) -> MsgGenerator[None]:
    """Move motors to where something was found, and tell from where to where.

    Args:
        what: What was found, for messages.
        places: Motors and positions.

    Raises:
        UserError: A position is outside of the limits; nothing has moved.
    """
    pairs = checks.moves_of(what, [part for place in places for part in place])
    told = []
    for motor, target in pairs:
        told.append(f"{motor.name} {(yield from position_of(motor)):.6g} -> {target:.6g}")
    if not preflight.is_dry():
        screen.tell(f"{what}: {', '.join(told)}")
    yield from bps.mv(*(part for pair in pairs for part in pair))
