"""The motor record over Channel Access: what its documentation promises, field by field."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.virtual_beamline.conftest import DEADLINE, wait_for

_numbers = itertools.cycle(range(9, 13))
STOP, PAUSE, MOVE, GO = range(4)
DEFAULTS = {
    "IGSET": 0,
    "SET": 0,
    "FOFF": 0,
    "DIR": 0,
    "UEIP": 0,
    "SREV": 200,
    "UREV": 2,
    "ERES": 0.01,
    "VMAX": 0,
    "VBAS": 1,
    "VELO": 20,
    "BVEL": 20,
    "JVEL": 20,
    "HVEL": 20,
    "ACCU": 0,
    "ACCL": 0.05,
    "BACC": 0.05,
    "JAR": 400,
    "BDST": 0,
    "RDBD": 0.01,
    "SPDB": 0,
    "RTRY": 10,
    "RMOD": 0,
    "DLY": 0,
    "NTM": 1,
    "NTMF": 2,
    "TWV": 1,
    "MDEL": 0,
    "ADEL": 0,
    "HLSV": 0,
    "FLNK": "",
    "DHLM": 32000,
    "DLLM": -32000,
}


class Axis:
    """One motor, by the names of its fields."""

    def __init__(self, client, name):
        self.client = client
        self.name = name

    def __getattr__(self, field):
        if not field.isupper():
            raise AttributeError(field)
        return self.client.get(f"{self.name}.{field}")

    def text(self, field):
        return self.client.get(f"{self.name}.{field}", text=True)

    def put(self, wait=True, **values):
        for field, value in values.items():
            self.client.put(f"{self.name}.{field}", value, wait=wait)

    def start(self, **values):
        """A put with completion that is not waited for."""
        ((field, value),) = values.items()
        return self.client.start_put(f"{self.name}.{field}", value)

    def wait(self, timeout=DEADLINE, **values):
        for field, value in values.items():
            self.client.wait(f"{self.name}.{field}", value, timeout)

    def reset(self):
        self.put(CNEN=1, SPMG=GO, STOP=1)
        self.wait(DMOV=1)
        self.put(**DEFAULTS)
        self.define(0.0)

    def define(self, position):
        """Call the present position so in all coordinates, without an offset."""
        self.put(OFF=0, SET=1, FOFF=1, VAL=position)
        self.put(FOFF=0, SET=0)

    def bit(self, number):
        """A bit of MSTA, which Channel Access serves as a float."""
        return int(self.MSTA) >> number & 1

    def coordinates(self):
        return {field: getattr(self, field) for field in ("VAL", "DVAL", "RVAL", "RBV", "DRBV", "RRBV", "OFF")}


class Monitor:
    """Values of fields as they come."""

    def __init__(self, axis, *fields):
        import epics

        self.events = []
        self._pvs = [
            epics.PV(
                f"{axis.client.prefix}{axis.name}.{field}",
                auto_monitor=True,
                callback=lambda value, timestamp, field=field, **_: self.events.append((field, value, timestamp)),
            )
            for field in fields
        ]
        wait_for(lambda: {field for field, *_ in list(self.events)} == set(fields), what=f"first values of {fields}")
        self.events.clear()

    def values(self, field):
        return [value for name, value, _ in list(self.events) if name == field]

    def times(self, field):
        return [timestamp for name, _, timestamp in list(self.events) if name == field]

    def wait(self, field, values):
        wait_for(lambda: self.values(field) == values, what=f"values {values} of {field}, not {self.values(field)}")

    def close(self):
        for pv in self._pvs:
            pv.disconnect()


@pytest.fixture
def axis(gp):
    """A motor that nothing else uses, at 0, fast, in its initial state before and after."""
    motor = Axis(gp, f"m{next(_numbers)}")
    motor.reset()
    yield motor
    motor.reset()


@pytest.fixture
def watch(axis):
    monitors = []

    def start(*fields):
        monitors.append(Monitor(axis, *fields))
        return monitors[-1]

    yield start
    for monitor in monitors:
        monitor.close()


# -- moves ------------------------------------------------------------------------------------------------------


def test_a_move_ends_exactly_at_its_target(axis):
    for target in (0.41, -3.33, 0.07):
        axis.put(VAL=target)
        assert axis.RBV == target
        assert axis.DMOV == 1
        assert axis.MOVN == 0


def test_a_target_between_steps_is_gone_to_as_near_as_steps_allow(axis):
    axis.put(VAL=0.123456)
    assert (axis.VAL, axis.RBV, axis.RVAL, axis.RRBV) == (0.123456, 0.12, 12, 12)
    assert axis.DIFF == pytest.approx(0.003456)
    assert axis.MISS == 0


def test_a_move_takes_the_time_of_its_trapezoid_and_is_reported_ten_times_a_second(axis, watch):
    axis.put(VBAS=0.1, VELO=2, ACCL=0.2)
    monitor = watch("RBV", "DMOV")
    axis.put(VAL=2)
    monitor.wait("DMOV", [0, 1])
    started, ended = monitor.times("DMOV")
    # Two ramps of 0.2 s at a mean of 1.05 cover 0.42; the rest is cruised at 2/s.
    expected = 0.4 + 1.58 / 2
    assert 0.95 * expected < ended - started < 2 * expected
    times = [time for time in monitor.times("RBV") if time >= started]
    gaps = [after - before for before, after in itertools.pairwise([started, *times])]
    assert statistics.median(gaps) <= 0.1
    positions = monitor.values("RBV")
    assert positions == sorted(positions)
    assert positions[-1] == 2


def test_the_last_readback_comes_before_dmov(axis, watch):
    monitor = watch("RBV", "DMOV")
    axis.put(VAL=1)
    monitor.wait("DMOV", [0, 1])
    names = [(name, value) for name, value, _ in monitor.events]
    assert names[-1] == ("DMOV", 1)
    assert names[-2] == ("RBV", 1.0)


def test_a_move_to_where_the_motor_stands_shows_a_pulse_of_dmov(axis, watch):
    axis.put(VAL=1)
    monitor = watch("DMOV", "RBV")
    assert axis.client.put(f"{axis.name}.VAL", 1.0)
    monitor.wait("DMOV", [0, 1])
    assert not monitor.values("RBV")


def test_a_put_with_completion_ends_when_the_motor_is_done_and_not_before(axis):
    done = axis.start(VAL=20)
    axis.wait(MOVN=1)
    assert not done
    wait_for(lambda: done)
    assert (axis.DMOV, axis.RBV) == (1, 20)


@pytest.mark.parametrize("field", ["DVAL", "RVAL", "RLV", "TWF", "TWR"])
def test_every_drive_field_moves_and_completes_when_done(axis, field):
    axis.put(VAL=1)
    value, place = {"DVAL": (3, 3), "RVAL": (250, 2.5), "RLV": (0.5, 1.5), "TWF": (1, 2), "TWR": (1, 0)}[field]
    axis.put(**{field: value})
    assert (axis.DMOV, axis.RBV, axis.VAL, axis.DVAL, axis.RVAL) == (1, place, place, place, place * 100)
    if field in ("RLV", "TWF", "TWR"):
        assert getattr(axis, field) == 0


def test_tweaks_go_as_far_as_twv(axis):
    axis.put(TWV=0.25, TWF=1)
    axis.put(TWF=1)
    assert axis.RBV == 0.5
    axis.put(TWR=1)
    assert axis.RBV == 0.25


def test_the_directions_of_a_move_are_told(axis):
    axis.put(VAL=-1)
    assert (axis.TDIR, axis.CDIR, axis.bit(0)) == (0, 0, 0)
    axis.put(VAL=0)
    assert (axis.TDIR, axis.CDIR, axis.bit(0)) == (1, 1, 1)


def test_what_moves_is_told_while_it_moves(axis):
    axis.put(VAL=-200, wait=False)
    wait_for(lambda: axis.RVEL == 2000, what="cruise at 20 degrees/s in steps/s")
    assert axis.bit(10)
    assert not axis.bit(1)
    before, steps, after = axis.DIFF, axis.RDIF, axis.DIFF  # it moves between these
    assert before <= after < 0
    assert before * 100 - 1 <= steps <= after * 100 + 1
    axis.put(STOP=1)
    assert axis.RVEL == 0
    assert axis.bit(1)


# -- redirection ------------------------------------------------------------------------------------------------


def test_a_new_target_ahead_redirects_without_a_stop(axis, watch):
    monitor = watch("DMOV", "MOVN", "RVEL")
    done = axis.start(VAL=40)
    wait_for(lambda: axis.RVEL == 2000)
    axis.client.put(f"{axis.name}.VAL", 45, wait=False)
    wait_for(lambda: done)
    assert axis.RBV == 45
    monitor.wait("DMOV", [0, 1])
    assert monitor.values("MOVN") == [1, 0]
    speeds = monitor.values("RVEL")
    assert speeds.count(2000) == 1, "the speed changed between the targets"


def test_a_new_target_behind_turns_the_motor_round(axis, watch):
    monitor = watch("DMOV", "RBV")
    done = axis.start(VAL=100)
    wait_for(lambda: axis.RBV > 2)
    axis.client.put(f"{axis.name}.VAL", -1, wait=False)
    wait_for(lambda: done)
    assert axis.RBV == -1
    monitor.wait("DMOV", [0, 1])
    assert 2 < max(monitor.values("RBV")) < 50


def test_without_ntm_the_first_target_is_reached_before_the_next(axis, watch):
    axis.put(NTM=0)
    monitor = watch("DMOV", "RBV")
    done = axis.start(VAL=25)
    wait_for(lambda: axis.RBV > 1)
    axis.client.put(f"{axis.name}.VAL", 0.5, wait=False)
    wait_for(lambda: done)
    assert axis.RBV == 0.5
    monitor.wait("DMOV", [0, 1])
    assert max(monitor.values("RBV")) == 25


def test_a_target_behind_within_the_ntm_deadband_does_not_turn_the_motor_round(axis, watch):
    axis.put(RDBD=5, NTMF=5, RTRY=0)  # 25 degrees
    monitor = watch("RBV", "DMOV")
    done = axis.start(VAL=25)
    wait_for(lambda: axis.RBV > 1)
    axis.client.put(f"{axis.name}.VAL", 0.5, wait=False)
    wait_for(lambda: done)
    assert max(monitor.values("RBV")) == 25
    assert axis.RBV == 0.5
    axis.put(NTMF=1)
    assert axis.NTMF == 2


def test_a_jog_and_a_homing_are_redirected_by_a_target(axis):
    for button in ("JOGF", "HOMR"):
        axis.put(wait=False, **{button: 1})  # it moves when the record has this, and has the next one after it
        axis.put(VAL=2)
        assert (axis.RBV, getattr(axis, button)) == (2, 0)


# -- stop -------------------------------------------------------------------------------------------------------


def test_stop_slows_down_and_takes_over_where_the_motor_rests(axis, watch):
    axis.put(ACCL=0.5)
    monitor = watch("RBV")
    done = axis.start(VAL=500)
    wait_for(lambda: axis.RVEL == 2000)
    before = axis.RBV
    axis.put(STOP=1, wait=False)
    after = axis.RBV
    wait_for(lambda: done)
    rest = axis.RBV
    # Stopping from 20/s in 0.5 s (to the base speed of 1/s) takes 5.25 degrees, from somewhere between the two.
    assert rest - after - 0.02 <= 5.25 <= rest - before + 0.02
    assert (axis.VAL, axis.DVAL, axis.DRBV, axis.DMOV, axis.STOP) == (rest, rest, rest, 1, 0)
    assert axis.RVAL == axis.RRBV
    wait_for(lambda: monitor.values("RBV")[-1] == rest, what="the last readback")


def test_stop_of_a_motor_at_rest_leaves_its_target(axis):
    axis.put(VAL=0.123)
    axis.put(STOP=1)
    assert axis.VAL == 0.123


def test_a_target_after_a_stop_is_gone_to(axis):
    axis.put(VAL=100, wait=False)
    axis.wait(MOVN=1)
    axis.put(STOP=1)
    axis.put(VAL=1)
    assert axis.RBV == 1


# -- limits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "refused"), [(5, False), (5.01, True), (-4, False), (-4.01, True), (1e300, True)])
def test_a_target_beyond_a_limit_is_refused_with_lvio(axis, watch, target, refused):
    axis.put(HLM=5, LLM=-4)
    monitor = watch("DMOV", "VAL")
    assert axis.client.put(f"{axis.name}.VAL", target)
    monitor.wait("DMOV", [0, 1])
    assert axis.LVIO == refused
    place = 0 if refused else target
    assert (axis.VAL, axis.DVAL, axis.RVAL, axis.RBV) == (place, place, round(place * 100), place)
    if refused:
        assert monitor.values("VAL") == []
    axis.put(VAL=1)
    assert (axis.LVIO, axis.RBV) == (0, 1)


def test_a_target_that_is_no_number_changes_nothing(axis, watch):
    monitor = watch("DMOV")
    for field in ("VAL", "DVAL", "RLV", "OFF", "HLM", "DLLM", "VELO", "BDST", "MRES"):
        before = getattr(axis, field)
        for value in (math.nan, math.inf):
            axis.put(**{field: value})
            assert getattr(axis, field) == before, field
    assert not monitor.events
    axis.put(VAL=1)
    assert axis.RBV == 1


def test_a_refused_target_does_not_disturb_the_motion_under_way(axis):
    axis.put(HLM=10)
    done = axis.start(VAL=8)
    axis.client.put(f"{axis.name}.VAL", 11, wait=False)
    axis.wait(LVIO=1)
    assert axis.VAL == 8
    wait_for(lambda: done)
    assert axis.RBV == 8


def test_a_limit_that_excludes_the_target_stops_the_motion(axis):
    done = axis.start(VAL=1000)
    wait_for(lambda: axis.RBV > 1)
    axis.put(HLM=500, wait=False)
    wait_for(lambda: done)
    assert axis.LVIO == 1
    assert axis.VAL == axis.RBV < 500


def test_both_dial_limits_zero_switch_the_limits_off(axis):
    axis.put(DHLM=0, DLLM=0)
    axis.put(VAL=1)
    assert (axis.RBV, axis.LVIO) == (1, 0)


def test_backlash_narrows_the_allowed_range(axis):
    axis.put(HLM=5, LLM=-5, BDST=1)
    axis.put(VAL=-4.5)
    assert (axis.LVIO, axis.RBV) == (1, 0)
    axis.put(VAL=-4)
    assert (axis.LVIO, axis.RBV) == (0, -4)


def test_a_limit_that_excludes_the_present_position_is_told(axis):
    axis.put(HLM=-1)
    assert axis.LVIO == 1
    axis.put(VAL=-2)
    assert (axis.LVIO, axis.RBV) == (0, -2)


def test_limits_hold_in_all_coordinates(axis):
    axis.put(OFF=10, DHLM=5, DLLM=-4)
    assert (axis.HLM, axis.LLM, axis.RHLM, axis.RLLM) == (15, 6, 500, -400)
    axis.put(FOFF=1, DIR=1)
    assert (axis.HLM, axis.LLM) == (14, 5)
    axis.put(HLM=12)
    assert (axis.DHLM, axis.DLLM) == (5, -2)
    axis.put(LLM=6)
    assert (axis.DHLM, axis.DLLM) == (4, -2)
    axis.put(MRES=-0.01)
    assert (axis.RHLM, axis.RLLM) == (200, -400)


def test_clients_are_told_the_limits_of_each_coordinate(axis):
    axis.put(OFF=1, DHLM=5, DLLM=-4)
    for field, limits in {"VAL": (-3, 6), "RBV": (-3, 6), "DVAL": (-4, 5), "RVAL": (-400, 500)}.items():
        metadata = axis.client.pv(f"{axis.name}.{field}").get_ctrlvars()
        assert (metadata["lower_ctrl_limit"], metadata["upper_ctrl_limit"]) == limits, field


def test_a_change_of_limits_is_told_to_who_listens_for_properties(gp, axis):
    import epics

    heard = []
    pv = epics.PV(
        f"{gp.prefix}{axis.name}.VAL{{}}", auto_monitor=epics.dbr.DBE_PROPERTY, callback=lambda **_: heard.append(1)
    )
    wait_for(lambda: heard)
    heard.clear()
    axis.put(VAL=1)
    assert not heard
    axis.put(HLM=5)
    wait_for(lambda: heard)
    pv.disconnect()


def test_hlsv_is_the_severity_of_being_at_a_limit(axis):
    axis.put(HLSV=1)
    axis.put(HLM=-1, wait=True)
    assert (axis.text("STAT"), axis.text("SEVR")) == ("HIGH", "MINOR")
    axis.put(HLM=10, LLM=1)
    assert (axis.text("STAT"), axis.text("SEVR")) == ("LOW", "MINOR")
    axis.put(LLM=-1)
    assert axis.text("SEVR") == "NO_ALARM"


def test_a_limit_switch_stops_the_motor(axis):
    axis.put(DHLM=0, DLLM=0, VELO=30000, JVEL=30000, JAR=1e6)
    axis.put(VAL=60000)
    assert (axis.HLS, axis.RHLS, axis.LLS, axis.RLLS) == (1, 1, 0, 0)
    assert axis.bit(2)
    place = axis.RBV
    assert place < 60000
    assert axis.VAL == place
    axis.put(RLV=10)
    assert (axis.RBV, axis.HLS) == (place, 1)
    axis.put(DIR=1)
    assert (axis.HLS, axis.LLS, axis.RHLS) == (0, 1, 1)
    axis.put(DIR=0)
    axis.put(RLV=-10)
    assert axis.HLS == 0
    assert axis.RBV == pytest.approx(place - 10, abs=0.02)
    axis.put(JOGR=1, wait=True)
    assert (axis.LLS, axis.RLLS, axis.JOGR, axis.DMOV) == (1, 1, 0, 1)
    assert axis.bit(13)
    axis.put(RLV=35000)


# -- backlash ---------------------------------------------------------------------------------------------------


def test_backlash_is_taken_out_from_the_side_of_bdst(axis, watch):
    axis.put(BDST=0.5, BVEL=1)
    axis.put(VAL=5)
    monitor = watch("RBV", "DMOV")
    axis.put(VAL=2)
    monitor.wait("DMOV", [0, 1])
    positions = monitor.values("RBV")
    assert 1.49 < min(positions) < 1.8, "the turning point lies between two readbacks"
    assert positions[-1] == 2


def test_a_long_move_along_bdst_stops_short_and_goes_on_slowly(axis, watch):
    axis.put(BDST=0.5, BVEL=2, BACC=0.1)
    monitor = watch("RVEL", "DMOV", "MOVN", "RBV")
    axis.put(VAL=5)
    monitor.wait("DMOV", [0, 1])
    late = [speed for name, speed, time in monitor.events if name == "RVEL" and time > monitor.times("DMOV")[1] - 0.2]
    assert late
    assert max(late) <= 200
    assert max(monitor.values("RVEL")) > 1000
    assert axis.RBV == 5


def test_a_short_move_along_bdst_is_made_at_bvel_alone(axis, watch):
    axis.put(BDST=2, BVEL=4)
    axis.put(VAL=5)
    monitor = watch("RBV", "RVEL", "DMOV")
    axis.put(VAL=6)
    monitor.wait("DMOV", [0, 1])
    assert min(monitor.values("RBV")) >= 5
    assert max(monitor.values("RVEL")) <= 400


# -- jog --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("button", "direction", "sign"), [("JOGF", 0, 1), ("JOGR", 0, -1), ("JOGF", 1, 1)])
def test_a_jog_goes_on_until_its_button_is_released(axis, button, direction, sign):
    axis.put(DIR=direction)
    done = axis.start(**{button: 1})
    wait_for(lambda: axis.RBV * sign > 2)
    assert (axis.DMOV, getattr(axis, button)) == (0, 1)
    axis.put(wait=False, **{button: 0})
    wait_for(lambda: done)
    assert (axis.DMOV, getattr(axis, button)) == (1, 0)
    assert axis.VAL == axis.RBV
    assert axis.DVAL == axis.DRBV


def test_a_jog_is_stopped_a_second_before_the_limit(axis, watch):
    axis.put(HLM=30)
    assert axis.client.put(f"{axis.name}.JOGF", 1)
    assert (axis.LVIO, axis.JOGF, axis.DMOV) == (1, 0, 1)
    assert 9 < axis.RBV < 30
    place = axis.RBV
    axis.put(BDST=1)
    monitor = watch("DMOV", "RBV")
    axis.put(JOGF=1)
    assert (axis.LVIO, axis.JOGF, axis.RBV) == (1, 0, place)
    assert not monitor.events
    axis.put(BDST=0)
    axis.put(JOGR=1, wait=False)
    wait_for(lambda: axis.RBV < place)
    assert axis.LVIO == 0
    axis.put(STOP=1)


def test_the_jog_speed_changes_on_the_fly(axis):
    axis.put(JOGF=1, wait=False)
    wait_for(lambda: axis.RVEL == 2000)
    axis.put(JVEL=5, JAR=100)
    wait_for(lambda: axis.RVEL == 500)
    axis.put(JOGF=0)
    assert axis.DMOV == 1


def test_the_other_jog_button_turns_the_motor_round(axis):
    axis.put(JOGF=1, wait=False)
    wait_for(lambda: axis.RBV > 1)
    axis.put(JOGR=1, wait=False)
    wait_for(lambda: axis.RBV < 0)
    assert (axis.JOGF, axis.JOGR) == (0, 1)
    axis.put(STOP=1)
    assert axis.JOGR == 0


def test_a_jog_ends_with_backlash_taken_out(axis, watch):
    axis.put(BDST=1, BVEL=2)
    done = axis.start(JOGR=1)
    wait_for(lambda: axis.RBV < -2)
    monitor = watch("RBV")
    axis.put(JOGR=0, wait=False)
    wait_for(lambda: done)
    rest = axis.RBV
    wait_for(lambda: monitor.values("RBV")[-1] == rest)
    # The turning point lies between two readbacks.
    assert 0.5 < rest - min(monitor.values("RBV")) < 1.02


# -- home -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("button", "start"), [("HOMF", -0.5), ("HOMF", 0.5), ("HOMR", 0.5), ("HOMR", -0.5)])
def test_homing_ends_on_the_switch_approached_in_the_direction_asked_for(gp, axis, watch, button, start):
    axis.put(HOMF=1)  # wherever the switch is in the coordinates of this test
    axis.put(OFF=0)
    assert (axis.ATHM, axis.DRBV) == (1, 0)
    axis.put(VAL=start, HVEL=1)  # the last 0.2 degrees take several readbacks
    assert axis.ATHM == 0
    axis.put(SET=1, DVAL=start + 100)
    axis.put(SET=0, OFF=0)
    monitor = watch("DRBV", "DMOV", button)
    axis.put(**{button: 1})
    monitor.wait("DMOV", [0, 1])
    assert (axis.DRBV, axis.RRBV, axis.ATHM, getattr(axis, button)) == (0, 0, 1, 0)
    assert axis.VAL == axis.RBV == 0
    assert axis.bit(3)
    assert axis.bit(7)
    assert axis.bit(14)
    before = monitor.values("DRBV")[-2]
    assert (before - 100) * (1 if button == "HOMF" else -1) < 1e-6  # not from the other side


def test_a_home_button_cannot_be_released(axis):
    axis.put(HOMF=1)
    axis.put(RLV=-10, HVEL=1)  # from there it takes ten seconds
    axis.put(HOMF=1, wait=False)
    axis.put(HOMF=0, wait=False)
    assert axis.HOMF == 1
    axis.put(STOP=1)
    assert (axis.HOMF, axis.DMOV) == (0, 1)


# -- SPMG -------------------------------------------------------------------------------------------------------


def test_spmg_stop_ends_a_motion_and_holds_the_motor(axis):
    done = axis.start(VAL=500)
    wait_for(lambda: axis.RBV > 1)
    axis.put(SPMG=STOP, wait=False)
    wait_for(lambda: done)
    rest = axis.RBV
    assert (axis.VAL, axis.DMOV) == (rest, 1)
    waiting = axis.start(VAL=rest + 1)
    axis.wait(DMOV=0)
    assert (axis.VAL, axis.RBV, axis.MOVN) == (rest + 1, rest, 0)
    assert not waiting
    axis.put(SPMG=GO, wait=False)
    wait_for(lambda: waiting)
    assert axis.RBV == pytest.approx(rest + 1)


def test_spmg_pause_interrupts_a_motion_and_go_resumes_it(axis):
    done = axis.start(VAL=40)
    wait_for(lambda: axis.RBV > 1)
    axis.put(SPMG=PAUSE, wait=False)
    axis.wait(MOVN=0)
    assert (axis.DMOV, axis.VAL) == (0, 40)
    assert 1 < axis.RBV < 40
    assert not done
    axis.put(SPMG=GO, wait=False)
    wait_for(lambda: done)
    assert axis.RBV == 40


def test_spmg_move_makes_one_motion(axis):
    axis.put(SPMG=PAUSE)
    done = axis.start(VAL=1)
    axis.wait(DMOV=0)
    axis.put(SPMG=MOVE, wait=False)
    wait_for(lambda: done)
    assert (axis.RBV, axis.SPMG) == (1, PAUSE)


def test_stop_gives_a_pause_up(axis):
    done = axis.start(VAL=500)
    wait_for(lambda: axis.RBV > 1)
    axis.put(SPMG=PAUSE, wait=False)
    axis.wait(MOVN=0)
    axis.put(STOP=1, wait=False)
    wait_for(lambda: done)
    assert axis.VAL == axis.RBV < 500
    axis.put(SPMG=GO)
    assert axis.DMOV == 1


@pytest.mark.parametrize("button", ["JOGF", "JOGR", "HOMF", "HOMR"])
def test_buttons_do_nothing_while_spmg_holds_the_motor(axis, button):
    axis.put(SPMG=PAUSE)
    axis.put(**{button: 1})
    assert (getattr(axis, button), axis.DMOV, axis.RBV) == (0, 1, 0)


# -- coordinates ------------------------------------------------------------------------------------------------


def test_set_redefines_the_user_position_by_the_offset(axis, watch):
    axis.put(VAL=1)
    monitor = watch("DMOV", "RBV")
    axis.put(SET=1)
    axis.put(VAL=5)
    axis.put(SET=0)
    assert axis.coordinates() == {
        "VAL": 5, "DVAL": 1, "RVAL": 100, "RBV": 5, "DRBV": 1, "RRBV": 100, "OFF": 4,
    }  # fmt: skip
    assert (axis.HLM, axis.LLM, axis.DHLM) == (32004, -31996, 32000)
    assert monitor.values("DMOV") == []
    assert monitor.values("RBV") == [5]


@pytest.mark.parametrize(("field", "value"), [("DVAL", 10), ("RVAL", 1000)])
def test_set_redefines_dial_and_raw_position_by_loading_the_register(axis, field, value):
    axis.put(VAL=1)
    axis.put(SET=1)
    axis.put(**{field: value})
    axis.put(SET=0)
    assert axis.coordinates() == {
        "VAL": 1, "DVAL": 10, "RVAL": 1000, "RBV": 1, "DRBV": 10, "RRBV": 1000, "OFF": -9,
    }  # fmt: skip
    axis.put(VAL=2)
    assert (axis.RBV, axis.DRBV, axis.RMP) == (2, 11, 1100)


def test_a_frozen_offset_is_not_changed_by_set(axis):
    axis.put(OFF=2)
    axis.put(FOF=1)
    assert axis.FOFF == 1
    axis.put(SSET=1)
    assert axis.SET == 1
    axis.put(VAL=7)
    assert axis.coordinates() == {
        "VAL": 7, "DVAL": 5, "RVAL": 500, "RBV": 7, "DRBV": 5, "RRBV": 500, "OFF": 2,
    }  # fmt: skip
    axis.put(VOF=1)
    assert axis.FOFF == 0
    axis.put(SUSE=1)
    assert axis.SET == 0


def test_igset_has_set_ignored(axis):
    axis.put(SET=1, IGSET=1)
    axis.put(VAL=1)
    assert (axis.RBV, axis.OFF, axis.DRBV) == (1, 0, 1)


def test_an_offset_that_is_written_shifts_the_user_coordinate(axis):
    axis.put(VAL=1)
    axis.put(OFF=10)
    assert (axis.VAL, axis.RBV, axis.DVAL, axis.HLM) == (11, 11, 1, 32010)


def test_the_direction_keeps_val_or_a_frozen_offset(axis):
    axis.put(VAL=1)
    axis.put(DIR=1)
    assert (axis.VAL, axis.RBV, axis.OFF, axis.DVAL) == (1, 1, 2, 1)
    axis.put(VAL=2)
    assert (axis.RBV, axis.DRBV) == (2, 0)
    axis.put(FOFF=1, DIR=0)
    assert (axis.VAL, axis.OFF, axis.DVAL) == (2, 2, 0)


def test_redefining_the_dial_position_while_moving_ends_the_motion(axis):
    done = axis.start(VAL=1000)
    wait_for(lambda: axis.RBV > 1)
    axis.put(SET=1, DVAL=7, wait=False)
    wait_for(lambda: done)
    axis.put(SET=0)
    assert (axis.DRBV, axis.DVAL, axis.MOVN) == (7, 7, 0)


def test_sync_makes_the_target_the_readback(axis):
    axis.put(VAL=0.123)
    axis.put(SYNC=1)
    assert (axis.VAL, axis.DVAL, axis.SYNC) == (0.12, 0.12, 0)


values = st.one_of(
    st.floats(-300, 300).map(lambda value: round(value, 3)), st.sampled_from([0.0, 1e300, math.nan, math.inf])
)
writes = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["VAL", "DVAL", "RLV", "OFF", "HLM", "LLM", "DHLM", "DLLM"]), values),
        st.tuples(st.sampled_from(["RVAL"]), st.integers(-30000, 30000)),
        st.tuples(
            st.sampled_from(["SET", "FOFF", "DIR", "STOP", "UEIP", "SYNC", "TWF", "TWR"]), st.sampled_from([0, 1])
        ),
        st.tuples(st.sampled_from(["SREV"]), st.sampled_from([200, 2000, 400, 0, -1])),
        st.tuples(st.sampled_from(["MRES", "UREV", "ERES"]), st.sampled_from([0.01, -0.02, 2.0, 0.0, 1e-300])),
        st.tuples(st.sampled_from(["SPMG"]), st.sampled_from([0, 1, 2, 3])),
        st.tuples(st.sampled_from(["JOGF", "JOGR"]), st.sampled_from([0, 1])),
    ),
    max_size=12,
)


@given(writes=writes)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_user_dial_and_raw_agree_whatever_is_written_in_whatever_order(axis, writes):
    axis.reset()
    axis.put(VELO=3000, JVEL=100)
    for field, value in writes:
        axis.put(wait=False, **{field: value})
    axis.put(CNEN=1, SPMG=GO, JOGF=0, JOGR=0, wait=False)
    axis.put(STOP=1, wait=False)
    axis.wait(DMOV=1)
    seen = {field: getattr(axis, field) for field in (
        "VAL", "DVAL", "RVAL", "RBV", "DRBV", "RRBV", "OFF", "DIR", "MRES", "SREV", "UREV", "UEIP", "ERES",
        "HLM", "LLM", "DHLM", "DLLM", "RHLM", "RLLM", "VELO", "S",
    )}  # fmt: skip
    sign = -1 if seen["DIR"] else 1
    scale = max(map(abs, seen.values()))

    def near(value):
        return pytest.approx(value, rel=1e-9, abs=1e-9 * scale)

    assert seen["VAL"] == near(seen["DVAL"] * sign + seen["OFF"])
    assert seen["RBV"] == near(seen["DRBV"] * sign + seen["OFF"])
    assert seen["DRBV"] == near(seen["RRBV"] * (seen["ERES"] if seen["UEIP"] else seen["MRES"]))
    assert seen["RVAL"] == pytest.approx(seen["DVAL"] / seen["MRES"], abs=0.5 + 1e-6)
    assert seen["MRES"] == pytest.approx(seen["UREV"] / seen["SREV"])
    assert seen["VELO"] == pytest.approx(seen["S"] * abs(seen["UREV"]))
    ends = seen["DHLM"] * sign + seen["OFF"], seen["DLLM"] * sign + seen["OFF"]
    assert (seen["HLM"], seen["LLM"]) == near(ends if sign > 0 else ends[::-1])
    assert sorted((seen["RHLM"], seen["RLLM"])) == pytest.approx(
        sorted((seen["DHLM"] / seen["MRES"], seen["DLLM"] / seen["MRES"]))
    )


# -- resolution and speeds --------------------------------------------------------------------------------------


def test_more_steps_per_revolution_make_finer_steps_and_nothing_else(axis):
    axis.put(VAL=1)
    axis.put(SREV=2000)
    assert (axis.MRES, axis.UREV, axis.VELO, axis.VAL, axis.RBV, axis.RVAL, axis.RRBV) == (
        0.001,
        2,
        20,
        1,
        1,
        1000,
        1000,
    )
    axis.put(VAL=1.005)
    assert axis.RBV == 1.005


def test_a_new_step_size_keeps_the_revolutions_per_second(axis):
    axis.put(MRES=0.02)
    assert (axis.UREV, axis.SREV, axis.S, axis.VELO, axis.VBAS) == (4, 200, 10, 40, 2)
    axis.put(UREV=2)
    assert (axis.MRES, axis.S, axis.VELO) == (0.01, 10, 20)


def test_in_set_mode_a_new_step_size_keeps_the_steps(axis):
    axis.put(VAL=1)
    axis.put(SET=1, MRES=0.02)
    axis.put(SET=0)
    assert (axis.RVAL, axis.RRBV, axis.DVAL, axis.VAL, axis.RBV) == (100, 100, 2, 2, 2)


@pytest.mark.parametrize(("field", "value"), [("MRES", 0), ("UREV", 0), ("SREV", 0), ("SREV", -200), ("MRES", 1e-12)])
def test_an_impossible_resolution_is_refused(axis, field, value):
    axis.put(VAL=1)
    axis.put(**{field: value})
    assert (axis.MRES, axis.UREV, axis.SREV, axis.RBV) == (0.01, 2, 200, 1)


def test_a_negative_step_size_turns_raw_round(axis):
    axis.put(MRES=-0.01)
    axis.put(VAL=1)
    assert (axis.RBV, axis.RVAL, axis.RRBV, axis.TDIR, axis.CDIR) == (1, -100, -100, 0, 0)


@pytest.mark.parametrize(("speed", "turns"), [("VELO", "S"), ("BVEL", "SBAK"), ("VMAX", "SMAX"), ("VBAS", "SBAS")])
def test_speeds_are_in_revolutions_too(axis, speed, turns):
    axis.put(**{speed: 8})
    assert getattr(axis, turns) == 4
    axis.put(**{turns: 6})
    assert getattr(axis, speed) == 12


def test_speeds_stay_between_base_and_maximum(axis):
    axis.put(VMAX=10)
    assert (axis.VELO, axis.BVEL, axis.JVEL, axis.HVEL) == (10, 10, 10, 10)
    axis.put(VELO=20)
    assert axis.VELO == 10
    axis.put(VELO=0.5)
    assert axis.VELO == 1
    axis.put(VBAS=12)
    assert (axis.VMAX, axis.VELO) == (12, 12)
    axis.put(VMAX=5)
    assert (axis.VBAS, axis.VELO) == (5, 5)
    axis.put(VMAX=-1, VBAS=-1)
    assert (axis.VMAX, axis.VBAS) == (5, 5)


def test_a_motor_cannot_have_no_speed(axis):
    axis.put(VBAS=0)
    for field in ("VELO", "S", "ACCL", "BVEL", "HVEL", "JVEL", "JAR", "ACCS", "BACC"):
        before = getattr(axis, field)
        axis.put(**{field: 0})
        assert getattr(axis, field) == before > 0, field


def test_acceleration_is_a_time_or_a_rate(axis):
    axis.put(VBAS=1, VELO=5, ACCL=0.5)
    assert axis.ACCS == 8
    axis.put(VELO=9)
    assert (axis.ACCL, axis.ACCS) == (0.5, 16)
    axis.put(ACCU=1)
    axis.put(VELO=17)
    assert (axis.ACCL, axis.ACCS) == (1, 16)
    axis.put(ACCS=32)
    assert axis.ACCL == 0.5


def test_hvel_is_the_speed_of_homing(axis, watch):
    axis.put(HOMF=1)
    axis.put(VAL=-3, HVEL=4)
    monitor = watch("RVEL", "DMOV")
    axis.put(HOMF=1)
    monitor.wait("DMOV", [0, 1])
    assert max(monitor.values("RVEL")) == 400


# -- arrival ----------------------------------------------------------------------------------------------------


def test_the_encoder_is_read_in_its_own_steps(axis):
    axis.put(ERES=0.005)
    axis.put(VAL=1)
    assert (axis.RMP, axis.REP, axis.RRBV) == (100, 200, 100)
    axis.put(UEIP=1)
    assert (axis.RRBV, axis.DRBV, axis.RBV) == (200, 1, 1)
    assert axis.bit(8)
    axis.put(ERES=0)
    assert axis.ERES == axis.MRES


@pytest.mark.parametrize(("mode", "expected"), [(0, 0.3), (1, None), (2, None), (3, 0.3)])
def test_a_position_that_is_not_reached_is_tried_again_and_then_missed(axis, mode, expected):
    axis.put(ERES=0.5, UEIP=1, RTRY=3, RMOD=mode)  # the encoder shows 0.5 or 0, never 0.3
    axis.put(VAL=0.3)
    assert (axis.RCNT, axis.MISS, axis.DMOV) == (3, 1, 1)
    assert abs(axis.DIFF) > axis.RDBD
    if mode == 3:
        assert axis.RMP == 30, "In-Position only waits"
    axis.put(VAL=1)
    assert (axis.MISS, axis.RBV) == (0, 1)


def test_retry_modes_differ_in_how_far_they_go(axis):
    moves = {}
    for mode in (0, 1, 2):
        axis.reset()
        axis.put(ERES=0.5, UEIP=1, RTRY=2, RMOD=mode)
        axis.put(VAL=0.3)
        moves[mode] = axis.RMP
    # From 0.30 (encoder: 0.5) by -0.20 to 0.10 (encoder: 0); then by 0.3 times 1, 1/2, 1/2.
    assert moves == {0: 40, 1: 25, 2: 25}


def test_a_retry_deadband_hides_a_small_difference(axis):
    axis.put(ERES=0.5, UEIP=1, RDBD=0.25)
    axis.put(VAL=0.3)
    assert (axis.RCNT, axis.MISS) == (0, 0)
    axis.put(RDBD=0)
    assert axis.RDBD == axis.MRES


def test_moves_within_the_set_point_deadband_are_not_made(axis, watch):
    axis.put(SPDB=0.1)
    monitor = watch("DMOV")
    axis.put(VAL=0.05)
    monitor.wait("DMOV", [0, 1])
    assert (axis.VAL, axis.RBV) == (0.05, 0)
    axis.put(VAL=0.2)
    assert axis.RBV == 0.2


def test_dmov_waits_for_the_settling_time(axis, watch):
    axis.put(DLY=0.5)
    monitor = watch("DMOV", "MOVN")
    axis.put(VAL=1)
    monitor.wait("DMOV", [0, 1])
    assert monitor.times("DMOV")[1] - monitor.times("MOVN")[1] >= 0.45


def test_stop_ends_the_settling(axis):
    axis.put(DLY=600)
    done = axis.start(VAL=0.5)
    axis.wait(RBV=0.5, MOVN=0)
    assert not done
    axis.put(STOP=1, wait=False)
    wait_for(lambda: done)
    assert axis.RBV == 0.5


def test_readback_deadbands_thin_the_updates(axis, watch):
    axis.put(MDEL=2)
    monitor = watch("RBV", "DMOV")
    axis.put(VAL=10)
    monitor.wait("DMOV", [0, 1])
    assert all(abs(after - before) > 2 for before, after in itertools.pairwise([0, *monitor.values("RBV")]))


def test_archivers_have_a_deadband_of_their_own(gp, axis):
    import epics

    archived = []
    pv = epics.PV(
        f"{gp.prefix}{axis.name}.RBV",
        auto_monitor=epics.dbr.DBE_LOG,
        callback=lambda value, **_: archived.append(value),
    )
    wait_for(lambda: archived)
    axis.put(ADEL=3)
    axis.put(VAL=10)
    wait_for(lambda: archived[-1] >= 7)
    pv.disconnect()
    assert all(abs(after - before) > 3 for before, after in itertools.pairwise(archived))


# -- servo, links, the rest -------------------------------------------------------------------------------------


def test_without_holding_power_a_move_fails_with_an_alarm(axis):
    assert axis.bit(5)
    axis.put(CNEN=0)
    assert not axis.bit(5)
    assert axis.text("SEVR") == "NO_ALARM"
    axis.put(VAL=1)
    assert (axis.RBV, axis.VAL, axis.DMOV) == (0, 0, 1)
    assert (axis.text("STAT"), axis.text("SEVR")) == ("STATE", "MAJOR")
    assert axis.bit(9)
    axis.put(CNEN=1)
    wait_for(lambda: axis.text("SEVR") == "NO_ALARM")
    axis.put(VAL=1)
    assert axis.RBV == 1


def test_power_off_ends_a_motion(axis):
    done = axis.start(VAL=500)
    wait_for(lambda: axis.RBV > 1)
    axis.put(CNEN=0, wait=False)
    wait_for(lambda: done)
    assert axis.VAL == axis.RBV < 500
    assert axis.text("SEVR") == "MAJOR"


def test_the_forward_link_is_processed_once_when_the_motion_is_done(gp, axis):
    gp.put("userCalcOut20.CALC", "VAL+1")
    axis.put(FLNK=f"{gp.prefix}userCalcOut20")
    before = gp.get("userCalcOut20")
    done = axis.start(VAL=20)
    axis.wait(MOVN=1)
    assert gp.get("userCalcOut20") == before
    wait_for(lambda: done)
    assert gp.get("userCalcOut20") == before + 1


def test_the_enable_record_locks_a_motor(gp, axis):
    gp.put(f"{axis.name}_able", "Disable")
    try:
        axis.put(VAL=1)
        assert (axis.VAL, axis.RBV) == (0, 0)
    finally:
        gp.put(f"{axis.name}_able", "Enable")
    axis.put(VAL=1)
    assert axis.RBV == 1


def test_units_and_decimals_are_told(axis):
    assert axis.client.pv(f"{axis.name}.RBV").get_ctrlvars()["units"] == "degrees"
    assert axis.client.pv(f"{axis.name}.S").get_ctrlvars()["units"] == "rev/s"
    axis.put(EGU="mm", PREC=2)
    metadata = axis.client.pv(f"{axis.name}.RBV").get_ctrlvars()
    assert (metadata["units"], metadata["precision"]) == ("mm", 2)
    assert axis.client.pv(f"{axis.name}.VELO").get_ctrlvars()["units"] == "mm/s"
    axis.put(EGU="degrees", PREC=5)


def test_descriptions_can_be_long_strings(axis):
    text = "a stage that turns the sample about x"
    axis.client.put(f"{axis.name}.DESC$", text)
    assert axis.client.get(f"{axis.name}.DESC$", text=True) == text
    assert (axis.CARD, axis.text("DTYP"), axis.text("RTYP")) == (-1, "asynMotor", "motor")


@pytest.mark.parametrize("field", ["RBV", "DMOV", "MSTA", "RMP", "LVIO", "CARD"])
def test_readbacks_cannot_be_written(axis, field):
    import epics

    before = getattr(axis, field)
    with pytest.raises(epics.ca.CASeverityException, match="Write access denied"):
        axis.put(**{field: 5})
    assert getattr(axis, field) == before


def test_the_first_motor_has_the_finest_steps(gp):
    assert (gp.get("m1.MRES"), gp.get("m1.SREV"), gp.get("m2.MRES"), gp.get("m2.SREV")) == (0.001, 2000, 0.01, 200)
    for number in range(1, 17):
        motor = Axis(gp, f"m{number}")
        assert (motor.text("EGU"), motor.PREC, motor.DHLM, motor.DLLM) == ("degrees", 5, 32000, -32000)
