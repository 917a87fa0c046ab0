"""The report of a snapshot: printed while it is taken, or replayed from a catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from instrument.framework.snapshots import PLAN, Collector, Snapshot


class SnapshotReport:
    """Prints the report of each snapshot among the runs whose documents it gets; other runs are none of its business.

    As a callback: `RE(snapshot([m1, noisy], report=False), SnapshotReport())`. Replayed:
    `SnapshotReport().print_report(cat[-1])`, or a Header of `db`.

    Args:
        show: Takes each line.
    """

    def __init__(self, show: Callable[[str], object] = print) -> None:
        self._show = show
        self._collector: Collector | None = None

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Take one document; the report is printed at the end of the run."""
        if name == "start":
            self._collector = Collector() if document.get("plan_name") == PLAN else None
        if self._collector is not None:
            self._collector.take(name, document)
            if name == "stop":
                print_report(self._collector.snapshot, self._show)
                self._collector = None

    def print_report(self, run: Any) -> None:
        """Print the report of a run of a catalog.

        Args:
            run: A run of databroker's (v2), a Header (v1), or names and documents.
        """
        for name, document in documents_of(run):
            self(name, document)


def documents_of(run: Any) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Names and documents of a run, whatever kind of catalog it is from."""
    documents = getattr(run, "documents", None)
    if documents is None:
        return run
    try:
        return documents()
    except TypeError:  # databroker.v2 wants to be told whether images are wanted, too
        return documents(fill="no")


def print_report(snapshot: Snapshot, show: Callable[[str], object] = print) -> None:
    """Print what was recorded, a line at a time.

    Args:
        snapshot: What is reported.
        show: Takes each line.
    """
    for line in report(snapshot):
        show(line)


def report(snapshot: Snapshot) -> list[str]:
    """The lines of the report: when, the start document, the table, the stop document."""
    lines = ["", "=" * 40, f"snapshot: {snapshot.start.get('iso8601', '')}", "=" * 40, ""]
    lines += [f"{key}: {value}" for key, value in snapshot.header().items()]
    lines += ["", *str(snapshot.table().reST(fmt="simple")).splitlines(), ""]
    lines += [f"{key}: {snapshot.stop[key]}" for key in sorted(snapshot.stop)]
    return [*lines, ""]
