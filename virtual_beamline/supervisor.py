"""Start, watch and stop virtual beamlines: each IOC in a process and session of its own, on ports of its own.

A beamline is the IOC `gp:` and, if wanted, the area detector's IOC `ad:`, whose image work would disturb the motors in
the same process. Both have one id, one lease of ports and one environment of their clients.

Ports are leased by locking a file, because two servers can bind one UDP port of the loopback silently. The beamline's
process inherits the lock and holds it as long as it lives, so that a lease can neither outlive it nor be lost before.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtual_beamline.client import CaEnvironment, PvNotAnsweringError, read_text
from virtual_beamline.names import DEFAULT_PREFIX, ENVIRONMENT_VARIABLE, ID_RECORD, LOOPBACK, checked_prefix

_FIRST_PORT, _PORTS_PER_LEASE, _LEASES = 21_000, 8, 1000
_KEPT_LOGS = 40
_PATIENCE = 0.25  # s for one answer of an IOC that starts
_AREA_DETECTOR = "-ad"
"""Marks the files of the area detector's IOC, beside those of `gp:`."""


class BeamlineStartError(RuntimeError):
    """The beamline did not come up; the message says why in one line."""


class NoSuchBeamlineError(LookupError):
    """No running beamline is meant, or more than one could be."""


def _runtime_path() -> Path:
    run = os.environ.get("XDG_RUNTIME_DIR")
    return Path(run) / "virtual-beamline" if run else Path(tempfile.gettempdir()) / f"virtual-beamline-{os.getuid()}"


def runtime_directory() -> Path:
    """Where leases, state and logs of this user's beamlines are; made private to the user.

    Raises:
        BeamlineStartError: it belongs to somebody else.
    """
    path = _runtime_path()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        msg = f"{path} belongs to another user: remove it, or set XDG_RUNTIME_DIR to a directory of yours"
        raise BeamlineStartError(msg)
    return path


@dataclass(frozen=True)
class PortLease:
    """Ports that nobody else uses while ``descriptor`` is open in some process.

    The first four are of `gp:`, the last four of `ad:`.
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

    @property
    def area_detector(self) -> int:
        """The CA server's port of `ad:`, TCP and UDP."""
        return self.first + 4

    @property
    def area_detector_pva(self) -> int:
        """TCP port of the pvAccess server of `ad:`, UDP port of its searches."""
        return self.first + 5

    @property
    def images(self) -> int:
        """TCP port of the pvAccess server of the images, UDP port of its searches."""
        return self.first + 6

    def environment(self, beamline_id: str, host: str = LOOPBACK) -> CaEnvironment:
        """What clients of a beamline on these ports need."""
        return CaEnvironment.of_ports(
            beamline_id,
            ca_ports=(self.first, self.area_detector),
            repeater_port=self.repeater,
            pva_port=self.pva,
            pva_search_ports=(self.pva_search, self.area_detector_pva, self.images),
            host=host,
        )

    @property
    def state_file(self) -> Path:
        """What `gp:` tells about itself."""
        return runtime_directory() / f"{self.number}.json"

    @property
    def area_detector_state_file(self) -> Path:
        """What `ad:` tells about itself."""
        return runtime_directory() / f"{self.number}{_AREA_DETECTOR}.json"

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


def free_ports() -> range | None:
    """Ports that a beamline could be started on now, without leasing them; None if there are none."""
    directory = _runtime_path()
    for attempt in range(_LEASES):
        lease = PortLease((os.getuid() * 37 + attempt) % _LEASES, -1)
        lock = directory / f"{lease.number}.lock"
        if not (lock.exists() and _is_locked(lock)) and lease.can_bind():
            return range(lease.first, lease.first + _PORTS_PER_LEASE)
    return None


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
            for file in (lease.state_file, lease.area_detector_state_file):
                file.unlink(missing_ok=True)  # of an earlier holder that was killed
            return lease
        lease.release()
    last = _FIRST_PORT + _LEASES * _PORTS_PER_LEASE - 1
    msg = f"no free ports for a virtual beamline between {_FIRST_PORT} and {last}: stop some (virtual-beamline status)"
    raise BeamlineStartError(msg)


def new_id() -> str:
    """A name for one run of a beamline."""
    return f"vb-{os.urandom(4).hex()}"


class RunningIoc:
    """An IOC's process, as its parent or any other process of the user sees it."""

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
        return f"<IOC {self.prefix} of virtual beamline {self.id} pid {self.pid}>"

    def _drop_lifeline(self) -> None:
        if self._lifeline is not None:
            with contextlib.suppress(OSError):
                os.close(self._lifeline)
            self._lifeline = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of its CA server."""
        return self.environment.ca_address

    @property
    def _state_file(self) -> Path:
        return runtime_directory() / f"{self.lease_number}.json"

    def wait_ready(self, timeout: float = 30) -> None:
        """Wait until its PVs answer, and prove by BEAMLINE_ID that it is this one which answers.

        Raises:
            BeamlineStartError: it has ended, another server answers on its port, or the time is up.
        """
        deadline = time.monotonic() + timeout
        pv, answer = f"{self.prefix}{ID_RECORD}", ""
        while True:
            code = self.poll()
            if code is not None:
                msg = f"{self._what} ended at once (exit code {code}): {self._last_words()}"
                raise BeamlineStartError(msg)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                if answer:
                    msg = f"another beamline ({answer}) answers on the ports of {self.id}; run virtual-beamline status"
                else:
                    msg = f"{pv} does not answer after {timeout:g} s; {self._last_words()}"
                raise BeamlineStartError(msg)
            patience = min(remaining, _PATIENCE)
            try:
                answer = read_text(pv, self.address, patience)
            except PvNotAnsweringError:
                if patience == _PATIENCE:  # else it had hardly time to answer
                    answer = ""
            if answer == self.id:
                return
            time.sleep(0.01)

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"virtual beamline's IOC {self.prefix}"

    @property
    def _what(self) -> str:
        return f"{self.prefix} of the virtual beamline {self.id}"

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
        try:
            alive = json.loads(self._state_file.read_text())["id"] == self.id and _is_locked(self._state_file)
        except (OSError, ValueError, KeyError):
            alive = False
        return None if alive else 0

    def stop(self, timeout: float = 5) -> None:
        """End this IOC, and only it: SIGTERM, after ``timeout`` seconds SIGKILL."""
        _end([self], timeout)
        self._drop_lifeline()


class RunningAreaDetector(RunningIoc):
    """The process of `ad:`."""

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"area detector {self.prefix}"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of its CA server."""
        return self.environment.area_detector_address

    @property
    def _state_file(self) -> Path:
        return runtime_directory() / f"{self.lease_number}{_AREA_DETECTOR}.json"


class RunningBeamline(RunningIoc):
    """The process of `gp:`, and that of the area detector's IOC if there is one."""

    area_detector: RunningAreaDetector | None = None
    seed: int | None = None
    """What its worlds are made of, where this process has started it."""

    def __repr__(self) -> str:
        return f"<virtual beamline {self.id} {self.prefix} pid {self.pid}>"

    @property
    def title(self) -> str:
        """What messages call it."""
        return "virtual beamline"

    @property
    def _what(self) -> str:
        return f"the virtual beamline {self.id}"

    @property
    def iocs(self) -> list[RunningIoc]:
        """All its processes; one alone stands for itself."""
        if self.area_detector is None or self.area_detector.pid == self.pid:
            return [self] if self.area_detector is None else [self.area_detector]
        return [self, self.area_detector]

    def stop(self, timeout: float = 5) -> None:
        """End this beamline, and only it: SIGTERM, after ``timeout`` seconds SIGKILL."""
        _end(self.iocs, timeout)
        for ioc in self.iocs:
            ioc._drop_lifeline()  # noqa: SLF001  (this module's own class)


def _end(iocs: list[RunningIoc], timeout: float) -> None:
    for number, patience in ((signal.SIGTERM, timeout), (signal.SIGKILL, timeout)):
        alive = [ioc for ioc in iocs if ioc.poll() is None]
        for ioc in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(ioc.pid, number)
        deadline = time.monotonic() + patience
        while any(ioc.poll() is None for ioc in alive) and time.monotonic() < deadline:
            time.sleep(0.01)


def start(
    *,
    prefix: str = DEFAULT_PREFIX,
    area_detector: str | None = None,
    area_detector_later: bool = False,
    seed: int | None = None,
    parent_lifeline: bool = True,
    log_dir: Path | str | None = None,
    lease: PortLease | None = None,
    beamline_id: str | None = None,
    listen: str = LOOPBACK,
) -> RunningBeamline:
    """Start a beamline, each IOC in a process and session of its own; returns before it is ready.

    Args:
        prefix: begins all PV names of its IOC `gp:`.
        area_detector: begins all PV names of the area detector's IOC; None: there is none. It starts beside the other
            one; whoever needs it waits for it (``beamline.area_detector.wait_ready()``).
        area_detector_later: leave starting it to the caller (`start_area_detector`); the other one knows its prefix.
        seed: makes its random numbers repeatable.
        parent_lifeline: it ends when this process does, however this process ends.
        log_dir: where its log files go; default: the user's runtime directory.
        lease: ports to serve on, which stay the caller's to release; default: free ones.
        beamline_id: its id, if it has been promised already.
        listen: address of the interface to serve on.

    Raises:
        BeamlineStartError: it cannot be started.
        ValueError: a prefix cannot begin PV names.
    """
    checked_prefix(prefix)
    if area_detector is not None:
        checked_prefix(area_detector)
        # Both IOCs make the same world of one seed; the session may want to know which.
        seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    beamline_id = beamline_id or new_id()
    own_lease = lease is None
    lease = lease or lease_ports()
    launch = _Launch(
        beamline_id=beamline_id,
        lease=lease,
        seed=seed,
        parent_lifeline=parent_lifeline,
        directory=_log_directory(log_dir),
        listen=listen,
    )
    try:
        options = ["--no-area-detector"] if area_detector is None else ["--area-detector", area_detector]
        beamline = RunningBeamline(**launch.start("gp", prefix, options))
        beamline.seed = seed
        if area_detector is not None and not area_detector_later:
            try:
                beamline.area_detector = RunningAreaDetector(**launch.start("ad", area_detector, []))
            except BeamlineStartError:
                beamline.stop()
                raise
    finally:
        if own_lease:
            lease.release()
    return beamline


def start_again(beamline: RunningBeamline, lease: PortLease) -> RunningBeamline:
    """Start what has ended of a beamline that this process has started: the same world on the same ports.

    Args:
        beamline: of which some IOC has ended.
        lease: its ports.

    Raises:
        BeamlineStartError: it cannot be started.
    """
    area_detector, result = beamline.area_detector, beamline
    log_dir, listen = beamline.log_file.parent, beamline.address[0]
    if beamline.poll() is not None:
        result = start(
            prefix=beamline.prefix,
            area_detector=area_detector and area_detector.prefix,
            area_detector_later=True,
            seed=beamline.seed,
            log_dir=log_dir,
            lease=lease,
            beamline_id=beamline.id,
            listen=listen,
        )
        result.area_detector = area_detector
    if area_detector is not None and area_detector.poll() is not None:
        result.area_detector = start_area_detector(
            beamline.id, area_detector.prefix, lease, seed=beamline.seed, log_dir=log_dir, listen=listen
        )
    return result


def start_area_detector(
    beamline_id: str,
    prefix: str,
    lease: PortLease,
    *,
    seed: int | None = None,
    log_dir: Path | str | None = None,
    listen: str = LOOPBACK,
) -> RunningAreaDetector:
    """Start the area detector's IOC of a beamline that has none, or whose own has ended; it ends with this process.

    Args:
        beamline_id: of the beamline.
        prefix: begins all its PV names.
        lease: of the beamline.
        seed: of the beamline.
        log_dir: where its log file goes; default: the user's runtime directory.
        listen: address of the interface to serve on.

    Raises:
        BeamlineStartError: it cannot be started.
        ValueError: the prefix cannot begin PV names.
    """
    launch = _Launch(
        beamline_id=beamline_id,
        lease=lease,
        seed=seed,
        parent_lifeline=True,
        directory=_log_directory(log_dir),
        listen=listen,
    )
    return RunningAreaDetector(**launch.start("ad", checked_prefix(prefix), []))


def log_directory() -> Path:
    """Where the logs of this user's beamlines are, if they were not told to go elsewhere."""
    return _runtime_path() / "logs"


def _log_directory(wanted: Path | str | None) -> Path:
    directory = Path(wanted) if wanted else runtime_directory() / "logs"
    directory.mkdir(parents=True, exist_ok=True)
    if not wanted:
        _remove_old_logs(directory)
    return directory


@dataclass(frozen=True)
class _Launch:
    """What the IOCs of a beamline have in common when they are started."""

    beamline_id: str
    lease: PortLease
    seed: int | None
    parent_lifeline: bool
    directory: Path
    listen: str

    def start(self, ioc: str, prefix: str, options: list[str]) -> dict[str, Any]:
        """Start one; gives what a RunningIoc is made of.

        Raises:
            BeamlineStartError: it cannot be started.
        """
        lease = self.lease
        log_file = self.directory / f"{self.beamline_id}{_AREA_DETECTOR if ioc == 'ad' else ''}.log"
        command = [sys.executable, "-P", "-m", "virtual_beamline", "run", "--ioc", ioc, "--prefix", prefix]
        command += ["--id", self.beamline_id, "--lease", f"{lease.number}:{lease.descriptor}", *options]
        command += ["--log-file", str(log_file), "--listen", self.listen]
        command += ["--seed", str(self.seed)] if self.seed is not None else []
        descriptors, reading, writing = [lease.descriptor], -1, None
        if self.parent_lifeline:
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
        return {
            "id": self.beamline_id,
            "pid": process.pid,
            "prefix": prefix,
            "environment": lease.environment(self.beamline_id, self.listen),
            "log_file": log_file,
            "lease_number": lease.number,
            "started": time.time(),
            "process": process,
            "lifeline": writing,
        }


def running() -> list[RunningBeamline]:
    """The user's beamlines of which any IOC is alive, oldest first."""
    found: dict[str, RunningBeamline] = {}
    area_detectors = []
    for state_file in sorted(_runtime_path().glob("*.json")):
        try:
            number = int(state_file.stem.removesuffix(_AREA_DETECTOR))
            state = json.loads(state_file.read_text())
            alive = _is_locked(state_file)
        except (OSError, ValueError):
            continue
        is_area_detector = state_file.stem.endswith(_AREA_DETECTOR)
        values = {
            "id": state["id"],
            "pid": state["pid"],
            "prefix": state["prefix"],
            "environment": CaEnvironment(state["variables"]),
            "log_file": Path(state["log_file"]),
            "lease_number": number,
            "started": state["started"],
        }
        if is_area_detector and alive:
            area_detectors.append(RunningAreaDetector(**values))
        elif not is_area_detector:
            found[state["id"]] = RunningBeamline(**values)
    for ioc in area_detectors:
        if ioc.id not in found:  # its beamline's other IOC has been stopped alone
            found[ioc.id] = RunningBeamline(**{name: getattr(ioc, name) for name in _IOC_STATE})
        found[ioc.id].area_detector = ioc
    alive_ones = [beamline for beamline in found.values() if any(ioc.poll() is None for ioc in beamline.iocs)]
    return sorted(alive_ones, key=lambda beamline: beamline.started)


_IOC_STATE = ("id", "pid", "prefix", "environment", "log_file", "lease_number", "started")


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
    """Whether the IOC that wrote the file is alive: it alone locks it (a lease may be kept by its parent, too)."""
    with state_file.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@contextlib.contextmanager
def announced(
    beamline_id: str, lease: PortLease, state_file: Path, prefix: str, log_file: Path, listen: str
) -> Iterator[None]:
    """Let :func:`running` find this process's IOC."""
    state = {
        "id": beamline_id,
        "pid": os.getpid(),
        "prefix": prefix,
        "variables": dict(lease.environment(beamline_id, listen).variables),
        "log_file": str(log_file),
        "started": time.time(),
    }
    temporary = state_file.with_suffix(f".{os.getpid()}")
    with temporary.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(state))
        file.flush()
        temporary.replace(state_file)
        try:
            yield
        finally:
            with contextlib.suppress(OSError, ValueError):
                if json.loads(state_file.read_text())["pid"] == os.getpid():
                    state_file.unlink()


def _remove_old_logs(directory: Path) -> None:
    with contextlib.suppress(OSError):
        logs = sorted(directory.glob("vb-*.log"), key=lambda path: path.stat().st_mtime)
        for path in logs[:-_KEPT_LOGS]:
            path.unlink(missing_ok=True)
