"""What the live plot and the table add to each point of a scan, beside bluesky's BestEffortCallback.

Six sides take turns in one process: the session's RunEngine with `bec`, its plot on, its table on, and neither; and
bluesky's RunEngine with BestEffortCallback in the same three ways. What a side's plot adds is the difference of the two
scans' times per point, which counts what the callback takes as well as what drawing on the main thread takes from the
scan's thread. What a table takes is the callback's own time. Both tables go to the same file.

Drawings are those of the whole figure, and those of the line alone (matplotlib's blitting); both are counted. The
canvas is Agg's for both. So that `bec` draws as it does for a person, its figures say that they are in a window
(without one it draws only when a picture is saved; BestEffortCallback draws at every point in any case).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.harness import Benchmark, Figure, MeasurementError, child, median, scratch, take_turns

LIMIT = 2.0  # ms per point
TABLE_LIMIT = 1.0  # ms per point
FAST_POINTS = {"bec": 300, "stock": 60}
SLOW_POINTS = {"bec": 40, "stock": 15}
SLOW_PERIOD = 0.1  # s that the motor takes for a step of the slow scan


def measure(rounds: int | None) -> Iterator[Figure]:
    with scratch() as directory:
        times = child("live_plot", rounds or 3, cwd=directory, variables={"MPLBACKEND": "Agg"})
    for speed, what in (("fast", "at full speed"), ("slow", "at 10 points/s")):
        found = times[speed]

        def added(side: str, found: dict[str, Any] = found) -> float:
            pairs = zip(found[f"{side} plot"], found[f"{side} none"], strict=True)
            return median(1e3 * (plot["point"] - none["point"]) for plot, none in pairs)

        whole, line = (median(plot[kind] for plot in found["bec plot"]) for kind in ("draw", "blit"))
        without = 1e3 * median(none["point"] for none in found["bec none"])
        callback = 1e3 * median(plot["callback"] for plot in found["bec plot"])
        note = (
            f"BestEffortCallback: {added('stock'):.1f} ms in the same run; bec drew {whole + line:.0f} times "
            f"({whole:.0f} times all of it) in {found['points']} points, its callback took {callback:.2f} ms "
            f"per point; a point without plot: {without:.1f} ms"
        )
        yield Figure(f"live plot: added to each point, {what}", added("bec"), LIMIT, "ms", note=note)
    fast = times["fast"]
    bec, stock = ([1e3 * scan["callback"] for scan in fast[f"{side} table"]] for side in ("bec", "stock"))
    note = f"BestEffortCallback: {median(stock):.2f} ms in the same run"
    yield Figure("table: each point", median(bec), TABLE_LIMIT, "ms", note=note)


def _compare(rounds: int) -> dict[str, Any]:
    import bluesky
    import bluesky.plans as bp
    import matplotlib.pyplot as plt
    from bluesky.callbacks.best_effort import BestEffortCallback
    from ophyd.sim import det, motor

    from instrument.callbacks.live import BestEffort
    from instrument.framework.engine import RunEngine, during_task

    drawings = {"draw": 0, "blit": 0}

    def in_a_window(name: str) -> Any:
        figure = plt.figure(num=name)
        canvas: Any = figure.canvas
        if getattr(canvas, "required_interactive_framework", None) is None:
            canvas.required_interactive_framework = "benchmark"
            canvas.draw, canvas.blit = counted("draw", canvas.draw), counted("blit", canvas.blit)
        return figure

    def counted(what: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any, **options: Any) -> Any:
            drawings[what] += 1
            return method(*arguments, **options)

        return count

    bec = BestEffort(fig_factory=in_a_window)
    stock = BestEffortCallback()
    for callback in (bec, stock):
        callback.disable_heading()
    callback_time = 0.0

    def timed(callback: Any) -> Callable[[str, dict[str, Any]], None]:
        def take(name: str, doc: dict[str, Any]) -> None:
            nonlocal callback_time
            began = time.perf_counter()
            callback(name, doc)
            callback_time += time.perf_counter() - began if name == "event" else 0.0

        return take

    ours = RunEngine({}, during_task=during_task(bec.draw))
    ours.subscribe(timed(bec))
    theirs = bluesky.RunEngine({})
    theirs.subscribe(timed(stock))

    def side(
        engine: bluesky.RunEngine, callback: Any, *, points: int, plots: bool = False, table: bool = False
    ) -> Callable[[], dict[str, float]]:
        def scan() -> dict[str, float]:
            nonlocal callback_time
            (callback.enable_plots if plots else callback.disable_plots)()
            (callback.enable_table if table else callback.disable_table)()
            drawings.update(draw=0, blit=0)
            callback_time = 0.0
            with open("table.txt", "w") as file, contextlib.redirect_stdout(file):
                began = time.perf_counter()
                engine(bp.scan([det], motor, -1, 1, points))
                took = time.perf_counter() - began
                rows = file.tell() > points * len("| seq_num | time |")
            if rows != table:
                raise MeasurementError(f"the table of {type(callback).__name__} is not what was asked for")
            if plots and callback is bec and not drawings["draw"]:
                raise MeasurementError("bec drew nothing")
            counts = dict(drawings)
            bec.draw(force=True)
            plt.close("all")
            return {"point": took / points, "callback": callback_time / points, **counts}

        return scan

    found: dict[str, Any] = {}
    for speed, points, delay in (("fast", FAST_POINTS, 0.0), ("slow", SLOW_POINTS, SLOW_PERIOD)):
        motor.delay = delay
        sides = {
            "bec plot": side(ours, bec, plots=True, points=points["bec"]),
            "bec none": side(ours, bec, points=points["bec"]),
            "stock plot": side(theirs, stock, plots=True, points=points["stock"]),
            "stock none": side(theirs, stock, points=points["stock"]),
        }
        if speed == "fast":
            sides["bec table"] = side(ours, bec, table=True, points=points["bec"])
            sides["stock table"] = side(theirs, stock, table=True, points=points["stock"])
        found[speed] = {**take_turns(sides, rounds, warm_up=speed == "fast"), "points": points["bec"]}
    return found


BENCHMARK = Benchmark("plot", "the live plot and the table, beside BestEffortCallback", measure)

if __name__ == "__main__":
    print(json.dumps(_compare(int(sys.argv[1]))), flush=True)
    os._exit(0)  # ophyd's threads need not be waited for
