"""Fits find known truth again, whatever the background, slope, noise and scale; dips and steps too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instrument.config.errors import UserError
from instrument.framework.fits import MODELS, PEAKS, STEPS, fit
from instrument.framework.statistics import peak_statistics


def shape(model, t):
    """A peak of height 1 and full width at half height 1."""
    gaussian, lorentzian = np.exp(-4 * np.log(2) * t**2), 1 / (1 + 4 * t**2)
    return {"gaussian": gaussian, "lorentzian": lorentzian, "pvoigt": (gaussian + lorentzian) / 2}[model]


truths = {
    "center": st.floats(-0.5, 0.5),
    "fwhm": st.floats(0.15, 0.5),
    "sign": st.sampled_from([1, -1]),
    "background": st.floats(-10, 10),
    "slope": st.floats(-1, 1),
    "noise": st.floats(0, 0.02),
    "origin": st.sampled_from([0.0, 17.0, -3000.0]),
    "scale": st.sampled_from([1e-3, 1.0, 1e6]),
    "seed": st.integers(0, 999),
}


@pytest.mark.parametrize("model", ["gaussian", "lorentzian", "pvoigt"])
@settings(max_examples=40, deadline=None)
@given(**truths)
def test_a_peak_is_found_again(model, center, fwhm, sign, background, slope, noise, origin, scale, seed):
    t = np.linspace(-1, 1, 61)
    x = origin + t
    y = sign * shape(model, (t - center) / fwhm) + background + slope * t
    y = scale * (y + noise * np.random.default_rng(seed).normal(size=t.size))
    found = fit(model, x, y)
    assert found["center"] == pytest.approx(origin + center, abs=0.03 * fwhm + noise * fwhm)
    assert found["fwhm"] == pytest.approx(fwhm, rel=0.03 + 6 * noise)
    assert found["height"] == pytest.approx(sign * scale, rel=0.06 + 6 * noise)
    assert found["slope"] == pytest.approx(scale * slope, abs=scale * (0.1 + 5 * noise))
    assert np.allclose(found.best, y, atol=scale * (0.02 + 6 * noise))


@pytest.mark.parametrize("form", ["erf", "atan", "logistic"])
@settings(max_examples=25, deadline=None)
@given(
    center=st.floats(-0.4, 0.4),
    sign=st.sampled_from([1, -1]),
    background=st.floats(-10, 10),
    noise=st.floats(0, 0.02),
    origin=st.sampled_from([0.0, 250.0]),
    seed=st.integers(0, 999),
)
def test_an_edge_is_found_again(form, center, sign, background, noise, origin, seed):
    from lmfit.lineshapes import step

    x = origin + np.linspace(-1, 1, 61)
    y = step(x, amplitude=sign, center=origin + center, sigma=0.1, form=form) + background
    found = fit(form, x, y + noise * np.random.default_rng(seed).normal(size=x.size))
    assert found["center"] == pytest.approx(origin + center, abs=0.02 + noise)
    assert found["amplitude"] == pytest.approx(sign, rel=0.1 + 5 * noise)


def test_a_line(monkeypatch):
    x = np.linspace(3, 5, 11)
    found = fit("line", x, 2 * x - 7)
    assert (found["slope"], found["intercept"]) == (pytest.approx(2), pytest.approx(-7))


def test_a_voigt_has_a_width_between_its_parts():
    x = np.linspace(-1, 1, 81)
    found = fit("voigt", x, shape("pvoigt", x / 0.3))
    assert found["center"] == pytest.approx(0, abs=1e-3)
    assert found["fwhm"] == pytest.approx(0.3, rel=0.05)


def test_what_can_not_be_fitted_says_why():
    x = np.linspace(0, 1, 21)
    with pytest.raises(UserError, match=r"no model 'gausian'; did you mean 'gaussian'\?"):
        fit("gausian", x, x)
    with pytest.raises(UserError, match="4 points are too few for gaussian"):
        fit("gaussian", x[:4], x[:4])
    with pytest.raises(UserError, match="all 21 points are 3: there is nothing to fit"):
        fit("gaussian", x, np.full(21, 3.0))
    assert set(MODELS) == {*PEAKS, *STEPS, "line"}


# --- a flank is no peak


@settings(max_examples=60, deadline=None)
@given(
    beyond=st.floats(0.3, 1.5),
    side=st.sampled_from([1, -1]),
    points=st.sampled_from([5, 7, 11, 21, 41]),
    kind=st.sampled_from(["gaussian", "lorentzian"]),
)
def test_a_flank_is_told_from_a_peak(beyond, side, points, kind):
    """The top of the peak is outside of the scan by part of its width: nothing says where it is."""
    x = np.linspace(-1, 1, points)
    found = peak_statistics(x, 1000 * shape(kind, (x - side * (1 + beyond * 0.8)) / 0.8))
    assert not found.found or not found.inside
    assert found.beyond in (None, (side, "highest"))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("low", "high", "points"), [(1, 3, 15), (0.8, 3.2, 15), (2, 8, 21), (-3.5, -0.5, 11)])
def test_the_tail_of_a_peak_leads_to_the_peak(seed, low, high, points):
    """With the noise of the virtual beamline's; a dip's bottom at the other end explains it nearly as well."""
    x = np.linspace(low, high, points)
    y = 1e5 * np.random.default_rng(seed).uniform(0.95, 1, points) * shape("lorentzian", x)
    found = peak_statistics(x, y)
    assert found.beyond == (min(x, key=abs), "highest")
    assert found.flank("noisy in scan 3", "m1") == (
        f"noisy in scan 3 is a flank, its highest at the end m1 {min(x, key=abs):g}: scan beyond it"
    )


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("seed", range(5))
def test_an_edge_at_an_end_leads_beyond_that_end(side, sign, seed):
    """Not to the highest of the plateau's points, which noise makes any of them."""
    x = np.linspace(-1, 1, 21)
    y = sign * np.tanh((x - side * 0.95) / 0.05) + np.random.default_rng(seed).normal(0, 0.03, x.size)
    found = peak_statistics(x, y)
    assert found.beyond in (None, (side, "highest" if sign == side else "lowest"))


def test_a_peak_near_an_end_leads_beyond_that_end():
    x = np.linspace(-1, 1, 21)
    assert peak_statistics(x, np.exp(-(((x - 0.7) / 0.4) ** 2) / 2)).beyond in (None, (1, "highest"))


@pytest.mark.parametrize("kind", ["gaussian", "lorentzian"])
def test_half_of_a_dip_leads_down(kind):
    x = np.linspace(-0.1, 3, 31)
    assert peak_statistics(x, 3 - shape(kind, x)).beyond == (-0.1, "lowest")


@settings(max_examples=60, deadline=None)
@given(center=st.floats(-0.5, 0.5), points=st.sampled_from([9, 11, 21, 41]), sign=st.sampled_from([1, -1]))
def test_a_peak_within_the_scan_is_inside(center, points, sign):
    x = np.linspace(-1, 1, points)
    found = peak_statistics(x, 50 + sign * shape("gaussian", (x - center) / 0.5))
    assert found.inside
    assert found.cen == pytest.approx(center, abs=0.05)


@pytest.mark.parametrize("points", [11, 41])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_edge_with_both_plateaus_is_inside(points, sign):
    x = np.linspace(-1, 1, points)
    found = peak_statistics(x, sign * np.tanh((x - 0.1) / 0.1))
    assert found.inside
    assert found.cen == pytest.approx(0.1, abs=0.2)
