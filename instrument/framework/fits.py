"""Peak models fitted by lmfit, which is imported at the first fit.

A straight line is fitted with each peak, a constant with each step. The fit begins where `framework.statistics` has
found the peak: background, slope and dips need no starting values from anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from instrument.config.errors import UserError, nearest
from instrument.framework.statistics import PeakStatistics, peak_statistics

Array = NDArray[np.float64]

# Name: lmfit's model class and its options.
PEAKS = {
    "gaussian": "GaussianModel",
    "lorentzian": "LorentzianModel",
    "voigt": "VoigtModel",
    "pvoigt": "PseudoVoigtModel",
}
STEPS = {"erf": "erf", "atan": "atan", "logistic": "logistic", "step": "linear"}  # forms of lmfit's StepModel
MODELS = (*PEAKS, *STEPS, "line")
FEWEST = 3  # points more than parameters there should be, hence at least this many


@dataclass(frozen=True)
class Fit:
    """A fitted model.

    Attributes:
        model: Its name, see `MODELS`.
        values: Best value of each parameter, unit of x or y; `fwhm` included for peaks.
        errors: Standard errors; NaN where they can't be told.
        redchi: Reduced chi square, of unweighted points.
        x: Where points are, in order.
        y: The points.
        best: The model at x.
    """

    model: str
    values: dict[str, float]
    errors: dict[str, float]
    redchi: float
    x: Array
    y: Array
    best: Array

    def __getitem__(self, name: str) -> float:
        """The best value of a parameter: `fit("gaussian")["center"]`."""
        try:
            return self.values[name]
        except KeyError:
            raise KeyError(f"{self.model} has no {name!r}; it has {', '.join(self.values)}") from None

    def __repr__(self) -> str:
        parts = []
        for name, value in self.values.items():
            error = self.errors[name]
            plus = f" +- {error:.2g}" if np.isfinite(error) else ""
            parts.append(f"{name} {value:.6g}{plus}")
        return f"{self.model}: {', '.join(parts)}"


def fit(model: str, x: ArrayLike, y: ArrayLike) -> Fit:
    """Fit a model and a straight line to y(x).

    Args:
        model: One of `MODELS`.
        x: Positions in any order.
        y: What was measured there. Points where x or y is not finite are left out.

    Raises:
        UserError: No such model, too few points, or nothing to fit.
    """
    if not isinstance(model, str) or model.lower() not in MODELS:
        near = nearest(str(model), MODELS)
        hint = f"; did you mean {near!r}?" if near else f"; there are {', '.join(MODELS)}"
        raise UserError(f"fit: no model {model!r}{hint}")
    model = model.lower()
    x_given, y_given = np.asarray(x, dtype=float).ravel(), np.asarray(y, dtype=float).ravel()
    finite = np.isfinite(x_given) & np.isfinite(y_given)
    order = np.argsort(x_given[finite], kind="stable")
    xs, ys = x_given[finite][order], y_given[finite][order]
    import lmfit

    span_x, span_y = float(np.ptp(xs)) if xs.size else 0.0, float(np.ptp(ys)) if ys.size else 0.0
    made, start = _model(lmfit, model, peak_statistics(xs, ys), (xs, ys))
    if xs.size < len(start) + FEWEST or span_x == 0.0:
        raise UserError(f"fit: {xs.size} points are too few for {model} and a line; {len(start) + FEWEST} are enough")
    if span_y == 0.0:
        raise UserError(f"fit: all {xs.size} points are {ys[0]:g}: there is nothing to fit")
    # Both axes are scaled, so that no step of the search is too small or too large for a float.
    result = made.fit(ys / span_y, params=start, x=(xs - xs[0]) / span_x)
    values, errors = {}, {}
    for name, parameter in result.params.items():
        factor, shift = _scales(name, model in STEPS, (span_x, span_y, float(xs[0])))
        if factor is None:
            continue
        values[name] = float(parameter.value) * factor + shift
        errors[name] = float(parameter.stderr) * factor if parameter.stderr is not None else float("nan")
    if "intercept" in values:  # at x = 0, not where the scan begins
        values["intercept"] -= values["slope"] * float(xs[0])
    best = np.asarray(result.best_fit) * span_y
    return Fit(model, values, errors, float(result.redchi) * span_y**2, xs, ys, best)


def _scales(name: str, is_step: bool, scales: tuple[float, float, float]) -> tuple[float | None, float]:
    """Factor and shift from the scaled parameter to the real one; None for what need not be told."""
    span_x, span_y, origin = scales
    factors = {
        "center": span_x,
        "sigma": span_x,
        "fwhm": span_x,
        "height": span_y,
        "intercept": span_y,
        "c": span_y,
        "amplitude": span_y if is_step else span_x * span_y,
        "slope": span_y / span_x,
        "fraction": 1.0,
    }
    return factors.get(name), origin if name == "center" else 0.0


def _model(lmfit: Any, name: str, found: PeakStatistics, points: tuple[Array, Array]) -> tuple[Any, Any]:
    """Lmfit's model with a line, and where to start, both axes scaled to 0..1 (x) and a range of 1 (y)."""
    xs, ys = points
    line = lmfit.models.LinearModel()
    span_x, span_y = float(np.ptp(xs)) or 1.0, float(np.ptp(ys)) or 1.0
    background = found.lin_bkg or {"m": 0.0, "b": float(np.median(ys)) if ys.size else 0.0}
    origin = float(xs[0]) if xs.size else 0.0
    start = {
        "slope": background["m"] * span_x / span_y,
        "intercept": (background["b"] + background["m"] * origin) / span_y,
    }
    if name == "line":
        return line, line.make_params(**start)
    height = (found.height if found.height is not None else span_y) / span_y
    center = (found.cen - origin) / span_x if found.cen is not None else 0.5
    width = found.fwhm / span_x if found.fwhm else 0.2
    if name in STEPS:
        model = lmfit.models.StepModel(form=STEPS[name])
        rising = _is_rising(ys)
        height = abs(height) if rising else -abs(height)
        # A step is fitted with a constant: a slope would be one more way to be a step.
        model = model + lmfit.models.ConstantModel()
        low = float(ys[0]) / span_y if ys.size else 0.0
        params = model.make_params(amplitude=height, center=center, sigma=max(width / 4, 0.02), c=low)
        params["sigma"].min = 1e-6
        return model, params
    model = getattr(lmfit.models, PEAKS[name])()
    # lmfit's amplitudes are areas: of a Gaussian 1.064, of a Lorentzian 1.571 times height and width.
    area = height * width * (1.064 if name == "gaussian" else 1.571)
    sigma = width / 2.355 if name == "gaussian" else width / 2
    if name == "voigt":
        sigma, area = width / 3.6, height * width * 1.3
    both = model + line
    params = both.make_params(amplitude=area, center=center, sigma=sigma, **start)
    params["sigma"].min = 1e-6
    params["center"].min, params["center"].max = -1.0, 2.0
    return both, params


def _is_rising(y: Array) -> bool:
    quarter = max(1, y.size // 4)
    return bool(np.median(y[-quarter:]) >= np.median(y[:quarter]))
