"""Frames of a detector in a NeXus file: a virtual dataset over the files that the IOC wrote.

A virtual dataset reads as one array of frames with h5py alone, copies nothing, and needs one entry for each run of
consecutive frames. Specs whose files are no HDF5 (TIFF, CBF) are read by their handler and copied.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instrument.config.errors import UserError

if TYPE_CHECKING:
    import h5py

# Where the frames are in the HDF5 files of a spec, as area_detector_handlers reads them.
DATASETS = {"AD_HDF5": "/entry/data/data", "AD_HDF5_SWMR": "/entry/data/data"}


class ImageFileError(UserError):
    """A file that a run refers to is missing, or can't be read."""

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient
        self.final = not transient  # asked again at once, it would be missing again


@dataclass(frozen=True)
class _Span:
    """Frames `[first, last)` of a file, which belong to consecutive points."""

    path: Path
    dataset: str
    first: int
    last: int
    points: int


@dataclass(frozen=True)
class _Source:
    """What a file holds."""

    frames: int
    shape: tuple[int, ...]
    dtype: Any


def write_frames(
    group: h5py.Group,
    datums: Sequence[Mapping[str, Any]],
    resources: Mapping[str, Mapping[str, Any]],
    path_of: Callable[[str], Path],
    directory: Path,
) -> tuple[h5py.Dataset, list[str]]:
    """Write the dataset `value`: shape (points, rows, columns), or (points, frames, rows, columns) of several each.

    Args:
        group: Where it goes.
        datums: One datum document for each point.
        resources: Resource documents by uid.
        path_of: Gives the path of a resource's file.
        directory: Where the NeXus file will lie; the paths in it are relative to that where both have a parent.

    Returns:
        The dataset, and a line for each file that lacks frames; they read as 0.

    Raises:
        ImageFileError: A file is missing or unreadable.
        UserError: Frames of different shapes, or of a spec that nobody can read.
    """
    specs = {resources[datum["resource"]]["spec"] for datum in datums}
    if not specs <= set(DATASETS):
        return _copied(group, datums, resources, path_of), []
    per_point = {int(resources[datum["resource"]]["resource_kwargs"].get("frame_per_point", 1)) for datum in datums}
    frames = _only(per_point, "numbers of frames per point")
    spans = _spans(datums, resources, path_of, frames)
    sources = {span.path: _look(span.path, span.dataset) for span in spans}
    shape = _only({source.shape for source in sources.values()}, "shapes of frames")
    dtype = _only({source.dtype for source in sources.values()}, "types of frames")
    return _linked(group, spans, sources, (len(datums), *((frames,) if frames != 1 else ()), *shape), dtype, directory)


def _only(values: set, what: str) -> Any:
    if len(values) != 1:
        raise UserError(f"its images have several {what} ({', '.join(map(str, sorted(values)))})")
    return next(iter(values))


def _spans(
    datums: Iterable[Mapping[str, Any]],
    resources: Mapping[str, Mapping[str, Any]],
    path_of: Callable[[str], Path],
    frames: int,
) -> list[_Span]:
    spans: list[_Span] = []
    for datum in datums:
        uid = datum["resource"]
        first = int(datum["datum_kwargs"].get("point_number", 0)) * frames
        path, dataset = path_of(uid), DATASETS[resources[uid]["spec"]]
        if spans and (spans[-1].path, spans[-1].last) == (path, first):
            before = spans.pop()
            spans.append(_Span(path, dataset, before.first, first + frames, before.points + 1))
        else:
            spans.append(_Span(path, dataset, first, first + frames, 1))
    return spans


def _opened(path: Path) -> h5py.File:
    """The file, without a lock: the IOC may have it open still. With one, where this process has it open with one."""
    import h5py

    try:
        return h5py.File(path, "r", locking=False)
    except FileNotFoundError:
        raise
    except OSError:
        return h5py.File(path, "r")


def _look(path: Path, dataset: str) -> _Source:
    import h5py

    try:
        with _opened(path) as file:
            found = file[dataset]
            if not isinstance(found, h5py.Dataset):
                raise KeyError(dataset)
            return _Source(found.shape[0], found.shape[1:], found.dtype)
    except FileNotFoundError as error:
        raise ImageFileError(
            f"image file {path} is missing: bring it back, or tell by `root_map` in iconfig.yml where files moved, "
            "then export the run"
        ) from error
    except KeyError as error:
        raise ImageFileError(f"image file {path} has no {dataset}") from error
    except OSError as error:
        reason = " ".join(str(error).split())
        raise ImageFileError(f"image file {path} can't be read ({reason})") from error


def _linked(
    group: h5py.Group,
    spans: Sequence[_Span],
    sources: Mapping[Path, _Source],
    shape: tuple[int, ...],
    dtype: Any,
    directory: Path,
) -> tuple[h5py.Dataset, list[str]]:
    import h5py

    layout = h5py.VirtualLayout(shape, dtype)
    short: list[str] = []
    point = 0
    for span in spans:
        source = sources[span.path]
        virtual = h5py.VirtualSource(
            as_seen_from(directory, span.path), span.dataset, shape=(source.frames, *source.shape)
        )
        per_point = (span.last - span.first) // span.points
        points = max(0, min(source.frames, span.last) - span.first) // per_point
        if points:
            layout[point : point + points] = virtual[span.first : span.first + points * per_point]
        if points < span.points:
            short.append(f"{span.path} has {source.frames} frames, the run refers to {span.last}: the rest reads as 0")
        point += span.points
    dataset = group.create_virtual_dataset("value", layout, fillvalue=0)
    first = spans[0]
    dataset.attrs["source_file"] = as_seen_from(directory, first.path)
    dataset.attrs["source_address"] = first.dataset
    return dataset, short


def _copied(
    group: h5py.Group,
    datums: Sequence[Mapping[str, Any]],
    resources: Mapping[str, Mapping[str, Any]],
    path_of: Callable[[str], Path],
) -> h5py.Dataset:
    """Frames in files that HDF5 can't refer to."""
    import numpy as np
    from databroker.core import discover_handlers

    known = discover_handlers()
    handlers: dict[str, Any] = {}
    frames = []
    for datum in datums:
        uid = datum["resource"]
        resource = resources[uid]
        if resource["spec"] not in known:
            raise UserError(f"nothing installed reads images of spec {resource['spec']} ({path_of(uid)})")
        try:
            if uid not in handlers:
                handlers[uid] = known[resource["spec"]](str(path_of(uid)), **resource["resource_kwargs"])
            frames.append(np.asarray(handlers[uid](**datum["datum_kwargs"])))
        except OSError as error:
            named = error.filename or path_of(uid)
            raise ImageFileError(f"image file {named} can't be read ({error.strerror or error})") from error
    _only({frame.shape for frame in frames}, "shapes of frames")
    stack = np.stack(frames)
    if stack.ndim == 4 and stack.shape[1] == 1:
        stack = stack[:, 0]
    dataset = group.create_dataset("value", data=stack, chunks=(1, *stack.shape[1:]), compression="gzip", shuffle=True)
    dataset.attrs["source_file"] = str(path_of(datums[0]["resource"]))
    return dataset


def as_seen_from(directory: Path, file: Path) -> str:
    """The path of a file as one in `directory` refers to it: relative, unless they have nothing but `/` in common."""
    here, there = os.path.realpath(directory), os.path.realpath(file)
    return there if os.path.commonpath([here, there]) == os.sep else os.path.relpath(there, here)
