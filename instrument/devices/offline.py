"""A device that is offline says so at once, whatever is done with it.

ophyd waits up to a second for each dead signal, or says only that "m1 is not connected". Which device, which PV and
whose prefix is what a person at a beamline needs. While a device is offline, it and its components therefore have a
subclass of their own class whose every way to the hardware raises one line; online, they are exactly what their class
says. See docs/explanations/decisions/offline-devices.md for the alternatives.
"""

from __future__ import annotations

import functools
import inspect
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from ophyd import Device, EpicsMotor
from ophyd.ophydobj import OphydObject
from ophyd.signal import EpicsSignalBase

from instrument.devices.errors import OfflineError
from instrument.devices.listing import prefix_of
from instrument.devices.statuses import fail_waiting

# The ways to the hardware of a device, beside its signals.
METHODS = (
    "complete",
    "collect",
    "configure",
    "describe",
    "describe_configuration",
    "get",
    "home",
    "kickoff",
    "move",
    "prepare",
    "put",
    "read",
    "read_configuration",
    "set",
    "set_current_position",
    "stage",
    "stop",
    "trigger",
)
FIRST_VALUES, POLL = 3.0, 0.005  # s; how long first values of PVs that answer are waited for, and how often looked for
PROPERTIES = ("egu", "high_limit", "limits", "low_limit", "moving", "position", "precision")


def answers(device: Any) -> bool:
    """Whether a device can be used; what has no notion of it, such as a simulated device, always can."""
    if not isinstance(device, (Device, EpicsSignalBase)):
        return bool(getattr(device, "connected", True))
    for part in needed(device):
        if isinstance(part, EpicsSignalBase) and not part.connected:
            return False
        waiting = getattr(part, "_required_for_connection", None)  # ophyd's: a first monitor has not come yet
        if isinstance(part, EpicsMotor) and (waiting or part._position is None):  # noqa: SLF001  subclasses wait for none
            tell_first_values(part)
            return False
        if waiting:
            return False
    return True


def answers_soon(device: Any) -> bool:
    """Whether a device can be used; one all of whose PVs answer is given a moment to hear their first values.

    They come on a thread of ophyd's. A PV that does not answer is told at once.
    """
    deadline = time.monotonic() + FIRST_VALUES
    while not answers(device):
        if first_dead_pv(device) is not None or time.monotonic() >= deadline:
            return False
        time.sleep(POLL)
    return True


def tell_first_values(motor: EpicsMotor) -> None:
    """Tell a motor where it is, and whether it moves, if its signals know.

    ophyd subscribes to these when they are made, and misses a first value that comes sooner: on a busy machine now and
    then, and on a channel that is there already, because a snapshot has read the PV for instance.
    """
    signals: tuple[Any, Any] = (motor.user_readback, motor.motor_done_move)
    for signal, changed in zip(signals, (motor._pos_changed, motor._move_changed), strict=True):  # noqa: SLF001
        signal.unsubscribe(signal.subscribe(changed, run=True))


def first_dead_pv(device: Any) -> str | None:
    """The first PV of a device that does not answer; None if all do that are needed."""
    for part in needed(device):
        if isinstance(part, EpicsSignalBase) and not part.connected:
            states = part._connection_states  # noqa: SLF001  ophyd tells nowhere else which of two PVs is dead
            return next((pv for pv, connected in states.items() if not connected), part.pvname)
    return None


def is_connecting(device: Any) -> bool:
    """Whether an answer has come that ophyd's threads still work on; destroying the device now can crash libca."""
    signals = (part for part in parts(device) if isinstance(part, EpicsSignalBase))
    return any(any(signal._connection_states.values()) and not signal.connected for signal in signals)  # noqa: SLF001


def needed(device: Any) -> Iterator[Any]:
    """A device and those of its components that must answer for it to be usable.

    A component that is connected at first use counts once it was connected: a motor record without one rarely used
    field is still a motor.
    """
    for part, at_first_use in _walk(device, False):
        if not at_first_use or (isinstance(part, EpicsSignalBase) and _was_connected(part)):
            yield part


def parts(device: Any) -> Iterator[Any]:
    """A device and those of its components that exist."""
    return (part for part, _ in _walk(device, False))


def _walk(device: Any, at_first_use: bool) -> Iterator[tuple[Any, bool]]:
    yield device, at_first_use
    if isinstance(device, Device):
        made, components = device._signals, device._sig_attrs  # noqa: SLF001  asking for a component would make it
        for attr, part in list(made.items()):
            yield from _walk(part, at_first_use or components[attr].lazy)


_were_connected: weakref.WeakSet[EpicsSignalBase] = weakref.WeakSet()


def _was_connected(signal: EpicsSignalBase) -> bool:
    """Whether it was ever seen connected. ophyd keeps nothing that tells this from a signal that is about to be."""
    if signal.connected:
        _were_connected.add(signal)
    return signal in _were_connected


def error(device: Any, known_dead: str | None = None) -> OfflineError:
    """What using an offline device raises.

    Args:
        device: A device or a component of one.
        known_dead: The PV to be named if all answer by now.
    """
    root = getattr(device, "root", device)
    prefix = prefix_of(root)
    return OfflineError(f"{root.name} is offline: {no_answer(first_dead_pv(root) or known_dead, prefix)}")


def no_answer(dead_pv: str | None, prefix: str) -> str:
    """Which PV does not answer, and whose it is."""
    shown = dead_pv or prefix
    return f"no answer from {shown}" if prefix in {shown, ""} else f"no answer from {shown} (prefix {prefix})"


def take_offline(device: Any) -> None:
    """Make every use of a device raise OfflineError, and end what waits for it."""
    for part in parts(device):
        if isinstance(part, OphydObject) and not isinstance(part, _Offline):
            part.__class__ = _offline_class(type(part))
    reason = error(device)
    for part in parts(device):
        fail_waiting(part, reason)


def bring_online(device: Any) -> None:
    """Undo `take_offline`."""
    for part in parts(device):
        if isinstance(part, _Offline):
            part.__class__ = part.online[0]


class _Offline:
    """Marks the subclasses made here."""

    online: tuple[type]  # not the bare class: ophyd takes what has its attributes for a component


class _OfflineSignal(_Offline):
    """What `get`, `put`, `set` and `wait_for_connection` of a signal come to."""

    def _ensure_connected(self: Any, *pvs: Any, timeout: float) -> None:
        if not self.connected:
            raise error(self)
        EpicsSignalBase._ensure_connected(self, *pvs, timeout=timeout)  # noqa: SLF001  the one way through which all go


class _OfflineDevice(_Offline):
    """A component that does not exist yet can't be connected now."""

    def _instantiate_component(self: Any, attr: str) -> Any:
        component = self._sig_attrs[attr]
        if component.lazy and getattr(self, "lazy_wait_for_connection", True) and first_dead_pv(self.root):
            raise error(self)
        made = Device._instantiate_component(self, attr)  # noqa: SLF001  as its own class does
        take_offline(made)
        return made


@functools.cache
def _offline_class(cls: type) -> type:
    """The subclass that objects of a class have while they are offline; it looks like the class."""
    members: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "online": (cls,),
    }
    if not issubclass(cls, (EpicsSignalBase, Device)):
        return type(cls.__name__, (_Offline, cls), members)
    for name in METHODS:
        method = inspect.getattr_static(cls, name, None)
        if inspect.isfunction(method):
            members[name] = _raising(method)
    if issubclass(cls, EpicsSignalBase):
        return type(cls.__name__, (_OfflineSignal, cls), members)
    for name in PROPERTIES:
        static = inspect.getattr_static(cls, name, None)
        if isinstance(static, property) and static.fget is not None:
            members[name] = property(_raising(static.fget), static.fset, doc=static.__doc__)
    return type(cls.__name__, (_OfflineDevice, cls), members)


def _raising(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def raising(self: Any, *args: Any, **kwargs: Any) -> Any:
        # A signal that answers can be used, also if others of its device do not.
        if first_dead_pv(self if isinstance(self, EpicsSignalBase) else self.root):
            raise error(self)
        return method(self, *args, **kwargs)

    return raising
