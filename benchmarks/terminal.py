"""A program at a terminal (a pty), as a person starts it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import pexpect

from benchmarks.harness import MeasurementError, environment

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]|\x1b\][^\x07]*\x07")
_KEPT = 4096  # characters
_ASKS_FOR_CURSOR = "\x1b[6n"


class Terminal:
    """A program at a pty, whose output is read as text without control sequences."""

    def __init__(self, command: Sequence[str], cwd: Path, **variables: str) -> None:
        self.began = time.perf_counter()
        self._raw = ""
        self._process = pexpect.spawn(
            command[0],
            list(command[1:]),
            cwd=str(cwd),
            env=environment(TERM="xterm", **variables),
            dimensions=(50, 160),
            encoding="utf-8",
            codec_errors="replace",
        )

    @property
    def text(self) -> str:
        """What was shown so far."""
        return _CONTROL.sub("", self._raw)

    def wait_for(self, wanted: str, timeout: float = 120) -> float:
        """Read until `wanted` is shown.

        Returns:
            The time since the start (s).

        Raises:
            MeasurementError: It was not shown in time, or the program ended.
        """
        deadline = time.monotonic() + timeout
        while wanted not in self.text:
            if not self._read(deadline):
                what = "in time" if self._process.isalive() else "before the program ended"
                raise MeasurementError(f"{wanted!r} was not shown {what}; it showed: {self.text[-300:]!r}")
        return time.perf_counter() - self.began

    def wait_for_end(self, timeout: float = 600) -> int:
        """Read until the program ends, keeping only the last of what it shows.

        Returns:
            Its exit code.

        Raises:
            MeasurementError: It did not end in time.
        """
        deadline = time.monotonic() + timeout
        while self._read(deadline):
            self._raw = self._raw[-_KEPT:]
        if self._process.isalive() and time.monotonic() >= deadline:
            raise MeasurementError(f"the program did not end in {timeout:g} s; it showed: {self.text[-300:]!r}")
        self._process.wait()
        return self._process.exitstatus if self._process.exitstatus is not None else -self._process.signalstatus

    def _read(self, deadline: float) -> bool:
        """Read what is there; False at the program's end or the deadline."""
        try:
            piece = self._process.read_nonblocking(65536, timeout=max(0.0, deadline - time.monotonic()))
        except (pexpect.EOF, pexpect.TIMEOUT):
            return False
        if _ASKS_FOR_CURSOR in piece:
            self._process.send("\x1b[1;1R")  # as a terminal answers
        self._raw += piece
        return True

    def type(self, line: str) -> None:
        """Type a line and Enter."""
        self._process.send(f"{line}\r")

    def close(self) -> None:
        """End the program, by force if need be."""
        self._process.close(force=True)


@contextmanager
def terminal(command: Sequence[str], cwd: Path, **variables: str):
    """A `Terminal` that is closed afterwards."""
    opened = Terminal(command, cwd, **variables)
    try:
        yield opened
    finally:
        opened.close()
