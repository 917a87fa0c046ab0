"""Scan a motor through a peak, and what is known of the peak afterwards."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator

from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.framework import screen
from instrument.framework.statistics import PeakStatistics, clearness, peak_statistics
from instrument.plans import checks, preflight
from instrument.plans.checks import plan
from instrument.plans.counting import count_times, counting_for, names, step_for

logger = logging.getLogger(LOGGER_NAME)

KEYS = ("cen", "com", "max", "min")
USUAL_POINTS = 11
FEWEST_POINTS = 3  # of a scan that is to show a peak
SAME_WIDTH = 0.25  # part of its width by which that of a stable peak may change from scan to scan

Counted = Callable[[], tuple[Sequence[Any], Sequence[str]]]  # detectors, and the signals that are plotted; none: all


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
    """Collects the motor's and some other columns of a run's primary stream, as the run is recorded."""

    def __init__(self, motor: Any, detector: Any, signals: Sequence[str]) -> None:
        self._motor, self._detector, self._signals = motor.name, detector.name, signals
        self._descriptors: set[str] = set()
        self.x_name, self.signals = motor.name, signals or (detector.name,)
        self.scan_id: int | None = None
        self.x: list[float] = []
        self.columns: dict[str, list[Any]] = {}

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        if name == "start":
            self.scan_id = doc.get("scan_id")
        elif name == "descriptor" and doc.get("name") == "primary":
            self._descriptors.add(doc["uid"])
            self.x_name = _hinted(doc, self._motor)
            self.signals = self._signals or (_hinted(doc, self._detector),)
        elif name == "event" and doc["descriptor"] in self._descriptors:
            data = doc["data"]
            if self.x_name in data:
                self.x.append(data[self.x_name])
                for signal in self.signals:
                    if signal in data:
                        self.columns.setdefault(signal, []).append(data[signal])

    def clearest(self, *, recorded: bool) -> tuple[str, PeakStatistics]:
        """The signal that shows the clearest peak, and the peak.

        Args:
            recorded: It was no dry run.

        Raises:
            UserError: None of the signals was recorded, or none is a number.
        """
        if recorded and not self.columns:
            missing = ", ".join(map(repr, self.signals))
            raise UserError(f"scan {self.scan_id} has no readings of {missing}: no peak can be looked for")
        found = {}
        for signal, values in self.columns.items():
            try:
                found[signal] = peak_statistics(self.x, values)
            except (TypeError, ValueError):  # no number
                continue
        if recorded and not found:
            raise UserError(f"{', '.join(self.columns)} is no number in scan {self.scan_id}: it has no peak")
        if not found:
            return self.signals[0], peak_statistics([], [])
        signal = max(found, key=lambda name: clearness(self.columns[name], found[name]))
        return signal, found[signal]


def _hinted(descriptor: dict[str, Any], name: str) -> str:
    """The field that stands for a device."""
    fields = descriptor.get("hints", {}).get(name, {}).get("fields") or descriptor["object_keys"].get(name)
    return fields[0] if fields else name


def scan_peak(
    plan_name: str,
    detectors: Sequence[Any],
    motor: Any,
    low: float,
    high: float,
    num: int,
    *,
    time: float | None = None,
    sequence: int = 0,
    signal: str | Sequence[str] | None = None,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[Lineup]:
    """Scan `motor` from `low` to `high` and measure the peak of the first detector. The motor stays at `high`.

    The scan is run dry before it moves anything, and told in one line.

    Args:
        plan_name: Of the plan that it is part of.
        detectors: What is read; the peak is looked for in the first one.
        motor: What is moved.
        low: Where the scan begins.
        high: Where it ends.
        num: How many points.
        time: Count time of each point (s); None: as the detectors are set.
        sequence: Which scan of several it is, from 1; of the later ones only what is wrong is told.
        signal: Which signal shows the peak; of several the one with the clearest; the first detector's hinted one if it
            is not given.
        md: Metadata.

    Raises:
        UserError: A point is outside of the limits, or a device can't be used; the scan has not begun. Of a later scan
            the line tells that the motor stays where the one before ended.
    """

    def scan(metadata: dict[str, Any] | None = None) -> MsgGenerator[Any]:
        if time is None:
            return bp.scan(list(detectors), motor, low, high, num, md=metadata)
        run = bp.scan(list(detectors), motor, low, high, num, per_step=step_for(time, detectors), md=metadata)
        return counting_for(time, detectors, run)

    which = "" if not sequence else ", first scan" if sequence == 1 else f", scan {sequence}"
    known, later = count_times(detectors), sequence > 1
    announced = preflight.announced(f"{plan_name}{which}", scan, points=num, known=known, tell=not later)
    with preflight.after_moves(f"{motor.name} stays where scan {sequence - 1} ended") if later else nullcontext():
        yield from announced

    signals = (signal,) if isinstance(signal, str) else tuple(signal or ())
    readings = _Readings(motor, detectors[0], signals)
    uid = yield from bpp.subs_wrapper(scan(md), {"all": [readings]})
    name, statistics = readings.clearest(recorded=uid is not None)
    return Lineup(uid, readings.scan_id, name, statistics, high)


def signal_of(plan_name: str, detector: Any, signal: str | None) -> str | None:
    """Which signal of `detector` shows the peak; None if the run will tell.

    Raises:
        UserError: The detector has several, and none is named.
    """
    fields = _fields(detector)
    if signal is None and len(fields) > 1:
        raise UserError(
            f"{plan_name}: {detector.name} has several signals ({', '.join(fields)}): "
            f"say which, as in signal={fields[-1]!r}; nothing moved"
        )
    return signal if signal is not None else (fields[0] if fields else None)


def _fields(detector: Any) -> list[str]:
    """The hinted signals of a detector."""
    hints = getattr(detector, "hints", None)
    return hints.get("fields", []) if isinstance(hints, dict) else []


def position_of(motor: Any) -> MsgGenerator[float]:
    """Where a motor is; 0 in a dry run."""
    return float((yield from bps.rd(motor, default_value=0.0)))


@plan
def lup(
    detectors: Any,
    motor: Any,
    start: float,
    finish: float,
    num: float | None = None,
    key: str = "cen",
    *,
    time: float | None = None,
    signal: str | None = None,
    md: dict[str, Any] | None = None,
    counted: Counted | None = None,
) -> MsgGenerator[Lineup]:
    """Line up: scan a motor about where it is, then move it to the peak. Without a peak in the scan it goes back.

    Also in SPEC's order: motor, start, finish, intervals (one less than points), count time. Then the peak is that of
    the plotted signal, or the clearest one of what counts.

    Args:
        detectors: What is read; the peak is looked for in the first one.
        motor: What is moved.
        start: Where the scan begins, relative to where the motor is (its unit).
        finish: Where the scan ends, relative to where the motor is.
        num: How many points; None: 11.
        key: Where to go: "cen" (mid-point between the half heights), "com" (centre of mass), "max" or "min".
        time: Count time of each point (s); None: as the detectors are set.
        signal: Which signal of the first detector, if it has several.
        md: Metadata.
        counted: What counts, and what of it is plotted, for SPEC's order; a session fills it in.

    Returns:
        What was found.

    Raises:
        UserError: An argument is wrong, or the scan would leave the motor's limits; nothing has moved.

    Example:
        lup(noisy, m1, -0.2, 0.2, 21)       lup noisy m1 -0.2 0.2 21       lup m1 -0.2 0.2 20 0.5
    """
    signals: str | Sequence[str] | None
    plotted: Sequence[str] = ()
    in_spec_order = checks.is_number(motor)
    if in_spec_order:
        spec_time, intervals = num, finish
        motor, start, finish = detectors, float(motor), start
        if spec_time is not None and time is not None:
            raise UserError("lup: the time is given twice; nothing moved")
        time = time if spec_time is None else spec_time
        num = checks.count("lup", "intervals", intervals, FEWEST_POINTS - 1) + 1
        if counted is None:
            raise UserError("lup: no detector is given, as in lup(noisy, m1, -0.2, 0.2, 21); nothing moved")
        detectors, plotted = counted()
    detectors = checks.detectors_of("lup", detectors)
    motor = checks.motor_of("lup", motor)
    start, finish = checks.number("lup", "start", start), checks.number("lup", "finish", finish)
    points = checks.count("lup", "num", USUAL_POINTS if num is None else num, FEWEST_POINTS)
    time = None if time is None else checks.number("lup", "time", time, positive=True)
    if start == finish:
        raise UserError(f"lup: start and finish are both {start:g}: there is nothing to scan; nothing moved")
    if key not in KEYS:
        raise UserError(f"lup: key={key!r} is no statistic of a peak; there are {', '.join(KEYS)}; nothing moved")
    if in_spec_order:
        fields = [field for detector in detectors for field in _fields(detector)]
        signals = signal or [name for name in plotted if name in fields][:1] or fields
        arguments = {"motor": motor.name, "start": start, "finish": finish, "intervals": points - 1, "time": time}
        md = {"plan_name": "lup", "plan_args": {**arguments, "detectors": names(detectors)}, **(md or {})}
    else:
        signals = signal_of("lup", detectors[0], signal)

    origin = yield from position_of(motor)
    low, high = origin + start, origin + finish
    checks.within_limits("lup", motor, (low, high))
    found = yield from scan_peak("lup", detectors, motor, low, high, points, time=time, signal=signals, md=md)
    place = _place(found.statistics, key)
    target = origin if place is None else place
    yield from bps.mv(motor, target)
    which = (found.signal, found.scan_id)
    if place is not None:
        logger.info("lup: %s from %g to %g (%s of %s, scan %s)", motor.name, origin, target, key, *which)
    elif found.uid is not None:  # not a dry run
        logger.warning("lup: %s; %s went back to %g", no_peak(found, motor), motor.name, origin)
    return Lineup(found.uid, found.scan_id, found.signal, found.statistics, target)


def _place(statistics: PeakStatistics, key: str) -> float | None:
    """Where a statistic is, if the scan has seen the whole peak."""
    if not statistics.found or not statistics.inside:
        return None
    place = statistics[key]
    return place[0] if isinstance(place, tuple) else place


def no_peak(found: Lineup, motor: Any) -> str:
    """Why there is no peak to go to, and where to look for it."""
    which = f"{found.signal} in scan {found.scan_id}"
    return found.statistics.flank(which, motor.name) or f"no peak of {which}"


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

    A scan that sees a flank only is followed by a wider one about its end, one that sees nothing by a wider
    one. Without a peak the motor goes back. Where a later scan is refused, it stays where the one before ended.

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
            ones end at the limits; one that can't begin, for a device that is gone for instance, is told.
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
    for number in range(1, most + 1):
        if number > 1:
            low, high = checks.clipped(motor, low, high)
            if low == high:
                break
        metadata = {**(md or {}), "plan_name": name, "scan_sequence": number}
        one = yield from scan_peak(name, detectors, motor, low, high, num, sequence=number, signal=signal, md=metadata)
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
        elif statistics.beyond is not None:
            end, span = statistics.beyond[0], abs(high - low)
            low, high = end - span, end + span
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
