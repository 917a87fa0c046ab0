"""A stock pyepics client, in a process of its own: `python -m benchmarks.ca_client rates|connect FILE`.

Prints what it measured as JSON. FILE names PVs, one a line. Puts are measured with the first, gets with the first ones,
several in flight, as pyepics' own `caget_many` has them and as ophyd's threads do: a client that asks for one value and
waits for it spends most of that time asleep between two looks for the answer (pyepics: 0.1 ms), which is the same for
every server and would be what is compared. That rate is measured too, as "single gets".
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import epics

IN_FLIGHT = 20  # gets
SPAN = 1.5  # s over which each rate is measured
PATIENCE = 30.0  # s


def rates(names: list[str]) -> dict[str, float]:
    """Gets, and puts with completion, per second; the last put is checked by a get at the end.

    Puts with pyepics' PV as it comes, which monitors its value (as each ophyd signal does), and without a monitor.
    """
    plain = epics.PV(names[0], auto_monitor=False)
    if not plain.wait_for_connection(timeout=PATIENCE):
        sys.exit(f"{names[0]} does not connect")
    found = {"single gets": _rate(lambda _: plain.get(use_monitor=False, timeout=PATIENCE) is not None)}
    found["gets"] = _rate_of_gets(names[:IN_FLIGHT])
    found["unmonitored puts"] = _put_rate(plain)
    monitored = epics.PV(names[0])
    if not monitored.wait_for_connection(timeout=PATIENCE):
        sys.exit(f"{names[0]} does not connect again")
    found["puts"] = _put_rate(monitored)
    return found


def _rate(act: Callable[[int], bool]) -> float:
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < SPAN:
        if not act(count):
            sys.exit("a get or a put failed")
        count += 1
    return count / elapsed


def _rate_of_gets(names: list[str]) -> float:
    pvs = [epics.PV(name, auto_monitor=False) for name in names]
    if not all(pv.wait_for_connection(timeout=PATIENCE) for pv in pvs):
        sys.exit("a PV does not connect")

    def get(_: int) -> bool:
        for pv in pvs:
            epics.ca.get(pv.chid, wait=False)
        epics.ca.flush_io()
        return all(epics.ca.get_complete(pv.chid, timeout=PATIENCE) is not None for pv in pvs)

    return len(pvs) * _rate(get)


def _put_rate(pv: epics.PV) -> float:
    last = 0.0

    def put(number: int) -> bool:
        nonlocal last
        last = float(number)
        return pv.put(last, wait=True, timeout=PATIENCE) == 1

    rate = _rate(put)
    if pv.get(use_monitor=False) != last:
        sys.exit(f"{pv.pvname} does not have the value that was put last")
    return rate


def connect(names: list[str]) -> dict[str, float]:
    """The time until all PVs are connected (s), from the first `PV(...)` on."""
    epics.ca.initialize_libca()
    began = time.perf_counter()
    pvs = [epics.PV(name, auto_monitor=False) for name in names]
    deadline = began + PATIENCE
    while not all(pv.connected for pv in pvs):
        epics.ca.poll(1e-3, 0.05)
        if time.perf_counter() > deadline:
            missing = [pv.pvname for pv in pvs if not pv.connected]
            sys.exit(f"{len(missing)} of {len(pvs)} PVs do not connect: {missing[0]}, ...")
    return {"connect": time.perf_counter() - began}


if __name__ == "__main__":
    what, file = sys.argv[1:]
    print(json.dumps({"rates": rates, "connect": connect}[what](Path(file).read_text().split())))
