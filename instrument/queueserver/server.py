"""`instrument qserver`: a queue server whose worker is the session of this directory.

Three processes: this one, which starts and stops; bluesky's RE Manager (with its watchdog and worker); a Redis, unless
a facility's is named. All listen on loopback; the control channel is encrypted, so that nobody without the key of
`.data/queue` controls the beamline.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instrument.config import extras
from instrument.config.errors import UserError
from instrument.framework.presence import SoleOwner
from instrument.queueserver import redis
from instrument.queueserver.client import Queue, QueueError
from instrument.queueserver.places import Address, QueueDirectory

ANSWERS_WITHIN = 30.0  # s
ENDS_WITHIN = 60.0  # s; a session that ends writes its files first

# What is written where there is no file yet. `null` allows all; names that begin with "_" are nobody's.
PERMISSIONS = """\
# Who may run what through the queue; see https://blueskyproject.io/bluesky-queueserver/features_and_config.html
# `instrument qserver` reads it at its start, and made it because there was none.
user_groups:
  root:               # what nobody may, whatever his group
    allowed_plans: [null]
    forbidden_plans: [":^_"]
    allowed_devices: [null]
    forbidden_devices: [":^_:?.*"]
    allowed_functions: [null]
    forbidden_functions: [":^_"]
  primary:            # the group of `instrument queue`, and of bluesky's clients unless they name another one
    allowed_plans: [":.*"]
    forbidden_plans: [null]
    allowed_devices: [":?.*:depth=5"]
    forbidden_devices: [null]
    allowed_functions: []
    forbidden_functions: [null]
"""


@dataclass(frozen=True)
class Settings:
    """How to serve.

    Attributes:
        directory: The server's own files.
        config: The iconfig.yml of the session.
        name: Of the queue in Redis, which several beamlines may share; None: one that the directory keeps.
        redis: URI of a Redis; None: one of our own.
        host: Interface to listen on.
        port: TCP port of the control channel; 0 for any free one.
        info_port: TCP port of the console's output; 0 for any free one.
        open: Open the session at once.
    """

    directory: QueueDirectory
    config: Path
    name: str | None = None
    redis: str | None = None
    host: str = "127.0.0.1"
    port: int = 60615
    info_port: int = 60625
    open: bool = True


class _EndingError(BaseException):  # no Exception: the queue server's client handles some of those by itself
    """It was told to end."""


def serve(settings: Settings, *, tell: Callable[[str], None] = print, began: float | None = None) -> int:
    """Serve until told to end (SIGTERM, Ctrl-C).

    Args:
        settings: How.
        tell: Shown the lines.
        began: When the start began, of `time.monotonic()`.

    Returns:
        The exit code: 0 if it was told to end, 1 if the manager ended by itself.

    Raises:
        UserError: The queue server is not installed, a port is taken, there is no Redis, or somebody else serves here.
    """
    extras.need("queue")
    began = time.monotonic() if began is None else began
    directory = settings.directory
    directory.make()
    owner = SoleOwner(directory.lock)
    other = owner.take()
    if other is not None:
        raise UserError(f"a queue server runs in {directory.root.parent} already: {other}")
    try:
        with ExitStack() as ending:
            ending.callback(owner.leave)
            _on_signal(_end)
            address, private = _address(settings)
            name = f"instrument_{settings.name or directory.own_name()}"
            if settings.redis is None:
                uri = ending.enter_context(redis.embedded(directory))
            else:
                redis.check(settings.redis)
                ending.enter_context(redis.held(settings.redis, name))
                uri = settings.redis
            _write_files(settings, address, uri, name)
            return _run(settings, address, private, tell, began)
    except _EndingError:
        return 0


def _on_signal(handler: Callable[[int, Any], None] | signal.Handlers) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)


def _end(_number: int, _frame: Any) -> None:
    _on_signal(signal.SIG_IGN)  # what ends is not interrupted; `_stop` asks for the next one
    raise _EndingError


def _address(settings: Settings) -> tuple[Address, str]:
    public, private = settings.directory.key_pair()
    control, info = (
        f"tcp://{settings.host}:{_port(settings.host, port, option)}"
        for port, option in ((settings.port, "--port"), (settings.info_port, "--info-port"))
    )
    return Address(control, info, public, os.getpid()), private


def _port(host: str, port: int, option: str) -> int:
    """A port that can be listened on; said at once if it can't."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"a queue server cannot listen on {host}:{port}: {error.strerror or error}; name another port with "
                f"{option} (0: any that is free)"
            ) from error
        return probe.getsockname()[1]


def _write_files(settings: Settings, address: Address, redis_uri: str, name: str) -> None:
    import yaml

    directory = settings.directory
    manager = {
        "network": {
            "zmq_control_addr": address.control,
            "zmq_info_addr": address.info,
            "zmq_publish_console": True,
            "redis_addr": redis.address_of(redis_uri),
            "redis_name_prefix": name,
        },
        "startup": {
            "startup_module": "instrument.collection",
            "existing_plans_and_devices_path": str(directory.plans_and_devices),
            "user_group_permissions_path": str(directory.permissions),
            "device_max_depth": 1,  # components can be named all the same: temperature.ramp_limit
        },
        "operation": {"print_console_output": True, "console_logging_level": "QUIET"},
    }
    directory.write(directory.manager, yaml.safe_dump(manager, sort_keys=False))
    if not directory.permissions.exists():
        directory.write(directory.permissions, PERMISSIONS)
    if not directory.plans_and_devices.exists():
        directory.write(directory.plans_and_devices, "existing_plans: {}\nexisting_devices: {}\n")


def _run(settings: Settings, address: Address, private: str, tell: Callable[[str], None], began: float) -> int:
    directory = settings.directory
    environment = {
        **os.environ,
        "QSERVER_ZMQ_PRIVATE_KEY_FOR_SERVER": private,
        "INSTRUMENT_CONFIG": str(settings.config),
    }
    environment.pop("QSERVER_CONFIG", None)
    manager = subprocess.Popen(
        [sys.executable, "-m", "instrument.queueserver.manager", "--config", str(directory.manager)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C at the terminal is for us: we end it in order
        env=environment,
    )
    try:
        with Queue(address) as queue:
            _wait_for(queue, manager)
        directory.write_address(address)
        store = "its own" if settings.redis is None else redis.public(settings.redis)
        tell(f"queue server at {address.control} (encrypted), output at {address.info}, Redis: {store}")
        tell(
            f"bluesky's own clients: export QSERVER_ZMQ_CONTROL_ADDRESS={address.control} "
            f"QSERVER_ZMQ_INFO_ADDRESS={address.info} QSERVER_ZMQ_PUBLIC_KEY='{address.public_key}'"
        )
        if settings.open:
            with Queue(address) as queue:
                queue.open()
        opened = "the session is open" if settings.open else "`instrument queue start` opens the session"
        tell(f"ready in {time.monotonic() - began:.1f} s; {opened}; Ctrl-C ends it")
        return manager.wait() and 1
    finally:
        directory.address.unlink(missing_ok=True)
        _stop(address, manager, tell)


def _wait_for(queue: Queue, manager: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + ANSWERS_WITHIN
    while True:
        if manager.poll() is not None:
            raise UserError(f"the queue server's manager ended at once (exit code {manager.returncode}), see above")
        try:
            queue.status()
        except QueueError:
            if time.monotonic() > end:
                raise
        else:
            return


def _stop(address: Address, manager: subprocess.Popen[bytes], tell: Callable[[str], None]) -> None:
    """End the plan that runs, the session, and the manager; another signal, and the plan is not waited for."""
    if manager.poll() is None:
        try:
            _on_signal(_end)
            with Queue(address) as queue:
                if queue.stand(ENDS_WITHIN):
                    tell("the plan that runs is aborted; it stays first in the queue")
                    queue.abort(ENDS_WITHIN)
                queue.shut(ENDS_WITHIN)
            _on_signal(signal.SIG_IGN)
        except (QueueError, _EndingError) as error:
            _on_signal(signal.SIG_IGN)
            why = "told to end once more" if isinstance(error, _EndingError) else error
            tell(f"the session is ended at once ({why}); what it moves is not stopped")
        try:
            with Queue(address) as queue:
                queue.destroy(ENDS_WITHIN)
                queue.ask("send_request", method="manager_stop")
        except QueueError as error:
            tell(f"the queue server does not end in order: {error}")
            manager.terminate()
    try:
        manager.wait(ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(manager.pid, signal.SIGKILL)
        manager.wait()
