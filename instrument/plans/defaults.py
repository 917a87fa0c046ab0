"""Plans with a session's own devices: names stand for devices, and what is not given is filled in.

So `RE(two_pass_scan())` is all to type, `ascan("m1", -1, 1, 20)` is `ascan(m1, -1, 1, 20, detectors=counters())`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from instrument.config.errors import UserError, nearest
from instrument.plans.checks import fitting

# Keyword-only arguments of plans, and what a session fills in: a device, or a part of one.
DEVICES: Mapping[str, str] = MappingProxyType(
    {"detector": "noisy", "motor": "m1", "calc": "calcs.calc1", "camera": "adsimdet"}
)
COUNTERS = "detectors"  # the keyword-only argument that is filled with what counts, as it is at that moment
LABEL = "detectors"  # of the devices that count unless the user chooses others
NAMED = (
    "motor",
    "motor2",
    "detector",
    "detectors",
    "calc",
    "camera",
)  # arguments that a name of a device may be given for
PAIRS = ("moves", "arguments")  # motor, position, motor, position, ...


def device_of(devices: Mapping[str, Any], thing: Any) -> Any:
    """The device of a name, or a component ("scaler1.channels.chan02"); what is no text is returned as it is.

    Raises:
        UserError: No device has that name; the nearest is told.
    """
    if not isinstance(thing, str):
        return thing
    name, _, part = thing.partition(".")
    if name not in devices:
        near = nearest(name, devices)
        hint = f"; did you mean {near!r}?" if near else "; devices() lists them"
        raise UserError(f"no device is named {name!r}{hint}")
    try:
        return attrgetter(part)(devices[name]) if part else devices[name]
    except AttributeError as error:
        raise UserError(f"{name} has no {part!r}") from error


class Counters:
    """What scans count with, unless told otherwise.

    Args:
        devices: The session's devices by name.
        usable: Tells whether a device answers.
    """

    def __init__(self, devices: Mapping[str, Any], usable: Callable[[Any], bool] = lambda _device: True) -> None:
        self._devices = devices
        self._usable = usable
        self._chosen: list[Any] | None = None

    def choose(self, chosen: Sequence[Any]) -> None:
        """Count with these from now on; none: with the devices that have the label `detectors`.

        Raises:
            UserError: Something can't be read.
        """
        found = [device_of(self._devices, thing) for thing in chosen]
        for device in found:
            if not callable(getattr(device, "read", None)):
                raise UserError(f"counters: {getattr(device, 'name', device)!r} can't be read; nothing is changed")
        self._chosen = list(dict.fromkeys(found)) or None

    @property
    def devices(self) -> list[Any]:
        """What counts; of the devices that nobody chose, those that answer."""
        if self._chosen is not None:
            return list(self._chosen)
        labelled = [d for d in self._devices.values() if LABEL in (getattr(d, "_ophyd_labels_", None) or ())]
        return [device for device in labelled if self._usable(device)]


def with_devices(
    plan: Callable[..., Any], devices: Mapping[str, Any], counters: Counters | None = None, **parts: Any
) -> Callable[..., Any]:
    """`plan`, to which devices may be given by name, and with defaults for those of its keyword-only arguments.

    Args:
        plan: A plan.
        devices: The session's devices by name. Arguments whose default is not there stay as they are.
        counters: What `detectors` is filled with where it is keyword-only.
        parts: What else the session has, by the name of the argument that is filled with it.
    """
    signature = inspect.signature(plan)
    given = {name: part for name, part in parts.items() if name in signature.parameters}
    shown = {
        name: DEVICES[name]
        for name, parameter in signature.parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and DEVICES.get(name, "").partition(".")[0] in devices
    }
    given |= {name: device_of(devices, device) for name, device in shown.items()}
    counts = signature.parameters.get(COUNTERS)
    fill = counters is not None and counts is not None and counts.kind is counts.KEYWORD_ONLY
    positional = [p for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    pairs = any(p.kind is p.VAR_POSITIONAL and p.name in PAIRS for p in signature.parameters.values())

    def resolved(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [device_of(devices, one) for one in value]
        return device_of(devices, value)

    shown_signature = signature.replace(
        parameters=[
            parameter.replace(default=None if fill and name == COUNTERS else shown.get(name, parameter.default))
            for name, parameter in signature.parameters.items()
            if name not in parts
        ]
    )

    @functools.wraps(plan)
    def bound(*args: Any, **options: Any) -> Any:
        fitting(plan.__name__, shown_signature, args, {name: it for name, it in options.items() if name not in given})
        found = list(args)
        for number, value in enumerate(args):
            is_device = number % 2 == 0 if pairs else number < len(positional) and positional[number].name in NAMED
            if is_device and (not pairs or isinstance(value, str)):
                found[number] = resolved(value)
        chosen = {name: resolved(value) if name in NAMED else value for name, value in options.items()}
        if fill and COUNTERS not in chosen and counters is not None:
            chosen[COUNTERS] = counters.devices
        return plan(*found, **{**given, **chosen})

    bound.__signature__ = shown_signature  # type: ignore[attr-defined]  what inspect looks for
    return bound
