"""What the doctor found: one line each, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from instrument.config import Config

Status = Literal["ok", "warning", "wrong"]

_WIDTH = 12  # of the longest topic


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: What was looked at, in a word.
        status: `wrong` keeps a session from working as configured, `warning` may.
        text: What was found.
        advice: What to do; empty if all is well.
    """

    topic: str
    status: Status
    text: str
    advice: str = ""

    def __str__(self) -> str:
        line = f"{self.status:<8} {self.topic:<{_WIDTH}} {self.text}"
        return f"{line}\n{' ' * (9 + _WIDTH + 1)}-> {self.advice}" if self.advice else line


@dataclass(frozen=True)
class Patient:
    """Whom the checks look at.

    Attributes:
        config: The configuration; None if it can't be read.
        directory: Where a session would be started.
        logs: The directory of the log files, as configured; the default where that can't be read.
        data: Of runs and index, likewise.
        spec: Of SPEC files, likewise.
    """

    directory: Path
    config: Config | None = None
    logs: Path = field(default=Path(".logs"))
    data: Path = field(default=Path(".data"))
    spec: Path = field(default=Path())

    @classmethod
    def of(cls, config: Config | None) -> Patient:
        """In the working directory."""
        here = Path.cwd()
        if config is None:
            return cls(here, None, here / ".logs", here / ".data", here)
        places = config.directories
        return cls(here, config, here / places.logs, here / places.data, here / places.spec)


def count(number: int, what: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def some(names: Iterable[str], most: int = 4) -> str:
    """The first of some names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
