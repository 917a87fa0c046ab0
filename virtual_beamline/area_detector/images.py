"""The pixels that a simulated camera sees, after the documentation of areaDetector's ADSimDetector.

All sums saturate at the limits of the pixels' type, as a sensor does; only the linear ramp wraps around, which is how
it goes on for ever.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import DTypeLike
from numpy.typing import NDArray as Pixels

REACH = 4
"""How many sigmas a peak reaches."""
GLOW, GLOW_SIZE = 12.0, 60.0
"""Counts that the amplifier adds to a dark image in a corner of the sensor, and over how many pixels they fade."""
SHADE, SCATTER = 0.06, 0.01
"""How much less of the light the middle of an edge gets than the centre, and how much the pixels' gains differ."""
GRAINS, GRAIN_SIZE, GRAIN_SHADE = 8, (12.0, 45.0), (0.05, 0.2)
"""Grains of dust before the sensor, the radii of their shadows in pixels, and how dark they are."""
Image = Pixels[Any]


def saturated(values: Image, dtype: DTypeLike) -> Image:
    """Floats as pixels of another type."""
    kind: np.dtype[Any] = np.dtype(dtype)
    if kind.kind == "f":
        return values.astype(kind)
    limits = np.iinfo(kind.name)
    # The largest 64 bit integers are no floats; the next smaller float is.
    highest = np.nextafter(float(limits.max), 0) if kind.itemsize == 8 else limits.max
    return np.clip(values, limits.min, highest).astype(kind)


def background(shape: tuple[int, ...], dtype: DTypeLike, offset: float, noise: float, generator: Generator) -> Image:
    """Uniform noise from ``offset`` to ``offset + noise``."""
    if not noise:
        return np.full(shape, saturated(np.array(offset), dtype), dtype)
    return saturated(generator.random(shape, np.float32) * noise + offset, dtype)


def window(pool: Image, start: int, shape: tuple[int, ...]) -> Image:
    """A copy of so many pixels of a pool, from pixel ``start`` on: other noise, with another sum, for one copy."""
    size = math.prod(shape)
    return pool.reshape(-1)[start : start + size].copy().reshape(shape)


@dataclass(frozen=True, slots=True)
class Layer:
    """Pixels that are added to a part of an image.

    Attributes:
        window: the part.
        pixels: what is added: whole counts where the image's pixels are integers.
        room: the highest value that it can be added to; None: there is no limit, or counts are taken away, too.
    """

    window: tuple[slice, slice]
    pixels: Image
    room: Image | None

    @classmethod
    def of(cls, window: tuple[slice, slice], pixels: Pixels[np.float64], dtype: np.dtype[Any]) -> Layer:
        """A layer for images of a type."""
        if dtype.kind == "f":
            return cls(window, pixels.astype(dtype), None)
        if pixels.min() < 0:
            return cls(window, np.trunc(pixels), None)
        added = saturated(pixels, dtype)
        return cls(window, added, np.iinfo(dtype.name).max - added)

    def add_to(self, image: Image) -> None:
        """Add it, in place."""
        part = image[self.window]
        if self.room is not None:
            np.minimum(part, self.room, out=part)
            part += self.pixels
        else:
            part[...] = saturated(part + self.pixels, part.dtype)


@dataclass(frozen=True, slots=True)
class Sensor:
    """In what the pixels of a sensor differ: what dark images and flat fields are taken for.

    Attributes:
        response: what each pixel makes of light, about 1; of shape (y, x).
        glow: counts that each one has without light.
    """

    response: Pixels[np.float32]
    glow: Pixels[np.float32]

    @classmethod
    def made(cls, shape: tuple[int, int], generator: Generator) -> Sensor:
        """A sensor with an uneven gain, a lens that shades the corners, grains of dust, and a glowing amplifier."""
        y, x = np.ogrid[: shape[0], : shape[1]]
        middle = [(size - 1) / 2 for size in shape]
        response = 1 - SHADE * (((y - middle[0]) / middle[0]) ** 2 + ((x - middle[1]) / middle[1]) ** 2)
        response += generator.standard_normal(shape, np.float32) * SCATTER
        for _ in range(GRAINS):
            row, column = generator.uniform(0, shape)
            radius, shade = generator.uniform(*GRAIN_SIZE), generator.uniform(*GRAIN_SHADE)
            distance = np.hypot(y - row, x - column)
            # Out of focus, a grain's shadow is a ring.
            response *= 1 - shade * np.exp(-(((distance - radius) / (radius / 3)) ** 2))
        glow = GLOW * np.exp(-np.hypot(y, shape[1] - 1 - x) / GLOW_SIZE)
        return cls(response.astype(np.float32), glow.astype(np.float32))

    def dark(self, shape: tuple[int, ...], dtype: DTypeLike) -> list[Layer]:
        """What to add to dark images of shape (y, x) or (y, x, color): the corner that glows."""
        corner = slice(0, int(REACH * GLOW_SIZE)), slice(max(0, shape[1] - int(REACH * GLOW_SIZE)), shape[1])
        glow = self.glow[corner].astype(np.float64)
        return [Layer.of(corner, glow if len(shape) == 2 else glow[..., None] * np.ones(3), np.dtype(dtype))]


def even_light(
    shape: tuple[int, ...], dtype: DTypeLike, height: float, gains: tuple[float, ...], sensor: Sensor | None
) -> list[Layer]:
    """What to add to images of shape (y, x) or (y, x, color) for ``height`` counts of light everywhere."""
    light = np.full(shape[:2], height) if sensor is None else height * sensor.response.astype(np.float64)
    pixels = light * gains[0] if len(shape) == 2 else light[..., None] * np.array(gains)
    return [Layer.of((slice(shape[0]), slice(shape[1])), pixels, np.dtype(dtype))]


@dataclass(frozen=True, slots=True)
class Peaks:
    """A grid of Gaussian peaks; in pixels.

    Attributes:
        start: X and Y of the first one's centre.
        step: to the next one.
        count: how many, in X and Y.
        width: sigma.
        height: of each, before its variation.
    """

    start: tuple[int, int]
    step: tuple[int, int]
    count: tuple[int, int]
    width: tuple[int, int]
    height: float

    def layers(
        self,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        gains: tuple[float, ...],
        variations: Image,
        sensor: Sensor | None = None,
    ) -> list[Layer]:
        """What to add to images of shape (y, x) or (y, x, color).

        Args:
            shape: of the images.
            dtype: of their pixels.
            gains: one for each color.
            variations: factor of each peak, of shape (count y, count x).
            sensor: what sees them; None: one with equal pixels.
        """
        x, columns = self._profiles(0, shape[1])
        y, rows = self._profiles(1, shape[0])
        if not (x.size and y.size):
            return []
        # One layer for all: a million peaks take no more room than one that is as wide.
        light = y.T @ (self.height * variations) @ x
        if sensor is not None:
            light *= sensor.response[rows, columns]
        pixels = light * gains[0] if len(shape) == 2 else light[..., None] * np.array(gains)
        return [Layer.of((rows, columns), pixels, np.dtype(dtype))]

    def _profiles(self, axis: int, size: int) -> tuple[Pixels[np.float64], slice]:
        """The peaks along an axis, of shape (count, pixels), and which pixels those are."""
        start, step, count = self.start[axis], self.step[axis], self.count[axis]
        width = max(1, self.width[axis])
        ends = (start, start + (count - 1) * step)
        first, last = max(0, min(ends) - REACH * width), min(size, max(ends) + REACH * width)
        if first >= last or not count:
            return np.empty((0, 0)), slice(0)
        distance = np.arange(first, last) - (start + step * np.arange(count)[:, None])
        within = (distance >= -REACH * width) & (distance < REACH * width)
        return np.where(within, np.exp(-((distance / width) ** 2) / 2), 0.0), slice(first, last)


def linear_ramp(
    shape: tuple[int, ...], dtype: DTypeLike, steps: tuple[float, ...], gain_x: float, gain_y: float, number: int
) -> Image:
    """``step * (gain_x * x + gain_y * y)`` in the first image, ``step`` more in each further one.

    Args:
        shape: (y, x) or (y, x, color).
        dtype: of the pixels.
        steps: one for each color.
        gain_x: along X.
        gain_y: along Y.
        number: of the image, from 0.
    """
    kind = np.dtype(dtype)
    rows, columns = (np.arange(size, dtype=np.float64) for size in shape[:2])
    ramp = gain_y * rows[:, None] + gain_x * columns
    image = np.empty(shape, kind)
    for color, step in enumerate(steps):
        values = step * ramp + step * number
        plane = image if len(shape) == 2 else image[..., color]
        plane[...] = values if kind.kind == "f" else _wrapped(values, kind)
    return image


def _wrapped(values: Pixels[np.float64], kind: np.dtype[np.generic]) -> Image:
    period = 2.0 ** (8 * kind.itemsize)
    return np.floor(np.mod(values, period)).astype(np.uint64).astype(kind)


@dataclass(frozen=True, slots=True)
class Sine:
    """Two sine waves along one axis.

    Attributes:
        amplitudes: of both.
        frequencies: periods per width of the image.
        phases: in degrees.
        multiplied: the waves are multiplied with each other, else added.
    """

    amplitudes: tuple[float, float]
    frequencies: tuple[float, float]
    phases: tuple[float, float]
    multiplied: bool

    def waves(self, size: int, gain: float, number: int) -> tuple[Pixels[np.float64], Pixels[np.float64]]:
        """Both, along ``size`` pixels, in image ``number`` (from 0): each image goes on where the last one ended."""
        time = (np.arange(size) + number * size) * gain / size
        first, second = (
            amplitude * np.sin(2 * np.pi * (time * frequency + phase / 360))
            for amplitude, frequency, phase in zip(self.amplitudes, self.frequencies, self.phases, strict=True)
        )
        return first, second

    def combined(self, size: int, gain: float, number: int) -> Pixels[np.float64]:
        """Their sum or product."""
        first, second = self.waves(size, gain, number)
        return first * second if self.multiplied else first + second


def binned(image: Image, bin_x: int, bin_y: int) -> Image:
    """Sums of blocks of pixels of an image of shape (y, x) or (y, x, color); what does not fill a block is left out."""
    if bin_x == bin_y == 1:
        return image
    rows, columns = image.shape[0] // bin_y, image.shape[1] // bin_x
    total: Pixels[np.float64] = np.zeros((rows, columns, *image.shape[2:]), np.float64)
    for y, x in itertools.product(range(bin_y), range(bin_x)):
        total += image[y : rows * bin_y : bin_y, x : columns * bin_x : bin_x]
    return saturated(total, image.dtype)
