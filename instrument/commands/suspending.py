"""What holds runs while something is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instrument.config.errors import UserError

if TYPE_CHECKING:
    from instrument.session import Session

STATES = {"on": True, "off": False}


class SuspendingCommands:
    """What holds runs while something is wrong."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def suspenders(self, name: str | None = None, state: str | bool | None = None) -> None:
        """Show the suspenders of iconfig.yml, or switch them on and off; the prompt names those that are on.

        Args:
            name: Which one; "all" for every one.
            state: "on" or "off".

        Raises:
            UserError: There is none of that name, or its signal does not answer.

        Example:
            >>> suspenders("beam", "on")
        """
        suspenders = self._session.suspenders
        if name is not None:
            wanted = STATES.get(state, state) if isinstance(state, str) else state
            if not isinstance(wanted, bool):
                raise UserError(f"suspenders {name} needs on or off, as in suspenders {name} on")
            for one in [s.name for s in suspenders] if name == "all" else [name]:
                suspenders.switch(one, on=wanted)
        import pyRestTable

        table = pyRestTable.Table()
        table.labels = ["suspender", "state", "signal", "value", "runs while", "settle", "ends run after"]
        for one in suspenders:
            connected = getattr(one.signal, "connected", True)
            value = one.signal.get() if connected else "offline"
            shown = f"{value:.6g}" if isinstance(value, float) else value
            condition = "on, holds runs" if one.tripped else "on" if one.on else "off"
            ends = "" if one.abort_after is None else f"{one.abort_after:g} s"
            table.addRow((one.name, condition, one.signal.name, shown, str(one.condition), f"{one.settle:g} s", ends))
        print(table.reST(fmt="simple"), end="")
