"""What a pre-flight adds to each point of a scan, beside the point itself on the bare RunEngine.

`preflight.DryRun` runs an `ascan` over a motor of the virtual beamline as bluesky's RunEngineSimulator would, with the
limit check of each target, whose limits are PVs, and the clock; so it does, for `estimate`, with bluesky's own `scan`.
bluesky's RunEngine then executes that scan, over ophyd.sim's motor and without a subscriber, taking turns.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.harness import Benchmark, Figure, MeasurementError, child, median, ratio, scratch, take_turns
from benchmarks.ioc import our_ioc

POINTS = 1000
LIMIT = 1.0  # ms per point


def measure(rounds: int | None) -> Iterator[Figure]:
    with scratch() as directory, our_ioc() as (beamline, _):
        variables = {**beamline.environment.variables, "MPLBACKEND": "Agg"}
        times = child("preflight", rounds or 5, beamline.prefix, cwd=directory, variables=variables)
    dry, bare = times["dry"], times["bare"]
    note = (
        f"the bare RunEngine takes {1e3 * median(bare) / POINTS:.2f} ms for a point in the same run: a pre-flight adds "
        f"{100 * ratio(dry, bare):.1f} %"
    )
    yield Figure("pre-flight: added to each point", 1e3 * median(dry) / POINTS, LIMIT, "ms", note=note)
    stock = 1e3 * median(times["stock"]) / POINTS
    yield Figure("estimate of bluesky's own scan: each point", stock, LIMIT, "ms")


def _compare(rounds: int, prefix: str) -> dict[str, Any]:
    import bluesky
    import bluesky.plans as bp
    from ophyd.sim import det, motor

    from instrument.config.errors import UserError
    from instrument.devices.motors import Motor
    from instrument.plans import ascan
    from instrument.plans.preflight import DryRun, Kinematics

    engine = bluesky.RunEngine({})
    m1 = Motor(f"{prefix}m1", name="m1")
    m1.wait_for_connection(timeout=60)

    def dry(make: Any) -> float:
        began = time.perf_counter()
        preflight = DryRun("scan", points=POINTS)
        preflight.run(make())
        found = preflight.clock({m1: Kinematics(0.0, 1.0, 0.1)}, {})
        took = time.perf_counter() - began
        if found.points != POINTS or found.ranges != {"m1": (-1.0, 1.0)}:
            raise MeasurementError(f"the pre-flight saw something else: {found}")
        return took

    def bare() -> float:
        began = time.perf_counter()
        engine(bp.scan([det], motor, -1, 1, POINTS))
        return time.perf_counter() - began

    try:
        DryRun("scan", points=2).run(ascan(m1, 0, 1e6, 1, detectors=[det]))
    except UserError:
        pass
    else:
        raise MeasurementError("the pre-flight checks no limits")
    sides = {
        "dry": lambda: dry(lambda: ascan(m1, -1, 1, POINTS - 1, detectors=[det])),
        "stock": lambda: dry(lambda: bp.scan([det], m1, -1, 1, POINTS)),
        "bare": bare,
    }
    return take_turns(sides, rounds, warm_up=True)


BENCHMARK = Benchmark("preflight", "the dry run of a scan, beside the bare RunEngine", measure)

if __name__ == "__main__":
    print(json.dumps(_compare(int(sys.argv[1]), sys.argv[2])), flush=True)
    os._exit(0)  # ophyd's threads need not be waited for
