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
        """Wait until the files of all runs are written, and databases that are fed have all runs.

        Args:
            timeout: How long to wait at the most (s).

        Returns:
            True if all are written and delivered.
        """
        return self._session.wait_for_files(timeout)

    def outbox(self) -> None:
        """Print what each file writer and each database has, what is pending, and its last error."""
        from instrument.callbacks.outbox import table

        print(table(self._session.deliveries()))
