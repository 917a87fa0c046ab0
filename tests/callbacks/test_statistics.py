"""Peak statistics against known truth. Lengths are in units of x, tolerances in widths of the peak."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from instrument.framework.statistics import PeakStatistics, peak_statistics

SHAPES = {
    "gaussian": lambda t: np.exp(-4 * math.log(2) * t**2),
    "lorentzian": lambda t: 1 / (1 + 4 * t**2),
    "flat top": lambda t: np.exp(-math.log(2) * (2 * t) ** 8),
}


@st.composite
def scans(draw, points=(21, 151), fewest_in_width=4.0, shapes=tuple(SHAPES)):
    """x and y of a peak or dip on a sloping background, and the truth."""
    n = draw(st.integers(*points))
    low = draw(st.floats(-100, 100))
    span = draw(st.floats(0.01, 1000))
    x = low + span * np.linspace(0, 1, n)
    fwhm = span * draw(st.floats(max(fewest_in_width / n, 0.03), 0.4))
    center = low + span * draw(st.floats(0.3, 0.7))
    height = draw(st.floats(0.1, 1e5)) * draw(st.sampled_from([1, -1]))
    offset = abs(height) * draw(st.floats(-100, 100))
    slope = abs(height) / span * draw(st.floats(-5, 5))
    shape = draw(st.sampled_from(shapes))
    y = offset + slope * (x - center) + height * SHAPES[shape]((x - center) / fwhm)
    return x, y, center, fwhm, height


@given(scans())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_centre_and_width_are_right_on_any_linear_background(scan):
    x, y, center, fwhm, height = scan
    found = peak_statistics(x, y)
    assert found.kind == ("peak" if height > 0 else "dip")
    assert found.cen == pytest.approx(center, abs=0.1 * fwhm)
    assert found.com == pytest.approx(center, abs=0.15 * fwhm)
    assert found.fwhm == pytest.approx(fwhm, rel=0.25)
    assert found.height == pytest.approx(height, rel=0.3)


@given(scans(shapes=("gaussian", "lorentzian"), points=(41, 151), fewest_in_width=8.0))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_a_well_sampled_peak_is_measured_to_a_few_percent(scan):
    x, y, center, fwhm, height = scan
    found = peak_statistics(x, y)
    assert found.cen == pytest.approx(center, abs=0.01 * fwhm)
    assert found.com == pytest.approx(center, abs=0.02 * fwhm)
    assert found.fwhm == pytest.approx(fwhm, rel=0.03)
    assert found.height == pytest.approx(height, rel=0.03)


@given(scans(), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_points_does_not_matter(scan, random):
    x, y, *_ = scan
    order = list(range(len(x)))
    random.shuffle(order)
    straight, shuffled = peak_statistics(x, y), peak_statistics(x[order], y[order])
    assert (shuffled.cen, shuffled.com, shuffled.fwhm) == (straight.cen, straight.com, straight.fwhm)


@given(scans(), st.lists(st.tuples(st.integers(0, 200), st.sampled_from([np.nan, np.inf, -np.inf])), max_size=20))
@settings(max_examples=30, deadline=None)
def test_readings_that_are_no_number_are_left_out(scan, bad):
    x, y, *_ = scan
    clean = peak_statistics(x, y)
    for place, value in bad:
        x, y = np.insert(x, min(place, len(x)), x[0]), np.insert(y, min(place, len(y)), value)
    assert peak_statistics(x, y).cen == clean.cen
    assert peak_statistics(x, y).number_of_points == clean.number_of_points


@given(scans(shapes=("gaussian",), fewest_in_width=6.0), st.floats(0.02, 0.1), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_noise_moves_the_centre_by_less_than_the_points_allow(scan, noise, seed):
    x, y, center, fwhm, height = scan
    y = y + np.random.default_rng(seed).normal(0, noise * abs(height), x.size)
    found = peak_statistics(x, y)
    in_width = fwhm / (x[1] - x[0])
    assert found.found
    # A Gaussian's centre has a standard deviation of about 0.6 fwhm noise / sqrt(points within its width).
    assert found.cen == pytest.approx(center, abs=6 * 0.6 * fwhm * noise / math.sqrt(in_width) + 0.02 * fwhm)


@pytest.mark.parametrize("background", [0, 3, 300])
@pytest.mark.parametrize("shape", ["gaussian", "lorentzian"])
def test_counts_with_poisson_noise(shape, background):
    rng = np.random.default_rng(7)
    x = np.linspace(-1, 1, 41)
    centers = []
    for _ in range(30):
        y = rng.poisson(background + 400 * SHAPES[shape]((x - 0.3) / 0.3))
        centers.append(peak_statistics(x, y).cen)
    assert None not in centers
    assert np.mean(centers) == pytest.approx(0.3, abs=0.01)
    assert np.std(centers) < 0.02


def test_background_that_misleads_bluesky_does_not_mislead_us():
    from bluesky.callbacks.fitting import PeakStats

    x = np.linspace(-1, 1, 41)
    y = 10 + SHAPES["gaussian"]((x - 0.3) / 0.1)
    stock = PeakStats("x", "y")._calc_stats(x, y, {})
    assert abs(stock.com) < 0.02  # the point of all this
    assert peak_statistics(x, y).com == pytest.approx(0.3, abs=1e-3)


@given(
    st.integers(3, 200),
    st.floats(-1e6, 1e6),
    st.floats(-1e3, 1e3),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_straight_line_has_no_peak(n, offset, slope):
    x = np.linspace(-3, 5, n)
    found = peak_statistics(x, offset + slope * x)
    assert found.kind == "none"
    assert (found.cen, found.com, found.fwhm) == (None, None, None)
    assert found.max is not None


@pytest.mark.parametrize(("n", "most"), [(3, 0), (4, 0), (5, 5), (6, 4), (7, 2), (8, 1), (11, 1), (21, 1), (200, 1)])
def test_noise_alone_is_hardly_ever_taken_for_a_peak(n, most):
    rng = np.random.default_rng(n)
    x = np.linspace(0, 1, n)
    taken = sum(peak_statistics(x, rng.normal(0, 1, n)).found for _ in range(60))
    assert taken <= most
    taken = sum(peak_statistics(x, rng.poisson(rng.choice([0.1, 1, 30, 1000]), n)).found for _ in range(60))
    assert taken <= 3


def test_a_step_is_an_edge_and_cen_is_where_it_is():
    x = np.linspace(0, 10, 51)
    found = peak_statistics(x, 5 - 3 * np.tanh((x - 6.2) / 0.4))
    assert found.kind == "edge"
    assert found.cen == pytest.approx(6.2, abs=0.02)
    assert found.com is None


def test_of_few_points_a_peak_is_what_stands_out():
    found = peak_statistics([0, 1, 2, 3, 4], [110, 150, 200, 150, 110])
    assert found.kind == "peak"
    assert (found.cen, found.com) == (pytest.approx(2.0), pytest.approx(2.0))
    assert peak_statistics([0, 1, 2, 3, 4], [11, 15, 20, 15, 11]).kind == "none"  # counts, and their scatter is 4
    dip = peak_statistics([0, 1, 2, 3, 4], [200, 200, 100, 200, 200])
    assert (dip.kind, dip.cen) == ("dip", 2.0)
    x = np.arange(7.0)
    for y in (SHAPES["gaussian"]((x - 3) / 2.5), np.where(x == 3, 1.0, 0.01 * np.cos(9 * x))):
        found = peak_statistics(x, 0.1 * x + y)
        assert (found.kind, found.inside) == ("peak", True)
        assert found.cen == pytest.approx(3, abs=0.05)
        assert found.lin_bkg["m"] == pytest.approx(0.1, abs=0.02)
    for flank in (
        [1, 2, 4, 8, 16],
        [0, 100, 300, 800, 2000],
        [0.0, 0.1, 0.2, 9.8, 9.9, 10.0],
        [0, 0, 0, 900, 900, 900],
    ):
        assert peak_statistics(range(len(flank)), flank).kind == "none"


@pytest.mark.parametrize(
    ("x", "y"), [([], []), ([1], [2]), ([1, 2], [3, 4]), ([1, 1, 1, 1], [1, 2, 3, 4]), ([1, 2, 3], [np.nan] * 3)]
)
def test_too_little_to_say_anything(x, y):
    found = peak_statistics(x, y)
    assert found.kind == "none"
    assert found.cen is None


def test_repeated_positions_are_averaged():
    x = np.linspace(-1, 1, 21)
    y = SHAPES["gaussian"](x / 0.5)
    twice = peak_statistics(np.concatenate([x, x]), np.concatenate([y + 0.1, y - 0.1]))
    assert twice.cen == pytest.approx(peak_statistics(x, y).cen, abs=1e-9)


def test_lengths_have_to_agree():
    with pytest.raises(ValueError, match="3 points"):
        peak_statistics([1, 2, 3], [1, 2])


_any_float = st.floats(width=64, allow_nan=True, allow_infinity=True)


@given(
    st.integers(0, 40).flatmap(
        lambda n: st.tuples(arrays(float, n, elements=_any_float), arrays(float, n, elements=_any_float))
    )
)
@settings(max_examples=200, deadline=None)
def test_nothing_makes_it_fail_and_no_centre_is_outside_the_scan(scan):
    x, y = scan
    with np.errstate(over="ignore"):
        for values in (x[np.isfinite(x)], y[np.isfinite(y)]):
            assume(values.size == 0 or np.ptp(values) < 1e300)
    with np.errstate(all="raise", under="ignore"):
        found = peak_statistics(x, y)
    finite = x[np.isfinite(x) & np.isfinite(y)]
    for place in (found.cen, found.com):
        if place is not None:
            slack = 1e-9 * np.ptp(finite)
            assert finite.min() - slack <= place <= finite.max() + slack
    if found.fwhm is not None:
        assert found.fwhm >= 0


def test_as_an_item_or_an_attribute():
    found = peak_statistics([0, 1, 2], [0, 100, 0])
    assert found["cen"] == found.cen == 1.0
    with pytest.raises(KeyError, match="cem"):
        found["cem"]
    assert not PeakStatistics().found
