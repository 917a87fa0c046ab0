"""Commands that show: devices, runs, errors."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from instrument.config.errors import UserError

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

        return listing.listdevice(self._device(device))

    def listobjects(self) -> Any:
        """Print name, ophyd structure, EPICS prefix and labels of all devices of the session."""
        from instrument.devices import listing

        return listing.listobjects(self._session.devices)

    def listruns(self, num: int = 20) -> None:
        """Print the newest runs, newest first: scan_id, start, duration, plan, points, exit status, uid.

        Args:
            num: How many at the most.
        """
        from pyRestTable import Table

        table = Table()
        table.labels = ["scan_id", "start", "duration", "plan", "points", "status", "uid"]
        self._session.index.refresh()
        for run in self._session.index.rows(limit=num):
            stop = run.stop or {}
            table.addRow(
                [
                    run.start.get("scan_id", ""),
                    f"{datetime.fromtimestamp(run.start['time']):%Y-%m-%d %H:%M:%S}",
                    f"{stop['time'] - run.start['time']:.1f} s" if stop else "",
                    run.start.get("plan_name", ""),
                    stop.get("num_events", {}).get("primary", 0) if stop else "",
                    stop.get("exit_status", "running"),
                    run.uid[:7],
                ]
            )
        print(table.reST(fmt="simple"))

    def last_error(self) -> None:
        """Print the traceback of the last error that the prompt showed in one line."""
        self._session.last_error()

    def _device(self, device: Any) -> Any:
        if not isinstance(device, str):
            return device
        if device in self._session.devices:
            return self._session.devices[device]
        import difflib

        close = difflib.get_close_matches(device, self._session.devices, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "; devices() lists them"
        raise UserError(f"no device is named {device!r}{hint}")
