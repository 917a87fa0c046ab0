"""The peak of an image, and images freed of the dark and the flat field; numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from instrument.framework.statistics import peak_statistics

Image = NDArray[np.float64]

THRESHOLD = 0.3  # of the height: pixels above it belong to the peak
REACH = 3  # radii of the area above the threshold; what lies farther from the centre is no part of the peak


@dataclass(frozen=True)
class ImagePeak:
    """A peak in an image; positions and widths in pixels, (x, y), the middle of the first pixel is 0.

    Attributes:
        centroid: Centre of mass of the pixels above 30 % of its height.
        fwhm: Full widths at half height of the peak's sums along y and along x; None where they can't be told.
        total: Sum of all pixels (counts).
        net: Sum of the pixels about the peak, less the background (counts).
        maximum: The largest pixel (counts).
        background: Median of all pixels (counts).
    """

    centroid: tuple[float, float]
    fwhm: tuple[float | None, float | None]
    total: float
    net: float
    maximum: float
    background: float


def image_peak(image: ArrayLike) -> ImagePeak:
    """Measure the peak of an image of shape (y, x); colors, where there are some, are added up.

    Raises:
        ValueError: It is no image, or all its pixels are the same.
    """
    pixels = plane(image)
    background, maximum = float(np.median(pixels)), float(pixels.max())
    if maximum <= background:
        raise ValueError("all pixels are the same: there is no peak")
    above = pixels - background
    belongs = above > THRESHOLD * (maximum - background)
    rows, columns = np.nonzero(belongs)
    weights = above[belongs]
    x, y = float(np.average(columns, weights=weights)), float(np.average(rows, weights=weights))
    left, right = _window(columns, x, pixels.shape[1])
    top, bottom = _window(rows, y, pixels.shape[0])
    about = above[top:bottom, left:right]
    widths = (
        peak_statistics(np.arange(left, right), about.sum(axis=0)).fwhm,
        peak_statistics(np.arange(top, bottom), about.sum(axis=1)).fwhm,
    )
    return ImagePeak((x, y), widths, float(pixels.sum()), float(about.sum()), maximum, background)


def plane(image: ArrayLike) -> Image:
    """An image as (y, x): colors are added up.

    Raises:
        ValueError: It has no two dimensions of pixels.
    """
    pixels = np.asarray(image, dtype=float)
    if pixels.ndim == 3:
        colors = next((axis for axis in (2, 0, 1) if pixels.shape[axis] == 3), None)
        pixels = pixels.sum(axis=colors) if colors is not None else pixels
    if pixels.ndim != 2 or not pixels.size:
        raise ValueError(f"an array of shape {np.shape(image)} is no image")
    return pixels


def corrected(image: ArrayLike, dark: ArrayLike, flat: ArrayLike) -> Image:
    """`(image - dark) / (flat - dark)`, times the mean of that denominator; pixels that saw no light are 0.

    Args:
        image: Shape (y, x).
        dark: Mean of the frames without light.
        flat: Mean of the frames with even light.
    """
    dark = np.asarray(dark, dtype=float)
    light = np.asarray(flat, dtype=float) - dark
    lit = light > 0
    scale = float(light[lit].mean()) if lit.any() else 0.0
    found = np.zeros(light.shape)
    np.divide(np.asarray(image, dtype=float) - dark, light, out=found, where=lit)
    return found * scale


def _window(places: NDArray[np.intp], center: float, size: int) -> tuple[int, int]:
    radius = max(5.0, REACH * float(np.sqrt(np.mean((places - center) ** 2))) * 2)
    return max(0, int(center - radius)), min(size, int(center + radius) + 1)
