"""Commands about the RunEngine and the virtual beamline."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instrument.session import Session


class EngineCommands:
    """Commands about the RunEngine and the virtual beamline."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def trace_messages(self, on: bool = True) -> None:
        """Print each message that the RunEngine works on, with the time since the first.

        Args:
            on: False ends it.

        Example:
            >>> trace_messages()
            >>> RE(bps.mv(m1, 1))
        """
        from instrument.framework.engine import TraceMessages

        self._session.RE.msg_hook = TraceMessages() if on else None

    def start_beamline(self) -> None:
        """Start the virtual beamline again after it ended; its devices come back by themselves.

        Raises:
            UserError: It is running, or this session did not start it.
        """
        self._session.start_beamline()
