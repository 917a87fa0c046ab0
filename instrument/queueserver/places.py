"""What a queue server keeps in a data directory, and where it answers.

.data/queue/
    server.key           the pair of keys of its control channel, mode 0600
    server.json          where it answers while it does, mode 0600
    name                 of the queue in Redis, unless iconfig.yml names it
    manager.yml          what bluesky's RE Manager is started with, mode 0600
    user_group_permissions.yaml      who may run what; made at the first start, then the beamline's own
    existing_plans_and_devices.yaml  what the session had when it was opened last
    redis.conf, redis/   the Redis of its own, unless iconfig.yml names one
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from instrument.config.errors import UserError


@dataclass(frozen=True)
class Address:
    """Where a queue server answers.

    Attributes:
        control: ZMQ address that takes requests.
        info: ZMQ address that publishes the console's output; not encrypted.
        public_key: Of the server; whoever has it may control the queue.
        pid: Of the process.
    """

    control: str
    info: str
    public_key: str
    pid: int


@dataclass(frozen=True)
class QueueDirectory:
    """What lies where."""

    root: Path

    @property
    def lock(self) -> Path:
        """Names the process that serves this directory."""
        return self.root / "server.lock"

    @property
    def keys(self) -> Path:
        """Holds the keys of the control channel."""
        return self.root / "server.key"

    @property
    def address(self) -> Path:
        """Says where the server answers; there while one does."""
        return self.root / "server.json"

    @property
    def name(self) -> Path:
        """Holds the queue's name in Redis."""
        return self.root / "name"

    @property
    def manager(self) -> Path:
        """The RE Manager's own configuration."""
        return self.root / "manager.yml"

    @property
    def permissions(self) -> Path:
        """Who may run what."""
        return self.root / "user_group_permissions.yaml"

    @property
    def plans_and_devices(self) -> Path:
        """What the session had when it was opened last."""
        return self.root / "existing_plans_and_devices.yaml"

    @property
    def redis(self) -> Path:
        """The data of a Redis of our own."""
        return self.root / "redis"

    @property
    def redis_settings(self) -> Path:
        """Its settings."""
        return self.root / "redis.conf"

    def make(self) -> None:
        """Create the directory, for its owner only.

        Raises:
            UserError: It cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.redis.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise UserError(f"{self.root} cannot be made: {error.strerror or error}") from error

    def write(self, path: Path, text: str) -> None:
        """Put a file there as a whole, which nobody else on the machine may read.

        Raises:
            UserError: It cannot be written.
        """
        draft = path.with_suffix(".draft")
        try:
            draft.unlink(missing_ok=True)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
            draft.replace(path)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror or error}") from error

    def write_address(self, address: Address) -> None:
        """Say where the server answers."""
        self.write(self.address, json.dumps(asdict(address)) + "\n")

    def read_address(self) -> Address | None:
        """Where the server answers, or answered last if it was killed."""
        try:
            return Address(**json.loads(self.address.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def own_name(self) -> str:
        """The queue's name in a Redis that other beamlines use too; made if there is none.

        Raises:
            UserError: It cannot be written or read.
        """
        if not self.name.exists():
            self.write(self.name, f"{uuid.uuid4().hex}\n")
        try:
            return self.name.read_text().strip()
        except OSError as error:
            raise UserError(f"{self.name} cannot be read: {error.strerror or error}") from error

    def key_pair(self) -> tuple[str, str]:
        """Public and private key of the control channel; made if there are none.

        Raises:
            UserError: They cannot be written, or the file holds none.
        """
        import zmq

        if not self.keys.exists():
            public, private = (key.decode() for key in zmq.curve_keypair())
            self.write(self.keys, json.dumps({"public": public, "private": private}) + "\n")
        try:
            found: dict[str, Any] = json.loads(self.keys.read_text())
            public, private = str(found["public"]), str(found["private"])
            if zmq.curve_public(private.encode()).decode() != public:
                raise ValueError("they do not belong together")
        except (OSError, ValueError, KeyError, TypeError, zmq.ZMQError) as error:
            raise UserError(f"{self.keys} holds no keys ({error}): remove it, new ones are made") from error
        return public, private
