"""From device specifications to devices, and finding devices by name and label."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import pkgutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from ophyd.ophydobj import OphydObject

from instrument.config.errors import ConfigError, Problem, UserError, nearest
from instrument.config.loader import OWN_KEYS, taken, unusable
from instrument.config.models import DeviceSpec
from instrument.devices.offline import is_connecting

ALIASES = {"apsbits.utils.sim_creator": "instrument.devices.factories"}
"""Modules that BITS files name, and what does the same here if they are not installed."""

SETTLE = 2.0  # s, at most, until devices can be destroyed
_NAMED = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


# --- checks ----------------------------------------------------------------------------------------------------------


def check(specs: Sequence[DeviceSpec], exported_names: Collection[str] = ()) -> list[Problem]:
    """What is wrong with device specifications, without making a device.

    Disabled devices are checked as well, except that their class may be missing on this machine.

    Args:
        specs: As `instrument.config.load` gives them.
        exported_names: Names of the user's namespace that a device may not take.
    """
    problems: list[Problem] = []
    resolved: dict[str, Any] = {}
    for spec in specs:
        if spec.cls not in resolved:
            resolved[spec.cls] = _resolve(spec.cls)
            if isinstance(resolved[spec.cls], _Unresolved) and spec.enabled:
                failure = resolved[spec.cls]
                problems.append(Problem(spec.file, spec.class_line, spec.cls, failure.reason, failure.suggestion))
        if spec.name in exported_names:
            problems.append(taken(spec))
        target = resolved[spec.cls]
        if not isinstance(target, _Unresolved):
            problems += _keyword_problems(spec, target)
    return problems


class _Unresolved:
    """A class path that leads nowhere."""

    def __init__(self, reason: str, suggestion: str | None = None) -> None:
        self.reason = reason
        self.suggestion = suggestion


def _resolve(path: str) -> Any:
    """The class or factory at a dotted path, or why there is none."""
    module_name, _, attribute = path.rpartition(".")
    if module_name in ALIASES and importlib.util.find_spec(module_name.partition(".")[0]) is None:
        module_name = ALIASES[module_name]
    holder = _import(module_name)
    if isinstance(holder, _Unresolved):
        suggestion = holder.suggestion
        return _Unresolved(holder.reason, f"{suggestion}.{attribute}" if suggestion else None)
    target = getattr(holder, attribute, None)
    if target is None:
        near = nearest(attribute, [name for name, value in vars(holder).items() if callable(value)])
        reason = f"{module_name} has no class {attribute!r}"
        return _Unresolved(reason, f"{module_name}.{near}" if near else None)
    if not callable(target):
        return _Unresolved(f"{path} is neither a class nor a function")
    return target


def _import(name: str) -> ModuleType | type | _Unresolved:
    """The module, or the class that holds the target, at a dotted path."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            return _Unresolved(f"{name} cannot be imported: it needs {error.name}, which is not installed")
    except Exception as error:
        return _Unresolved(f"{name} cannot be imported: {type(error).__name__}: {error}")
    parent_name, _, last = name.rpartition(".")
    if not parent_name:
        return _Unresolved(f"there is no package {name!r} on this machine", nearest(name, _packages()))
    parent = _import(parent_name)
    if isinstance(parent, _Unresolved):
        suggestion = parent.suggestion
        return _Unresolved(parent.reason, f"{suggestion}.{last}" if suggestion else None)
    inner = getattr(parent, last, None)
    if isinstance(inner, type):
        return inner
    modules = [found.name for found in pkgutil.iter_modules(getattr(parent, "__path__", ()))]
    near = nearest(last, modules)
    return _Unresolved(f"{parent_name} has no module {last!r}", f"{parent_name}.{near}" if near else None)


def _packages() -> list[str]:
    """Packages that a device class may come from."""
    return [found.name for found in pkgutil.iter_modules() if not found.name.startswith("_")]


def _keyword_problems(spec: DeviceSpec, target: Any) -> list[Problem]:
    """Misspelt and missing keywords, by the signature of the class or factory."""
    accepted, required, open_ended = _signature(target)
    if "labels" not in accepted and not open_ended:
        accepted = accepted | {"labels"}  # given to the device after it is made
    problems = []
    for key in spec.kwargs:
        if key not in accepted and not open_ended:
            suggestion = nearest(key, [*accepted, *OWN_KEYS])
            problems.append(_problem(spec, key, f"{target.__name__} takes no such keyword", suggestion))
    if inspect.isclass(target) and "name" in accepted:
        required = required | {"name"}
    missing = sorted(required - spec.kwargs.keys())
    problems += [_problem(spec, key, f"{target.__name__} needs this keyword") for key in missing]
    return problems


def _signature(target: Any) -> tuple[set[str], set[str], bool]:
    """Keywords that a callable accepts, those that it needs, and whether it accepts any other.

    A class whose `__init__` passes `**kwargs` on accepts what its base classes do; what they need is its own affair.
    """
    if not inspect.isclass(target):
        return _parameters(target)
    accepted: set[str] = set()
    required: set[str] | None = None
    for cls in target.__mro__:
        if "__init__" not in vars(cls) or cls is object:
            continue
        names, needed, more = _parameters(vars(cls)["__init__"], skip_first=True)
        accepted |= names
        required = needed if required is None else required
        if not more:
            break
    return accepted, required or set(), False


def _parameters(function: Any, *, skip_first: bool = False) -> tuple[set[str], set[str], bool]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # written in C
        return set(), set(), True
    if skip_first:
        parameters = parameters[1:]
    accepted = {parameter.name for parameter in parameters if parameter.kind in _NAMED}
    required = {p.name for p in parameters if p.kind in _NAMED and p.default is inspect.Parameter.empty}
    return accepted, required, any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def _problem(spec: DeviceSpec, key: str, message: str, suggestion: str | None = None) -> Problem:
    line = spec.key_lines.get(key, spec.line)
    return Problem(spec.file, line, f"{spec.name or spec.cls}{'.' if key else ''}{key}", message, suggestion)


# --- making ----------------------------------------------------------------------------------------------------------


class Devices(dict[str, OphydObject]):
    """Devices by name, in the order of the files.

    Attributes:
        specs: What each was made from, by its name.
        disabled: What was not made.
    """

    def __init__(self) -> None:
        super().__init__()
        self.specs: dict[str, DeviceSpec] = {}
        self.disabled: list[DeviceSpec] = []

    @property
    def baseline(self) -> list[OphydObject]:
        """The devices that are recorded at the start and end of each run."""
        return [device for name, device in self.items() if self.specs[name].baseline]

    @property
    def core(self) -> set[str]:
        """Names of the devices that are waited for before the prompt."""
        return {name for name in self if self.specs[name].core}


def build(specs: Sequence[DeviceSpec], exported_names: Collection[str] = ()) -> Devices:
    """Make the enabled devices; nothing is waited for, nothing is written.

    Raises:
        ConfigError: With every mistake; then no device was made, unless it shows only in the making.
    """
    if problems := check(specs, exported_names):
        raise ConfigError(problems)
    devices = Devices()
    for spec in specs:
        if not spec.enabled:
            devices.disabled.append(spec)
            continue
        try:
            made = _make(spec)
        except Exception as error:
            reason = str(error).strip().splitlines() or [""]
            problems.append(_problem(spec, "", f"cannot be made: {type(error).__name__}: {reason[0]}"))
            continue
        for device in made:
            if reason := _unfit(device, exported_names, devices.specs):
                problems.append(_problem(spec, "", reason))
            else:
                devices[device.name] = device
                devices.specs[device.name] = spec
    if problems:
        _discard(devices.values())
        raise ConfigError(problems)
    return devices


def _make(spec: DeviceSpec) -> list[Any]:
    target = _resolve(spec.cls)
    kwargs = copy.deepcopy(spec.kwargs)
    accepted, _, open_ended = _signature(target)
    if "labels" not in accepted and not open_ended:
        kwargs.pop("labels", None)
    made = target(**kwargs)
    found = [made] if isinstance(made, OphydObject) or not isinstance(made, Iterable) else list(made)
    for device in found:
        if hasattr(device, "_ophyd_labels_"):
            device._ophyd_labels_ = set(device._ophyd_labels_) | set(spec.labels)
    return found


def _discard(devices: Collection[Any]) -> None:
    """Destroy devices, once the answers that they have got are digested."""
    end = time.monotonic() + SETTLE
    time.sleep(SETTLE / 20)  # the answers to what was asked a moment ago
    while time.monotonic() < end and any(map(is_connecting, devices)):
        time.sleep(SETTLE / 200)
    for device in devices:
        device.destroy()


def _unfit(device: Any, exported_names: Collection[str], made: Mapping[str, DeviceSpec]) -> str | None:
    """Why what a factory returned cannot be a device of the session, or None."""
    name = getattr(device, "name", None)
    if not isinstance(name, str):
        return f"made {device!r}, which is no device"
    if reason := unusable(name):
        return f"made a device with an unusable name: {reason}"
    if name in exported_names:
        return f"made {name!r}, the name of something else at the prompt"
    if name in made:
        return f"made a second {name!r}; the first is on line {made[name].line} of {made[name].file.name}"
    return None


# --- finding ---------------------------------------------------------------------------------------------------------


class Registry(Mapping[str, Any]):
    """Devices by name and label: `oregistry["m1"]`, `oregistry.findall("motor")`.

    It looks at devices as they are, and never makes a component that nobody has used yet.
    """

    def __init__(self, devices: Mapping[str, Any]) -> None:
        self._devices = devices

    def __getitem__(self, name: str) -> Any:
        device, *parts = name.split(".")
        try:
            found = self._devices[device]
        except KeyError:
            near = nearest(device, self._devices)
            hint = f"; did you mean {near!r}?" if near else "; devices() lists them"
            raise UnknownDeviceError(f"no device is named {device!r}{hint}") from None
        for part in parts:
            if not hasattr(type(found), part):
                near = nearest(part, getattr(found, "component_names", ()))
                hint = f"; did you mean {near!r}?" if near else ""
                raise UnknownDeviceError(f"{found.name} has no {part!r}{hint}")
            found = getattr(found, part)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._devices

    def __iter__(self) -> Iterator[str]:
        return iter(self._devices)

    def __len__(self) -> int:
        return len(self._devices)

    def __repr__(self) -> str:
        labels = "; ".join(f"{label}: {', '.join(d.name for d in self.findall(label))}" for label in self.labels)
        return f"<{len(self)} devices; {labels}>"

    @property
    def device_names(self) -> list[str]:
        """Names of all devices."""
        return list(self._devices)

    @property
    def root_devices(self) -> list[Any]:
        """All devices."""
        return list(self._devices.values())

    @property
    def labels(self) -> list[str]:
        """All labels that some device or component has."""
        found = {label for device in self._devices.values() for part in _parts(device) for label in _labels(part)}
        return sorted(found)

    def find(self, any_of: str | None = None, *, label: str | None = None, name: str | None = None) -> Any:
        """The one device with a name or label.

        Raises:
            UserError: There is none, or more than one.
        """
        found = self.findall(any_of, label=label, name=name)
        if len(found) > 1:
            names = ", ".join(device.name for device in found)
            raise UserError(f"{len(found)} devices have {any_of or label or name!r}: {names}; findall() gives them")
        return found[0]

    def named(self, name: str) -> Any:
        """The device or component that documents call `name`, such as "slits_top"; None if there is none."""
        if name in self._devices:
            return self._devices[name]
        parts = (part for device in self._devices.values() for part in _parts(device))
        return next((part for part in parts if getattr(part, "name", None) == name), None)

    def findall(
        self, any_of: str | None = None, *, label: str | None = None, name: str | None = None, allow_none: bool = False
    ) -> list[Any]:
        """All devices and components with a name or label.

        Args:
            any_of: A name (dotted for a component) or a label.
            label: A label only.
            name: A name only.
            allow_none: Return an empty list if there is none.

        Raises:
            UserError: There is none.
        """
        names = (wanted for wanted in (any_of, name) if wanted and wanted.partition(".")[0] in self._devices)
        found = [self[wanted] for wanted in names]
        for wanted in (any_of, label):
            if wanted:
                parts = (part for device in self._devices.values() for part in _parts(device))
                found += [part for part in parts if wanted in _labels(part) and part not in found]
        if not found and not allow_none:
            wanted = any_of or label or name or ""
            near = nearest(wanted, [*self._devices, *self.labels])
            hint = f"; did you mean {near!r}?" if near else ""
            raise UnknownDeviceError(f"no device has the name or label {wanted!r}{hint}")
        return found


class UnknownDeviceError(UserError, KeyError):
    """No device of that name; also a KeyError."""

    def __str__(self) -> str:
        return str(self.args[0])


def shortcuts(devices: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    """The objects behind the shortcuts of iconfig.yml.

    Args:
        devices: The devices by name.
        paths: Dotted paths by the name that they get.

    Returns:
        The objects by shortcut; a shortcut into a device that is disabled is left out.

    Raises:
        UserError: A path leads nowhere.
    """
    found: dict[str, Any] = {}
    for shortcut, path in paths.items():
        name, *parts = path.split(".")
        if name not in devices:
            continue
        target: Any = devices[name]
        for part in parts:
            choices = getattr(target, "component_names", ())
            if part not in choices and not hasattr(type(target), part):
                near = nearest(part, choices)
                hint = f"; did you mean {near!r}?" if near else ""
                raise UserError(f"shortcut {shortcut}: {target.name} has no {part!r} ({path}){hint}")
            target = getattr(target, part)
        found[shortcut] = target
    return found


def path_of(device: Any) -> str:
    """What finds a device or component at the prompt and in the registry: "m1", "slits.top"."""
    path = getattr(device, "dotted_name", "")
    return f"{device.root.name}.{path}" if path else device.name


def _parts(device: Any) -> Iterator[Any]:
    """A device and those of its components that exist."""
    yield device
    made = getattr(device, "_signals", None)
    if isinstance(made, dict):
        for part in list(made.values()):
            yield from _parts(part)


def _labels(part: Any) -> set[str]:
    return getattr(part, "_ophyd_labels_", None) or set()
