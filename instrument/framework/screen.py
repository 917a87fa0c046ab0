"""What may be shown on the screen while something goes on: one line that is overwritten, or nothing when piped."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable
from typing import Any


def is_live() -> bool:
    """Can a line be overwritten where we print: at a terminal that is not dumb?"""
    return not in_notebook() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def in_notebook() -> bool:
    """Does a Jupyter kernel take what we print?"""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


class Slot:
    """A place in the output of a notebook's cell whose content is replaced, so that nothing of it piles up in the file.

    It is made by the first `show`, below what was shown before, from any thread.
    """

    def __init__(self) -> None:
        self._id: str | None = None

    def show(self, text: str, **formats: Any) -> None:
        """Show something instead of what was there.

        Args:
            text: For those who can't show anything better.
            formats: What else it is, by the subtype: `html` as text, `png` as bytes.
        """
        from IPython.display import display

        kinds = {"html": "text/html", "png": "image/png"}
        update, self._id = self._id is not None, self._id or uuid.uuid4().hex
        data = {"text/plain": text, **{kinds[name]: value for name, value in formats.items()}}
        display(data, raw=True, display_id=self._id, update=update)


class LiveLine:
    """A line that is overwritten by the next one; where that is not possible only what `end` says is shown."""

    def __init__(self) -> None:
        self._live = is_live()
        self._slot = Slot() if in_notebook() else None
        self._width = 0

    def show(self, text: str) -> None:
        """Show `text` instead of the line before."""
        if self._slot is not None:
            self._slot.show(text)
        elif self._live:
            print(f"\r{text:<{self._width}}", end="", flush=True)
            self._width = len(text)

    def clear(self) -> None:
        """Take the line away."""
        if self._slot is not None:
            self._slot.show("")
        elif self._live and self._width:
            print("\r" + " " * self._width + "\r", end="", flush=True)
            self._width = 0

    def end(self, text: str) -> None:
        """Show a line that stays."""
        self.clear()
        print(text, flush=True)


_write_above: Callable[[str], object] | None = None  # how a line is printed above the bar that is shown


def bar_is_shown(write_above: Callable[[str], object] | None) -> None:
    """Say that a bar is at the bottom of the screen; None: that it is gone.

    Args:
        write_above: Prints a line above the bar.
    """
    global _write_above  # noqa: PLW0603  there is one screen
    _write_above = write_above


def clear_bar() -> None:
    """Take the bar, and what was typed behind it, off the screen until it is drawn again."""
    if _write_above is not None:
        print("\r\x1b[K", end="", flush=True)


def tell(line: str) -> None:
    """Print a line, above the bar if one is shown."""
    if _write_above is None:
        print(line)
    else:
        _write_above(line)
