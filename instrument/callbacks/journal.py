"""The journal: every document of every run is in a file before the RunEngine goes on.

It is the only subscriber that may stop a run, and the first: what is not in the journal did not happen. Everything
else that wants documents reads them from here (see `outbox`).
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instrument.config.names import LOGGER_NAME
from instrument.framework.index import RunIndex
from instrument.framework.runfiles import (
    Document,
    Layout,
    RunFile,
    RunFileError,
    RunWriter,
    UnstorableError,
    check_metadata,
    run_path,
    sync_directory,
    write_schema,
)

logger = logging.getLogger(LOGGER_NAME)

ENDED = "session ended"


def validate_metadata(metadata: Mapping[str, Any]) -> None:
    """Refuse metadata that could not be kept; for `RunEngine(md_validator=...)`, which asks before a run starts.

    Raises:
        UnstorableError: naming the key.
    """
    sample = metadata.get("sample", "")
    if not isinstance(sample, str | Mapping):
        raise UnstorableError(f"metadata key 'sample' is a {type(sample).__name__}: give it as text or a dictionary")
    check_metadata(metadata)


class Journal:
    """Writes each run to a file of its own. Subscribe it to the RunEngine before anything else."""

    def __init__(self, directory: Path, *, index: RunIndex | None = None, fsync_interval: float = 1.0) -> None:
        """Nothing is created before the first run starts.

        Args:
            directory: where the runs are, `DataDirectory.runs`.
            index: kept up to date with every run; may be shared with readers of the same process.
            fsync_interval: after at most so many seconds (s) a document survives a power cut too.
        """
        self.directory = directory
        self.index = index or RunIndex(None, directory)
        self.fsync_interval = fsync_interval
        self._lock = threading.Lock()  # monitors emit from other threads than the scan's
        self._open: dict[str, RunWriter] = {}
        self._owner_of: dict[str, str] = {}  # descriptor, resource or stream resource uid -> run uid
        self._late_stops: dict[str, Document] = {}  # stop documents that did not fit on the disk
        self._unsynced: set[Path] = set()  # directories with names that a power cut would take
        self._refused: set[str] = set()
        self._index_failed = False
        self._sync_error: OSError | None = None
        self._syncer: threading.Thread | None = None
        self._wake = threading.Event()
        self._ending = threading.Event()

    # -- documents in ----------------------------------------------------------------------------------------------

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Record one document; it is with the operating system when this returns.

        Raises:
            UserError: it could not be; raised through the RunEngine, it fails the run.
        """
        with self._lock:
            if name == "start":
                self._start(document)
                return
            if name in {"bulk_events", "bulk_datum"}:
                for page_name, page in _pages_of(name, document):
                    self._append(page_name, page)
                return
            self._append(name, document)

    def is_open(self, uid: str) -> bool:
        """Whether this session is recording a run."""
        return uid in self._open

    def _start(self, document: Mapping[str, Any]) -> None:
        self._finish_late_stops()
        path = run_path(self.directory, document)
        writer = None
        self._refused.add(document["uid"])
        try:
            before = path.parent.stat().st_mtime_ns if path.parent.is_dir() else None
            self._make_directory(path.parent)
            write_schema(self.directory)
            writer = RunWriter(path, create=True)
            writer.append("start", document)
        except (OSError, UnstorableError) as error:
            if writer is not None:
                path.unlink(missing_ok=True)
                writer.close()
            if isinstance(error, UnstorableError):
                raise
            raise RunFileError(
                f"the run was not started, because its file {path} cannot be written: {error.strerror or error}"
            ) from error
        self._refused.discard(document["uid"])
        self._unsynced.add(path.parent)
        self._open[document["uid"]] = writer
        self._update_index(lambda: self.index.opened(path, document, before))
        self._start_syncer()

    def _make_directory(self, directory: Path) -> None:
        """Make a month's directory, and take note of those that have a new name in them."""
        above = []
        while not directory.is_dir():
            directory, new = directory.parent, directory
            above.append(new)
        for new in reversed(above):
            new.mkdir(exist_ok=True)
            self._unsynced.add(new.parent)

    def _append(self, name: str, document: Mapping[str, Any]) -> None:
        uid = self._run_of(name, document)
        writer = self._open.get(uid) if uid else None
        if uid is None or writer is None:
            if uid not in self._refused:
                logger.debug("journal: %s document of a run that is not open", name)
            self._refused.discard(uid or "")
            return
        if self._sync_error is not None and name != "stop":
            error, self._sync_error = self._sync_error, None
            raise self._write_error(writer, error) from error
        try:
            self._keep(writer)
            writer.append(name, document)
            if name in {"descriptor", "stop"}:
                writer.sync()
                self._sync_directories()
        except OSError as error:
            if name == "stop":
                self._late_stops[uid] = dict(document)
            raise self._write_error(writer, error) from error
        if name in {"descriptor", "resource", "stream_resource"}:
            self._owner_of[document["uid"]] = uid
        elif name == "stop":
            self._finish(uid, document)

    def _keep(self, writer: RunWriter) -> None:
        """Write a file again that was removed while its run goes on."""
        if not writer.removed():
            return
        self._make_directory(writer.path.parent)
        writer.write_again()
        self._unsynced.add(writer.path.parent)
        logger.warning("%s was removed while its run goes on: all of it was written again", writer.path)

    def _run_of(self, name: str, document: Mapping[str, Any]) -> str | None:
        if name in {"event", "event_page"}:
            return self._owner_of.get(document["descriptor"])
        if name in {"datum", "datum_page"}:
            return self._owner_of.get(document["resource"], self._latest())
        if name == "stream_datum":
            return self._owner_of.get(document["stream_resource"], self._owner_of.get(document["descriptor"]))
        return document.get("run_start") or self._latest()  # resources of old devices do not name their run

    def _latest(self) -> str | None:
        return next(reversed(self._open), None)

    def _write_error(self, writer: RunWriter, error: OSError) -> RunFileError:
        if writer.removed():
            return RunFileError(
                f"the run's file {writer.path} was removed, and cannot be written again: {error.strerror or error}; "
                "see to its directory, then repeat the run"
            )
        return RunFileError(
            f"the run's file {writer.path} cannot be written: {error.strerror or error}; "
            "what it already holds is safe, as are earlier runs: make room or mend the disk, then repeat the run"
        )

    def _finish(self, uid: str, stop: Mapping[str, Any]) -> None:
        writer = self._open.pop(uid)
        self._late_stops.pop(uid, None)
        self._owner_of = {key: owner for key, owner in self._owner_of.items() if owner != uid}
        writer.close()
        self._update_index(lambda: self.index.closed(writer.path, stop, writer.layout))

    def _finish_late_stops(self) -> None:
        for uid, stop in list(self._late_stops.items()):
            writer = self._open[uid]
            try:
                self._keep(writer)
                if not writer.layout.documents or writer.layout.documents[-1][0] != "stop":
                    writer.append("stop", stop)
                writer.sync()
            except OSError:
                return
            self._finish(uid, stop)
            logger.info("the stop document of run %s, which did not fit before, is recorded now", uid[:8])

    def _update_index(self, update: Any) -> None:
        try:
            update()
        except (sqlite3.Error, OSError) as error:
            if not self._index_failed:
                logger.warning("the index of the runs is not kept up (%s): the catalog reads the files instead", error)
            self._index_failed = True

    # -- to the disk -----------------------------------------------------------------------------------------------

    def _start_syncer(self) -> None:
        if self._syncer is None:
            self._syncer = threading.Thread(target=self._sync_regularly, name="journal-sync", daemon=True)
            self._syncer.start()
        self._wake.set()

    def _sync_regularly(self) -> None:
        while True:
            self._wake.wait()
            if self._ending.wait(self.fsync_interval):
                return
            with self._lock:
                self._finish_late_stops()
                if not self._open:
                    self._wake.clear()
                try:
                    dirty = [writer.duplicate() for writer in self._open.values() if writer.dirty]
                except OSError as error:  # no descriptors left: say so at the next document, and go on
                    self._sync_error, dirty = error, []
                try:
                    self._sync_directories()
                except OSError as error:
                    self._sync_error = error
            for descriptor in dirty:
                try:
                    os.fsync(descriptor)
                except OSError as error:
                    self._sync_error = error
                finally:
                    os.close(descriptor)

    def _sync_directories(self) -> None:
        """Wait until the names of new files are on the disk. The caller holds the lock."""
        for directory in list(self._unsynced):
            if directory.is_dir():  # whoever removed it removed the files too, which is found at the next document
                sync_directory(directory)
            self._unsynced.discard(directory)

    # -- runs that were left open ----------------------------------------------------------------------------------

    def close_orphans(self) -> list[str]:
        """Close the runs that an ended session left open. Call it once, when a session starts.

        Returns:
            One line for each run that was closed, and for each file that cannot be read.
        """
        messages = self.index.refresh()
        for path in self.index.empty:
            _remove_if_abandoned(path)
        for row in self.index.open_runs():
            if row.uid not in self._open:
                message = self._close_orphan(row.path)
                if message:
                    messages = [line for line in messages if str(row.path) not in line]
                    messages.append(message)
        return messages

    def _close_orphan(self, path: Path) -> str | None:
        try:
            writer = RunWriter(path, create=False)
        except BlockingIOError:
            return None
        except OSError as error:
            return f"{path} has no stop document and cannot be closed: {error.strerror or error}"
        try:
            run = RunFile(path)
            stop = _missing_stop(run, writer.layout)
            start = next(iter(run.single("start")), None)
            if start is None:
                return self._set_aside(path)
            number = f"run {start.get('scan_id', '?')} ({str(start.get('uid'))[:8]})"
            if run.damage and not run.torn:
                return f"{path} {run.damage}: {number} shows what comes before it"
            if run.torn:
                writer.truncate(run.layout.size)
            if stop is None:
                self._update_index(lambda: self.index.closed(path, run.single("stop")[0], run.layout))
                return None
            writer.layout = run.layout
            writer.append("stop", stop)
            writer.sync()
            self._update_index(lambda: self.index.closed(path, stop, writer.layout))
        except OSError as error:
            return f"{path} has no stop document and cannot be closed: {error.strerror or error}"
        finally:
            writer.close()
        return f"{number} was left open when its session ended: it is closed with exit status fail, its data are there"

    def _set_aside(self, path: Path) -> str:
        """Take a file that a power cut left without its start document out of the catalog."""
        aside = path.with_name(f"{path.name}.unreadable")
        path.replace(aside)
        self.index.refresh()
        return f"{path} holds no start document, as after a power cut: it was set aside as {aside.name}"

    def close(self) -> None:
        """End: runs that are still open get a stop document, files are closed, the thread ends."""
        self._ending.set()
        self._wake.set()
        if self._syncer is not None:
            self._syncer.join()
            self._syncer = None
        with self._lock:
            self._finish_late_stops()
            for uid, writer in list(self._open.items()):
                try:
                    self._keep(writer)
                    stop = _missing_stop(RunFile(writer.path), Layout())
                    if stop is not None:
                        writer.append("stop", stop)
                        writer.sync()
                        self._finish(uid, stop)
                except OSError as error:
                    logger.warning("%s stays without a stop document: %s", writer.path, error)
                    writer.close()
            self._open.clear()
        self._ending.clear()
        self._wake.clear()


def _missing_stop(run: RunFile, layout: Layout) -> Document | None:
    """Survey a run and compose the stop document that it lacks; None if it lacks none."""
    run.layout = layout
    layout.size = 0
    last = 0.0
    streams: dict[str, str] = {}
    counts: dict[str, int] = {}
    for record in run.records():
        layout.add(record.name, record.document, record.offset, record.end)
        when = record.document.get("time", 0)
        last = max(last, *when, 0.0) if isinstance(when, list) else max(last, when)
        if record.name == "descriptor":
            streams[record.document["uid"]] = record.document.get("name", "primary")
            counts.setdefault(streams[record.document["uid"]], 0)
    start = run.single("start")
    if not start or run.single("stop"):
        return None
    for descriptor, stream in streams.items():
        counts[stream] += layout.count(descriptor)
    return {
        "uid": str(uuid.uuid4()),
        "time": last,
        "run_start": start[0]["uid"],
        "exit_status": "fail",
        "reason": ENDED,
        "num_events": counts,
        "added_later": {"time": time.time(), "by": "instrument"},
    }


def _pages_of(name: str, document: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Bulk documents, which nothing emits today, as the pages that took their place."""
    import event_model

    if name == "bulk_events":
        return [("event_page", page) for page in event_model.bulk_events_to_event_pages(dict(document))]
    return [("datum_page", event_model.bulk_datum_to_datum_page(dict(document)))]


def _remove_if_abandoned(path: Path) -> None:
    """Remove a file whose writer ended between creating it and writing to it."""
    try:
        writer = RunWriter(path, create=False)
    except OSError:
        return
    try:
        if writer.size == 0 and time.time() - path.stat().st_mtime > 10:
            path.unlink()
    except OSError:
        return
    finally:
        writer.close()
