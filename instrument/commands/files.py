"""Commands about the files that a session writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from instrument.session import Session


class FileCommands:
    """Commands about the files that a session writes."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def newSpecFile(self, title: str, scan_id: int | None = None) -> Path:  # noqa: N802  the name that people know
        """Write the next scans to the SPEC file `month_day_title.dat`; it is appended if it exists.

        Args:
            title: What the file is about; becomes part of its name.
            scan_id: The next scan's number is one more than this, and more than any in the file.

        Returns:
            The path of the file, which is created when the next run ends.
        """
        return self._session.new_spec_file(title, scan_id)

    def spec_comment(self, text: str, doc: str | None = None) -> None:
        """Put a `#C` line into the SPEC file: into the run under way, or the next one.

        Args:
            text: The comment; each line of it becomes one.
            doc: Where it stands: "start", "descriptor", "event" or "stop"; by default where the run is.
        """
        self._session.specwriter.comment(text, doc)

    def wait_for_files(self, timeout: float = 60.0) -> bool:
        """Wait until the files of all runs are written.

        Args:
            timeout: How long to wait at the most (s).

        Returns:
            True if all are written.
        """
        return self._session.wait_for_files(timeout)

    def outbox(self) -> Any:
        """Print what was delivered to each file writer, what is pending, and its last error."""
        print(self._session.outbox.table())
