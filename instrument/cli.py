"""`instrument`: the shell's side of a session. Each command imports what it needs, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from instrument.framework.index import RunIndex
    from instrument.framework.runfiles import DataDirectory

BEGAN = time.monotonic()
QUEUE_ACTIONS = {  # what `instrument queue` can do; here, so that `--help` need not import it
    "status": "what the server does",
    "add": "put a plan in the queue: ascan m1 -1 1 20 0.5, or 'count([scaler1], num=3)'",
    "list": "what waits in the queue",
    "remove": "take a plan out of it, by number or uid",
    "clear": "take all out of it",
    "start": "run what is in it; opens the session if it is closed",
    "stop": "stop after the plan that runs",
    "pause": "pause the plan that runs",
    "resume": "go on with the paused plan",
    "abort": "end the plan that runs or is paused",
    "history": "what has run",
    "plans": "the plans that may be put in it, or one of them",
    "devices": "the devices that plans may use",
    "console": "follow what the server and its session print",
    "open": "start the session in the server",
    "close": "end the session in the server",
}


class _Version(argparse.Action):
    """Looks for the version only when asked: that takes 30 ms."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(parser.prog, version("instrument"))
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(prog="instrument", description="A Bluesky beamline, simulated hardware included.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help_text in (
        ("session", "IPython on the beamline; runs what it is piped"),
        ("demo", "a session without a keyboard: counts, scans, finds the peak, writes the files"),
        ("check", "check iconfig.yml and devices.yml without connecting to anything"),
        ("doctor", "one screen on what is well and what is not, and what to do; starts nothing, changes nothing"),
    ):
        _takes_config(commands.add_parser(name, help=help_text, description=help_text))
    text = "one archive for a bug report: log tails, versions, configuration, the doctor's lines; secrets removed"
    report_bug = _takes_config(commands.add_parser("report-bug", help=text, description=f"{text}; nothing is sent"))
    report_bug.add_argument("--to", metavar="FILE", type=Path, help="the .tar.gz, or a directory for it (default: .)")
    text = "make a directory for a beamline of your own: the two YAML files, a plan, a test, a README"
    new = commands.add_parser("new", help=text, description=text)
    new.add_argument("name", metavar="NAME", type=Path, help="the beamline's name, or a path that ends in it")
    text = "Jupyter on this configuration, in this directory"
    notebook = _takes_config(commands.add_parser("notebook", help=text, description=text))
    notebook.add_argument("directory", metavar="DIR", type=Path, nargs="?", default=Path(), help="(default: here)")
    notebook.add_argument("--no-browser", action="store_true", help="only print the address")
    notebook.add_argument("--port", type=_port, metavar="PORT", help="TCP port (default: 8888, or the next one free)")
    _add_runs(commands)
    _add_export(commands)
    _add_catalog(commands)
    _add_ship(commands)
    _add_tiled(commands)
    _add_queue(commands)
    return parser


def _takes_config(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument(
        "--config", metavar="FILE", help="iconfig.yml (default: $INSTRUMENT_CONFIG, else the one here, else our own)"
    )
    return command


def _takes_query(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument(
        "--since", metavar="TIME", help="started then or later: '2026-11-21', '2026-11-21 04:30', '2 h'"
    )
    command.add_argument("--until", metavar="TIME", help="started before; a day stands for its end")
    command.add_argument("--plan", metavar="NAME", help="name of the plan")
    command.add_argument("--text", metavar="WORDS", help="words that occur in the metadata")
    return _takes_config(command)


def _add_runs(commands: argparse._SubParsersAction) -> None:
    text = "list runs, newest first"
    runs = _takes_query(commands.add_parser("runs", help=text, description=text))
    runs.add_argument("-n", "--num", type=int, default=20, metavar="N", help="how many at the most (default: 20)")


def _port(text: str) -> int:
    """A TCP port."""
    if not (text.isdecimal() and int(text) <= 65535):
        msg = f"{text} is no TCP port: 0 to 65535"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _add_export(commands: argparse._SubParsersAction) -> None:
    text = "write runs to files: NeXus, SPEC, CSV or JSON, one file for each run; again, it goes on where it was"
    export = _takes_query(commands.add_parser("export", help=text, description=text))
    export.add_argument("--scan", action="append", metavar="N[..M]", help="scan numbers: 12, 12..20, or 3,5,12..20")
    export.add_argument("--uid", action="append", metavar="UID", help="the beginning of a uid; may be repeated")
    export.add_argument("--last", type=int, metavar="N", help="the newest N of the runs that match")
    export.add_argument("--format", choices=("nexus", "spec", "csv", "json"), default="nexus", help="(default: nexus)")
    export.add_argument("--to", metavar="DIR", type=Path, required=True, help="directory; made if it does not exist")
    export.add_argument("--force", action="store_true", help="replace what is there")


def _add_catalog(commands: argparse._SubParsersAction) -> None:
    text = "check, pack and unpack the journal's runs"
    actions = commands.add_parser("catalog", help=text, description=text).add_subparsers(
        dest="action", metavar="ACTION", required=True
    )
    text = "compare the index with the files, which are the truth; exits 1 if something is wrong"
    check = _takes_config(actions.add_parser("check", help=text, description=text))
    check.add_argument("--repair", action="store_true", help="make the index anew from the files first")
    text = "copy runs to a directory that another machine opens"
    pack = _takes_query(actions.add_parser("pack", help=text, description=text))
    pack.add_argument("directory", metavar="DIRECTORY", type=Path)
    pack.add_argument("--images", action="store_true", help="copy the files that the runs refer to, too")
    text = "add packed runs to the journal of this machine"
    unpack = _takes_config(actions.add_parser("unpack", help=text, description=text))
    unpack.add_argument("directory", metavar="DIRECTORY", type=Path)


def _add_ship(commands: argparse._SubParsersAction) -> None:
    text = "feed databases from the journal while runs go on; one process per data directory"
    ship = _takes_config(commands.add_parser("ship", help=text, description=text)).add_mutually_exclusive_group()
    ship.add_argument("--once", action="store_true", help="deliver what is pending, then end; exits 1 if it could not")
    ship.add_argument("--status", action="store_true", help="print who ships, what was delivered, and the last error")
    ship.add_argument("--print-service", action="store_true", help="print a systemd user unit for this directory")
    ship.add_argument("--with-sessions", action="store_true", help="end after the last session here (sessions use it)")


def _add_tiled(commands: argparse._SubParsersAction) -> None:
    text = "runs over HTTP: a Tiled server, and getting runs in and out"
    actions = commands.add_parser("tiled", help=text, description=text).add_subparsers(
        dest="action", metavar="ACTION", required=True
    )
    text = "serve the runs that are fed to it; on loopback, with API keys, unless told otherwise"
    serve = _takes_config(actions.add_parser("serve", help=text, description=text))
    serve.add_argument("--host", metavar="ADDRESS", help="interface to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", metavar="PORT", type=_port, help="TCP port, 0 for any free one (default: 8000)")
    serve.add_argument("--public-read", action="store_true", default=None, help="reading needs no key")
    serve.add_argument("--embedded-postgres", action="store_true", help="over a PostgreSQL of its own, not SQLite")
    serve.add_argument("--readable", metavar="DIR", type=Path, action="append", help="its images may be read, too")
    text = "send the runs of the journal that the server does not have; doing it again does the rest"
    _takes_query(actions.add_parser("backfill", help=text, description=text))
    text = "write the server's runs to a journal, the documents as they were recorded"
    export = _takes_query(actions.add_parser("export", help=text, description=text))
    export.add_argument("directory", metavar="DIRECTORY", type=Path, help="a data directory, made if it is not there")
    export.add_argument("--url", metavar="URL", help="of another server than this directory's; key in $TILED_API_KEY")
    export.add_argument("--catalog", metavar="NAME", help="another catalog than this configuration's")


def _add_queue(commands: argparse._SubParsersAction) -> None:
    text = "the session as a queue server: plans are submitted, and run one after the other"
    serve = _takes_config(commands.add_parser("qserver", help=text, description=text))
    serve.add_argument("--redis", metavar="URI", help="a facility's Redis, redis://HOST:PORT (default: its own)")
    serve.add_argument("--host", metavar="ADDRESS", help="interface to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", metavar="PORT", type=_port, help="takes requests; 0: any free one (default: 60615)")
    serve.add_argument("--info-port", metavar="PORT", type=_port, help="output; 0: any free one (default: 60625)")
    serve.add_argument("--closed", action="store_true", help="leave opening the session to `instrument queue open`")
    text = "the queue of the server that runs here"
    actions = commands.add_parser("queue", help=text, description=text).add_subparsers(
        dest="action", metavar="ACTION", required=True
    )
    for name, help_text in QUEUE_ACTIONS.items():
        action = _takes_config(actions.add_parser(name, help=help_text, description=help_text))
        if name == "add":
            action.add_argument("--front", action="store_true", help="before all others")
            action.add_argument("plan", metavar="PLAN", nargs=argparse.REMAINDER, help="its name and arguments")
        elif name == "start":
            action.add_argument("--wait", action="store_true", help="follow it to its end; exits 1 if a plan failed")
        elif name == "remove":
            action.add_argument("which", metavar="WHICH", help="number in the queue, or the beginning of its uid")
        elif name == "history":
            action.add_argument("-n", "--num", type=int, default=20, metavar="N", help="the last N (default: 20)")
        elif name == "plans":
            action.add_argument("name", metavar="NAME", nargs="?", help="its parameters")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The command line without the program's name; the process's own by default.

    Returns:
        The exit code: 0 if all went well, 1 if something raised, 2 if the configuration is wrong.
    """
    options = parser().parse_args(arguments)
    try:
        from instrument.config.errors import UserError  # brings pydantic along, which `--help` need not wait for
    except ImportError as error:
        if options.command in FOR_BROKEN_ONES:
            return COMMANDS[options.command](options)
        print(f"{error}: `instrument doctor` tells what is missing, and how to install it", file=sys.stderr)
        return 2
    try:
        return COMMANDS[options.command](options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read what is printed has gone: `instrument runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _session(options: argparse.Namespace) -> int:
    from instrument import console

    return console.run(config=options.config, began=BEGAN)


def _demo(options: argparse.Namespace) -> int:
    from instrument import demo

    return demo.run(config=options.config, began=BEGAN)


def _check(options: argparse.Namespace) -> int:
    from instrument.doctor.configuration import checked

    config = checked(options.config)
    print(f"{config.file}: {len(config.devices)} devices, no mistakes")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from instrument.doctor.examination import report

    text, code = report(options.config)
    print(text)
    return code


def _report_bug(options: argparse.Namespace) -> int:
    from instrument.doctor import bug_report

    try:
        print(bug_report.write(options.config, options.to))
    except OSError as error:
        print(
            f"the report can't be written to {options.to or Path.cwd()} ({error.strerror}): --to FILE", file=sys.stderr
        )
        return 1
    return 0


def _new(options: argparse.Namespace) -> int:
    from instrument import new_beamline

    print(new_beamline.create(options.name))
    return 0


def _notebook(options: argparse.Namespace) -> int:
    from instrument import notebook

    return notebook.run(options.directory, config=options.config, browser=not options.no_browser, port=options.port)


def _journal(options: argparse.Namespace) -> tuple[DataDirectory, RunIndex]:
    """The journal of the working directory, and its index; neither is made by looking."""
    from instrument.config import load
    from instrument.framework.index import RunIndex
    from instrument.framework.runfiles import DataDirectory

    data = DataDirectory(Path.cwd() / load(options.config).directories.data)
    return data, RunIndex(data.index if data.root.is_dir() else None, data.runs)


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("since", "until", "plan", "text")}


def _runs(options: argparse.Namespace) -> int:
    from instrument.framework import runs

    _, index = _journal(options)
    print(runs.table(index, num=options.num, **_asked(options)).reST(fmt="simple"))
    return 0


def _export(options: argparse.Namespace) -> int:
    from instrument.callbacks import export
    from instrument.config import load
    from instrument.framework import runs
    from instrument.framework.image_roots import ImageRoots

    data, index = _journal(options)
    rows = runs.select(index, scans=options.scan or (), uids=options.uid or (), last=options.last, **_asked(options))
    if options.to.exists() and not options.to.is_dir():
        raise export.ExportError(f"--to {options.to} is no directory")
    try:
        options.to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise export.ExportError(f"--to {options.to} can't be made ({error.strerror})") from error
    config = load(options.config)
    roots = ImageRoots(config.root_map, data.root)
    exporter = export.Exporter(config.nexus, options.format, force=options.force, root_map=roots)

    try:
        done = export.export([export.of_journal(row) for row in rows], options.to, exporter, export.progress_bar)
    except KeyboardInterrupt:
        return _interrupted()
    for line in done.failures:
        print(line, file=sys.stderr)
    print(f"{options.to}: {done}")
    return 1 if done.failures else 0


def _interrupted() -> int:
    print("interrupted: what is written is complete, and the same command goes on", file=sys.stderr)
    return 130


def _catalog(options: argparse.Namespace) -> int:
    from instrument.config import load
    from instrument.framework import packing, runs
    from instrument.framework.image_roots import ImageRoots

    data, index = _journal(options)
    try:
        if options.action == "unpack":
            from instrument.callbacks.outbox import exclude

            print(packing.unpack(options.directory, data, before=lambda runs: exclude(data.outbox, runs)))
            return 0
        if options.action == "pack":
            index.refresh()
            roots = ImageRoots(load(options.config).root_map, data.root)
            rows = index.rows(runs.query(**_asked(options)))
            packed = packing.pack(rows, options.directory, images=options.images, roots=roots)
            print(packed)
            return 1 if packed.missing else 0
    except KeyboardInterrupt:
        return _interrupted()
    problems = packing.check(index, repair=options.repair)
    print(*problems, f"{index.count()} runs, {len(problems)} problems", sep="\n")
    return 1 if problems else 0


def _ship(options: argparse.Namespace) -> int:
    from instrument import ship
    from instrument.config import load

    config = load(options.config)
    if options.print_service:
        print(ship.service(config), end="")
    elif options.status:
        print(*ship.status(config), sep="\n")
    else:
        return ship.run(config, once=options.once, with_sessions=options.with_sessions)
    return 0


def _tiled(options: argparse.Namespace) -> int:
    from instrument import tiled_cli
    from instrument.config import load

    return tiled_cli.ACTIONS[options.action](load(options.config), options)


def _qserver(options: argparse.Namespace) -> int:
    from instrument import queue_cli
    from instrument.config import load

    return queue_cli.serve(load(options.config), options)


def _queue(options: argparse.Namespace) -> int:
    from instrument import queue_cli
    from instrument.config import load

    return queue_cli.act(load(options.config), options)


COMMANDS = {
    "session": _session,
    "demo": _demo,
    "check": _check,
    "doctor": _doctor,
    "report-bug": _report_bug,
    "new": _new,
    "notebook": _notebook,
    "runs": _runs,
    "export": _export,
    "catalog": _catalog,
    "ship": _ship,
    "tiled": _tiled,
    "qserver": _qserver,
    "queue": _queue,
}
FOR_BROKEN_ONES = {"doctor", "report-bug"}  # they do with whatever is installed


if __name__ == "__main__":
    sys.exit(main())
