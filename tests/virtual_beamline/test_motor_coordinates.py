"""User, dial and raw coordinates: whatever is written in whatever order, they name one position."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from virtual_beamline.records import coordinates
from virtual_beamline.records.coordinates import CoordinateError


@dataclass
class Motor:
    VAL: float = 0.0
    DVAL: float = 0.0
    RVAL: int = 0
    OFF: float = 0.0
    DIR: int = 0
    FOFF: int = 0
    MRES: float = 0.01
    SREV: int = 200
    UREV: float = 2.0
    HLM: float = 32000.0
    LLM: float = -32000.0
    DHLM: float = 32000.0
    DLLM: float = -32000.0
    RHLM: float = 3_200_000.0
    RLLM: float = -3_200_000.0


def assert_consistent(motor):
    """The documented equations hold (to rounding)."""
    scale = max(1.0, abs(motor.VAL), abs(motor.DVAL), abs(motor.OFF))
    direction = -1 if motor.DIR else 1
    assert motor.VAL == pytest.approx(motor.DVAL * direction + motor.OFF, rel=1e-9, abs=1e-9 * scale)
    assert motor.RVAL == pytest.approx(motor.DVAL / motor.MRES, rel=1e-9, abs=0.5 + 1e-6)
    assert motor.MRES == pytest.approx(motor.UREV / motor.SREV)
    ends = sorted((motor.DHLM * direction + motor.OFF, motor.DLLM * direction + motor.OFF))
    scale = max(scale, *map(abs, ends))
    assert sorted((motor.HLM, motor.LLM)) == pytest.approx(ends, rel=1e-9, abs=1e-9 * scale)
    # Beside a huge offset rounding makes the user limits equal; else their order is that of the dial limits.
    assert motor.HLM == motor.LLM or (motor.HLM > motor.LLM) == (motor.DHLM > motor.DLLM)
    raw_ends = sorted((motor.DHLM / motor.MRES, motor.DLLM / motor.MRES))
    assert sorted((motor.RHLM, motor.RLLM)) == pytest.approx(raw_ends)
    assert abs(motor.RVAL) <= 2**31 - 1


values = st.one_of(
    st.floats(-1e4, 1e4).map(lambda value: round(value, 6)),
    st.sampled_from([0.0, 1e30, -1e30, 1e308, math.inf, -math.inf, math.nan, 1e-30]),
)


class Writes(RuleBasedStateMachine):
    """Any write, in any order."""

    def __init__(self):
        super().__init__()
        self.motor = Motor()

    def write(self, function, *arguments, **fields):
        before = asdict(self.motor)
        try:
            for name, value in fields.items():
                setattr(self.motor, name, value)
            function(self.motor, *arguments)
        except CoordinateError:
            # The put that was refused is undone by the record; nothing else may have changed.
            for name in fields:
                setattr(self.motor, name, before[name])
            assert asdict(self.motor) == before

    @rule(value=values)
    def target_user(self, value):
        self.write(coordinates.target_user, value)

    @rule(value=values)
    def target_dial(self, value):
        self.write(coordinates.target_dial, value)

    @rule(value=st.integers(-(2**31) + 1, 2**31 - 1))
    def target_raw(self, value):
        self.write(coordinates.target_raw, value)

    @rule(value=values)
    def define_user(self, value):
        self.write(coordinates.define_user, value)

    @rule(value=values)
    def define_dial(self, value):
        self.write(coordinates.define_dial, value)

    @rule(value=values)
    def offset(self, value):
        self.write(coordinates.follow_offset, OFF=value)

    @rule(value=st.sampled_from([0, 1]))
    def direction(self, value):
        self.write(coordinates.follow_direction, DIR=value)

    @rule(value=st.sampled_from([0, 1]))
    def freeze(self, value):
        self.motor.FOFF = value

    @rule(field=st.sampled_from(["HLM", "LLM"]), value=values)
    def user_limit(self, field, value):
        self.write(coordinates.follow_user_limit, field, **{field: value})

    @rule(field=st.sampled_from(["DHLM", "DLLM"]), value=st.floats(-1e4, 1e4))
    def dial_limit(self, field, value):
        self.write(coordinates.follow_dial_limits, **{field: value})

    @rule(
        field=st.sampled_from(["MRES", "UREV", "SREV"]),
        value=st.sampled_from([0.001, -0.01, 2.0, 200, 2000, 0.0, -7, math.inf, math.nan, 1e-300]),
        keep_raw=st.booleans(),
    )
    def resolution(self, field, value, keep_raw):
        if field == "SREV":
            value = int(value) if math.isfinite(value) else 0

        def write(motor):
            step, turn = coordinates.resolution(motor, field)
            wanted, kept = getattr(motor, field), (motor.MRES, motor.UREV)
            coordinates.rescale(motor, step, turn, keep_raw=keep_raw)
            assert getattr(motor, field) == wanted
            assert kept is not None

        self.write(write, **{field: value})

    @precondition(lambda self: self.motor.FOFF)
    @rule(value=st.floats(-1e4, 1e4))
    def a_frozen_offset_does_not_move(self, value):
        before = self.motor.OFF
        self.write(coordinates.define_user, value)
        self.write(coordinates.define_dial, value)
        assert self.motor.OFF == before

    @invariant()
    def consistent(self):
        assert_consistent(self.motor)


TestWrites = Writes.TestCase


def test_calling_the_position_five_moves_the_offset_and_the_limits():
    motor = Motor(VAL=1.0, DVAL=1.0, RVAL=100)
    assert coordinates.define_user(motor, 5.0) is False
    assert (motor.VAL, motor.DVAL, motor.OFF) == (5.0, 1.0, 4.0)
    assert (motor.HLM, motor.LLM) == (32004.0, -31996.0)
    assert (motor.DHLM, motor.DLLM) == (32000.0, -32000.0)


def test_defining_the_dial_position_leaves_the_user_position():
    motor = Motor(VAL=1.0, DVAL=1.0, RVAL=100)
    coordinates.define_dial(motor, 10.0)
    assert (motor.VAL, motor.DVAL, motor.RVAL, motor.OFF) == (1.0, 10.0, 1000, -9.0)


def test_a_frozen_offset_makes_user_and_dial_change_together():
    motor = Motor(VAL=3.0, DVAL=1.0, RVAL=100, OFF=2.0, FOFF=1)
    assert coordinates.define_user(motor, 7.0) is True
    assert (motor.VAL, motor.DVAL, motor.RVAL, motor.OFF) == (7.0, 5.0, 500, 2.0)


def test_the_other_direction_exchanges_the_limits():
    motor = Motor(VAL=1.0, DVAL=1.0, RVAL=100, DHLM=10.0, DLLM=-5.0, DIR=1)
    coordinates.follow_direction(motor)
    assert (motor.VAL, motor.OFF) == (1.0, 2.0)
    assert (motor.HLM, motor.LLM) == (7.0, -8.0)


def test_ten_times_the_steps_are_a_tenth_of_the_step_and_the_same_dial_position():
    motor = Motor(VAL=1.0, DVAL=1.0, RVAL=100, SREV=2000)
    coordinates.rescale(motor, *coordinates.resolution(motor, "SREV"), keep_raw=False)
    assert (motor.MRES, motor.UREV, motor.RVAL, motor.DVAL) == (0.001, 2.0, 1000, 1.0)


def test_in_set_mode_a_new_resolution_keeps_the_steps():
    motor = Motor(VAL=1.0, DVAL=1.0, RVAL=100, MRES=0.02)
    coordinates.rescale(motor, *coordinates.resolution(motor, "MRES"), keep_raw=True)
    assert (motor.MRES, motor.UREV, motor.RVAL, motor.DVAL, motor.VAL) == (0.02, 4.0, 100, 2.0, 2.0)


@pytest.mark.parametrize(("dial", "inside"), [(10.0, True), (10.000001, False), (-10.0, True), (-11.0, False)])
def test_limits_are_inclusive(dial, inside):
    assert coordinates.within_limits(Motor(DHLM=10.0, DLLM=-10.0), dial) is inside


def test_both_limits_zero_switch_them_off():
    assert coordinates.within_limits(Motor(DHLM=0.0, DLLM=0.0), 1e9)


def test_crossed_limits_allow_nothing():
    assert not coordinates.within_limits(Motor(DHLM=-1.0, DLLM=1.0), 0.0)
