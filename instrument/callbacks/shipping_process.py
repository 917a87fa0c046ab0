"""A session's side of the shipping process: it starts it, tells what it says, and knows how far it is."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from instrument.callbacks.shipping import Marks
from instrument.framework.presence import SoleOwner

if TYPE_CHECKING:
    from instrument.framework.index import RunIndex
    from instrument.framework.runfiles import DataDirectory

_LOOK = 2.0  # s between two looks whether the process of another session still ships
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # s before it is started again
_REFUSED = 2  # exit code: what is wrong was told, and does not heal
_WAIT_LOOK = 0.1  # s


class ShippingProcess:
    """Sees to it that there is a shipping process while the session lives.

    The process is nobody's child as far as signals go: Ctrl-C at the prompt does not reach it, and the end of the
    session does not end it. It ends when no session is left on the data directory and what can be delivered is.

    Args:
        names: The consumers that it feeds.
        data: Where journal and marks are.
        index: The journal's index.
        tell: Told what it says, in one line. Called from a thread.

    Raises:
        UserError: The marks cannot be written.
    """

    def __init__(self, names: Iterable[str], data: DataDirectory, index: RunIndex, tell: Callable[[str], None]) -> None:
        self.names = list(names)
        self._index = index
        self._tell = tell
        self._lock = SoleOwner(data.ship_lock)
        self._marks = Marks(data.ship)
        self._marks.register(self.names, index)
        self._closing = threading.Event()

    # -- the process -------------------------------------------------------------------------------------------------

    def start(self, config: Path, directory: Path) -> None:
        """Start it, unless another session has, and start it again if it is killed.

        Args:
            config: The iconfig.yml.
            directory: The session's working directory.
        """
        command = [sys.executable, "-m", "instrument.cli", "ship", "--with-sessions", "--config", str(config)]
        threading.Thread(target=self._keep, args=(command, directory), name="ship watch", daemon=True).start()

    def _keep(self, command: list[str], directory: Path) -> None:
        pause = _FIRST_PAUSE
        while not self._closing.is_set():
            if self._lock.holder() is not None:
                self._closing.wait(_LOOK)
                continue
            process = subprocess.Popen(
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )
            assert process.stdout is not None
            for line in process.stdout:
                if not self._closing.is_set() and "are shipped already" not in line:
                    self._tell(line.rstrip())
            code = process.wait()
            if self._closing.is_set() or (code == _REFUSED and self._lock.holder() is None):
                return
            if code != _REFUSED:
                how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                self._tell(f"the shipping process (pid {process.pid}) ended with {how}: it is started again")
                self._closing.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    # -- how far it is -------------------------------------------------------------------------------------------------

    def rows(self) -> list[tuple[str, int, int, str]]:
        """For each consumer: its name, how many runs it has, how many it has not, and its last error."""
        nobody = "" if self._lock.holder() else "nobody ships: start `instrument ship`"
        return [(*row[:3], row[3] or (nobody if row[2] else "")) for row in self._marks.rows(self.names, self._index)]

    def pending(self) -> dict[str, int]:
        """How many complete runs each consumer still has to take, those that were set aside left out."""
        return {name: self._marks.left(name, self._index, set_aside=False) for name in self.names}

    def wait(self, timeout: float, progress: Callable[[str], None]) -> bool:
        """Wait until every consumer has every complete run.

        Args:
            timeout: Give up after so many seconds (s).
            progress: Told, in one line, what is being waited for, whenever that changes.

        Returns:
            Whether all is delivered; a run that was set aside counts as not.
        """
        deadline = time.monotonic() + timeout
        told = None
        while left := {name: count for name, count in self.pending().items() if count}:
            line = "waiting for " + ", ".join(f"{name} ({count} to deliver)" for name, count in left.items())
            if line != told:
                progress(line)
            told = line
            if time.monotonic() > deadline or self._closing.wait(_WAIT_LOOK):
                return False
        return not any(self._marks.left(name, self._index) for name in self.names)

    def close(self) -> None:
        """Leave it to itself; call it when the last run is in the journal."""
        self._closing.set()
        left = ", ".join(f"{name} ({count})" for name, count in self.pending().items() if count)
        if left and self._lock.holder():
            self._tell(f"shipping goes on behind the session: {left}; what fails now comes with the next session")
        elif left:
            self._tell(f"not shipped: {left}; the next session here does it, or `instrument ship`")
        self._marks.close()
