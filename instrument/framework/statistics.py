"""Where a peak is, how wide, and whether there is one at all.

bluesky's `PeakStats` takes the centre of mass of the raw signal, so that a background of 10 under a peak at 0.300 moves
its `com` to 0.006. Here the background is told from the peak first: a straight line and one peak (Gaussian, Lorentzian
or flat-topped, up or down) are fitted by linear least squares on a grid of centres and widths ("variable projection",
Golub and Pereyra, SIAM J. Numer. Anal. 10 (1973) 413), which needs no starting values and no scipy. The peak's height
is then known, and centre, width and centroid are read off the data themselves, so that no shape is imposed on them;
only where the noise is too large for that do the fitted values stand in.

All positions and widths have the unit of x, all heights that of y.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Kind = Literal["peak", "dip", "edge", "none"]

ENOUGH_TO_FIT = 8  # points; below it, a line and a peak explain anything
GRID_POINTS = 128  # the search for the peak sees at most about this many (averaged) points
SIGNIFICANT = 27.0  # (n - 4) ln(chi2 of a line / chi2 of a line and a peak); noise alone reaches about 20
COUNTS_SIGNIFICANT = 3.0  # standard deviations of a peak's counts, where y are counts
FEW_COUNTS_SIGNIFICANT = 4.0  # the same of a single point, the highest of a few
STANDS_OUT = 15.0  # height / scatter of the points beside a peak, where there are too few points to fit
FEWEST_BESIDE = 4  # points beside it, for their scatter to say something
COUNTABLE = 3.0  # counts; below it the scatter of single points says little
FEWEST_CENTRES = 13  # in the grid of the search, for a wide peak
MOST_STEPS = 60  # of the search for the best centre and width
CLOSE_ENOUGH = 1e-4  # relative, of the width
AROUND = np.array([(i, j) for i in (-1.0, 0.0, 1.0) for j in (-1.0, 0.0, 1.0) if i or j])
NOISY = 0.03  # noise / height; above it crossings of the raw data are no longer the better answer
PLATEAU = 0.15  # of the height; a last step larger than that is no plateau
ROUNDING = 1e-9  # of the range of y: what is smaller is not signal


@dataclass(frozen=True)
class PeakStatistics:
    """What can be said about one peak in y(x).

    `com cen max min fwhm crossings lin_bkg` mean what they mean in bluesky's `PeakStats`, but for the background.

    Attributes:
        kind: "peak", "dip", "edge" (a step), or "none" (a flat line, a slope, or noise).
        com: Centre of mass of the peak above its background, within one and a half widths on either side.
        cen: Mid-point between the half heights on either side; of an edge, where it is at half its height.
        max: (x, y) of the largest y as measured.
        min: (x, y) of the smallest y as measured.
        fwhm: Full width at half height. None of an edge, and where only one side was seen and nothing fits.
        crossings: Where the signal crosses half of its height.
        lin_bkg: Background line y = m x + b, as {"m": m, "b": b}; None if it was not determined.
        height: Height above (of a dip: depth below, negative) the background.
        noise: Standard deviation of the points about the smooth curve.
        number_of_points: Finite points that went into this.
        inside: Both half heights (of an edge: both plateaus) lie within the scan. False: it saw a flank only, and where
            the peak is can't be told.
        beyond: Of a flank, the end of the scan to look beyond, and what is there: the highest or the lowest.
    """

    kind: Kind = "none"
    com: float | None = None
    cen: float | None = None
    max: tuple[float, float] | None = None
    min: tuple[float, float] | None = None
    fwhm: float | None = None
    crossings: Array = field(default_factory=lambda: np.empty(0))
    lin_bkg: dict[str, float] | None = None
    height: float | None = None
    noise: float | None = None
    number_of_points: int = 0
    inside: bool = True
    beyond: tuple[float, Literal["highest", "lowest"]] | None = None

    def __getitem__(self, key: str) -> Any:
        """The attribute `key`, as bluesky's `PeakStats` has it."""
        if key not in self.__dataclass_fields__:
            raise KeyError(f"no statistic {key!r}; there are {', '.join(self.__dataclass_fields__)}")
        return getattr(self, key)

    @property
    def found(self) -> bool:
        """Is there a peak, a dip, or an edge?"""
        return self.cen is not None

    def flank(self, what: str, x: str) -> str | None:
        """What was seen if it was a flank only, and where to look for the rest; None if it was not.

        Args:
            what: What was measured, and when: "noisy in scan 3".
            x: What was moved: "m1".
        """
        if self.beyond is None:
            return None
        place, which = self.beyond
        return f"{what} is a flank, its {which} at the end {x} {place:g}: scan beyond it"


def clearness(y: ArrayLike, found: PeakStatistics | None) -> tuple[float, float]:
    """How clearly a signal shows a peak, to compare signals of one scan by: the larger, the clearer.

    Args:
        y: What was measured.
        found: What is known of its peak.

    Returns:
        Height of the peak over the noise, -1 without a peak; and how much the signal changes, relative to its size.
    """
    values = np.asarray(y, dtype=float)
    values = values[np.isfinite(values)]
    size = float(np.max(np.abs(values))) if values.size else 0.0
    change = float(np.ptp(values)) / size if size else 0.0
    if found is None or not found.found or found.height is None:
        return -1.0, change
    # Of few points the noise is not known; a peak is then judged by its height against its background.
    scatter = 0.02 * size if found.noise is None else found.noise
    return abs(found.height) / max(scatter, 1e-6 * abs(found.height)), change


class _Fit(NamedTuple):
    chi2: float  # sum of squared residuals
    centre: float
    width: float  # full width at half height; of an edge, from 12 % to 88 %
    height: float
    offset: float
    slope: float


_Shape = Callable[[Array], Array]  # of (x - centre) / width, full width at half height 1


def _gaussian(t: Array) -> Array:
    return np.exp(-4.0 * np.log(2.0) * t**2)


def _lorentzian(t: Array) -> Array:
    return 1.0 / (1.0 + 4.0 * t**2)


def _flat_top(t: Array) -> Array:
    return np.exp(-np.log(2.0) * (2.0 * t) ** 8)


def _step(t: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(2.0 * t))


def peak_statistics(x: ArrayLike, y: ArrayLike) -> PeakStatistics:
    """Find the peak, dip or edge in y(x) and measure it.

    Args:
        x: Positions in any order; repeated ones are averaged.
        y: What was measured there. Points where x or y is not finite are left out.

    Raises:
        ValueError: x and y are not of one length.
    """
    x_given, y_given = np.asarray(x, dtype=float).ravel(), np.asarray(y, dtype=float).ravel()
    if x_given.size != y_given.size:
        raise ValueError(f"x has {x_given.size} points, y has {y_given.size}")
    finite = np.isfinite(x_given) & np.isfinite(y_given)
    x_all, y_all = x_given[finite], y_given[finite]
    if x_all.size == 0:
        return PeakStatistics()
    highest, lowest = int(np.argmax(y_all)), int(np.argmin(y_all))
    extremes = {
        "max": (float(x_all[highest]), float(y_all[highest])),
        "min": (float(x_all[lowest]), float(y_all[lowest])),
        "number_of_points": int(x_all.size),
    }
    xs, ys = _sorted_and_merged(x_all, y_all)
    span_x, span_y = xs[-1] - xs[0], float(np.ptp(ys))
    # A range that is only rounding is a constant. Scaling both axes keeps sums of squares within a float's range.
    largest_y = float(np.max(np.abs(ys)))
    if xs.size < 3 or not span_x > ROUNDING * np.max(np.abs(xs)) or not span_y > ROUNDING * largest_y:
        return PeakStatistics(**extremes)
    u, v = (xs - xs[0]) / span_x, (ys - ys.min()) / span_y
    if xs.size >= ENOUGH_TO_FIT:
        measured = _measure_fitted(u, v)
    else:
        measured = _measure_few(u, v, ys if _are_counts(y_all) else None)
    if measured.kind == "none":
        return PeakStatistics(**extremes, noise=_times(measured.noise, span_y))
    if measured.kind != "edge" and _is_counting_noise(x_all, y_all, measured, xs[0], span_x, span_y):
        return PeakStatistics(**extremes, noise=_times(measured.noise, span_y))
    background = measured.lin_bkg
    beyond = None
    if not measured.inside:
        at_end, which = _beyond(u, v, measured)
        beyond = (float(xs[-1] if at_end else xs[0]), which)
    if background is not None:
        slope = background["m"] * span_y / span_x
        background = {"m": float(slope), "b": float(ys.min() + background["b"] * span_y - slope * xs[0])}
    return PeakStatistics(
        kind=measured.kind,
        com=_place(measured.com, xs[0], span_x),
        cen=_place(measured.cen, xs[0], span_x),
        fwhm=_times(measured.fwhm, span_x),
        crossings=xs[0] + span_x * measured.crossings,
        lin_bkg=background,
        height=_times(measured.height, span_y),
        noise=_times(measured.noise, span_y),
        inside=measured.inside,
        beyond=beyond,
        **extremes,
    )


def _beyond(x: Array, y: Array, flank: PeakStatistics) -> tuple[bool, Literal["highest", "lowest"]]:
    """Whether what a flank belongs to lies beyond the end of the scan, or its begin, and what is there.

    Args:
        x: Positions, from 0 to 1.
        y: What was measured there.
        flank: What was made of it.
    """
    if flank.kind == "edge":
        at_end = (flank.cen or 0.0) > 0.5
        return at_end, "highest" if at_end == ((flank.height or 0.0) > 0) else "lowest"
    lowest, highest = float(x[np.argmin(y)]), float(x[np.argmax(y)])
    down = _leads_down(x, y, flank, lowest, highest)
    return (lowest if down else highest) > 0.5, "lowest" if down else "highest"


def _leads_down(x: Array, y: Array, flank: PeakStatistics, lowest: float, highest: float) -> bool:
    """Is a flank that of a dip, which comes from a plateau? The tail of a peak is the steeper the higher."""
    if flank.cen is None or (flank.height or 0.0) > 0.0:
        return False
    if abs(flank.cen - lowest) > abs(flank.cen - highest):
        return False  # half of a peak that falls to a plateau
    third = max(2, x.size // 3)
    slopes = [abs(_slope(x[part], y[part])) for part in (slice(third), slice(third, -third), slice(-third, None))]
    at_highest = slopes[0] if highest < lowest else slopes[-1]
    return at_highest < max(slopes)


def _slope(x: Array, y: Array) -> float:
    """Of the straight line through points; 0 of less than two."""
    if x.size < 2:
        return 0.0
    dx = x - x.mean()
    return float(dx @ (y - y.mean()) / (dx @ dx))


def _place(value: float | None, origin: float, span: float) -> float | None:
    return None if value is None else float(origin + span * value)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else float(factor * value)


def _sorted_and_merged(x: Array, y: Array) -> tuple[Array, Array]:
    places, which = np.unique(x, return_inverse=True)
    counts = np.bincount(which)
    means: Array = np.bincount(which, weights=y / counts[which]).astype(float)  # so no sum exceeds a float's range
    return places, np.clip(means, y.min(), y.max())  # nor does rounding


def _binned(x: Array, y: Array, most: int) -> tuple[Array, Array]:
    """Neighbours averaged, so that at most `most` points are left."""
    each = -(-x.size // most)
    if each == 1:
        return x, y
    starts = np.arange(0, x.size, each)
    sizes = np.diff(np.append(starts, x.size))
    return np.add.reduceat(x, starts) / sizes, np.add.reduceat(y, starts) / sizes


def _are_counts(y: Array) -> bool:
    return bool(np.all(y >= 0) and np.all(y == np.round(y)))


def _is_counting_noise(x: Array, y: Array, measured: PeakStatistics, origin: float, span: float, scale: float) -> bool:
    """Are these counts, and the peak's too few to be more than chance (Poisson)?"""
    if measured.fwhm is None or measured.cen is None or measured.lin_bkg is None or x.size < ENOUGH_TO_FIT:
        return False
    if not _are_counts(y):
        return False
    t = (x - origin) / span
    spacing = 1.0 / max(1, x.size - 1)
    within = np.abs(t - measured.cen) <= max(measured.fwhm, spacing)
    background = np.median(y[~within]) if np.any(~within) else np.min(y)
    if background > COUNTABLE and scale * (measured.noise or 0.0) < 0.3 * np.sqrt(background):
        return False  # whole numbers, yet far smoother than counts are
    net = abs(float(np.sum(y[within] - background)))
    return net < COUNTS_SIGNIFICANT * np.sqrt(float(np.sum(y[within])) + background * np.count_nonzero(within) + 1.0)


# --- few points: a fit would explain anything, so the peak has to show by itself


def _measure_few(x: Array, y: Array, counts: Array | None) -> PeakStatistics:
    """The peak or dip above the line from the first point to the last, if it is more than scatter.

    A step, or a flank, is not told of so few points: a slope looks like either.

    Args:
        x: Positions, from 0 to 1.
        y: What was measured there, scaled to 0 to 1.
        counts: The same as it was measured, if those are counts.
    """
    slope = float(y[-1] - y[0])
    z = y - y[0] - slope * x
    sign = 1.0 if z.max() >= -z.min() else -1.0
    z *= sign
    top, height = int(np.argmax(z)), float(z.max())
    summit = sign * y[max(0, top - 1) : top + 2]
    if not 0 < top < x.size - 1 or np.argmax(summit) != 1 or -z.min() > height / 2:
        return PeakStatistics()  # a slope, or as much below the line as above it
    if counts is None:
        shows = _stands_out(z) or _is_bell(z)
    else:
        measured, scale = counts[top], np.ptp(counts)
        background = max(0.0, measured - sign * height * scale)
        shows = height * scale > FEW_COUNTS_SIGNIFICANT * np.sqrt(measured + background / 2 + 1.0)
    if not shows:
        return PeakStatistics()
    rising, falling = _crossings(x, z, height / 2)
    left, right = max(c for c in rising if c <= x[top]), min(c for c in falling if c >= x[top])
    cen, fwhm = (left + right) / 2.0, right - left
    return PeakStatistics(
        kind="peak" if sign > 0 else "dip",
        com=_centroid(x, z, cen, fwhm),
        cen=cen,
        fwhm=fwhm,
        crossings=np.array(sorted([*rising, *falling])),
        lin_bkg={"m": slope, "b": float(y[0])},
        height=sign * height,
    )


def _stands_out(z: Array) -> bool:
    """Are there points beside the peak, all of them far closer to the line than it is? Of noise, 1 scan in 100."""
    rest = z[z < z.max() / 2]
    return rest.size >= FEWEST_BESIDE and bool(z.max() ** 2 * (rest.size - 2) > STANDS_OUT**2 * np.sum(rest**2))


def _is_bell(z: Array) -> bool:
    """Up to one top and down again, with a foot on either side? Noise is in 4 scans of 5 points in 100, of 7 in 1."""
    top = int(np.argmax(z))
    step, bend = np.diff(z), np.diff(z, 2)
    feet = np.flatnonzero(z[1:-1] < z[top] / 2) + 1
    return bool(
        np.all(step[:top] > 0)
        and np.all(step[top:] < 0)
        and np.any(feet < top)
        and np.any(feet > top)
        and np.all(bend[feet - 1] > 0)
    )


# --- enough points: a line, a line and a peak, or a step, whichever explains them


def _measure_fitted(x: Array, y: Array) -> PeakStatistics:
    few_x, few_y = _binned(x, y, GRID_POINTS)
    n = few_x.size
    line = np.column_stack([np.ones(n), few_x])
    flat = np.ones((n, 1))
    chi2_line = _residual(line, few_y)
    noise = _noise(y)
    tiny = n * ROUNDING**2
    if chi2_line <= tiny:
        return PeakStatistics(noise=noise)

    fits: list[tuple[_Fit, _Shape]] = []
    for shape in (_gaussian, _lorentzian, _flat_top):  # each from its own start, else it may end in a poor minimum
        start = _search(few_x, few_y, line, shape)
        if start is not None:
            fits.append((_refine(few_x, few_y, line, shape, start), shape))
    if not fits:
        return PeakStatistics(noise=noise)
    peak, peak_shape = min(fits, key=lambda pair: pair[0].chi2)
    edge_start = _search(few_x, few_y, flat, _step, np.array([2.0 / n, 4.0 / n, 0.08, 0.2, 0.4]))
    edge = None if edge_start is None else _refine(few_x, few_y, flat, _step, edge_start)

    if (n - 4) * np.log((chi2_line + tiny) / (min(peak.chi2, edge.chi2 if edge else np.inf) + tiny)) < SIGNIFICANT:
        return PeakStatistics(noise=noise)
    # Bayesian information criterion: the peak has one parameter more than the step.
    if edge is not None and n * np.log((edge.chi2 + tiny) / (peak.chi2 + tiny)) < np.log(n):
        return _measure_edge(edge, noise)
    return _measure_peak(x, y, peak, peak_shape, noise)


def _measure_edge(edge: _Fit, noise: float) -> PeakStatistics:
    return PeakStatistics(
        kind="edge",
        inside=edge.width <= edge.centre <= 1.0 - edge.width,
        cen=edge.centre,
        crossings=np.array([edge.centre]),
        lin_bkg={"m": 0.0, "b": edge.offset},
        height=edge.height,
        noise=noise,
    )


def _measure_peak(x: Array, y: Array, fit: _Fit, shape: _Shape, noise: float) -> PeakStatistics:
    sign = np.sign(fit.height)
    z = sign * (y - fit.offset - fit.slope * x)
    height = abs(fit.height)
    misfit = float(np.std(z - height * shape((x - fit.centre) / fit.width)))
    rising, falling = _crossings(x, z, height / 2)
    left = min(rising, key=lambda c: abs(c - (fit.centre - fit.width / 2)), default=None)
    right = min(falling, key=lambda c: abs(c - (fit.centre + fit.width / 2)), default=None)
    by_the_fit = noise > NOISY * height and misfit < 2.0 * noise
    if left is not None and right is not None and left < fit.centre < right and not by_the_fit:
        cen, fwhm = (left + right) / 2.0, right - left
    else:
        cen, fwhm = fit.centre, fit.width
    return PeakStatistics(
        kind="peak" if sign > 0 else "dip",
        inside=bool(x[0] <= cen - fwhm / 2.0 and cen + fwhm / 2.0 <= x[-1] and 0 < np.argmax(z) < z.size - 1),
        com=_centroid(x, z, cen, fwhm),
        cen=cen,
        fwhm=fwhm,
        crossings=np.array(sorted([*rising, *falling])),
        lin_bkg={"m": fit.slope, "b": fit.offset},
        height=fit.height,
        noise=noise,
    )


def _noise(y: Array) -> float:
    """Standard deviation of uncorrelated noise on a smooth curve.

    From second differences, whose variance is 6 times that of white noise (von Neumann's idea, as in Der_SNR), through
    the median absolute deviation, which a few steep points do not disturb.
    """
    second = y[:-2] - 2.0 * y[1:-1] + y[2:]
    return float(1.4826 * np.median(np.abs(second)) / np.sqrt(6.0))


def _residual(basis: Array, y: Array) -> float:
    q, _ = np.linalg.qr(basis)
    rest = y - q @ (q.T @ y)
    return float(rest @ rest)


def _grid(widths: Array) -> Iterator[tuple[float, Array]]:
    for width in widths:
        count = max(int(np.ceil(2.0 / width)) + 1, FEWEST_CENTRES)
        yield width, np.linspace(0.0, 1.0, count)


def _search(x: Array, y: Array, basis: Array, shape: _Shape, widths: Array | None = None) -> _Fit | None:
    """The best of a coarse grid of centres (within the scan) and widths."""
    if widths is None:
        # From one step (a peak in a single point) to most of the scan, by factors of about 1.5.
        narrowest = 1.2 / (x.size - 1)
        widths = np.geomspace(narrowest, 0.9, max(2, int(np.ceil(np.log(0.9 / narrowest) / np.log(1.5)))))
    grid = list(_grid(widths))
    centres = np.concatenate([c for _, c in grid])
    all_widths = np.concatenate([np.full(c.size, w) for w, c in grid])
    return _best(x, y, basis, shape, centres, all_widths)


def _refine(x: Array, y: Array, basis: Array, shape: _Shape, start: _Fit) -> _Fit:
    """A pattern search in centre and log(width) around `start`: on while it gets better, else closing in."""
    best = start
    step_centre, step_width = start.width / 4.0, np.log(1.5) / 2.0
    for _ in range(MOST_STEPS):
        centres = np.clip(best.centre + step_centre * AROUND[:, 0], 0.0, 1.0)
        widths = np.clip(best.width * np.exp(step_width * AROUND[:, 1]), 0.2 / x.size, 2.0)
        better = _best(x, y, basis, shape, centres, widths)
        if better is not None and better.chi2 < best.chi2 * (1.0 - 1e-6):
            best = better
        else:
            step_centre, step_width = step_centre / 3.0, step_width / 3.0
            if step_width < CLOSE_ENOUGH:
                break
    return best


def _best(x: Array, y: Array, basis: Array, shape: _Shape, centres: Array, widths: Array) -> _Fit | None:
    """Least squares for the linear parameters of each candidate; the one with the smallest residual."""
    q, _ = np.linalg.qr(basis)
    rest = y - q @ (q.T @ y)
    curves = shape((x[np.newaxis, :] - centres[:, np.newaxis]) / widths[:, np.newaxis])
    own = curves - (curves @ q) @ q.T  # what of each curve the background can't imitate
    norms = np.einsum("ij,ij->i", own, own)
    usable = norms > 1e-6
    if not np.any(usable):
        return None
    overlaps = own @ rest
    gains = np.where(usable, overlaps**2 / np.where(usable, norms, 1.0), -1.0)
    which = int(np.argmax(gains))
    height = float(overlaps[which] / norms[which])
    left_over = rest - height * own[which]
    coefficients = np.linalg.lstsq(basis, y - height * curves[which], rcond=None)[0]
    return _Fit(
        chi2=float(left_over @ left_over),
        centre=float(centres[which]),
        width=float(widths[which]),
        height=height,
        offset=float(coefficients[0]),
        slope=float(coefficients[1]) if coefficients.size > 1 else 0.0,
    )


def _crossings(x: Array, z: Array, level: float) -> tuple[list[float], list[float]]:
    """Where z rises, and falls, through `level`, by linear interpolation."""
    above = z > level
    rising, falling = [], []
    for i in np.flatnonzero(above[1:] != above[:-1]):
        place = float(x[i] + (level - z[i]) * (x[i + 1] - x[i]) / (z[i + 1] - z[i]))
        (rising if above[i + 1] else falling).append(place)
    return rising, falling


def _centroid(x: Array, z: Array, cen: float, fwhm: float) -> float:
    """Centre of mass of the piecewise linear z within a window that is symmetric about `cen`.

    Symmetric, so that the tails (of a Lorentzian they hold a third of the mass) that the scan has on one side only do
    not pull it to that side.
    """
    reach = min(1.5 * fwhm, max(min(cen - x[0], x[-1] - cen), fwhm / 2.0))
    low, high = max(cen - reach, x[0]), min(cen + reach, x[-1])
    inside = (x > low) & (x < high)
    px = np.concatenate([[low], x[inside], [high]])
    pz = np.interp(px, x, z)
    dx = np.diff(px)
    # Exact integrals of z and x z over each linear piece.
    mass = float(np.sum(dx * (pz[1:] + pz[:-1]) / 2.0))
    moment = float(np.sum(dx * (px[:-1] * (2 * pz[:-1] + pz[1:]) + px[1:] * (pz[:-1] + 2 * pz[1:])) / 6.0))
    if mass <= 0.0:
        return cen
    return float(np.clip(moment / mass, low, high))
