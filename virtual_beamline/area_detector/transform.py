"""``Trans1:``: turned and mirrored images; ADCore: NDPluginTransform."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
from numpy.typing import NDArray as Pixels

from virtual_beamline.area_detector import parameters as p
from virtual_beamline.area_detector.ndarray import NDArray
from virtual_beamline.area_detector.pixels import arranged, colors_last, is_image
from virtual_beamline.area_detector.plugin import Plugin


class TransformType(enum.IntEnum):
    """The choices of Type; a rotation is clockwise, the mirror swaps left and right after it."""

    NONE = 0
    ROT90 = 1
    ROT180 = 2
    ROT270 = 3
    MIRROR = 4
    ROT90_MIRROR = 5
    ROT180_MIRROR = 6
    ROT270_MIRROR = 7


CHOICES = ("None", "Rot90", "Rot180", "Rot270", "Mirror", "Rot90Mirror", "Rot180Mirror", "Rot270Mirror")


def transformed(image: Pixels[Any], kind: TransformType) -> Pixels[Any]:
    """A view of an image of shape (y, x) or (y, x, color)."""
    turned = np.rot90(image, -(kind % 4))
    return turned[:, ::-1] if kind >= TransformType.MIRROR else turned


class Transform(Plugin):
    """See the module. An array that is no image is passed on as it is."""

    plugin_type = "NDPluginTransform"
    parameters = (p.choice("Type", CHOICES, TransformType.NONE, "How images are turned"),)

    def write(self, name: str, value: Any) -> None:
        """Take a value; another Type can swap the sizes."""
        super().write(name, value)
        if name == "Type":
            self.expect_again()

    def output_of(self, array: NDArray) -> NDArray:
        """The transformed image."""
        kind = TransformType(self["Type"])
        if kind == TransformType.NONE or not is_image(array):
            return array
        image = transformed(colors_last(array), kind)
        return self.made(array.derived(arranged(image, array.color_mode)))
