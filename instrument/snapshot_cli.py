"""`bluesky_snapshot`: record what PVs have now, show it later, compare, set it again.

It needs no session, and starts no beamline: PVs are looked for as any EPICS tool does it, through the environment.
Runs go to the same journal as those of sessions, beside one that is running, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from instrument.callbacks.shipping import ShippedConsumer
    from instrument.config import Config
    from instrument.framework.engine import RunEngine
    from instrument.framework.index import RunIndex
    from instrument.framework.runfiles import DataDirectory
    from instrument.framework.snapshots import Snapshot, Snapshots

USAGE = """\
bluesky_snapshot [-h] [-b BROKER_CONFIG] [-m METADATA]
                        EPICS_PV [EPICS_PV ...]
       bluesky_snapshot --show [RUN] | --list [N] | --diff RUN [RUN]
       bluesky_snapshot --restore RUN [--write] | --undo [RUN] [--dry-run]\
"""
EPILOG = """\
EPICS_PV may be @FILE: names of PVs in a file, in any number of lines, with # comments.
RUN is -1 for the last snapshot, -2 for the one before, a scan number, or the beginning of a uid.
--diff compares with what is set now, unless a second RUN is given.
--restore prints what would be set; with --write it sets it, and --undo sets back what was set before.
BROKER_CONFIG is the name of a catalog in bluesky_class.yml; without it, the one that iconfig.yml names.
Exit code: 0 if all went well, 1 if something was not read or not set, 2 if what was asked for is wrong.
"""
DELIVERY = 10.0  # s; how long a database is waited for


class _Parser(argparse.ArgumentParser):
    """argparse, with one line for a mistake."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help tells more\n")


def parser() -> argparse.ArgumentParser:
    """The command line; what the reference has looks as it does there."""
    made = _Parser(
        prog="bluesky_snapshot",
        usage=USAGE,
        description="record a snapshot of some PVs using Bluesky, ophyd, and databroker",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("EPICS_PV", nargs="*", help="EPICS PV name")
    made.add_argument("-b", dest="catalog", metavar="BROKER_CONFIG", help="YAML configuration for databroker")
    made.add_argument(
        "-m",
        dest="metadata",
        metavar="METADATA",
        help='additional metadata, enclose in quotes, such as -m "purpose=just tuned, situation=routine"',
    )
    made.add_argument("--timeout", type=_seconds, default=3.0, metavar="S", help="wait for PVs so long (s, default: 3)")
    made.add_argument("--show", nargs="?", const="-1", metavar="RUN", help="print the report of a snapshot again")
    made.add_argument("--list", nargs="?", const="20", metavar="N", help="list the last snapshots (default: 20)")
    made.add_argument("--diff", nargs="+", metavar=("A", "B"), help="print what differs, from now or another snapshot")
    made.add_argument(
        "--tolerance", type=_not_negative, default=0.0, metavar="X", help="numbers no further apart are the same"
    )
    made.add_argument("--relative", type=_not_negative, default=0.0, metavar="X", help="... as a fraction of the value")
    made.add_argument("--restore", metavar="RUN", help="set what a snapshot has: the table of it, without --write")
    made.add_argument("--write", action="store_true", help="set it")
    made.add_argument("--undo", nargs="?", const="-1", metavar="RUN", help="set back what was set before a restore")
    made.add_argument("--dry-run", action="store_true", help="print what --undo would set, and set nothing")
    made.add_argument("--html", metavar="FILE", help="write the report as a page for a browser, too")
    output = made.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print JSON instead of the report")
    output.add_argument("--quiet", "-q", action="store_true", help="print nothing but the uid")
    made.add_argument(
        "--config", metavar="FILE", help="iconfig.yml (default: $INSTRUMENT_CONFIG, else the one here, else our own)"
    )
    return made


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give seconds, more than 0")
    return value


def _not_negative(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no tolerance: give a number, 0 or more")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The command line without the program's name; the process's own by default.

    Returns:
        The exit code; see `EPILOG`.
    """
    options = parser().parse_args(arguments)
    from instrument.config.errors import UserError  # brings pydantic along, which `--help` need not wait for

    try:
        return _chosen(options)
    except UserError as error:
        _tell(str(error))
        return 2
    except KeyboardInterrupt:
        _tell("interrupted")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it at its end
        return 1


def run() -> NoReturn:
    """The program: `main`, and the end of the process, which does not wait for an IOC that hangs.

    (libca waits half a minute for one, in an exit function. All files are closed by now.)
    """
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


# What is asked for instead of recording, and the options that each takes beside --config and -b.
KINDS = {
    "show": ("html", "json", "quiet"),
    "list": ("json", "quiet"),
    "diff": ("json", "timeout", "tolerance", "relative"),
    "restore": ("write", "timeout", "tolerance", "relative"),
    "undo": ("dry_run", "timeout"),
    "": ("metadata", "html", "json", "quiet", "timeout"),
}


def _chosen(options: argparse.Namespace) -> int:
    from instrument.config.errors import UserError

    wanted = [name for name in KINDS if name and getattr(options, name) is not None]
    if len(wanted) > 1:
        raise UserError(f"--{wanted[0]} and --{wanted[1]} are two things: ask for one at a time")
    kind = wanted[0] if wanted else ""
    if kind and options.EPICS_PV:
        raise UserError(f"--{kind} takes no PVs, and {options.EPICS_PV[0]} would be recorded without it")
    for name in {name for names in KINDS.values() for name in names} - set(KINDS[kind]):
        if getattr(options, name) != parser().get_default(name):
            option = "-m" if name == "metadata" else f"--{name.replace('_', '-')}"
            raise UserError(f"{option} says nothing {f'to --{kind}' if kind else 'to a snapshot'}: leave it out")
    return {"": _take, "show": _show, "list": _list, "diff": _diff, "restore": _restore, "undo": _undo}[kind](options)


# --- recording -----------------------------------------------------------------------------------------------------


def _take(options: argparse.Namespace) -> int:
    """Record a snapshot and report it."""
    from instrument.config.errors import UserError

    names = pv_names(options.EPICS_PV)
    if not names:
        raise UserError('no PV is given: name some, as in bluesky_snapshot gp:m1 gp:m2 -m "purpose=just tuned"')
    metadata = parse_metadata(options.metadata) if options.metadata is not None else {}
    open_channel_access()

    from instrument.devices.pvs import PvList

    pvs = PvList(names, timeout=options.timeout)
    pvs.connect()  # goes on while the rest is imported
    from instrument.framework.engine import RunInterruptedError
    from instrument.framework.snapshots import Collector
    from instrument.plans.snapshot import snapshot

    collector = Collector()
    try:
        with recording(_config(options)) as engine:
            engine.subscribe(collector.take)
            engine(snapshot(pvs, report=False, md=metadata))
    except RunInterruptedError as error:
        raise KeyboardInterrupt from error
    _print(collector.snapshot, options)
    for name, why in pvs.unreachable.items():
        _tell(f"{name} is not in the snapshot: {why}")
    return 1 if pvs.unreachable else 0


def pv_names(given: Sequence[str]) -> list[str]:
    """Names of PVs, those in `@FILE`s included, in the order given.

    Raises:
        UserError: A file can't be read, or a PV is given twice.
    """
    from instrument.config.errors import UserError

    places: dict[str, str] = {}
    for name, place in _with_files(given):
        if name in places:
            where = "".join(f" ({place})" for place in dict.fromkeys((places[name], place)) if place)
            raise UserError(f"{name} is given twice{where}: give each PV once")
        places[name] = place
    return list(places)


def _with_files(given: Sequence[str]) -> Iterator[tuple[str, str]]:
    from instrument.config.errors import UserError

    for word in given:
        if not word.startswith("@"):
            if not word.strip():
                raise UserError("a PV without a name is given: leave out the empty quotes")
            yield word, ""
            continue
        path = Path(word[1:])
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"the list of PVs {path or word} can't be read ({getattr(error, 'strerror', None) or 'it is no text'})"
            ) from error
        found = [(name, f"{path}:{n}") for n, line in enumerate(lines, 1) for name in line.partition("#")[0].split()]
        if not found:
            raise UserError(f"the list of PVs {path} names none: write one or more in a line")
        yield from found


def parse_metadata(text: str) -> dict[str, str]:
    """`key=value, key=value` as a dictionary of texts.

    Raises:
        UserError: Some of it is no pair, a key is given twice, or is one that a run sets itself.
    """
    from instrument.config.errors import UserError
    from instrument.framework.snapshots import OF_EVERY_SNAPSHOT

    found: dict[str, str] = {}
    for pair in text.split(","):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not key:
            raise UserError(
                f'-m "{text}": {pair.strip()!r} is no key=value; write -m "key=value, key=value", '
                "and no comma in a value"
            )
        if key in found:
            raise UserError(f'-m "{text}": {key} is given twice')
        if key in OF_EVERY_SNAPSHOT:
            raise UserError(f'-m "{text}": {key} is set by the run itself: choose another key')
        found[key] = value
    return found


def open_channel_access() -> None:
    """Look for PVs at the virtual beamline that $VIRTUAL_BEAMLINE names; without one, as the environment says."""
    if named := os.environ.get("VIRTUAL_BEAMLINE"):
        _find_beamline(named)
    from instrument.devices.pvs import attach
    from instrument.framework.channel_access import silence_libca

    attach()
    silence_libca()  # again, where ophyd made the context


def _find_beamline(named: str) -> None:
    from virtual_beamline import supervisor

    beamline = next((beamline for beamline in supervisor.running() if beamline.id == named), None)
    if beamline is None:
        _tell(
            f"no virtual beamline {named} is running ($VIRTUAL_BEAMLINE names it): "
            'eval "$(virtual-beamline start)" starts one'
        )
    else:
        beamline.environment.apply()


@contextlib.contextmanager
def recording(config: Config) -> Iterator[RunEngine]:
    """A RunEngine whose runs are kept as those of a session are: state, journal, index, and what is shipped to.

    Raises:
        UserError: The data directory can't be written.
    """
    from instrument.callbacks.journal import Journal, validate_metadata
    from instrument.callbacks.outbox import Outbox
    from instrument.callbacks.shipped import consumers_of
    from instrument.framework.engine import RunEngine
    from instrument.framework.index import RunIndex
    from instrument.framework.metadata import session_metadata
    from instrument.framework.runfiles import DataDirectory
    from instrument.framework.state import StateFile

    library = logging.getLogger("bluesky")  # prints the traceback of an error that is told in one line
    library.addHandler(logging.NullHandler())
    library.propagate = False
    files = DataDirectory(Path.cwd() / config.directories.data)
    consumers = consumers_of(config)
    with contextlib.ExitStack() as closing:
        index = RunIndex(files.index, files.runs)
        closing.callback(index.close)
        state = StateFile(
            files.state,
            explicit=session_metadata(config.catalog, config.metadata.model_dump()),
            last_scan_id=index.last_scan_id,
            quiet_about_others=True,
        )
        closing.callback(state.close)
        for line in state.messages:
            _tell(line)
        if consumers:
            closing.enter_context(_shipped(files, index, consumers))
        outbox = Outbox(files.runs, files.outbox, _tell, index=index)
        closing.callback(outbox.close)
        journal = Journal(files.runs, index=index, fsync_interval=config.journal.fsync_interval)
        closing.callback(journal.close)
        engine = RunEngine(
            state,
            journal=journal,
            delivery=outbox,
            scan_id_source=state.next_scan_id,
            md_validator=validate_metadata,
        )
        try:
            yield engine
        finally:
            if engine.state == "paused":  # by Ctrl-\, and there is no prompt to resume at
                engine.abort("Ctrl-\\")


@contextlib.contextmanager
def _shipped(files: DataDirectory, index: RunIndex, consumers: list[ShippedConsumer]) -> Iterator[None]:
    """Deliver what is recorded meanwhile to databases and servers, unless another process does."""
    from instrument.callbacks.shipping import Marks, Shipper
    from instrument.framework.presence import SoleOwner

    marks = Marks(files.ship)
    marks.register([consumer.name for consumer in consumers], index)
    marks.close()
    yield
    lock = SoleOwner(files.ship_lock)
    if lock.take() is not None:  # who ships the runs of sessions ships this one, too
        return
    try:
        shipper = Shipper(files, consumers, _tell, live=False)
        shipper.start()
        if not shipper.finish(DELIVERY):
            _tell("it is safe in the journal; `instrument ship`, or the next session with this catalog, delivers it")
        shipper.close()
    finally:
        lock.leave()


def _tell(line: str) -> None:
    print(f"bluesky_snapshot: {line}", file=sys.stderr)


# --- setting again -------------------------------------------------------------------------------------------------


def _restore(options: argparse.Namespace) -> int:
    """Set what a snapshot has, or print what would be set."""
    from instrument.plans.snapshot_restore import snapshot_restore

    words = ["bluesky_snapshot --restore {}", *_words(options, ("tolerance", "relative")), "--write"]
    return _set_again(
        snapshot_restore,
        options,
        which=options.restore,
        dry_run=not options.write,
        tolerance=options.tolerance,
        relative=options.relative,
        commands=(" ".join(words), "bluesky_snapshot --undo"),
    )


def _undo(options: argparse.Namespace) -> int:
    """Set back what was set before a restore."""
    from instrument.plans.snapshot_restore import snapshot_undo

    return _set_again(
        snapshot_undo,
        options,
        which=options.undo,
        dry_run=options.dry_run,
        commands=("bluesky_snapshot --undo {}", "bluesky_snapshot --undo"),
    )


def _set_again(plan: Any, options: argparse.Namespace, **arguments: Any) -> int:
    from instrument.framework.engine import RunInterruptedError
    from instrument.plans.snapshot_restore import RestoreError

    open_channel_access()
    with _recorded(options) as snapshots, recording(_config(options)) as engine:
        try:
            engine(plan(**arguments, timeout=options.timeout, snapshots=snapshots))
        except RestoreError as error:
            _tell(str(error))
            return 1
        except RunInterruptedError:
            _tell("interrupted: motors are told to stop; the lines above say what was set and what was not")
            return 1
    return 0


def _words(options: argparse.Namespace, names: Sequence[str]) -> list[str]:
    """Options as they were typed, those that differ from the default."""
    given = {name: getattr(options, name) for name in names}
    return [f"--{name} {value:g}" for name, value in given.items() if value != parser().get_default(name)]


# --- showing -------------------------------------------------------------------------------------------------------


def _show(options: argparse.Namespace) -> int:
    """Print the report of a snapshot that was recorded."""
    with _recorded(options) as snapshots:
        _print(snapshots.find(options.show), options)
    return 0


def _diff(options: argparse.Namespace) -> int:
    """Print what differs between two snapshots, or a snapshot and now."""
    from instrument.config.errors import UserError
    from instrument.framework.comparison import Tolerance, compare

    if len(options.diff) > 2:
        raise UserError(f"--diff {' '.join(options.diff)}: two snapshots can be compared, not {len(options.diff)}")
    within = Tolerance(options.tolerance, options.relative)
    a, b = [*options.diff, "now"][:2]
    with _recorded(options) as snapshots:
        before = snapshots.find(a)
        if b == "now":
            open_channel_access()
            from instrument.devices.present import present

            after = present(before, timeout=options.timeout)
        else:
            after = snapshots.find(b)
    found = compare(before, after, within)
    if options.json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        print(*found.lines(), sep="\n")
    return 1 if found.unread else 0


def _list(options: argparse.Namespace) -> int:
    """Print a table of the last snapshots."""
    from instrument.config.errors import UserError

    if not options.list.isdecimal() or int(options.list) < 1:
        raise UserError(f"--list {options.list}: how many snapshots to list is a whole number, 1 or more")
    with _recorded(options) as snapshots:
        found = snapshots.newest(int(options.list))
    if options.json:
        from instrument.framework.snapshots import jsonable

        print(json.dumps([jsonable(start) for start in found], indent=2))
    elif options.quiet:
        print(*(start["uid"] for start in found), sep="\n")
    else:
        from instrument.framework.snapshots import listing

        print(listing(found).reST(fmt="simple"), end="")
    return 0


def _print(snapshot: Snapshot, options: argparse.Namespace) -> None:
    """The report, or what of it is asked for."""
    from instrument.callbacks.snapshot_report import print_report

    if options.html is not None:
        from instrument.callbacks.snapshot_page import write_page

        write_page(snapshot, Path(options.html), _run_file(snapshot, options))
    if options.json:
        print(json.dumps(snapshot.as_json(), indent=2))
    elif options.quiet:
        print(snapshot.uid)
    else:
        print_report(snapshot)


def _run_file(snapshot: Snapshot, options: argparse.Namespace) -> Path | None:
    """The file of a snapshot's run, if it is in the journal of the working directory."""
    from instrument.framework.runfiles import DataDirectory, find_run

    return find_run(DataDirectory(Path.cwd() / _config(options).directories.data).runs, snapshot.uid)


@contextlib.contextmanager
def _recorded(options: argparse.Namespace) -> Iterator[Snapshots]:
    """The snapshots of the journal in the working directory, or of the catalog that `-b` names."""
    from instrument.framework.catalog import EMBEDDED, open_catalog
    from instrument.framework.index import RunIndex
    from instrument.framework.runfiles import DataDirectory
    from instrument.framework.snapshots import CatalogSnapshots, JournalSnapshots

    config = _config(options)
    if options.catalog is not None and config.catalog != EMBEDDED:
        catalog, _ = open_catalog(config)
        yield CatalogSnapshots(catalog)
        return
    data = DataDirectory(Path.cwd() / config.directories.data)
    index = RunIndex(data.index if data.root.is_dir() else None, data.runs)
    try:
        yield JournalSnapshots(index)
    finally:
        index.close()


def _config(options: argparse.Namespace) -> Config:
    """The configuration, with the catalog that `-b` names."""
    from instrument.config import load
    from instrument.config.errors import UserError, nearest

    config = load(options.config)
    if options.catalog is None:
        return config
    from instrument.framework.catalog import catalog_names

    known = catalog_names(config)
    if options.catalog not in known:
        near = nearest(options.catalog, known)
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(known)}"
        raise UserError(f"-b {options.catalog}: {config.catalog_file} has no such catalog; {hint}")
    return config.model_copy(update={"catalog": options.catalog})


if __name__ == "__main__":
    run()
