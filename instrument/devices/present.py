"""What the sources of a snapshot have now; nothing is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from instrument.devices.pvs import TIMEOUT, PvList
from instrument.framework.snapshots import Entry, Snapshot


def present(snapshot: Snapshot, *, timeout: float = TIMEOUT, objects: Mapping[str, Any] | None = None) -> Snapshot:
    """Read now what a snapshot has.

    Args:
        snapshot: What tells the sources.
        timeout: How long PVs are waited for (s).
        objects: Devices by name, for what is no EPICS PV.
    """
    pvs = PvList(list(dict.fromkeys(entry.name for entry in snapshot.entries if entry.is_pv)), timeout=timeout)
    pvs.take()
    entries = []
    for entry in snapshot.entries:
        if not entry.is_pv:
            entries.append(_of_object(entry, objects or {}))
        elif reading := pvs.readings.get(entry.name):
            entries.append(Entry(entry.key, reading.data_key, reading.value, reading.timestamp))
        else:
            entries.append(replace(entry, value=None, timestamp=None, problem=pvs.unreachable[entry.name]))
    return Snapshot({"scan_id": "now", "iso8601": str(datetime.now())}, entries, {})


def _of_object(entry: Entry, objects: Mapping[str, Any]) -> Entry:
    device = objects.get(str(entry.data_key.get("object_name", "")))
    try:
        readings = {} if device is None else {**device.read_configuration(), **device.read()}
        reading = readings[entry.key]
    except Exception as error:
        known = "no device of this name is here" if isinstance(error, KeyError) else " ".join(str(error).split())
        return replace(entry, value=None, timestamp=None, problem=f"it is no EPICS PV, and {known}")
    return replace(entry, value=reading["value"], timestamp=reading["timestamp"], problem=None)
