"""What all file writers have in common: names, modes, counters, errors. ADCore calls it NDPluginFile.

A file that cannot be written is an error in WriteStatus and WriteMessage; the acquisition goes on.
"""

from __future__ import annotations

import enum
import errno
import logging
import os
import re
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from virtual_beamline.area_detector import parameters as p
from virtual_beamline.area_detector.ndarray import NDArray
from virtual_beamline.area_detector.plugin import Plugin
from virtual_beamline.area_detector.port import Detector

logger = logging.getLogger("virtual_beamline")

MOST_CAPTURED = 2 << 30
"""Bytes of frames that FileWriteMode Capture may hold in memory."""


class FileWriteMode(enum.IntEnum):
    """The choices of FileWriteMode."""

    SINGLE = 0
    CAPTURE = 1
    STREAM = 2


class FileError(Exception):
    """A file cannot be written; the message is for WriteMessage."""


def full_file_name(template: str, path: str, name: str, number: int) -> str:
    """A file name as ADCore makes it: a format of C for path, name and number, of which the last ones may be missing.

    Raises:
        FileError: the template is no such format, or makes no name.
    """
    for values in ((path, name, number), (path, name), (path,), ()):
        try:
            made = template % values
        except TypeError as error:
            if "not all arguments" in str(error):
                continue
            break
        except ValueError:
            break
        if made.strip("/ "):
            return made
        break
    msg = f"FileTemplate {template!r} makes no file name of a path, a name and a number"
    raise FileError(msg)


def create_directories(path: Path, depth: int) -> None:
    """Make missing directories as CreateDirectory of ADCore allows it.

    Args:
        path: what shall exist.
        depth: 0: make none; -n: make at most the last n of the path; n: the first n must exist already.

    Raises:
        OSError: they cannot be made.
    """
    parts = [*reversed(path.parents), path]  # /, /a, /a/b, ...
    missing = [part for part in parts if not part.is_dir()]
    allowed = parts[depth:] if depth < 0 else parts[depth:] if depth > 0 else []
    if missing and all(part in allowed for part in missing):
        path.mkdir(parents=True, exist_ok=True)


class FilePlugin(Plugin):
    """A file writer; a subclass implements :meth:`open_file`, :meth:`write_array` and :meth:`close_file`.

    All three are called under :attr:`Plugin.lock` and raise :class:`FileError` or OSError when they fail.
    """

    file_format: ClassVar[str] = ""
    extension: ClassVar[str] = ""
    many_arrays: ClassVar[bool] = False
    """One file can hold many arrays."""
    counts_all = False
    passes_on = False

    parameters = (
        p.text("FilePath", "/tmp/", "Directory"),
        p.switch("FilePathExists", ("No", "Yes"), 0, "Whether it exists", ZSV="MAJOR").readonly(),
        p.integer("CreateDirectory", 0, "-n: make the last n; n: but the first n"),
        p.text("FileName", "image", "Name"),
        p.integer("FileNumber", 1, "Number of the next file"),
        p.text("FileTemplate", "", "C format of path, name, number"),
        p.switch("AutoIncrement", ("No", "Yes"), 1, "Each file increments the number"),
        p.text("FullFileName", "", "The last file").readonly(),
        p.text("TempSuffix", "", "Of the file's name until it is complete"),
        p.switch("AutoSave", ("No", "Yes"), 0, "Write by itself"),
        p.command("WriteFile", ("Done", "Write"), "Write the last array, or all captured"),
        p.choice("FileWriteMode", ("Single", "Capture", "Stream"), 0, "File of each, of all, or as they come"),
        p.command("Capture", ("Done", "Capture"), "Capture or stream arrays"),
        p.integer("NumCapture", 1, "How many; 0: any, Stream only"),
        p.integer("NumCaptured", 0, "How many so far").readonly(),
        p.switch("LazyOpen", ("No", "Yes"), 0, "Stream opens it with the first array"),
        p.switch("DeleteDriverFile", ("No", "Yes"), 0, "Delete DriverFileName when written"),
        p.choice("WriteStatus", ("Write OK", "Write error"), 0, "What became of it", {1: "MAJOR"}).readonly(""),
        p.text("WriteMessage", "", "Why not").readonly(""),
    )

    def __init__(self, detector: Detector, prefix: str, name: str, source: str) -> None:
        super().__init__(detector, prefix, name, source)
        self._open: Path | None = None
        """The file that is open, under its final name."""
        self._path_tried: Path | None = None
        self._captured: list[NDArray] = []
        self._late = 0
        self.set(FileTemplate=f"%s%s_%3.3d{self.extension}")
        self._check_path()

    # -- what a file writer implements -----------------------------------------------------------------------

    def open_file(self, path: Path, array: NDArray) -> None:
        """Make a file for arrays like this one."""
        raise NotImplementedError

    def write_array(self, array: NDArray) -> None:
        """Write an array to it."""
        raise NotImplementedError

    def close_file(self) -> None:
        """Complete it; called after a failure of the others, too."""
        raise NotImplementedError

    # -- settings --------------------------------------------------------------------------------------------

    def write(self, name: str, value: Any) -> None:
        """Take a value."""
        match name:
            case "FilePath":
                super().write(name, value if not value or value.endswith("/") else f"{value}/")
                self._check_path()
            case "CreateDirectory":
                super().write(name, value)
                self._check_path()
            case "NumCapture" if value < 0:
                self.refuse(name, value, "0 or more")
            case "Capture":
                with self.lock:
                    self._capture(bool(value))
            case "WriteFile":
                self.set(WriteFile=int(bool(value)))
                if value:
                    self._in_background(self._write_now)
            case "FileWriteMode" if self["Capture"] and value != self[name]:
                self.refuse(name, value, "not while Capture is on")
            case _:
                super().write(name, value)

    def refuse(self, name: str, value: object, why: str) -> NoReturn:
        """Refuse, and say so in WriteMessage."""
        self.set(WriteMessage=f"{name} = {value} refused: {why}")
        super().refuse(name, value, why)

    def _check_path(self) -> None:
        path = Path(self["FilePath"])
        try:
            if self["FilePath"] and self["CreateDirectory"]:
                create_directories(path, self["CreateDirectory"])
            exists = bool(self["FilePath"]) and path.is_dir()
        except OSError as error:
            exists = False
            self._failed(f"cannot make {path}: {error.strerror}")
        self.set(FilePathExists=int(exists))

    # -- capturing -------------------------------------------------------------------------------------------

    def _capture(self, on: bool) -> None:
        mode = self["FileWriteMode"]
        if not on:
            if self["Capture"]:
                self._stop_capture()
            else:
                self.set_back(Capture=0)
            return
        if self["Capture"]:
            return
        self._succeeded()
        self._late = 0
        if mode == FileWriteMode.SINGLE:
            self._failed("Capture needs FileWriteMode Capture or Stream")
            self.set_back(Capture=0)
            return
        if mode == FileWriteMode.CAPTURE and not self._can_hold():
            self.set_back(Capture=0)
            return
        self._captured = []
        self.set(NumCaptured=0)
        if mode == FileWriteMode.STREAM:
            if self.many_arrays and not self["LazyOpen"] and not self._try(self._open_for, self._expected):
                self.set_back(Capture=0)
                return
            self.set(WriteFile=1)
        self.set(Capture=1)

    def _can_hold(self) -> bool:
        count = self["NumCapture"]
        if count < 1:
            self._failed("FileWriteMode Capture needs NumCapture of 1 or more")
            return False
        needed = 0 if self._expected is None else count * self._expected.data.nbytes
        if needed > MOST_CAPTURED:
            self._failed(f"{count} frames are {needed >> 20} MB, more than {MOST_CAPTURED >> 20} MB: use Stream")
            return False
        return True

    def _stop_capture(self) -> None:
        """The capture ends; what is open is completed. Captured frames stay until they are written."""
        if self["FileWriteMode"] == FileWriteMode.STREAM:
            self._try(self._close)
            self.set_back(WriteFile=0)
        self.detector.tell_all()
        self.set_back(Capture=0)

    def _write_now(self) -> None:
        """WriteFile."""
        with self.lock:
            self._succeeded()
            mode = self["FileWriteMode"]
            if mode == FileWriteMode.STREAM:
                self._failed("WriteFile needs FileWriteMode Single or Capture")
            elif mode == FileWriteMode.CAPTURE:
                self._write_captured()
            elif self._input is None:
                self._failed("there is no array to write yet")
            else:
                self._try(self._write_file, [self._input])
            self.set_back(WriteFile=0)

    def _write_captured(self) -> None:
        if not self._captured:
            self._failed("there are no captured arrays to write")
            return
        if self.many_arrays:
            self._try(self._write_file, self._captured)
        else:
            for array in self._captured:
                if not self._try(self._write_file, [array]):
                    break
        self._captured = []

    # -- arrays ----------------------------------------------------------------------------------------------

    def process(self, array: NDArray) -> NDArray:
        """Write it, hold it, or let it go."""
        mode = self["FileWriteMode"]
        if mode == FileWriteMode.SINGLE:
            if self["AutoSave"]:
                self.count_array()
                self._succeeded()
                self._try(self._write_file, [array])
        elif not self["Capture"]:
            self._tell_late()
        elif mode == FileWriteMode.CAPTURE:
            self.count_array()
            self._captured.append(array)
            self.set_soon(NumCaptured=len(self._captured))
            if len(self._captured) >= self["NumCapture"]:
                if self["AutoSave"]:
                    self._write_captured()
                self._stop_capture()
                self._late = 1
        else:
            self._stream(array)
        return array

    def _tell_late(self) -> None:
        """Frames of the same acquisition that come after NumCapture of them are not written: say so."""
        if self._late:
            self.set(
                WriteMessage=f"not written: {self._late} frame{'' if self._late == 1 else 's'} that came after the "
                f"{self['NumCapture']} of NumCapture"
            )
            self._late += 1

    def _stream(self, array: NDArray) -> None:
        self.count_array()
        written = self._try(self._write_streamed, array)
        if written:
            self.set_soon(NumCaptured=self["NumCaptured"] + 1)
        if not written or (self["NumCapture"] and self["NumCaptured"] >= self["NumCapture"]):
            self._stop_capture()
            self._late = 1 if written else 0

    def _write_streamed(self, array: NDArray) -> None:
        if not self.many_arrays:
            self._write_file([array])
            return
        if self._open is None:
            self._open_for(array)
        self.write_array(array)

    # -- files -----------------------------------------------------------------------------------------------

    def _write_file(self, arrays: list[NDArray]) -> None:
        self._open_for(arrays[0])
        try:
            for array in arrays:
                self.write_array(array)
        finally:
            self._close()

    def _open_for(self, array: NDArray | None) -> None:
        if array is None:
            msg = "no array has been announced: plug it into a port that has arrays"
            raise FileError(msg)
        directory, number = self["FilePath"], self["FileNumber"]
        if not directory:
            msg = "FilePath is empty"
            raise FileError(msg)
        path = Path(full_file_name(self["FileTemplate"], directory, self["FileName"], number))
        if not path.parent.is_dir():
            msg = f"there is no directory {path.parent}"
            raise FileError(msg)
        if path.is_dir():
            msg = f"{path} is a directory"
            raise FileError(msg)
        self._path_tried = path
        self.open_file(self._temporary(path), array)
        self._open = path
        self.set(FullFileName=str(path))
        if self["AutoIncrement"]:
            self.set_back(FileNumber=number + 1)

    def _temporary(self, path: Path) -> Path:
        return path.with_name(path.name + self["TempSuffix"])

    def _close(self) -> None:
        if self._open is None:
            return
        path, self._open = self._open, None
        self.close_file()
        if self["TempSuffix"]:
            self._temporary(path).replace(path)
        self._delete_driver_file()

    def _delete_driver_file(self) -> None:
        if self["DeleteDriverFile"] and self._input is not None:
            attribute = self._input.attributes.get("DriverFileName")
            if attribute is not None:
                Path(str(attribute.value)).unlink(missing_ok=True)

    def _try(self, action: Any, *arguments: Any) -> bool:
        """Do it; false, with the reason in WriteMessage, if it fails. What is open is closed then.

        Whatever fails: nobody may be left with a capture that goes on and a status that says OK.
        """
        try:
            action(*arguments)
        except Exception as error:
            if not isinstance(error, FileError | OSError | ValueError | RuntimeError):
                logger.exception("%s: writing failed", self.name)
            self._failed(_reason(error, self._path_tried))
        else:
            return True
        if self._open is not None:
            try:
                self._close()
            except Exception as error:
                logger.warning("%s: closing %s failed too: %s", self.name, self["FullFileName"], error)
        return False

    def _failed(self, why: str) -> None:
        logger.warning("%s: %s", self.name, why)
        self.set(WriteMessage=why, WriteStatus=1)

    def _succeeded(self) -> None:
        self.set(WriteMessage="", WriteStatus=0)


def _reason(error: Exception, path: Path | None) -> str:
    """Why a file could not be written, without what only a programmer of HDF5 would want to know."""
    text = " ".join(str(error).split())
    number = re.search(r"errno = (\d+)", text)
    if number:
        return f"{path}: {os.strerror(int(number[1]))}"
    if re.search(r"\d+ requested and \d+ written", text):  # what numpy says of a full disk
        return f"{path}: {os.strerror(errno.ENOSPC)}"
    if isinstance(error, OSError) and error.errno:
        return f"{path}: {os.strerror(error.errno)}"
    if isinstance(error, FileError | OSError | ValueError | RuntimeError) and text:
        return text
    return f"{type(error).__name__}: {text}"
