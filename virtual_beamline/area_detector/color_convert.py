"""``CC1:``: images in other color modes, and in false colors; ADCore: NDPluginColorConvert."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray as Pixels

from virtual_beamline.area_detector import parameters as p
from virtual_beamline.area_detector.ndarray import COLOR_MODES, MONO, RGB1, NDArray
from virtual_beamline.area_detector.pixels import arranged, colors_last, is_image
from virtual_beamline.area_detector.plugin import Plugin

MODES = ("Mono", "RGB1", "RGB2", "RGB3")
"""The modes that it converts to, in the order of ColorModeOut's choices."""
MAPS = ("None", "Rainbow", "Iron")

_STOPS: dict[str, tuple[tuple[int, int, int], ...]] = {
    # Colors at equal distances from the darkest pixel to the brightest. The names are ADCore's, the colors ours.
    "Rainbow": ((0, 0, 0), (96, 0, 160), (0, 0, 255), (0, 200, 200), (0, 220, 0), (255, 230, 0), (255, 0, 0)),
    "Iron": ((0, 0, 0), (40, 0, 120), (150, 0, 150), (225, 60, 50), (250, 160, 0), (255, 230, 80), (255, 255, 255)),
}


@functools.cache
def color_map(name: str) -> Pixels[np.uint8]:
    """Red, green and blue of each of 256 intensities; of shape (256, 3)."""
    stops = np.array(_STOPS[name], np.float64)
    places = np.linspace(0, 255, len(stops))
    return np.rint([np.interp(np.arange(256), places, colors) for colors in stops.T]).T.astype(np.uint8)


class ColorConvert(Plugin):
    """See the module.

    Colors become mono as their mean. False colors are of 8 bit mono images that become RGB. An array that is no image,
    or one of Bayer or YUV, is passed on as it is.
    """

    plugin_type = "NDPluginColorConvert"
    parameters = (
        p.choice("ColorModeOut", MODES, 0, "Color mode of what is passed on"),
        p.choice("FalseColor", MAPS, 0, "Colors for 8 bit mono images"),
    )

    def write(self, name: str, value: Any) -> None:
        """Take a value; the mode changes what is passed on."""
        super().write(name, value)
        if name == "ColorModeOut":
            self.expect_again()

    def output_of(self, array: NDArray) -> NDArray:
        """The converted image."""
        target = COLOR_MODES.index(MODES[self["ColorModeOut"]])
        if array.color_mode == target or not is_image(array):
            return array
        image = colors_last(array)
        if array.color_mode == MONO:
            image = self._in_colors(image)
        if target == MONO:
            image = (image.sum(axis=2, dtype=np.float64) / 3).astype(image.dtype)
        return self.made(array.derived(arranged(image, target) if target != RGB1 else image, target))

    def _in_colors(self, image: Pixels[Any]) -> Pixels[Any]:
        name = MAPS[self["FalseColor"]]
        if name == "None" or image.dtype.itemsize != 1:
            return np.repeat(image[..., np.newaxis], 3, axis=2)
        return np.take(color_map(name), image.view(np.uint8), axis=0).view(image.dtype)
