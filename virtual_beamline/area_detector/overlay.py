"""``Over1:``: shapes and text drawn into images; ADCore: NDPluginOverlay."""

from __future__ import annotations

import datetime
import enum
import functools
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray as Pixels

from virtual_beamline.area_detector import parameters as p
from virtual_beamline.area_detector.ndarray import NDArray
from virtual_beamline.area_detector.parameters import Parameter
from virtual_beamline.area_detector.pixels import COLOR_AXES, arranged, colors_last, converted, is_image
from virtual_beamline.area_detector.plugin import Plugin
from virtual_beamline.area_detector.port import Detector
from virtual_beamline.epics import RecordSpec

OVERLAYS = 8
FONTS = {"6x13": (6, 13, False), "6x13 Bold": (6, 13, True), "9x15": (9, 15, False), "9x15 Bold": (9, 15, True)}
"""Width and height of a character, in pixels, and whether it is bold."""
_LINKED = ("PositionX", "PositionY", "CenterX", "CenterY", "SizeX", "SizeY", "WidthX", "WidthY")
_FRACTION = re.compile(r"%0?(\d)f")

Mask = Pixels[np.bool_]


class Shape(enum.IntEnum):
    """The choices of Shape."""

    CROSS = 0
    RECTANGLE = 1
    TEXT = 2
    ELLIPSE = 3


def _overlay(number: int) -> Iterator[Parameter]:
    def name(of: str) -> str:
        return f"{number}:{of}"

    yield p.string(name("Name"), "", "What it is called")
    yield p.switch(name("Use"), ("No", "Yes"), 0, "Draw it")
    yield p.choice(name("Shape"), ("Cross", "Rectangle", "Text", "Ellipse"), 1, "What is drawn")
    yield p.choice(name("DrawMode"), ("Set", "XOR"), 0, "How pixels change")
    for color in ("Red", "Green", "Blue"):
        yield p.integer(name(color), 255, f"{color}{' and grey' if color == 'Green' else ''}")
    for axis, edge in (("X", "Left"), ("Y", "Upper")):
        yield p.integer(name(f"Position{axis}"), 0, f"{edge} edge", "pixels")
        yield p.integer(name(f"Center{axis}"), 0, f"Centre in {axis}", "pixels")
        yield p.integer(name(f"Size{axis}"), 0, f"Size in {axis}", "pixels")
        yield p.integer(name(f"Width{axis}"), 1, f"Width of lines in {axis}", "pixels")
    yield p.text(name("DisplayText"), "", "What is written")
    yield p.string(name("TimeStampFormat"), "%Y-%m-%d %H:%M:%S.%03f", "Time of the array after it")
    yield p.choice(name("Font"), tuple(FONTS), 0, "What it is written with")


class Overlay(Plugin):
    """See the module. An array that is no image is passed on as it is.

    A color that is beyond the limits of the pixels' type becomes the limit. Text is drawn with the font that Pillow
    brings, in cells of the size that the font's name tells.
    """

    plugin_type = "NDPluginOverlay"
    parameters = (
        p.integer("MaxSizeX", 0, "Size of the image in X", "pixels").readonly(),
        p.integer("MaxSizeY", 0, "Size of the image in Y", "pixels").readonly(),
        *(parameter for number in range(1, OVERLAYS + 1) for parameter in _overlay(number)),
    )

    def __init__(self, detector: Detector, prefix: str, name: str, source: str) -> None:
        super().__init__(detector, prefix, name, source)
        self._by_center: set[str] = set()

    def records(self) -> Iterator[RecordSpec]:
        """Those of the parameters, and for each place and size one whose DOL can be a link."""
        yield from super().records()
        for number in range(1, OVERLAYS + 1):
            for of in _LINKED:
                target = f"{self.prefix}{number}:{of}"
                yield RecordSpec(
                    f"{target}Link",
                    "longout",
                    f"DOL: where {of} comes from",
                    {"OMSL": "closed_loop", "OUT": f"{target} PP MS"},
                )

    def write(self, name: str, value: Any) -> None:
        """Take a value; position, centre and size follow each other, and what was set last of the first two stays."""
        number, _, of = name.partition(":")
        if not of:
            super().write(name, value)
            return
        kind, axis = of[:-1], of[-1]
        if kind in {"Size", "Width"} and value < 0:
            self.refuse(name, value, "at least 0 pixels")
        super().write(name, value)
        place = f"{number}:{axis}"
        if kind == "Position":
            self._by_center.discard(place)
        elif kind == "Center":
            self._by_center.add(place)
        if kind in {"Position", "Center", "Size"}:
            half = self[f"{number}:Size{axis}"] // 2
            if place in self._by_center:
                self._follow(f"{number}:Position{axis}", self[f"{number}:Center{axis}"] - half)
            else:
                self._follow(f"{number}:Center{axis}", self[f"{number}:Position{axis}"] + half)

    def _follow(self, name: str, value: int) -> None:
        if self[name] != value:
            self.set_back(**{name: value})

    def show_array(self, array: NDArray, at_once: bool = False) -> None:
        """Show the input."""
        x, y, _ = array.image_size
        self.set(MaxSizeX=x, MaxSizeY=y)
        super().show_array(array, at_once)

    def output_of(self, array: NDArray) -> NDArray:
        """The image with everything drawn that is used."""
        used = [number for number in range(1, OVERLAYS + 1) if self[f"{number}:Use"]]
        if not used or not is_image(array):
            return array
        image = colors_last(array).copy()
        for number in used:
            self._draw(image, number, array)
        return self.made(array.derived(arranged(image, array.color_mode) if array.color_mode in COLOR_AXES else image))

    def _draw(self, image: Pixels[Any], number: int, array: NDArray) -> None:
        def setting(of: str) -> Any:
            return self[f"{number}:{of}"]

        left, upper = setting("PositionX"), setting("PositionY")
        size, width = (setting("SizeX"), setting("SizeY")), (setting("WidthX"), setting("WidthY"))
        match setting("Shape"):
            case Shape.CROSS:
                shape = cross(size, width)
            case Shape.RECTANGLE:
                shape = rectangle(size, width)
            case Shape.ELLIPSE:
                shape = ellipse(size, width)
            case _:
                text = setting("DisplayText") + time_text(setting("TimeStampFormat"), array.time_stamp)
                shape = written(text, tuple(FONTS)[setting("Font")])[: size[1], : size[0]]
        window, mask = _overlap(image, shape, left, upper)
        colors = [setting(color) for color in ("Red", "Green", "Blue")] if image.ndim == 3 else [setting("Green")]
        for index, color in enumerate(colors):
            plane = window[..., index] if image.ndim == 3 else window
            if setting("DrawMode"):
                plane[mask] = converted(plane[mask].astype(np.int64) ^ color, image.dtype)
            else:
                plane[mask] = converted(np.array(color), image.dtype)


def _overlap(image: Pixels[Any], shape: Mask, left: int, upper: int) -> tuple[Pixels[Any], Mask]:
    """The part of an image that is under a shape, and the part of the shape that is over the image."""
    rows, columns = image.shape[:2]
    first_y, last_y = max(0, upper), max(0, min(rows, upper + shape.shape[0]))
    first_x, last_x = max(0, left), max(0, min(columns, left + shape.shape[1]))
    window = image[first_y : max(first_y, last_y), first_x : max(first_x, last_x)]
    return window, shape[first_y - upper :, first_x - left :][: window.shape[0], : window.shape[1]]


def cross(size: tuple[int, int], width: tuple[int, int]) -> Mask:
    """Two lines through the centre; sizes are of X and Y. From -size/2 to size/2, as everything here."""
    (x, y), (wide, high) = _distances(size), (half // 2 for half in width)
    return (abs(x) <= wide) | (abs(y) <= high)


def rectangle(size: tuple[int, int], width: tuple[int, int]) -> Mask:
    """A frame whose lines grow inwards."""
    x, y = np.arange(size[0] + 1), np.arange(size[1] + 1)[:, np.newaxis]
    wide, high = (min(line, max(0, length - 1)) for line, length in zip(width, size, strict=True))
    return (x < wide) | (x > size[0] - wide) | (y < high) | (y > size[1] - high)


def ellipse(size: tuple[int, int], width: tuple[int, int]) -> Mask:
    """A ring that grows inwards."""
    outer, inner = _disc(size, (0, 0)), _disc(size, width)
    return outer & ~inner


def _disc(size: tuple[int, int], less: tuple[int, int]) -> Mask:
    x, y = _distances(size)
    radii = [length // 2 - line for length, line in zip(size, less, strict=True)]
    if min(radii) < 0:
        return np.zeros(np.broadcast_shapes(x.shape, y.shape), np.bool_)
    return (x / (radii[0] + 0.5)) ** 2 + (y / (radii[1] + 0.5)) ** 2 <= 1


def _distances(size: tuple[int, int]) -> tuple[Pixels[Any], Pixels[Any]]:
    """From the centre, of shapes (1, columns) and (rows, 1)."""
    half_x, half_y = size[0] // 2, size[1] // 2
    return np.arange(-half_x, half_x + 1)[np.newaxis], np.arange(-half_y, half_y + 1)[:, np.newaxis]


def time_text(layout: str, stamp: float) -> str:
    """A time as text; besides the codes of strftime ``%0nf`` are n digits of the second, as EPICS has it."""
    if not layout:
        return ""
    when = datetime.datetime.fromtimestamp(stamp).astimezone()
    fraction = math.floor((stamp % 1) * 1e9)
    return when.strftime(_FRACTION.sub(lambda match: f"{fraction:09d}"[: int(match[1])], layout))


def written(text: str, font: str) -> Mask:
    """A line of text, each character in a cell of the font's size."""
    width, height, _ = FONTS[font]
    cells = [_character(each, font) for each in text if each.isprintable()]
    return np.concatenate(cells, axis=1) if cells else np.zeros((height, width), np.bool_)


@functools.cache
def _character(character: str, font: str) -> Mask:
    from PIL import Image, ImageDraw, ImageFont  # imported when the first text is drawn: most IOCs never draw one

    width, height, bold = FONTS[font]
    cell = Image.new("1", (width, height))
    draw = ImageDraw.Draw(cell)
    face = ImageFont.load_default(size=height - 4)
    for offset in (0, 1) if bold else (0,):
        draw.text(((width - 1) / 2 + offset, height - 4), character, font=face, fill=1, anchor="ms")
    return np.asarray(cell)
