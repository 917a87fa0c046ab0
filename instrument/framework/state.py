"""What outlives a session: the metadata of `RE.md`, the scan number first of all, and who else is using them.

One JSON file, replaced as a whole, so that it is always either the old one or the new one. The version before is kept.
Several sessions may use one file: each change is made to what is on the disk at that moment, under a lock.
"""

from __future__ import annotations

import contextlib
import copy
import enum
import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.framework.presence import Owner, Presence

logger = logging.getLogger(LOGGER_NAME)

SCAN_ID = "scan_id"
_LOCK_TIMEOUT = 10.0  # s; another session holds the lock for milliseconds
_MISSING = object()


class StateError(UserError):
    """The state cannot be kept."""


# -- the state file ------------------------------------------------------------------------------------------------


class StateFile(MutableMapping[str, Any]):
    """The mapping for `RE.md`: what is set in it is there again in the next session.

    What a key gives is, in this order: what was set in this session, `explicit`, what was saved, `defaults`.
    Only what was set is saved, so that a default or a configuration entry that goes away is gone.
    """

    def __init__(
        self,
        path: Path,
        defaults: Mapping[str, Any] | None = None,
        explicit: Mapping[str, Any] | None = None,
        *,
        last_scan_id: Callable[[], int] | None = None,
        quiet_about_others: bool = False,
    ) -> None:
        """Read the file. Nothing in it, and no lack of it, is a reason not to start; see `messages`.

        Args:
            path: the JSON file.
            defaults: values for keys that are neither saved nor explicit.
            explicit: values that go before what is saved.
            last_scan_id: asked only where the file is missing or unreadable, so that scan numbers are not given twice;
                `RunIndex.last_scan_id`.
            quiet_about_others: do not tell which other sessions use it; for what is over in a second.
        """
        self.path = path
        self._quiet = quiet_about_others
        self.messages: list[str] = []
        self._lock = threading.RLock()
        self._last_scan_id = last_scan_id
        self._defaults = dict(defaults or {})
        self._explicit = dict(explicit or {})
        self._presence: Presence | None = None
        self._looked = 0
        self._others: dict[str, Owner] = {}
        self._join()
        saved = self._read()
        if saved is None:
            saved = {}
            found = last_scan_id() if last_scan_id else 0
            if found:
                saved[SCAN_ID] = found
                self.messages.append(f"scan numbers go on from {found}, the last one in the journal")
        self._values: dict[str, Any] = {**self._defaults, **saved, **self._explicit}
        self._own = {key: value for key, value in saved.items() if key not in self._explicit}
        self._written = _snapshot(self._own)

    def _join(self) -> None:
        try:
            self._presence = Presence.join(self.path.parent / "sessions")
        except OSError as error:
            self.messages.append(
                f"{self.path.parent} cannot be written ({error.strerror}): no run can be recorded; "
                "start the session in a directory of your own, or set directories.data in iconfig.yml"
            )
            return
        self.messages.extend(self._newcomers())

    def _newcomers(self) -> list[str]:
        """One line for each other session that was not there at the last look; a look costs a `stat`."""
        if self._presence is None or self._quiet:
            return []
        try:
            changed = self._presence.directory.stat().st_mtime_ns
        except OSError:
            return []
        if changed == self._looked:
            return []
        self._looked = changed
        before, self._others = self._others, {owner.key: owner for owner in self._presence.others()}
        return [
            f"another session is using {self.path} ({owner}): scan numbers are shared, none is given twice"
            for key, owner in self._others.items()
            if key not in before
        ]

    # -- the mapping -----------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise StateError(f"RE.md[{key!r}]: a key must be text")
        plain = _plain(value, f"RE.md[{key!r}]")
        with self._lock:
            if _same(self._own.get(key, _MISSING), plain) and _same(self._values.get(key, _MISSING), plain):
                return  # above all the scan number that was given a moment ago
            self._values[key] = value if isinstance(value, dict | list) else plain
            self._own[key] = self._values[key]
            self._save()

    def __delitem__(self, key: str) -> None:
        with self._lock:
            del self._values[key]
            if key in self._own:
                del self._own[key]
                self._save()

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._values))

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.pretty(self._values)

    def __deepcopy__(self, memo: dict) -> dict[str, Any]:
        """A plain dictionary: the RunEngine copies its metadata for each run."""
        return copy.deepcopy(self._values, memo)

    def copy(self) -> dict[str, Any]:
        """A plain dictionary with the same values."""
        return dict(self._values)

    def flush(self) -> None:
        """Save what was changed inside a value, such as `RE.md["sample"]["name"] = ...`."""
        with self._lock:
            self._save()

    # -- scan numbers ----------------------------------------------------------------------------------------------

    def next_scan_id(self, metadata: Any = None) -> int:
        """The next scan number, on the disk before it is returned; for `RunEngine(scan_id_source=...)`.

        Args:
            metadata: what the RunEngine passes, this mapping; not used.

        Raises:
            StateError: it cannot be written.
        """
        with self._lock:
            before = [(values, values.get(SCAN_ID, _MISSING)) for values in (self._values, self._own)]
            try:
                with self._exclusive():
                    on_disk = self._load(self.path)
                    last = (on_disk if on_disk is not None else self._values).get(SCAN_ID, 0)
                    scan_id = (last if isinstance(last, int) and not isinstance(last, bool) else 0) + 1
                    self._values[SCAN_ID] = self._own[SCAN_ID] = scan_id
                    self._write(on_disk, forced={SCAN_ID})
            except OSError as error:
                for values, value in before:  # the number was not given
                    values.pop(SCAN_ID, None)
                    if value is not _MISSING:
                        values[SCAN_ID] = value
                raise self._cannot_write("the run was not started, because", error) from error
        for line in self._newcomers():
            logger.warning("%s", line)
        return scan_id

    # -- the file --------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        try:
            with self._exclusive():
                self._write(self._load(self.path))
        except OSError as error:
            raise self._cannot_write("it is set for this session only:", error) from error

    def _cannot_write(self, before: str, error: OSError) -> StateError:
        return StateError(
            f"{before} {self.path} cannot be written ({error.strerror or error}): "
            "make the directory writable, or make room on the disk"
        )

    def _write(self, on_disk: Mapping[str, Any] | None, forced: Collection[str] = ()) -> None:
        """Bring what this session changed, and what is forced, into what is on the disk. The caller holds the lock."""
        now = {key: _plain(value, f"RE.md[{key!r}]") for key, value in self._own.items()}
        merged = dict(on_disk) if on_disk is not None else dict(now)
        for key in self._written.keys() - now.keys():
            merged.pop(key, None)
        for key, value in now.items():
            if not _same(self._written.get(key, _MISSING), value) or key in forced:
                merged[key] = value
        if on_disk is None or not _same(merged, dict(on_disk)):
            _replace(self.path, json.dumps(merged, indent=2, sort_keys=True).encode() + b"\n")
        self._written = _snapshot(now)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        name = self.path.with_name(f"{self.path.name}.lock")
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            deadline = time.monotonic() + _LOCK_TIMEOUT
            pause = 0.0005
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip()
                        raise StateError(
                            f"{self.path} has been locked for {_LOCK_TIMEOUT:.0f} s by another session ({holder}): "
                            "end that session, or wait for it"
                        ) from None
                    time.sleep(pause)
                    pause = min(2 * pause, 0.05)
            me = f"pid {os.getpid()} on {socket.gethostname()}\n".encode()
            if os.pread(descriptor, 1000, 0) != me:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, me, 0)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> dict[str, Any] | None:
        """The saved values at the start of a session; None if there are none."""
        if not self.path.exists():
            return None
        saved = self._load(self.path)
        if saved is not None:
            return saved
        aside = self.path.with_name(f"{self.path.name}.unreadable-{time.strftime('%Y%m%d-%H%M%S')}")
        previous = self._load(_previous(self.path))
        try:
            os.replace(self.path, aside)
            where = f"set aside as {aside.name}"
        except OSError as error:
            where = f"left where it is ({error.strerror})"
        self.messages.append(
            f"{self.path} is unreadable and was {where}; "
            + (
                "this session goes on from the version before it"
                if previous is not None
                else "this session starts anew"
            )
        )
        found = self._last_scan_id() if self._last_scan_id else 0
        if previous is not None and found:
            last = previous.get(SCAN_ID, 0)
            previous[SCAN_ID] = max(last if isinstance(last, int) else 0, found)
        return previous

    @staticmethod
    def _load(path: Path) -> dict[str, Any] | None:
        try:
            values = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return None
        return values if isinstance(values, dict) else None

    def close(self) -> None:
        """Save, and leave the other sessions alone with the file."""
        try:
            if self._presence is not None:
                self.flush()
        finally:
            if self._presence is not None:
                self._presence.leave()
                self._presence = None


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.previous")


def _replace(path: Path, content: bytes) -> None:
    """Put new content in the place of a file: after a power cut there is the old one or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            written = 0
            while written < len(content):
                written += os.write(descriptor, content[written:])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if path.exists():
            _keep(path)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _keep(path: Path) -> None:
    """Let the present version live on as the previous one."""
    link = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.previous")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links
        link.write_bytes(path.read_bytes())
    os.replace(link, _previous(path))


def _plain(value: Any, key: str) -> Any:
    """The value as JSON gives it back.

    Raises:
        StateError: naming the key, if JSON cannot.
    """
    if value is None or type(value) in {bool, int, float, str}:
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise StateError(f"{key} is a text that is not valid Unicode, which cannot be kept") from None
        return value
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist(), key)
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise StateError(f"{key} has a key {name!r} that is no text, which cannot be kept")
        return {str(name): _plain(item, f"{key}[{name!r}]") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{key}[{position}]") for position, item in enumerate(value)]
    for kind in (str, bool, int, float):
        if isinstance(value, kind):
            return kind(value.value if isinstance(value, enum.Enum) else value)
    raise StateError(
        f"{key} is of type {type(value).__name__}, which cannot be kept between sessions: "
        "give numbers, text, lists or dictionaries"
    )


def _same(one: Any, other: Any) -> bool:
    """Equal in JSON, where 1, 1.0 and true differ."""
    if one is _MISSING or other is _MISSING:
        return one is other
    try:
        return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    except (TypeError, ValueError):
        return False


def _snapshot(values: Mapping[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(dict(values))
