"""Motion of one axis: trapezoids of speed over time, solved once when a motion begins.

A motor starts at the base speed at once, gains speed linearly until it travels at its cruising speed, and loses
it the same way back to the base speed, from which it stands still at once (the motor record's VBAS, VELO, ACCL).
Positions at any later time follow from the solution, so that the end is exact whenever it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Speeds:
    """How fast an axis moves.

    Attributes:
        base: speed of start and end, units/s, at least 0.
        cruise: speed between, units/s, above 0; taken as ``base`` where it is lower.
        acceleration: units/s², above 0; infinite for no ramps.
    """

    base: float
    cruise: float
    acceleration: float

    @classmethod
    def ramped(cls, base: float, cruise: float, ramp_time: float) -> Speeds:
        """Speeds of a motor that needs ``ramp_time`` seconds from ``base`` to ``cruise``."""
        cruise = max(base, cruise)
        gain = cruise - base
        return cls(base, cruise, gain / ramp_time if ramp_time > 0 and gain > 0 else math.inf)

    def braking_distance(self, speed: float) -> float:
        """The way from ``speed`` to a stop."""
        return max(speed * speed - self.base * self.base, 0.0) / (2 * self.acceleration)


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of constant acceleration; signs are those of the axis."""

    duration: float
    velocity: float
    acceleration: float

    def way(self, elapsed: float) -> float:
        """Displacement since the beginning of the phase."""
        return (self.velocity + self.acceleration * elapsed / 2) * elapsed


class Trajectory:
    """Position over time, from ``start`` at the time ``begun`` to ``end``."""

    def __init__(self, begun: float, start: float, phases: Iterable[Phase], end: float | None = None) -> None:
        """Make a trajectory.

        Args:
            begun: time of the beginning, s.
            start: position at that time.
            phases: what follows; those without duration are dropped.
            end: position after the last phase, for an end that is free of rounding; None: where the phases lead to.
        """
        self.begun = begun
        self.start = start
        self.phases = tuple(phase for phase in phases if phase.duration > 0)
        self.duration = math.fsum(phase.duration for phase in self.phases)
        if end is None:
            end = start + math.fsum(phase.way(phase.duration) for phase in self.phases)
        self.end = end

    @property
    def finish(self) -> float:
        """Time of the end."""
        return self.begun + self.duration

    def finished(self, now: float) -> bool:
        """Whether the axis stands at its end."""
        return now >= self.finish

    def position(self, now: float) -> float:
        """Where the axis is."""
        if self.finished(now):
            return self.end
        elapsed, position = max(now - self.begun, 0.0), self.start
        for phase in self.phases:
            if elapsed < phase.duration:
                return position + phase.way(elapsed)
            elapsed -= phase.duration
            position += phase.way(phase.duration)
        return self.end

    def velocity(self, now: float) -> float:
        """How fast the axis is, signed; 0 from the end on."""
        if self.finished(now):
            return 0.0
        elapsed = max(now - self.begun, 0.0)
        for phase in self.phases:
            if elapsed < phase.duration:
                return phase.velocity + phase.acceleration * elapsed
            elapsed -= phase.duration
        return 0.0


def _ramp(direction: int, before: float, after: float, acceleration: float) -> Phase:
    """The phase between two speeds (at least 0) in one direction."""
    rate = acceleration if after > before else -acceleration
    return Phase(abs(after - before) / acceleration, direction * before, direction * rate if rate else 0.0)


def _halt_phases(velocity: float, speeds: Speeds) -> list[Phase]:
    direction = 1 if velocity > 0 else -1
    if abs(velocity) <= speeds.base or math.isinf(speeds.acceleration):
        return []
    return [_ramp(direction, abs(velocity), speeds.base, speeds.acceleration)]


def halt(now: float, start: float, velocity: float, speeds: Speeds) -> Trajectory:
    """Slow down and stand still."""
    return Trajectory(now, start, _halt_phases(velocity, speeds))


def travel(now: float, start: float, velocity: float, target: float, speeds: Speeds) -> Trajectory:
    """Go to ``target`` from a stand or from a motion under way.

    An axis that moves away from the target, or too fast to stop at it, stops first and then returns.
    """
    phases = []
    way = target - start
    direction = 1 if way > 0 else -1
    if velocity * direction < 0 or speeds.braking_distance(abs(velocity)) > abs(way):
        phases = _halt_phases(velocity, speeds)
        way -= math.fsum(phase.way(phase.duration) for phase in phases)
        direction = 1 if way > 0 else -1
        velocity = 0.0
    base, cruise, acceleration = speeds.base, max(speeds.base, speeds.cruise), speeds.acceleration
    entry, distance = max(abs(velocity), base), abs(way)
    if math.isinf(acceleration):
        phases.append(Phase(distance / cruise, direction * cruise, 0.0))
        return Trajectory(now, start, phases, target)
    # The speed at which gaining and losing alone fill the way: v² - entry² + v² - base² = 2 a distance.
    peak = min(cruise, math.sqrt(acceleration * distance + (entry * entry + base * base) / 2))
    ramps = abs(peak * peak - entry * entry) / (2 * acceleration) + speeds.braking_distance(peak)
    phases.append(_ramp(direction, entry, peak, acceleration))
    phases.append(Phase(max(distance - ramps, 0.0) / peak if peak else 0.0, direction * peak, 0.0))
    phases.append(_ramp(direction, peak, base, acceleration))
    return Trajectory(now, start, phases, target)


def run(now: float, start: float, velocity: float, direction: int, speeds: Speeds) -> Trajectory:
    """Go in ``direction`` (1 or -1) until told otherwise; an axis that moves the other way stops first."""
    phases = []
    if velocity * direction < 0:
        phases = _halt_phases(velocity, speeds)
        velocity = 0.0
    entry, cruise = max(abs(velocity), speeds.base), max(speeds.base, speeds.cruise)
    if not math.isinf(speeds.acceleration):
        phases.append(_ramp(direction, entry, cruise, speeds.acceleration))
    phases.append(Phase(math.inf, direction * cruise, 0.0))
    return Trajectory(now, start, phases, direction * math.inf)
