"""Runs over HTTP: the server's start, runs fed and backfilled, and questions to 20,000 runs on both databases.

The 20,000 runs are nodes that are put into the database with what a fed run has in its metadata; their data are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.catalog_runs import INTERVAL, fill, metadata
from benchmarks.harness import Benchmark, Figure, MeasurementError, environment, median, scratch
from instrument import tiled_client
from instrument.framework.index import RunIndex
from instrument.framework.runfiles import DataDirectory, RunFile
from instrument.tiled.connection import CATALOG_SPEC, Server
from instrument.tiled.database import embedded_postgresql, prepare, with_driver
from instrument.tiled.places import TiledDirectory
from instrument.tiled.writing import TiledConsumer, TiledRun

RUNS = int(os.environ.get("BENCHMARK_RUNS", "20000"))
FED, POINTS = 24, 50
CATALOG = "class_2021_03"
QUESTIONS: dict[str, dict[str, Any]] = {
    "plan": {"plan": "grid_scan"},
    "time": {"since": "30 d"},
    "key": {"sample__name": "lysozyme 300"},
    "words": {"text": "ceria"},
    "part of a word": {"like": "lysoz"},
    "several parts": {"like": "LYSOZ part"},
    "regular expression": {"regex": r"^lysozyme \d+0$"},
    "regular expression, one key": {"regex": r"lysozyme \d+0$", "key": "sample.name"},
}
ORM_BATCH = 500
QUESTION = 500  # ms; parts of words are looked for in the text of all 20,000 runs


@contextlib.contextmanager
def serving(root: Path, *arguments: str) -> Iterator[float]:
    """`instrument tiled serve`; how long it took to be ready (s)."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "instrument.cli", "tiled", "serve", "--port", "0", *arguments],
        cwd=root,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    try:
        assert process.stdout is not None
        while not any("web page" in line for line in lines):
            line = process.stdout.readline()
            if not line:
                raise MeasurementError(f"the server did not start: {lines}")
            lines.append(line)
        yield time.perf_counter() - began
    finally:
        process.terminate()
        process.communicate(timeout=60)


def stock_start(root: Path) -> float:
    """The same by Tiled's own command, which makes its database in a process of its own (s)."""
    import requests

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("tiled")), "serve", "catalog", f"stock-{port}.db", "--write", "stock",
         "--init", "--api-key", "secret", "--port", str(port)],
        cwd=root, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while process.poll() is None:
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5).ok:
                    return time.perf_counter() - began
            time.sleep(0.02)
        raise MeasurementError("stock Tiled did not start")
    finally:
        process.terminate()
        process.wait(60)


def put_runs(uri: str, count: int) -> None:
    """A catalog of runs, put into the database of a server that is not running."""
    prepare(uri)
    asyncio.run(_put_runs(uri, count))


async def _put_runs(uri: str, count: int) -> None:
    from sqlalchemy import insert, select
    from sqlalchemy.ext.asyncio import create_async_engine
    from tiled.catalog import orm

    name, version = CATALOG_SPEC
    nodes: Any = orm.Node.__table__
    engine = create_async_engine(with_driver(uri))
    now = time.time()
    async with engine.begin() as connection:
        common: dict[str, Any] = {"structure_family": "container"}
        catalog = {
            "key": CATALOG,
            "parent": 0,
            "metadata": {},
            "specs": [{"name": name, "version": version}],
            **common,
        }
        await connection.execute(insert(nodes).values(**catalog))
        found = await connection.execute(select(orm.Node.id).where(orm.Node.key == CATALOG))
        parent = found.scalar_one()
        for first in range(0, count, ORM_BATCH):
            rows = []
            for number in range(first, min(first + ORM_BATCH, count)):
                when = now - (count - number) * INTERVAL
                uid = f"{number:08x}-0000-4000-8000-{number:012x}"
                start = {"uid": uid, "time": when, **metadata(number)}
                stop = {"uid": uid[::-1], "time": when + 60, "run_start": uid, "exit_status": "success", "reason": "",
                        "num_events": {"primary": 1000}}  # fmt: skip
                rows.append(
                    {"key": uid, "parent": parent, "metadata": {"start": start, "stop": stop},
                     "specs": [{"name": "BlueskyRun", "version": "3.0"}], **common}
                )  # fmt: skip
            await connection.execute(insert(nodes), rows)
        await connection.exec_driver_sql("ANALYZE nodes")  # as PostgreSQL does by itself, some time after
    await engine.dispose()


def feed(root: Path) -> tuple[float, float, float]:
    """Runs fed one after the other, as `instrument ship` does.

    Returns:
        For a run that goes on, in three batches, how long it takes (ms), and how long a further batch takes (ms); for
        a run that is complete when it is looked at, how long it takes (ms).
    """
    data = DataDirectory(root / ".data")
    index = RunIndex(data.index, data.runs)
    growing, complete = (TiledConsumer(Server(TiledDirectory(data.tiled)), name) for name in ("growing", "complete"))
    runs, batches, whole = [], [], []
    for row in index.rows(limit=FED):
        documents = list(RunFile(row.path))
        middle = len(documents) // 2
        began = time.perf_counter()
        run = _begin(growing, row.start)
        run.take(documents[:middle])
        batch = time.perf_counter()
        run.take(documents[middle:-1])
        batches.append(1e3 * (time.perf_counter() - batch))
        run.take(documents[-1:])
        runs.append(1e3 * (time.perf_counter() - began))
        began = time.perf_counter()
        _begin(complete, row.start).take(documents)
        whole.append(1e3 * (time.perf_counter() - began))
    growing.close()
    complete.close()
    index.close()
    return median(runs), median(batches), median(whole)


def _begin(consumer: TiledConsumer, start: dict[str, Any]) -> TiledRun:
    run = consumer.begin(start)
    if run is None:
        raise MeasurementError("a run was there already")
    return run


def backfill(root: Path, runs: int) -> float:
    """Runs per second of `instrument tiled backfill`, by its own account."""
    done = subprocess.run(
        [sys.executable, "-m", "instrument.cli", "tiled", "backfill"],
        cwd=root, env=environment(), capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode or not last.startswith(f"{runs} runs in "):
        raise MeasurementError(f"backfill: {last} {done.stderr[-300:]}")
    return float(last.split("(")[1].split()[0])


def ask(root: Path, rounds: int) -> dict[str, tuple[float, int]]:
    """How long each question takes (ms), with the first page of 20 runs that answer, and how many answer."""
    directory = TiledDirectory(DataDirectory(root / ".data").tiled)
    server = Server(directory)
    cat = tiled_client.connect(server.address(), catalog=CATALOG, api_key=server.key(write=False))
    if len(cat) != RUNS:
        raise MeasurementError(f"{len(cat)} runs instead of {RUNS}")
    found = {}
    for name, question in QUESTIONS.items():
        times, page = [], []
        answer = cat.runs(**question)
        for _ in range(rounds):
            began = time.perf_counter()
            page = list(answer.first(20))
            times.append(1e3 * (time.perf_counter() - began))
        if not page:
            raise MeasurementError(f"{name}: nothing was found")
        found[name] = (median(times), len(answer))
    return found


def measure(rounds: int | None) -> Iterator[Figure]:
    with scratch() as root:
        root.chmod(0o755)  # root's PostgreSQL has a user of its own
        yield from _starts_and_feeding(root / "feeding")
        for database in ("SQLite", "PostgreSQL"):
            yield from _questions(root / database, database, rounds or 3)


def _starts_and_feeding(root: Path) -> Iterator[Figure]:
    root.mkdir(mode=0o755)
    fill(root / ".data", FED, POINTS)
    runs = FED + 24  # what `fill` adds
    with serving(root) as first:
        pass
    stock = stock_start(root)
    with serving(root) as ready:
        fed, batch, whole = feed(root)
        rate = backfill(root, runs)
    yield Figure("tiled: server ready, after the first time", ready, 5, "s", note=f"first {first:.1f} s")
    yield Figure("tiled: server ready / stock Tiled ready", ready / stock, 0.7, "x", note=f"stock {stock:.1f} s")
    note = f"{POINTS} events or 10, three batches; a further batch of half of them takes {batch:.0f} ms"
    yield Figure("tiled: one run fed while it goes on", fed, 1000, "ms", note=note)
    yield Figure("tiled: one complete run fed", whole, 200, "ms")
    yield Figure("tiled: runs backfilled", rate, 5, "/s", at_least=True, note=f"{runs} runs of {POINTS} or 10 events")


def _questions(root: Path, database: str, rounds: int) -> Iterator[Figure]:
    root.mkdir(mode=0o755)
    files = TiledDirectory(DataDirectory(root / ".data").tiled)
    files.make()
    arguments = ["--embedded-postgres"] if database == "PostgreSQL" else []
    if arguments:
        with embedded_postgresql(files.postgresql) as uri:
            put_runs(uri, RUNS)
    else:
        put_runs(f"sqlite:///{files.catalog}", RUNS)
    with serving(root, *arguments):
        found = ask(root, rounds)
    for name, (taken, count) in found.items():
        yield Figure(
            f"tiled: {name}, {database}", taken, QUESTION, "ms", note=f"{count} of {RUNS} runs; the newest 20 of them"
        )


BENCHMARK = Benchmark("tiled", "the Tiled server: start, feeding, backfill, questions to 20,000 runs", measure)
