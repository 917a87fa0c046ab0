"""A Tiled server is told of the NeXus files that sessions write; in the shipping process, behind the outbox."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instrument.callbacks.nexus import NexusWriter
from instrument.callbacks.outbox import DELIVERED, OPEN, READY, outcomes
from instrument.config.errors import UserError

if TYPE_CHECKING:
    from instrument.tiled.nexus import NexusFiles

_LOOK = 0.2  # s between two looks whether a file is written
_PATIENCE = 30.0  # s; then other runs may come first


class NotWrittenYetError(UserError):
    """The session has not written a run's NeXus file yet."""

    transient = True


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
        """Wait for the file when the run has ended.

        Raises:
            NotWrittenYetError: It takes long.
        """
        name, document = documents[-1]
        if name != "stop":
            return None
        uid = document["run_start"]
        end = time.monotonic() + _PATIENCE
        while True:
            state, result = outcomes(self._outbox, NexusWriter.name, uid).get(uid, (None, None))
            if state not in {OPEN, READY}:
                break
            if time.monotonic() > end:
                raise NotWrittenYetError(f"the NeXus file of run {uid[:8]} is not written yet")
            time.sleep(_LOOK)
        return self._files.add(uid, Path(result)) if state == DELIVERED and result else None
