"""What drivers and plugins pass to each other."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray as Pixels

DATA_TYPES: tuple[str, ...] = (
    "Int8",
    "UInt8",
    "Int16",
    "UInt16",
    "Int32",
    "UInt32",
    "Int64",
    "UInt64",
    "Float32",
    "Float64",
)
"""NDDataType_t of ADCore since 3.9, in its order; in lower case they are numpy's names."""
COLOR_MODES: tuple[str, ...] = ("Mono", "Bayer", "RGB1", "RGB2", "RGB3", "YUV444", "YUV422", "YUV421")
"""NDColorMode_t of ADCore, in its order."""
MONO, RGB1, RGB2, RGB3 = 0, 2, 3, 4
EPICS_EPOCH = 631_152_000
"""1990-01-01 in seconds of POSIX."""

Scalar = float | int | str


@dataclass(frozen=True, slots=True)
class Attribute:
    """A value that travels with an array.

    Attributes:
        value: number or text.
        description: what it is.
        source: where it comes from: a PV, a parameter, "Driver".
        source_type: NDAttrSource of ADCore as text: ``NDAttrSourceDriver``, ``...Param``, ``...EPICSPV``, ``...Const``.
    """

    value: Scalar
    description: str = ""
    source: str = "Driver"
    source_type: str = "NDAttrSourceDriver"


_NO_ATTRIBUTES: Mapping[str, Attribute] = MappingProxyType({})


@dataclass(frozen=True, slots=True, weakref_slot=True)
class NDArray:
    """A frame. It is shared by all that got it: nobody changes it, :meth:`derived` makes another one.

    Attributes:
        data: pixels, C-contiguous, slowest dimension first: (y, x) for Mono, (y, x, 3), (y, 3, x), (3, y, x) for RGB1
            to RGB3. (ADCore's dimension 0 is the fastest, numpy's last.)
        unique_id: number of the frame, given by the driver.
        color_mode: index in :data:`COLOR_MODES`.
        time_stamp: when it was taken, seconds of POSIX.
        attributes: by name.
    """

    data: Pixels[np.generic]
    unique_id: int
    color_mode: int = MONO
    time_stamp: float = field(default_factory=time.time)
    attributes: Mapping[str, Attribute] = field(default_factory=lambda: _NO_ATTRIBUTES)

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Sizes as ADCore counts them: the fastest dimension first."""
        return self.data.shape[::-1]

    @property
    def data_type(self) -> int:
        """Index in :data:`DATA_TYPES`."""
        return data_type_of(self.data.dtype)

    @property
    def image_size(self) -> tuple[int, int, int]:
        """X, Y and Z in pixels, Z being the number of colors or 0."""
        shape = self.data.shape
        if self.data.ndim < 3:
            y, x = (1, *shape)[-2:]
            return x, y, 0
        color = {RGB1: 2, RGB2: 1, RGB3: 0}.get(self.color_mode, 0)
        y, x = (size for axis, size in enumerate(shape[:3]) if axis != color)
        return x, y, shape[color]

    @property
    def epics_time(self) -> tuple[int, int]:
        """The time stamp as EPICS has it: seconds since 1990, nanoseconds."""
        seconds = int(self.time_stamp)
        return seconds - EPICS_EPOCH, int((self.time_stamp - seconds) * 1e9)

    def derived(self, data: Pixels[np.generic], color_mode: int | None = None) -> NDArray:
        """Another frame with other pixels; number, time and attributes stay."""
        return replace(
            self,
            data=np.ascontiguousarray(data),
            color_mode=self.color_mode if color_mode is None else color_mode,
        )

    def with_attributes(self, attributes: Mapping[str, Attribute]) -> NDArray:
        """The same pixels with more attributes."""
        return replace(self, attributes={**self.attributes, **attributes}) if attributes else self


@functools.cache
def dtype_of(data_type: int) -> np.dtype[np.generic]:
    """The type of numpy for an index in :data:`DATA_TYPES`."""
    return np.dtype(DATA_TYPES[data_type].lower())


@functools.cache  # numpy's names of types take longer than a small frame's other numbers
def data_type_of(dtype: np.dtype[np.generic]) -> int:
    """Index in :data:`DATA_TYPES`.

    Raises:
        ValueError: no NDArray can be of this type.
    """
    name = dtype.name
    for index, known in enumerate(DATA_TYPES):
        if known.lower() == name:
            return index
    msg = f"no NDArray can be of type {dtype}"
    raise ValueError(msg)
