"""`instrument`: the shell's side of a session. Each command imports what it needs, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from instrument.config.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

BEGAN = time.monotonic()


def _parser() -> argparse.ArgumentParser:
    from importlib.metadata import version

    parser = argparse.ArgumentParser(prog="instrument", description="A Bluesky beamline, simulated hardware included.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('instrument')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help_text in (
        ("session", "IPython on the beamline; runs what it is piped"),
        ("demo", "a session without a keyboard: counts, scans, finds the peak, writes the files"),
        ("check", "check iconfig.yml and devices.yml without connecting to anything"),
    ):
        command = commands.add_parser(name, help=help_text, description=help_text)
        command.add_argument("--config", metavar="FILE", help="iconfig.yml (default: $INSTRUMENT_CONFIG, then our own)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The command line without the program's name; the process's own by default.

    Returns:
        The exit code: 0 if all went well, 1 if something raised, 2 if the configuration is wrong.
    """
    options = _parser().parse_args(arguments)
    try:
        return {"session": _session, "demo": _demo, "check": _check}[options.command](options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _session(options: argparse.Namespace) -> int:
    from instrument import console

    return console.run(config=options.config, began=BEGAN)


def _demo(options: argparse.Namespace) -> int:
    from instrument import demo

    return demo.run(config=options.config, began=BEGAN)


def _check(options: argparse.Namespace) -> int:
    from instrument import commands, session
    from instrument.config import load
    from instrument.devices import registry

    reserved = {*session.NAMES, *commands.NAMES}
    config = load(options.config, check_devices=lambda specs: registry.check(specs, reserved))
    print(f"{config.file}: {len(config.devices)} devices, no mistakes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
