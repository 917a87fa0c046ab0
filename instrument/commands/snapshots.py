"""Commands about snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instrument.session import Session


class SnapshotCommands:
    """Commands about snapshots."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def snapshot_diff(
        self, a: Any = -1, b: Any = "now", *, tolerance: float = 0.0, relative: float = 0.0, timeout: float = 3.0
    ) -> None:
        """Print what differs between two snapshots, or between one and what is set now. Nothing is recorded.

        Args:
            a: -1 for the last snapshot, -2 for the one before; a scan number; the beginning of a uid.
            b: Another one, or "now".
            tolerance: Numbers that are no further apart are the same (unit of the PV).
            relative: The same as a fraction of the value.
            timeout: How long PVs are waited for (s).

        Example:
            >>> snapshot_diff(-1)
            >>> snapshot_diff(-2, -1, tolerance=0.001)
        """
        from instrument.devices.present import present
        from instrument.framework.comparison import Tolerance, compare
        from instrument.framework.snapshots import JournalSnapshots

        within = Tolerance(tolerance, relative)
        snapshots = JournalSnapshots(self._session.index)
        before = snapshots.find(a)
        after = present(before, timeout=timeout, objects=self._session.devices) if b == "now" else snapshots.find(b)
        print(*compare(before, after, within).lines(), sep="\n")
