"""Where a Tiled server of ours keeps things, who may read and write, and where it answers.

.data/tiled/
    catalog.db           what there is (SQLite), unless iconfig.yml names a PostgreSQL
    tables.sqlite        the columns of the events
    arrays/              arrays inside events
    postgresql/          with --embedded-postgres
    write.key read.key   API keys, mode 0600
    server.json          where a server answers while one does
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from instrument.config.errors import UserError

_KEY_BYTES = 24


@dataclass(frozen=True)
class TiledDirectory:
    """What lies where."""

    root: Path

    @property
    def catalog(self) -> Path:
        """The database of what there is."""
        return self.root / "catalog.db"

    @property
    def tables(self) -> Path:
        """The database of the events."""
        return self.root / "tables.sqlite"

    @property
    def arrays(self) -> Path:
        """Arrays inside events."""
        return self.root / "arrays"

    @property
    def postgresql(self) -> Path:
        """The embedded PostgreSQL's own directory."""
        return self.root / "postgresql"

    @property
    def write_key(self) -> Path:
        """Holds the API key that may write."""
        return self.root / "write.key"

    @property
    def read_key(self) -> Path:
        """Holds the API key that may only read."""
        return self.root / "read.key"

    @property
    def address(self) -> Path:
        """Says where the server answers; there while one does."""
        return self.root / "server.json"

    @property
    def lock(self) -> Path:
        """Held by the server that runs here."""
        return self.root / "server.lock"

    def make(self) -> None:
        """Create the directory, for its owner only.

        Raises:
            UserError: It cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise UserError(f"{self.root} cannot be made: {error.strerror or error}") from error


def make_key(path: Path) -> str:
    """The API key in a file, which is made if it is not there; nobody else on the machine may read it.

    Raises:
        UserError: The file cannot be made, or holds no key.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_key(path)
    except OSError as error:
        raise UserError(f"the API key file {path} cannot be made: {error.strerror or error}") from error
    key = secrets.token_hex(_KEY_BYTES)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{key}\n")
    return key


def read_key(path: Path) -> str:
    """The API key in a file.

    Raises:
        UserError: It cannot be read, holds no key, or others may read it.
    """
    try:
        key, mode = path.read_text().strip(), path.stat().st_mode
    except OSError as error:
        raise UserError(f"the API key file {path} cannot be read: {error.strerror or error}") from error
    if not key.isalnum():
        raise UserError(f"the API key file {path} holds no key (letters and digits): remove it, a new one is made")
    if mode & 0o077:
        raise UserError(f"the API key file {path} can be read by others: `chmod 600 {path}`, or remove it")
    return key


def write_address(directory: TiledDirectory, url: str) -> None:
    """Say where the server of this directory answers."""
    draft = directory.address.with_suffix(".draft")
    draft.write_text(json.dumps({"url": url, "pid": os.getpid()}) + "\n")
    draft.replace(directory.address)


def read_address(directory: TiledDirectory) -> str | None:
    """Where the server of this directory answers, or answered last if it was killed."""
    try:
        return str(json.loads(directory.address.read_text())["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
