"""``HDF1:``: arrays in HDF5, in the default layout of ADCore's NDFileHDF5.

``/entry/instrument/detector/data`` (and ``/entry/data/data``, the same dataset) has one frame after the other, and
``/entry/instrument/NDAttributes`` one value per frame of each attribute, the numbers and times of the frames included.
"""

from __future__ import annotations

import contextlib
import enum
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from virtual_beamline.area_detector import parameters as p
from virtual_beamline.area_detector.file_plugin import FileError, FilePlugin
from virtual_beamline.area_detector.ndarray import Attribute, NDArray

if TYPE_CHECKING:
    import h5py

_BLOCK = 256
"""Frames by which datasets grow, unless they are flushed more often: each resize costs as much as a small frame."""
_MOST_AHEAD, _MOST_BYTES_AHEAD = 16, 16 << 20
"""Frames that can wait while another one is written: so many, or so many bytes, but always one."""
_PERFORMANCE_COLUMNS = 5


class Compression(enum.IntEnum):
    """The choices of Compression."""

    NONE = 0
    N_BIT = 1
    SZIP = 2
    ZLIB = 3
    BLOSC = 4
    BSLZ4 = 5
    LZ4 = 6


class Hdf5(FilePlugin):
    """See the module."""

    plugin_type = "NDFileHDF5"
    file_format = "HDF5"
    extension = ".h5"
    many_arrays = True
    parameters = (
        p.choice("FileFormat", ("HDF5",), 0, "What is written"),
        p.integer("NumRowChunks", 0, "Rows of a chunk; 0: all"),
        p.integer("NumColChunks", 0, "Columns of a chunk; 0: all"),
        p.integer("NumFramesChunks", 1, "Frames of a chunk"),
        p.integer("NumFramesFlush", 0, "Flush each so many frames; 0: at end"),
        p.integer("NDAttributeChunk", 16, "Values of a chunk of attributes"),
        p.integer("BoundaryAlign", 0, "Chunks begin at multiples of this", "bytes"),
        p.integer("BoundaryThreshold", 1, "if they are as large as that", "bytes"),
        p.choice(
            "Compression",
            ("None", "N-bit", "szip", "zlib", "Blosc", "BSLZ4", "LZ4"),
            0,
            "How the frames are compressed",
        ),
        p.integer("ZLevel", 6, "Level of zlib, 0 to 9"),
        p.integer("SZipNumPixels", 16, "Pixels of a block of szip, even"),
        p.integer("NumDataBits", 8, "Bits of a pixel that N-bit keeps", "bits"),
        p.integer("DataBitsOffset", 0, "The first of them", "bits"),
        p.choice(
            "BloscCompressor", ("blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd"), 0, "What Blosc compresses with"
        ),
        p.choice("BloscShuffle", ("None", "Byte shuffle", "Bit shuffle"), 1, "What Blosc does before"),
        p.integer("BloscLevel", 5, "Level of Blosc, 0 to 9"),
        p.number("FillValue", 0.0, "Pixels of frames that are missing"),
        p.switch("StoreAttr", ("No", "Yes"), 1, "Write attributes"),
        p.switch("StorePerform", ("No", "Yes"), 0, "Write how long each frame took"),
        p.switch("SWMRMode", ("Off", "On"), 0, "The file may be read while it is written"),
        p.switch("SWMRSupported", ("Not Supported", "Supported"), 1, "Whether that is possible").readonly(),
        p.switch("SWMRActive", ("Off", "Active"), 0, "Whether it may be read now").readonly(),
        p.integer("SWMRCbCounter", 0, "Flushes of this file").readonly(),
        p.switch("FlushNow", ("Done", "Flush"), 0, "Flush now").write_only(),
        p.number("RunTime", 0.0, "First frame to the end of the file", "s").readonly(""),
        p.number("IOSpeed", 0.0, "Written in that time", "Mbit/s", 1).readonly(""),
    )

    _file: Hdf5File | None = None

    def write(self, name: str, value: Any) -> None:
        """Take a value."""
        least, most = _LIMITS.get(name, (None, None))
        if least is not None and not least <= value <= most:
            self.refuse(name, value, f"{least} to {most}")
        match name:
            case "SZipNumPixels" if value % 2:
                self.refuse(name, value, "an even number")
            case "FlushNow":
                super().write(name, value)
                if value:
                    with self.lock:
                        if self._file is not None:
                            self._flush()
                    self.set_back(FlushNow=0)
            case _:
                super().write(name, value)

    def open_file(self, path: Path, array: NDArray) -> None:
        """Make the file and its datasets."""
        self._file = Hdf5File(path, array, self)
        self.set(SWMRActive=int(self._file.swmr), SWMRCbCounter=0, RunTime=0.0, IOSpeed=0.0)

    def write_array(self, array: NDArray) -> None:
        """Append a frame."""
        if self._file is None:
            msg = "the file is not open"
            raise FileError(msg)
        self._file.append(array)
        every = self["NumFramesFlush"] or (1 if self._file.swmr else 0)
        if every and self._file.frames % every == 0:
            self._flush()

    def _flush(self) -> None:
        if self._file is not None:
            self._file.flush()
            self.set(SWMRCbCounter=self["SWMRCbCounter"] + 1)

    def close_file(self) -> None:
        """Write what is held back, and close."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
        finally:
            self.set(SWMRActive=0, RunTime=file.run_time, IOSpeed=file.speed)
            if file.lost:  # frames that had been taken when an earlier one could not be written
                self.set(NumCaptured=file.frames)


_LIMITS: dict[str, tuple[int, int]] = {
    "NumRowChunks": (0, 1 << 20),
    "NumColChunks": (0, 1 << 20),
    "NumFramesChunks": (1, 10_000),
    "NumFramesFlush": (0, 1 << 30),
    "NDAttributeChunk": (0, 1 << 20),
    "BoundaryAlign": (0, 1 << 30),
    "BoundaryThreshold": (0, 1 << 30),
    "ZLevel": (0, 9),
    "SZipNumPixels": (2, 32),
    "BloscLevel": (0, 9),
    "NumDataBits": (1, 64),
    "DataBitsOffset": (0, 63),
}


class _Column:
    """One value per frame, written in blocks."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self.dataset = dataset
        self._waiting: list[Any] = []
        self._written = 0

    def append(self, value: Any) -> None:
        self._waiting.append(value)
        if len(self._waiting) >= _BLOCK:
            self.flush()

    def flush(self) -> None:
        if not self._waiting:
            return
        count = self._written + len(self._waiting)
        self.dataset.resize(count, axis=0)
        self.dataset[self._written : count] = self._waiting
        self._written, self._waiting = count, []

    def cut(self, count: int) -> None:
        """Forget all but the first ``count`` values."""
        del self._waiting[max(0, count - self._written) :]
        if count < self._written:
            self.dataset.resize(count, axis=0)
            self._written = count


class _Behind:
    """Writes frames on a thread of its own, while the camera makes the next one: HDF5 lets other threads run meanwhile.

    What goes wrong is raised by what is called next, once.
    """

    def __init__(self, write: Callable[[int, NDArray], None], ahead: int) -> None:
        """Begin.

        Args:
            write: writes a frame, given its number in the file.
            ahead: how many frames can wait.
        """
        self._write = write
        self._waiting: queue.Queue[tuple[int, NDArray] | None] = queue.Queue(ahead)
        self._error: Exception | None = None
        self.failed = False
        self.written = 0
        self._thread = threading.Thread(target=self._run, name="HDF5 writer", daemon=True)
        self._thread.start()

    def put(self, number: int, array: NDArray) -> None:
        """Have a frame written; waits while others do."""
        self._check()
        self._waiting.put((number, array))

    def wait(self) -> None:
        """Return when all frames are written."""
        self._waiting.join()
        self._check()

    def end(self) -> None:
        """Write what waits, and end."""
        self._waiting.put(None)
        self._thread.join()
        self._check()

    def _check(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        while (frame := self._waiting.get()) is not None:
            try:
                if not self.failed:
                    self._write(*frame)
                    self.written += 1
            except Exception as error:
                self.failed, self._error = True, error
            finally:
                self._waiting.task_done()


class Hdf5File:
    """One open file."""

    def __init__(self, path: Path, array: NDArray, settings: Hdf5) -> None:
        """Make it for frames like ``array``.

        Raises:
            FileError, OSError, ValueError: it cannot be made, or not with these settings.
        """
        import h5py

        self.frames = self._room = 0
        self.lost = False
        self._behind: _Behind | None = None
        self.run_time = self.speed = 0.0
        self._began = self._last = 0.0
        self._shape, self._dtype = array.data.shape, array.data.dtype
        options: dict[str, Any] = {"libver": "latest"} if settings["SWMRMode"] else {}
        if settings["BoundaryAlign"]:
            options |= {
                "alignment_interval": settings["BoundaryAlign"],
                "alignment_threshold": settings["BoundaryThreshold"],
            }
        self._file = h5py.File(path, "w", **options)
        try:
            self._make(array, settings)
            self.swmr = bool(settings["SWMRMode"])
            # A flush cuts what has no frames yet: to grow from one to the next spares it that.
            self._block = 1 if self.swmr else min(settings["NumFramesFlush"] or _BLOCK, _BLOCK)
            if self.swmr:
                self._file.swmr_mode = True
            elif self._performance is None:  # which tells how long each frame took
                ahead = min(_MOST_AHEAD, max(1, _MOST_BYTES_AHEAD // max(1, array.data.nbytes)))
                self._behind = _Behind(self._write, ahead)
        except BaseException:
            with contextlib.suppress(Exception):
                self._file.close()
            path.unlink(missing_ok=True)
            raise

    def _make(self, array: NDArray, settings: Hdf5) -> None:
        entry = _group(self._file, "entry", "NXentry")
        self._file.attrs["default"] = "entry"
        entry.attrs["default"] = "data"
        instrument = _group(entry, "instrument", "NXinstrument")
        detector = _group(instrument, "detector", "NXdetector")
        self._data = self._make_data(detector, array, settings)
        self._data.attrs["NX_class"] = "SDS"
        self._data.attrs["signal"] = np.int32(1)
        data = _group(entry, "data", "NXdata")
        data.attrs["signal"] = "data"
        data["data"] = self._data
        self._columns: dict[str, _Column] = {}
        if settings["StoreAttr"]:
            group = _group(instrument, "NDAttributes", "NXcollection")
            chunk = settings["NDAttributeChunk"] or _BLOCK
            for name, attribute in {**_frame_attributes(array), **array.attributes}.items():
                self._columns[name] = _Column(_attribute_dataset(group, name, attribute, chunk))
        self._performance: _Column | None = None
        if settings["StorePerform"]:
            group = _group(instrument, "performance", "NXcollection")
            shape = (0, _PERFORMANCE_COLUMNS)
            dataset = group.create_dataset(
                "timestamp", shape, "f8", maxshape=(None, shape[1]), chunks=(_BLOCK, shape[1])
            )
            dataset.attrs["columns"] = "write (s), since first frame (s), since last frame (s), Mbit/s, mean Mbit/s"
            self._performance = _Column(dataset)

    def _make_data(self, group: h5py.Group, array: NDArray, settings: Hdf5) -> h5py.Dataset:
        import h5py

        rows, columns = settings["NumRowChunks"], settings["NumColChunks"]
        chunk = list(self._shape)
        row_axis = len(chunk) - (3 if len(chunk) == 3 and array.color_mode == 2 else 2)  # RGB1: (y, x, color)
        if rows and len(chunk) > 1:
            chunk[row_axis] = min(rows, chunk[row_axis])
        column_axis = row_axis + 1 if row_axis + 1 < len(chunk) else len(chunk) - 1
        if columns:
            chunk[column_axis] = min(columns, chunk[column_axis])
        chunks = (settings["NumFramesChunks"], *chunk)
        compression = Compression(settings["Compression"])
        # A chunk that is just one frame goes to the file as it is, past HDF5's pipeline.
        self._direct = chunks == (1, *self._shape) and compression == Compression.NONE
        options: dict[str, Any] = {
            "shape": (0, *self._shape),
            "maxshape": (None, *self._shape),
            "chunks": chunks,
            "fillvalue": np.array(settings["FillValue"]).astype(self._dtype),
        }
        if compression == Compression.N_BIT:
            return _nbit_dataset(group, self._dtype, options, settings["NumDataBits"], settings["DataBitsOffset"])
        if compression == Compression.SZIP and not h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP):
            msg = "Compression szip: this HDF5 library has no szip"
            raise FileError(msg)
        return group.create_dataset("data", dtype=self._dtype, **options, **_filter(compression, settings))

    def append(self, array: NDArray) -> None:
        """Write a frame behind the last one.

        Raises:
            FileError: it is of another size or type than the file.
        """
        began = time.perf_counter()
        if array.data.shape != self._shape or array.data.dtype != self._dtype:
            msg = (
                f"frame {array.unique_id} is {array.data.dtype} {array.data.shape}, the file's are "
                f"{self._dtype} {self._shape}: start a new file"
            )
            raise FileError(msg)
        if not self.frames:
            self._began = self._last = began
        if self.frames >= self._room:
            self._room = self.frames + self._block
            self._data.resize(self._room, axis=0)
        (self._behind.put if self._behind is not None else self._write)(self.frames, array)
        values = {**_frame_attributes(array), **array.attributes}
        for name, column in self._columns.items():
            attribute = values.get(name)
            column.append(_missing(column.dataset) if attribute is None else attribute.value)
        self.frames += 1
        if self._performance is not None:
            self._performance.append(self._timing(began, array.data.nbytes))

    def _write(self, number: int, array: NDArray) -> None:
        if self._direct:
            self._data.id.write_direct_chunk((number,) + (0,) * len(self._shape), array.data)
        else:
            self._data[number] = array.data

    def _timing(self, began: float, size: int) -> tuple[float, ...]:
        now = time.perf_counter()
        period, elapsed = now - self._last, now - self._began
        self._last = now
        megabits = size * 8e-6
        return now - began, elapsed, period, megabits / period, self.frames * megabits / elapsed

    def flush(self) -> None:
        """Let readers see all frames, and no frame that is not there: also if this process ends now."""
        if self._behind is not None:
            self._behind.wait()
        if self._room != self.frames:
            self._room = self.frames
            self._data.resize(self._room, axis=0)
        for column in self._all_columns():
            column.flush()
        self._file.flush()

    def _all_columns(self) -> list[_Column]:
        return [*self._columns.values(), *([self._performance] if self._performance is not None else [])]

    def close(self) -> None:
        """Complete the file, with the frames that could be written.

        Raises:
            OSError, RuntimeError, ValueError: not all could be, and nobody has been told yet.
        """
        try:
            self._end_writing()
        finally:
            self._complete()

    def _end_writing(self) -> None:
        if self._behind is None:
            return
        try:
            self._behind.end()
        finally:
            if self._behind.failed:
                self.lost, self.frames = self.frames > self._behind.written, self._behind.written
                for column in self._all_columns():
                    column.cut(self.frames)

    def _complete(self) -> None:
        try:
            for column in self._all_columns():
                column.flush()
            if self._room != self.frames:
                self._data.resize(self.frames, axis=0)
        finally:
            self._file.close()
        if self.frames:
            self.run_time = time.perf_counter() - self._began
            self.speed = self.frames * np.prod(self._shape) * self._dtype.itemsize * 8e-6 / self.run_time


def _group(parent: Any, name: str, kind: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    return group


def _frame_attributes(array: NDArray) -> dict[str, Attribute]:
    """What each frame has besides its attributes, under the names that ADCore gives them."""
    seconds, nanoseconds = array.epics_time
    return {
        "NDArrayUniqueId": Attribute(array.unique_id, "The unique ID of the NDArray"),
        "NDArrayTimeStamp": Attribute(array.time_stamp, "The timestamp of the NDArray as float64"),
        "NDArrayEpicsTSSec": Attribute(seconds, "The NDArray EPICS timestamp seconds past epoch"),
        "NDArrayEpicsTSnSec": Attribute(nanoseconds, "The NDArray EPICS timestamp nanoseconds"),
    }


def _attribute_dataset(group: h5py.Group, name: str, attribute: Attribute, chunk: int) -> h5py.Dataset:
    import h5py

    kinds: dict[type, Any] = {int: np.int64, float: np.float64, str: h5py.string_dtype()}
    dataset = group.create_dataset(name, (0,), kinds[type(attribute.value)], maxshape=(None,), chunks=(chunk,))
    dataset.attrs["NDAttrName"] = name
    dataset.attrs["NDAttrDescription"] = attribute.description
    dataset.attrs["NDAttrSource"] = attribute.source
    dataset.attrs["NDAttrSourceType"] = attribute.source_type
    return dataset


def _missing(dataset: h5py.Dataset) -> Any:
    return {"f": np.nan, "i": -1}.get(dataset.dtype.kind, "")


def _filter(compression: Compression, settings: Hdf5) -> dict[str, Any]:
    """What h5py wants to know of a compression."""
    match compression:
        case Compression.ZLIB:
            return {"compression": "gzip", "compression_opts": settings["ZLevel"]}
        case Compression.SZIP:
            return {"compression": "szip", "compression_opts": ("nn", settings["SZipNumPixels"])}
        case Compression.BLOSC:
            import hdf5plugin

            name: Any = settings.choice("BloscCompressor")
            try:
                return {**hdf5plugin.Blosc(cname=name, clevel=settings["BloscLevel"], shuffle=settings["BloscShuffle"])}
            except ValueError as error:
                raise FileError(f"Compression Blosc: {error}") from error
        case Compression.BSLZ4:
            import hdf5plugin

            return {**hdf5plugin.Bitshuffle(cname="lz4")}
        case Compression.LZ4:
            import hdf5plugin

            return {**hdf5plugin.LZ4()}
        case _:
            return {}


def _nbit_dataset(
    group: h5py.Group, dtype: np.dtype[np.generic], options: dict[str, Any], bits: int, offset: int
) -> h5py.Dataset:
    """A dataset of integers of which only some bits are kept."""
    import h5py

    if dtype.kind not in "iu" or offset + bits > 8 * dtype.itemsize:
        msg = f"Compression N-bit: {dtype} has no bits {offset} to {offset + bits - 1} to keep"
        raise FileError(msg)
    kind = h5py.h5t.py_create(dtype).copy()
    kind.set_precision(bits)
    kind.set_offset(offset)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk(options["chunks"])
    properties.set_filter(h5py.h5z.FILTER_NBIT)
    space = h5py.h5s.create_simple(
        options["shape"], tuple(h5py.h5s.UNLIMITED if n is None else n for n in options["maxshape"])
    )
    return h5py.Dataset(h5py.h5d.create(group.id, b"data", kind, space, properties))
