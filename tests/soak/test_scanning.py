"""Ten minutes of scanning at 10 points a second: neither the IOC's memory grows nor the session's.

INSTRUMENT_SOAK_SECONDS makes it shorter or longer. The session runs in a process of its own, as a script would have
it: real devices, table and plot, journal, SPEC file, and a look into the catalog after each run.
"""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.soak

DURATION = float(os.environ.get("INSTRUMENT_SOAK_SECONDS", "600"))  # s
DEADLINE = DURATION + 180  # s: start, the last run, the end
RATE = 10.0  # points per second
POINTS = 50  # per run
HUNG = 60.0  # s without a run: the session tells where its threads are, and ends
SETTLING = 0.4  # share of the time that caches have to fill: the catalog keeps 16 runs, the plot 8
LONG_ENOUGH = 300.0  # s; what is shorter tries the test out, and can't tell a leak from a cache
STEP = 1.0  # s between two looks at the memory
FLAT = 0.5  # MB per minute; a leak of 1 kB per point is 0.6
MB = 1e6

SESSION = """
import faulthandler, json, os, sys, time

import matplotlib
matplotlib.use("Agg")
from instrument.session import Session

duration, rate, points, hung = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
with Session() as session:
    bp, bps = session.bp, session.bps
    m1, noisy = session.devices["m1"], session.devices["noisy"]

    def say(**figures):
        print(json.dumps(figures), file=sys.__stderr__, flush=True)

    def paced(detectors, step, pos_cache):
        global due
        yield from bps.one_nd_step(detectors, step, pos_cache)
        due = max(due + 1 / rate, time.monotonic() - 1 / rate)
        yield from bps.sleep(max(0.0, due - time.monotonic()))

    say(session=os.getpid(), ioc=session.beamline.pid)
    began = due = time.monotonic()
    runs, edge = 0, 0.25
    while time.monotonic() - began < duration:
        faulthandler.dump_traceback_later(hung, exit=True, file=sys.__stderr__)
        (uid,) = session.RE(bp.scan([noisy], m1, -edge, edge, points, per_step=paced))
        edge = -edge
        run = session.cat[-1]
        session.bec.draw(force=True)
        read = run.primary.read()
        assert run.metadata["start"]["uid"] == uid and len(read["noisy"]) == points
        runs += 1
        say(runs=runs, took=time.monotonic() - began)
    faulthandler.dump_traceback_later(2 * hung, exit=True, file=sys.__stderr__)
    assert session.wait_for_files(60)
    text = open(session.specwriter.spec_filename).read()
    say(spec=text.count("#S "), journal=len(list(session.files.runs.glob("*/*/*.msgpack"))))
"""


class Scanning:
    """The process that scans, and the last of what it said on standard error."""

    def __init__(self, directory: Path) -> None:
        self.said: dict[str, float] = {}
        self.rest: list[str] = []
        self.news = threading.Condition()
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("EPICS_", "VIRTUAL_"))}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SESSION, str(DURATION), str(RATE), str(POINTS), str(HUNG)],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=(directory / "table.txt").open("w"),
            stderr=subprocess.PIPE,
            text=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            with self.news:
                try:
                    self.said |= json.loads(line)
                except ValueError:
                    self.rest.append(line)
                self.news.notify_all()
        with self.news:
            self.news.notify_all()

    def wait_for(self, key: str, timeout: float) -> None:
        with self.news:
            heard = self.news.wait_for(lambda: key in self.said or not self.reader.is_alive(), timeout)
        assert heard, f"nothing was said of {key!r} in {timeout:g} s"
        assert key in self.said, f"the session ended: {''.join(self.rest)[-6000:]}"


@pytest.fixture
def scanning(tmp_path):
    scanning = Scanning(tmp_path)
    yield scanning
    if scanning.process.poll() is None:
        scanning.process.kill()
    scanning.process.wait()
    scanning.reader.join(10)


def slope(times: list[float], values: list[float]) -> float:
    """The median of the slopes between the halves (Theil and Sen), which single jumps do not move."""
    half = len(times) // 2
    pairs = zip(times[:half], times[half : 2 * half], values[:half], values[half : 2 * half], strict=True)
    return statistics.median((later - earlier) / (end - begin) for begin, end, earlier, later in pairs)


@pytest.mark.timeout(DEADLINE + 120)
def test_the_memory_of_ioc_and_session_stays_flat_in_ten_minutes_at_ten_points_a_second(scanning):
    deadline = time.monotonic() + DEADLINE
    scanning.wait_for("runs", 120)
    processes = {name: psutil.Process(int(scanning.said[name])) for name in ("ioc", "session")}
    times: list[float] = []
    memory: dict[str, list[float]] = {name: [] for name in processes}
    began = time.monotonic()
    while "spec" not in scanning.said and scanning.process.poll() is None:
        assert time.monotonic() < deadline, f"the session did not end: {scanning.said}"
        times.append(time.monotonic() - began)
        for name, process in processes.items():
            try:
                memory[name].append(process.memory_info().rss / MB)
            except psutil.NoSuchProcess:  # both end at the end
                memory[name].append(memory[name][-1])
        with scanning.news:
            scanning.news.wait_for(lambda: "spec" in scanning.said or not scanning.reader.is_alive(), STEP)
    scanning.wait_for("spec", 10)
    assert scanning.process.wait(max(1.0, deadline - time.monotonic())) == 0, "".join(scanning.rest)[-6000:]

    runs, rate = int(scanning.said["runs"]), scanning.said["runs"] * POINTS / scanning.said["took"]
    first = next(number for number, when in enumerate(times) if when >= SETTLING * times[-1])
    growth = {name: 60 * slope(times[first:], values[first:]) for name, values in memory.items()}
    for name, values in memory.items():
        print(f"{name}: {values[first]:.1f} MB, then {values[-2]:.1f} MB: {growth[name]:+.2f} MB/min")
    print(f"{runs} runs, {rate:.1f} points/s")
    assert scanning.said["spec"] == scanning.said["journal"] == runs
    assert rate > 0.9 * RATE, "that was no scanning at 10 points a second"
    if DURATION < LONG_ENOUGH:
        pytest.skip(f"{DURATION:g} s are too short to tell whether memory grows: {growth}")
    assert all(value < FLAT for value in growth.values()), growth
