"""Commands that show: devices, runs, errors."""

from __future__ import annotations

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
        """Print the newest runs: scan_id, time, plan, points, exit status.

        Args:
            num: How many at the most.
        """
        print(self._session.runs_table(num))

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
