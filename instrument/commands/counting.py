"""What scans count with, and what of it is plotted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instrument.config.errors import UserError, nearest

if TYPE_CHECKING:
    from instrument.session import Session


class CountingCommands:
    """What scans count with, and what of it is plotted."""

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

    def plotselect(self, *signals: Any) -> None:
        """Choose which signals are plotted, and looked at by `cen()`; without arguments, show it.

        Args:
            signals: Signals or their names, the one for `cen()` first; "all" for every hinted one.

        Raises:
            UserError: No counter has such a signal.
        """
        bec = self._session.bec
        known: list[str] = []
        for device in self._session.counters.devices:
            known += (getattr(device, "hints", None) or {}).get("fields", []) or [device.name]
        if bec.last_scan is not None:
            known += bec.last_scan.measured
        if signals == ("all",):
            bec.selected = ()
        elif signals:
            names = [getattr(signal, "name", signal) for signal in signals]
            for name in names:
                if name not in known:
                    near = nearest(str(name), known)
                    hint = f"; did you mean {near!r}?" if near else f"; there are {', '.join(dict.fromkeys(known))}"
                    raise UserError(f"plotselect: no counter has a signal {name!r}{hint}")
            bec.selected = tuple(dict.fromkeys(names))
        print("plotting " + (" ".join(bec.selected) or "all hinted signals"))
