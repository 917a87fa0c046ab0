"""`instrument ship`: the shipping process of one data directory, in the foreground, once, or as a service."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.framework.presence import SoleOwner, living
from instrument.framework.runfiles import DataDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from instrument.callbacks.shipping import ShippedConsumer, Shipper
    from instrument.config import Config

logger = logging.getLogger(LOGGER_NAME)

LOG_FILE = "ship.log"
FINISH = 60.0  # s; how long it goes on after the last session has ended
STATUS_EVERY = 1.0  # s between two looks at what the status line says


class _Told:
    """Lines and the status line, to a terminal, a pipe whose reader may have gone, and a log file."""

    def __init__(self) -> None:
        self._at_terminal = sys.stdout.isatty()
        self._status = ""
        self._lock = threading.Lock()

    def line(self, text: str) -> None:
        logger.info("%s", text)
        with self._lock:
            self._write(f"\r\x1b[K{text}\n{self._status}" if self._status else f"{text}\n")

    def status(self, text: str) -> None:
        if self._at_terminal and text != self._status:
            with self._lock:
                self._status = text
                self._write(f"\r\x1b[K{text[: os.get_terminal_size().columns - 1]}")

    def end(self) -> None:
        with self._lock:
            if self._status:
                self._status = ""
                self._write("\n")

    @staticmethod
    def _write(text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError:  # the session that read it has ended, which must not spoil the exit code either
            sys.stdout = Path(os.devnull).open("w")


def run(config: Config, *, once: bool = False, with_sessions: bool = False) -> int:
    """Ship until told to end (SIGTERM, Ctrl-C).

    Args:
        config: The session's configuration.
        once: Deliver what is complete, then end.
        with_sessions: End when no session is at work on the data directory any more, and what can be delivered is.

    Returns:
        The exit code: 1 if `once` could not deliver all.

    Raises:
        UserError: There is nobody to ship to, or another process ships already.
    """
    data = DataDirectory(Path.cwd() / config.directories.data)
    consumers = _consumers(config)
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    if with_sessions:
        os.nice(5)  # a scan comes first
    _log_to(Path.cwd() / config.directories.logs / LOG_FILE, config)
    with _sole(data) as told:
        from instrument.callbacks.shipping import Shipper

        shipper = Shipper(data, consumers, told.line, live=not once)
        names = ", ".join(consumer.name for consumer in consumers)
        about = logger.info if with_sessions else told.line  # a session is told of troubles only
        about(f"shipping {data.runs} to {names} (pid {os.getpid()})")
        shipper.start()
        try:
            complete = _finish(shipper, ending) if once else _follow(shipper, data, told, ending, with_sessions)
            rows = shipper.rows()
        finally:
            told.end()
            shipper.close()
        about("; ".join(_in_words(*row) for row in rows))
        return 1 if once and not complete else 0


def _consumers(config: Config) -> list[ShippedConsumer]:
    from instrument.callbacks.shipped import consumers_of

    consumers = consumers_of(config)
    if not consumers:
        raise UserError(
            f"there is nobody to ship to: {config.file} names neither a MongoDB catalog (`catalog:`) "
            "nor `ship: consumers:`"
        )
    return consumers


@contextlib.contextmanager
def _sole(data: DataDirectory) -> Iterator[_Told]:
    lock = SoleOwner(data.ship_lock)
    owner = lock.take()
    if owner is not None:
        raise UserError(f"the runs in {data.runs} are shipped already ({owner}): one process does it for all sessions")
    try:
        yield _Told()
    finally:
        lock.leave()


def _finish(shipper: Shipper, ending: threading.Event) -> bool:
    """Deliver what is complete, unless told to end before."""
    found: list[bool] = []
    worker = threading.Thread(target=lambda: found.append(shipper.finish()), daemon=True)
    worker.start()
    while worker.is_alive() and not ending.is_set():
        worker.join(0.1)
    return found == [True]


def _follow(shipper: Shipper, data: DataDirectory, told: _Told, ending: threading.Event, with_sessions: bool) -> bool:
    while not ending.wait(STATUS_EVERY):
        if sys.stdout.isatty():
            told.status("; ".join(_in_words(*row) for row in shipper.rows()))
        if with_sessions and not living(data.sessions):
            return shipper.finish(FINISH)
    return True


def _in_words(name: str, delivered: int, pending: int, error: str) -> str:
    return f"{name}: {delivered} delivered, {pending} pending" + (f" ({error})" if error else "")


def _log_to(path: Path, config: Config) -> None:
    """A log file of its own: that of the sessions is theirs to rotate."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(
            path, maxBytes=config.logging.max_bytes, backupCount=config.logging.backups, delay=True
        )
        path.open("a").close()
    except OSError:
        return  # what it prints says the same
    handler.setFormatter(logging.Formatter("%(asctime)s|%(levelname)s|%(process)d|%(threadName)s| - %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(config.logging.file)
    logger.propagate = False


# -- asked about -----------------------------------------------------------------------------------------------------


def status(config: Config) -> Any:
    """Who ships, and what to whom.

    Returns:
        One line, and the table as a pyRestTable.
    """
    from instrument.callbacks.outbox import table
    from instrument.callbacks.shipping import Marks
    from instrument.framework.index import RunIndex

    data = DataDirectory(Path.cwd() / config.directories.data)
    consumers = _consumers(config)
    owner = SoleOwner(data.ship_lock).holder()
    line = f"{data.runs} is shipped ({owner})" if owner else f"{data.runs} is not shipped: start `instrument ship`"
    if not data.root.is_dir():
        return line, table([])
    index = RunIndex(data.index, data.runs)
    index.refresh()
    return line, table(Marks(data.ship).rows([consumer.name for consumer in consumers], index))


def service(config: Config) -> str:
    """A systemd user unit that ships the runs of the working directory, with absolute paths."""
    program = Path(sys.executable).with_name("instrument")
    return f"""\
# Ships the runs of {Path.cwd()} as a service of this user:
#     instrument ship --print-service > ~/.config/systemd/user/instrument-ship.service
#     systemctl --user daemon-reload && systemctl --user enable --now instrument-ship
#     loginctl enable-linger      (so that it goes on when you log out)
# Say `ship: {{start: false}}` in {config.file}: sessions then leave it to the service.
[Unit]
Description=Bluesky runs of {Path.cwd()} to databases and servers
After=network-online.target

[Service]
WorkingDirectory={_escaped(str(Path.cwd()))}
ExecStart={_quoted(str(program))} ship --config {_quoted(str(config.file.absolute()))}
Restart=on-failure
RestartSec=10
Nice=5

[Install]
WantedBy=default.target
"""


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    """As systemd reads a command line: see systemd.service(5), "Command lines"."""
    text = _escaped(text).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{text}"' if any(character.isspace() or character in "'\"\\;" for character in text) else text
