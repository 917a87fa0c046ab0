"""``ROI1:`` and on: a part of each array; ADCore: NDPluginROI."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from virtual_beamline.area_detector import parameters as p
from virtual_beamline.area_detector.ndarray import MONO, NDArray
from virtual_beamline.area_detector.parameters import Parameter
from virtual_beamline.area_detector.pixels import (
    AUTOMATIC,
    COLOR_AXES,
    DATA_TYPES_OUT,
    binned,
    converted,
    dtype_out,
    xyz_axes,
)
from virtual_beamline.area_detector.plugin import Plugin
from virtual_beamline.area_detector.port import Detector

ANY_SIZE = 1_000_000
"""A size at boot: as far as the array reaches."""


def _dimension(axis: str) -> Iterator[Parameter]:
    no_yes, enable = ("No", "Yes"), ("Disable", "Enable")
    yield p.switch(f"Enable{axis}", enable, 1, f"Cut in {axis}")
    yield p.integer(f"Min{axis}", 0, f"First pixel in {axis}", "pixels")
    yield p.integer(f"Size{axis}", ANY_SIZE, f"Size in {axis}, before binning", "pixels")
    yield p.switch(f"AutoSize{axis}", no_yes, 0, f"As far as it goes in {axis}")
    yield p.integer(f"Bin{axis}", 1, f"Pixels that are added up in {axis}", "pixels")
    yield p.switch(f"Reverse{axis}", no_yes, 0, f"Mirror in {axis}")
    yield p.integer(f"MaxSize{axis}", 0, f"Size of the input in {axis}", "pixels").readonly()


@dataclass(frozen=True, slots=True)
class _Cut:
    """What is done along one axis; ``first`` and ``size`` before binning."""

    first: int
    size: int
    bin: int = 1
    reverse: bool = False

    @property
    def selection(self) -> slice:
        return slice(self.first, self.first + self.size)


class Roi(Plugin):
    """See the module.

    Min, Size and Bin keep what was asked for; their readbacks are as far as the present input allows.
    Sums of binned pixels that are beyond the limits of the output's type become the limit.
    """

    plugin_type = "NDPluginROI"
    parameters = (
        p.string("Name", "", "What it is called"),
        *(parameter for axis in "XYZ" for parameter in _dimension(axis)),
        p.switch("EnableScale", ("Disable", "Enable"), 0, "Divide by Scale"),
        p.number("Scale", 1.0, "What pixels are divided by"),
        p.choice("DataTypeOut", DATA_TYPES_OUT, AUTOMATIC, "Type of what is passed on"),
        p.switch("CollapseDims", ("Disable", "Enable"), 0, "Leave out dimensions of size 1"),
    )

    def __init__(self, detector: Detector, prefix: str, name: str, source: str) -> None:
        super().__init__(detector, prefix, name, source)
        self._fitting = threading.Lock()
        self._wanted = {name: self[name] for axis in "XYZ" for name in (f"Min{axis}", f"Size{axis}", f"Bin{axis}")}

    def write(self, name: str, value: Any) -> None:
        """Take a value. Its readback is what was asked for until the next array tells what it became, as in ADCore."""
        if name == "Scale" and value == 0:
            self.refuse(name, value, "nothing can be divided by 0")
        if name in self._wanted:
            if name.startswith("Min") and value < 0:
                self.refuse(name, value, "at least 0")
            if not name.startswith("Min") and value < 1:
                self.refuse(name, value, "at least 1 pixel")
            self._wanted[name] = value
        super().write(name, value)
        self.expect_again()

    def expect(self, array: NDArray) -> None:
        """The input will be like this one: show what the settings become with it."""
        self._show_fit(array)
        super().expect(array)

    def process(self, array: NDArray) -> NDArray:
        """Show what the settings become with the array, and cut it."""
        self._show_fit(array)
        return self.output_of(array)

    def shown_size(self, array: NDArray) -> tuple[int, int, int]:
        """ArraySizeX, Y and Z are of what is passed on, as in ADCore."""
        sizes = [0, 0, 0]
        for number, (axis, cut) in enumerate(zip("XYZ", self._cuts(array), strict=True)):
            if cut is not None:
                sizes[number] = cut.size // (cut.bin if self[f"Enable{axis}"] else 1)
        return sizes[0], sizes[1], sizes[2]

    def _show_fit(self, array: NDArray) -> None:
        # Values are taken under the lock and shown outside it: showing takes records' locks, which put() holds.
        with self._fitting:
            values: dict[str, int] = {}
            for axis, numpy_axis, cut in zip("XYZ", xyz_axes(array), self._cuts(array), strict=True):
                if cut is not None and numpy_axis is not None:
                    values[f"MaxSize{axis}"] = array.data.shape[numpy_axis]
                    if self[f"Enable{axis}"]:
                        values |= {f"Min{axis}": cut.first, f"Size{axis}": cut.size, f"Bin{axis}": cut.bin}
                else:
                    values[f"MaxSize{axis}"] = 0
            changed = self.take(**values)
        self.show(changed)

    def _cuts(self, array: NDArray) -> tuple[_Cut | None, ...]:
        """For X, Y and Z, as far as the array reaches; None: it has no such dimension."""
        return tuple(
            None if numpy_axis is None else self._cut(axis, array.data.shape[numpy_axis])
            for axis, numpy_axis in zip("XYZ", xyz_axes(array), strict=True)
        )

    def _cut(self, axis: str, length: int) -> _Cut:
        if not self[f"Enable{axis}"]:
            return _Cut(0, length)
        first = min(self._wanted[f"Min{axis}"], max(0, length - 1))
        size = length - first
        if not self[f"AutoSize{axis}"]:
            size = min(self._wanted[f"Size{axis}"], size)
        return _Cut(first, size, min(self._wanted[f"Bin{axis}"], size), bool(self[f"Reverse{axis}"]))

    def output_of(self, array: NDArray) -> NDArray:
        """Cut, bin, reverse, scale, convert and collapse, in this order."""
        data = array.data
        selection, bins = [slice(None)] * data.ndim, [1] * data.ndim
        reverse = [slice(None)] * data.ndim
        for axis, cut in zip(xyz_axes(array), self._cuts(array), strict=True):
            if axis is not None and cut is not None:
                selection[axis], bins[axis] = cut.selection, cut.bin
                reverse[axis] = slice(None, None, -1) if cut.reverse else slice(None)
        dtype = dtype_out(self["DataTypeOut"], array)
        scaled = bool(self["EnableScale"])
        data = binned(data[tuple(selection)], tuple(bins), "f8" if scaled else "")[tuple(reverse)]
        if scaled:
            data = data / np.float64(self["Scale"])
        data = converted(data, dtype)
        color_mode = array.color_mode
        if color_mode in COLOR_AXES and data.shape[COLOR_AXES[color_mode]] != 3:
            color_mode = MONO
        if self["CollapseDims"]:
            data = data.reshape([size for size in data.shape if size != 1] or [1])
            if data.ndim != 3:
                color_mode = MONO
        return self.made(array.derived(data, color_mode))
