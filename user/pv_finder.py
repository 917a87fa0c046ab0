"""Which ophyd objects use an EPICS PV.

An example of user code: load it into a session, edit it, and load it again without leaving the session.

    In [1]: %run -im pv_finder

    In [2]: findpv("gp:userCalc8.CALC")
    Out[2]:
    {'read': ['calcs.calc8.calculation', 'temperature.calculation'],
     'write': ['calcs.calc8.calculation', 'temperature.calculation']}
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ophyd import Device
from ophyd.device import Component, do_not_wait_for_lazy_connection
from ophyd.ophydobj import OphydObject
from ophyd.signal import EpicsSignalBase

__all__ = ["findpv"]


def findpv(pvname: str) -> dict[str, list[str]]:
    """Find the ophyd objects of this session that read or write a PV.

    Args:
        pvname: Name of the PV; a record's name stands for its `.VAL` field.

    Returns:
        Dotted names of the objects that read it, and of those that write it.
    """
    wanted = _plain(pvname)
    found: dict[str, set[str]] = {"read": set(), "write": set()}
    for obj in _ophyd_objects(_namespace()):
        for signal in _signals(obj, wanted):
            if _plain(signal.pvname) == wanted:
                found["read"].add(_dotted_name(signal))
            if _plain(getattr(signal, "setpoint_pvname", "")) == wanted:
                found["write"].add(_dotted_name(signal))
    return {mode: sorted(names) for mode, names in found.items()}


def _namespace() -> Mapping[str, Any]:
    """The names at the prompt, or those of the script that runs."""
    if "IPython" in sys.modules and (shell := sys.modules["IPython"].get_ipython()) is not None:
        return shell.user_ns
    return vars(sys.modules["__main__"])


def _ophyd_objects(namespace: Mapping[str, Any]) -> Iterator[OphydObject]:
    """The ophyd objects among some names, and those that its `oregistry` knows.

    Types are looked at, not objects: merely asking a catalog that is loaded at first use for its class would load it.
    """
    for value in list(namespace.values()):
        if issubclass(type(value), OphydObject):
            yield value
    yield from getattr(namespace.get("oregistry"), "root_devices", ())


def _signals(obj: Any, wanted: str) -> Iterator[EpicsSignalBase]:
    """The EPICS signals of an object.

    Components that have not been used yet are made only if the PV may be theirs; nothing is waited for.
    """
    if isinstance(obj, EpicsSignalBase):
        yield obj
    elif isinstance(obj, Device):
        with do_not_wait_for_lazy_connection(obj):
            for attr, component in obj._sig_attrs.items():  # noqa: SLF001  walking the components would make them all
                if attr in obj._signals or not component.lazy or _may_have(obj, component, wanted):  # noqa: SLF001
                    yield from _signals(getattr(obj, attr), wanted)


def _may_have(device: Device, component: Component, wanted: str) -> bool:
    """Whether a PV may belong to a component that has not been made yet."""
    if not issubclass(component.cls, (Device, EpicsSignalBase)):
        return False  # computed from other signals, which it would wait for
    suffixes = {"suffix": component.suffix, **component.kwargs}
    prefixes = [
        component.maybe_add_prefix(device, key, suffix)
        for key, suffix in suffixes.items()
        if key in component.add_prefix and isinstance(suffix, str)
    ]
    return not prefixes or any(wanted.startswith(_plain(prefix)) for prefix in prefixes)


def _dotted_name(signal: EpicsSignalBase) -> str:
    return ".".join(part for part in (signal.root.name, signal.dotted_name) if part)


def _plain(pvname: str) -> str:
    return pvname.removesuffix(".VAL")
