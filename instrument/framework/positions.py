"""Positions of motors under a name, with their history, in one JSON file beside the state."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from instrument.config.errors import UserError, nearest

KEPT = 50  # of each name


@dataclass(frozen=True)
class Saved:
    """Where motors were.

    Attributes:
        time: When it was saved (s since the epoch).
        positions: Position by name of the motor (its unit).
    """

    time: float
    positions: dict[str, float]

    @property
    def when(self) -> str:
        """When it was saved, as people write it."""
        return f"{datetime.fromtimestamp(self.time):%Y-%m-%d %H:%M:%S}"


class Positions:
    """Named positions; each change is made to what is on the disk at that moment, and replaces the file as a whole.

    Args:
        path: The file; made by the first `save`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, name: str, positions: Mapping[str, float]) -> Saved:
        """Keep positions under a name, as the newest of it.

        Raises:
            UserError: The name is no name, a position is no number, or the file can't be written.
        """
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"save_position needs a name, as in save_position('aligned'), not {name!r}")
        for motor, position in positions.items():
            if not isinstance(position, int | float) or not math.isfinite(position):
                raise UserError(f"save_position: {motor} is at {position!r}, which is no position; nothing is saved")
        saved = Saved(time.time(), {motor: float(position) for motor, position in positions.items()})
        try:
            with self._locked():
                found = self._read()
                history = [*found.get(name, []), {"time": saved.time, "positions": saved.positions}]
                found[name] = history[-KEPT:]
                self._write(found)
        except OSError as error:
            raise UserError(f"{self.path} can't be written ({error.strerror or error}); nothing is saved") from error
        return saved

    def names(self) -> list[str]:
        """All names, in the order in which they were made."""
        return list(self._read())

    def history(self, name: str) -> list[Saved]:
        """What was saved under a name, newest first.

        Raises:
            UserError: Nothing was.
        """
        found = self._read()
        if name not in found:
            near = nearest(str(name), found)
            hint = (
                f"; did you mean {near!r}?" if near else "; positions() lists them" if found else "; there is none yet"
            )
            raise UserError(f"no position is named {name!r}{hint}")
        return [Saved(one["time"], dict(one["positions"])) for one in reversed(found[name])]

    # --- inside

    def _read(self) -> dict[str, list[dict[str, Any]]]:
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UserError(f"{self.path} can't be read ({error.strerror or error})") from error
        try:
            found = json.loads(text)
            for history in found.values():
                for one in history:
                    float(one["time"]), dict(one["positions"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{self.path} is damaged ({error}): move it away, or mend it") from error
        return found

    def _write(self, found: dict[str, Any]) -> None:
        draft = self.path.with_suffix(f".{os.getpid()}.draft")
        try:
            with draft.open("w") as file:
                json.dump(found, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self.path)
        finally:
            draft.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
