"""The command ``virtual-beamline``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from virtual_beamline.names import AREA_DETECTOR_PREFIX, DEFAULT_PREFIX, LOOPBACK, checked_prefix

if TYPE_CHECKING:
    from virtual_beamline.supervisor import PortLease

_DESCRIPTION = """\
A simulated beamline on real EPICS base.

  eval "$(virtual-beamline start)"     start one and point this shell at it; then any EPICS client works
  virtual-beamline stop                stop it
"""


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        prog="virtual-beamline", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    start = add("start", "start a beamline, wait until it answers, print the environment of its clients")
    run = add("run", "serve in the foreground until Ctrl-C")
    for command in (start, run):
        command.add_argument("--seed", type=_seed, metavar="N", help="make its random numbers repeatable")
        command.add_argument(
            "--listen", default=LOOPBACK, metavar="ADDRESS", help=f"interface to serve on (default {LOOPBACK})"
        )
    start.add_argument("--timeout", type=float, default=30, help="seconds to wait for it (default 30)")
    start.add_argument("--log-dir", type=Path, help="where its log file goes")
    for command in (start, run):
        command.add_argument(
            "--area-detector",
            default=AREA_DETECTOR_PREFIX,
            type=_prefix,
            metavar="PREFIX",
            help=f"begins all PV names of the area detector (default {AREA_DETECTOR_PREFIX})",
        )
        command.add_argument(
            "--no-area-detector", dest="area_detector", action="store_const", const=None, help="do without one"
        )
    run.add_argument("--ioc", default="gp", help=argparse.SUPPRESS)
    for name in ("--id", "--log-file", "--lease", "--lifeline"):  # said by the supervisor
        run.add_argument(name, help=argparse.SUPPRESS)
    listing = add("list", "all PVs with type and description")
    for command in (start, run):
        command.add_argument(
            "--prefix", default=DEFAULT_PREFIX, type=_prefix, help=f"begins all PV names (default {DEFAULT_PREFIX})"
        )
    listing.add_argument(
        "--prefix",
        type=_prefix,
        help=f"begins all PV names (default: that of $VIRTUAL_BEAMLINE, else {DEFAULT_PREFIX})",
    )
    add("status", "the beamlines that are running")
    stop = add("stop", "stop one beamline")
    stop.add_argument("id", nargs="?", help="which one; default: that of $VIRTUAL_BEAMLINE, else the only one running")
    return parser


def _prefix(text: str) -> str:
    try:
        return checked_prefix(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _seed(text: str) -> int:
    if not text.isdecimal():
        msg = f"{text!r} is no seed: a whole number, 0 or more"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _lease(text: str | None) -> PortLease | None:
    from virtual_beamline.supervisor import PortLease

    if text is None:
        return None
    number, descriptor = text.split(":")
    return PortLease(int(number), int(descriptor))


def _run(arguments: argparse.Namespace) -> NoReturn:
    from virtual_beamline.server import ServerOptions, serve

    serve(
        ServerOptions(
            ioc=arguments.ioc,
            prefix=arguments.prefix,
            area_detector=arguments.area_detector if arguments.ioc == "gp" else None,
            seed=arguments.seed,
            beamline_id=arguments.id,
            lease=_lease(arguments.lease),
            lifeline=None if arguments.lifeline is None else int(arguments.lifeline),
            log_file=None if arguments.log_file is None else Path(arguments.log_file),
            listen=arguments.listen,
        )
    )


def _start(arguments: argparse.Namespace) -> int:
    from virtual_beamline import supervisor

    beamline = supervisor.start(
        prefix=arguments.prefix,
        area_detector=arguments.area_detector,
        seed=arguments.seed,
        parent_lifeline=False,
        log_dir=arguments.log_dir,
        listen=arguments.listen,
    )
    try:
        for ioc in beamline.iocs:
            ioc.wait_ready(arguments.timeout)
    except BaseException:
        beamline.stop()
        raise
    print(beamline.environment.exports())
    served = " and ".join(f"{ioc.prefix} (pid {ioc.pid})" for ioc in beamline.iocs)
    print(
        f"virtual beamline {beamline.id} serves {served}; "
        f'virtual-beamline stop {beamline.id} ends it. For this shell: eval "$(virtual-beamline start)"',
        file=sys.stderr,
    )
    return 0


def _status() -> int:
    import time

    from virtual_beamline import supervisor

    alive = supervisor.running()
    if not alive:
        print("no virtual beamline is running")
        return 1
    rows = [("id", "prefix", "pid", "address", "up", "log")]
    for beamline in alive:
        for ioc in beamline.iocs:
            host, port = ioc.address
            up = f"{(time.time() - ioc.started) / 60:.1f} min" if ioc.poll() is None else "ended"
            rows.append((beamline.id, ioc.prefix, str(ioc.pid), f"{host}:{port}", up, str(ioc.log_file)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    from virtual_beamline import supervisor

    beamline = supervisor.find(arguments.id)
    beamline.stop()
    for ioc in beamline.iocs:
        if ioc.poll() is None:
            print(f"{ioc.prefix} of virtual beamline {beamline.id} (pid {ioc.pid}) does not end", file=sys.stderr)
            return 1
    print(f"stopped {beamline.id}", file=sys.stderr)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from virtual_beamline import beamline, supervisor
    from virtual_beamline.area_detector import detector

    named = os.environ.get("VIRTUAL_BEAMLINE")
    meant = next((each for each in supervisor.running() if each.id == named), None)
    area_detector: str | None = AREA_DETECTOR_PREFIX
    prefix: str | None = arguments.prefix or DEFAULT_PREFIX
    if meant is not None:
        area_detector = meant.area_detector.prefix if meant.area_detector is not None else None
        prefix = arguments.prefix or (meant.prefix if meant in meant.iocs else None)
    records = [] if prefix is None else beamline.contents(prefix)
    records += [] if area_detector is None else detector.contents(area_detector)
    width, type_width = max(len(r.name) for r in records), max(len(r.type) for r in records)
    for record in records:
        print(f"{record.name:{width}}  {record.type:{type_width}}  {record.description}".rstrip())
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives the exit code."""
    parsed = parser().parse_args(arguments)
    from virtual_beamline.supervisor import BeamlineStartError, NoSuchBeamlineError

    try:
        match parsed.command:
            case "run":
                _run(parsed)
            case "start":
                return _start(parsed)
            case "status":
                return _status()
            case "stop":
                return _stop(parsed)
            case _:
                return _list(parsed)
    except (BeamlineStartError, NoSuchBeamlineError) as error:
        print(f"virtual-beamline: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
