"""`instrument ship` beside a journal of ten years: what it costs when nothing happens, and how late an event comes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import psutil

from benchmarks.catalog_runs import metadata, record
from benchmarks.harness import ROOT, Benchmark, Figure, MeasurementError, environment, median, scratch
from instrument.callbacks.journal import Journal
from instrument.framework.index import RunIndex
from instrument.framework.runfiles import DataDirectory

MONTHS = 120
IDLE = 10.0  # s that it is watched in each round
EVENTS, INTERVAL = 30, 0.1  # of a run that goes on, s
BACKLOG, POINTS = 200, 100  # runs that wait for it, and their length
DEADLINE = 60.0


class Arrivals:
    """A consumer that writes down when each event came: the benchmark's own, in the shipping process."""

    name = "arrivals"

    def __init__(self, file: str) -> None:
        self._file = Path(file)

    def begin(self, start: dict) -> Arrivals:
        """Take whatever comes."""
        return self

    def take(self, documents: list[tuple[str, dict]]) -> str | None:
        """Write down the time for each document that has one."""
        now = time.time()
        with self._file.open("a") as file:
            file.writelines(f"{name} {now - document['time']}\n" for name, document in documents)
        return None


def _arrived(file: Path, name: str) -> list[float]:
    if not file.exists():
        return []
    lines = (line.split() for line in file.read_text().splitlines())
    return [float(late) for kind, late in lines if kind == name]


def _wait(file: Path, name: str, number: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while len(_arrived(file, name)) < number:
        if time.monotonic() > deadline:
            raise MeasurementError(f"{len(_arrived(file, name))} of {number} {name} documents came in {DEADLINE:g} s")
        time.sleep(0.02)


def measure(rounds: int | None) -> Iterator[Figure]:
    """The budgets of the shipping process."""
    with scratch() as directory:
        arrivals = directory / "arrivals"
        (directory / "iconfig.yml").write_text(
            f"devices: [{ROOT / 'instrument/config/devices.yml'}]\n"
            f"ship: {{consumers: {{benchmarks.ship.Arrivals: {{file: {arrivals}}}}}}}\n"
        )
        data = DataDirectory(directory / ".data")
        index = RunIndex(data.index, data.runs)
        journal = Journal(data.runs, index=index)
        for month in range(MONTHS):
            when = datetime(2016 + month // 12, month % 12 + 1, 15).timestamp()
            record(journal, metadata(month), when, 2)
        process = subprocess.Popen(
            [sys.executable, "-m", "instrument.cli", "ship", "--config", "iconfig.yml"],
            cwd=directory,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            if not process.stdout.readline().startswith("shipping"):
                raise MeasurementError("instrument ship did not start")
            idle = [_idle(process.pid) for _ in range(rounds or 2)]
            late = [_latest(journal, arrivals) for _ in range(rounds or 2)]
            rate = _backlog(process, journal, arrivals)
        finally:
            process.terminate()
            process.wait()
            journal.close()
            index.close()
    yield Figure("ship: idle, of one core", 100 * median(idle), 0.5, "%", note=f"{MONTHS} months of runs")
    note = f"the last of {EVENTS} events, one every {INTERVAL} s; {rate:.0f} runs of {POINTS} points per second behind"
    yield Figure("ship: an event reaches a consumer within", median(late), 1.0, "s", note=note)


def _idle(pid: int) -> float:
    """The share of a core that it takes."""
    process = psutil.Process(pid)
    began, before = time.monotonic(), process.cpu_times()
    time.sleep(IDLE)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / (time.monotonic() - began)


def _latest(journal: Journal, arrivals: Path) -> float:
    """How late the latest event of a run that goes on comes (s)."""
    arrivals.unlink(missing_ok=True)
    now = time.time()
    uid = f"run {now}"
    keys = {"x": {"dtype": "number", "shape": [], "source": "benchmark"}}
    journal("start", {"uid": uid, "time": now, **metadata(0)})
    journal("descriptor", {"uid": f"{uid} d", "run_start": uid, "time": now, "name": "primary", "data_keys": keys})
    for number in range(EVENTS):
        event = {"uid": f"{uid} {number}", "descriptor": f"{uid} d", "time": time.time(), "seq_num": number + 1}
        journal("event", {**event, "data": {"x": 0.5}, "timestamps": {"x": now}})
        time.sleep(INTERVAL)
    _wait(arrivals, "event", EVENTS)
    journal("stop", {"uid": f"{uid} s", "run_start": uid, "time": time.time(), "exit_status": "success"})
    _wait(arrivals, "stop", 1)
    return max(_arrived(arrivals, "event"))


def _backlog(process: subprocess.Popen, journal: Journal, arrivals: Path) -> float:
    """How many runs per second it delivers to a consumer that costs nothing."""
    arrivals.unlink(missing_ok=True)
    process.send_signal(signal.SIGSTOP)
    for number in range(BACKLOG):
        record(journal, metadata(number), time.time(), POINTS)
    began = time.monotonic()
    process.send_signal(signal.SIGCONT)
    _wait(arrivals, "stop", BACKLOG)
    return BACKLOG / (time.monotonic() - began)


BENCHMARK = Benchmark("ship", "the shipping process: what it costs, and how late it is", measure)
