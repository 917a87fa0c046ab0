"""What scans count with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instrument.session import Session


class CountingCommands:
    """What scans count with."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def counters(self, *detectors: Any) -> None:
        """Choose what `ct` and the scans count with; without arguments, show it.

        Args:
            detectors: Devices or signals, or their names; "default" for those with the label `detectors`.

        Raises:
            UserError: There is no such device, or it can't be read.

        Example:
            >>> counters(scaler1)
            >>> counters("default")
        """
        if detectors:
            self._session.counters.choose(() if detectors == ("default",) else detectors)
        print("counting with " + (" ".join(device.name for device in self._session.counters.devices) or "nothing"))
