"""One run as a NeXus file: apstools' NXWriter, given what it can digest, and told to leave no half file behind.

Imports apstools and h5py, so it is imported on first use. What differs from apstools' own:

- The file is made in memory and written in one piece under another name, then renamed: what exists is complete, and a
  full disk or a kill never meets HDF5 at work.
- Images are referred to, not copied (`nexus_images`).
- Runs of any kind come through: several descriptors of a stream, streams without events, text, None and ragged arrays
  as data, names that NeXus does not allow.
- The default plot has as many axes as its signal has dimensions; that of a grid scan is a map.
- Source, monochromator, sample and user can be named in iconfig.yml, sample and title in the run's metadata.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import logging
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import apstools
import h5py
import numpy as np
from apstools.callbacks import NXWriter

from instrument.callbacks.nexus_images import ImageFileError, write_frames
from instrument.config.errors import UserError
from instrument.config.models import Nexus
from instrument.config.names import LOGGER_NAME
from instrument.framework.image_roots import ImageRoots
from instrument.framework.runfiles import single_documents
from instrument.framework.wholefiles import write_whole

logger = logging.getLogger(LOGGER_NAME)

H5 = Any  # a group or dataset; to h5py's types each item of a group may be anything

_STREAMS = "/entry/instrument/bluesky/streams"
_UNITS = {"energy": "GeV"}  # of what iconfig.yml gives as a number


class NexusFile(NXWriter):
    """Writes one run to one file, when its stop document comes.

    Args:
        path: The file; replaced if it exists.
        site: What iconfig.yml says.
        root_map: Where files of images are now, by the `root` of their resource documents.
        patient: An image file that is missing shortly after the end of the run is a reason to try again.
    """

    def __init__(
        self, path: Path, site: Nexus, *, root_map: Mapping[str, str] | None = None, patient: bool = False
    ) -> None:
        self.path = path
        self._site = site
        self._roots = root_map if isinstance(root_map, ImageRoots) else ImageRoots(root_map)
        self._patient = patient
        super().__init__()

    # --- documents in

    def take(self, name: str, doc: dict[str, Any]) -> None:
        """Take one document of any kind; the stop document writes the file.

        Raises:
            UserError: The images are missing or can't be referred to.
            OSError: The file can't be written.
        """
        for kind, document in single_documents(name, doc):
            if kind in self.xref:
                self.receiver(kind, document)

    def clear(self) -> None:
        """Forget the last run."""
        super().clear()
        self._names: dict[str, str] = {}  # of data keys and streams: as in the documents -> as in the file
        self._original: dict[str, str] = {}  # and back
        self._first_descriptor: dict[str, str] = {}  # further descriptors of a stream -> its first
        self._hinted: list[str] = []
        self._sample: dict[str, Any] = {}  # of the run's metadata

    def start(self, doc: dict[str, Any]) -> None:
        """Take the metadata, as values that HDF5 can keep."""
        super().start(doc)
        self.detectors = _texts(doc.get("detectors"))
        self.positioners = _texts(doc.get("positioners") or doc.get("motors"))
        metadata = {**self.metadata, "plan_name": self.plan_name or ""}
        self.metadata = {}
        for key, value in metadata.items():
            name = valid_name(key)
            while name in self.metadata or name == "run_start_uid":
                name += "_"
            self.metadata[name] = _storable(value)
        sample = doc.get("sample") or {}
        sample = sample if isinstance(sample, Mapping) else {"name": sample}
        self._sample = {field: _storable(value) for field, value in sample.items() if not isinstance(value, Mapping)}

    def descriptor(self, doc: dict[str, Any]) -> None:
        """Take a stream's descriptor; a further one of the same stream (a device was configured) adds to the first."""
        stream = self._name(doc.get("name", "primary"))
        keys = {self._name(key): _described(entry) for key, entry in doc["data_keys"].items()}
        objects = {
            name: [self._name(key) for key in members] for name, members in (doc.get("object_keys") or {}).items()
        }
        hints = {
            name: {"fields": [self._name(key) for key in (hint or {}).get("fields", [])]}
            for name, hint in (doc.get("hints") or {}).items()
        }
        super().descriptor({**doc, "name": stream, "data_keys": keys, "object_keys": objects, "hints": hints})
        if stream == "primary":
            self._hinted = [key for hint in hints.values() for key in hint["fields"]]
        uids = self.streams.get(stream, [])
        if len(uids) > 1:
            further = self.acquisitions.pop(uids.pop())["data"]
            self._first_descriptor[doc["uid"]] = uids[0]
            for key, entry in further.items():
                self.acquisitions[uids[0]]["data"].setdefault(key, entry)

    def event(self, doc: dict[str, Any]) -> None:
        """Take one event under the names that are in the file."""
        uid = doc["descriptor"]
        super().event({
            "descriptor": self._first_descriptor.get(uid, uid),
            "data": {self._name(key): value for key, value in doc["data"].items()},
            "timestamps": {self._name(key): value for key, value in doc["timestamps"].items()},
        })  # fmt: skip

    def _name(self, key: str) -> str:
        """The name in the file, which no other key has."""
        name = self._names.get(key)
        if name is None:
            name = valid_name(key)
            while name in self._original:
                name += "_"
            self._names[key] = name
            self._original[name] = key
        return name

    # --- file out

    def writer(self) -> None:
        """Write the file. In this thread: who calls has one for it."""
        self._tidy()
        with h5py.File(self.path, "w", driver="core", backing_store=False) as self.root:
            self.write_root(self.path)
            self.root.flush()
            content = self.root.id.get_file_image()
        self.root = None
        write_whole(self.path, content)

    def _tidy(self) -> None:
        """Leave out what has no data; make arrays of the rest."""
        for stream, (uid,) in list(self.streams.items()):
            columns = self.acquisitions[uid]["data"]
            for key, column in list(columns.items()):
                if not column["time"]:
                    del columns[key]
                elif not column["external"]:
                    column["data"], column["dtype"] = _column(column["data"], column["dtype"])
            if not columns:
                del self.streams[stream]

    def get_sample_title(self) -> str:
        """The title of a run whose metadata give none: `scan-S0001-c888d28`."""
        number = f"{self.scan_id:04d}" if isinstance(self.scan_id, int) else str(self.scan_id)
        return f"{self.plan_name}-S{number}-{cast(str, self.uid)[:7]}"

    def add_dataset_attributes(self, ds: H5, v: dict, long_name: str | None = None) -> None:
        """Add the attributes of a data key, its name as it was in the documents among them."""
        super().add_dataset_attributes(ds, v, None if long_name is None else self._original.get(long_name, long_name))

    def create_NX_group(self, parent: H5, specification: str) -> H5:  # noqa: N802  apstools' name
        """Make a group of the name and class in `name:NXclass`."""
        name, _, nx_class = specification.rpartition(":")
        return super().create_NX_group(parent, f"{valid_name(name)}:{nx_class}")

    # --- images

    def getResourceFile(self, resource_id: str) -> Path:  # noqa: N802  apstools' name
        """Where the file of a resource document is now."""
        return self._roots.path_of(self.externals[resource_id])

    def write_stream_external(self, parent: H5, d: list, subgroup: H5, stream_name: str, k: str, v: dict) -> None:
        """Refer to the frames in the detector's own files."""
        missing = [datum for datum in d if datum not in self.externals]
        if missing:
            raise UserError(f"{self._original[k]} refers to datum {missing[0]!r}, which is not among the documents")
        datums = [self.externals[datum] for datum in d]
        try:
            dataset, short = write_frames(subgroup, datums, self.externals, self.getResourceFile, self.path.parent)
        except ImageFileError as error:
            waiting = time.time() - cast(float, self.stop_time) < self._external_file_read_timeout
            raise ImageFileError(str(error), transient=self._patient and waiting) from None
        for line in short:
            logger.warning("NeXus file of run %s: %s", self.scan_id, line)
        dataset.attrs["target"] = dataset.name
        dataset.attrs["resource_id"] = datums[0]["resource"]
        dataset.attrs["units"] = v["units"]
        dataset.attrs["long_name"] = self._original[k]
        subgroup.attrs["signal"] = "value"

    # --- the default plot

    def write_data(self, parent: H5) -> H5:
        """Write `/entry/data`: what there is to plot, and what of it is plotted.

        Returns:
            The default plot: this group, or for a grid of points `/entry/grid`, the same signal as a map.
        """
        nxdata = super().write_data(parent)
        signal = self._signal(nxdata)
        for attribute in ("signal", "axes"):
            nxdata.attrs.pop(attribute, None)
        if signal is None:
            return nxdata
        nxdata.attrs["signal"] = signal
        points, *pixels = nxdata[signal].shape
        wanted = self.nxdata_signal_axes or self.data_map.get("motors", [])
        axes = [name for name in wanted if _is_numeric(nxdata, name) and nxdata[name].shape == (points,)]
        if axes:
            nxdata.attrs["axes"] = [axes[0], *_pixel_axes(nxdata, pixels)]
        if len(axes) < 2:
            return nxdata
        for name in axes:  # they share the signal's first dimension
            nxdata.attrs[f"{name}_indices"] = 0
        return nxdata if pixels else self._write_grid(parent, nxdata, signal, axes) or nxdata

    def _write_grid(self, parent: H5, nxdata: H5, signal: str, axes: list[str]) -> H5 | None:
        """Write the signal of a grid scan as an array over its motors, NaN where it did not get to."""
        shape, snaking = self.metadata.get("shape"), self.metadata.get("snaking")
        if not isinstance(shape, list) or not isinstance(snaking, list) or not len(shape) == len(snaking) == len(axes):
            return None
        cells = _cells(len(nxdata[signal]), shape, snaking)
        if cells is None:
            return None
        grid = self.create_NX_group(parent, "grid:NXdata")
        values = np.full(shape, np.nan)
        values[cells] = nxdata[signal][:]
        grid[signal] = values
        for dimension, name in enumerate(axes):
            found = [nxdata[name][cells[dimension] == number] for number in range(shape[dimension])]
            grid[name] = np.array([each.mean() if len(each) else np.nan for each in found])
        for name in (signal, *axes):
            for attribute in ("units", "long_name"):
                if attribute in nxdata[name].attrs:
                    grid[name].attrs[attribute] = nxdata[name].attrs[attribute]
        grid.attrs["signal"], grid.attrs["axes"] = signal, axes
        return grid

    def _signal(self, nxdata: H5) -> str | None:
        """What is plotted: somebody's choice, or the first detector's first signal; for a detector alone its image."""
        if self.nxdata_signal is not None and _is_numeric(nxdata, self.nxdata_signal):
            return self.nxdata_signal
        positioners = self.data_map.get("motors", [])
        choice = [*self.data_map.get("detectors", []), *self._hinted]
        rest = [name for name in nxdata if name not in ("EPOCH", *positioners)]
        numeric = [name for name in [*choice, *rest] if name not in positioners and _is_numeric(nxdata, name)]
        images = [name for name in numeric if nxdata[name].ndim > 2]
        if images and not positioners:
            return images[0]
        return next(iter(numeric), None)

    # --- what belongs to the site

    def write_source(self, parent: H5) -> H5 | None:
        """Write the source, as iconfig.yml has it where that says so."""
        super().write_source(parent)
        source = self._site.source
        given = source.model_dump(exclude_none=True, exclude={"current", "short_name"})
        group = self._add(parent, "source:NXsource", given, {"current": source.current})
        if group is not None and source.short_name is not None:
            if "name" not in group:
                group["name"] = source.short_name
            group["name"].attrs["short_name"] = source.short_name
        return group

    def write_monochromator(self, parent: H5) -> H5 | None:
        """Write the monochromator: what apstools finds in the baseline, and what iconfig.yml names."""
        super().write_monochromator(parent)
        return self._add(parent, "monochromator:NXmonochromator", {}, self._site.monochromator.model_dump())

    def write_sample(self, parent: H5) -> H5 | None:
        """Write the sample: the run's metadata, before what iconfig.yml says."""
        try:
            super().write_sample(parent)
        except KeyError as error:  # apstools wants all three fields as soon as it finds anything
            logger.debug("sample: %s", error)
        keys = self._site.sample.model_dump()
        constants = {field: keys.pop(field) for field in ("name", "description", "chemical_formula")}
        keys = {field: key for field, key in keys.items() if field not in self._sample}
        return self._add(parent, "sample:NXsample", {**constants, **self._sample}, keys)

    def write_user(self, parent: H5) -> H5 | None:
        """Write the person to ask."""
        super().write_user(parent)
        given = self._site.user.model_dump(exclude_none=True)
        return self._add(parent, "contact:NXuser", {"role": "contact", **given} if given else {}, {})

    def _add(
        self, parent: H5, specification: str, constants: Mapping[str, Any], keys: Mapping[str, str | None]
    ) -> H5 | None:
        """Add constants, and links to signals by their data keys, to a group; made if there is anything to add."""
        links = {field: self._signal_of(key) for field, key in keys.items() if key is not None}
        fields = {**constants, **{field: link for field, link in links.items() if link is not None}}
        fields = {valid_name(field): value for field, value in fields.items() if value is not None}
        name = specification.partition(":")[0]
        if not fields:
            return parent.get(name)
        group = parent[name] if name in parent else self.create_NX_group(parent, specification)
        for field, value in fields.items():
            if field in group:
                del group[field]
            group[field] = value
            if field in _UNITS and not isinstance(value, h5py.Dataset):
                group[field].attrs["units"] = _UNITS[field]
        return group

    def _signal_of(self, key: str) -> H5 | None:
        """The first value of a signal in the baseline, or all of them in the primary stream."""
        name = self._names.get(key, key)
        root: H5 = self.root
        for address in (f"{_STREAMS}/baseline/{name}/value_start", f"{_STREAMS}/primary/{name}/value"):
            if address in root:
                return root[address]
        if self.warn_on_missing_content:
            logger.warning("NeXus file of run %s: no signal %s", self.scan_id, key)
        return None


# --- values


def valid_name(key: str) -> str:
    """A data key, stream or metadata key as NeXus allows it: letters, digits and underscores."""
    name = re.sub(r"\W", "_", key, flags=re.ASCII)
    return f"_{name}" if not name or name[0].isdigit() else name


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]


def _storable(value: Any) -> Any:
    """Metadata as HDF5 or YAML can keep them."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.replace("\0", "\\0")
    if isinstance(value, np.ndarray):
        return value if value.dtype.kind in "biufc" else _storable(value.tolist())
    if isinstance(value, np.datetime64 | np.timedelta64):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace").replace("\0", "\\0")
    if isinstance(value, Mapping | list | tuple):
        return _plain(value)
    return value


def _plain(value: Any) -> Any:
    """The same inside of lists and dictionaries, where arrays are lists and None is None."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    value = _storable(value)
    return value.tolist() if isinstance(value, np.ndarray) else value


def _described(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A data key whose properties can be attributes."""
    described = {**entry, "units": str(entry.get("units") or ""), "source": str(entry.get("source") or "local")}
    described["precision"] = entry.get("precision") or 0
    for limit in ("lower_ctrl_limit", "upper_ctrl_limit"):
        if limit in entry and not isinstance(entry[limit], int | float | str):
            del described[limit]
    return described


def _column(values: list[Any], dtype: str) -> tuple[np.ndarray, str]:
    """The values of a data key as an array that HDF5 can keep, and its dtype."""
    if any(isinstance(value, str | bytes | Mapping) for value in values):
        return _text_column(values), "string"
    try:
        array = np.asarray([np.nan if value is None else value for value in values])
    except ValueError:  # arrays of different shapes
        return _text_column(values), "string"
    if array.dtype.kind == "U":
        return np.char.encode(array, "utf-8"), "string"
    if array.dtype.kind not in "biufcS":
        return _text_column(values), "string"
    return array, "number" if dtype == "string" else dtype


def _text_column(values: list[Any]) -> np.ndarray:
    return np.array([_text(value).encode("utf-8", "backslashreplace") for value in values])


def _text(value: Any) -> str:
    value = _storable(value)
    if isinstance(value, str):
        return value
    return json.dumps(_plain(value), default=str)


def _cells(points: int, shape: Sequence[int], snaking: Sequence[bool]) -> tuple[np.ndarray, ...] | None:
    """Where in a grid the points of a scan are, the last axis the quickest; None if there are more than it has.

    Args:
        points: How many there are.
        shape: Of the grid.
        snaking: The axes that go back and forth; bluesky turns them each time that any slower axis has moved.
    """
    if points > np.prod(shape):
        return None
    cells = list(np.unravel_index(np.arange(points), shape))
    steps = np.zeros(points, int)  # of all slower axes together
    for dimension, length in enumerate(shape):
        slower, steps = steps, steps * length + cells[dimension]
        if snaking[dimension]:
            cells[dimension] = np.where(slower % 2, length - 1 - cells[dimension], cells[dimension])
    return tuple(cells)


_PIXEL_AXES = {0: (), 1: ("index",), 2: ("row", "column"), 3: ("frame", "row", "column")}


def _pixel_axes(nxdata: H5, shape: Sequence[int]) -> list[str]:
    """Add axes that count frames, rows and columns: one for each dimension after that of the points.

    NeXus allows "." in their place, which punx takes for a name.
    """
    names = []
    for usual, length in zip(
        _PIXEL_AXES.get(len(shape), [f"dimension_{n}" for n in range(len(shape))]), shape, strict=True
    ):
        name = usual
        while name in nxdata:
            name += "_"
        nxdata[name] = np.arange(length)
        nxdata[name].attrs["units"] = ""
        names.append(name)
    return names


def _is_numeric(group: H5, name: str) -> bool:
    found = group.get(name)
    return isinstance(found, h5py.Dataset) and found.dtype.kind in "biuf" and found.ndim > 0


# --- files


_OWN = ("getResourceFile", "get_sample_title", "write_stream_external")  # NexusFile's, which do not ask the base class


@functools.cache
def file_class(dotted: str) -> type[NexusFile]:
    """NexusFile over a writer of a site's own.

    Args:
        dotted: `apstools.callbacks.NXWriter`, or the dotted path of a subclass.

    Raises:
        UserError: There is no such class.
    """
    _load_descriptor_support()
    module, _, name = dotted.rpartition(".")
    try:
        base = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"`nexus: writer: {dotted}` of iconfig.yml can't be imported: {error}") from error
    if not isinstance(base, type) or not issubclass(base, NXWriter):
        raise UserError(f"`nexus: writer: {dotted}` of iconfig.yml is no subclass of apstools.callbacks.NXWriter")
    own = {name: getattr(base, name) for name in _OWN if getattr(base, name) is not getattr(NXWriter, name)}
    bases = (NexusFile,) if base is NXWriter else (NexusFile, base)
    return type(base.__name__, bases, own)  # the file's @creator names it


def _load_descriptor_support() -> None:
    """Load the one small module of apstools.utils that NXWriter imports with each descriptor.

    The package around it brings databroker, pandas and dask along: two seconds, and impossible in a process that ends.
    """
    name = "apstools.utils.descriptor_support"
    file = Path(cast(str, apstools.__file__)).parent / "utils" / "descriptor_support.py"
    if name in sys.modules or not file.is_file():
        return
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def run_in(path: Path) -> str | None:
    """The uid of the run in a NeXus file; None if the file holds none."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            found: H5 = file["entry/entry_identifier"]
            return str(found.asstr()[()])
    except (OSError, KeyError, TypeError, AttributeError):
        return None
