"""Snapshots: record what is set, and set it again."""

from __future__ import annotations

import importlib.metadata
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator, RunEngineControlException

from instrument.callbacks.snapshot_report import SnapshotReport
from instrument.config.errors import UserError
from instrument.devices.notes import Notes
from instrument.devices.pvs import TIMEOUT, PvList, unique_keys
from instrument.framework.snapshots import GIVEN, OF_EVERY_RUN, PLAN, UNREACHABLE
from instrument.plans.checks import plan

DESCRIPTION = "archive snapshot of ophyd Signals (usually EPICS PVs)"
LOOK = 0.02  # s; between two looks at devices that are connecting
PACKAGES = {  # name in the document: name of the distribution
    "PyEpics": "pyepics",
    "bluesky": "bluesky",
    "ophyd": "ophyd",
    "databroker": "databroker",
    "apstools": "apstools",
    "instrument": "instrument",
}


def software_versions() -> dict[str, str]:
    """Python and the packages that a snapshot is made with."""
    return {"python": sys.version} | {name: importlib.metadata.version(found) for name, found in PACKAGES.items()}


@plan
def snapshot(
    objects: Any,
    stream: str = "primary",
    *,
    report: bool = True,
    timeout: float = TIMEOUT,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Record what PVs, signals and devices have now; nothing is triggered or moved.

    What does not answer is recorded as such, in a stream of its own, and does not keep the others from being recorded.

    Args:
        objects: Names of PVs, signals, devices (what they read and how they are configured), or a `PvList`.
        stream: The stream that they are recorded in.
        report: Print the report, too.
        timeout: How long PVs are waited for (s).
        md: Metadata.

    Returns:
        The uid of the run.

    Raises:
        UserError: Nothing is given, something is given twice or can't be read, or nothing answers.
    """
    things = _things(objects, timeout)
    pv_lists = [thing for thing in things if isinstance(thing, PvList)]
    for pvs in pv_lists:
        yield from bps.trigger(pvs, wait=True)
    yield from _wait_until_connected(things, timeout)
    missing = {pv: (f"PV:{pv}", why) for pvs in pv_lists for pv, why in pvs.unreachable.items()}
    readable = []
    for thing in things:
        if isinstance(thing, PvList):
            readable += [thing] if thing.readings else []
        elif getattr(thing, "connected", True):
            readable.append(thing)
        else:
            missing[thing.name] = (_source(thing), "it is not connected")
    if missing and not readable:
        told = "; ".join(f"{name}: {why}" for name, (_, why) in list(missing.items())[:3])
        more = f"; and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(
            f"snapshot: nothing answers, so nothing is recorded ({told}{more}): check the names and the IOC"
        )
    start = {
        "plan_name": PLAN,
        "plan_description": DESCRIPTION,
        "iso8601": str(datetime.now()),
        "hints": {},
        "software_versions": software_versions(),
        **(md or {}),
    }
    if given := sorted(OF_EVERY_RUN.intersection(md or {})):
        start[GIVEN] = given

    def take() -> MsgGenerator[str]:
        uid = yield from bps.open_run(start)
        yield from bps.create(name=stream)
        for thing in readable:
            try:
                yield from bps.read(thing)
            except RunEngineControlException:
                raise
            except Exception as error:  # its IOC went away just now
                missing[thing.name] = (_source(thing), " ".join(str(error).split()) or type(error).__name__)
        yield from bps.save()
        if missing:
            keys = unique_keys(missing)
            notes = Notes(UNREACHABLE, {keys[name]: told for name, told in missing.items()})
            yield from record(notes, UNREACHABLE)
        yield from bps.close_run()
        return uid

    return (yield from (bpp.subs_wrapper(take(), SnapshotReport()) if report else take()))


def _wait_until_connected(things: Iterable[Any], timeout: float) -> MsgGenerator[None]:
    """Components that are made at first use take a moment."""
    deadline = time.monotonic() + timeout
    while not all(getattr(thing, "connected", True) for thing in things) and time.monotonic() < deadline:
        yield from bps.sleep(LOOK)


def record(thing: Any, stream: str) -> MsgGenerator[None]:
    """Record one object in a stream; nothing is triggered."""
    yield from bps.create(name=stream)
    yield from bps.read(thing)
    yield from bps.save()


def _source(thing: Any) -> str:
    pv = getattr(thing, "pvname", None)
    return f"PV:{pv}" if pv else f"device:{thing.name}"


def _things(objects: Any, timeout: float) -> list[Any]:
    """What is to be read, in the order given; names of PVs that follow each other together."""
    given: Sequence[Any] = list(objects) if isinstance(objects, list | tuple | set) else [objects]
    names = [thing if isinstance(thing, str) else getattr(thing, "name", None) for thing in given]
    for number, (thing, name) in enumerate(zip(given, names, strict=True)):
        if not isinstance(thing, str) and (name is None or not callable(getattr(thing, "read", None))):
            raise UserError(f"snapshot: {thing!r} can't be read: give names of PVs, signals or devices")
        if name in names[:number]:
            raise UserError(f"snapshot: {name} is given twice: give each once")
    if not given:
        raise UserError("snapshot: nothing is given: give names of PVs, signals or devices")
    return list(_grouped(given, timeout))


def _grouped(given: Iterable[Any], timeout: float) -> Iterable[Any]:
    names: list[str] = []
    count = 0
    for thing in [*given, None]:
        if isinstance(thing, str):
            names.append(thing)
            continue
        if names:
            count += 1
            yield PvList(names, timeout=timeout, name="pvs" if count == 1 else f"pvs_{count}")
            names = []
        if thing is not None:
            yield thing
