"""The stock client of the IOC's benchmarks; prints its figures as JSON.

`python -m benchmarks.ioc_client speed ROUNDS SECONDS PV...`: gets and completed puts a second of each PV, in turns.
`python -m benchmarks.ioc_client connect PREFIX`: seconds to connect 500 PVs.
"""

from __future__ import annotations

import json
import sys
import time

import epics

CONNECTIONS = 500
FIELDS = (
    "VAL RBV DMOV MOVN STOP EGU PREC DESC HLM LLM VELO ACCL OFF DIR SET FOFF HLS LLS DVAL DRBV RVAL RRBV SPMG JOGF "
    "JOGR TWF TWR TWV HOMF HOMR MRES UREV"
).split()


def _rate(action, seconds):
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        action(count)
        count += 1
    return count / elapsed


def speed(rounds, seconds, pvs):
    """Rates of each PV, one for each round."""
    channels = {}
    for name in pvs:
        pv = epics.PV(name, auto_monitor=False)
        if not pv.wait_for_connection(timeout=20):
            sys.exit(f"{name} does not connect")
        channels[name] = pv.chid
    found = {name: {"gets": [], "puts": []} for name in pvs}
    for _ in range(rounds + 1):
        for name, channel in channels.items():
            found[name]["gets"].append(_rate(lambda _, c=channel: epics.ca.get(c), seconds))
            found[name]["puts"].append(_rate(lambda n, c=channel: epics.ca.put(c, n, wait=True), seconds))
    return {name: {kind: rates[1:] for kind, rates in kinds.items()} for name, kinds in found.items()}  # one to warm up


def connect(prefix):
    """Seconds until all are connected."""
    names = [f"{prefix}m{number}.{field}" for number in range(1, 17) for field in FIELDS][:CONNECTIONS]
    epics.ca.initialize_libca()
    began = time.perf_counter()
    channels = [epics.ca.create_channel(name, connect=False) for name in names]
    while not all(epics.ca.isConnected(channel) for channel in channels):
        epics.ca.poll()
        if time.perf_counter() - began > 60:
            sys.exit("not all connect")
    return time.perf_counter() - began


if __name__ == "__main__":
    if sys.argv[1] == "speed":
        print(json.dumps(speed(int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])))
    else:
        print(json.dumps(connect(sys.argv[2])))
