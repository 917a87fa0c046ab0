"""The journal's files: one run, one file of msgpack documents in the order in which they were emitted.

A file is what `suitcase.msgpack` writes, a sequence of `[name, document]` arrays, so that databroker's stock
`bluesky-msgpack-catalog` reads it too. Added to that are rules, not bytes:

- `runs/YYYY/MM/<uid>.msgpack`, by the local date of the run's start.
- The process that writes a file holds an exclusive `flock` on it until the stop document is in. A file without a stop
  document whose lock is free was left behind by a process that ended.
- A document is there whole or not at all: a record that ends beyond the end of the file is a torn tail, and is cut off.
- `runs/format.json` names the schema version. Readers refuse a newer one than they know.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import msgpack_numpy
import numpy as np

from instrument.config.errors import UserError

SCHEMA_VERSION = 1
FORMAT_FILE = "format.json"
SUFFIX = ".msgpack"

_HEAD = 16_384  # bytes read at first, in which nearly every start document is
_TAIL = 65_536  # bytes in which a stop document is looked for from the end of the file
_STOP_PREFIX = b"\x92\xa4stop"  # how msgpack begins ["stop", ...]
_PAGE_SIZE = 2500  # events per page handed to databroker, its own choice for MongoDB
_MAX_DEPTH = 100  # msgpack itself gives up at 511
_SPAN_LIMIT = 1000  # more alternations between streams than this are read by scanning
_INTEGERS = range(-(2**63), 2**64)

Document = dict[str, Any]


class RunFileError(UserError):
    """A run's file cannot be written or read."""


class UnstorableError(UserError):
    """A value in a document has no faithful form in msgpack."""


class Record(NamedTuple):
    """One document of a file, and the bytes `[offset, end)` that hold it."""

    name: str
    document: Document
    offset: int
    end: int


@dataclass(frozen=True)
class DataDirectory:
    """What lies where in the directory that `iconfig.yml` calls `data`."""

    root: Path

    @property
    def runs(self) -> Path:
        """The journal's files."""
        return self.root / "runs"

    @property
    def index(self) -> Path:
        """The index of the runs."""
        return self.root / "index.sqlite"

    @property
    def outbox(self) -> Path:
        """What was delivered to whom."""
        return self.root / "outbox.sqlite"

    @property
    def ship(self) -> Path:
        """What the shipping process delivered to whom."""
        return self.root / "ship.sqlite"

    @property
    def ship_lock(self) -> Path:
        """Held by the shipping process."""
        return self.root / "ship.lock"

    @property
    def unpacked(self) -> Path:
        """Where unpacked runs have files of images."""
        return self.root / "unpacked.json"

    @property
    def queue(self) -> Path:
        """What the queue server keeps."""
        return self.root / "queue"

    @property
    def tiled(self) -> Path:
        """What a Tiled server of ours keeps."""
        return self.root / "tiled"

    @property
    def state(self) -> Path:
        """What `RE.md` keeps between sessions."""
        return self.root / "state.json"

    @property
    def sessions(self) -> Path:
        """One lock file per living session."""
        return self.root / "sessions"


# -- paths and the schema version --------------------------------------------------------------------------------


def run_path(runs: Path, start: Mapping[str, Any]) -> Path:
    """The file of the run that begins with this start document."""
    when = time.localtime(start["time"])
    return runs / f"{when.tm_year:04d}" / f"{when.tm_mon:02d}" / f"{start['uid']}{SUFFIX}"


def month_directories(runs: Path) -> list[Path]:
    """Every `YYYY/MM` directory, oldest first; `runs` itself too, where files of other writers may lie."""
    return [runs / name for name in month_names(runs)]


def month_names(runs: Path) -> list[str]:
    """The directories of `month_directories`, relative to `runs`: `.`, `2026/11`."""
    found = ["."] if runs.is_dir() else []
    for year in _numbered(os.fspath(runs), 4):
        found.extend([f"{year}/{month}" for month in _numbered(f"{runs}/{year}", 2)])
    return found


def _numbered(directory: str, digits: int) -> list[str]:
    try:
        names = [entry.name for entry in os.scandir(directory) if entry.name.isdigit() and entry.is_dir()]
    except OSError:
        return []
    return sorted(name for name in names if len(name) == digits)


def find_run(runs: Path, uid: str) -> Path | None:
    """The file of a run, without an index."""
    for directory in reversed(month_directories(runs)):
        path = directory / f"{uid}{SUFFIX}"
        if path.exists():
            return path
    return None


def check_schema(runs: Path) -> None:
    """Refuse a directory that a newer version wrote.

    Raises:
        RunFileError: the schema version is not one that this version reads.
    """
    path = runs / FORMAT_FILE
    try:
        version = json.loads(path.read_text())["schema"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        return  # a damaged label says nothing about the runs; each file is checked as it is read
    if version != SCHEMA_VERSION:
        raise RunFileError(
            f"the runs in {runs} have schema version {version}, this version of instrument reads {SCHEMA_VERSION}: "
            "use the version that wrote them"
        )


def write_schema(runs: Path) -> None:
    """Label a directory of runs with the schema version, once."""
    path = runs / FORMAT_FILE
    if path.exists():
        check_schema(runs)
        return
    draft = runs / f".{FORMAT_FILE}.{os.getpid()}"
    draft.write_text(json.dumps({"format": "suitcase-msgpack", "schema": SCHEMA_VERSION}) + "\n")
    draft.replace(path)


# -- encoding ----------------------------------------------------------------------------------------------------

_PLAIN = frozenset({float, int, str, bool, type(None), bytes, np.float64})


def _encode_other(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        msg = "an array of objects"
        raise TypeError(msg)
    if isinstance(value, np.ndarray) and value.dtype.kind in "mM":  # dates have no buffer that msgpack_numpy could take
        shape = value.shape
        return {b"nd": True, b"type": value.dtype.str, b"kind": b"", b"shape": shape, b"data": value.tobytes()}
    if isinstance(value, np.datetime64 | np.timedelta64):
        return {b"nd": False, b"type": value.dtype.str, b"data": value.tobytes()}
    return msgpack_numpy.encode(value)


def decode_map(value: dict) -> Any:
    """The hook that turns maps back into arrays; a pickle stays as it is, since unpacking one runs code."""
    if b"nd" in value and value.get(b"kind") == b"O":
        return value
    return msgpack_numpy.decode(value)


def make_packer() -> Callable[[Any], bytes]:
    """A function that packs one document, or one `(name, document)`; one per thread."""
    return msgpack.Packer(default=_encode_other, use_bin_type=True).pack


def unstorable(value: Any, key: str = "", depth: int = 0) -> str | None:
    """Name the first value that cannot be stored and read back as it is.

    Returns:
        `key 'a.b' is a datetime`, or None where all of it can be stored.
    """
    kind = type(value)
    if kind in _PLAIN:
        if kind is int and value not in _INTEGERS:
            return f"key {key!r} is an integer of more than 64 bits"
        if kind is str and not value.isascii() and not _is_unicode(value):
            return f"key {key!r} is a text that is not valid Unicode"
        return None
    if depth > _MAX_DEPTH:
        return f"key {key!r} is nested more than {_MAX_DEPTH} deep"
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                return f"key {key!r} has a key {name!r} that is no text" if key else f"key {name!r} is no text"
            problem = unstorable(item, f"{key}.{name}" if key else name, depth + 1)
            if problem:
                return problem
        return None
    if isinstance(value, list | tuple):
        for position, item in enumerate(value):
            problem = unstorable(item, f"{key}[{position}]", depth + 1)
            if problem:
                return problem
        return None
    if isinstance(value, enum.Enum) and not isinstance(value, str | int | float):
        return f"key {key!r} is an enumeration ({kind.__name__}); give its value"
    if isinstance(value, np.ndarray):
        return f"key {key!r} is an array of objects" if value.dtype.hasobject else None
    if isinstance(value, np.bool_ | np.number | np.datetime64 | complex | bytes | bytearray | memoryview | str | float):
        return None
    if isinstance(value, int):
        return None if int(value) in _INTEGERS else f"key {key!r} is an integer of more than 64 bits"
    name = f"{kind.__module__}.{kind.__name__}".replace("builtins.", "")
    return f"key {key!r} is {'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _unpackable(document: Mapping[str, Any], key: str = "") -> str:
    """Find, by trying, the key whose value msgpack does not take."""
    pack = make_packer()
    for name, value in document.items():
        try:
            pack(value)
        except Exception:
            inner = f"{key}.{name}" if key else name
            return _unpackable(value, inner) if isinstance(value, Mapping) else f"key {inner!r}"
    return f"key {key!r}"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Refuse metadata that could not be stored, before a run starts.

    Raises:
        UnstorableError: naming the key.
    """
    problem = unstorable(dict(metadata))
    if problem:
        raise UnstorableError(
            f"metadata {problem}, which cannot be stored: the run was not started; "
            "give numbers, text, lists, dictionaries or arrays"
        )


def check_document(name: str, document: Mapping[str, Any]) -> None:
    """Refuse a document that could not be stored. Events of plain values cost a microsecond.

    Raises:
        UnstorableError: naming the document and the key.
    """
    if name == "event":
        for value in document["data"].values():
            if type(value) not in _PLAIN:
                break
        else:
            return
        problem = unstorable(document["data"])
    else:
        problem = unstorable(document)
    if problem:
        raise UnstorableError(f"{name} document: {problem}, which cannot be stored: change what the device returns")


# -- layout ------------------------------------------------------------------------------------------------------


@dataclass
class Layout:
    """Where in a file things are: the single documents, and the spans in which each stream's events lie."""

    documents: list[tuple[str, int, int]] = field(default_factory=list)
    spans: dict[str, list[list[int]]] = field(default_factory=dict)  # descriptor or resource uid: [offset, end, count]
    size: int = 0  # how much of the file is described
    _last_event: str | None = None

    def add(self, name: str, document: Mapping[str, Any], offset: int, end: int) -> None:
        """Take note of one document."""
        self.size = end
        if name == "event":
            key, count = document["descriptor"], 1
        elif name == "event_page":
            key, count = document["descriptor"], len(document["seq_num"])
        elif name == "datum":
            self._span(document["resource"], 1, offset, end, joined=True)
            return
        elif name == "datum_page":
            self._span(document["resource"], len(document["datum_id"]), offset, end, joined=True)
            return
        elif name == "stream_datum":
            self._span(document["stream_resource"], 1, offset, end, joined=True)
            return
        else:
            self.documents.append((name, offset, end))
            return
        self._span(key, count, offset, end, joined=key == self._last_event)
        self._last_event = key

    def _span(self, key: str, count: int, offset: int, end: int, *, joined: bool) -> None:
        spans = self.spans.setdefault(key, [])
        if spans and (joined or len(spans) >= _SPAN_LIMIT):
            spans[-1][1] = end
            spans[-1][2] += count
        else:
            spans.append([offset, end, count])

    def count(self, key: str) -> int:
        """How many events of a descriptor, or datums of a resource."""
        return sum(span[2] for span in self.spans.get(key, ()))

    def pack(self) -> bytes:
        """As bytes, for the index."""
        return make_packer()([self.documents, self.spans, self.size, self._last_event])

    @classmethod
    def unpack(cls, packed: bytes) -> Layout:
        """From the bytes of `pack`."""
        documents, spans, size, last = msgpack.unpackb(packed)
        return cls([(name, offset, end) for name, offset, end in documents], spans, size, last)


# -- reading -----------------------------------------------------------------------------------------------------


class RunFile:
    """One run's file, for reading: whole, torn, damaged, or still growing."""

    def __init__(self, path: Path, layout: Layout | None = None) -> None:
        self.path = path
        self.layout = layout or Layout()
        self._cache: dict[int, Document] = {}
        self.damage: str | None = None
        self.torn = False

    def records(self, offset: int = 0, end: int | None = None) -> Iterator[Record]:
        """The documents in `[offset, end)`; ends at a torn tail or at damage, which `damage` then describes."""
        self.damage, self.torn = None, False
        for record in self._read(offset, end):
            if isinstance(record, Record):
                yield record
            else:
                self.damage, self.torn = record

    def _read(self, offset: int, end: int | None) -> Iterator[Record | tuple[str, bool]]:
        """The documents, and at last, if there is any, what the damage is and whether it is but a torn tail."""
        with self.path.open("rb") as file:
            file.seek(offset)
            unpacker = msgpack.Unpacker(file, object_hook=decode_map, raw=False, max_buffer_size=2**31 - 1)
            position = offset
            while end is None or position < end:
                try:
                    record = unpacker.unpack()
                except msgpack.OutOfData:
                    if os.fstat(file.fileno()).st_size > position:
                        yield f"ends within a document, after {position} bytes", True
                    return
                except Exception as error:  # any bytes may be in a damaged file
                    yield f"has no document at byte {position} ({error or type(error).__name__})", False
                    return
                name, document = record if isinstance(record, list) and len(record) == 2 else (None, None)
                if not isinstance(name, str) or not isinstance(document, dict):
                    yield f"has no document at byte {position}", False
                    return
                after = offset + unpacker.tell()
                yield Record(name, document, position, after)
                position = after

    def __iter__(self) -> Iterator[tuple[str, Document]]:
        """Every document as `(name, document)`."""
        for record in self.records():
            yield record.name, record.document

    def survey(self) -> Layout:
        """Bring the layout up to the end of the file."""
        if self.path.stat().st_size > self.layout.size:
            for record in self.records(self.layout.size):
                self.layout.add(record.name, record.document, record.offset, record.end)
        return self.layout

    def single(self, name: str) -> list[Document]:
        """The documents of one kind that are not events or datums."""
        return [self._at(offset, end) for kind, offset, end in self.layout.documents if kind == name]

    def _at(self, offset: int, end: int) -> Document:
        if offset not in self._cache:
            record = next(self._read(offset, end))
            if not isinstance(record, Record):
                raise RunFileError(f"{self.path} {record[0]}: it was changed since it was read before")
            self._cache[offset] = record.document
        return self._cache[offset]

    def event_pages(self, descriptor: str) -> Iterator[Document]:
        """The events of one descriptor in pages."""
        from event_model import pack_event_page

        yield from self._pages(descriptor, "event", "descriptor", pack_event_page)

    def datum_pages(self, resource: str) -> Iterator[Document]:
        """The datums of one resource in pages."""
        from event_model import pack_datum_page

        yield from self._pages(resource, "datum", "resource", pack_datum_page)

    def _pages(self, key: str, name: str, foreign: str, pack: Callable) -> Iterator[Document]:
        loose: list[Document] = []
        for offset, end, _ in self.layout.spans.get(key, ()):
            for record in self._read(offset, end):
                if not isinstance(record, Record) or record.document.get(foreign) != key:
                    continue
                if record.name == name:
                    loose.append(record.document)
                elif record.name == f"{name}_page":
                    if loose:
                        yield pack(*loose)
                        loose = []
                    yield record.document
                if len(loose) >= _PAGE_SIZE:
                    yield pack(*loose)
                    loose = []
        if loose:
            yield pack(*loose)


def single_documents(name: str, document: Document) -> Iterable[tuple[str, Document]]:
    """A document, or the events or datums that a page holds."""
    if name not in {"event_page", "datum_page"}:
        return [(name, document)]
    from event_model import unpack_datum_page, unpack_event_page

    page: Any = document
    singles: Iterable[Any] = unpack_event_page(page) if name == "event_page" else unpack_datum_page(page)
    return ((name.removesuffix("_page"), single) for single in singles)


@dataclass
class Glance:
    """What can be known of a file from its beginning and its end."""

    start: Document
    stop: Document | None
    size: int
    problem: str | None = None


def glance(path: Path) -> Glance:
    """Read a file's start and stop documents, whatever lies between them.

    Raises:
        RunFileError: the file does not begin with a start document.
        OSError: it cannot be read.
    """
    found = _glance_at_whole(path)
    if found is not None:
        return found
    run = RunFile(path)
    first = next(run.records(), None)
    if first is None or first.name != "start" or not _is_start(first.document):
        if first is None and path.stat().st_size == 0:
            raise RunFileError(f"{path} is empty")
        raise RunFileError(f"{path} is not a run: it {run.damage or 'does not begin with a start document'}")
    layout = run.survey()
    return Glance(first.document, next(iter(run.single("stop")), None), layout.size, run.damage)


def _glance_at_whole(path: Path) -> Glance | None:
    """The start and stop documents of a whole run, with two short reads; None for whatever is no such file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.read(descriptor, _HEAD)
        size = os.fstat(descriptor).st_size
        tail = head if size <= len(head) else os.pread(descriptor, _TAIL, max(0, size - _TAIL))
    finally:
        os.close(descriptor)
    unpacker = msgpack.Unpacker(object_hook=decode_map, raw=False, max_buffer_size=_HEAD)
    unpacker.feed(head)
    try:
        name, start = unpacker.unpack()
    except Exception:  # a start document longer than that, or any bytes
        return None
    if name != "start" or not isinstance(start, dict) or not _is_start(start):
        return None
    stop = _stop_at_end(tail, start["uid"])
    return None if stop is None else Glance(start, stop, size)


def _is_start(document: Document) -> bool:
    return isinstance(document.get("uid"), str) and isinstance(document.get("time"), int | float)


def _stop_at_end(tail: bytes, uid: str) -> Document | None:
    """The stop document, if a file ends with one."""
    position = tail.rfind(_STOP_PREFIX)
    while position >= 0:
        try:
            _, document = msgpack.unpackb(tail[position:], object_hook=decode_map, raw=False)
        except Exception:  # the bytes only looked like a stop document
            document = None
        if isinstance(document, dict) and document.get("run_start") == uid:
            return document
        position = tail.rfind(_STOP_PREFIX, 0, position)
    return None


# -- writing -----------------------------------------------------------------------------------------------------


_WRITING = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
_NEW = os.O_CREAT | os.O_EXCL


class RunWriter:
    """One run's file, for appending, owned by this process.

    Each document goes to the operating system in one write before `append` returns, so that the end of this process
    loses none. A write that fails leaves the file as it was before it.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        """Create the file of a new run, or take over one whose owner has ended.

        Raises:
            FileExistsError: there is such a run already.
            BlockingIOError: its owner is alive.
            OSError: it cannot be created or opened.
        """
        self.path = path
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        flags = _WRITING | (_NEW if create else 0)
        self._descriptor = os.open(path, flags, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if create else fcntl.LOCK_NB))  # a look lasts microseconds
        except OSError as error:
            os.close(self._descriptor)
            if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
                raise BlockingIOError(error.errno, os.strerror(error.errno), str(path)) from None
            raise
        self.size = os.fstat(self._descriptor).st_size
        self.layout = Layout(size=self.size)
        self.dirty = create
        self._pack = make_packer()

    def append(self, name: str, document: Mapping[str, Any]) -> None:
        """Append one document.

        Raises:
            UnstorableError: it cannot be stored; the file is unchanged.
            OSError: it cannot be written; the file is unchanged.
        """
        check_document(name, document)
        try:
            packed = self._pack((name, document))
        except (TypeError, ValueError, OverflowError) as error:
            problem = unstorable(document) or f"{_unpackable(document)} ({error})"
            raise UnstorableError(f"{name} document: {problem}, which cannot be stored") from error
        offset = self.size
        try:
            written = os.write(self._descriptor, packed)
            while written < len(packed):  # a nearly full disk takes a part
                written += os.write(self._descriptor, packed[written:])
        except OSError:
            os.ftruncate(self._descriptor, offset)
            raise
        self.size = offset + written
        self.dirty = True
        self.layout.add(name, document, offset, self.size)

    def truncate(self, size: int) -> None:
        """Cut off a torn tail."""
        os.ftruncate(self._descriptor, size)
        self.size = size
        self.dirty = True

    def removed(self) -> bool:
        """Whether somebody removed the file: what is appended would be nowhere."""
        return os.fstat(self._descriptor).st_nlink == 0

    def write_again(self) -> None:
        """Write the file again that was removed; as long as this process has it open, nothing of it is lost.

        Raises:
            OSError: it cannot be written.
        """
        descriptor = os.open(self.path, _WRITING | _NEW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            offset = 0
            while offset < self.size:
                offset += os.write(descriptor, os.pread(self._descriptor, min(self.size - offset, 1 << 20), offset))
        except OSError:
            self.path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        os.close(self._descriptor)
        self._descriptor = descriptor
        self.dirty = True

    def sync(self) -> None:
        """Wait until all that was written is on the disk."""
        self.dirty = False
        try:
            os.fsync(self._descriptor)
        except OSError:
            self.dirty = True
            raise

    def duplicate(self) -> int:
        """A descriptor of its own for who syncs in another thread."""
        self.dirty = False
        return os.dup(self._descriptor)

    def close(self) -> None:
        """Give up ownership."""
        if self._descriptor >= 0:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # a duplicate may live a moment longer
            os.close(self._descriptor)
            self._descriptor = -1


def sync_directory(directory: Path) -> None:
    """Wait until the names in a directory are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def has_owner(path: Path) -> bool:
    """Whether a living process is writing this file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
