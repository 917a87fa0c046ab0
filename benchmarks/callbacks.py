"""What the session's callbacks cost a scan: journal, outbox and table, beside the bare RunEngine.

Both sides run `scan` over ophyd.sim's motor and detector in one process that is at a terminal, taking turns. The bare
side is bluesky.RunEngine without a subscriber: its time is that of `RE(plan)`. The other is the session's RunEngine,
with its journal (fsync as in iconfig.yml), outbox (the SPEC writer behind it, on its thread) and `bec` with the plot
off: its time is what the three callables take by the wall clock, summed over all documents of the run, with what
they wait for.

What a NeXus file takes: the processor time of a scan until all its files are written, with the NeXus writer behind the
outbox and without it. Python runs one thread at a time, so this is the most that it can take from the next scan.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import Benchmark, Figure, MeasurementError, median, ratio, scratch, take_turns
from benchmarks.terminal import terminal

POINTS = 1000
PARTS = ("journal", "outbox", "table")


def measure(rounds: int | None) -> Iterator[Figure]:
    with scratch() as directory:
        answer = directory / "answer.json"
        command = [sys.executable, "-m", "benchmarks.callbacks", str(answer), str(rounds or 5)]
        with terminal(command, directory) as scans:
            code = scans.wait_for_end()
            if code:
                raise MeasurementError(f"the scans ended with {code}: {scans.text[-300:]!r}")
        times = json.loads(answer.read_text())
    bare = [taken["scan"] for taken in times["bare"]]
    ours = [sum(taken[part][0] for part in PARTS) for taken in times["ours"]]

    def per_point(part: str) -> str:
        wall, processor = (median(taken[part][kind] for taken in times["ours"]) / POINTS * 1e6 for kind in (0, 1))
        return f"{part} {wall:.0f} µs ({processor:.0f} of it processor time)"

    note = (
        f"per point: {', '.join(map(per_point, PARTS))}; bare RunEngine {median(bare) / POINTS * 1e6:.0f} µs, "
        f"the session's {median(taken['scan'] for taken in times['ours']) / POINTS * 1e6:.0f} µs"
    )
    yield Figure("callbacks' time in a 1000-point scan / bare RunEngine", 100 * ratio(ours, bare), 5, "%", note=note)

    processor = {side: [taken["processor"] for taken in times[side]] for side in ("ours", "with NeXus")}
    note = f"{median(processor['with NeXus']):.2f} s with, {median(processor['ours']):.2f} s without"
    ratio_of_both = ratio(processor["with NeXus"], processor["ours"])
    yield Figure("processor time of a scan with a NeXus file / without", ratio_of_both, 1.1, "x", note=note)


class Stopwatch:
    """Sums up the time that a callable takes."""

    def __init__(self, callback: Callable[..., Any]) -> None:
        self.callback = callback
        self.total = 0.0
        self.processor = 0.0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call it."""
        began, worked = time.perf_counter(), time.thread_time()
        try:
            return self.callback(*arguments, **options)
        finally:
            self.total += time.perf_counter() - began
            self.processor += time.thread_time() - worked

    def take(self) -> tuple[float, float]:
        """The time since the last `take` (s), and the processor's time in it (s)."""
        taken = self.total, self.processor
        self.total = self.processor = 0.0
        return taken


def _compare(directory: Path, rounds: int) -> dict[str, list[dict[str, Any]]]:
    import bluesky
    import bluesky.plans as bp
    import matplotlib as mpl
    from ophyd.sim import det, motor

    from instrument.callbacks.journal import Journal
    from instrument.callbacks.live import BestEffort
    from instrument.callbacks.nexus import NexusWriter
    from instrument.callbacks.outbox import Outbox
    from instrument.callbacks.spec import SpecWriter
    from instrument.config.models import Nexus
    from instrument.framework.engine import RunEngine
    from instrument.framework.index import RunIndex
    from instrument.framework.runfiles import DataDirectory
    from instrument.framework.state import StateFile

    class SwitchedWriter(NexusWriter):
        """Writes the runs that start while it is on."""

        on = False

        def assign(self, start: dict[str, Any]) -> dict[str, Any]:
            return super().assign(start) if self.on else {"skip": True}

    mpl.use("Agg")
    files = DataDirectory(directory / "data")
    index = RunIndex(files.index, files.runs)
    state = StateFile(files.state, last_scan_id=index.last_scan_id)
    outbox = Outbox(files.runs, files.outbox, print, index=index)
    table = BestEffort()
    table.disable_plots()
    watches = {
        "journal": Stopwatch(Journal(files.runs, index=index)),
        "outbox": Stopwatch(outbox),
        "table": Stopwatch(table),
    }
    ours = RunEngine(state, journal=watches["journal"], delivery=watches["outbox"], scan_id_source=state.next_scan_id)
    ours.subscribe(watches["table"])
    outbox.add(SpecWriter(directory, state, outbox.note))
    nexus = SwitchedWriter(Nexus(enabled=True), files.root)
    outbox.add(nexus)
    outbox.start()
    bare = bluesky.RunEngine({})

    def scan(engine: bluesky.RunEngine, *, with_nexus: bool = False) -> dict[str, Any]:
        nexus.on = with_nexus
        began, worked = time.perf_counter(), time.process_time()
        engine(bp.scan([det], motor, -1, 1, POINTS))
        taken = {"scan": time.perf_counter() - began, **{name: watch.take() for name, watch in watches.items()}}
        if not outbox.wait(60):  # nobody's scan waits for the files of the last one, and neither side is to pay
            raise MeasurementError("the outbox did not write its files")
        return {**taken, "processor": time.process_time() - worked}

    sides = {
        "bare": lambda: scan(bare),
        "ours": lambda: scan(ours),
        "with NeXus": lambda: scan(ours, with_nexus=True),
    }
    times = take_turns(sides, rounds, warm_up=True)
    if index.count() != 2 * (rounds + 1):
        raise MeasurementError(f"the journal holds {index.count()} runs of {2 * (rounds + 1)}")
    written = len(list(files.root.glob("*.hdf")))
    if written != rounds + 1:
        raise MeasurementError(f"there are {written} NeXus files of {rounds + 1}")
    return times


BENCHMARK = Benchmark("callbacks", "journal, outbox and table in a 1000-point scan", measure)

if __name__ == "__main__":
    logging.disable(logging.INFO)
    Path(sys.argv[1]).write_text(json.dumps(_compare(Path.cwd(), int(sys.argv[2]))))
    sys.stdout.flush()
    os._exit(0)  # ophyd's threads need not be waited for
