"""The index beside the runs: what a search needs, so that no file is opened that is not asked for.

SQLite, with the start and stop documents, every metadata key, every word, and where in each file its streams lie. The
writer keeps it up; whoever reads brings it up to date first (`refresh`), which costs a `stat` per month of data. It can
be deleted at any time: the files are the truth, and it is rebuilt from them. One thing it alone knows, the order of
arrival where a clock was set back: rebuilt, it has runs by the times at which they say that they began.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgpack
import numpy as np

from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.framework.runfiles import (
    FORMAT_FILE,
    SUFFIX,
    Document,
    Glance,
    Layout,
    RunFile,
    RunFileError,
    decode_map,
    glance,
    has_owner,
    make_packer,
    month_names,
)

logger = logging.getLogger(LOGGER_NAME)

_T = TypeVar("_T")

_VERSION = 2
_BUSY_TIMEOUT = 5.0  # s; another session's transactions take milliseconds
_RACY = 100_000_000  # ns: a directory changed this recently may change again within one tick of its time stamp
_BATCH = 200  # files taken in per transaction, so that a rebuild does not hold up a scan
_LONG_LIST = 1000  # longer lists in metadata are kept, but not searched
_COLUMNS = {"uid": "uid", "time": "time", "scan_id": "scan_id", "plan_name": "plan_name"}
_COMPARISONS = {"$eq": "=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, path TEXT NOT NULL UNIQUE, directory TEXT NOT NULL,
    position REAL NOT NULL, time REAL NOT NULL, scan_id INTEGER, plan_name TEXT,
    closed INTEGER NOT NULL DEFAULT 0, stop_time REAL, exit_status TEXT, size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS documents (run INTEGER PRIMARY KEY, start BLOB NOT NULL, stop BLOB, layout BLOB);
CREATE INDEX IF NOT EXISTS runs_position ON runs (position);
CREATE INDEX IF NOT EXISTS runs_time ON runs (time);
CREATE INDEX IF NOT EXISTS runs_scan_id ON runs (scan_id);
CREATE INDEX IF NOT EXISTS runs_plan_name ON runs (plan_name);
CREATE INDEX IF NOT EXISTS runs_directory ON runs (directory);
CREATE INDEX IF NOT EXISTS runs_open ON runs (id) WHERE closed = 0;
CREATE TABLE IF NOT EXISTS metadata (run INTEGER NOT NULL, key TEXT NOT NULL, value);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (text, tokenize = "porter unicode61");
CREATE TABLE IF NOT EXISTS directories (path TEXT PRIMARY KEY, mtime INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS unreadable (path TEXT PRIMARY KEY, size INTEGER, reason TEXT NOT NULL);
"""
# Made when the rows are there, where many come at once: a third of the time.
_METADATA_INDEXES = {"metadata_key": "metadata (key, value, run)", "metadata_run": "metadata (run)"}
_ROW = "uid, path, start, stop, size, layout"


@dataclass(frozen=True)
class Row:
    """One run, as the index knows it."""

    uid: str
    path: Path
    start: Document
    stop: Document | None
    size: int
    layout: Layout | None


@dataclass(frozen=True)
class _Look:
    """What a look at a new file found."""

    path: str
    size: int
    found: Glance | None
    reason: str | None = None
    pending: bool = False  # its writer is about to write


class _New(NamedTuple):
    """A run to be inserted."""

    path: str  # relative to the directory of runs
    position: float
    start: Document
    stop: Document | None
    size: int


class RunNotFoundError(UserError, KeyError, IndexError):
    """No run answers to this; told in one line where stock databroker raises KeyError or IndexError."""

    def __str__(self) -> str:
        """The line without the quotes that KeyError adds."""
        return str(self.args[0])


class AmbiguousUidError(UserError, ValueError):
    """Several runs answer to this."""


class RunIndex:
    """The index of one directory of runs. May be used from any thread; each process has its own object."""

    def __init__(self, path: Path | None, runs: Path) -> None:
        """Open or create the index; one that is damaged or of another version is replaced.

        Args:
            path: the SQLite file. Where it cannot be written, the index is kept in memory.
            runs: the directory of the journal's files.
        """
        self.runs = runs
        self.path = path
        self._lock = threading.RLock()
        self._pack = make_packer()
        self._reported: set[str] = set()
        self._untold: list[str] = []  # messages of a refresh that nobody asked for
        self._refreshed = False
        self._unindexed = False  # the metadata have no indexes now, since very many come
        self.empty: set[Path] = set()  # files without a byte, met by the last look at their directory
        self._database = self._open()

    # -- opening ---------------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        for attempt in range(2):
            if self.path is None:
                break
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                return self._connect(str(self.path))
            except sqlite3.OperationalError:
                break  # not writable here
            except sqlite3.DatabaseError:
                if attempt:
                    break
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            except OSError:
                break
        self.path = None
        return self._connect(":memory:")

    def _connect(self, name: str) -> sqlite3.Connection:
        database = sqlite3.connect(name, timeout=_BUSY_TIMEOUT, check_same_thread=False, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the index, which is rebuilt
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version not in {0, _VERSION}:
                msg = "written by another version"
                raise sqlite3.DatabaseError(msg)
            if version == 0:
                database.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA.split(";\n"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {_VERSION}")
                database.execute("COMMIT")
            database.execute("SELECT count(*) FROM directories").fetchone()
            _index_metadata(database)
        except BaseException:
            database.close()
            raise
        database.create_function("regexp", 3, _matches, deterministic=True)
        return database

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _kept(self, work: Callable[[], _T]) -> _T:
        """Do some work on the database; where it cannot be written any more, in memory from then on."""
        with self._lock:
            try:
                return work()
            except sqlite3.Error as error:
                if self.path is None:
                    raise
                logger.warning("the index %s cannot be used (%s): this session keeps it in memory", self.path, error)
                self._to_memory()
                return work()

    def _to_memory(self) -> None:
        memory = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        try:
            self._database.backup(memory)
            memory.execute(
                "SELECT r.id FROM runs r, documents, metadata, words, directories, unreadable LIMIT 1"
            ).fetchone()
            memory.create_function("regexp", 3, _matches, deterministic=True)
        except sqlite3.Error:
            memory.close()
            memory = self._connect(":memory:")  # filled again from the files
        self._database.close()
        self._database = memory
        self.path = None

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.runs).as_posix()

    # -- the writer's side -----------------------------------------------------------------------------------------

    def opened(self, path: Path, start: Mapping[str, Any], directory_before: int | None) -> None:
        """A run's file was created and holds its start document.

        Args:
            path: the file.
            start: the start document.
            directory_before: the modification time (ns) of the file's directory before it was created, None if it did
                not exist. Where that was the state that the index knew, it still knows all after this.
        """
        self._kept(lambda: self._opened(path, start, directory_before))

    def _opened(self, path: Path, start: Mapping[str, Any], directory_before: int | None) -> None:
        directory = self._relative(path.parent)
        with self._transaction() as database:
            position = _after(database, start["time"])
            if database.execute("SELECT 1 FROM runs WHERE uid = ?", (start["uid"],)).fetchone() is None:
                new = _New(self._relative(path), position, dict(start), None, path.stat().st_size)
                self._insert(database, [new])
            known = database.execute("SELECT mtime FROM directories WHERE path = ?", (directory,)).fetchone()
            complete = known == (directory_before,) or (known is None and directory_before is None)
            mtime = path.parent.stat().st_mtime_ns if complete else 0
            database.execute("INSERT OR REPLACE INTO directories VALUES (?, ?)", (directory, mtime))

    def closed(self, path: Path, stop: Mapping[str, Any], layout: Layout) -> None:
        """A run's file has its stop document."""
        self._kept(lambda: self._closed(path, stop, layout))

    def _closed(self, path: Path, stop: Mapping[str, Any], layout: Layout) -> None:
        with self._transaction() as database:
            self._set_stop(database, self._relative(path), stop, layout.size, layout)

    def _set_stop(
        self, database: sqlite3.Connection, path: str, stop: Mapping[str, Any], size: int, layout: Layout | None
    ) -> None:
        found = database.execute("SELECT id FROM runs WHERE path = ?", (path,)).fetchone()
        if found is None:
            return
        database.execute(
            "UPDATE runs SET closed = 1, stop_time = ?, exit_status = ?, size = ? WHERE id = ?",
            (*_stop_columns(stop), size, *found),
        )
        packed = layout.pack() if layout else None
        database.execute("UPDATE documents SET stop = ?, layout = ? WHERE run = ?", (self._pack(stop), packed, *found))

    def _insert(self, database: sqlite3.Connection, runs: Iterable[_New]) -> None:
        """Insert runs, of which none is there yet."""
        number = database.execute("SELECT coalesce(max(id), 0) FROM runs").fetchone()[0]
        rows, documents, metadata, words = [], [], [], []
        for number, run in enumerate(runs, number + 1):  # noqa: B020  counted on
            start, stop = run.start, run.stop
            plan = start.get("plan_name")
            rows.append((
                *(number, start["uid"], run.path, run.path.rpartition("/")[0] or ".", run.position),
                *(float(start["time"]), _scan_id(start), plan if isinstance(plan, str) else None, run.size),
                *((1, *_stop_columns(stop)) if stop is not None else (0, None, None)),
            ))  # fmt: skip
            documents.append((number, self._pack(start), None if stop is None else self._pack(stop)))
            pairs = _flatten(start)
            metadata.extend([(number, key, value) for key, value in pairs])
            words.append((number, "\n".join([value for _, value in pairs if isinstance(value, str)])))
        database.executemany(
            "INSERT INTO runs (id, uid, path, directory, position, time, scan_id, plan_name, size, closed, stop_time,"
            " exit_status) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        database.executemany("INSERT INTO documents (run, start, stop) VALUES (?, ?, ?)", documents)
        database.executemany("INSERT INTO metadata VALUES (?, ?, ?)", metadata)
        database.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", words)

    # -- keeping up with the files ---------------------------------------------------------------------------------

    def refresh(self) -> list[str]:
        """Take in what has changed in the directory since the index was last brought up to date.

        Returns:
            One line for each file that cannot be read or is cut short, the first time it is met.
        """
        messages = [*self._untold, *self._kept(self._refresh)]
        self._untold.clear()
        return messages

    def _refresh(self) -> list[str]:
        with self._lock:
            try:
                return self._take_in_changes()
            finally:
                if self._unindexed:
                    _index_metadata(self._database)
                    self._unindexed = False

    def _take_in_changes(self) -> list[str]:
        messages: list[str] = []
        with self._lock:
            if not self._refreshed:
                self._refreshed = True
                messages.extend(line for line in self.unreadable() if self._first_time(line))
            known = dict(self._database.execute("SELECT path, mtime FROM directories"))
            present = month_names(self.runs)
            root = os.fspath(self.runs)
            for name in present:  # of many years: paths are made only for what has changed
                try:
                    mtime = os.stat(f"{root}/{name}").st_mtime_ns
                except FileNotFoundError:
                    continue
                if known.get(name) != mtime:
                    messages.extend(self._scan(self.runs / name, name, mtime))
            for name in known.keys() - set(present):
                self._remove(name, [path for (path,) in self._paths(name)])
            messages.extend(self._follow_open_runs())
        return messages

    def _paths(self, directory: str) -> list[tuple[str]]:
        return self._database.execute("SELECT path FROM runs WHERE directory = ?", (directory,)).fetchall()

    def _scan(self, directory: Path, name: str, mtime: int) -> list[str]:
        messages = []
        prefix = "" if name == "." else f"{name}/"
        indexed = {path for (path,) in self._paths(name)}  # first: a writer may add a file and its row at any moment
        files = {prefix + entry.name for entry in os.scandir(directory) if _is_run_name(entry)}
        unreadable = dict(
            self._database.execute("SELECT path, size FROM unreadable WHERE path LIKE ?", (f"{prefix}%",)).fetchall()
        )
        self._remove(name, indexed - files)
        fresh = [path for path in sorted(files - indexed) if not self._known_unreadable(path, unreadable)]
        unfinished = False
        if len(fresh) > _BATCH and self._database.execute("SELECT 1 FROM runs LIMIT 1").fetchone() is None:
            self._unindexed = True
            for index in _METADATA_INDEXES:
                self._database.execute(f"DROP INDEX IF EXISTS {index}")
        for first in range(0, len(fresh), _BATCH):
            looks = [self._look(path) for path in fresh[first : first + _BATCH]]
            new: dict[str, _New] = {}
            with self._transaction() as database:
                for look in looks:
                    reason = look.reason or self._take_in(database, look, new)
                    if look.pending:
                        unfinished = True
                        if not look.size:
                            self.empty.add(self.runs / look.path)
                    elif reason:
                        database.execute(
                            "INSERT OR REPLACE INTO unreadable VALUES (?, ?, ?)", (look.path, look.size, reason)
                        )
                        messages.append(reason)
                self._insert(database, new.values())
                if unreadable:
                    database.executemany("DELETE FROM unreadable WHERE path = ?", ((run.path,) for run in new.values()))
        if unfinished or time.time_ns() - mtime < _RACY:
            mtime = 0  # look again next time
        if mtime or name not in dict(self._database.execute("SELECT path, mtime FROM directories")):
            with self._transaction() as database:
                database.execute("INSERT OR REPLACE INTO directories VALUES (?, ?)", (name, mtime))
        return [message for message in messages if self._first_time(message)]

    def _known_unreadable(self, path: str, unreadable: dict[str, int]) -> bool:
        try:
            return path in unreadable and (self.runs / path).stat().st_size == unreadable[path]
        except OSError:
            return False

    def _look(self, path: str) -> _Look:
        file = self.runs / path
        size = 0
        try:
            found = glance(file)
            return _Look(path, found.size, found)
        except (RunFileError, OSError) as error:
            size = file.stat().st_size if file.exists() else 0
            reason = f"{error}: it is left out of the catalog; move it away to be rid of this line"
        try:
            pending = size == 0 or has_owner(file)
        except OSError:
            pending = True
        return _Look(path, size, None, reason, pending)

    def _take_in(self, database: sqlite3.Connection, look: _Look, new: dict[str, _New]) -> str | None:
        """Take a file to those that are inserted; returns why not, if it cannot be."""
        if look.found is None:
            return None
        start = look.found.start
        uid = start["uid"]
        if uid in new:
            other = new[uid].path
        else:
            found = database.execute("SELECT path FROM runs WHERE uid = ?", (uid,)).fetchone()
            other = found[0] if found else None
        if other == look.path:
            return None  # its writer was faster
        if other is not None and (self.runs / other).exists():
            return f"{self.runs / look.path} is a second copy of the run in {self.runs / other}: remove one of them"
        if other is not None:
            self._delete(database, [other])
        position = float(start["time"])
        if look.found.stop is None:
            position = _after(database, position)
        new[uid] = _New(look.path, position, start, look.found.stop, look.found.size)
        return None

    def _remove(self, directory: str, paths: Iterable[str]) -> None:
        paths = list(paths)
        gone = [
            path for (path,) in self._database.execute("SELECT path FROM unreadable") if not (self.runs / path).exists()
        ]
        if not paths and not gone and (self.runs / directory).exists():
            return
        with self._transaction() as database:
            self._delete(database, paths)
            database.executemany("DELETE FROM unreadable WHERE path = ?", ((path,) for path in gone))
            if not (self.runs / directory).exists():
                database.execute("DELETE FROM directories WHERE path = ?", (directory,))

    @staticmethod
    def _delete(database: sqlite3.Connection, paths: Iterable[str]) -> None:
        for path in paths:
            found = database.execute("SELECT id FROM runs WHERE path = ?", (path,)).fetchone()
            if found:
                database.execute("DELETE FROM metadata WHERE run = ?", found)
                database.execute("DELETE FROM words WHERE rowid = ?", found)
                database.execute("DELETE FROM documents WHERE run = ?", found)
                database.execute("DELETE FROM runs WHERE id = ?", found)

    def _follow_open_runs(self) -> list[str]:
        """Runs whose stop document the index has not seen: it may have been written since."""
        messages = []
        for path, size in self._database.execute("SELECT path, size FROM runs WHERE closed = 0").fetchall():
            file = self.runs / path
            try:
                if has_owner(file):
                    continue  # it has none: its writer holds it until then
                now = file.stat().st_size
                if now == size:
                    if f"open {path}" in self._reported:
                        continue
                    self._reported.add(f"open {path}")
                    messages.append(f"{file} has no stop document, and no session is writing it: it shows what it has")
                    continue
                found = glance(file)
            except (OSError, RunFileError):
                continue
            with self._transaction() as database:
                if found.stop is not None:
                    self._set_stop(database, path, found.stop, found.size, None)
                else:
                    database.execute("UPDATE runs SET size = ? WHERE path = ?", (now, path))
                    messages.append(f"{file} {found.problem or 'has no stop document'}: it shows what it has")
                    self._reported.add(f"open {path}")
        return [message for message in messages if self._first_time(message)]

    def _first_time(self, message: str) -> bool:
        new = message not in self._reported
        self._reported.add(message)
        return new

    def unreadable(self) -> list[str]:
        """One line for each file that is left out."""
        with self._lock:
            return [reason for (reason,) in self._database.execute("SELECT reason FROM unreadable ORDER BY path")]

    def remember_layout(self, uid: str, layout: Layout) -> None:
        """Keep what a complete reading of a run found out."""
        try:
            with self._transaction() as database:
                database.execute(
                    "UPDATE documents SET layout = ? WHERE run = (SELECT id FROM runs WHERE uid = ?)",
                    (layout.pack(), uid),
                )
        except sqlite3.Error:
            return  # it is only quicker with it

    # -- in the order of arrival -----------------------------------------------------------------------------------

    def last_arrival(self) -> int:
        """The number under which the last run came to the index, 0 if there is none; smaller after a rebuild."""
        return self._one("SELECT coalesce(max(id), 0) FROM runs")

    def last_position(self) -> float | None:
        """The place of the newest run, None if there is none. Each new one comes after it, whatever the clock says."""
        return self._one("SELECT max(position) FROM runs")

    def arrivals(self, number: int, position: float) -> list[tuple[str, Path, int | None, float, bool]]:
        """The runs that arrived after the one with that number, and whose place is after that position.

        Returns:
            For each its uid, file, scan number, position, and whether it is complete; in the order of position.
        """
        with self._lock:
            rows = self._database.execute(
                "SELECT uid, path, scan_id, position, closed FROM runs WHERE id > ? AND position > ? ORDER BY position",
                (number, position),
            ).fetchall()
        return [(uid, self.runs / path, scan_id, place, bool(closed)) for uid, path, scan_id, place, closed in rows]

    def began_since(self, when: float) -> list[tuple[str, Path, int | None]]:
        """The runs that began then (s since the epoch) or later, oldest first: uid, file and scan number of each."""
        with self._lock:
            rows = self._database.execute(
                "SELECT uid, path, scan_id FROM runs WHERE time >= ? ORDER BY position", (when,)
            ).fetchall()
        return [(uid, self.runs / path, scan_id) for uid, path, scan_id in rows]

    def complete_after(self, position: float) -> int:
        """How many complete runs have their place after that position."""
        return self._one("SELECT count(*) FROM runs WHERE closed = 1 AND position > ?", position)

    def going_on(self, uids: Iterable[str]) -> set[str]:
        """Which of these runs have no stop document yet."""
        with self._lock:
            open_now = {uid for (uid,) in self._database.execute("SELECT uid FROM runs WHERE closed = 0")}
        return open_now.intersection(uids)

    def _one(self, statement: str, *parameters: Any) -> Any:
        with self._lock:
            return self._database.execute(statement, parameters).fetchone()[0]

    # -- asking ----------------------------------------------------------------------------------------------------

    def open_runs(self) -> list[Row]:
        """Runs without a stop document, oldest first."""
        return self._rows("closed = 0 ORDER BY position", ())

    def last_scan_id(self) -> int:
        """The highest scan number on record, 0 if there is none."""
        self._untold.extend(self._kept(self._refresh))
        with self._lock:
            return self._database.execute("SELECT max(scan_id) FROM runs").fetchone()[0] or 0

    def count(self, query: Mapping[str, Any] | None = None) -> int:
        """How many runs match."""
        where, parameters, residue = translate(query)
        if residue is not None:
            return sum(1 for _ in self._matching(where, parameters, residue))
        with self._lock:
            return self._database.execute(f"SELECT count(*) FROM runs WHERE {where}", parameters).fetchone()[0]

    def uids(self, query: Mapping[str, Any] | None = None) -> list[str]:
        """The runs that match, newest first."""
        where, parameters, residue = translate(query)
        if residue is not None:
            return [row.uid for row in self._matching(where, parameters, residue)]
        with self._lock:
            rows = self._database.execute(f"SELECT uid FROM runs WHERE {where} ORDER BY position DESC", parameters)
            return [uid for (uid,) in rows]

    def newest(self, back: int, query: Mapping[str, Any] | None = None) -> Row | None:
        """The run that is `back` places before the last one that matches."""
        where, parameters, residue = translate(query)
        if residue is not None:
            rows = self._matching(where, parameters, residue)
            return next((row for number, row in enumerate(rows) if number == back), None)
        found = self._rows(f"{where} ORDER BY position DESC LIMIT 1 OFFSET ?", (*parameters, back))
        return found[0] if found else None

    def with_scan_id(self, scan_id: int, query: Mapping[str, Any] | None = None) -> Row | None:
        """The newest run with this scan number."""
        return self.newest(0, {"$and": [query or {}, {"scan_id": scan_id}]})

    def with_uid(self, uid: str, query: Mapping[str, Any] | None = None) -> list[Row]:
        """The runs whose uid begins so, at most ten."""
        where, parameters, residue = translate(query)
        rows = self._rows(
            f"uid >= ? AND uid < ? AND {where} ORDER BY uid LIMIT 10", (uid, f"{uid}\U0010ffff", *parameters)
        )
        return [row for row in rows if residue is None or _fits(residue, row.start)]

    def find(self, name: Any, query: Mapping[str, Any] | None = None) -> Row:
        """The run of a negative number (counted from the last one), a scan number, or the beginning of a uid.

        Raises:
            RunNotFoundError: there is none.
            AmbiguousUidError: the beginning of a uid fits several.
        """
        try:
            number = int(name)
        except (TypeError, ValueError):
            number = None
        if number is not None:  # as text too, which is how a client of databroker sends it
            row = self.newest(-number - 1, query) if number < 0 else self.with_scan_id(number, query)
            if row is not None:
                return row
            if number < 0:
                count = self.count(query)
                raise RunNotFoundError(f"there is no run {number}: the catalog holds {count} run{'s' * (count != 1)}")
            if not isinstance(name, str):
                raise RunNotFoundError(f"there is no run with scan_id {number}")
        return self.find_uid(str(name), query)

    def find_uid(self, uid: str, query: Mapping[str, Any] | None = None) -> Row:
        """The run whose uid begins so.

        Raises:
            RunNotFoundError: there is none.
            AmbiguousUidError: there are several.
        """
        found = self.with_uid(uid, query)
        if len(found) == 1 or (found and found[0].uid == uid):
            return found[0]
        if not found:
            raise RunNotFoundError(f"there is no run whose uid begins with {uid!r}")
        raise AmbiguousUidError(
            f"several runs have a uid that begins with {uid!r}: {', '.join(row.uid for row in found)}"
        )

    def rows(self, query: Mapping[str, Any] | None = None, *, limit: int = -1) -> list[Row]:
        """The runs that match, newest first, with their documents."""
        where, parameters, residue = translate(query)
        if residue is None:
            return self._rows(f"{where} ORDER BY position DESC LIMIT ?", (*parameters, limit))
        found = list(self._matching(where, parameters, residue))
        return found if limit < 0 else found[:limit]

    def _rows(self, where: str, parameters: tuple) -> list[Row]:
        with self._lock:
            found = self._database.execute(
                f"SELECT {_ROW} FROM runs JOIN documents ON run = id WHERE {where}", parameters
            ).fetchall()
        return [self._row(values) for values in found]

    def _row(self, values: tuple) -> Row:
        uid, path, start, stop, size, layout = values
        return Row(
            uid,
            self.runs / path,
            unpack(start),
            unpack(stop) if stop else None,
            size,
            Layout.unpack(layout) if layout else None,
        )

    def _matching(self, where: str, parameters: tuple, residue: Mapping[str, Any]) -> Iterator[Row]:
        for row in self._rows(f"{where} ORDER BY position DESC", parameters):
            if _fits(residue, row.start):
                yield row

    def describe(self, query: Mapping[str, Any] | None = None) -> str:
        """A few words on what is there: `3 runs, the last is 7: scan, 2026-11-21 03:36:21`."""
        count, last = self.count(query), self.newest(0, query)
        text = f"{count} run{'s' * (count != 1)}"
        if last is None:
            return text
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(last.start["time"]))
        return f"{text}, the last is {last.start.get('scan_id', '?')}: {last.start.get('plan_name', 'no plan')}, {when}"

    def check(self) -> list[str]:
        """Compare every file with the index, reading each whole.

        Returns:
            One line for each difference and each damage.
        """
        problems = self.refresh()
        problems.extend(line for line in self.unreadable() if line not in problems)
        for row in self.rows():
            run = RunFile(row.path)
            layout = run.survey()
            if run.damage:
                problems.append(f"{row.path} {run.damage}")
            in_file = [next(iter(run.single(name)), None) for name in ("start", "stop")]
            if in_file[0] is None:
                problems.append(f"{row.path} has no start document")
            elif self._pack(in_file) != self._pack([row.start, row.stop]):
                problems.append(f"{row.path}: the index differs from the file")
            elif row.layout is None or row.layout.pack() != layout.pack():
                self.remember_layout(row.uid, layout)
        return problems

    def rebuild(self) -> list[str]:
        """Forget everything, and read it from the files again."""
        with self._transaction() as database:
            for table in ("runs", "documents", "metadata", "words", "directories", "unreadable"):
                database.execute(f"DELETE FROM {table}")
        self._reported.clear()
        return self.refresh()


def _index_metadata(database: sqlite3.Connection) -> None:
    """Make the indexes of the metadata, unless they are there."""
    names = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    for name, columns in _METADATA_INDEXES.items():
        if name not in names:  # asked first, since the file may be read-only
            database.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {columns}")


def _after(database: sqlite3.Connection, when: float) -> float:
    """The place of a run that begins then: after all others, since clocks may jump back."""
    last = database.execute("SELECT max(position) FROM runs").fetchone()[0]
    return max(when, last + 1e-6) if last is not None else when


# -- queries -------------------------------------------------------------------------------------------------------


def translate(query: Mapping[str, Any] | None) -> tuple[str, tuple, Mapping[str, Any] | None]:
    """Turn a MongoDB query into SQL.

    Returns:
        The SQL condition, its parameters, and what of the query it leaves to be checked on each start document.
    """
    conditions: list[str] = []
    parameters: list[Any] = []
    residue: list[Mapping[str, Any]] = []
    for key, wanted in (query or {}).items():
        found = _clause(key, wanted)
        if found is None:
            residue.append({key: wanted})
            continue
        condition, values, rest = found
        conditions.append(condition)
        parameters.extend(values)
        if rest is not None:
            residue.append(rest)
    where = " AND ".join(f"({condition})" for condition in conditions) or "1"
    if not residue:
        return where, tuple(parameters), None
    return where, tuple(parameters), residue[0] if len(residue) == 1 else {"$and": residue}


def _clause(key: str, wanted: Any) -> tuple[str, list[Any], Mapping[str, Any] | None] | None:
    if key in {"$and", "$or"} and isinstance(wanted, list | tuple) and wanted:
        parts = [translate(part) for part in wanted]
        rest = [part for _, _, part in parts if part is not None]
        if key == "$or" and rest:
            return None
        joined = (" AND " if key == "$and" else " OR ").join(f"({where})" for where, _, _ in parts)
        return joined, [value for _, values, _ in parts for value in values], {"$and": rest} if rest else None
    if key == "$text" and isinstance(wanted, Mapping) and set(wanted) <= {"$search", "$language", "$caseSensitive"}:
        return "id IN (SELECT rowid FROM words WHERE words MATCH ?)", [_words(str(wanted.get("$search", "")))], None
    if key.startswith("$") or any(part.isdigit() for part in key.split(".")):
        return None
    if (isinstance(wanted, Mapping) and not any(str(name).startswith("$") for name in wanted)) or isinstance(
        wanted, list | tuple
    ):
        return _whole(key, wanted)
    if not isinstance(wanted, Mapping):
        wanted = {"$regex": wanted} if isinstance(wanted, re.Pattern) else {"$eq": wanted}
    conditions, parameters = [], []
    options = wanted.get("$options", "")
    for operator, operand in wanted.items():
        if operator == "$options":
            continue
        part = _operation(key, operator, operand, options)
        if part is None:
            return None
        conditions.append(part[0])
        parameters.extend(part[1])
    return (" AND ".join(conditions), parameters, None) if conditions else None


def _whole(key: str, wanted: Any) -> tuple[str, list[Any], Mapping[str, Any]]:
    """A whole dictionary or list: runs that have all of its values are looked at in Python."""
    rest = {key: {"$eq": wanted}}  # said so, since mongoquery takes {} for no condition
    parts = [_where(name, "= ?", [value]) for name, value in _flatten(wanted, key) if value is not None]
    where = " AND ".join(part for part, _ in parts) or "1"
    return where, [value for _, values in parts for value in values], rest


def _operation(key: str, operator: str, operand: Any, options: str) -> tuple[str, list[Any]] | None:
    if operator in {"$ne", "$nin"}:
        opposite = _operation(key, {"$ne": "$eq", "$nin": "$in"}[operator], operand, options)
        return (f"NOT coalesce({opposite[0]}, 0)", opposite[1]) if opposite else None
    if operator == "$exists":
        found = "id IN (SELECT run FROM metadata WHERE key = ? OR (key > ? AND key < ?))"
        return (found if operand else f"NOT {found}"), [key, f"{key}.", f"{key}/"]
    if operator == "$regex":
        pattern, flags = (operand.pattern, operand.flags) if isinstance(operand, re.Pattern) else (operand, 0)
        flags |= re.IGNORECASE if "i" in options else 0
        try:
            re.compile(pattern, flags)
        except (re.error, TypeError):
            return None
        beginning = _beginning(pattern, flags)
        within = " AND value >= ? AND value < ?" if beginning else ""
        return (
            "id IN (SELECT run FROM metadata WHERE key = ? AND value IN (SELECT value FROM"
            f" (SELECT DISTINCT value FROM metadata WHERE key = ? AND typeof(value) = 'text'{within})"
            " WHERE regexp(?, ?, value)))",
            [key, key, *([beginning, f"{beginning}\U0010ffff"] if beginning else []), pattern, flags],
        )
    if operator == "$in":
        values = [_scalar(item) for item in operand] if isinstance(operand, list | tuple | set) else [None]
        if None in values:
            return None
        marks = ", ".join("?" * len(values))
        return _where(key, f"IN ({marks})", values)
    if operator in _COMPARISONS:
        value = _scalar(operand)
        if value is None:
            return None
        return _where(key, f"{_COMPARISONS[operator]} ?", [value])
    return None


def _where(key: str, condition: str, values: list[Any]) -> tuple[str, list[Any]]:
    if key in _COLUMNS and all(isinstance(value, str) == (key in {"uid", "plan_name"}) for value in values):
        return f"{_COLUMNS[key]} {condition}", values
    kinds = {"'text'" if isinstance(value, str) else "'integer', 'real'" for value in values} or {"'text'"}
    same_kind = f"typeof(value) IN ({', '.join(sorted(kinds))})"
    return f"id IN (SELECT run FROM metadata WHERE key = ? AND value {condition} AND {same_kind})", [key, *values]


def _scalar(value: Any) -> Any:
    """What SQLite compares with, None for what it cannot compare."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and value != value:  # noqa: PLR0124  NaN equals nothing, and SQLite would store NULL
        return None
    if isinstance(value, int):
        return value if abs(value) < 2**63 else float(value)
    return value if isinstance(value, str | float) else None


def _words(text: str) -> str:
    """MongoDB's text search in the words of FTS5: any word, "exact phrases", -unwanted."""
    wanted, unwanted = [], []
    for sign, phrase, word in re.findall(r'(-?)(?:"([^"]*)"|([^\s"]+))', text):
        token = (phrase or word).replace('"', " ").strip()
        if re.search(r"\w", token):
            (unwanted if sign else wanted).append(f'"{token}"')
    if not wanted:
        return '""'
    query = " OR ".join(wanted)
    return f"({query}) NOT ({' OR '.join(unwanted)})" if unwanted else query


def _flatten(value: Any, key: str = "") -> list[tuple[str, Any]]:
    """Every dotted key with each of its values; the elements of a list each count as the value of its key."""
    found: list[tuple[str, Any]] = []
    _add_flat(found, key, value)
    return found


def _add_flat(found: list[tuple[str, Any]], key: str, value: Any) -> None:
    if type(value) is str:
        found.append((key, value))
        return
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.size <= _LONG_LIST and not value.dtype.hasobject else []
    if isinstance(value, Mapping):
        if key and not value:
            found.append((key, None))
        for name, item in value.items():
            _add_flat(found, f"{key}.{name}" if key else str(name), item)
    elif isinstance(value, list | tuple):
        if not value or len(value) > _LONG_LIST:
            found.append((key, None))
        else:
            for item in value:
                _add_flat(found, key, item)
    else:
        found.append((key, _scalar(value)))


def unpack(packed: bytes) -> Document:
    """A document from its bytes in the index."""
    return msgpack.unpackb(packed, object_hook=decode_map, raw=False)


def _fits(residue: Mapping[str, Any], start: Document) -> bool:
    from mongoquery import Query

    return Query(residue).match(start)


def _matches(pattern: str, flags: int, value: str) -> bool:
    return _compiled(pattern, flags)(value) is not None


@functools.lru_cache(maxsize=64)
def _compiled(pattern: str, flags: int) -> Callable[[str], re.Match[str] | None]:
    return re.compile(pattern, flags).search


def _beginning(pattern: str, flags: int) -> str:
    """The text with which whatever matches begins; empty if that is not plain to see."""
    if flags & ~re.UNICODE or not pattern.startswith("^") or "|" in pattern:
        return ""
    plain = re.match(r"[\w \-:/,;=@#%&~'\"<>]*", pattern[1:])
    found = plain[0] if plain else ""
    return found[:-1] if pattern[1 + len(found) :][:1] in {"?", "*", "{"} else found


def _is_run_name(entry: os.DirEntry) -> bool:
    return entry.name.endswith(SUFFIX) and not entry.name.startswith(".") and entry.name != FORMAT_FILE


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _stop_columns(stop: Mapping[str, Any]) -> tuple[float | None, str]:
    return _number(stop.get("time")), str(stop.get("exit_status"))


def _scan_id(start: Document) -> int | None:
    value = start.get("scan_id")
    return int(value) if isinstance(value, int | np.integer) else None
