"""Plans only yield, check what they are given before anything moves, and find the peak."""

import inspect
import itertools
import logging
import math
import re
from types import SimpleNamespace

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
from bluesky.simulators import summarize_plan
from ophyd import Signal, SignalRO
from ophyd.sim import SynGauss

from instrument import plans
from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.framework.runs import spec_command
from instrument.framework.snapshots import Entry, Snapshot
from instrument.plans import preflight
from instrument.plans.defaults import Counters, with_devices
from instrument.plans.peak_finder import CENTER_RANGE, WIDTH_RANGE
from tests.plans.spy import DirectCallError

# A snapshot of what is no PV; tests/snapshot has real ones.
RECORDED = SimpleNamespace(
    find=lambda *_, **__: Snapshot({"uid": "1234567", "scan_id": 1}, [Entry("a", {"source": "SIM:a"}, 1)])
)
# How each exported plan is called.
CALLS = {
    "lup": lambda b: plans.lup([b.noisy], b.motor, -1, 1, 21),
    "lineup2": lambda b: plans.lineup2([b.noisy], b.motor, -1, 1, 21),
    "two_pass_scan": lambda b: plans.two_pass_scan(detector=b.noisy, motor=b.motor),
    "findpeak_multipass": lambda b: plans.findpeak_multipass(2, detector=b.noisy, motor=b.motor),
    "repeat_findpeak": lambda b: plans.repeat_findpeak(2, detector=b.noisy, motor=b.motor, calc=b.calc),
    "change_noisy_parameters": lambda b: plans.change_noisy_parameters(calc=b.calc),
    "snapshot": lambda b: plans.snapshot([b.motor, b.noisy]),
    "mv": lambda b: plans.mv(b.motor, 1),
    "mvr": lambda b: plans.mvr(b.motor, 1),
    "umv": lambda b: plans.umv(b.motor, 1),
    "umvr": lambda b: plans.umvr(b.motor, 1),
    "set_lm": lambda b: plans.set_lm(b.motor, -1, 1),
    "set_user": lambda b: plans.set_user(b.motor, 1),
    "set_dial": lambda b: plans.set_dial(b.motor, 1),
    "ct": lambda b: plans.ct(0.1, detectors=[b.scaler]),
    "timescan": lambda b: plans.timescan(0.1, 0, 2, detectors=[b.scaler]),
    "ascan": lambda b: plans.ascan(b.motor, -1, 1, 4, 0.1, detectors=[b.scaler, b.noisy]),
    "dscan": lambda b: plans.dscan(b.motor, -1, 1, 4, 0.1, detectors=[b.scaler]),
    "a2scan": lambda b: plans.a2scan(b.motor, -1, 1, b.motor2, 0, 1, 4, 0.1, detectors=[b.scaler]),
    "d2scan": lambda b: plans.d2scan(b.motor, -1, 1, b.motor2, 0, 1, 4, 0.1, detectors=[b.scaler]),
    "mesh": lambda b: plans.mesh(b.motor, -1, 1, 2, b.motor2, 0, 1, 3, 0.1, detectors=[b.scaler]),
    "dmesh": lambda b: plans.dmesh(b.motor, -1, 1, 2, b.motor2, 0, 1, 3, 0.1, detectors=[b.scaler]),
    "lookupscan": lambda b: plans.lookupscan(b.motor, [0, 1], 0.1, detectors=[b.scaler]),
    "ad_vs_motor": lambda b: plans.ad_vs_motor(b.motor, -1, 1, 5, camera=b.camera),
    "locate_image_peak": lambda b: plans.locate_image_peak(2, camera=b.camera),
    "darks_flats": lambda b: plans.darks_flats(2, camera=b.camera),
    "snapshot_restore": lambda _: plans.snapshot_restore(snapshots=RECORDED),
    "snapshot_undo": lambda _: plans.snapshot_undo(snapshots=RECORDED),
}
# What moves nothing.
STILL = {
    "locate_image_peak",
    "darks_flats",
    "change_noisy_parameters",
    "set_lm",
    "set_user",
    "set_dial",
    "ct",
    "timescan",
    "snapshot",
    "snapshot_restore",
    "snapshot_undo",
}


def test_every_exported_plan_is_tried_here():
    assert set(CALLS) == set(plans.__all__)


@pytest.mark.parametrize("name", plans.__all__)
def test_plans_only_yield(bench, name):
    bench.run(CALLS[name](bench))
    assert bench.messages


@pytest.mark.parametrize(
    "touch", [lambda b: b.motor.set(1), lambda b: b.noisy.read(), lambda b: b.motor.position, lambda b: b.motor.get()]
)
def test_the_spy_sees_a_plan_that_touches_a_device(bench, touch):
    def plan():
        yield from bps.null()
        touch(bench)

    with pytest.raises(DirectCallError):
        bench.run(plan())


@pytest.mark.parametrize("name", plans.__all__)
def test_plans_can_be_run_dry(bench, name, capsys):
    bench.guard.armed = False
    summarize_plan(CALLS[name](bench))
    assert "m1 -> " in capsys.readouterr().out or name in STILL


# Those are dry unless told otherwise, and tell in a table what they would set.
@pytest.mark.parametrize("name", sorted(set(plans.__all__) - {"snapshot_restore", "snapshot_undo"}))
def test_what_a_plan_would_do_is_told_in_one_line_and_nothing_as_if_it_had_happened(bench, name, capsys, caplog):
    bench.guard.armed = False
    with caplog.at_level(logging.INFO, LOGGER_NAME):
        forecast = preflight.asked(name, CALLS[name](bench))
    assert (capsys.readouterr().out, caplog.messages) == ("", [])
    assert forecast.line().startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda b: plans.lup([b.noisy], "m1", -1, 1), "lup: 'm1' is text, not a motor"),
        (lambda b: plans.lup(["nosy"], b.motor, -1, 1), "lup: 'nosy' is text, not a detector"),
        (lambda b: plans.lup([b.noisy], b.motor, -1, 1, nun=5), "lup has no argument 'nun': did you mean 'num'?"),
        (lambda b: plans.lup([b.noisy], b.motor), "lup: missing a required argument: 'start'"),
        (lambda b: plans.two_pass_scan(detector=b.noisy, motr=b.motor), "no argument 'motr': did you mean 'motor'?"),
        (lambda b: plans.lup("noisy", b.motor, -1, 1), "lup: 'noisy' is text, not a detector"),
        (lambda b: plans.lup([], b.motor, -1, 1), "no detector"),
        (lambda b: plans.lup([3], b.motor, -1, 1), "3 can't be read"),
        (lambda b: plans.lup([b.noisy], b.noisy, -1, 1), "noisy can't be moved"),
        (lambda b: plans.lup([b.noisy], b.motor, math.nan, 1), "start=nan"),
        (lambda b: plans.lup([b.noisy], b.motor, -1, math.inf), "finish=inf"),
        (lambda b: plans.lup([b.noisy], b.motor, "1 mm", 1), "start='1 mm' is no number"),
        (lambda b: plans.lup([b.noisy], b.motor, None, 1), "start=None is no number"),
        (lambda b: plans.lup([b.noisy], b.motor, 1, 1), "nothing to scan"),
        (lambda b: plans.lup([b.noisy], b.motor, -1, 1, 0), "num=0 has to be a whole number, 3 or more"),
        (lambda b: plans.lup([b.noisy], b.motor, -1, 1, -5), "num=-5"),
        (lambda b: plans.lup([b.noisy], b.motor, -1, 1, 5.5), r"num=5\.5"),
        (lambda b: plans.lup([b.noisy], b.motor, -1, 1, key="center"), "key='center' is no statistic"),
        (lambda b: plans.two_pass_scan(detector="noisy", motor=b.motor), "'noisy' is text"),
        (lambda b: plans.two_pass_scan(detector=b.noisy, motor=b.motor, half_width=0), "half_width=0"),
        (lambda b: plans.two_pass_scan(detector=b.noisy, motor=b.motor, center=math.nan), "center=nan"),
        (lambda b: plans.findpeak_multipass(0, detector=b.noisy, motor=b.motor), "number_of_scans=0"),
        (lambda b: plans.findpeak_multipass(2, 2, detector=b.noisy, motor=b.motor), "number_of_points=2"),
        (lambda b: plans.findpeak_multipass(magnify=-1, detector=b.noisy, motor=b.motor), "magnify=-1"),
        (lambda b: plans.findpeak_multipass(detector=b.noisy, motor="m1"), "'m1' is text"),
        (lambda b: plans.repeat_findpeak(0, detector=b.noisy, motor=b.motor, calc=b.calc), "iters=0"),
        (lambda b: plans.repeat_findpeak(detector=b.noisy, motor="m1", calc=b.calc), "'m1' is text"),
    ],
)
def test_a_wrong_argument_is_one_line_and_nothing_moves(bench, wrong, why):
    with pytest.raises(UserError, match=why.replace("?", r"\?")) as caught:
        bench.run(wrong(bench))
    assert "\n" not in str(caught.value)
    assert "nothing moved" in str(caught.value)
    assert bench.messages == []


@pytest.mark.parametrize(
    ("name", "moves"),
    [
        ("mv", lambda b, it: plans.mv(b.motor, 1, it, 1)),
        ("umv", lambda _, it: plans.umv(it, 1)),
        ("mvr", lambda _, it: plans.mvr(it, 1)),
        ("umvr", lambda _, it: plans.umvr(it, 1)),
        ("set_lm", lambda _, it: plans.set_lm(it, -1, 1)),
        ("ascan", lambda b, it: plans.ascan(it, -1, 1, 4, detectors=[b.noisy])),
        ("dscan", lambda b, it: plans.dscan(it, -1, 1, 4, detectors=[b.noisy])),
        ("a2scan", lambda b, it: plans.a2scan(b.motor, -1, 1, it, 0, 1, 4, detectors=[b.noisy])),
        ("mesh", lambda b, it: plans.mesh(b.motor, -1, 1, 2, it, 0, 1, 3, detectors=[b.noisy])),
        ("lookupscan", lambda b, it: plans.lookupscan(it, [0, 1], detectors=[b.noisy])),
        ("lup", lambda b, it: plans.lup([b.noisy], it, -1, 1)),
        ("lineup2", lambda b, it: plans.lineup2([b.noisy], it, -1, 1)),
        ("two_pass_scan", lambda b, it: plans.two_pass_scan(detector=b.noisy, motor=it)),
        ("ad_vs_motor", lambda b, it: plans.ad_vs_motor(it, -1, 1, 5, camera=b.camera)),
    ],
)
def test_what_is_only_read_is_no_motor(bench, name, moves):
    current = SignalRO(name="current", value=100.0)
    with pytest.raises(UserError) as caught:
        bench.run(moves(bench, current))
    assert str(caught.value) == f"{name}: current is read-only, it can't be moved: give a motor; nothing moved"
    assert bench.messages == []


def test_an_estimate_refuses_to_move_what_is_only_read(bench):
    bench.guard.armed = False
    with pytest.raises(UserError, match="scan: current is read-only, it can't be moved; nothing moved"):
        preflight.asked("scan", bp.scan([bench.noisy], SignalRO(name="current", value=100.0), 0, 1, 3))


# What scans several times, or with a camera.
SCANNING = {
    "lineup2": lambda b: plans.lineup2([b.noisy], b.motor, -2, 2, 21),
    "two_pass_scan": lambda b: plans.two_pass_scan(detector=b.noisy, motor=b.motor),
    "findpeak_multipass": lambda b: plans.findpeak_multipass(2, detector=b.noisy, motor=b.motor),
    "repeat_findpeak": lambda b: plans.repeat_findpeak(2, detector=b.noisy, motor=b.motor, calc=b.calc),
    "ad_vs_motor": lambda b: plans.ad_vs_motor(b.motor, -2, 2, 5, camera=b.camera, images=True),
}


@pytest.mark.parametrize("name", SCANNING)
def test_a_point_that_a_motor_refuses_is_told_before_anything_moves(bench, name):
    def check_value(target):
        if target > 1.9:
            raise UserError(f"m1: {target:g} is in the wall; it was not moved")

    bench.motor.check_value = check_value
    with pytest.raises(UserError, match=rf"{name}.*: point \d+ of \d+: m1: \S+ is in the wall; nothing moved"):
        bench.run(SCANNING[name](bench))
    assert not [m for m in bench.messages if m.command in ("set", "open_run", "stage")]


@pytest.mark.parametrize("name", sorted(set(SCANNING) - {"ad_vs_motor"}))
def test_a_detector_that_is_gone_is_told_before_anything_moves(bench, name):
    bench.noisy = Signal(name="gone", value=1.0)
    bench.noisy._metadata["connected"] = False
    with pytest.raises(UserError, match=rf"{name}.*: gone is offline: no answer.*; nothing moved"):
        bench.run(SCANNING[name](bench))
    assert not [m for m in bench.messages if m.command in ("set", "open_run", "stage")]


def test_images_that_cannot_be_kept_are_told_before_anything_moves(bench):
    def check():
        raise UserError("camera: the disk is full")

    bench.camera.check_before_run = check
    with pytest.raises(UserError, match="ad_vs_motor: camera: the disk is full; nothing moved"):
        bench.run(SCANNING["ad_vs_motor"](bench))
    assert not [m for m in bench.messages if m.command in ("set", "open_run", "stage")]


@pytest.mark.parametrize("name", sorted(set(SCANNING) - {"ad_vs_motor"}))
def test_a_later_scan_is_checked_before_it_moves_anything(bench, name):
    """Where it goes is only known after the first."""

    def check_value(target):
        if bench.starts:
            raise UserError(f"m1: {target:g} is in the wall; it was not moved")

    bench.motor.check_value = check_value
    of = {"repeat_findpeak": "findpeak_multipass"}.get(name, name)
    with pytest.raises(UserError, match=rf"{of}, scan 2: point 1 of \d+: m1: .* is in the wall; ") as caught:
        bench.run(SCANNING[name](bench))
    assert str(caught.value).endswith("is in the wall; m1 stays where scan 1 ended")
    assert len(bench.starts) == 1
    assert bench.messages[-1].command in ("locate", "read", "unsubscribe", "sleep")  # not a move


def test_a_later_iteration_that_is_refused_does_not_say_that_nothing_moved(bench):
    def check_value(target):
        if bench.starts and target < -2:  # where each iteration begins, and no narrower scan comes
            raise UserError(f"m1: {target:g} is in the wall; it was not moved")

    bench.motor.check_value = check_value
    with pytest.raises(UserError, match="first scan: point 1 of 23: m1: ") as caught:
        bench.run(SCANNING["repeat_findpeak"](bench))
    assert str(caught.value).endswith("is in the wall; m1 stays where the scans before left it")
    assert {start["iteration"] for start in bench.starts} == {1}


def test_what_scans_several_times_tells_its_first_scan(bench, caplog):
    with caplog.at_level(logging.INFO, LOGGER_NAME):
        bench.run(SCANNING["two_pass_scan"](bench))
    assert re.match(r"two_pass_scan, first scan: 23 points of noisy, m1 -2 to 2, about \S+ s", caplog.messages[0])
    assert sum("points of" in message for message in caplog.messages) == 1


def test_a_scan_beyond_the_limits_does_not_start(bench):
    type(bench.motor).limits = (-0.5, 0.5)
    for plan in (
        plans.lup([bench.noisy], bench.motor, -1, 1),
        plans.two_pass_scan(detector=bench.noisy, motor=bench.motor),
    ):
        with pytest.raises(UserError, match=r"m1 would go to -\d.*outside of its limits -0.5 to 0.5; nothing moved"):
            bench.run(plan)
    assert {message.command for message in bench.messages} <= {"read", "locate"}


@pytest.mark.parametrize("key", ["cen", "com", "max"])
def test_lup_moves_to_the_peak(bench, key, caplog):
    with caplog.at_level(logging.INFO, LOGGER_NAME):
        found = bench.run(plans.lup([bench.noisy], bench.motor, -1, 1, 41, key))
    assert found.position == pytest.approx(0.3, abs=0.1)
    assert bench.motor.readback.get() == found.position
    assert found.statistics.fwhm == pytest.approx(2.355 * 0.2, rel=0.1)
    assert (found.scan_id, found.signal) == (1, "noisy")
    assert f"lup: m1 from 0 to {found.position:g} ({key} of noisy, scan 1)" in caplog.messages


def test_lup_is_relative_to_where_the_motor_is(bench):
    bench.guard.armed = False
    bench.motor.set(0.5).wait(5)
    found = bench.run(plans.lup(bench.noisy, bench.motor, -0.6, 0.6, 21))
    assert found.statistics.cen == pytest.approx(0.3, abs=0.05)
    assert found.statistics.number_of_points == 21


def test_lup_in_specs_order_counts_with_the_counters_and_goes_to_the_clearest_peak(bench, caplog):
    devices = {
        "m1": bench.motor,
        "counts": bench.scaler,
        "flat": SynGauss("flat", bench.motor, "m1", center=0.3, Imax=0),
    }
    counters, plotted = Counters(devices), []
    counters.choose(["flat", "counts"])
    lup = with_devices(plans.lup, devices, counters, counted=lambda: (counters.devices, plotted))
    assert list(inspect.signature(lup).parameters)[:4] == ["detectors", "motor", "start", "finish"]
    assert "counted" not in inspect.signature(lup).parameters
    with caplog.at_level(logging.INFO, LOGGER_NAME):
        found = bench.run(lup("m1", -1, 1, 20, 0.25))
    assert (found.signal, found.statistics.number_of_points) == ("counts", 21)
    assert bench.motor.readback.get() == found.position == pytest.approx(0.3, abs=0.05)
    assert "lup: 21 points of flat counts, m1 -1 to 1" in caplog.text
    assert [m.args[0] for m in bench.messages if m.command == "set" and m.obj is bench.scaler.preset_time] == [0.25, 1]
    assert bench.starts[-1]["plan_name"] == "lup"
    assert spec_command(bench.starts[-1]) == "lup m1 -1 1 20 0.25"
    plotted.append("flat")
    assert bench.run(lup(bench.motor, -1, 1, 2)).signal == "flat"
    assert bench.run(lup("m1", -1, 1, 20, signal="counts")).signal == "counts"
    for wrong, why in (
        (lambda: lup("m1", -1, 1, 1), "intervals=1 has to be a whole number, 2 or more"),
        (lambda: lup("m1", -1, 1, 20, -1), "time=-1 has to be more than 0"),
        (lambda: lup("m1", -1, 1, 20, 1, time=1), "the time is given twice"),
        (lambda: lup("m1", -1, 1), "the intervals are missing, as in lup m1 -0.2 0.2 20"),
        (lambda: lup("m1", -1, 1, time=0.5), "the intervals are missing, as in lup m1 -0.2 0.2 20"),
        (lambda: plans.lup(bench.motor, -1, 1), "the intervals are missing, as in lup m1 -0.2 0.2 20"),
        (lambda: lup("m1", -1), "finish and intervals are missing, as in lup m1 -0.2 0.2 20"),
        (lambda: lup("counts", "m1", -1), "missing a required argument: 'finish'; it takes [a-z, ]+time, signal, md"),
        (lambda: plans.lup(bench.motor, -1, 1, 20), "no detector is given"),
    ):
        number = len(bench.starts)
        with pytest.raises(UserError, match=f"lup: {why}.*; nothing moved"):
            bench.run(wrong())
        assert len(bench.starts) == number


def test_lup_counts_for_a_time(bench):
    bench.run(plans.lup([bench.scaler], bench.motor, -1, 1, 5, time=0.25))
    assert [m.args[0] for m in bench.messages if m.command == "set" and m.obj is bench.scaler.preset_time] == [0.25, 1]


def test_lup_goes_back_where_there_is_no_peak(bench, caplog):
    bench.guard.armed = False
    bench.noisy.noise_multiplier.put(0)
    bench.noisy.Imax.put(0)
    bench.motor.set(0.123).wait(5)
    found = bench.run(plans.lup([bench.noisy], bench.motor, -1, 1, 21))
    assert found.statistics.kind == "none"
    assert bench.motor.readback.get() == found.position == pytest.approx(0.123)
    assert "no peak of noisy in scan 1; m1 went back to 0.123" in caplog.text


@pytest.mark.parametrize(("low", "high", "end"), [(-3, 0, 0), (0.6, 3, 0.6)])
@pytest.mark.parametrize("num", [11, 21])
def test_lup_goes_back_from_a_flank_and_tells_where_to_look(bench, caplog, low, high, end, num):
    """The peak is at 0.3, outside of the scan."""
    bench.noisy.sigma.put(0.6)
    bench.noisy.random_state = np.random.RandomState(1)
    found = bench.run(plans.lup([bench.noisy], bench.motor, low, high, num))
    assert found.position == bench.motor.readback.get() == 0
    assert f"noisy in scan 1 is a flank, its highest at the end m1 {end:g}: scan beyond it; m1 went" in caplog.text


def test_lineup2_goes_on_until_the_peak_is_stable(bench, caplog):
    with caplog.at_level(logging.INFO, LOGGER_NAME):
        found = bench.run(plans.lineup2([bench.noisy], bench.motor, -3, 0.1, 9))  # a flank first
    assert found[-1].position == pytest.approx(0.3, abs=0.02)
    assert 3 <= len(found) <= 5
    assert f"stable after {len(found)} scans" in caplog.text
    assert "scan 1: cen -, FWHM -" in caplog.text
    assert bench.motor.readback.get() == found[-1].position


@pytest.mark.parametrize("seed", [364, 549, 963, 991])
def test_lineup2_believes_no_two_scans_too_coarse_to_see_the_peak(bench, seed):
    """In these random numbers two scans of a point or two on the peak agree about a centre half a width beside it."""
    bench.noisy.random_state = np.random.RandomState(seed)
    found = bench.run(plans.lineup2([bench.noisy], bench.motor, -3, 0.1, 9))
    assert found[-1].position == pytest.approx(0.3, abs=0.02)


class TwoSignals(SynGauss):
    """A detector that hints at more than one signal."""

    @property
    def hints(self):
        return {"fields": [self.name, f"{self.name}_Imax"]}


def test_which_of_several_signals_has_to_be_said(bench):
    two = TwoSignals("two", bench.motor, "m1", center=0.3, Imax=1000, sigma=0.2)
    with pytest.raises(UserError, match=r"two has several signals \(two, two_Imax\): say which"):
        bench.run(plans.lup([two], bench.motor, -1, 1, 21))
    assert bench.messages == []
    found = bench.run(plans.lup([two], bench.motor, -1, 1, 21, signal="two"))
    assert found.statistics.cen == pytest.approx(0.3, abs=0.05)
    with pytest.raises(UserError, match="scan 2 has no readings of 'twoo'"):
        bench.run(plans.lup([two], bench.motor, -1, 1, 21, signal="twoo"))


def test_findpeak_narrows_down_and_stays_at_the_peak(bench, caplog):
    bench.noisy.noise_multiplier.put(10)
    with caplog.at_level(logging.INFO, LOGGER_NAME):
        found = bench.run(
            plans.findpeak_multipass(number_of_scans=3, number_of_points=31, detector=bench.noisy, motor=bench.motor)
        )
    assert len(found) == 3
    assert found[-1].statistics.cen == pytest.approx(0.3, abs=0.03)
    assert bench.motor.readback.get() == found[-1].position == found[-1].statistics.cen
    widths = [start["plan_args"]["args"][2] - start["plan_args"]["args"][1] for start in bench.starts]
    assert widths[0] == pytest.approx(4.2)
    assert widths[1] == pytest.approx(2 * 1.2 * found[0].statistics.fwhm)
    assert [start["scan_sequence_number"] for start in bench.starts] == [1, 2, 3]
    assert {start["number_of_scans"] for start in bench.starts} == {3}
    assert "scan_id center" in caplog.text


def test_findpeak_without_a_peak_goes_back(bench, caplog):
    bench.guard.armed = False
    bench.noisy.noise_multiplier.put(0)
    bench.noisy.Imax.put(0)
    bench.motor.set(0.5).wait(5)
    assert bench.run(plans.findpeak_multipass(detector=bench.noisy, motor=bench.motor)) == []
    assert bench.motor.readback.get() == 0.5
    assert len(bench.starts) == 1
    assert "no peak of noisy in scan 1" in caplog.text


def test_findpeak_stays_within_the_limits_after_the_first_scan(bench, caplog):
    type(bench.motor).limits = (-2.1, 0.4)
    found = bench.run(plans.findpeak_multipass(2, detector=bench.noisy, motor=bench.motor, center=-0.3, half_width=0.7))
    assert len(found) == 2
    assert bench.starts[1]["plan_args"]["args"][2] == 0.4
    assert found[-1].position == bench.motor.readback.get() == 0  # the second scan saw a flank
    assert "findpeak_multipass: noisy in scan 2 is a flank, its highest at the end m1 " in caplog.text


def test_lineup2_stays_within_the_limits_after_the_first_scan(bench):
    """The peak is at 0.3, and the second scan would go to 1."""
    type(bench.motor).limits = (-2.0, 0.6)
    found = bench.run(plans.lineup2([bench.noisy], bench.motor, -1.0, 0.6, 21))
    assert len(found) > 1
    assert {start["plan_args"]["args"][2] for start in bench.starts} == {0.6}
    assert found[-1].position == bench.motor.readback.get() == pytest.approx(0.3, abs=0.02)


def test_two_passes_are_numbered(bench):
    found = bench.run(plans.two_pass_scan(md={"note": "x"}, detector=bench.noisy, motor=bench.motor))
    assert len(found) == 2
    assert [(start["scan_sequence"], start["note"]) for start in bench.starts] == [(1, "x"), (2, "x")]


def test_repeating_changes_the_simulated_peak_each_time(bench):
    results = bench.run(plans.repeat_findpeak(2, detector=bench.noisy, motor=bench.motor, calc=bench.calc))
    assert len(results) == 2
    assert [start["iteration"] for start in bench.starts] == [1] * 4 + [2] * 4
    sets = [m.args[0] for m in bench.messages if m.command == "set" and m.obj.name in "BC"]
    assert len(set(sets)) == 4
    assert all(CENTER_RANGE[0] <= center <= CENTER_RANGE[1] for center in sets[0::2])
    assert all(WIDTH_RANGE[0] <= width <= WIDTH_RANGE[1] for width in sets[1::2])
    assert bench.run(plans.repeat_findpeak(detector=bench.noisy, motor=bench.motor)) != []  # as the peak is


def test_a_session_fills_in_its_devices(bench):
    devices = {"noisy": bench.noisy, "m1": bench.motor}
    plan = with_devices(plans.repeat_findpeak, devices)
    assert plan.__name__ == "repeat_findpeak"
    parameters = inspect.signature(plan).parameters
    assert parameters["motor"].default == "m1"  # as it is typed, and as a queue server can check it
    assert parameters["calc"].default is None  # no such device
    assert len(bench.run(plan())[0]) == 4
    other = SynGauss("other", bench.motor, "m1", center=0.3, Imax=1000, sigma=0.2)
    assert bench.run(with_devices(plans.two_pass_scan, devices)(detector=other))[0].signal == "other"
    assert bench.run(with_devices(plans.lup, devices)("noisy", "m1", -1, 1, 21)).signal == "noisy"
    with pytest.raises(UserError, match=r"no device is named 'noisi'; did you mean 'noisy'\?"):
        with_devices(plans.lup, devices)("noisi", "m1", -1, 1)
    bare = with_devices(plans.two_pass_scan, {})
    with pytest.raises(TypeError, match="detector"):
        bare()


def test_findpeak_on_the_virtual_beamline(virtual_beamline, caplog):
    from bluesky import RunEngine
    from ophyd import EpicsSignalRO

    from instrument.devices.motors import Motor

    prefix = virtual_beamline.prefix
    m1 = Motor(f"{prefix}m1", name="m1", labels=("motor",))
    noisy = EpicsSignalRO(f"{prefix}userCalc1", name="noisy", labels=("detectors",))
    truth = {letter: EpicsSignalRO(f"{prefix}userCalc1.{letter}", name=letter) for letter in "BC"}
    for device in (m1, noisy, *truth.values()):
        device.wait_for_connection(timeout=10)
    center, width = truth["B"].get(), truth["C"].get()
    engine = RunEngine({}, context_managers=[], call_returns_result=True)
    found = engine(plans.findpeak_multipass(3, 21, detector=noisy, motor=m1)).plan_result
    assert len(found) == 3
    assert found[-1].statistics.cen == pytest.approx(center, abs=0.1 * width)
    assert found[-1].statistics.fwhm == pytest.approx(2 * width, rel=0.2)
    assert m1.position == pytest.approx(found[-1].position, abs=0.001)
    with pytest.raises(UserError, match=r"m1 would go to \S+, outside of its limits -32000 to 32000; nothing moved"):
        engine(plans.lup([noisy], m1, -1, 40000))
    assert m1.position == pytest.approx(found[-1].position, abs=0.001)


# --- SPEC's scans


def test_intervals_are_one_less_than_points(bench):
    bench.run(plans.ascan(bench.motor, -1, 1, 4, 0.1, detectors=[bench.scaler]))
    assert bench.starts[-1]["num_points"] == 5
    assert bench.starts[-1]["plan_name"] == "ascan"
    targets = [m.args[0] for m in bench.messages if m.command == "set" and m.obj is bench.motor]
    assert targets == [-1, -0.5, 0, 0.5, 1]


def test_a_relative_scan_is_about_where_the_motor_is_and_returns_there(bench):
    bench.guard.armed = False
    bench.motor.set(2.0).wait(5)
    bench.run(plans.dscan(bench.motor, -1, 1, 2, detectors=[bench.noisy]))
    targets = [m.args[0] for m in bench.messages if m.command == "set" and m.obj is bench.motor]
    assert targets == [1, 2, 3, 2]


def test_the_first_motor_of_a_mesh_is_the_fast_one(bench):
    bench.run(plans.mesh(bench.motor, 0, 1, 1, bench.motor2, 5, 6, 1, detectors=[bench.noisy]))
    sets = [(m.obj.name, m.args[0]) for m in bench.messages if m.command == "set"]
    assert sets == [("m2", 5), ("m1", 0), ("m1", 1), ("m2", 6), ("m1", 0), ("m1", 1)]


def test_the_count_time_is_set_for_the_scan_and_set_back(bench):
    bench.run(plans.ascan(bench.motor, 0, 1, 2, 0.25, detectors=[bench.scaler]))
    sets = [m.args[0] for m in bench.messages if m.command == "set" and m.obj is bench.scaler.preset_time]
    assert sets == [0.25, 1.0]


def test_where_nothing_counts_for_a_time_the_time_is_waited(bench):
    bench.run(plans.ascan(bench.motor, 0, 1, 2, 0.01, detectors=[bench.noisy]))
    assert [m.args[0] for m in bench.messages if m.command == "sleep"] == [0.01] * 3


def test_a_scan_is_run_dry_before_anything_moves(bench, caplog):
    """Its last point is beyond the limits: refused in one line that names the point, no run is opened."""

    def check_value(target):
        if target > 0.9:
            raise UserError("m1: 1 is outside of its limits -1 to 0.9; it was not moved")

    bench.motor.check_value = check_value
    with pytest.raises(UserError) as caught:
        bench.run(plans.ascan(bench.motor, -1, 1, 4, 0.1, detectors=[bench.scaler]))
    assert str(caught.value) == "ascan: point 5 of 5: m1: 1 is outside of its limits -1 to 0.9; nothing moved"
    assert not [m for m in bench.messages if m.command in ("set", "open_run", "stage")]
    with caplog.at_level(logging.INFO, LOGGER_NAME):
        bench.run(plans.ascan(bench.motor, -1, 0.5, 4, 0.1, detectors=[bench.scaler]))
    assert re.match(r"ascan: 5 points of counts, m1 -1 to 0\.5, about \S+ s", caplog.messages[-1])


def test_a_scan_of_many_points_is_run_dry_to_its_end_and_the_engine_has_its_turn_meanwhile(bench, monkeypatch, caplog):
    monkeypatch.setattr(preflight, "ENDLESS", 20)  # more points are many
    mesh = (bench.motor, 0, 1, 9, bench.motor2, 0, 1, 9)
    with caplog.at_level(logging.INFO, LOGGER_NAME):
        bench.run(plans.mesh(*mesh, detectors=[bench.scaler]))
    assert re.match(r"mesh: 100 points of counts, m2 0 to 1, m1 0 to 1, about \S+ min", caplog.messages[-1])
    before_the_first_move = itertools.takewhile(lambda message: message.command != "set", bench.messages)
    turns = [message for message in before_the_first_move if message.command == "sleep"]
    assert len(turns) >= 1
    assert {message.args for message in turns} == {(0,)}
    assert preflight.asked("mesh", plans.mesh(*mesh, detectors=[bench.scaler])).points == 100

    def forever():
        yield from bps.open_run()
        while True:
            yield from bps.trigger_and_read([bench.noisy])

    assert preflight.asked("forever", forever()).endless


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda b: plans.mv(), "mv needs motor and position, as in mv m1 1, not nothing"),
        (lambda b: plans.mv(b.motor), "mv needs motor and position, as in mv m1 1, not m1"),
        (lambda b: plans.mv(b.motor, "1mm"), "m1='1mm' is no number"),
        (lambda b: plans.mv(b.motor, 1, b.motor, 2), "m1 is named twice"),
        (lambda b: plans.umv("m1", 1), "'m1' is text, not a motor"),
        (lambda b: plans.set_lm(b.motor, 5, -5), "low 5 is above high -5"),
        (lambda b: plans.set_lm(b.noisy, -5, 5), "noisy can't be moved"),
        (lambda b: plans.ct(-1, detectors=[b.noisy]), "time=-1 has to be more than 0"),
        (lambda b: plans.ct(1, detectors=[]), "no detector is given"),
        (lambda b: plans.timescan(1, -1, detectors=[b.noisy]), "sleep=-1 has to be 0 or more"),
        (lambda b: plans.ascan(b.motor, -1, 1, 0, detectors=[b.noisy]), "intervals=0 has to be a whole number, 1 or"),
        (lambda b: plans.ascan(b.motor, -1, 1, 10, -1, detectors=[b.noisy]), "time=-1 has to be more than 0"),
        (lambda b: plans.ascan(b.motor, math.nan, 1, 10, detectors=[b.noisy]), "start=nan is no place"),
        (lambda b: plans.a2scan(b.motor, 0, 1, b.motor, 0, 1, 2, detectors=[b.noisy]), "m1 is named twice"),
        (lambda b: plans.lookupscan(detectors=[b.noisy]), "lookupscan needs motor and positions"),
        (lambda b: plans.lookupscan(b.motor, 3, detectors=[b.noisy]), "m1 needs a list of positions, not 3"),
        (lambda b: plans.lookupscan(b.motor, [], detectors=[b.noisy]), "each motor needs as many positions"),
        (lambda b: plans.lookupscan(b.motor, [math.inf], detectors=[b.noisy]), "m1=inf is no place"),
    ],
)
def test_a_command_that_is_typed_wrongly_moves_nothing(bench, wrong, why):
    with pytest.raises(UserError, match=why) as caught:
        bench.run(wrong(bench))
    assert "\n" not in str(caught.value)
    assert bench.messages == []
