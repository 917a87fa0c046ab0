"""`make bench`: each budget beside what it measured; exits 1 if one is missed."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence

from benchmarks import callbacks, catalog, images, ioc, live_plot, preflight, ship, snapshot, startup, tiled
from benchmarks.harness import Benchmark, run

BENCHMARKS: tuple[Benchmark, ...] = (
    startup.HELP,
    startup.SESSION,
    callbacks.BENCHMARK,
    live_plot.BENCHMARK,
    preflight.BENCHMARK,
    ioc.BENCHMARK,
    images.BENCHMARK,
    catalog.BENCHMARK,
    ship.BENCHMARK,
    snapshot.BENCHMARK,
    tiled.BENCHMARK,
)


def main(arguments: Sequence[str] | None = None, benchmarks: Sequence[Benchmark] = BENCHMARKS) -> int:
    """Measure what is asked for.

    Returns:
        The exit code: 1 if a budget is missed, 2 if there is no benchmark of that name.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which ones; default: all")
    parser.add_argument("--list", action="store_true", help="list them and measure nothing")
    parser.add_argument("--rounds", type=int, help="how often each side is measured; default: what each needs")
    options = parser.parse_args(arguments)
    known = {benchmark.name: benchmark for benchmark in benchmarks}
    if options.list:
        for benchmark in benchmarks:
            print(f"{benchmark.name:<12} {benchmark.about}")
        return 0
    for name in options.names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0)
            print(f"there is no benchmark {name!r}; did you mean {near[0]!r}? (--list shows all)", file=sys.stderr)
            return 2
    if options.rounds is not None and options.rounds < 1:
        print(f"--rounds {options.rounds}: measure at least once", file=sys.stderr)
        return 2
    chosen = [known[name] for name in options.names] or list(benchmarks)
    return 1 if run(chosen, options.rounds, lambda line: print(line, flush=True)) else 0


if __name__ == "__main__":
    sys.exit(main())
