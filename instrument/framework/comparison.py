"""What differs between two snapshots."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from instrument.config.errors import UserError
from instrument.framework.snapshots import Entry, Snapshot

if TYPE_CHECKING:
    from pyRestTable import Table


@dataclass(frozen=True)
class Tolerance:
    """How far two numbers may be apart and still count as the same.

    Attributes:
        absolute: In the unit of the PV.
        relative: As a fraction of the larger of the two.
    """

    absolute: float = 0.0
    relative: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("tolerance", self.absolute), ("relative", self.relative)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise UserError(f"{name}={value!r} is no tolerance: give a number, 0 or more")

    def __str__(self) -> str:
        """What follows `3 of 5 differ`."""
        within = [f"{self.absolute:g}"] if self.absolute else []
        within += [f"{self.relative:g} of the value"] if self.relative else []
        return f" by more than {' or '.join(within)}" if within else ""

    def same(self, one: Any, other: Any) -> bool:
        """Whether two values count as the same; NaN is the same as NaN."""
        if isinstance(one, str) or isinstance(other, str):
            return isinstance(one, str) and isinstance(other, str) and one == other
        ours, theirs = np.asarray(one), np.asarray(other)
        if ours.shape != theirs.shape:
            return False
        if ours.dtype.kind not in "biuf" or theirs.dtype.kind not in "biuf":
            return bool(np.array_equal(ours, theirs))
        if ours.size == 1:
            a, b = float(ours.item()), float(theirs.item())
            both_nan = math.isnan(a) and math.isnan(b)
            return both_nan or math.isclose(a, b, rel_tol=self.relative, abs_tol=self.absolute)
        scale = np.maximum(np.abs(ours), np.abs(theirs)) * self.relative
        near = np.abs(ours.astype(float) - theirs.astype(float)) <= np.maximum(scale, self.absolute)
        return bool(np.all(near | (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))))


def same_entry(one: Entry, other: Entry, tolerance: Tolerance) -> bool:
    """Whether two entries have the same value, or neither has one; enumerations are compared by their labels."""
    if one.problem is not None or other.problem is not None:
        return one.problem is not None and other.problem is not None
    if "enum_strs" in one.data_key and "enum_strs" in other.data_key:
        return one.shown == other.shown
    return tolerance.same(one.value, other.value)


@dataclass(frozen=True)
class Change:
    """One line of a comparison; None where one of the two does not have it."""

    name: str
    before: Entry | None
    after: Entry | None

    @property
    def difference(self) -> str:
        """How much a number has changed; nothing for what is none."""
        if self.before is None or self.after is None or self.before.problem or self.after.problem:
            return ""
        values = (self.before.value, self.after.value)
        if any("enum_strs" in entry.data_key for entry in (self.before, self.after)):
            return ""
        if not all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in values):
            return ""
        return f"{float(values[1]) - float(values[0]):+g}"


@dataclass(frozen=True)
class Comparison:
    """What differs between two snapshots.

    Attributes:
        before: One of them.
        after: The other.
        changes: What differs, sorted as in the report.
        count: How many were compared.
        tolerance: What was taken for the same.
        unknown: Names of those that were read neither time.
    """

    before: Snapshot
    after: Snapshot
    changes: list[Change]
    count: int
    tolerance: Tolerance
    unknown: Sequence[str] = ()

    def table(self) -> Table:
        """Name, both values, and how much a number has changed."""
        import pyRestTable

        table = pyRestTable.Table()
        table.labels = ["name", str(self.before), str(self.after), "change"]
        for change in self.changes:
            cells = ("not in it" if entry is None else entry.shown for entry in (change.before, change.after))
            table.addRow((change.name, *cells, change.difference))
        return table

    def lines(self) -> list[str]:
        """What `snapshot_diff` prints."""
        summary = f"{len(self.changes)} of {self.count} differ{self.tolerance}"
        if self.unknown:
            more = f" and {len(self.unknown) - 3} more" if len(self.unknown) > 3 else ""
            summary += f"; read neither then nor now: {', '.join(self.unknown[:3])}{more}"
        heads = [
            f"{snapshot}: {snapshot.start.get('iso8601', '')}".rstrip(": ") for snapshot in (self.before, self.after)
        ]
        if not self.changes:
            return [*heads, summary]
        return [*heads, *str(self.table().reST(fmt="simple")).splitlines(), summary]

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        from instrument.framework.snapshots import jsonable

        def value(entry: Entry | None) -> Any:
            return None if entry is None else jsonable(entry.value)

        return {
            "before": self.before.uid,
            "after": self.after.uid or None,
            "compared": self.count,
            "unknown": list(self.unknown),
            "changes": [
                {
                    "name": change.name,
                    "before": value(change.before),
                    "after": value(change.after),
                    "problem": next((e.problem for e in (change.before, change.after) if e and e.problem), None),
                }
                for change in self.changes
            ],
        }

    @property
    def unread(self) -> list[str]:
        """Names of what could not be compared, because it was not read the second time, and maybe not the first."""
        changed = (change for change in self.changes if change.after is not None and change.after.problem is not None)
        return [*(change.name for change in changed), *self.unknown]


def compare(before: Snapshot, after: Snapshot, tolerance: Tolerance) -> Comparison:
    """Compare two snapshots.

    Args:
        before: One of them.
        after: The other.
        tolerance: What counts as the same.
    """
    ours, theirs = _by_source(before.sorted), _by_source(after.sorted)
    changes, unknown = [], []
    sources = sorted(ours.keys() | theirs.keys())
    for source in sources:
        one, other = ours.get(source), theirs.get(source)
        if one is None or other is None or not same_entry(one, other, tolerance):
            changes.append(Change((one or other).name, one, other))  # type: ignore[union-attr]  one of them is there
        elif one.problem is not None:
            unknown.append(one.name)
    return Comparison(before, after, changes, len(sources), tolerance, unknown)


def _by_source(entries: Iterable[Entry]) -> dict[str, Entry]:
    return {str(entry.data_key.get("source", entry.key)): entry for entry in entries}
