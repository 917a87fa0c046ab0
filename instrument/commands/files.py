"""Commands about the files that a session writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instrument.session import Session


class FileCommands:
    """Commands about the files that a session writes."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def wait_for_files(self, timeout: float = 60.0) -> bool:
        """Wait until the files of all runs are written.

        Args:
            timeout: How long to wait at the most (s).

        Returns:
            True if all are written.
        """
        return self._session.wait_for_files(timeout)

    def outbox(self) -> None:
        """Print what was delivered to each file writer, what is pending, and its last error."""
        print(self._session.outbox.table())
