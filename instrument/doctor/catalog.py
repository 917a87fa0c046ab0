"""Runs, their index, what was not delivered, and who is at work: read without changing a byte."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from instrument.doctor.findings import Finding, Patient, count, some

_REPAIR = "`instrument catalog check --repair` makes it anew from the runs' files"


def catalog(patient: Patient) -> Iterator[Finding]:
    """Are the runs there, indexed, closed and delivered?"""
    try:
        from instrument.framework.presence import living
        from instrument.framework.runfiles import SUFFIX, DataDirectory, RunFileError, check_schema, month_directories
    except ImportError as error:
        yield Finding("catalog", "wrong", f"{error.name} can't be imported", "install what is missing, see packages")
        return
    data = DataDirectory(patient.data)
    if not data.root.is_dir():
        yield Finding("catalog", "ok", f"no runs yet: {data.root} is made by the first session")
        return
    try:
        check_schema(data.runs)
        files = {path for month in month_directories(data.runs) for path in _files(month, SUFFIX)}
    except (OSError, RunFileError) as error:
        yield Finding("catalog", "wrong", " ".join(str(error).split()), "look after that directory")
        return
    sessions = living(data.sessions, tidy=False)
    at_work = f"; at work here: {some(str(owner) for owner in sessions)}" if sessions else ""
    yield from _index(data.index, data.runs, files, at_work)
    yield from _state(data.state)
    yield from _undelivered(data.outbox, "outbox", "the next session here writes them; `outbox()` there shows why not")
    yield from _undelivered(
        data.ship, "ship", "`instrument ship --once` delivers them, `instrument ship --status` shows"
    )


def _files(directory: Path, suffix: str) -> Iterator[Path]:
    with os.scandir(directory) as entries:
        yield from (Path(entry.path) for entry in entries if entry.name.endswith(suffix) and entry.is_file())


def reading(path: Path) -> sqlite3.Connection:
    """A database opened for reading, so that not even its side files are made."""
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    return sqlite3.connect(f"file:{path}?{mode}", uri=True, timeout=1.0)


def _index(index: Path, runs: Path, files: set[Path], at_work: str) -> Iterator[Finding]:
    from instrument.framework.runfiles import has_owner

    text = f"{count(len(files), 'run')} in {runs}"
    if not index.exists():
        yield Finding("catalog", "ok", f"{text}, no index: the next look makes it{at_work}")
        return
    try:
        with closing(reading(index)) as database:
            known = {runs / path for (path,) in database.execute("SELECT path FROM runs")}
            unfinished = [runs / path for (path,) in database.execute("SELECT path FROM runs WHERE closed = 0")]
            damaged = [path for (path,) in database.execute("SELECT path FROM unreadable")]
    except sqlite3.Error as error:
        yield Finding("catalog", "wrong", f"the index {index} can't be read ({error})", _REPAIR)
        return
    gone, new = known - files, files - known - {runs / path for path in damaged}
    if gone or new:
        text += f"; the index lacks {len(new)} of them and has {len(gone)} that are gone"
    yield Finding("catalog", "ok", f"{text}{'' if gone or new else ', all in the index'}{at_work}")  # any look mends it
    if damaged:
        advice = f"move them out of {runs}; `instrument catalog check` says what is wrong with each"
        yield Finding(
            "catalog", "warning", f"{count(len(damaged), 'file')} no run can be read from: {some(damaged)}", advice
        )
    left = [path for path in unfinished if path in files and not has_owner(path)]
    if left:
        advice = "nothing: the next session here closes them, their events are safe"
        names = some(path.stem[:7] for path in left)
        yield Finding(
            "catalog", "warning", f"{count(len(left), 'run')} without an end, nobody writes them: {names}", advice
        )


def _state(state: Path) -> Iterator[Finding]:
    if not state.exists():
        return
    try:
        if not isinstance(json.loads(state.read_text()), dict):
            raise ValueError("it holds no dictionary")
    except (OSError, ValueError) as error:
        advice = "nothing: the next session sets it aside and goes on from the journal's last scan number"
        yield Finding("catalog", "warning", f"{state} (RE.md) can't be read ({error})", advice)


def _undelivered(marks: Path, topic: str, advice: str) -> Iterator[Finding]:
    """What waits for a file writer or a database, by the marks on disk."""
    if not marks.exists():
        return
    try:
        with closing(reading(marks)) as database:
            rows = database.execute(
                "SELECT consumer, count(*), max(error) FROM deliveries WHERE state IN ('ready', 'set aside')"
                " GROUP BY consumer"
            ).fetchall()
    except sqlite3.Error as error:
        yield Finding(topic, "wrong", f"{marks} can't be read ({error})", "move it away; runs are safe in the journal")
        return
    for consumer, number, error in rows:
        why = f" ({' '.join(error.split())})" if error else ""
        yield Finding(topic, "warning", f"{count(number, 'run')} not delivered to {consumer}{why}", advice)
    if not rows:
        yield Finding(topic, "ok", "all runs delivered")
