"""Who is at work on a data directory: lock files that name their owner, and are free when its process has ended."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from instrument.config.errors import UserError


@dataclass(frozen=True)
class Owner:
    """A living session, as its lock file names it."""

    key: str
    pid: int
    host: str
    since: float

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}, since {time.strftime('%Y-%m-%d %H:%M', time.localtime(self.since))}"


class Presence:
    """This process's lock file among those of all sessions on the same data; it is free when the process has ended."""

    _shared: MutableMapping[tuple[int, Path], Presence] = {}  # noqa: RUF012  one per process and directory, on purpose
    _guard = threading.Lock()

    def __init__(self, directory: Path) -> None:
        """Use `Presence.join`."""
        self.directory = directory
        self.key = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._users = 0
        self._descriptor = -1

    @classmethod
    def join(cls, directory: Path) -> Presence:
        """This process's presence in a directory, shared by all who ask.

        Raises:
            OSError: the directory cannot be written.
        """
        with cls._guard:
            place = (os.getpid(), directory.absolute())
            presence = cls._shared.get(place)
            if presence is None:
                presence = cls(directory)
                presence._enter()
                cls._shared[place] = presence
            presence._users += 1
            return presence

    def _enter(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path(self.key), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        os.write(self._descriptor, _me())

    def leave(self) -> None:
        """One user less; the last one removes the file."""
        with self._guard:
            self._users -= 1
            if self._users or self._descriptor < 0:
                return
            self._shared.pop((os.getpid(), self.directory.absolute()), None)
            self._path(self.key).unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.lock"

    def others(self) -> list[Owner]:
        """The other living sessions, oldest first. Files of those that have ended are removed."""
        return [owner for owner in living(self.directory) if owner.key != self.key]

    def is_living(self, key: str) -> bool:
        """Whether the session of that key still runs."""
        return key == self.key or _living(self._path(key)) is not None


def living(directory: Path, *, tidy: bool = True) -> list[Owner]:
    """The living sessions of a directory, oldest first. With `tidy`, files of those that have ended are removed."""
    owners = [_living(path, tidy=tidy) for path in directory.glob("*.lock")]
    return sorted((owner for owner in owners if owner is not None), key=lambda owner: owner.since)


class SoleOwner:
    """A lock file that one process at a time can have."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def take(self) -> Owner | None:
        """Become the owner.

        Raises:
            UserError: the file cannot be written.

        Returns:
            None, or who is the owner.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({error.strerror}): make the directory writable, "
                "or make room on the disk"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return self.holder() or _nobody_known(self.path)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _me(), 0)
        self._descriptor = descriptor
        return None

    def holder(self) -> Owner | None:
        """Who is the owner now, this process included."""
        return _living(self.path, tidy=False)

    def leave(self) -> None:
        """Let another process have it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _me() -> bytes:
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}).encode()


def _nobody_known(path: Path) -> Owner:
    return Owner(path.stem, 0, "an unknown host", 0.0)  # it is about to write its name, or to end


def _living(path: Path, *, tidy: bool = True) -> Owner | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            try:
                owner = json.loads(os.read(descriptor, 10_000))
                return Owner(path.stem, owner["pid"], owner["host"], owner["since"])
            except (ValueError, KeyError, TypeError):
                return _nobody_known(path)
        if tidy and os.fstat(descriptor).st_size:
            path.unlink(missing_ok=True)
    except OSError:
        pass  # a read-only directory: nothing to tidy
    finally:
        os.close(descriptor)
    return None
