"""Tables of what devices hold, as `apstools.utils` prints them, without its seconds of imports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from ophyd import Signal

from instrument.config.errors import UserError

if TYPE_CHECKING:
    from pyRestTable import Table

NOT_CONNECTED = "-n/c-"


def listdevice(obj: Any, scope: Literal["read", "full"] = "read") -> Table:
    """Print name, value and time of the signals of a device.

    Args:
        obj: An ophyd device or signal.
        scope: "read" for what a scan records of it, "full" for every signal.

    Returns:
        The table that was printed.
    """
    table = _table("name", "value", "timestamp")
    if scope == "read":
        for name, reading in obj.read().items():
            table.addRow((name, reading["value"], datetime.fromtimestamp(reading["timestamp"])))
    elif scope == "full":
        for signal in _signals(obj):
            value = signal.get() if signal.connected else NOT_CONNECTED
            table.addRow((signal.name, value, datetime.fromtimestamp(signal.timestamp or 0)))
    else:
        raise UserError(f"listdevice: scope={scope!r} is neither 'read' nor 'full'")
    print(table.reST(fmt="plain"))
    return table


def listobjects(devices: Mapping[str, Any]) -> Table:
    """Print name, class, PV prefix and labels of devices.

    Args:
        devices: The devices by the name that they have at the prompt.

    Returns:
        The table that was printed.
    """
    table = _table("name", "ophyd structure", "EPICS PV", "label(s)")
    for name in sorted(devices):
        device = devices[name]
        labels = " ".join(sorted(getattr(device, "_ophyd_labels_", ())))
        table.addRow((name, type(device).__name__, prefix_of(device), labels))
    print(table)
    return table


def prefix_of(device: Any) -> str:
    """The PV of a signal, the PV prefix of a device, or nothing."""
    return getattr(device, "pvname", None) or getattr(device, "prefix", None) or ""


def _table(*labels: str) -> Table:
    import pyRestTable

    table = pyRestTable.Table()
    table.labels = list(labels)
    return table


def _signals(obj: Any) -> Iterator[Signal]:
    if isinstance(obj, Signal):
        yield obj
    for attr in getattr(obj, "component_names", ()):
        yield from _signals(getattr(obj, attr))
