"""Where images go: a detector's HDF5 plugin, whose files are checked before a run and found again after it.

The IOC writes, this session reads, and the two may see the same directory under different paths. A run has one file
with all its frames. Its name is made for the run unless somebody has chosen one, in the way of apstools'
AD_EpicsFileNameMixin: what `hdf1.file_name`, `file_path`, `file_number` and `file_template` say is what the run uses.
"""

from __future__ import annotations

import itertools
import logging
import math
import shutil
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from ophyd.areadetector.base import ADComponent, EpicsSignalWithRBV
from ophyd.areadetector.filestore_mixins import resource_factory
from ophyd.areadetector.plugins import HDF5Plugin_V34

from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.devices import staging

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(LOGGER_NAME)

DEFAULT_TEMPLATE = "%s%s_%3.3d.h5"
DIRECTORIES_MADE = 5  # of the path that devices.yml gives; a directory that somebody chose has to exist
WRITTEN_WITHIN = 10.0  # s; from the end of an exposure until its frames are in the file
VISIBLE_WITHIN = 2.0  # s; until a file that the IOC has made is seen by this session, over NFS for instance
_POLL = 0.002  # s


class ImageFileError(UserError):
    """Images can't be written to a file so, or weren't."""


class ChosenSignal(EpicsSignalWithRBV):
    """A part of the file's name: what the device makes of it, unless somebody has put something else."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._chosen = False
        self._made: str | None = None
        self._last: str | None = None  # what this session has put or found

    def put(self, value: Any, *args: Any, **kwargs: Any) -> None:
        """Choose a value; an empty one leaves the choice to the device again."""
        super().put(value, *args, **kwargs)
        self._chosen, self._last = bool(value), str(value)

    def make(self, value: str) -> None:
        """Put what the device makes of it."""
        self._made = self._last = value
        super().put(value)

    def after_restart(self) -> None:
        """The IOC answers again: what it has by itself after a start is nobody's choice."""
        if self._last is None or _same_path(value := str(self.get()), self._last):
            return  # it was only out of reach
        if self._chosen:
            logger.warning("%s is %r since its IOC was started again, no more %r", self.name, value, self._last)
        self._chosen, self._made, self._last = False, value, value

    @property
    def choice(self) -> str | None:
        """What somebody chose, at the prompt or at a screen of the IOC; None: the device makes one."""
        self._last = value = str(self.get())
        changed = self._made is not None and _same_path(value, self._made) is False
        return value if value and (self._chosen or changed) else None


class HDF5Writer(HDF5Plugin_V34):
    """The HDF5 plugin of a detector, with file names, checks and documents.

    Args:
        write_path: Directory as the IOC sees it, with fields of strftime; relative to the data directory.
        read_path: The same as this session sees it; None: as the IOC does.
        compression: A choice of the plugin; None: as it is.
        file_names: "unique": one for each run unless somebody chooses one; "ioc": always what the plugin's PVs say.
        lazy_open: Make the file with its first frame. A plugin of areaDetector that has not had a frame yet needs it;
            mistakes in names and directories are then only found in the run.
        args: As for the plugin.
        kwargs: As for the plugin.
    """

    file_name = ADComponent(ChosenSignal, "FileName", string=True, kind="config")
    file_path = ADComponent(ChosenSignal, "FilePath", string=True, kind="config")

    used_in_runs = (
        "create_directory", "file_name", "file_path", "file_path_exists", "file_template", "file_number",
        "full_file_name", "capture", "num_captured", "write_status", "write_message",
        "width", "height", "depth", "data_type",
    )  # fmt: skip

    def __init__(
        self,
        *args: Any,
        write_path: str = "images/%Y/%m/%d",
        read_path: str | None = None,
        compression: str | None = None,
        file_names: str = "unique",
        lazy_open: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.data_directory = Path.cwd()
        self.write_path_setting, self.read_path_setting = write_path, read_path
        self.file_names = file_names
        self.stage_sigs.update(
            file_write_mode="Stream",
            auto_increment="Yes",
            num_capture=0,
            array_counter=0,
            num_frames_flush=1,  # what was taken before an IOC dies is in the file
            lazy_open="Yes" if lazy_open else "No",
        )
        if compression is not None:
            self.stage_sigs["compression"] = compression
        self.forget()

    def after_restart(self) -> None:
        """The IOC answers again after a time in which it did not."""
        for signal in (self.file_name, self.file_path):
            signal.after_restart()

    # --- paths

    @property
    def write_path_template(self) -> str:
        """Directory as the IOC sees it, with fields of strftime."""
        return _absolute(self.write_path_setting, self.data_directory)

    @property
    def read_path_template(self) -> str:
        """The same as this session sees it."""
        if self.read_path_setting is None:
            return self.write_path_template
        return _absolute(self.read_path_setting, self.data_directory)

    def _read_path_of(self, write_path: str, now: datetime) -> Path:
        """Where this session reads what the IOC writes to a directory."""
        if self.read_path_setting is None:
            return Path(write_path)
        made = now.strftime(self.write_path_template)
        if _same_path(write_path, made):
            return Path(now.strftime(self.read_path_template))
        fixed, there = _fixed_part(self.write_path_template), _pure(write_path)
        if not there.is_relative_to(fixed):
            raise ImageFileError(
                f"{self._device}: images would go to {write_path}, outside of write_path {fixed} of devices.yml: this "
                f"session can't tell where to read them; choose a directory in there"
            )
        return Path(_fixed_part(self.read_path_template)) / PurePosixPath(*there.relative_to(fixed).parts)

    def _root_of(self, directory: Path) -> Path:
        """The part of a path that changes when files move: the data directory, or what comes before the first field."""
        fixed = Path(_fixed_part(self.read_path_template))
        for root in (self.data_directory, fixed):
            if directory.is_relative_to(root):
                return root
        return directory

    # --- a run

    @property
    def _device(self) -> str:
        return self.root.name

    def check_frames_per_point(self, frames: int) -> None:
        """Refuse another number of frames than the run began with: later points would not be found in the file.

        Raises:
            ImageFileError: It is another one.
        """
        if frames != self._frames_per_point:
            raise ImageFileError(
                f"{self._device}: frames per point were {self._frames_per_point} when the run began and are {frames} "
                f"now: a run has the same number at each point"
            )

    def check(self, frames_per_point: int) -> None:
        """Refuse what `open` would refuse, as far as that can be told without changing anything.

        Args:
            frames_per_point: How many frames each point of the run will have.

        Raises:
            ImageFileError: The directory is not there, it is full, or a file of that name is.
        """
        now = datetime.now()
        chosen = self._chosen(self.file_path)
        directory = now.strftime(chosen or self.write_path_template)
        if chosen is not None and _same_path(str(self.file_path.get()), directory):
            self._check_exists(directory)
        read_directory = self._read_path_of(directory, now)
        name = self._chosen(self.file_name)
        if name is not None:
            template = str(self.file_template.get()) or DEFAULT_TEMPLATE
            number = int(self.file_number.get())
            self._check_free(read_directory / _file_name(template, name, number), name, number)
        # The IOC makes some of the directories.
        there = next((path for path in (read_directory, *read_directory.parents) if path.is_dir()), None)
        if there is not None:
            self._check_space(there, frames_per_point)

    def open(self, frames_per_point: int) -> None:
        """Settle the file of a run, check it, and begin to capture.

        Args:
            frames_per_point: How many frames each point of the run has.

        Raises:
            ImageFileError: The file can't be written, would overwrite another one, or could not be read; one line.
        """
        self.forget()
        now = datetime.now()
        directory = self._choose_directory(now)
        name, template, number = self._choose_name(now)
        read_directory = self._read_path_of(directory, now)
        path = read_directory / _file_name(template, name, number)
        self._check_free(path, name, number)
        self._check_space(read_directory, frames_per_point)
        self.capture.put(1)
        self._wait_for_capture(directory)
        self._captures = True
        self._wait_until_visible(path, read_directory)
        root = self._root_of(read_directory)
        self.path, self._frames_per_point = path, frames_per_point
        document, self._datum = resource_factory(
            "AD_HDF5", root, path.relative_to(root), {"frame_per_point": frames_per_point}, "posix"
        )
        self._documents.append(("resource", document))

    def _choose_directory(self, now: datetime) -> str:
        chosen = self._chosen(self.file_path)
        directory = chosen or now.strftime(self.write_path_template)
        directory = now.strftime(directory)
        separator = "\\" if "\\" in directory else "/"
        directory = directory.rstrip("/\\") + separator
        if chosen is None:
            before = staging.apply({self.create_directory: -DIRECTORIES_MADE})
            self.file_path.make(directory)
            self._wait_for(self.file_path, directory)
            staging.apply(before)  # a directory that somebody chooses is not made
        elif not _same_path(str(self.file_path.get()), directory):
            staging.apply({self.file_path: directory})
        self._check_exists(directory)
        return directory

    def _check_exists(self, directory: str) -> None:
        if not self.file_path_exists.get():
            said = str(self.write_message.get())
            why = f" ({said})" if directory.rstrip("/\\") in said else ""
            raise ImageFileError(
                f"{self._device}: the IOC has no directory {directory}{why}: make it, or choose another one with "
                f"{self._device}.{self.attr_name}.file_path.put(...)"
            )

    def _choose_name(self, now: datetime) -> tuple[str, str, int]:
        template = str(self.file_template.get())
        if not template:
            template = DEFAULT_TEMPLATE
            staging.apply({self.file_template: template})
        name = self._chosen(self.file_name)
        if name is None:
            name = f"{self._device}_{now:%H%M%S}_{uuid.uuid4().hex[:6]}"
            self.file_name.make(name)
            self._wait_for(self.file_name, name)
        return name, template, int(self.file_number.get())

    def _chosen(self, signal: ChosenSignal) -> str | None:
        if self.file_names == "ioc":
            value = str(signal.get())
            if not value:
                raise ImageFileError(f"{self._device}: {signal.setpoint_pvname} is empty: put one")
            return value
        return signal.choice

    @staticmethod
    def _wait_for(signal: Any, value: str) -> None:
        end = time.monotonic() + staging.CONFIRMED_WITHIN
        while not _same_path(found := str(signal.get()), value):
            if time.monotonic() > end:
                raise staging.SettingError(f"{signal.setpoint_pvname} does not take {value!r}: it is {found!r}")
            time.sleep(_POLL)

    def _check_free(self, path: Path, name: str, number: int) -> None:
        """The IOC would overwrite a file that exists."""
        if not path.exists():
            return
        template = str(self.file_template.get()) or DEFAULT_TEMPLATE
        later = (n for n in itertools.count(number + 1) if not path.with_name(_file_name(template, name, n)).exists())
        numbered = _file_name(template, name, number) != _file_name(template, name, number + 1)
        free = f", or {self._device}.{self.attr_name}.file_number.put({next(later)})" if numbered else ""
        raise ImageFileError(
            f"{self._device}: {path} exists: choose another name with {self._device}.{self.attr_name}.file_name"
            f".put(...){free}"
        )

    def _check_space(self, directory: Path, frames: int) -> None:
        """A run needs room for one point at least."""
        if not directory.is_dir():
            raise ImageFileError(
                f"{self._device}: this session sees no directory {directory}, where it would read what the IOC writes: "
                "see read_path in devices.yml"
            )
        free = shutil.disk_usage(directory).free
        needed = frames * math.prod(self._sizes()) * _dtype(str(self.data_type.get())).itemsize
        if free < needed:
            raise ImageFileError(
                f"{self._device}: {directory} is full ({free >> 10} kB free, a point takes {needed >> 10} kB): "
                "make room"
            )

    def _wait_for_capture(self, directory: str) -> None:
        end = time.monotonic() + staging.CONFIRMED_WITHIN
        while not self.capture.get():
            failed = self.write_status.get() and self.write_message.get()
            if failed or time.monotonic() > end:
                why = failed or f"capture did not start within {staging.CONFIRMED_WITHIN:g} s"
                raise ImageFileError(f"{self._device}: the IOC can't write to {directory}: {why}")
            time.sleep(_POLL)

    def _wait_until_visible(self, path: Path, directory: Path) -> None:
        """A file that is made at once can be looked for at once."""
        if staging.shows(self.lazy_open, "Yes", self.lazy_open.get()):
            return
        end = time.monotonic() + VISIBLE_WITHIN
        while not path.exists():
            if time.monotonic() > end:
                raise ImageFileError(
                    f"{self._device}: the IOC made {self.full_file_name.get()}, which this session does not find in "
                    f"{directory}: see read_path in devices.yml"
                )
            time.sleep(0.02)

    def check_written(self, points: int) -> None:
        """Wait until the frames of all points so far are in the file. Not to be called on a thread of Channel Access.

        Raises:
            ImageFileError: They are not; the message says why, and how many points are complete.
        """
        wanted = points * self._frames_per_point
        end = time.monotonic() + WRITTEN_WITHIN
        while (written := int(self.num_captured.get())) < wanted:
            failed = self.write_status.get() and str(self.write_message.get())
            complete = written // self._frames_per_point
            kept = f"{complete} point{'' if complete == 1 else 's'} of this run are in {self.path}"
            if failed:
                raise ImageFileError(f"{self._device}: a frame was not written ({failed}); {kept}")
            if not self.capture.get() and int(self.num_captured.get()) < wanted:
                most = int(self.num_capture.get())
                raise ImageFileError(
                    f"{self._device}: the file is closed after {written} frames (NumCapture is {most}; 0: no limit); "
                    f"{kept}"
                )
            if time.monotonic() > end:
                raise ImageFileError(
                    f"{self._device}: {wanted - written} of {wanted} frames did not come to "
                    f"{self.attr_name} within {WRITTEN_WITHIN:g} s; {kept}"
                )
            time.sleep(_POLL)

    def close(self) -> None:
        """End the file.

        Raises:
            ImageFileError: It could not be completed.
        """
        if not self._captures:
            return
        self._captures = False
        closed_by_itself = not self.capture.get()
        staging.apply({self.capture: 0})
        if not closed_by_itself and self.write_status.get():
            raise ImageFileError(f"{self._device}: {self.path} could not be completed: {self.write_message.get()}")

    def forget(self) -> None:
        """Forget the last run."""
        self._captures = False
        self._documents: list[tuple[str, dict[str, Any]]] = []
        self._readings: dict[str, dict[str, Any]] = {}
        self._points = itertools.count()
        self._datum: Any = None
        self._frames_per_point = 1
        self.path: Path | None = None

    # --- documents

    def generate_datum(self, key: str, timestamp: float, datum_kwargs: Mapping[str, Any] | None = None) -> None:
        """Make the document of a point's frames."""
        if self._datum is None:
            return
        document = self._datum({**(datum_kwargs or {}), "point_number": next(self._points)})
        self._documents.append(("datum", document))
        self._readings[key] = {"value": document["datum_id"], "timestamp": timestamp}

    def collect_asset_docs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The documents since the last time."""
        documents, self._documents = self._documents, []
        yield from documents

    def read(self) -> Any:
        """The plugin's readings, and which frames belong to this point."""
        return OrderedDict({**super().read(), **self._readings})

    def describe(self) -> Any:
        """What `read` gives; frames have the shape (frames of a point, y, x)."""
        return OrderedDict({**super().describe(), **{key: self._data_key() for key in self._readings}})

    def _data_key(self) -> dict[str, Any]:
        return {
            "source": f"PV:{self.root.prefix}",
            "dtype": "array",
            "dtype_numpy": _dtype(str(self.data_type.get())).str,
            "shape": [self._frames_per_point, *self._sizes()],
            "external": "FILESTORE:",
        }

    def _sizes(self) -> list[int]:
        """The shape of a frame: areaDetector's first dimension is numpy's last."""
        sizes = [int(size.get()) for size in (self.depth, self.height, self.width)]
        return [size for size in sizes if size]


def _dtype(data_type: str) -> np.dtype[Any]:
    import numpy as np

    return np.dtype(data_type.lower())


def _absolute(path: str, directory: Path) -> str:
    """A path template that is relative to a directory; Windows paths are absolute."""
    return path if _is_windows(path) else str(directory / path)


def _is_windows(path: str) -> bool:
    return "\\" in path


def _pure(path: str) -> PurePosixPath | PureWindowsPath:
    return PureWindowsPath(path) if _is_windows(path) else PurePosixPath(path)


def _fixed_part(template: str) -> str:
    """The directories of a path template before the first that has a field."""
    path = _pure(template)
    parts = list(itertools.takewhile(lambda part: "%" not in part, path.parts))
    return str(type(path)(*parts))


def _same_path(one: str, other: str) -> bool:
    return one.rstrip("/\\") == other.rstrip("/\\")


def _file_name(template: str, name: str, number: int) -> str:
    """The file's name, as areaDetector makes it of FileTemplate.

    Raises:
        ImageFileError: The template is unusable.
    """
    for values in (("", name, number), ("", name), ("",)):
        try:
            made = template % values
        except (TypeError, ValueError):
            continue
        if made:
            return made
    raise ImageFileError(f"FileTemplate {template!r} makes no file name of a path, a name and a number")
