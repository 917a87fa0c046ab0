"""Commands that show: devices, runs, errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instrument.framework import runs
from instrument.plans.defaults import device_of

if TYPE_CHECKING:
    from instrument.session import Session


class InformationCommands:
    """Commands that show: devices, runs, errors."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def devices(self) -> None:
        """Print the table of devices: name, class, prefix, labels, and whether each is connected."""
        print(self._session.health.table())

    def listdevice(self, device: Any) -> Any:
        """Print name, value and timestamp of what `device` reads.

        Args:
            device: An ophyd device or signal, or its name.
        """
        from instrument.devices import listing

        return listing.listdevice(device_of(self._session.devices, device))

    def listobjects(self) -> Any:
        """Print name, ophyd structure, EPICS prefix and labels of all devices of the session."""
        from instrument.devices import listing

        return listing.listobjects(self._session.devices)

    def listruns(
        self,
        num: int = 20,
        *,
        since: str | None = None,
        until: str | None = None,
        plan: str | None = None,
        text: str | None = None,
        **metadata: Any,
    ) -> None:
        """Print the newest runs, newest first: scan_id, start, duration, plan, points, exit status, uid.

        Args:
            num: How many at the most.
            since: Those that started then or later: "2026-11-21", "2026-11-21 04:30", or how long ago: "2 h", "3 d".
            until: Those that started before; a day stands for its end.
            plan: Name of the plan.
            text: Words that occur in the metadata.
            metadata: Further keys of the start document, such as `sample="dirt"`.

        Example:
            >>> listruns(5, since="2 h", plan="scan")
        """
        print(
            runs.table(
                self._session.index, num=num, since=since, until=until, plan=plan, text=text, metadata=metadata
            ).reST(fmt="simple")
        )

    def showscans(self, num: int = 10) -> None:
        """Print the newest scans as they were typed, newest first.

        Args:
            num: How many at the most.
        """
        print(runs.scans(self._session.index, num=num).reST(fmt="simple"), end="")

    def last_error(self) -> None:
        """Print the traceback of the last error that the prompt showed in one line."""
        self._session.last_error()
