"""A client that has the area detector stream frames: `image_client COMPRESSION BLOCKING FRAMES DIRECTORY`.

COMPRESSION is None or zlib. BLOCKING is Yes, as stock ophyd has it: the camera waits for the file, and nothing can be
dropped; or No: the writer's queue overflows if the camera is faster. Prints as JSON how many frames per second came
into the file, how many of them are in it, and how many were dropped. The first frames are left in `sample.h5`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import epics
import h5py

PATIENCE = 120.0  # s
SAMPLE = 20


def put(name: str, value: float | str) -> None:
    """Put and wait until it is done."""
    if epics.caput(f"ad:{name}", value, wait=True, timeout=PATIENCE) != 1:
        sys.exit(f"ad:{name} = {value} was not taken")


def get(name: str, text: bool = False) -> float | str:
    """The value of a PV."""
    value = epics.caget(f"ad:{name}", as_string=text, timeout=PATIENCE, use_monitor=False)
    if value is None:
        sys.exit(f"ad:{name} does not answer")
    return value


def stream(compression: str, blocking: str, frames: int, directory: Path) -> dict[str, float | str]:
    """Stream frames as fast as they come."""
    settings = {
        "cam1:Acquire": 0,
        "cam1:ImageMode": "Multiple",
        "cam1:NumImages": frames,
        "cam1:AcquireTime": 0,
        "cam1:AcquirePeriod": 0,
        "cam1:WaitForPlugins": "Yes",
        "HDF1:EnableCallbacks": "Enable",
        "HDF1:BlockingCallbacks": blocking,
        "HDF1:DroppedArrays": 0,
        "HDF1:FilePath": str(directory),
        "HDF1:FileName": "ours",
        "HDF1:FileWriteMode": "Stream",
        "HDF1:NumCapture": frames,
        "HDF1:Compression": compression,
        "HDF1:ZLevel": 6,
    }
    for name, value in settings.items():
        put(name, value)
    epics.caput("ad:HDF1:Capture", 1)
    deadline = time.monotonic() + PATIENCE
    while not get("HDF1:Capture_RBV"):
        if time.monotonic() > deadline:
            sys.exit(f"no capture: {get('HDF1:WriteMessage', text=True)}")
    epics.caget("ad:cam1:Acquire")  # connected, so that only the acquisition is measured
    began = time.perf_counter()
    put("cam1:Acquire", 1)
    took = time.perf_counter() - began
    epics.caput("ad:HDF1:Capture", 0)  # dropped frames are waited for else
    while get("HDF1:Capture_RBV"):
        if time.monotonic() > deadline:
            sys.exit(f"the capture does not end: {get('HDF1:WriteMessage', text=True)}")
    path = Path(str(get("HDF1:FullFileName_RBV", text=True)))
    with h5py.File(path) as file:
        data = file["entry/data/data"]
        count = len(data)
        sample = directory / "sample.h5"
        if not sample.exists():
            with h5py.File(sample, "w") as copy:
                copy["data"] = data[:SAMPLE]
    path.unlink()
    return {
        "rate": count / took,
        "frames": count,
        "dropped": float(get("HDF1:DroppedArrays_RBV")),
        "message": str(get("HDF1:WriteMessage", text=True)),
    }


if __name__ == "__main__":
    what, blocks, number, where = sys.argv[1:]
    print(json.dumps(stream(what, blocks, int(number), Path(where))))
