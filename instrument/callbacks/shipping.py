"""The shipping process's work: runs go from the journal, while they grow, to what can hang for long.

It tails the journal's files in a process of its own (`instrument ship`), so that it can be killed at any time. Each
consumer has a thread, an order and a memory of one batch of its own; what it has not taken yet stays in the journal.
What was delivered is marked on disk, and whatever was cut short (by an error, a kill, a power cut) is fed again from
its start document: `begin` replaces what an earlier attempt left, so that there is exactly one copy.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from instrument.callbacks.attempts import Failure, one_line
from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.framework.index import RunIndex
from instrument.framework.runfiles import Document, RunFile

if TYPE_CHECKING:
    from instrument.framework.runfiles import DataDirectory

logger = logging.getLogger(LOGGER_NAME)

LOOK = 0.5  # s between two looks at the journal
_LIVE_EVENTS = 50  # in a batch of a run that goes on, so that a remote reader sees it growing
_BACKLOG_EVENTS = 1000  # in a batch of a complete run
_BATCH_BYTES = 4_000_000  # a batch ends with the document that reaches this
_AT_ONCE = 4  # complete runs looked up at a time
SECOND_CHANCE = 600.0  # s until what was set aside is tried again
_PATIENCE = 30.0  # s until a run that comes later is told of
_LONG = 10.0  # s; a consumer that is busy with one batch for longer is named

_SCHEMA = """
CREATE TABLE IF NOT EXISTS consumers (name TEXT PRIMARY KEY, since REAL NOT NULL, busy TEXT);
CREATE TABLE IF NOT EXISTS deliveries (
    id INTEGER PRIMARY KEY, uid TEXT NOT NULL, consumer TEXT NOT NULL, path TEXT NOT NULL, scan_id TEXT,
    position REAL NOT NULL, state TEXT NOT NULL, result TEXT, attempts INTEGER NOT NULL DEFAULT 0, error TEXT,
    UNIQUE (uid, consumer));
CREATE INDEX IF NOT EXISTS deliveries_state ON deliveries (consumer, state);
CREATE INDEX IF NOT EXISTS deliveries_position ON deliveries (consumer, position);
"""

_UIDS_OF = "SELECT uid FROM deliveries WHERE consumer = ? AND state = ?"

OPEN, READY, DELIVERED, SET_ASIDE = "open", "ready", "delivered", "set aside"


class ShippedRun(Protocol):
    """One run on its way to a consumer."""

    def take(self, documents: list[tuple[str, Document]]) -> str | None:
        """Take the next documents in order, beginning with the start document; the stop document is the last.

        Raises:
            Exception: the attempt has failed; one with `transient = True`, and every `OSError`, is tried for ever,
                and one with `later = True` (what the run needs is not there yet) without holding up other runs.

        Returns:
            What was written, once it is whole.
        """
        ...


class ShippedConsumer(Protocol):
    """Something that takes runs while they grow, and may hang. On a thread of its own in the shipping process."""

    name: str

    def begin(self, start: Document) -> ShippedRun | None:
        """Begin a run; what an earlier attempt left of it is removed.

        Returns:
            What takes its documents; None if it is there already, whole.
        """
        ...


# -- marks -----------------------------------------------------------------------------------------------------------


@dataclass
class _Job:
    """One run that one consumer does not have yet."""

    id: int
    uid: str
    path: Path
    scan_id: str
    state: str
    attempts: int


class Marks:
    """On disk, what the shipping process delivered to whom. Sessions read it."""

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises:
            UserError: it cannot be written, or is not ours.
        """
        self.path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=5.0, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")  # who is told twice has one copy all the same
            self._database.executescript(_SCHEMA)
        except sqlite3.OperationalError as error:
            raise UserError(
                f"nothing can be shipped, because {path} cannot be written ({error}): make the directory writable, "
                "or make room on the disk"
            ) from error
        except (sqlite3.DatabaseError, OSError) as error:
            raise UserError(
                f"nothing can be shipped, because {path} is unreadable ({error}): move it away; runs are safe in the "
                "journal, and `begin` of each consumer sees to it that none is there twice"
            ) from error

    def register(self, names: Iterable[str], index: RunIndex) -> None:
        """Make consumers known: from the next run on, everything is theirs."""
        since = index.last_position()
        with self._lock:
            self._database.executemany(
                "INSERT OR IGNORE INTO consumers (name, since) VALUES (?, ?)",
                [(name, since or 0.0) for name in names],  # no time of a clock, which may be ahead
            )

    def earliest(self, names: Iterable[str]) -> float:
        """The position in the journal after which something is someone's."""
        since = dict(self._rows("SELECT name, since FROM consumers"))
        return min(since[name] for name in names)

    def begin_again(self, name: str) -> None:
        """What was set aside is tried again."""
        self._execute(
            "UPDATE deliveries SET state = ?, attempts = 0 WHERE consumer = ? AND state = ?", READY, name, SET_ASIDE
        )

    def take_in(self, names: Iterable[str], runs: Iterable[tuple[str, Path, int | None, float, bool]]) -> None:
        """Take note of runs: uid, file, scan number, position in the journal, whether it is complete."""
        with self._lock:
            since = dict(self._database.execute("SELECT name, since FROM consumers"))
            self._database.execute("BEGIN IMMEDIATE")
            try:
                for uid, path, scan_id, position, complete in runs:
                    self._database.executemany(
                        "INSERT OR IGNORE INTO deliveries (uid, consumer, path, scan_id, position, state)"
                        " VALUES (?, ?, ?, ?, ?, ?)",
                        [
                            (uid, name, str(path), str(scan_id), position, READY if complete else OPEN)
                            for name in names
                            if position > since[name]
                        ],
                    )
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def open_uids(self) -> list[str]:
        """Runs that were not complete when they were last looked at."""
        return [uid for (uid,) in self._rows("SELECT DISTINCT uid FROM deliveries WHERE state = ?", OPEN)]

    def completed(self, uid: str) -> None:
        """A run is complete now, or gone."""
        self._execute("UPDATE deliveries SET state = ? WHERE uid = ? AND state = ?", READY, uid, OPEN)

    def jobs(self, name: str, *, live: bool, without: Collection[str] = ()) -> list[_Job]:
        """The next runs for a consumer, oldest first: those that go on, and some that are complete."""
        select = "SELECT id, uid, path, scan_id, state, attempts FROM deliveries WHERE consumer = ? AND state = ?"
        with self._lock:  # at one moment: a run that becomes complete in between would be overtaken
            ready = self._rows(f"{select} ORDER BY id LIMIT ?", name, READY, _AT_ONCE + len(without))
            rows = [row for row in ready if row[1] not in without][:_AT_ONCE]
            last = rows[-1][0] if len(rows) == _AT_ONCE else None
            if live:
                rows += [row for row in self._rows(f"{select} ORDER BY id", name, OPEN) if row[1] not in without]
        return [_Job(row[0], row[1], Path(row[2]), *row[3:]) for row in sorted(rows) if last is None or row[0] <= last]

    def delivered(self, job: _Job, result: str | None) -> None:
        """A consumer has a run."""
        self._execute(
            "UPDATE deliveries SET state = ?, result = ?, error = NULL WHERE id = ?", DELIVERED, result, job.id
        )

    def failed(self, job: _Job, failure: Failure) -> None:
        """An attempt has failed."""
        state = SET_ASIDE if failure.final else job.state
        self._execute(
            "UPDATE deliveries SET state = ?, attempts = ?, error = ? WHERE id = ?",
            *(state, failure.attempts, failure.reason, job.id),
        )

    def set_busy(self, name: str, text: str | None) -> None:
        """A consumer has been busy for long, or (None) is so no more."""
        self._execute("UPDATE consumers SET busy = ? WHERE name = ?", text, name)

    def left(self, name: str, index: RunIndex, *, set_aside: bool = True) -> int:
        """How many complete runs a consumer does not have."""
        with self._lock:
            found = self._database.execute("SELECT since FROM consumers WHERE name = ?", (name,)).fetchone()
            if found is None:
                return 0
            ready, aside = self._database.execute(
                "SELECT coalesce(sum(state = ?), 0), coalesce(sum(state = ?), 0) FROM deliveries WHERE consumer = ?"
                " AND state IN (?, ?)",
                (READY, SET_ASIDE, name, READY, SET_ASIDE),
            ).fetchone()
            seen = self._database.execute(
                "SELECT max(position) FROM deliveries WHERE consumer = ?", (name,)
            ).fetchone()[0]
            growing = {uid for (uid,) in self._rows(_UIDS_OF, name, OPEN)}
        unseen = index.complete_after(max(found[0], seen or 0.0))
        return ready + len(growing - index.going_on(growing)) + unseen + (aside if set_aside else 0)

    def rows(self, names: Iterable[str], index: RunIndex) -> list[tuple[str, int, int, str]]:
        """For each consumer: its name, how many runs it has, how many it has not, and its last error."""
        found = []
        for name in names:
            ((delivered,),) = self._rows(
                "SELECT count(*) FROM deliveries WHERE consumer = ? AND state = ?", name, DELIVERED
            )
            error = self._rows(
                "SELECT error FROM deliveries WHERE consumer = ? AND error IS NOT NULL ORDER BY id DESC LIMIT 1", name
            )
            busy = self._rows("SELECT busy FROM consumers WHERE name = ? AND busy IS NOT NULL", name)
            text = busy[0][0] if busy else error[0][0] if error else ""
            found.append((name, delivered, self.left(name, index), text))
        return found

    def _rows(self, statement: str, *parameters: Any) -> list[tuple]:
        with self._lock:
            return self._database.execute(statement, parameters).fetchall()

    def _execute(self, statement: str, *parameters: Any) -> None:
        with self._lock:
            self._database.execute(statement, parameters)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()


def undelivered(path: Path, name: str) -> set[str]:
    """The runs that the shipping process knows of and one consumer does not have; without changing anything."""
    if not path.exists():
        return set()
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
    try:
        found = database.execute("SELECT uid FROM deliveries WHERE consumer = ? AND state != ?", (name, DELIVERED))
        return {uid for (uid,) in found}
    finally:
        database.close()


# -- shipping --------------------------------------------------------------------------------------------------------


@dataclass
class _Feed:
    """How far a consumer is with a run."""

    offset: int = 0
    run: ShippedRun | None = None


@dataclass
class _Deferred:
    """A run that lacks what the consumer needs; others come first."""

    job: _Job
    since: float  # monotonic, as the next
    again: float
    kick: int = 0
    named: bool = False  # that it is late is on record

    def is_long(self) -> bool:
        """Whether it is to be told of."""
        return time.monotonic() - self.since > _PATIENCE


@dataclass
class _Line:
    """One consumer at work."""

    consumer: ShippedConsumer
    feeds: dict[str, _Feed] = field(default_factory=dict)
    deferred: dict[str, _Deferred] = field(default_factory=dict)
    busy: tuple[str, float, float] | None = None  # scan number, since (monotonic), since (time)
    named: bool = False  # that it is busy is on record
    failing: bool = False
    failed_at: int = 0  # the kick after which the attempt began that failed last
    thread: threading.Thread | None = None


class Shipper:
    """Feeds consumers from one data directory. Make sure that it is the only one: see `presence.SoleOwner`."""

    def __init__(
        self,
        data: DataDirectory,
        consumers: Iterable[ShippedConsumer],
        report: Callable[[str], None],
        *,
        live: bool = True,
    ) -> None:
        """Nothing is shipped before `start`.

        Args:
            data: where journal and marks are.
            consumers: who is fed.
            report: told, in one line, when a consumer begins to fail and when it has caught up. Called from any thread.
            live: False leaves out runs that are not complete.

        Raises:
            UserError: the marks cannot be written.
        """
        self.index = RunIndex(data.index, data.runs)
        self.marks = Marks(data.ship)
        self._report = report
        self._live = live
        self._lines = {consumer.name: _Line(consumer) for consumer in consumers}
        self._changed = threading.Condition()
        self._looks = 0
        self._kick = 0  # raised to end all pauses
        self._arrived = 0  # of the index: what came before this is known
        self._ending = False
        self._looker: threading.Thread | None = None
        self._marks_failed = False
        self._second_chance = 0.0  # when what was set aside is tried again
        self._told: set[tuple[str, str]] = set()  # consumers and runs that they cannot take

    def start(self) -> None:
        """Begin to ship."""
        self.index.refresh()
        self.marks.register(self._lines, self.index)
        for name in self._lines:
            self.marks.set_busy(name, None)
        self._look()
        self._looker = threading.Thread(target=self._look_regularly, name="ship-look", daemon=True)
        self._looker.start()
        for line in self._lines.values():
            line.thread = threading.Thread(
                target=self._serve, args=(line,), name=f"ship-{line.consumer.name}", daemon=True
            )
            line.thread.start()

    # -- what there is to ship -----------------------------------------------------------------------------------------

    def _look_regularly(self) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._ending, LOOK):
                    return
            self._look()

    def _look(self) -> None:
        """Take note of what is new in the journal, and wake those for whom there is something."""
        try:
            for line in self.index.refresh():
                logger.warning("%s", line)
            news = self._take_in_arrivals()
            if time.monotonic() > self._second_chance:
                self._second_chance = time.monotonic() + SECOND_CHANCE
                for name in self._lines:
                    self.marks.begin_again(name)
                news = True
            growing = self.marks.open_uids()
            complete = set(growing) - self.index.going_on(growing)
            for uid in complete:
                self.marks.completed(uid)
            self._name_busy()
            self._marks_failed = False
        except (sqlite3.Error, OSError) as error:
            self._marks_broken(error)
            return
        with self._changed:
            self._looks += 1
            if news or growing:
                self._changed.notify_all()

    def _take_in_arrivals(self) -> bool:
        last = self.index.last_arrival()
        if last < self._arrived:
            self._arrived = 0  # the index was made anew
        if last == self._arrived:
            return False
        self.marks.take_in(self._lines, self.index.arrivals(self._arrived, self.marks.earliest(self._lines)))
        self._arrived = last
        return True

    def _name_busy(self) -> None:
        for name, line in self._lines.items():
            busy = line.busy
            long = busy is not None and time.monotonic() - busy[1] > _LONG
            if busy is not None and long and not line.named:
                since = time.strftime("%H:%M:%S", time.localtime(busy[2]))
                self.marks.set_busy(name, f"busy with run {busy[0]} since {since}")
            elif line.named and not long:
                self.marks.set_busy(name, None)
            line.named = long

    def _marks_broken(self, error: Exception) -> None:
        if not self._marks_failed:
            self._report(f"{self.marks.path} cannot be written ({one_line(error)}): it is tried again, no run is lost")
        self._marks_failed = True

    # -- delivering ----------------------------------------------------------------------------------------------------

    def _serve(self, line: _Line) -> None:
        """A consumer's thread."""
        while not self._ending:
            look, timeout = self._looks, None
            try:
                if self._round(line):
                    continue
                timeout = LOOK if line.deferred else None
            except sqlite3.Error as error:
                self._marks_broken(error)
                timeout = LOOK
            with self._changed:
                self._changed.notify_all()  # who waits for this consumer sees that it has nothing left to do
                self._changed.wait_for(lambda look=look: self._ending or self._looks != look, timeout)

    def _round(self, line: _Line) -> bool:
        """One batch of each run that goes on, and the oldest complete one whole. Returns whether there was anything."""
        moved = False
        begun = self._kick
        jobs = self.marks.jobs(line.consumer.name, live=self._live, without=line.deferred)
        now = time.monotonic()
        jobs += [late.job for late in line.deferred.values() if now >= late.again or late.kick != begun]
        for uid in line.feeds.keys() - {job.uid for job in jobs} - line.deferred.keys():
            del line.feeds[uid]
        for job in jobs:
            if self._ending:
                return False
            kick = self._kick
            try:
                result = self._advance(line, job)
            except Exception as error:  # whatever a consumer raises is its own affair
                if getattr(error, "later", False):
                    self._defer(line, job, error, kick)
                    continue
                self._failed(line, job, error, kick)
                return True
            moved = moved or result
        if not moved and line.deferred and all(late.is_long() for late in line.deferred.values()):
            with self._changed:
                line.failed_at = begun
        return moved

    def _advance(self, line: _Line, job: _Job) -> bool:
        """Feed what there is of one run; of one that goes on one batch, so that others that do may go on too."""
        feed = line.feeds.setdefault(job.uid, _Feed())
        moved = False
        for batch, end in self._batches(job, feed.offset):
            if self._ending:
                return moved
            line.busy = (job.scan_id, time.monotonic(), time.time())
            try:
                if feed.offset == 0:
                    feed.run = line.consumer.begin(batch[0][1])
                    if feed.run is None:
                        self._delivered(line, job, None)
                        return True
                assert feed.run is not None
                result = feed.run.take(batch)
            finally:
                line.busy = None
            feed.offset = end
            moved = True
            if batch[-1][0] == "stop":
                self._delivered(line, job, result)
                return True
            self._recovered(line, f"run {job.scan_id} goes on")
            if job.state == OPEN and self.index.going_on([job.uid]):
                return True
        if job.state == READY and not self._ending:
            run = RunFile(job.path)
            for _ in run.records(feed.offset):
                return True  # it has grown meanwhile
            msg = f"{job.path} {run.damage or 'has no stop document'}: what comes before that was delivered"
            raise UserError(msg)
        return moved

    @staticmethod
    def _batches(job: _Job, offset: int) -> Iterator[tuple[list[tuple[str, Document]], int]]:
        """The documents from `offset` on in batches, each with the offset of its end."""
        if job.path.stat().st_size <= offset:
            return
        most = _LIVE_EVENTS if job.state == OPEN else _BACKLOG_EVENTS
        batch: list[tuple[str, Document]] = []
        begin = end = offset
        events = 0
        for record in RunFile(job.path).records(offset):
            if offset == 0 and not batch and end == 0 and record.name != "start":
                break
            batch.append((record.name, record.document))
            end = record.end
            events += len(record.document["seq_num"]) if record.name == "event_page" else record.name == "event"
            if events >= most or end - begin >= _BATCH_BYTES or record.name == "stop":
                yield batch, end
                batch, begin, events = [], end, 0
        if batch:
            yield batch, end

    def _delivered(self, line: _Line, job: _Job, result: str | None) -> None:
        while True:  # it is there: only the mark must follow, however late
            try:
                self.marks.delivered(job, result)
                break
            except sqlite3.Error as error:
                self._marks_broken(error)
            with self._changed:
                if self._changed.wait_for(lambda: self._ending, LOOK):
                    return
        line.feeds.pop(job.uid, None)
        line.deferred.pop(job.uid, None)
        if (line.consumer.name, job.uid) in self._told:
            self._told.discard((line.consumer.name, job.uid))
            line.failing = True
        self._recovered(line, f"run {job.scan_id} is delivered now")

    def _recovered(self, line: _Line, what: str) -> None:
        if line.failing:
            line.failing = False
            self._report(f"{line.consumer.name}: {what}")

    def _defer(self, line: _Line, job: _Job, error: Exception, kick: int) -> None:
        """Let other runs come first; its last batch is tried again."""
        name = line.consumer.name
        now = time.monotonic()
        late = line.deferred.setdefault(job.uid, _Deferred(job, now, now))
        late.again, late.kick = now + LOOK, kick
        if late.named or not late.is_long():
            return
        late.named = True
        failure = Failure(error, job.path, job.attempts + 1)
        self.marks.failed(job, failure)
        if not any((name, uid) in self._told for uid in line.deferred):  # one line for all
            self._told.add((name, job.uid))
            self._report(f"{name}: run {job.scan_id} is not delivered yet: {failure.reason}; later runs come first")

    def _failed(self, line: _Line, job: _Job, error: Exception, kick: int) -> None:
        name = line.consumer.name
        failure = Failure(error, job.path, job.attempts + 1)
        if failure.final or not line.failing:
            logger.debug("%s: run %s", name, job.uid, exc_info=error)
        line.deferred.pop(job.uid, None)
        line.feeds.pop(job.uid, None)  # it begins again from the start document
        try:
            self.marks.failed(job, failure)
        except sqlite3.Error as database_error:
            self._marks_broken(database_error)
        known = (name, job.uid) in self._told
        if failure.final:
            line.failing = False
            self._told.add((name, job.uid))
            if not known:
                self._report(
                    f"{name}: run {job.scan_id} cannot be delivered: {failure.reason}; "
                    f"it is safe in the journal, and tried again every {SECOND_CHANCE / 60:.0f} minutes"
                )
        elif not line.failing and not known:
            line.failing = True
            self._report(f"{name}: run {job.scan_id} is not delivered yet: {failure.reason}; it is tried again")
        with self._changed:
            if failure.heals:
                line.failed_at = kick
            self._changed.notify_all()
            if not failure.final:
                self._changed.wait_for(lambda: self._ending or self._kick != kick, failure.pause)

    # -- asking --------------------------------------------------------------------------------------------------------

    def rows(self) -> list[tuple[str, int, int, str]]:
        """For each consumer: its name, how many runs it has, how many it has not, and its last error."""
        return self.marks.rows(self._lines, self.index)

    def finish(self, timeout: float | None = None) -> bool:
        """Wait until every consumer has every complete run, or has failed once more to take one.

        Args:
            timeout: give up after so many seconds (s).

        Returns:
            Whether everything is delivered; a run that was set aside counts as not.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        self._look()
        with self._changed:
            self._kick += 1
            kick = self._kick
            self._changed.notify_all()
        while True:
            waiting = [name for name in self._lines if self.marks.left(name, self.index, set_aside=False)]
            if all(self._lines[name].failed_at >= kick for name in waiting):
                break
            with self._changed:
                if self._ending or (deadline is not None and time.monotonic() > deadline):
                    break
                self._changed.wait(LOOK)
        return not any(self.marks.left(name, self.index) for name in self._lines)

    def close(self, timeout: float = 2.0) -> None:
        """End; what is not delivered stays in the journal.

        Args:
            timeout: how long to wait for batches on their way (s); a consumer that hangs is left behind.
        """
        with self._changed:
            self._ending = True
            self._kick += 1
            self._changed.notify_all()
        deadline = time.monotonic() + timeout
        threads = [self._looker, *(line.thread for line in self._lines.values())]
        for thread in threads:
            if thread is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        if not any(thread is not None and thread.is_alive() for thread in threads):
            self.marks.close()
            self.index.close()
