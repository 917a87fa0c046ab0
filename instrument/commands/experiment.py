"""What an experiment is about: file, sample, proposal, comments."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME

if TYPE_CHECKING:
    from instrument.session import Session

logger = logging.getLogger(LOGGER_NAME)


class ExperimentCommands:
    """What an experiment is about: file, sample, proposal, comments."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def newfile(self, name: str | None = None) -> None:
        """Write the next runs to another SPEC file; scan numbers go on above the highest in it.

        Args:
            name: A file name in the SPEC directory, or a path; None: a new name from date and time.

        Raises:
            UserError: The file can't be used.
        """
        self._session.specwriter.newfile(name)
        self._session.specwriter.announce()

    def newsample(self, name: str) -> None:
        """Name the sample: `sample` in the metadata of all runs to come.

        Args:
            name: Its name.
        """
        self._set("newsample", "sample", name)

    def newproposal(self, name: str) -> None:
        """Name the proposal: `proposal_id` in the metadata of all runs to come, until the session ends.

        Args:
            name: Its number or name.
        """
        self._set("newproposal", "proposal_id", str(name) if isinstance(name, int) else name)

    def _set(self, command: str, key: str, value: str) -> None:
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{command} needs a name, as in {command} iron, not {value!r}")
        metadata = self._session.RE.md
        before = metadata.get(key)
        metadata[key] = value
        print(f"{key}: {before or 'none'} -> {value}")

    def comment(self, text: str) -> None:
        """Write a comment to the SPEC file (with the scan that runs, or else the next one) and to the log.

        Args:
            text: The comment; without parentheses all of the line, quotes and all.
        """
        if not str(text).strip():
            raise UserError("comment needs a text, as in comment the sample is wet")
        self._session.specwriter.spec_comment(str(text))
        logger.info("comment: %s", text)
