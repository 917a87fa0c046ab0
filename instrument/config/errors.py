"""The exceptions whose message is all that a user needs to see."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


class UserError(Exception):
    """A mistake or a fault told in one line: what happened, to what, and what to do.

    The prompt prints only the message; the traceback goes to the log.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython and Jupyter print where no session has its own way to: when one could not start."""
        return str(self).splitlines()


@dataclass(frozen=True)
class Problem:
    """One mistake in a configuration file.

    Attributes:
        file: The file as it was found.
        line: Counted from 1; None where the file as a whole is meant.
        key: Dotted path of the key, such as ``virtual_beamline.start`` or ``m1.prefix``; may be empty.
        message: What is wrong.
        suggestion: The nearest match among what would have been right, if one is near.
    """

    file: Path
    line: int | None
    key: str
    message: str
    suggestion: str | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else f"{self.file}"
        key = f" {self.key}:" if self.key else ""
        hint = f"; did you mean {self.suggestion!r}?" if self.suggestion else ""
        return f"{place}:{key} {self.message}{hint}"


class ConfigError(UserError):
    """Every mistake found in the configuration; `str()` gives one line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(dict.fromkeys(problems), key=lambda problem: (str(problem.file), problem.line or 0))
        super().__init__("\n".join(map(str, self.problems)))


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` was probably meant to be, or None."""
    by_fold: dict[str, str] = {}
    for choice in choices:
        by_fold.setdefault(choice.casefold(), choice)
    matches = difflib.get_close_matches(word.casefold(), by_fold, n=1, cutoff=0.6)
    return by_fold[matches[0]] if matches else None
