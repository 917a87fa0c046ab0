"""Factories for devices.yml: several devices in one entry, or one that exists already.

They take the keywords of the factories of the APS BITS packages (`apsbits.utils.sim_creator`), whose files use them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any


def predefined_device(*, name: str = "", creator: str) -> Iterator[Any]:
    """A device that some module holds already, such as `ophyd.sim.motor`.

    Args:
        name: The name that it gets; its own by default.
        creator: Dotted path of the device.
    """
    device = _import(creator)
    if name:
        device.name = name
    yield device


def factory_base(
    *,
    prefix: str | None = None,
    names: str = "object{}",
    first: int = 0,
    last: int = 0,
    creator: str = "ophyd.Signal",
    **kwargs: Any,
) -> Iterator[Any]:
    """Numbered devices of one class.

    Args:
        prefix: PV prefix; `{}` in it becomes the number, which else is appended.
        names: The devices' names, in the same way.
        first: The first number.
        last: The last one.
        creator: Dotted path of the class.
        kwargs: Further keywords for each device.
    """
    cls = _import(creator)
    for number in range(min(first, last), max(first, last) + 1):
        numbered = {"name": _numbered(names, number)}
        if prefix is not None:
            numbered["prefix"] = _numbered(prefix, number)
        yield cls(**numbered, **kwargs)


def motors(*, prefix: str, names: str = "m{}", first: int = 0, last: int = 0, **kwargs: Any) -> Iterator[Any]:
    """Numbered motors; see `factory_base`."""
    creator = "instrument.devices.motors.Motor"
    yield from factory_base(prefix=prefix, names=names, first=first, last=last, creator=creator, **kwargs)


def _numbered(pattern: str, number: int) -> str:
    return pattern.format(number) if "{" in pattern else f"{pattern}{number}"


def _import(path: str) -> Any:
    module, _, attribute = path.rpartition(".")
    return getattr(importlib.import_module(module), attribute)
