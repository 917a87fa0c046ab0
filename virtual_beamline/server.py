"""The process of an IOC: environment for EPICS base, boot, and its end."""

from __future__ import annotations

import importlib
import logging
import os
import random
import signal
import socket
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from virtual_beamline import supervisor
from virtual_beamline.names import DEFAULT_PREFIX, ID_RECORD, LOOPBACK, MAX_ARRAY_BYTES
from virtual_beamline.supervisor import PortLease

logger = logging.getLogger("virtual_beamline")


@dataclass(frozen=True)
class ServerOptions:
    """How to serve; what is None is chosen."""

    ioc: str = "gp"
    """``gp`` or ``ad``."""
    prefix: str = DEFAULT_PREFIX
    area_detector: str | None = None
    """Prefix of the other IOC, if this is `gp:` and there is one."""
    seed: int | None = None
    beamline_id: str | None = None
    lease: PortLease | None = None
    lifeline: int | None = None
    log_file: Path | None = None
    listen: str = LOOPBACK


def serve(options: ServerOptions) -> NoReturn:
    """Serve until SIGINT, SIGTERM, or the end of the parent at the other end of the lifeline; ends the process."""
    # Blocked before any thread exists, so that they reach sigwait() below and nothing else.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    # With transparent huge pages a thread's stack of 8 MB is all resident, and so are 32 MB for each thread of numpy's
    # linear algebra, which nothing here uses.
    threading.stack_size(1 << 20)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    if options.lifeline is not None:
        threading.Thread(target=_end_with_parent, args=(options.lifeline,), name="lifeline", daemon=True).start()
    lease = options.lease or supervisor.lease_ports()
    beamline_id = options.beamline_id or supervisor.new_id()
    log_file = options.log_file or Path("/dev/stderr")
    if options.lease is None and options.area_detector is not None:  # in the foreground: it ends with this process
        options = _with_area_detector(options, lease, beamline_id)
    _set_server_environment(lease, options.listen, options.ioc)
    state_file = lease.state_file if options.ioc == "gp" else lease.area_detector_state_file
    with supervisor.announced(beamline_id, lease, state_file, options.prefix, log_file, options.listen):
        code = _serve_until_signal(options, lease, beamline_id)
    sys.stdout.flush()
    sys.stderr.flush()
    # Base's threads are still running: leave without Python's and libc's exit handlers, which would race with them.
    os._exit(code)


def _with_area_detector(options: ServerOptions, lease: PortLease, beamline_id: str) -> ServerOptions:
    """Start the area detector's IOC beside this one; gives the options with a seed that both have."""
    seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    supervisor.start_area_detector(beamline_id, str(options.area_detector), lease, seed=seed, listen=options.listen)
    return replace(options, seed=seed)


def _serve_until_signal(options: ServerOptions, lease: PortLease, beamline_id: str) -> int:
    from virtual_beamline import epics

    port = lease.first if options.ioc == "gp" else lease.area_detector
    try:
        _check_port(options.listen, port)
        if options.ioc == "gp":
            from virtual_beamline import beamline

            beamline.boot_beamline(
                options.prefix, options.seed, options.listen, lease.repeater, area_detector=options.area_detector
            )
        else:
            from virtual_beamline.area_detector import detector

            detector.boot_area_detector(options.prefix, options.seed, options.listen, lease.images)
        epics.put_pv(f"{options.prefix}{ID_RECORD}", beamline_id)
    except (epics.EpicsBaseError, OSError) as error:
        logger.error("the virtual beamline cannot start: %s", error)
        return 1
    except Exception:
        logger.exception("the virtual beamline cannot start")
        return 1
    logger.info("virtual beamline %s serves %s on port %d", beamline_id, options.prefix, port)
    if options.log_file is None:
        print(lease.environment(beamline_id, options.listen).exports(), flush=True)
    # What the first count needs; 0.2 s that the start need not wait for.
    threading.Thread(target=importlib.import_module, args=("numpy.random",), name="import", daemon=True).start()
    number = signal.sigwait({signal.SIGINT, signal.SIGTERM})
    logger.info("virtual beamline %s ends (%s)", beamline_id, signal.Signals(number).name)
    return 0


def _check_port(address: str, port: int) -> None:
    """Raise OSError if we cannot listen there; EPICS base would choose another port, or suspend its thread for ever."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                msg = f"cannot serve on {address}:{port}: {error}"
                raise OSError(msg) from error


def _end_with_parent(lifeline: int) -> None:
    """Block on the pipe whose other end the parent holds; it ends when the parent does, on every Unix."""
    while os.read(lifeline, 1):
        pass
    logger.info("the parent has ended, so does the virtual beamline")
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(2)
    os._exit(1)


def _set_server_environment(lease: PortLease, listen: str, ioc: str = "gp") -> None:
    """Tell EPICS base where to serve, and its own client side (links between records) where to look."""
    client = lease.environment("", listen).variables
    os.environ.update({name: value for name, value in client.items() if name.startswith("EPICS_")})
    area_detector = ioc == "ad"
    ca_port = str(lease.area_detector if area_detector else lease.first)
    os.environ.update(
        {
            "EPICS_CA_SERVER_PORT": ca_port,
            "EPICS_CAS_SERVER_PORT": ca_port,
            "EPICS_CAS_INTF_ADDR_LIST": listen,
            "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
            "EPICS_CAS_BEACON_ADDR_LIST": listen,
            "EPICS_CAS_BEACON_PORT": str(lease.repeater),
            "EPICS_CA_MAX_ARRAY_BYTES": str(MAX_ARRAY_BYTES),
            "EPICS_PVAS_INTF_ADDR_LIST": listen,
            "EPICS_PVAS_SERVER_PORT": str(lease.area_detector_pva if area_detector else lease.pva),
            "EPICS_PVAS_BROADCAST_PORT": str(lease.area_detector_pva if area_detector else lease.pva_search),
            "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
            "EPICS_PVAS_BEACON_ADDR_LIST": listen,
        }
    )
