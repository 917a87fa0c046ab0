"""A directory with as many runs as a beamline makes in years, written in seconds.

One run of each length is recorded by the real journal; the others are its bytes with other uids, times and metadata in
their start and stop documents, packed by the journal's packer. What their events hold is the same in all.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import event_model
from event_model import compose_run

from instrument.callbacks.journal import Journal
from instrument.framework.index import RunIndex
from instrument.framework.runfiles import DataDirectory, RunFile, make_packer, run_path

PLANS = ("scan", "count", "rel_scan", "grid_scan", "lup")
OPERATORS = tuple(f"operator{number}" for number in range(40))
MATERIALS = ("steel", "glass", "copper", "lysozyme", "perovskite", "quartz", "silver behenate", "ceria", "alumina")
INTERVAL = 3000.0  # s between two runs: 20,000 of them are two years
SHORT_RUNS, SHORT_POINTS = 24, 10


def metadata(number: int) -> dict[str, Any]:
    """The start document of a run without its uid and time."""
    material = MATERIALS[number % len(MATERIALS)]
    return {
        "scan_id": number + 1,
        "plan_name": PLANS[number % len(PLANS)],
        "plan_type": "generator",
        "plan_args": {"detectors": ["noisy"], "num": 1000, "args": ["m1", -1.0, 1.0]},
        "motors": ["m1"],
        "detectors": ["noisy"],
        "num_points": 1000,
        "num_intervals": 999,
        "hints": {"dimensions": [[["m1"], "primary"]]},
        "operator": OPERATORS[number % len(OPERATORS)],
        "sample": {"name": f"{material} {number % 977}", "batch": number % 200, "mass": 0.5 + number % 1000},
        "title": f"{material} under load, part {number % 31}",
        "temperature_setpoint": 20.0 + number % 400,
        "beamline_id": "virtual_beamline",
        "instrument_name": "class_2021_03",
        "proposal_id": f"GUP-{number % 350}",
        "login_id": "benchmark@localhost",
        "versions": {"bluesky": "1.15.1", "ophyd": "1.11.2", "databroker": "1.2.5", "instrument": "0.1.0"},
    }


def record(journal: Journal, start_metadata: Mapping[str, Any], when: float, points: int) -> str:
    """Record one run through the journal; its uid."""
    run = compose_run(metadata=dict(start_metadata), time=when)
    journal("start", run.start_doc)
    keys = {
        name: {"source": f"PV:gp:{name}", "dtype": "number", "shape": [], "precision": 5}
        for name in ("m1", "m1_user_setpoint", "noisy")
    }
    stream = run.compose_descriptor(
        name="primary", data_keys=keys, object_keys={"m1": ["m1", "m1_user_setpoint"], "noisy": ["noisy"]}
    )
    journal("descriptor", stream.descriptor_doc)
    for number in range(points):
        x = -1 + 2 * number / points
        data = {"m1": x, "m1_user_setpoint": x, "noisy": 1 / (1 + x * x)}
        stamps = dict.fromkeys(data, when + number)
        journal("event", stream.compose_event(data=data, timestamps=stamps, time=when + number))
    journal("stop", run.compose_stop())
    return run.start_doc["uid"]


@dataclass(frozen=True)
class _Template:
    """A recorded run, taken apart."""

    middle: bytes
    run: bytes
    descriptor: bytes
    stop: dict[str, Any]

    @classmethod
    def of(cls, path: Path) -> _Template:
        file = RunFile(path)
        file.survey()
        parts = {name: (begin, end) for name, begin, end in file.layout.documents}
        content = path.read_bytes()
        (start,), (descriptor,), (stop,) = (file.single(name) for name in ("start", "descriptor", "stop"))
        middle = content[parts["start"][1] : parts["stop"][0]]
        return cls(middle, start["uid"].encode(), descriptor["uid"].encode(), stop)


def fill(root: Path, runs: int, points: int) -> tuple[float, float]:
    """Fill a data directory: `runs` of `points` each, then 24 of 10 points recorded one by one.

    Returns:
        How long it took to write the runs and to index them (s).
    """
    files = DataDirectory(root)
    began = time.perf_counter()
    now = time.time()
    draft = Journal(root / "draft")
    record(draft, metadata(0), now, points)
    draft.close()
    template = _Template.of(next((root / "draft").glob("*/*/*.msgpack")))
    pack = make_packer()
    new_uid = map(str, map("{:08x}-0000-4000-8000-{:012x}".format, itertools.count(), itertools.count()))
    for number in range(runs):
        when = now - (runs + SHORT_RUNS - number) * INTERVAL
        uid, descriptor, end = next(new_uid), next(new_uid), next(new_uid)
        start = {"uid": uid, "time": when, **metadata(number)}
        stop = {**template.stop, "uid": end, "time": when + 600.0, "run_start": uid}
        path = run_path(files.runs, start)
        path.parent.mkdir(parents=True, exist_ok=True)
        middle = template.middle.replace(template.run, uid.encode()).replace(template.descriptor, descriptor.encode())
        path.write_bytes(pack(("start", start)) + middle + pack(("stop", stop)))
    written = time.perf_counter()
    index = RunIndex(files.index, files.runs)
    index.refresh()
    indexed = time.perf_counter()
    journal = Journal(files.runs, index=index)
    for number in range(SHORT_RUNS):
        record(journal, metadata(runs + number), now - (SHORT_RUNS - number) * INTERVAL, SHORT_POINTS)
    journal.close()
    index.refresh()
    index.close()
    return written - began, indexed - written


def check(root: Path, runs: int, points: int) -> None:
    """Make sure that what was filled is what it is taken for.

    Raises:
        ValueError: It is not.
    """
    files = DataDirectory(root)
    index = RunIndex(files.index, files.runs)
    try:
        row = index.newest(SHORT_RUNS + runs // 2)
        if index.count() != runs + SHORT_RUNS or index.unreadable() or row is None:
            msg = f"{index.count()} runs instead of {runs + SHORT_RUNS}; {index.unreadable()[:1]}"
            raise ValueError(msg)
        kinds = [record.name for record in RunFile(row.path).records()]
        for record_ in RunFile(row.path).records():
            event_model.schema_validators[event_model.DocumentNames[record_.name]].validate(record_.document)
        if kinds != ["start", "descriptor", *["event"] * points, "stop"]:
            msg = f"{row.path} does not hold a run of {points} points"
            raise ValueError(msg)
    finally:
        index.close()
