"""`instrument tiled ...`: what the shell's commands do with the configuration and their options."""

from __future__ import annotations

import argparse
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from instrument.config import Config
from instrument.config.errors import UserError
from instrument.framework.runfiles import DataDirectory, Document, RunFile
from instrument.tiled.connection import Server, catalog_of
from instrument.tiled.places import TiledDirectory

if TYPE_CHECKING:
    from instrument.framework.index import Row
    from instrument.tiled.writing import TiledConsumer

_WORKERS = 3  # the server is busy with one run while the others are read, packed and sent
_BATCH = 2000  # documents that are sent together


def serve(config: Config, options: argparse.Namespace) -> int:
    """`instrument tiled serve`."""
    from instrument.tiled import server

    began = time.monotonic()
    wanted = config.tiled
    if options.embedded_postgres and wanted.database:
        raise UserError(
            f"--embedded-postgres, but {config.file} names {wanted.database} (tiled: database:): choose one"
        )
    data = _data(config)
    readable = [data.root, *(Path.cwd() / path for path in (*wanted.readable, *(options.readable or ())))]
    settings = server.Settings(
        TiledDirectory(data.tiled),
        [catalog_of(config)],
        database=wanted.database,
        embedded=options.embedded_postgres,
        host=options.host or wanted.host,
        port=wanted.port if options.port is None else options.port,
        public_read=wanted.public_read if options.public_read is None else options.public_read,
        readable=readable,
    )
    return server.serve(settings, began=began)


def backfill(config: Config, options: argparse.Namespace) -> int:
    """`instrument tiled backfill`: what the journal has and the server has not. Doing it again does the rest."""
    from instrument.framework import runs
    from instrument.framework.index import RunIndex
    from instrument.tiled.writing import TiledConsumer

    data = _data(config)
    index = RunIndex(data.index if data.root.is_dir() else None, data.runs)
    index.refresh()
    asked = {name: getattr(options, name) for name in ("since", "until", "plan", "text")}
    found = list(reversed(index.rows(runs.query(**asked))))
    server, catalog = Server.of(config), catalog_of(config)
    first = TiledConsumer(server, catalog)
    there = first.there()
    shipped = _being_shipped(data)
    complete = [row for row in found if row.stop is not None and row.uid not in shipped]
    missing = [row for row in complete if not there.get(row.uid)]
    print(
        f"{catalog} at {server.address()}: {len(complete) - len(missing)} of {len(found)} runs are there, "
        f"{len(missing)} are sent"
        + (f", {len(shipped)} are `instrument ship`'s" if shipped else "")
        + (f", {left} are not complete" if (left := sum(row.stop is None for row in found)) else "")
    )
    began = time.monotonic()
    consumers = [first, *(TiledConsumer(server, catalog) for _ in range(min(_WORKERS, len(missing)) - 1))]
    failures = _send_all(consumers, missing, there)
    for row, error in failures[:10]:
        print(f"run {row.start.get('scan_id', '?')} ({row.uid[:8]}): {_one_line(error)}", file=sys.stderr)
    took = time.monotonic() - began
    sent = len(missing) - len(failures)
    print(f"{sent} runs in {took:.1f} s ({sent / max(took, 1e-9):.1f} runs/s), {len(failures)} failed")
    told = _tell_of_nexus_files(config, complete, {row.uid for row, _ in failures})
    if told:
        print(f"the server was told of {told} NeXus files")
    return 1 if failures else 0


def _tell_of_nexus_files(config: Config, runs: Iterable[Row], failed: set[str]) -> int:
    """Tell the server of the NeXus files that it does not know. Returns how many."""
    from instrument.callbacks.nexus import NexusWriter
    from instrument.callbacks.outbox import outcomes
    from instrument.tiled.nexus import NexusFiles

    written = outcomes(_data(config).outbox, NexusWriter.name)
    paths = {row.uid: written[row.uid][1] for row in runs if row.uid in written and row.uid not in failed}
    paths = {uid: path for uid, path in paths.items() if path and Path(path).exists()}
    newest = {path: uid for uid, path in paths.items()}  # a file of a chosen name is that of the last run
    if not newest:
        return 0
    files = NexusFiles(Server.of(config), catalog_of(config))
    there = files.there()
    missing = {uid: path for path, uid in newest.items() if there.get(uid) != path}
    for uid, path in missing.items():
        files.add(uid, Path(path))
    files.close()
    return len(missing)


def export(config: Config, options: argparse.Namespace) -> int:
    """`instrument tiled export`: the server's runs as a journal, the documents as they were recorded."""
    from instrument import tiled_client
    from instrument.tiled.export import export as exporting

    wanted = {name: getattr(options, name) for name in ("since", "until", "plan", "text")}
    server = Server(None, options.url) if options.url else Server.of(config)
    catalog = tiled_client.connect(
        server.address(), catalog=options.catalog or catalog_of(config), api_key=server.key(write=False)
    )
    uids = catalog.runs(**wanted).uids()
    outcomes: dict[str, int] = {"written": 0, "there": 0}
    failed = 0
    from tqdm import tqdm

    for uid, outcome in tqdm(
        exporting(server, catalog.name, uids, DataDirectory(options.directory).runs),
        total=len(uids),
        unit=" runs",
        desc="export",
        disable=None,
    ):
        if outcome in outcomes:
            outcomes[outcome] += 1
        else:
            failed += 1
            print(f"run {uid[:8]}: {outcome}", file=sys.stderr)
    print(f"{outcomes['written']} runs to {options.directory}, {outcomes['there']} were there, {failed} failed")
    return 1 if failed else 0


def _send_all(
    consumers: Iterable[TiledConsumer], missing: list[Row], there: dict[str, bool]
) -> list[tuple[Row, Exception]]:
    """Send runs by several connections at once, with a progress bar; those that could not be sent, and why."""
    from tqdm import tqdm

    jobs: queue.SimpleQueue[Row] = queue.SimpleQueue()
    for row in missing:
        jobs.put(row)
    failures: list[tuple[Row, Exception]] = []
    stop = threading.Event()

    def work(consumer: TiledConsumer) -> None:
        while not stop.is_set():
            try:
                row = jobs.get_nowait()
            except queue.Empty:
                break
            try:
                send(consumer, row.path, new=row.uid not in there)
            except Exception as error:  # the next run may be taken
                failures.append((row, error))
                if getattr(error, "transient", False):
                    stop.set()
            bar.update()
        consumer.close()

    with tqdm(total=len(missing), unit=" runs", desc="backfill", disable=None) as bar:
        workers = [threading.Thread(target=work, args=(consumer,), daemon=True) for consumer in consumers]
        for worker in workers:
            worker.start()
        try:
            while any(worker.is_alive() for worker in workers):
                for worker in workers:
                    worker.join(0.1)
        except KeyboardInterrupt:
            stop.set()
            print("\nwhat was sent is there; the same command sends the rest", file=sys.stderr)
            raise UserError("interrupted") from None
    while stop.is_set() and not jobs.empty():
        failures.append((jobs.get_nowait(), failures[0][1]))
    return failures


def send(consumer: TiledConsumer, path: Path, *, new: bool) -> bool:
    """Send one complete run; what is there of it, incomplete, is replaced.

    Args:
        consumer: Where to.
        path: The journal's file.
        new: Known not to be there at all.

    Returns:
        Whether it was not there yet.
    """
    documents = iter(RunFile(path))
    start = next(documents)
    run = consumer.begin_new() if new else consumer.begin(start[1])
    if run is None:
        return False
    batch = [start]
    while batch:
        batch += _batch(documents)
        run.take(batch)
        batch = _batch(documents)
    return True


def _batch(documents: Iterator[tuple[str, Document]]) -> list[tuple[str, Document]]:
    return list(islice(documents, _BATCH))


def _being_shipped(data: DataDirectory) -> set[str]:
    """Runs that the shipping process is about to send by itself."""
    from instrument.callbacks.shipping import undelivered
    from instrument.framework.presence import SoleOwner

    if SoleOwner(data.ship_lock).holder() is None:
        return set()
    return undelivered(data.ship, "Tiled")


def _data(config: Config) -> DataDirectory:
    return DataDirectory(Path.cwd() / config.directories.data)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


ACTIONS: dict[str, Callable[[Config, argparse.Namespace], int]] = {
    "serve": serve,
    "backfill": backfill,
    "export": export,
}
