"""The simulated camera ``cam1:``, after the documentation of areaDetector's ADSimDetector."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from virtual_beamline.area_detector import images
from virtual_beamline.area_detector import parameters as p
from virtual_beamline.area_detector.driver import Driver
from virtual_beamline.area_detector.ndarray import COLOR_MODES, MONO, RGB2, RGB3, NDArray, dtype_of
from virtual_beamline.area_detector.parameters import Parameter
from virtual_beamline.area_detector.port import Detector
from virtual_beamline.physics import World

COLORS = ("Mono", "RGB1", "RGB2", "RGB3")
"""The color modes that it has, in the order of ColorMode's choices."""


class SimMode(enum.IntEnum):
    """The choices of SimMode."""

    LINEAR_RAMP = 0
    PEAKS = 1
    SINE = 2
    OFFSET_NOISE = 3


class FrameType(enum.IntEnum):
    """The choices of FrameType; what else there is exposes as Normal does."""

    NORMAL = 0
    BACKGROUND = 1
    FLAT_FIELD = 2


def _sine(axis: str, number: int) -> Iterator[Parameter]:
    prefix, what = f"{axis}Sine{number}", f"sine {number} along {axis}"
    yield p.number(f"{prefix}Amplitude", 50.0, f"Amplitude of {what}")
    yield p.number(f"{prefix}Frequency", float(number), f"Frequency of {what}", "1/width")
    yield p.number(f"{prefix}Phase", 0.0, f"Phase of {what}", "deg")


class SimDetector(Driver):
    """See the module."""

    driver_version = "2.11.0"
    parameters = (
        p.choice("ColorMode", COLORS, 0, "Arrangement of its colors"),
        p.number("GainX", 1.0, "Gain along X"),
        p.number("GainY", 1.0, "Gain along Y"),
        p.number("GainRed", 1.0, "Gain of red"),
        p.number("GainGreen", 1.0, "Gain of green"),
        p.number("GainBlue", 1.0, "Gain of blue"),
        p.number("Offset", 0.0, "Counts of a dark pixel"),
        p.number("Noise", 0.0, "Width of the uniform noise", "counts"),
        p.switch("FixedPattern", ("No", "Yes"), 1, "Its pixels differ, as dark and flat show"),
        p.switch("Reset", ("Done", "Reset"), 0, "Begin the simulation again"),
        p.choice("SimMode", ("LinearRamp", "Peaks", "Sine", "Offset&Noise"), SimMode.PEAKS, "What it sees"),
        p.integer("PeakStartX", 1, "X of the first peak"),
        p.integer("PeakStartY", 1, "Y of the first peak"),
        p.integer("PeakNumX", 1, "Peaks along X"),
        p.integer("PeakNumY", 1, "Peaks along Y"),
        p.integer("PeakStepX", 1, "From peak to peak along X", "pixels"),
        p.integer("PeakStepY", 1, "From peak to peak along Y", "pixels"),
        p.integer("PeakWidthX", 10, "Sigma of a peak along X", "pixels"),
        p.integer("PeakWidthY", 20, "Sigma of a peak along Y", "pixels"),
        p.integer("PeakVariation", 0, "How much higher a peak may be", "%"),
        p.switch("XSineOperation", ("Add", "Multiply"), 0, "What sines along X do"),
        p.switch("YSineOperation", ("Add", "Multiply"), 0, "What sines along Y do"),
        *(parameter for axis in "XY" for number in (1, 2) for parameter in _sine(axis, number)),
    )

    def __init__(self, detector: Detector, prefix: str, name: str, world: World) -> None:
        """Make the camera.

        Args:
            detector: whose camera it is.
            prefix: of its PVs, e.g. ``"cam1:"``.
            name: of its port, e.g. ``"SIM1"``.
            world: what it looks at.
        """
        super().__init__(detector, prefix, name)
        self._world = world
        self._generator = world.generator("image")
        self._noise: tuple[tuple[object, ...], images.Image] | None = None
        self._layers: tuple[tuple[object, ...], list[images.Layer]] | None = None
        self._made_sensor: images.Sensor | None = None
        self._number = 0
        spot = world.spot
        self.set(
            Manufacturer="Simulated detector",
            Model="Basic simulator",
            SDKVersion=self.driver_version,
            PeakStartX=spot.center[0],
            PeakStartY=spot.center[1],
            PeakWidthX=spot.width[0],
            PeakWidthY=spot.width[1],
            Gain=spot.height,
            Noise=spot.noise,
        )

    def write(self, name: str, value: Any) -> None:
        """Take a value."""
        if name in {"PeakNumX", "PeakNumY"} and not 0 <= value <= 1000:
            self.refuse(name, value, "0 to 1000 peaks")
        if name in {"PeakWidthX", "PeakWidthY"} and value < 1:
            self.refuse(name, value, "at least 1 pixel")
        if name in {"Offset", "Noise", "SimMode", "DataType", "ColorMode"} or (name == "Reset" and value):
            self._begin_again()
        super().write(name, value)

    def _begin_again(self) -> None:
        self._noise = None
        self._number = 0

    # -- images ----------------------------------------------------------------------------------------------

    @property
    def _color_mode(self) -> int:
        return COLOR_MODES.index(COLORS[self["ColorMode"]])

    def image_format(self) -> NDArray:
        """Zeros, of the size, type and colors of the next image."""
        x, y = self["SizeX"] // self["BinX"], self["SizeY"] // self["BinY"]
        shape = (y, x) if self._color_mode == MONO else (y, x, 3)
        blank = np.zeros(shape, dtype_of(self["DataType"]))
        return NDArray(_arranged(blank, self._color_mode), self["UniqueId"], self._color_mode, self["TimeStamp"])

    def take_image(self) -> NDArray:
        """The exposures of one image, added up."""
        if self["Reset"]:
            self._begin_again()
            self.set_back(Reset=0)
        color_mode, dtype = self._color_mode, dtype_of(self["DataType"])
        shape = (self["MaxSizeY"], self["MaxSizeX"])
        image = self._exposure(shape if color_mode == MONO else (*shape, 3), dtype)
        for _ in range(self["NumExposures"] - 1):
            more = self._exposure(image.shape, dtype)
            image = images.saturated(image.astype(np.float64) + more, dtype)
        first_x, first_y = self["MinX"], self["MinY"]
        image = image[first_y : first_y + self["SizeY"], first_x : first_x + self["SizeX"]]
        image = images.binned(image, self["BinX"], self["BinY"])
        if self["ReverseX"]:
            image = image[:, ::-1]
        if self["ReverseY"]:
            image = image[::-1]
        return NDArray(_arranged(image, color_mode), 0, color_mode)

    def _exposure(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> images.Image:
        number, self._number = self._number, self._number + 1
        gains = (1.0,) if len(shape) == 2 else (self["GainRed"], self["GainGreen"], self["GainBlue"])
        kind, mode, gain = self["FrameType"], self["SimMode"], self["Gain"]
        if kind not in {FrameType.BACKGROUND, FrameType.FLAT_FIELD} and mode != SimMode.PEAKS:
            if mode == SimMode.LINEAR_RAMP:
                step = gain * self["AcquireTime"] * 1000
                steps = tuple(step * factor for factor in gains)
                return images.linear_ramp(shape, dtype, steps, self["GainX"], self["GainY"], number)
            if mode == SimMode.SINE:
                return self._sines(shape, dtype, number)
            return self._offset_and_noise(shape, dtype)
        image = self._offset_and_noise(shape, dtype)
        for layer in self._light(kind, shape, dtype, gains):
            layer.add_to(image)
        return image

    def _light(
        self, kind: int, shape: tuple[int, ...], dtype: np.dtype[np.generic], gains: tuple[float, ...]
    ) -> list[images.Layer]:
        """What is added to the noise; computed again only when something has changed."""
        height, sensor = self["Gain"] * self["GainX"] * self["GainY"], self._sensor(shape)
        peaks = images.Peaks(
            start=(self["PeakStartX"], self["PeakStartY"]),
            step=(self["PeakStepX"], self["PeakStepY"]),
            count=(self["PeakNumX"], self["PeakNumY"]),
            width=(self["PeakWidthX"], self["PeakWidthY"]),
            height=height,
        )
        key = (kind, peaks, shape, dtype, gains, sensor is None)
        if self._layers is None or self._layers[0] != key or self["PeakVariation"] > 0:
            layers = [] if sensor is None else sensor.dark(shape, dtype)
            if kind == FrameType.FLAT_FIELD:
                layers += images.even_light(shape, dtype, height, gains, sensor)
            elif kind != FrameType.BACKGROUND:
                layers += peaks.layers(shape, dtype, gains, self._variations(peaks.count), sensor)
            self._layers = (key, layers)
        return self._layers[1]

    def _sensor(self, shape: tuple[int, ...]) -> images.Sensor | None:
        """What is the same in each image; made with the first one, not at boot."""
        if not self["FixedPattern"]:
            return None
        if self._made_sensor is None:
            self._made_sensor = images.Sensor.made((shape[0], shape[1]), self._world.generator("sensor"))
        return self._made_sensor

    def _variations(self, count: tuple[int, int]) -> images.Image:
        """1 + 1 % to PeakVariation % for each peak, as the documentation has it."""
        variation = max(0, self["PeakVariation"])
        shape = (count[1], count[0])
        if not variation:
            return np.ones(shape)
        return 1 + self._generator.integers(1, variation + 1, shape) / 100

    def _offset_and_noise(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> images.Image:
        """A dark image: of twice as much noise as an image needs, drawn once, each gets another part."""
        offset, noise = self["Offset"], self["Noise"]
        key = (shape, dtype, offset, noise)
        if self._noise is None or self._noise[0] != key:
            drawn = shape if not noise else (2 * shape[0], *shape[1:])
            self._noise = (key, images.background(drawn, dtype, offset, noise, self._generator))
        start = int(self._generator.integers(math.prod(shape))) if noise else 0
        return images.window(self._noise[1], start, shape)

    def _sines(self, shape: tuple[int, ...], dtype: np.dtype[np.generic], number: int) -> images.Image:
        gain, gain_x, gain_y = self["Gain"], self["GainX"], self["GainY"]
        along_x, along_y = self._sine("X"), self._sine("Y")
        rows, columns = shape[:2]
        if len(shape) == 2:
            x, y = along_x.combined(columns, gain_x, number), along_y.combined(rows, gain_y, number)
            return images.saturated(gain * (y[:, None] + x), dtype)
        (x1, x2), (y1, y2) = along_x.waves(columns, gain_x, number), along_y.waves(rows, gain_y, number)
        image = np.empty(shape)
        image[..., 0] = self["GainRed"] * x1
        image[..., 1] = self["GainGreen"] * y1[:, None]
        image[..., 2] = self["GainBlue"] * (x2 + y2[:, None]) / 2
        return images.saturated(gain * image, dtype)

    def _sine(self, axis: str) -> images.Sine:
        def both(what: str) -> tuple[float, float]:
            return self[f"{axis}Sine1{what}"], self[f"{axis}Sine2{what}"]

        return images.Sine(both("Amplitude"), both("Frequency"), both("Phase"), bool(self[f"{axis}SineOperation"]))


def _arranged(image: images.Image, color_mode: int) -> images.Image:
    """An image of shape (y, x) or (y, x, color) with its colors where the color mode wants them."""
    if color_mode == RGB2:
        image = image.swapaxes(1, 2)
    elif color_mode == RGB3:
        image = np.moveaxis(image, 2, 0)
    return np.ascontiguousarray(image)
