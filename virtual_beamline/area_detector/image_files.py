"""``TIFF1:`` and ``JPEG1:``: one file for each frame; ADCore: NDFileTIFF and NDFileJPEG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from virtual_beamline.area_detector import parameters as p
from virtual_beamline.area_detector.file_plugin import FileError, FilePlugin
from virtual_beamline.area_detector.ndarray import MONO, RGB1, RGB2, RGB3, NDArray

_ASCII, _LONG, _DOUBLE = 2, 4, 12  # types of TIFF's tags
_TIME_STAMP, _UNIQUE_ID, _EPICS_SECONDS, _EPICS_NANOSECONDS = range(65000, 65004)
_FIRST_ATTRIBUTE, _LAST_ATTRIBUTE = 65010, 65500


class _OneFrame(FilePlugin):
    """A writer whose files hold one frame: nothing is open between frames."""

    _path: Path | None = None

    def open_file(self, path: Path, array: NDArray) -> None:
        """The file is made when the pixels are there."""
        self.check(array)
        self._path = path

    def write_array(self, array: NDArray) -> None:
        """Write the file; nothing is left of one that fails."""
        if self._path is None:
            msg = "the file is not open"
            raise FileError(msg)
        try:
            self.save(self._path, array)
        except BaseException:
            self._path.unlink(missing_ok=True)
            raise

    def close_file(self) -> None:
        """Nothing is open."""
        self._path = None

    def check(self, array: NDArray) -> None:
        """Raise FileError if the format has no place for such an array."""

    def save(self, path: Path, array: NDArray) -> None:
        """Write a file."""
        raise NotImplementedError


class Tiff(_OneFrame):
    """TIFF of any type of pixels, with number, times and attributes in the tags that ADCore uses."""

    plugin_type = "NDFileTIFF"
    extension = ".tif"
    parameters = (p.choice("FileFormat", ("TIFF",), 0, "What is written"),)

    def save(self, path: Path, array: NDArray) -> None:
        """Write a file."""
        import tifffile

        seconds, nanoseconds = array.epics_time
        tags: list[tuple[Any, ...]] = [
            (_TIME_STAMP, _DOUBLE, 1, array.time_stamp, True),
            (_UNIQUE_ID, _LONG, 1, array.unique_id, True),
            (_EPICS_SECONDS, _LONG, 1, seconds, True),
            (_EPICS_NANOSECONDS, _LONG, 1, nanoseconds, True),
        ]
        for tag, (name, attribute) in zip(
            range(_FIRST_ATTRIBUTE, _LAST_ATTRIBUTE), array.attributes.items(), strict=False
        ):
            tags.append((tag, _ASCII, None, f"{name}:{attribute.value}", True))
        planar = array.color_mode == RGB3
        pixels = _colors_last(array) if array.color_mode == RGB2 else array.data
        tifffile.imwrite(
            path,
            pixels,
            photometric="minisblack" if array.color_mode == MONO else "rgb",
            planarconfig=None if array.color_mode == MONO else "separate" if planar else "contig",
            metadata=None,
            software=f"EPICS areaDetector {self['ADCoreVersion']}",
            extratags=tags,
        )


class Jpeg(_OneFrame):
    """JPEG of UInt8 pixels, Mono or in colors."""

    plugin_type = "NDFileJPEG"
    extension = ".jpg"
    parameters = (
        p.choice("FileFormat", ("JPEG",), 0, "What is written"),
        p.integer("JPEGQuality", 50, "1, small, to 100, like the original"),
    )

    def write(self, name: str, value: Any) -> None:
        """Take a value."""
        if name == "JPEGQuality" and not 1 <= value <= 100:
            self.refuse(name, value, "1 to 100")
        super().write(name, value)

    def check(self, array: NDArray) -> None:
        """JPEG has 8 bits."""
        if array.data.dtype != np.uint8 or array.color_mode not in {MONO, RGB1, RGB2, RGB3}:
            msg = f"JPEG holds UInt8 pixels, Mono or RGB, not {array.data.dtype}: set DataType of the camera"
            raise FileError(msg)

    def save(self, path: Path, array: NDArray) -> None:
        """Write a file."""
        from PIL import Image

        Image.fromarray(_colors_last(array)).save(path, "JPEG", quality=self["JPEGQuality"])


def _colors_last(array: NDArray) -> np.ndarray[Any, Any]:
    """The pixels with shape (y, x) or (y, x, 3)."""
    axis = {RGB2: 1, RGB3: 0}.get(array.color_mode)
    return array.data if axis is None else np.ascontiguousarray(np.moveaxis(array.data, axis, 2))
