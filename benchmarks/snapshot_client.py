"""One process that takes a snapshot of many PVs and tells how long it took, its imports left out."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from pathlib import Path

from instrument.config import load
from instrument.plans.snapshot import snapshot
from instrument.snapshot_cli import open_channel_access, recording


def by_name(names: list[str]) -> dict[str, float]:
    """What `bluesky_snapshot` does, from the first search to the end of the report."""
    began = time.perf_counter()
    told = io.StringIO()
    with recording(load()) as engine, contextlib.redirect_stdout(told):
        engine(snapshot(names))
        took = time.perf_counter() - began
    return {"seconds": took, "read": told.getvalue().count(" PV     ") - told.getvalue().count("not read: ")}


def by_ophyd(names: list[str]) -> dict[str, float]:
    """The same plan with a signal of ophyd's for each PV."""
    from ophyd import EpicsSignal

    began = time.perf_counter()
    signals = [EpicsSignal(name, name=f"signal_{number}") for number, name in enumerate(names)]
    told = io.StringIO()
    with recording(load()) as engine, contextlib.redirect_stdout(told):
        engine(snapshot(signals, timeout=60))
        took = time.perf_counter() - began
    return {"seconds": took, "read": told.getvalue().count(" PV     ") - told.getvalue().count("not read: ")}


def main() -> None:
    import ophyd  # noqa: F401  the RunEngine imports it: it is not to be measured

    open_channel_access()
    how, path = sys.argv[1:]
    names = Path(path).read_text().split()
    print(json.dumps({"names": by_name, "ophyd": by_ophyd}[how](names)))


if __name__ == "__main__":
    main()
