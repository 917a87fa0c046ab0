"""Trajectories: what the motor record promises of VBAS, VELO and ACCL."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtual_beamline.records.motion import Speeds, halt, run, travel

positions = st.floats(-1000, 1000).map(lambda value: round(value, 4))
speeds = st.builds(
    Speeds.ramped,
    base=st.sampled_from([0.0, 0.1, 1.0]),
    cruise=st.floats(0.05, 100),
    ramp_time=st.sampled_from([0.0, 0.01, 0.2, 3.0]),
)
velocities = st.floats(-100, 100)


def samples(trajectory, count=400):
    return [trajectory.begun + trajectory.duration * index / count for index in range(count + 1)]


def test_a_long_move_is_the_trapezoid_of_base_speed_cruise_speed_and_ramp_time():
    trajectory = travel(100.0, 0.0, 0.0, 10.0, Speeds.ramped(base=0.1, cruise=1.0, ramp_time=0.2))
    # Two ramps of 0.2 s at a mean speed of 0.55 cover 0.22, the rest is cruised at 1/s.
    assert trajectory.duration == pytest.approx(0.4 + 9.78)
    assert trajectory.velocity(100.0) == pytest.approx(0.1)
    assert trajectory.velocity(100.1) == pytest.approx(0.55)
    assert trajectory.velocity(105.0) == 1.0
    assert trajectory.position(100.2) == pytest.approx(0.11)
    assert trajectory.position(trajectory.finish) == 10.0
    assert trajectory.velocity(trajectory.finish) == 0.0


def test_a_short_move_turns_round_before_it_reaches_the_cruise_speed():
    trajectory = travel(0.0, 0.0, 0.0, -0.1, Speeds.ramped(base=0.0, cruise=1.0, ramp_time=1.0))
    assert len(trajectory.phases) == 2
    assert min(trajectory.velocity(now) for now in samples(trajectory)) == pytest.approx(-math.sqrt(0.1), rel=0.02)
    assert trajectory.duration == pytest.approx(2 * math.sqrt(0.1))


def test_the_way_to_where_the_axis_stands_takes_no_time():
    assert travel(5.0, 3.0, 0.0, 3.0, Speeds.ramped(0.1, 1.0, 0.2)).duration == 0.0


@given(start=positions, velocity=velocities, target=positions, speeds=speeds)
def test_every_travel_ends_exactly_at_its_target_and_never_jumps(start, velocity, target, speeds):
    trajectory = travel(7.0, start, velocity, target, speeds)
    assert trajectory.position(trajectory.finish) == target
    assert trajectory.position(7.0) == pytest.approx(start)
    times = samples(trajectory)
    fastest = max(speeds.cruise, speeds.base, abs(velocity)) * (1 + 1e-9)
    for before, after in itertools.pairwise(times):
        assert abs(trajectory.velocity(before)) <= fastest
        step = abs(trajectory.position(after) - trajectory.position(before))
        assert step <= fastest * (after - before) + 1e-6


@given(start=positions, velocity=velocities, target=positions, speeds=speeds)
def test_the_solution_of_the_phases_is_the_target(start, velocity, target, speeds):
    trajectory = travel(0.0, start, velocity, target, speeds)
    way = math.fsum(phase.way(phase.duration) for phase in trajectory.phases)
    assert start + way == pytest.approx(target, abs=1e-6)


@given(start=positions, target=positions, speeds=speeds)
def test_an_axis_at_rest_goes_straight_to_its_target(start, target, speeds):
    trajectory = travel(0.0, start, 0.0, target, speeds)
    low, high = sorted((start, target))
    for now in samples(trajectory, 50):
        assert low - 1e-6 <= trajectory.position(now) <= high + 1e-6
        assert trajectory.velocity(now) * (target - start) >= 0


def test_a_new_target_ahead_is_reached_without_a_stop_between():
    speeds = Speeds.ramped(0.1, 1.0, 0.2)
    first = travel(0.0, 0.0, 0.0, 2.0, speeds)
    second = travel(1.0, first.position(1.0), first.velocity(1.0), 5.0, speeds)
    assert all(second.velocity(now) == pytest.approx(1.0) for now in samples(second)[:200])


def test_a_new_target_behind_is_reached_by_slowing_down_and_returning():
    speeds = Speeds.ramped(0.1, 1.0, 0.2)
    trajectory = travel(0.0, 5.0, 1.0, 4.0, speeds)
    farthest = max(trajectory.position(now) for now in samples(trajectory))
    assert farthest == pytest.approx(5.0 + speeds.braking_distance(1.0), abs=1e-3)
    assert trajectory.end == 4.0


@given(start=positions, velocity=velocities, speeds=speeds)
def test_a_halt_takes_the_braking_distance_and_no_more(start, velocity, speeds):
    trajectory = halt(0.0, start, velocity, speeds)
    assert abs(trajectory.end - start) == pytest.approx(speeds.braking_distance(abs(velocity)), abs=1e-6)
    assert (trajectory.end - start) * velocity >= 0
    assert trajectory.duration < math.inf


@given(start=positions, velocity=velocities, direction=st.sampled_from([1, -1]), speeds=speeds)
def test_a_run_goes_on_at_the_cruise_speed(start, velocity, direction, speeds):
    trajectory = run(0.0, start, velocity, direction, speeds)
    late = 1e9
    assert trajectory.velocity(late) == direction * max(speeds.base, speeds.cruise)
    assert not trajectory.finished(late)
    assert trajectory.position(late) * direction > 0
