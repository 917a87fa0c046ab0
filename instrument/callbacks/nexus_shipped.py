"""A Tiled server is told of the NeXus files that sessions write; in the shipping process, behind the outbox."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from instrument.callbacks.nexus import NexusWriter
from instrument.callbacks.outbox import DELIVERED, OPEN, READY, has_living_owner, outcomes
from instrument.config.errors import UserError

if TYPE_CHECKING:
    from instrument.tiled.nexus import NexusFiles


class NotWrittenYetError(UserError):
    """The session has not written a run's NeXus file yet."""

    later = True


class NeverWrittenError(UserError):
    """No session is left that would write a run's NeXus file. The next one that has NeXus files will."""

    final = True


class ShippedNexusFiles:
    """Tells a Tiled server of each run's NeXus file when it is written; runs that have none are passed over.

    Args:
        files: Whom to tell.
        outbox: The marks of the sessions' outbox, `DataDirectory.outbox`.
    """

    name = "NeXus on Tiled"

    def __init__(self, files: NexusFiles, outbox: Path) -> None:
        self._files = files
        self._outbox = outbox

    def begin(self, start: dict[str, Any]) -> ShippedNexusFiles:
        """There is nothing to do before the run has ended."""
        return self

    def take(self, documents: list[tuple[str, dict[str, Any]]]) -> str | None:
        """Tell of the file when the run has ended.

        Raises:
            NotWrittenYetError: The session is at it.
            NeverWrittenError: The session has ended without it.
        """
        name, document = documents[-1]
        if name != "stop":
            return None
        uid = document["run_start"]
        at_work = has_living_owner(self._outbox, NexusWriter.name, uid)  # first: it may end with all files written
        state, result = outcomes(self._outbox, NexusWriter.name, uid).get(uid, (None, None))
        if state in {OPEN, READY}:
            if at_work:
                raise NotWrittenYetError(f"the NeXus file of run {uid[:8]} is not written yet")
            raise NeverWrittenError(f"the NeXus file of run {uid[:8]} is not written, and its session has ended")
        return self._files.add(uid, Path(result)) if state == DELIVERED and result else None
