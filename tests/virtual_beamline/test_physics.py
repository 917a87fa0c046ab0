"""The simulated world: what a seed repeats, and that counts are what counting gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.virtual_beamline.conftest import wait_for
from virtual_beamline import beamline
from virtual_beamline.physics import CHANNEL_RATES, ClockCounter, PoissonCounter, World


def test_one_seed_makes_one_world():
    assert World(7).peak == World(7).peak
    assert World(7).rndm_draws == World(7).rndm_draws
    assert World(7).generator("a").random(3).tolist() == World(7).generator("a").random(3).tolist()
    assert beamline.contents("gp:", World(7)) == beamline.contents("gp:", World(7))


def test_another_seed_and_no_seed_make_other_worlds():
    assert len({World(seed).peak for seed in (0, 1, 2, None, None)}) == 5


def test_each_purpose_has_numbers_of_its_own():
    one, other = World(7), World(7)
    one.generator("other").random(1000)
    assert one.generator("scaler").random(3).tolist() == other.generator("scaler").random(3).tolist()
    assert one.generator("scaler") is one.generator("scaler")
    assert World(7).generator("scaler").random() != World(7).generator("other").random()


@given(seed=st.integers(0, 2**32))
def test_every_peak_can_be_found_with_steps_of_a_thousandth_between_minus_one_and_one(seed):
    peak = World(seed).peak
    assert -1 <= peak.center <= 1
    assert 0.02 <= peak.width <= 0.06
    assert 80_000 <= peak.scale <= 100_000
    assert 0 < peak.noise < 0.1


def test_a_clock_counts_its_periods_and_its_preset_exactly():
    counter = ClockCounter(1e7, 3_000_000)
    assert counter.due == 0.3
    assert counter.at(0.1) == 1_000_000
    assert counter.at(0.3) == 3_000_000
    assert counter.at(0.7) == 3_000_000
    assert ClockCounter(1e7, None).due == math.inf


def counts(rate, preset, times, samples=4000, change=None):
    """Counts at ``times`` of many counters."""
    generator = np.random.default_rng(1)
    rows = []
    for _ in range(samples):
        counter = PoissonCounter(generator, rate, preset)
        row = []
        for time in times:
            if change and time >= change[0]:
                counter.set_rate(*change)
            row.append(counter.at(min(time, counter.due)))
        rows.append(row)
    return np.array(rows)


def test_free_counts_are_poisson_however_often_they_are_looked_at():
    for times in ([2.0], [0.1, 0.5, 0.50001, 1.9, 2.0]):
        last = counts(30.0, None, times)[:, -1]
        assert last.mean() == pytest.approx(60, rel=0.02)
        assert last.var() == pytest.approx(60, rel=0.1)


def test_the_time_of_a_preset_is_the_sum_of_so_many_exponential_intervals():
    generator = np.random.default_rng(2)
    due = np.array([PoissonCounter(generator, 20.0, 40).due for _ in range(4000)])
    assert due.mean() == pytest.approx(2, rel=0.02)
    assert due.var() == pytest.approx(40 / 20**2, rel=0.1)


def test_counts_before_a_preset_look_like_free_counts():
    early = counts(20.0, 400, [0.5, 2.0, 10.0])
    for column, mean in enumerate([10, 40, 200]):
        assert early[:, column].mean() == pytest.approx(mean, rel=0.03)
        assert early[:, column].var() == pytest.approx(mean, rel=0.1)


def test_a_preset_is_reached_at_its_time_and_not_before():
    generator = np.random.default_rng(4)
    for preset in (1, 3):
        for _ in range(200):
            counter = PoissonCounter(generator, 5.0, preset)
            assert counter.at(counter.due / 2) < preset
            assert counter.at(counter.due * 0.999) < preset
            assert counter.at(counter.due) == preset


def test_a_preset_is_never_passed():
    rows = counts(20.0, 10, [0.2, 0.4, 0.8, 100.0])
    assert rows.max() == 10
    assert (rows[:, -1] == 10).all()
    assert (np.diff(rows, axis=1) >= 0).all()


def test_a_rate_that_changes_counts_on_at_the_new_rate():
    last = counts(10.0, None, [1.0, 2.0], change=(1.0, 50.0))[:, -1]
    assert last.mean() == pytest.approx(60, rel=0.02)
    gated = counts(10.0, 1000, [1.0, 2.0], change=(1.0, 50.0))[:, -1]
    assert gated.mean() == pytest.approx(60, rel=0.02)


def test_without_radiation_nothing_is_counted_until_there_is_some():
    counter = PoissonCounter(np.random.default_rng(3), 0.0, 5)
    assert (counter.due, counter.at(100.0)) == (math.inf, 0)
    counter.set_rate(100.0, 1000.0)
    assert 100.0 < counter.due < 101.0


def test_the_names_of_the_channels_are_those_of_the_training():
    assert tuple(CHANNEL_RATES) == ("timebase", "I0", "scint", "diode", "I00", "I000")


# -- over Channel Access ----------------------------------------------------------------------------------------


def test_noisy_is_a_lorentzian_of_the_first_motor(gp):
    gp.put("m1.VELO", 20)
    center, width, scale, noise = (gp.get(f"userCalc1.{letter}") for letter in "BCDE")
    gp.put("m1", center + 10 * width)
    for offset in (0.0, width, -3 * width):
        target = round(center + offset, 3)
        before = gp.get("userCalc1.VAL")
        gp.put("m1", target)
        gp.wait("userCalc1.A", gp.get("m1.RBV"))
        expected = scale / (1 + ((gp.get("m1.RBV") - center) / width) ** 2)
        value = gp.get("userCalc1.VAL")
        assert 0.949 * expected <= value <= (0.951 + noise) * expected
        assert value != before
    gp.put("m1", 0)
    gp.put("m1.VELO", 1)


def test_the_temperature_stays_near_its_setpoint_and_follows_it_in_steps(gp):
    gp.put("userCalc8.SCAN", "Passive")
    try:
        gp.put("userCalc8.B", 25)
        wait_for(lambda: gp.put("userCalc8.PROC", 1) and abs(gp.get("userCalc8") - 25) <= 1)
        for _ in range(20):
            gp.put("userCalc8.PROC", 1)
            assert abs(gp.get("userCalc8") - 25) <= 2
        gp.put("userCalc8.B", 35)
        previous = gp.get("userCalc8")
        while abs(previous - 35) > 2:
            gp.put("userCalc8.PROC", 1)
            value = gp.get("userCalc8")
            assert value - gp.get("userCalc8.A") == pytest.approx(2, abs=0.51)
            previous = value
    finally:
        gp.put("userCalc8.B", 25)
        gp.put("userCalc8.VAL", 25)
        gp.put("userCalc8.SCAN", "2 second")


def test_a_seed_repeats_the_peak_and_the_counts_in_another_process(fresh_beamline):
    """Two beamlines, one seed; the client is a subprocess because this process looks at another beamline."""
    import json
    import os
    import subprocess
    import sys

    code = """
import json, epics
get = lambda name: epics.caget("gp:" + name, timeout=30, connection_timeout=30)
peak = [get(f"userCalc1.{letter}") for letter in "BCDE"]
epics.caput("gp:scaler1.RATE", 0, wait=True, connection_timeout=30)
epics.caput("gp:scaler1.TP", 0.05, wait=True, connection_timeout=30)
counts = []
for _ in range(3):
    epics.caput("gp:scaler1.CNT", 1, wait=True, connection_timeout=30)
    counts.append([get(f"scaler1.S{n}") for n in range(1, 7)])
print(json.dumps([peak, counts, get("SEED")]))
"""

    def world(seed):
        running = fresh_beamline(seed=seed)
        environment = {**os.environ, **running.environment.variables}
        output = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        return json.loads(output.stdout)

    first, again, other = world(11), world(11), world(12)
    assert first.pop() == again.pop() == "11"
    assert other.pop() == "12"
    assert first == again
    assert first[0] != other[0]
    assert first[1] != other[1]
    assert first[1][0][0] == 500_000
