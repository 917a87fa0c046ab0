"""Snapshots as they were recorded: read from a run's documents, found by number or uid, compared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from instrument.config.errors import UserError

if TYPE_CHECKING:
    from pyRestTable import Table

    from instrument.framework.index import Row as Run
    from instrument.framework.index import RunIndex

PLAN = "snapshot"
RESTORE, UNDO = "snapshot_restore", "snapshot_undo"
BEFORE, OUTCOME = "before", "outcome"  # streams of those: what was set before, and what became of each PV
UNREACHABLE = "unreachable"  # stream with a text for each PV that gave no value: why
SHOWN_VALUES = 20  # of an array; of a longer one the first and the last three
SHOWN_CHARACTERS = 256  # of a text
# What a session says about itself in the start document of every run: it says nothing about the snapshot.
OF_EVERY_RUN = frozenset(
    "beamline_id instrument_name proposal_id databroker_catalog hostname login_id pid versions".split()
)
GIVEN = "given_metadata"  # which of those were given to this snapshot: that says something about it
OF_EVERY_SNAPSHOT = frozenset(
    f"uid time scan_id plan_name plan_type plan_description iso8601 hints software_versions {GIVEN}".split()
)


@dataclass(frozen=True)
class Entry:
    """One line of a snapshot.

    Attributes:
        key: The data key in the documents.
        data_key: What the descriptor says of it: source, dtype, units, enum_strs.
        value: What it had; None where it gave no value.
        timestamp: When that value came to be (s since the epoch); None where there is none.
        problem: Why it gave no value; None if it did.
    """

    key: str
    data_key: Mapping[str, Any]
    value: Any = None
    timestamp: float | None = None
    problem: str | None = None

    @property
    def source(self) -> str:
        """Where the value is from: `PV` for EPICS."""
        return str(self.data_key.get("source", "")).partition(":")[0]

    @property
    def name(self) -> str:
        """The name of the PV; of what is none, what follows its source."""
        return str(self.data_key.get("source", "")).partition(":")[2] or self.key

    @property
    def is_pv(self) -> bool:
        """Whether it can be read and written by that name."""
        return self.source == "PV"

    @property
    def time(self) -> str:
        """The time stamp as people read it."""
        return "" if self.timestamp is None else f"{datetime.fromtimestamp(self.timestamp):%Y-%m-%d %H:%M:%S.%f}"

    @property
    def shown(self) -> str:
        """The value as people read it, or why there is none."""
        return f"not read: {self.problem}" if self.problem is not None else shown(self.value, self.data_key)


@dataclass
class Snapshot:
    """A run's values at one moment.

    Attributes:
        start: The start document.
        entries: In the order in which they were asked for; those without a value come last.
        stop: The stop document; empty if there is none.
    """

    start: dict[str, Any] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    stop: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, documents: Iterable[tuple[str, Mapping[str, Any]]], stream: str = "primary") -> Snapshot:
        """The snapshot that a run's documents hold.

        Args:
            documents: Names and documents, from start to stop.
            stream: Which stream has the values.
        """
        collector = Collector(stream)
        for name, document in documents:
            collector.take(name, document)
        return collector.snapshot

    @property
    def uid(self) -> str:
        """Of the run."""
        return str(self.start.get("uid", ""))

    @property
    def sorted(self) -> list[Entry]:
        """The entries as the report lists them, each source once."""
        by_source: dict[str, Entry] = {}
        for entry in self.entries:
            by_source.setdefault(str(entry.data_key.get("source", entry.key)), entry)
        return [by_source[source] for source in sorted(by_source)]

    def __str__(self) -> str:
        """How people call it."""
        if not self.uid:
            return "now"
        return f"{_kind((str(self.start.get('plan_name', PLAN)),))} {self.start.get('scan_id', '?')} ({self.uid[:7]})"

    def header(self) -> dict[str, Any]:
        """The start document without what every run of a session says, unless it was given; sorted by key."""
        return {key: self.start[key] for key in sorted(self.start.keys() - _of_every_run(self.start) - {GIVEN})}

    def table(self) -> Table:
        """The table of the report."""
        import pyRestTable

        table = pyRestTable.Table()
        for label in ("timestamp", "source", "name", "value"):
            table.addLabel(label)
        for entry in self.sorted:
            table.addRow((entry.time, entry.source, entry.name, entry.shown))
        return table

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        return {
            "start": jsonable(self.start),
            "pvs": [
                {
                    "name": entry.name,
                    "source": entry.source,
                    "value": jsonable(entry.value),
                    "text": entry.shown if entry.problem is None else None,
                    "timestamp": entry.timestamp,
                    "units": entry.data_key.get("units"),
                    "problem": entry.problem,
                }
                for entry in self.sorted
            ],
            "stop": jsonable(self.stop),
        }


def _of_every_run(start: Mapping[str, Any]) -> frozenset[str]:
    return OF_EVERY_RUN.difference(start.get(GIVEN, ()))


class Collector:
    """Makes a `Snapshot` of documents as they come."""

    def __init__(self, stream: str = "primary") -> None:
        self.snapshot = Snapshot()
        self._stream = stream
        self._descriptors: dict[str, Mapping[str, Any]] = {}
        self._seen: set[tuple[str, bool]] = set()

    def take(self, name: str, document: Mapping[str, Any]) -> None:
        """Take one document."""
        if name == "start":
            self.snapshot.start = dict(document)
        elif name == "stop":
            self.snapshot.stop = dict(document)
        elif name == "descriptor" and document.get("name") in {self._stream, UNREACHABLE}:
            self._descriptors[document["uid"]] = document
        elif name == "event" and document["descriptor"] in self._descriptors:
            self._add(self._descriptors[document["descriptor"]], document["data"], document["timestamps"])
        elif name == "event_page" and document["descriptor"] in self._descriptors:
            first = {key: column[0] for key, column in document["data"].items()}
            times = {key: column[0] for key, column in document["timestamps"].items()}
            self._add(self._descriptors[document["descriptor"]], first, times)

    def _add(self, descriptor: Mapping[str, Any], data: Mapping[str, Any], timestamps: Mapping[str, Any]) -> None:
        if descriptor.get("name") == UNREACHABLE:
            for key, data_key in descriptor["data_keys"].items():
                self._append(Entry(key, data_key, problem=str(data[key])))
            return
        keys = descriptor["data_keys"]
        configurations = descriptor.get("configuration") or {}
        objects = descriptor.get("object_keys") or {"": list(keys)}
        for (
            name,
            own,
        ) in objects.items():  # how a device is configured, which is set before it is moved, then its readings
            configuration = configurations.get(name) or {}
            for key, data_key in configuration.get("data_keys", {}).items():
                if key in configuration["data"] and key not in data:
                    when = configuration["timestamps"].get(key)
                    self._append(Entry(key, data_key, configuration["data"][key], when))
            for key in own:
                if key in data:
                    self._append(Entry(key, keys[key], data[key], timestamps.get(key)))

    def _append(self, entry: Entry) -> None:
        seen = (entry.key, entry.problem is None)  # the stream of those without a value has keys of its own
        if seen not in self._seen:
            self._seen.add(seen)
            self.snapshot.entries.append(entry)


# --- values --------------------------------------------------------------------------------------------------------


def shown(value: Any, data_key: Mapping[str, Any] | None = None) -> str:
    """A value as the report shows it: the label of an enumeration, arrays as lists, text in one line."""
    labels = (data_key or {}).get("enum_strs")
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if labels and isinstance(value, int) and 0 <= value < len(labels) and labels[value]:
        return str(labels[value])
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, list):
        if len(value) <= SHOWN_VALUES:
            return str(value)
        first, last = (", ".join(map(repr, part)) for part in (value[:3], value[-3:]))
        return f"[{first}, ... {last}] ({len(value)} values)"
    if isinstance(value, str):
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
        if len(text) > SHOWN_CHARACTERS:
            return f"{text[:SHOWN_CHARACTERS]}... ({len(value)} characters)"
        return text
    return str(value)


def jsonable(value: Any) -> Any:
    """A value of a document as JSON has it; what is no finite number is text."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | None) else str(value)


# --- finding -------------------------------------------------------------------------------------------------------


class Snapshots(Protocol):
    """The snapshots that a journal or a catalog has."""

    def find(self, which: Any, *, plans: tuple[str, ...] = (PLAN,), stream: str = "primary") -> Snapshot:
        """One snapshot.

        Args:
            which: -1 for the last one, -2 for the one before; a scan number; the beginning of a uid.
            plans: Names of the plans whose runs count.
            stream: Which stream has the values.

        Raises:
            UserError: There is none, it is of another kind of run, or several are meant.
        """
        ...

    def newest(self, number: int) -> list[dict[str, Any]]:
        """The start documents of the last ones, newest first."""
        ...


class JournalSnapshots:
    """The snapshots of a journal; no file is opened that is not asked for.

    Args:
        index: Of its runs.
    """

    def __init__(self, index: RunIndex) -> None:
        self._index = index

    def find(self, which: Any, *, plans: tuple[str, ...] = (PLAN,), stream: str = "primary") -> Snapshot:
        """One snapshot; see `Snapshots.find`."""
        from instrument.framework.runfiles import RunFile

        return Snapshot.of(iter(RunFile(self._run(which, plans).path)), stream)

    def newest(self, number: int) -> list[dict[str, Any]]:
        """The start documents of the last ones, newest first."""
        self._index.refresh()
        return [run.start for run in self._index.rows({"plan_name": PLAN}, limit=number)]

    def _run(self, which: Any, plans: tuple[str, ...]) -> Run:
        self._index.refresh()
        query = _query(plans)
        number = _number(which)
        if number is not None and number < 0:
            found = self._index.newest(-number - 1, query)
            if found is None:
                raise _too_few(number, self._index.count(query), plans)
            return found
        found = self._index.with_scan_id(number) if number is not None else None
        if found is None:
            matches = self._index.with_uid(str(which))
            if not matches:
                raise _unknown(which, plans)
            if len(matches) > 1 and matches[0].uid != which:
                uids = ", ".join(run.uid[:8] for run in matches)
                raise UserError(f"several runs have a uid that begins with {which}: {uids}; give more of it")
            found = matches[0]
        _check_kind(found.start, plans)
        return found


class CatalogSnapshots:
    """The snapshots of a catalog of databroker's.

    Args:
        catalog: Its v2 catalog.
    """

    def __init__(self, catalog: Any) -> None:
        self._catalog = catalog

    def find(self, which: Any, *, plans: tuple[str, ...] = (PLAN,), stream: str = "primary") -> Snapshot:
        """One snapshot; see `Snapshots.find`."""
        number = _number(which)
        backward = number is not None and number < 0
        found = self._catalog.search(_query(plans)) if backward else self._catalog
        try:
            run = found[number if number is not None else str(which)]
        except (KeyError, IndexError, ValueError) as error:
            raise (_too_few(number, len(found), plans) if backward else _unknown(which, plans)) from error
        _check_kind(run.metadata["start"], plans)
        return Snapshot.of(run.documents(fill="no"), stream)

    def newest(self, number: int) -> list[dict[str, Any]]:
        """The start documents of the last ones, newest first."""
        found = self._catalog.search({"plan_name": PLAN})
        return [dict(found[uid].metadata["start"]) for uid in itertools.islice(found, number)]


def listing(starts: Iterable[Mapping[str, Any]]) -> Table:
    """A table of snapshots.

    Args:
        starts: Their start documents.
    """
    import pyRestTable

    table = pyRestTable.Table()
    table.labels = ["scan_id", "uid", "date/time", "metadata"]
    for start in starts:
        keys = sorted(start.keys() - _of_every_run(start) - OF_EVERY_SNAPSHOT)
        own = ", ".join(f"{key}={start[key]}" for key in keys)
        table.addRow((start.get("scan_id", ""), start["uid"][:8], start.get("iso8601", ""), own))
    return table


def _too_few(number: int | None, count: int, plans: tuple[str, ...]) -> UserError:
    recorded = "none is recorded" if not count else f"{count} {'is' if count == 1 else 'are'} recorded"
    return UserError(f"there is no {_kind(plans)} {number}: {recorded} here")


def _unknown(which: Any, plans: tuple[str, ...]) -> UserError:
    return UserError(
        f"there is no run {which}: give -1 for the last {_kind(plans)}, a scan number or the beginning of a uid; "
        "bluesky_snapshot --list shows them"
    )


def _check_kind(start: Mapping[str, Any], plans: tuple[str, ...]) -> None:
    name = start.get("plan_name", "run without a plan")
    if name not in plans:
        raise UserError(
            f"run {start.get('scan_id', '?')} ({start['uid'][:7]}) is a {name}, not a {_kind(plans)}: "
            "bluesky_snapshot --list shows the snapshots"
        )


def _kind(plans: tuple[str, ...]) -> str:
    return plans[0].replace("snapshot_", "")


def _query(plans: tuple[str, ...]) -> dict[str, Any]:
    return {"plan_name": plans[0]} if len(plans) == 1 else {"plan_name": {"$in": list(plans)}}


def _number(which: Any) -> int | None:
    if isinstance(which, bool):
        raise UserError(f"{which!r} is no snapshot: give -1 for the last one, a scan number or the beginning of a uid")
    if isinstance(which, int | np.integer):
        return int(which)
    try:
        return int(str(which)) if len(str(which)) < 8 else None  # the beginning of a uid may be all digits
    except ValueError:
        return None
