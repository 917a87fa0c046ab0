"""Arithmetic on pixels that several plugins do: their type, blocks of them, where their colors are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray as Pixels

from virtual_beamline.area_detector.images import saturated
from virtual_beamline.area_detector.ndarray import DATA_TYPES, MONO, RGB1, RGB2, RGB3, NDArray, dtype_of

AUTOMATIC = len(DATA_TYPES)
"""Index of the choice of DataTypeOut that keeps the type of the input."""
DATA_TYPES_OUT = (*DATA_TYPES, "Automatic")
COLOR_AXES = {RGB1: 2, RGB2: 1, RGB3: 0}
"""Where numpy's axis of the three colors is."""


def dtype_out(choice: int, array: NDArray) -> np.dtype[Any]:
    """The type that a choice of DataTypeOut makes of an array."""
    return array.data.dtype if choice == AUTOMATIC else dtype_of(choice)


def converted(data: Pixels[Any], dtype: np.dtype[Any]) -> Pixels[Any]:
    """Pixels of another type; fractions are cut off, what is beyond its limits becomes the limit.

    (ADCore casts as C does, where what is beyond the limits is undefined or wraps around.)
    """
    if data.dtype == dtype or dtype.kind == "f" or np.can_cast(data.dtype, dtype):
        return data.astype(dtype, copy=False)
    if data.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # not a number becomes any
            return saturated(data, dtype)
    source, target = np.iinfo(data.dtype), np.iinfo(dtype)
    return np.clip(data, max(source.min, target.min), min(source.max, target.max)).astype(dtype)


def binned(data: Pixels[Any], bins: tuple[int, ...], kind: str = "") -> Pixels[Any]:
    """Sums of blocks of pixels; what does not fill a block is left out.

    Args:
        data: of any number of dimensions.
        bins: the block's size along each axis.
        kind: type of the sums; by default the widest of the pixels' kind (64 bits).

    Returns:
        ``data`` itself if all ``bins`` are 1.
    """
    if all(size == 1 for size in bins):
        return data
    widest = np.dtype(kind or {"u": "u8", "i": "i8"}.get(data.dtype.kind, "f8"))
    for axis, size in enumerate(bins):
        if size == 1:
            continue
        full = data.shape[axis] // size * size
        blocks = np.moveaxis(data, axis, 0)
        total = blocks[0:full:size].astype(widest)
        for first in range(1, size):
            total += blocks[first:full:size]
        data = np.moveaxis(total, 0, axis)
    return data


def xyz_axes(array: NDArray) -> tuple[int | None, int | None, int | None]:
    """Numpy's axes of X, Y and Z; Z is that of the colors, or the third dimension; None: there is none."""
    dimensions = array.data.ndim
    if dimensions == 3 and array.color_mode in COLOR_AXES:
        color = COLOR_AXES[array.color_mode]
        y, x = (axis for axis in range(3) if axis != color)
        return x, y, color
    axes = [dimensions - 1 - number if number < dimensions else None for number in range(3)]
    return axes[0], axes[1], axes[2]


def is_image(array: NDArray) -> bool:
    """Whether it is a mono image of two dimensions or one in colors of three."""
    return array.data.ndim == 3 if array.color_mode in COLOR_AXES else array.color_mode == MONO and array.data.ndim == 2


def colors_last(array: NDArray) -> Pixels[Any]:
    """A view of shape (y, x) of a mono image, (y, x, 3) of one in colors.

    Raises:
        ValueError: it is no image.
    """
    if not is_image(array):
        msg = f"an array of {array.data.ndim} dimensions and this color mode is no image"
        raise ValueError(msg)
    color = COLOR_AXES.get(array.color_mode)
    return array.data if color is None else np.moveaxis(array.data, color, 2)


def arranged(image: Pixels[Any], color_mode: int) -> Pixels[Any]:
    """Undo :func:`colors_last` for any color mode of as many colors."""
    return np.moveaxis(image, 2, COLOR_AXES[color_mode]) if image.ndim == 3 else image
