"""SPEC data files: each run a scan, appended when the run has ended.

The lines are those of apstools' `SpecWriterCallback`, the writer whose files people have (its successor
`SpecWriterCallback2` writes other ones: no plan_type comment, text as `#U label = value`). It is used in memory only:
which file a run goes to is settled when the run starts, and the text is appended in one piece, once per run uid.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import getpass
import logging
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np

from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.framework import runs

logger = logging.getLogger(LOGGER_NAME)

TIME_FORMAT = "%a %b %d %H:%M:%S %Y"
COMMENT_KINDS = ("start", "descriptor", "event", "resource", "datum", "stop")
LONGEST_ARRAY = 64  # values; larger arrays are told by their shape only, the data are in the catalog
# What str.splitlines() takes for the end of a line, written so that it does not end one.
LINE_ENDS = {ord(c): c.encode("unicode_escape").decode() for c in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"}

Document = tuple[str, dict[str, Any]]
NoteSink = Callable[[str, dict[str, Any]], object]


class SpecWriter:
    """Writes runs to a SPEC data file; a consumer behind the outbox.

    Args:
        directory: Where files without a path of their own go.
        md: The RunEngine's metadata; its scan_id is raised to the highest scan number of a file that is chosen.
        note: Keeps a comment until its run is delivered: called with this consumer's name and the note
            (`Outbox.note`). May be set later by `use_notes`.
    """

    name = "spec"

    def __init__(
        self,
        directory: Path | str = ".",
        md: MutableMapping[str, Any] | None = None,
        note: NoteSink | None = None,
    ) -> None:
        self._directory = Path(directory).absolute()
        self._md = md
        self._note = note
        self._early_notes: list[dict[str, Any]] = []
        self._known: dict[Path, _FileContent] = {}
        self._told_about_receiver = False
        self._is_default = True
        self._choose(self._default_path())

    # --- what people use

    @property
    def spec_filename(self) -> Path:
        """The file that the next run is written to, with its full path."""
        return self._path

    def announce(self) -> None:
        """Log which file is written to, and how to choose another."""
        logger.info("writing to SPEC file: %s", self._path)
        if self._is_default:
            logger.info("   >>>>   Using default SPEC file name   <<<<")
        logger.info("   file will be created when bluesky ends its next scan")
        logger.info("   to change SPEC file, use command:   newSpecFile('title')")

    def newfile(self, filename: str | Path | None = None, scan_id: int | None = None, RE: Any = None) -> Path:  # noqa: N803  apstools' signature
        """Write the next runs to `filename`; it is created when the next run ends, or appended to if it exists.

        Args:
            filename: A name in the SPEC directory, or a path. None: a new default name.
            scan_id: The number that the next scan follows, where the file has none higher.
            RE: The RunEngine whose scan_id is raised; the session's own if not given.

        Raises:
            UserError: The file can't be read, or is no file.
        """
        path = self._default_path() if filename is None else self._directory / Path(filename).expanduser()
        if scan_id is not None and (isinstance(scan_id, bool) or not isinstance(scan_id, int) or scan_id < 0):
            raise UserError(f"scan_id {scan_id!r} is no scan number: give a whole number, 0 or more")
        highest = self._highest_scan_number(path)
        self._choose(path)
        self._is_default = filename is None
        self._raise_scan_id(max(highest, scan_id or 0), self._md if RE is None else RE.md)
        return path

    def newSpecFile(self, title: str, scan_id: int | None = None, RE: Any = None) -> Path:  # noqa: N802, N803  the name people know
        """Write the next runs to `MM_DD_title.dat` in the SPEC directory, appended to if it exists.

        Scan numbers go on above the highest in the file.

        Args:
            title: What the file is about; characters other than letters, digits and _ become _.
            scan_id: The number that the next scan follows, where the file has none higher.
            RE: The RunEngine whose scan_id is raised; the session's own if not given.
        """
        if not isinstance(title, str) or not title.strip():
            raise UserError(f"newSpecFile needs a title, as in newSpecFile('title'), not {title!r}")
        clean = re.sub(r"[^a-zA-Z0-9_]", "_", title)
        path = self.newfile(f"{datetime.now():%m_%d}_{clean}.dat", scan_id, RE)
        exists = path.exists()
        if exists:
            logger.warning(">>> file already exists: %s <<<", path.name)
        logger.info("SPEC file name : %s", path)
        logger.info("File will be %s at end of next bluesky scan.", "appended" if exists else "created")
        return path

    def spec_comment(self, text: str, doc: str | None = None) -> None:
        """Add a comment to the scan that runs, or else to the next one.

        Args:
            text: The comment; each of its lines becomes a `#C` line.
            doc: Where it is written: with the scan's head ("start", "descriptor") or after its data ("event",
                "resource", "datum", "stop"). None: after the data of the scan that runs, or in the head of the next.
        """
        if doc is not None and doc not in COMMENT_KINDS:
            raise UserError(f"spec_comment: no place {doc!r} in a scan; there are {', '.join(COMMENT_KINDS)}")
        note = {"text": str(text), "doc": doc, "time": time.time()}
        if self._note is None:
            self._early_notes.append(note)
        else:
            self._note(self.name, note)

    def use_notes(self, note: NoteSink) -> None:
        """Have comments kept by `note` until their run is delivered, those given so far too."""
        self._note = note
        while self._early_notes:
            note(self.name, self._early_notes.pop(0))

    def receiver(self, _name: str, _doc: dict[str, Any]) -> None:
        """Do nothing: runs come from the journal. So `RE.subscribe(specwriter.receiver)` makes no second copy."""
        if not self._told_about_receiver:
            self._told_about_receiver = True
            logger.info("SPEC files are written without RE.subscribe(specwriter.receiver); it does nothing")

    def __repr__(self) -> str:
        return f"SpecWriter({str(self._path)!r})"

    # --- what the outbox uses

    def assign(self, start: dict[str, Any]) -> dict[str, Any]:
        """Settle which file a run that starts now goes to."""
        return {"file": str(self._path), "epoch": self._epoch, "user": self._user, "host": self._host}

    def deliver(
        self, documents: Iterable[Document], assignment: Mapping[str, Any], notes: Iterable[Mapping[str, Any]] = ()
    ) -> str | None:
        """Append a run to its file, unless it is there.

        Args:
            documents: The run, from start to stop.
            assignment: What `assign` gave.
            notes: Comments: {"text", "doc", "time"}.

        Returns:
            The file's path.

        Raises:
            UserError: The file can't be written; the next delivery tries again.
        """
        path = Path(assignment["file"])
        scan = _reference_writer()(path, assignment)
        for name, doc in documents:
            scan.take(name, doc)
            if name == "start":
                scan.add_notes(notes)
        if scan.uid is None:
            return None
        try:
            self._append(path, scan)
        except OSError as error:
            raise UserError(
                f"{path} can't be written ({error.strerror or error}); it is safe in the journal"
            ) from error
        return str(path)

    # --- inside

    def _default_path(self) -> Path:
        return self._directory / f"{datetime.now():%Y%m%d-%H%M%S}.dat"

    def _choose(self, path: Path) -> None:
        self._path = path
        self._epoch = int(time.time())
        self._user = getpass.getuser()
        self._host = socket.gethostname() or "localhost"

    def _raise_scan_id(self, least: int, md: MutableMapping[str, Any] | None) -> None:
        if md is not None and (md.get("scan_id") or 0) < least:
            md["scan_id"] = least

    def _highest_scan_number(self, path: Path) -> int:
        try:
            if not path.exists():
                return 0
            with path.open("rb") as file:
                return self._content(path).read_on(file).highest
        except OSError as error:
            raise UserError(
                f"SPEC file {path} can't be used ({error.strerror or error}): choose another name"
            ) from error

    def _content(self, path: Path) -> _FileContent:
        return self._known.setdefault(path, _FileContent())

    def _append(self, path: Path, scan: Any) -> None:
        # O_APPEND, and locked against another session that writes to the same file.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            content = self._content(path).read_on(file)
            if scan.uid in content.uids:
                return
            if content.last_uid == scan.uid:  # cut short by a kill or a full disk
                content = self._cut(path, file, content.last_start)
            torn = _torn_prefix(file, _encoded(scan.text(content.header_keys)), _encoded(scan.text(None)))
            if torn:
                content = self._cut(path, file, content.size - torn)
            block = _encoded(scan.text(content.header_keys))
            if content.size and not content.ends_with_newline:
                block = b"\n" + block
            if content.size == 0:
                block = block.lstrip(b"\n")
            try:
                written = file.write(block)
                if written != len(block):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                with contextlib.suppress(OSError):  # a device can't be cut short
                    os.ftruncate(descriptor, content.size)
                raise
            os.fsync(descriptor)
            content.read_on(file)

    def _cut(self, path: Path, file: Any, size: int) -> _FileContent:
        os.ftruncate(file.fileno(), size)
        self._known[path] = _FileContent()
        return self._content(path).read_on(file)


def as_spec_file(documents: Iterable[Document], path: Path) -> bytes:
    """A SPEC file of one run: what an empty file would hold after the run, had its session begun with the run.

    Args:
        documents: The run, from start to stop.
        path: The name that its `#F` line gives.
    """
    remaining = iter(documents)
    name, start = next(remaining)
    user, _, host = str(start.get("login_id") or getpass.getuser()).partition("@")
    host = host or socket.gethostname() or "localhost"
    scan = _reference_writer()(path, {"epoch": int(start["time"]), "user": user, "host": host})
    scan.take(name, start)
    for name, doc in remaining:
        scan.take(name, doc)
    return _encoded(scan.text(None)).lstrip(b"\n")


def runs_in(path: Path) -> set[str]:
    """The uids of the complete runs in a SPEC file."""
    with path.open("rb") as file:
        return _FileContent().read_on(file).uids


@dataclass
class _FileContent:
    """What a SPEC file holds, read on from where it was read before."""

    inode: int | None = None
    size: int = 0  # bytes read
    highest: int = 0  # scan number
    uids: set[str] = field(default_factory=set)  # of complete scans
    last_uid: str | None = None  # of the last scan, while it is incomplete
    last_start: int = 0  # byte where the last scan, with the blank line before it, begins
    header_keys: list[str] | None = None  # positioners of the last header; None: there is no header
    ends_with_newline: bool = True

    def read_on(self, file: Any) -> _FileContent:
        """Read what was added since the last time; everything if it is another file, or a shorter one."""
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):  # /dev/null, say
            return self
        if status.st_ino != self.inode or status.st_size < self.size:
            fresh = _FileContent(inode=status.st_ino)
            self.__dict__.update(fresh.__dict__)
        file.seek(self.size)
        data = file.read()
        place = self.size
        for line in data.splitlines(keepends=True):
            self._take(line, place)
            place += len(line)
        if data:
            self.size = place
            self.ends_with_newline = data.endswith(b"\n")
        return self

    def _take(self, line: bytes, place: int) -> None:
        if line.startswith(b"#S "):
            self._complete()
            self.last_start = max(0, place - 1)  # the blank line before it
            number = re.match(rb"#S +(\d+)", line)
            if number:
                self.highest = max(self.highest, int(number[1]))
        elif line.startswith(b"#F "):
            self._complete()
            self.header_keys = []
        elif line.startswith(b"#MD uid = "):
            self.last_uid = line[10:].decode("utf-8", "replace").strip()
        elif line.startswith(b"#C ") and b".  exit_status = " in line and line.endswith(b"\n"):
            self._complete()
        elif re.match(rb"#o\d+ ", line) and self.header_keys is not None:
            self.header_keys += line.decode("utf-8", "replace").split()[1:]

    def _complete(self) -> None:
        if self.last_uid is not None:
            self.uids.add(self.last_uid)
            self.last_uid = None


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _torn_prefix(file: Any, block: bytes, first_block: bytes) -> int:
    """How many bytes at the end of the file are the beginning of a block: what a kill in mid-write left.

    Args:
        file: The data file, open for reading.
        block: What would be appended.
        first_block: What would be written to an empty file.
    """
    size = os.fstat(file.fileno()).st_size
    tail_size = min(size, len(first_block) - 1)
    file.seek(size - tail_size)
    tail = file.read(tail_size)
    if size == tail_size and size and first_block.lstrip(b"\n").startswith(tail):
        return size
    beginning = block[: len(b"\n#S 1")]
    start = tail.find(beginning)
    while start >= 0:
        if block.startswith(tail[start:]) and len(tail) - start < len(block):
            return len(tail) - start
        start = tail.find(beginning, start + 1)
    return 0


def _one_line(text: object) -> str:
    return str(text).translate(LINE_ENDS)


def _column_value(value: Any) -> Any:
    """A number as it is, anything else as text (which the writer puts on a line of its own)."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool):
        return int(value)  # a reader of SPEC files takes no True for a number
    if value is None:
        return float("nan")
    if isinstance(value, int | float):
        return value
    if isinstance(value, list | tuple):
        array = np.array(value, dtype=object if _is_ragged(value) else None)
        if array.size > LONGEST_ARRAY:
            return f"array of shape {array.shape}, in the catalog only"
    return _one_line(value)


def _is_ragged(value: Any) -> bool:
    lengths = {len(row) if isinstance(row, list | tuple) else -1 for row in value}
    return len(lengths) > 1


def _names(value: Any) -> list[str]:
    return [str(name) for name in value] if isinstance(value, list | tuple) else [str(value)]


@functools.lru_cache(maxsize=1)
def _reference_writer() -> Any:
    """The class that turns one run into text; made on first use, because apstools takes a while to import."""
    from apstools.callbacks import SpecWriterCallback

    class ReferenceWriter(SpecWriterCallback):
        """apstools' writer, in memory, for one run, that bad metadata can't break."""

        def __new__(cls, *_args: Any) -> Any:
            return object.__new__(cls)  # without the notice to use SpecWriterCallback2, see the module's docstring

        def __init__(self, path: Path, assignment: Mapping[str, Any]) -> None:
            super().__init__(auto_write=False)
            self.spec_filename = path
            self.spec_epoch = assignment["epoch"]
            self.spec_user = assignment["user"]
            self.spec_host = assignment["host"]
            self.scan_id = 0
            self._stopped = False
            self._head: list[str] = []
            self._external: set[str] = set()  # data keys

        def newfile(self, *_args: Any, **_options: Any) -> Path:
            """Choose no file: the base class's constructor would look for one in the working directory."""
            return Path()

        def take(self, name: str, doc: dict[str, Any]) -> None:
            """Take one document, of any kind."""
            if name == "event_page":
                from event_model import unpack_event_page

                for event in unpack_event_page(cast(Any, doc)):
                    self.receiver("event", event)
            elif name in ("start", "descriptor", "event", "resource", "stop"):
                self.receiver(name, doc)  # a datum document says only which frame of the resource a point has

        def add_notes(self, notes: Iterable[Mapping[str, Any]]) -> None:
            """Take people's comments; called after the start document."""
            for note in notes:
                kind = note.get("doc") or ("event" if note["time"] >= self.time else "start")
                self._datetime = datetime.fromtimestamp(note["time"])
                for line in str(note["text"]).splitlines() or [""]:
                    self._cmt(kind, line)

        def start(self, doc: dict[str, Any]) -> None:
            typed = runs.spec_command(doc)
            doc = {key: list(value) if isinstance(value, tuple) else value for key, value in doc.items()}
            doc.setdefault("plan_type", "unknown")
            doc["plan_type"] = str(doc["plan_type"])
            doc.setdefault("scan_id", 0)
            for item in ("detectors", "motors"):
                if item in doc:
                    doc[item] = _names(doc[item])
            if not isinstance(doc.get("hints"), dict):
                doc["hints"] = {}
            if isinstance(doc.get("plan_args"), Mapping):
                doc["plan_args"] = self._plan_args(doc)
            else:
                doc.pop("plan_args", None)
            super().start(doc)
            if typed is not None:  # what SPEC would write, of the scans that are SPEC's
                self.scan_command = f"{doc['scan_id']}  {typed}"

        @staticmethod
        def _plan_args(doc: dict[str, Any]) -> dict[str, Any]:
            arguments = {}
            for key, value in doc["plan_args"].items():
                # The base class looks these up in the start document, where a plan of the user's may lack them.
                if key == "detectors":
                    doc.setdefault("detectors", _names(value))
                elif key.startswith("motor"):
                    doc.setdefault("motors", _names(value))
                arguments[key] = list(value) if isinstance(value, tuple) else value
                if key == "args" and not isinstance(arguments[key], list):
                    arguments[key] = [value]
            return arguments

        def descriptor(self, doc: dict[str, Any]) -> None:
            if doc["uid"] in self._streams:
                return
            doc = self._without_external(doc)
            hints = doc.get("hints") or {}
            doc = {**doc, "hints": {key: {"fields": (hint or {}).get("fields", [])} for key, hint in hints.items()}}
            if doc.get("name") == "primary" and self.data:  # reconfigured in the midst of the run
                self._streams[doc["uid"]] = doc
            else:
                super().descriptor({"name": "primary", **doc})

        def _without_external(self, doc: dict[str, Any]) -> dict[str, Any]:
            """A descriptor without what is in files of its own: images are no columns."""
            self._external |= {key for key, entry in doc["data_keys"].items() if entry.get("external")}
            members = {
                name: [key for key in keys if key not in self._external]
                for name, keys in (doc.get("object_keys") or {}).items()
            }
            return {
                **doc,
                "data_keys": {key: entry for key, entry in doc["data_keys"].items() if key not in self._external},
                "object_keys": {name: keys for name, keys in members.items() if keys},
                "hints": {name: hint for name, hint in (doc.get("hints") or {}).items() if members.get(name, True)},
            }

        def event(self, doc: dict[str, Any]) -> None:
            stream = self._streams.get(doc["descriptor"])
            if stream is None:
                return
            data = {key: _column_value(value) for key, value in doc["data"].items() if key not in self._external}
            if stream["name"] == self._motor_stream_name:
                for key in self.positioners:
                    readback = (stream["object_keys"].get(key) or [key])[0]
                    self.positioners[key] = data.get(key, data.get(readback))
                return
            if stream["name"] == "primary":
                for key in data:
                    self.data.setdefault(key, [0] * self.num_primary_data)
            super().event({**doc, "data": data})

        def stop(self, doc: dict[str, Any]) -> None:
            self._stopped = True
            super().stop({**doc, "exit_status": str(doc.get("exit_status", "not available"))})

        def _write_lines_(self, lines: list[str], mode: str = "a") -> None:
            self._head = lines

        def text(self, header_keys: list[str] | None) -> str:
            """The scan's lines, after a header if the file has none, or one with other positioners.

            Args:
                header_keys: Positioners named by the last header in the file; None if there is no header.
            """
            if not self._stopped:
                self.stop({})
            # The base class stretches its own comments ("#C "), metadata and labels over as many lines as they have.
            self._header_motor_keys = header_keys
            self.write_new_header = header_keys is None
            if self.data:
                self.data = {re.sub(r"\s+", " ", _one_line(key)): column for key, column in self.data.items()}
            lines = [_one_line(line) for line in self.prepare_scan_contents()]
            head = ""
            if self.write_new_header:
                self.write_header()
                head = "\n" + "\n".join(_one_line(line) for line in self._head).lstrip("\n")
            return head + "\n".join([*lines, ""])

    return ReferenceWriter
