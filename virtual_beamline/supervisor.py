"""Start, watch and stop virtual beamlines: each in a process and session of its own, on ports of its own.

Ports are leased by locking a file, because two servers can bind one UDP port of the loopback silently. The beamline's
process inherits the lock and holds it as long as it lives, so that a lease can neither outlive it nor be lost before.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from virtual_beamline.client import CaEnvironment, PvNotAnsweringError, read_text
from virtual_beamline.names import DEFAULT_PREFIX, ENVIRONMENT_VARIABLE, ID_RECORD, LOOPBACK, checked_prefix

_FIRST_PORT, _PORTS_PER_LEASE, _LEASES = 21_000, 8, 1000
_KEPT_LOGS = 20


class BeamlineStartError(RuntimeError):
    """The beamline did not come up; the message says why in one line."""


class NoSuchBeamlineError(LookupError):
    """No running beamline is meant, or more than one could be."""


def runtime_directory() -> Path:
    """Where leases, state and logs of this user's beamlines are; made private to the user.

    Raises:
        BeamlineStartError: it belongs to somebody else.
    """
    run = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(run) / "virtual-beamline" if run else Path(tempfile.gettempdir()) / f"virtual-beamline-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        msg = f"{path} belongs to another user: remove it, or set XDG_RUNTIME_DIR to a directory of yours"
        raise BeamlineStartError(msg)
    return path


@dataclass(frozen=True)
class PortLease:
    """Ports that nobody else uses while ``descriptor`` is open in some process.

    The last four ports of a lease are kept for the area detector IOC of the same beamline.
    """

    number: int
    descriptor: int

    @property
    def first(self) -> int:
        """The CA server's port, TCP and UDP."""
        return _FIRST_PORT + self.number * _PORTS_PER_LEASE

    @property
    def repeater(self) -> int:
        """UDP port of the CA repeater."""
        return self.first + 1

    @property
    def pva(self) -> int:
        """TCP port of the pvAccess server."""
        return self.first + 2

    @property
    def pva_search(self) -> int:
        """UDP port of pvAccess searches."""
        return self.first + 3

    def environment(self, beamline_id: str, host: str = LOOPBACK) -> CaEnvironment:
        """What clients of a beamline on these ports need."""
        return CaEnvironment.of_ports(
            beamline_id,
            ca_port=self.first,
            repeater_port=self.repeater,
            pva_port=self.pva,
            pva_search_port=self.pva_search,
            host=host,
        )

    @property
    def state_file(self) -> Path:
        """What the holder tells about itself."""
        return runtime_directory() / f"{self.number}.json"

    def release(self) -> None:
        """Close this process's hold on the ports."""
        with contextlib.suppress(OSError):
            os.close(self.descriptor)

    def can_bind(self) -> bool:
        """Whether none of the ports is in use by a stranger (another user's beamline, say)."""
        with contextlib.ExitStack() as sockets:
            for offset in range(_PORTS_PER_LEASE):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    probe = sockets.enter_context(socket.socket(socket.AF_INET, kind))
                    if kind == socket.SOCK_STREAM:  # connections of an earlier beamline may linger in TIME_WAIT
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    try:
                        probe.bind(("", self.first + offset))
                    except OSError:
                        return False
        return True


def lease_ports() -> PortLease:
    """Lease free ports.

    Raises:
        BeamlineStartError: none are left.
    """
    directory = runtime_directory()
    for attempt in range(_LEASES):
        number = (os.getuid() * 37 + attempt) % _LEASES  # users begin apart from each other
        descriptor = os.open(directory / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        lease = PortLease(number, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lease.release()
            continue
        if lease.can_bind():
            lease.state_file.unlink(missing_ok=True)  # of an earlier holder that was killed
            return lease
        lease.release()
    last = _FIRST_PORT + _LEASES * _PORTS_PER_LEASE - 1
    msg = f"no free ports for a virtual beamline between {_FIRST_PORT} and {last}: stop some (virtual-beamline status)"
    raise BeamlineStartError(msg)


def new_id() -> str:
    """A name for one run of a beamline."""
    return f"vb-{os.urandom(4).hex()}"


class RunningBeamline:
    """A beamline's process, as its parent or any other process of the user sees it."""

    def __init__(
        self,
        *,
        id: str,
        pid: int,
        prefix: str,
        environment: CaEnvironment,
        log_file: Path,
        lease_number: int,
        started: float,
        process: subprocess.Popen[bytes] | None = None,
        lifeline: int | None = None,
    ) -> None:
        self.id = id
        self.pid = pid
        self.prefix = prefix
        self.environment = environment
        self.log_file = log_file
        self.lease_number = lease_number
        self.started = started
        self._process = process
        self._lifeline = lifeline
        if lifeline is not None:
            # A forked child of this process must not keep the beamline alive after us.
            os.register_at_fork(after_in_child=self._drop_lifeline)

    def __repr__(self) -> str:
        return f"<virtual beamline {self.id} {self.prefix} pid {self.pid}>"

    def _drop_lifeline(self) -> None:
        if self._lifeline is not None:
            with contextlib.suppress(OSError):
                os.close(self._lifeline)
            self._lifeline = None

    def wait_ready(self, timeout: float = 30) -> None:
        """Wait until the beamline's PVs answer, and prove by BEAMLINE_ID that it is this one which answers.

        Raises:
            BeamlineStartError: it has ended, another server answers on its port, or the time is up.
        """
        deadline = time.monotonic() + timeout
        pv, answer = f"{self.prefix}{ID_RECORD}", ""
        while True:
            code = self.poll()
            if code is not None:
                msg = f"the virtual beamline {self.id} ended at once (exit code {code}): {self._last_words()}"
                raise BeamlineStartError(msg)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                if answer:
                    msg = f"another beamline ({answer}) answers on the ports of {self.id}; run virtual-beamline status"
                else:
                    msg = f"{pv} does not answer after {timeout:g} s; {self._last_words()}"
                raise BeamlineStartError(msg)
            try:
                answer = read_text(pv, self.environment.ca_address, min(remaining, 0.25))
            except PvNotAnsweringError:
                answer = ""
            if answer == self.id:
                return
            time.sleep(0.01)

    def _last_words(self) -> str:
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"{last} (log: {self.log_file})"

    def poll(self) -> int | None:
        """The exit code when it has ended (0 if it was not our child and the code is unknown), else None."""
        if self._process is not None:
            return self._process.poll()
        return None if any(other.id == self.id for other in running()) else 0

    def stop(self, timeout: float = 5) -> None:
        """End this beamline, and only it: SIGTERM, after ``timeout`` seconds SIGKILL."""
        for number, patience in ((signal.SIGTERM, timeout), (signal.SIGKILL, timeout)):
            if self.poll() is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
            deadline = time.monotonic() + patience
            while self.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
        self._drop_lifeline()


def start(
    *,
    prefix: str = DEFAULT_PREFIX,
    seed: int | None = None,
    parent_lifeline: bool = True,
    log_dir: Path | str | None = None,
    lease: PortLease | None = None,
    beamline_id: str | None = None,
    listen: str = LOOPBACK,
) -> RunningBeamline:
    """Start a beamline in a process and session of its own; returns before it is ready.

    Args:
        prefix: begins all its PV names.
        seed: makes its random numbers repeatable.
        parent_lifeline: it ends when this process does, however this process ends.
        log_dir: where its log file goes; default: the user's runtime directory.
        lease: ports to serve on, which stay the caller's to release; default: free ones.
        beamline_id: its id, if it has been promised already.
        listen: address of the interface to serve on.

    Raises:
        BeamlineStartError: it cannot be started.
        ValueError: the prefix cannot begin PV names.
    """
    checked_prefix(prefix)
    beamline_id = beamline_id or new_id()
    own_lease = lease is None
    lease = lease or lease_ports()
    directory = Path(log_dir) if log_dir else runtime_directory() / "logs"
    directory.mkdir(parents=True, exist_ok=True)
    if not log_dir:
        _remove_old_logs(directory)
    log_file = directory / f"{beamline_id}.log"
    command = [sys.executable, "-P", "-m", "virtual_beamline", "run", "--prefix", prefix, "--id", beamline_id]
    command += ["--lease", f"{lease.number}:{lease.descriptor}", "--log-file", str(log_file), "--listen", listen]
    command += ["--seed", str(seed)] if seed is not None else []
    descriptors, reading, writing = [lease.descriptor], -1, None
    if parent_lifeline:
        reading, writing = os.pipe()
        descriptors.append(reading)
        command += ["--lifeline", str(reading)]
    package_root = str(Path(__file__).resolve().parent.parent)
    paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        with log_file.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=descriptors,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
    except OSError as error:
        if writing is not None:
            os.close(writing)
        msg = f"cannot start the virtual beamline: {error}"
        raise BeamlineStartError(msg) from error
    finally:
        if reading >= 0:
            os.close(reading)
        if own_lease:
            lease.release()
    return RunningBeamline(
        id=beamline_id,
        pid=process.pid,
        prefix=prefix,
        environment=lease.environment(beamline_id, listen),
        log_file=log_file,
        lease_number=lease.number,
        started=time.time(),
        process=process,
        lifeline=writing,
    )


def running() -> list[RunningBeamline]:
    """The user's beamlines that are alive, oldest first."""
    found = []
    for state_file in runtime_directory().glob("*.json"):
        try:
            number = int(state_file.stem)
            state = json.loads(state_file.read_text())
            alive = _is_locked(state_file)
        except (OSError, ValueError):
            continue
        if alive:
            found.append(
                RunningBeamline(
                    id=state["id"],
                    pid=state["pid"],
                    prefix=state["prefix"],
                    environment=CaEnvironment(state["variables"]),
                    log_file=Path(state["log_file"]),
                    lease_number=number,
                    started=state["started"],
                )
            )
    return sorted(found, key=lambda beamline: beamline.started)


def find(beamline_id: str | None) -> RunningBeamline:
    """The beamline with this id; with None the one of $VIRTUAL_BEAMLINE, else the only one there is.

    Raises:
        NoSuchBeamlineError: there is no such beamline, or several to choose from.
    """
    alive = running()
    wanted = beamline_id or os.environ.get(ENVIRONMENT_VARIABLE)
    if wanted:
        for beamline in alive:
            if beamline.id == wanted:
                return beamline
        names = ", ".join(beamline.id for beamline in alive) or "none"
        msg = f"no virtual beamline {wanted} is running (running: {names})"
        raise NoSuchBeamlineError(msg)
    if len(alive) == 1:
        return alive[0]
    if not alive:
        msg = "no virtual beamline is running; virtual-beamline start starts one"
        raise NoSuchBeamlineError(msg)
    msg = f"several virtual beamlines are running, name one: {', '.join(beamline.id for beamline in alive)}"
    raise NoSuchBeamlineError(msg)


def _is_locked(state_file: Path) -> bool:
    """Whether the beamline that wrote the file is alive: it alone locks it (a lease may be kept by its parent, too)."""
    with state_file.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@contextlib.contextmanager
def announced(beamline_id: str, lease: PortLease, prefix: str, log_file: Path, listen: str) -> Iterator[None]:
    """Let :func:`running` find this process's beamline."""
    state = {
        "id": beamline_id,
        "pid": os.getpid(),
        "prefix": prefix,
        "variables": dict(lease.environment(beamline_id, listen).variables),
        "log_file": str(log_file),
        "started": time.time(),
    }
    temporary = lease.state_file.with_suffix(f".{os.getpid()}")
    with temporary.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(state))
        file.flush()
        temporary.replace(lease.state_file)
        try:
            yield
        finally:
            with contextlib.suppress(OSError, ValueError):
                if json.loads(lease.state_file.read_text())["pid"] == os.getpid():
                    lease.state_file.unlink()


def _remove_old_logs(directory: Path) -> None:
    with contextlib.suppress(OSError):
        logs = sorted(directory.glob("vb-*.log"), key=lambda path: path.stat().st_mtime)
        for path in logs[:-_KEPT_LOGS]:
            path.unlink(missing_ok=True)
