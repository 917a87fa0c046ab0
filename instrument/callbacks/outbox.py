"""The outbox: complete runs go from the journal to those who write files of their own, each at its own pace.

How a session puts the parts together, in this order (`DataDirectory` knows the paths, see `framework.runfiles`):

    data = DataDirectory(config.directories.data)
    index = RunIndex(data.index, data.runs)
    state = StateFile(data.state, defaults, explicit, last_scan_id=index.last_scan_id)  # print state.messages
    journal = Journal(data.runs, index=index, fsync_interval=config.journal.fsync_interval)
    outbox = Outbox(data.runs, data.outbox, report=logger.warning, index=index)
    messages = journal.close_orphans()                                                       # print them
    cat, db = open_catalog(config, data=data.root, index=index, before_loading=lambda: importer.need("databroker.v1"))
    RE = RunEngine(state, scan_id_source=state.next_scan_id)
    RE.md_validator = validate_metadata                                                      # from callbacks.journal
    RE.subscribe(journal)                                                                    # first of all
    ...                                                                                      # live table and plot
    RE.subscribe(outbox)
    outbox.add(spec_writer)                                                                  # each RunConsumer
    outbox.start()
    ...
    outbox.wait(60, progress=print)                                                          # wait_for_files()
    ...
    journal.close(); outbox.close(timeout=60); state.close(); index.close()                  # at the end, in this order

A consumer sees whole runs only, on a thread of its own. What may change before it comes to that (a file name) it says
at the start document, in `assign`; the outbox keeps it on disk. What raises or hangs harms no run and no other
consumer. A run counts as delivered when `deliver` has returned; whoever is killed in between gets the run again, so
`deliver` must leave exactly one copy however often it is called for one uid.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from instrument.callbacks.attempts import Failure, one_line
from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.framework.presence import Presence, living
from instrument.framework.runfiles import RunFile, has_owner, run_path

if TYPE_CHECKING:
    from instrument.framework.index import RunIndex

logger = logging.getLogger(LOGGER_NAME)

_SESSIONS = "sessions"  # where those at work have their locks, beside the marks
_LOOK = 1.0  # s between looks at runs whose stop document came by another way

_SCHEMA = """
CREATE TABLE IF NOT EXISTS deliveries (
    id INTEGER PRIMARY KEY, uid TEXT NOT NULL, consumer TEXT NOT NULL, path TEXT NOT NULL, scan_id TEXT,
    owner TEXT NOT NULL, assignment TEXT, state TEXT NOT NULL, result TEXT, attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT, UNIQUE (uid, consumer));
CREATE INDEX IF NOT EXISTS deliveries_state ON deliveries (consumer, state);
CREATE INDEX IF NOT EXISTS deliveries_undelivered ON deliveries (id) WHERE state != 'delivered';
CREATE TABLE IF NOT EXISTS notes (
    id INTEGER PRIMARY KEY, uid TEXT, consumer TEXT NOT NULL, note TEXT NOT NULL, owner TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS notes_uid ON notes (uid, consumer);
CREATE TABLE IF NOT EXISTS consumers (name TEXT PRIMARY KEY, since REAL NOT NULL);
"""

OPEN, READY, DELIVERED, SET_ASIDE = "open", "ready", "delivered", "set aside"
NOT_WANTED = "not wanted"  # by those who recorded the run


class RunConsumer(Protocol):
    """Something that turns complete runs into files, or sends them somewhere."""

    name: str

    def assign(self, start: dict) -> dict:
        """What belongs to this run and may change before it is delivered. On the scan's thread: be quick.

        Returns:
            Anything that JSON can keep.
        """
        ...

    def deliver(self, documents: Iterable[tuple[str, dict]], assignment: dict, notes: list[dict]) -> str | None:
        """Write one complete run. On the consumer's own thread; may be called again for the same uid.

        Returns:
            What was written, a path for instance.
        """
        ...


@dataclass
class _Job:
    id: int
    uid: str
    path: Path
    scan_id: str
    assignment: dict | None
    attempts: int


class Outbox:
    """Delivers runs to consumers. Subscribe it to the RunEngine after the journal."""

    def __init__(
        self,
        journal_dir: Path,
        marks_path: Path,
        report: Callable[[str], None],
        *,
        index: RunIndex | None = None,
    ) -> None:
        """Nothing is delivered before `start`.

        Args:
            journal_dir: where the runs are, `DataDirectory.runs`.
            marks_path: the SQLite file that says what was delivered to whom, `DataDirectory.outbox`.
            report: told, in one line, when a consumer begins to fail and when it has caught up. Called from any thread.
            index: asked at the start for runs of which there are no marks, because a power cut took them.

        What is recorded here is for the consumers added here, not for those that other sessions in the same directory
        have: a SPEC file that is wanted tomorrow does not begin with the runs of today.
        """
        self.journal_dir = journal_dir
        self._report = report
        self._index = index
        self._consumers: dict[str, RunConsumer] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._busy: dict[str, tuple[str, float]] = {}  # consumer -> (scan number, since)
        self._failing: set[str] = set()
        self._failed_at: dict[str, int] = {}  # by consumer: the kick after which it failed last
        self._running: dict[str, dict[str, str | None]] = {}  # uid of an open run -> assignments
        self._unmarked: list[tuple] = []  # marks that could not be written yet
        self._unready: dict[int, str] = {}  # complete, which could not be marked yet: delivery -> consumer
        self._marks_failed = False
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._kick = 0  # raised to end all pauses
        self._ending = False
        self._started = False
        self._presence: Presence | None = None
        self._owner = "nobody"
        self._database = self._open(marks_path)

    def _open(self, path: Path) -> sqlite3.Connection:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._presence = Presence.join(path.parent / _SESSIONS)
            self._owner = self._presence.key
            return _connect(str(path))
        except sqlite3.OperationalError as error:
            self._report(
                f"outbox: {path} cannot be written ({error}): files not written by the end of the session are lost"
            )
        except sqlite3.DatabaseError as error:
            aside = path.with_name(f"{path.name}.unreadable-{time.strftime('%Y%m%d-%H%M%S')}")
            path.replace(aside)
            self._report(f"outbox: {path} is unreadable ({error}) and was set aside as {aside.name}")
            return _connect(str(path))
        except OSError:
            pass  # whoever starts a run there is told by the journal
        return _connect(":memory:")

    # -- documents -------------------------------------------------------------------------------------------------

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Take note of a run's start and stop. Never raises for a consumer's sake."""
        if name == "start":
            self._begin(dict(document))
        elif name == "stop":
            self._end(document["run_start"])

    def _begin(self, start: dict) -> None:
        rows = []
        path = str(run_path(self.journal_dir, start))
        with self._lock:
            consumers = list(self._consumers.values())
        for consumer in consumers:
            try:
                assignment = json.dumps(consumer.assign(start))
            except Exception as error:  # a consumer must not fail the run; it is asked again when it delivers
                logger.exception("%s: assign", consumer.name)
                self._report(f"{consumer.name}: run {start.get('scan_id')}: {one_line(error)}")
                assignment = None
            rows.append((start["uid"], consumer.name, path, str(start.get("scan_id")), self._owner, assignment, OPEN))
        with self._lock:
            self._running[start["uid"]] = {}
            rows += [
                (start["uid"], name, path, str(start.get("scan_id")), self._owner, None, NOT_WANTED)
                for name in self._excluded()
            ]
            self._unmarked.extend(rows)
            self._mark()
            try:
                self._database.execute(
                    "UPDATE notes SET uid = ? WHERE uid IS NULL AND owner = ?", (start["uid"], self._owner)
                )
            except sqlite3.Error as error:
                self._marks_broken(error)

    def _excluded(self) -> list[str]:
        """Consumers that sessions in this directory have, and that what is recorded here is not for."""
        try:
            known = [name for (name,) in self._database.execute("SELECT name FROM consumers")]
        except sqlite3.Error as error:
            self._marks_broken(error)
            return []
        return [name for name in known if name not in self._consumers]

    def _end(self, uid: str) -> None:
        with self._lock:
            if self._running.pop(uid, None) is None:
                return
            self._mark()
            try:
                self._database.execute(
                    "UPDATE deliveries SET state = ? WHERE uid = ? AND state = ?", (READY, uid, OPEN)
                )
            except sqlite3.Error as error:
                self._marks_broken(error)  # the look at open rows finds it
            self._changed.notify_all()

    def _mark(self) -> None:
        """Write the marks of runs that began. The caller holds the lock."""
        if not self._unmarked:
            return
        try:
            with self._database:
                self._database.execute("BEGIN")
                self._database.executemany(
                    "INSERT OR IGNORE INTO deliveries (uid, consumer, path, scan_id, owner, assignment, state)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    self._unmarked,
                )
            self._unmarked.clear()
        except sqlite3.Error as error:
            self._marks_broken(error)

    def _marks_broken(self, error: sqlite3.Error) -> None:
        if not self._marks_failed:
            self._report(f"outbox: its marks cannot be written ({error}): it goes on trying, no run is lost")
        self._marks_failed = True

    def note(self, consumer_name: str, note: dict, uid: str | None = None) -> None:
        """Give a consumer something to add to a run, a comment for instance. Kept on disk.

        Args:
            consumer_name: whom it is for.
            note: anything that JSON can keep.
            uid: of which run; without it the run that is open, or else the next one.

        Raises:
            UserError: that run was delivered already, or the note cannot be kept.
        """
        text = json.dumps(note)
        with self._lock:
            if uid is None:
                uid = next(reversed(self._running), None)
            try:
                state = self._database.execute(
                    "SELECT state FROM deliveries WHERE uid = ? AND consumer = ?", (uid, consumer_name)
                ).fetchone()
                if state != (DELIVERED,):
                    self._database.execute(
                        "INSERT INTO notes (uid, consumer, note, owner) VALUES (?, ?, ?, ?)",
                        (uid, consumer_name, text, self._owner),
                    )
            except sqlite3.Error as error:
                raise UserError(
                    f"{consumer_name}: what is to be added to a run cannot be kept ({error}): make room on the disk of "
                    "the data, or mend it, then repeat it"
                ) from error
            if state == (DELIVERED,):
                raise UserError(f"{consumer_name} has written run {str(uid)[:8]} already: nothing can be added to it")

    # -- consumers -------------------------------------------------------------------------------------------------

    def add(self, consumer: RunConsumer) -> None:
        """From the next run on, deliver to this consumer too.

        Raises:
            ValueError: there is one of that name.
        """
        with self._lock:
            if consumer.name in self._consumers:
                msg = f"there is a consumer named {consumer.name} already"
                raise ValueError(msg)
            self._consumers[consumer.name] = consumer
            if self._started:
                self._take_over(consumer.name)
                self._start_thread(consumer)

    def start(self) -> None:
        """Start delivering, first of all what earlier sessions left behind. Call it after `Journal.close_orphans`."""
        with self._lock:
            if self._started:
                return
            self._started = True
            for consumer in self._consumers.values():
                self._take_over(consumer.name)
                self._start_thread(consumer)

    def _start_thread(self, consumer: RunConsumer) -> None:
        thread = threading.Thread(target=self._serve, args=(consumer,), name=f"outbox-{consumer.name}", daemon=True)
        self._threads[consumer.name] = thread
        thread.start()

    def _take_over(self, name: str) -> None:
        """Make this session responsible for what ended sessions owed to a consumer."""
        presence = self._presence
        if presence is None:
            return
        try:
            owners = self._database.execute(
                "SELECT owner FROM deliveries WHERE consumer = ? AND state != ?"
                " UNION SELECT owner FROM notes WHERE consumer = ?",
                (name, DELIVERED, name),
            ).fetchall()
            for (owner,) in owners:
                if owner != self._owner and not presence.is_living(owner):
                    self._database.execute(
                        "UPDATE deliveries SET owner = ? WHERE consumer = ? AND owner = ? AND state != ?",
                        (self._owner, name, owner, DELIVERED),
                    )
                    self._database.execute(
                        "UPDATE notes SET owner = ? WHERE consumer = ? AND owner = ?", (self._owner, name, owner)
                    )
            self._database.execute(
                "UPDATE deliveries SET state = ?, attempts = 0 WHERE consumer = ? AND owner = ? AND state = ?",
                (READY, name, self._owner, SET_ASIDE),
            )
            self._take_unmarked_runs(name, presence)
            self._database.execute("INSERT OR IGNORE INTO consumers VALUES (?, ?)", (name, time.time()))
        except sqlite3.Error as error:
            self._marks_broken(error)

    def _take_unmarked_runs(self, name: str, presence: Presence) -> None:
        """Runs in the journal that a power cut took from the marks."""
        since = self._database.execute("SELECT since FROM consumers WHERE name = ?", (name,)).fetchone()
        if since is None or self._index is None or presence.others():
            return
        known = {uid for (uid,) in self._database.execute("SELECT uid FROM deliveries WHERE consumer = ?", (name,))}
        for uid, path, scan_id in self._index.began_since(since[0]):
            if uid not in known and uid not in self._running:
                self._unmarked.append((uid, name, str(path), str(scan_id), self._owner, None, OPEN))
        self._mark()

    # -- delivering ------------------------------------------------------------------------------------------------

    def _serve(self, consumer: RunConsumer) -> None:
        """A consumer's thread."""
        while True:
            job = self._next_job(consumer)
            if job is None:
                return
            try:
                result = self._deliver(consumer, job)
            except Exception as error:  # whatever a consumer raises is its own affair
                self._failed(consumer, job, error)
            else:
                self._delivered(consumer, job, result)

    def _next_job(self, consumer: RunConsumer) -> _Job | None:
        """Wait for the oldest run that is due; None at the end."""
        with self._changed:
            while not self._ending:
                try:
                    self._mark()
                    looking = self._complete_open_rows(consumer.name)
                    row = self._database.execute(
                        "SELECT id, uid, path, scan_id, assignment, attempts FROM deliveries"
                        " WHERE consumer = ? AND owner = ? AND state = ? ORDER BY id LIMIT 1",
                        (consumer.name, self._owner, READY),
                    ).fetchone()
                except sqlite3.Error as error:
                    self._marks_broken(error)
                    looking, row = True, None
                if row is not None:
                    self._busy[consumer.name] = (row[3], time.monotonic())
                    assignment = json.loads(row[4]) if row[4] is not None else None
                    return _Job(row[0], row[1], Path(row[2]), row[3], assignment, row[5])
                self._changed.wait(_LOOK if looking else None)
        return None

    def _complete_open_rows(self, name: str) -> bool:
        """Runs whose stop document was not seen here may be complete all the same. Returns whether any is not."""
        rows = self._database.execute(
            "SELECT id, uid, path FROM deliveries WHERE consumer = ? AND owner = ? AND state = ?",
            (name, self._owner, OPEN),
        ).fetchall()
        waiting = bool(self._unmarked)
        for number, uid, path in rows:
            try:
                complete = uid not in self._running and not has_owner(Path(path))
                if uid in self._running and not has_owner(Path(path)):
                    self._running.pop(uid)
                    complete = True
            except OSError:
                complete = uid not in self._running  # it is gone, which the attempt to deliver it will say
            if not complete:
                waiting = True
                continue
            try:
                self._database.execute("UPDATE deliveries SET state = ? WHERE id = ?", (READY, number))
                self._unready.pop(number, None)
            except sqlite3.Error as error:
                self._marks_broken(error)
                self._unready[number] = name
                waiting = True
        return waiting

    def _deliver(self, consumer: RunConsumer, job: _Job) -> str | None:
        with self._lock:
            notes = self._database.execute(
                "SELECT note FROM notes WHERE uid = ? AND consumer = ? ORDER BY id", (job.uid, consumer.name)
            ).fetchall()
        run = RunFile(job.path)
        if job.assignment is None:
            first = next(iter(run), None)
            if first is None or first[0] != "start":
                msg = f"{job.path} has no start document"
                raise ValueError(msg)
            job.assignment = consumer.assign(first[1])
        return consumer.deliver(iter(run), job.assignment, [json.loads(note) for (note,) in notes])

    def _delivered(self, consumer: RunConsumer, job: _Job, result: str | None) -> None:
        with self._changed:  # held, so that who waits for the mark has the report, too
            while not self._try_mark_delivered(job, result):  # its file is there: only the mark must follow
                if self._ending:
                    return
                self._failed_at[consumer.name] = self._kick
                self._changed.wait(_LOOK)
            self._busy.pop(consumer.name, None)
            if consumer.name in self._failing:
                self._failing.discard(consumer.name)
                self._report(f"{consumer.name}: run {job.scan_id} is written now" + (f": {result}" if result else ""))
            self._changed.notify_all()

    def _try_mark_delivered(self, job: _Job, result: str | None) -> bool:
        with self._lock:
            try:
                self._database.execute(
                    "UPDATE deliveries SET state = ?, result = ?, error = NULL WHERE id = ?",
                    (DELIVERED, None if result is None else str(result), job.id),
                )
            except sqlite3.Error as error:
                self._marks_broken(error)
                return False
            return True

    def _failed(self, consumer: RunConsumer, job: _Job, error: Exception) -> None:
        logger.debug("%s: run %s", consumer.name, job.uid, exc_info=error)
        failure = Failure(error, job.path, job.attempts + 1)
        with self._changed:
            self._busy.pop(consumer.name, None)
            self._failed_at[consumer.name] = self._kick
            try:
                self._database.execute(
                    "UPDATE deliveries SET state = ?, attempts = ?, error = ? WHERE id = ?",
                    (SET_ASIDE if failure.final else READY, failure.attempts, failure.reason, job.id),
                )
            except sqlite3.Error as database_error:
                self._marks_broken(database_error)
            if failure.final:
                self._failing.discard(consumer.name)
                self._report(
                    f"{consumer.name}: run {job.scan_id} cannot be written: {failure.reason}; "
                    "it is safe in the journal, and tried again in the next session"
                )
            elif consumer.name not in self._failing:
                self._failing.add(consumer.name)
                self._report(
                    f"{consumer.name}: run {job.scan_id} is not written yet: {failure.reason}; it is tried again"
                )
            self._changed.notify_all()
            if failure.final or self._ending:
                return
            kick = self._kick
            self._changed.wait_for(lambda: self._ending or self._kick != kick, failure.pause)

    # -- asking ----------------------------------------------------------------------------------------------------

    def pending(self) -> dict[str, int]:
        """How many complete runs each consumer still has to take."""
        with self._lock:
            counts = dict.fromkeys(self._consumers, 0)
            rows = self._database.execute(
                "SELECT consumer, count(*) FROM deliveries WHERE owner = ? AND state = ? GROUP BY consumer",
                (self._owner, READY),
            )
            counts.update({name: count for name, count in rows if name in counts})
            for name in self._unmarkable():
                counts[name] += 1
            return counts

    def _unmarkable(self) -> list[str]:
        """For each complete run that could not be marked, whom it is for."""
        begun = [name for uid, name, *_ in self._unmarked if uid not in self._running and name in self._consumers]
        return [*begun, *self._unready.values()]

    def results(self, uid: str) -> dict[str, str]:
        """What each consumer wrote of a run."""
        with self._lock:
            rows = self._database.execute(
                "SELECT consumer, result FROM deliveries WHERE uid = ? AND state = ? AND result IS NOT NULL",
                (uid, DELIVERED),
            )
            return dict(rows.fetchall())

    def wait(self, timeout: float, progress: Callable[[str], None] | None = None, *, for_failing: bool = True) -> bool:
        """Wait until every consumer has every complete run.

        Args:
            timeout: give up after so many seconds (s).
            progress: told, in one line, what is being waited for, whenever that changes.
            for_failing: False does not wait longer than for one more attempt of a consumer that fails.

        Returns:
            Whether all is delivered; a run that was set aside counts as not.
        """
        deadline = time.monotonic() + timeout
        told = None
        with self._changed:
            self._kick += 1
            kick = self._kick
            self._changed.notify_all()
            while True:
                left: dict[str, int] = {}
                try:
                    self._mark()
                    for name in self._consumers:
                        self._complete_open_rows(name)
                    left = {name: count for name, count in self.pending().items() if count}
                    if not left:
                        return not self._set_aside()
                except sqlite3.Error as error:
                    self._marks_broken(error)
                stuck = self._unmarkable()
                if not for_failing and all(name in stuck or self._failed_at.get(name, 0) >= kick for name in left):
                    return False
                remaining = deadline - time.monotonic()
                line = "waiting for " + (
                    ", ".join(f"{name} ({count} to write)" for name, count in left.items()) or "the outbox's marks"
                )
                if progress is not None and line != told:
                    progress(line)
                told = line
                if remaining <= 0 or not self._started:
                    return False
                self._changed.wait(min(remaining, _LOOK))

    def _set_aside(self) -> int:
        return self._database.execute(
            "SELECT count(*) FROM deliveries WHERE owner = ? AND state = ?", (self._owner, SET_ASIDE)
        ).fetchone()[0]

    def rows(self) -> list[tuple[str, int, int, str]]:
        """For each consumer: its name, how many runs it has, how many it has not, and its last error."""
        with self._lock:
            found = []
            for name in self._consumers:
                delivered, undelivered = self._database.execute(
                    "SELECT coalesce(sum(state = ?), 0), coalesce(sum(state IN (?, ?)), 0) FROM deliveries"
                    " WHERE consumer = ?",
                    (DELIVERED, READY, SET_ASIDE, name),
                ).fetchone()
                error = self._database.execute(
                    "SELECT error FROM deliveries WHERE consumer = ? AND error IS NOT NULL ORDER BY id DESC LIMIT 1",
                    (name,),
                ).fetchone()
                text = error[0] if error else ""
                busy = self._busy.get(name)
                if busy and time.monotonic() - busy[1] > 10:
                    text = f"busy with run {busy[0]} for {time.monotonic() - busy[1]:.0f} s"
                found.append((name, delivered, undelivered, text))
            return found

    def close(self, timeout: float = 0.0) -> bool:
        """Wait for the rest, then end. What is not delivered by then is delivered in the next session.

        Returns:
            Whether everything was delivered.
        """
        if self._ending:
            return True
        complete = self.wait(timeout)
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        deadline = time.monotonic() + 1.0
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads.values()):
            return complete  # a consumer hangs: what it holds is this session's until the process ends
        with self._lock:
            self._database.close()
        if self._presence is not None:
            self._presence.leave()
            self._presence = None
        return complete


def outcomes(path: Path, name: str, uid: str | None = None) -> dict[str, tuple[str, str | None]]:
    """How far a consumer of the outbox is, for other processes.

    Args:
        path: The marks, `DataDirectory.outbox`.
        name: The consumer's.
        uid: Of this run only.

    Returns:
        By uid, the state, and what was written.
    """
    if not path.exists():
        return {}
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
    try:
        query = "SELECT uid, state, result FROM deliveries WHERE consumer = ? AND coalesce(?, uid) = uid"
        return {uid: (state, result) for uid, state, result in database.execute(query, (name, uid))}
    finally:
        database.close()


def exclude(path: Path, runs: Iterable[tuple[str, Path]]) -> None:
    """See to it that runs that come from elsewhere are not taken for the session's own, and delivered.

    Args:
        path: The marks, `DataDirectory.outbox`.
        runs: The uid of each, and the file it will have.

    Raises:
        UserError: the marks cannot be written.
    """
    if not path.exists():
        return
    try:
        with closing(_connect(str(path))) as database:
            database.execute("BEGIN IMMEDIATE")
            database.executemany(
                "INSERT OR IGNORE INTO deliveries (uid, consumer, path, owner, state)"
                " SELECT ?, name, ?, 'nobody', ? FROM consumers",
                [(uid, str(file), NOT_WANTED) for uid, file in runs],
            )
            database.execute("COMMIT")
    except sqlite3.Error as error:
        raise UserError(
            f"{path} cannot be written ({error}): without it the next session would add the runs to its SPEC file; "
            "make the directory writable, or make room on the disk"
        ) from error


def has_living_owner(path: Path, name: str, uid: str) -> bool:
    """Whether a session is at work that owes this run to a consumer of the outbox.

    Args:
        path: The marks, `DataDirectory.outbox`.
        name: The consumer's.
        uid: The run's.
    """
    if not path.exists():
        return False
    keys = {owner.key for owner in living(path.parent / _SESSIONS, tidy=False)}
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
    try:
        owners = database.execute("SELECT owner FROM deliveries WHERE consumer = ? AND uid = ?", (name, uid))
        return any(owner in keys for (owner,) in owners)
    finally:
        database.close()


def table(rows: Iterable[tuple[str, int, int, str]]) -> Any:
    """Rows of `Outbox.rows`, or of the shipping process, as a pyRestTable."""
    import pyRestTable

    found = pyRestTable.Table()
    found.labels = ["consumer", "delivered", "pending", "last error"]
    for row in rows:
        found.addRow(row)
    return found


def _connect(name: str) -> sqlite3.Connection:
    database = sqlite3.connect(name, timeout=5.0, check_same_thread=False, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(_SCHEMA)
    except BaseException:
        database.close()
        raise
    return database
