"""The embedded catalog with years of runs, beside databroker's own driver over the same kind of files.

databroker's stock `bluesky-msgpack-catalog` reads every file whole when it is opened, so it gets one run in a hundred.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.catalog_runs import SHORT_POINTS, SHORT_RUNS, check, fill
from benchmarks.harness import Benchmark, Figure, MeasurementError, child, median, scratch, take_turns
from instrument.framework.runfiles import DataDirectory

RUNS = int(os.environ.get("BENCHMARK_RUNS", "20000"))  # fewer to try it out; the budgets are for 20,000
POINTS = 1000
STOCK_SHARE = 100  # of so many runs the stock driver gets one


def _stock_files(root: Path) -> list[Path]:
    files = sorted(DataDirectory(root).runs.glob("*/*/*.msgpack"), key=lambda path: path.stat().st_mtime_ns)
    return [*files[:-SHORT_RUNS:STOCK_SHARE], *files[-SHORT_RUNS:]]


def measure(rounds: int | None) -> Iterator[Figure]:
    with scratch() as root:
        writing, indexing = fill(root, RUNS, POINTS)
        check(root, RUNS, POINTS)
        listing = root / "stock"
        stock_files = _stock_files(root)
        listing.write_text("\n".join(map(str, stock_files)))
        sides = {
            "embedded": lambda: child("catalog_client", "embedded", root, cwd=root),
            "stock": lambda: child("catalog_client", "stock", listing, cwd=root),
        }
        times = take_turns(sides, rounds or 3)
    ours, stock = times["embedded"], times["stock"]
    for side in ours:
        if side["runs"] != RUNS + SHORT_RUNS or set(side["points"]) != {SHORT_POINTS}:
            raise MeasurementError(f"the catalog shows {side['runs']} runs, of {set(side['points'])} points")
        if not all(max(matches) for matches in side["matches"].values()):
            raise MeasurementError(f"a search found nothing: {side['matches']}")
    fewer = len(stock_files)
    opening = median(side["open"] for side in stock)
    note = (
        f"{RUNS} runs of {POINTS} points (written in {writing:.0f} s, indexed anew in {indexing:.0f} s); stock driver: "
        f"{opening:.1f} s for {fewer} runs, hence about {opening * RUNS / fewer:.0f} s"
    )
    yield Figure("catalog: open", median(side["open"] for side in ours), 0.2, "s", note=note)
    for kind in ("plan", "time", "text", "key"):
        matches = max(ours[0]["matches"][kind])
        taken = 1e3 * median(side["search"][kind] for side in ours)
        note = f"up to {matches} runs found; stock driver: "
        if kind in stock[0]["search"]:
            theirs = 1e3 * median(side["search"][kind] for side in stock)
            note += f"{theirs:.0f} ms in {fewer} runs, hence about {theirs * RUNS / fewer:.0f} ms"
        else:
            note += "can't"
        what = "any metadata key" if kind == "key" else kind
        yield Figure(f"catalog: search by {what}", taken, 50, "ms", note=note)
    theirs = 1e3 * median(side["read"] for side in stock)
    taken = 1e3 * median(side["read"] for side in ours)
    note = f"stock driver {theirs:.0f} ms"
    yield Figure(f"catalog: cat[-1].primary.read(), {SHORT_POINTS} points", taken, 10, "ms", note=note)


BENCHMARK = Benchmark("catalog", "the embedded catalog with 20,000 runs, beside databroker's own driver", measure)
