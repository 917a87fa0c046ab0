"""Find, read and check the configuration; every mistake is reported at once."""

from __future__ import annotations

import keyword
import os
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from instrument.config import documents, own_code
from instrument.config.documents import Document, Location
from instrument.config.errors import ConfigError, Problem, nearest
from instrument.config.models import Config, DeviceSpec, SessionFile

ENVIRONMENT_VARIABLE = "INSTRUMENT_CONFIG"
PACKAGED = Path(__file__).with_name("iconfig.yml")
PACKAGED_PREFIX, PACKAGED_AREA_DETECTOR = "gp:", "ad:"
"""The virtual beamline's PV prefixes as the packaged devices.yml has them."""

OWN_KEYS = ("baseline", "enabled", "core")
"""Keys of a device entry that are ours and are not handed to its class."""

DeviceCheck = Callable[[Sequence[DeviceSpec]], Iterable[Problem]]


def find(path: Path | str | None = None) -> Path:
    """The iconfig.yml to read: the argument, else $INSTRUMENT_CONFIG, else the one here, else the package's own.

    A directory stands for the iconfig.yml in it.
    """
    here = Path.cwd() / "iconfig.yml"
    chosen = Path(path or os.environ.get(ENVIRONMENT_VARIABLE) or (here if here.is_file() else PACKAGED)).expanduser()
    return chosen / "iconfig.yml" if chosen.is_dir() else chosen


def load(
    path: Path | str | None = None,
    *,
    check_devices: DeviceCheck | None = None,
    exported_names: Collection[str] = (),
) -> Config:
    """Read iconfig.yml and the device files that it names.

    Args:
        path: See `find`.
        check_devices: Further checks of the devices that are readable, such as `instrument.devices.registry.check`;
            what it finds is reported together with the rest.
        exported_names: Names of the user's namespace that neither a device nor a shortcut may take.

    Raises:
        ConfigError: With every mistake in every file.
    """
    file = find(path)
    document = documents.read(file)
    settings = _settings(document)
    problems = list(document.problems)

    device_files: list[Path] = []
    specs: list[DeviceSpec] = []
    for index, name in enumerate(_device_file_names(document, settings)):
        device_file = file.parent / name
        if not device_file.is_file():
            suggestion = nearest(name, [found.name for found in file.parent.glob("*.y*ml")])
            line = document.line(("devices", index))
            problems.append(Problem(file, line, "devices", f"there is no file {name!r} beside it", suggestion))
        elif device_file in device_files:
            line = document.line(("devices", index))
            problems.append(Problem(file, line, "devices", f"{name!r} is listed twice"))
        else:
            device_files.append(device_file)
            devices = documents.read(device_file)
            specs += device_specs(devices, specs)
            problems += devices.problems

    code = [file.parent / name for name in settings.code] if settings is not None else []
    problems += _code_problems(document, code)
    problems += _shortcut_problems(document, specs, exported_names)
    problems += [taken(spec) for spec in specs if spec.name in exported_names]
    if settings is not None:
        beamline = settings.virtual_beamline
        served = {
            PACKAGED_PREFIX: beamline.prefix,
            PACKAGED_AREA_DETECTOR: beamline.area_detector or PACKAGED_AREA_DETECTOR,
        }
        specs = [_with_prefixes(spec, served) for spec in specs]
    if check_devices is not None:
        if code and not problems:
            problems += own_code.load(code).problems  # devices.yml may name their classes
        problems += check_devices(specs)
    if problems or settings is None:
        raise ConfigError(problems)
    values = {name: getattr(settings, name) for name in SessionFile.model_fields if name not in {"devices", "code"}}
    return Config(**values, file=file, device_files=tuple(device_files), code=tuple(code), devices=tuple(specs))


# --- iconfig.yml -----------------------------------------------------------------------------------------------------


def _settings(document: Document) -> SessionFile | None:
    """The validated iconfig.yml; its mistakes go into the document's problems."""
    if document.content is None and document.problems:  # nothing of it could be read
        return None
    content = {} if document.content is None else document.content
    if not isinstance(content, dict):
        document.problem((), "", "must hold `key: value` lines")
        return None
    try:
        return SessionFile.model_validate(content)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            _note(document, detail)
        return None


def _note(document: Document, detail: Any) -> None:
    """Turn one of pydantic's error details into a problem."""
    location: Location = tuple(part for part in detail["loc"] if part != "[key]")
    key = ".".join(map(str, location))
    given = detail.get("input")
    kind = detail["type"]
    suggestion = None
    if kind == "extra_forbidden":
        message = "unknown key"
        suggestion = nearest(str(location[-1]), _fields(location[:-1]))
    elif kind == "missing":
        message = "is missing"
    elif kind in {"model_type", "dict_type"}:
        message = f"needs indented `key: value` lines, not {given!r}"
    elif kind == "literal_error":
        choices = detail["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        message = f"{given!r} is none of {', '.join(choices)}"
        suggestion = nearest(str(given), choices)
    else:
        message = f"{detail['msg'][0].lower()}{detail['msg'][1:]}, not {given!r}"
    document.problem(location, key, message, suggestion)


def _fields(location: Location) -> list[str]:
    """The keys that the model at a path knows."""
    model: type[BaseModel] = SessionFile
    for part in location:
        if isinstance(part, int):  # the place in a list, whose model it is
            continue
        annotation = model.model_fields[str(part)].annotation
        options = typing.get_args(annotation) or (annotation,)
        model = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    return list(model.model_fields)


def _device_file_names(document: Document, settings: SessionFile | None) -> list[str]:
    """The device files named, also when something else in iconfig.yml is wrong."""
    if settings is not None:
        return list(settings.devices)
    if not isinstance(document.content, dict):
        return []
    named = document.content.get("devices", SessionFile.model_fields["devices"].default)
    return [name for name in named if isinstance(name, str)] if isinstance(named, (list, tuple)) else []


def _code_problems(document: Document, code: Sequence[Path]) -> list[Problem]:
    """The user's Python files must be there, and have names that can be imported."""
    problems = []
    for index, path in enumerate(code):
        line = document.line(("code", index))
        if not path.is_file():
            suggestion = nearest(path.name, [found.name for found in path.parent.glob("*.py")])
            problems.append(Problem(document.file, line, "code", f"there is no file {path.name!r}", suggestion))
        elif path.suffix != ".py":
            problems.append(Problem(document.file, line, "code", f"{path.name!r} must end in .py"))
        elif reason := unusable(path.stem):
            problems.append(Problem(document.file, line, "code", reason))
    return problems


def _shortcut_problems(
    document: Document, specs: Sequence[DeviceSpec], exported_names: Collection[str]
) -> list[Problem]:
    """Shortcuts must be usable names, not taken, and start at a device."""
    shortcuts = document.content.get("shortcuts") if isinstance(document.content, dict) else None
    if not isinstance(shortcuts, dict):
        return []
    problems = []
    by_name = {spec.name: spec for spec in specs if spec.name}
    factories = any(not spec.name for spec in specs)
    for name, target in shortcuts.items():
        line, key = document.line(("shortcuts", name)), f"shortcuts.{name}"
        if reason := unusable(name):
            problems.append(Problem(document.file, line, key, reason))
        elif name in exported_names:
            problems.append(Problem(document.file, line, key, TAKEN))
        elif name in by_name:
            first = by_name[name]
            message = f"is already the device on line {first.line} of {first.file.name}"
            problems.append(Problem(document.file, line, key, message))
        if not isinstance(target, str):
            continue
        device = target.partition(".")[0]
        if device not in by_name and not factories:
            suggestion = nearest(device, by_name)
            problems.append(Problem(document.file, line, key, f"there is no device {device!r}", suggestion))
    return problems


# --- devices.yml -----------------------------------------------------------------------------------------------------


TAKEN = "is the name of something else at the prompt; choose another"


def taken(spec: DeviceSpec) -> Problem:
    """A device that would hide another name of the user's namespace."""
    return Problem(spec.file, spec.key_lines.get("name", spec.line), f"{spec.name}.name", TAKEN)


def unusable(name: str) -> str | None:
    """Why a text cannot be the name of a device, or None."""
    if not name.isidentifier():
        return f"{name!r} is no Python name; use letters, digits and underscores"
    if keyword.iskeyword(name):
        return f"{name!r} is a word of the Python language; choose another name"
    return None


def device_specs(document: Document, earlier: Sequence[DeviceSpec] = ()) -> list[DeviceSpec]:
    """The readable entries of a device file; what is wrong goes into the document's problems."""
    content = document.content
    if content is None:
        return []
    if not isinstance(content, dict):
        document.problem((), "", "must hold `class.path:` lines, each followed by a list of devices")
        return []
    taken = {spec.name: spec for spec in earlier if spec.name}
    specs: list[DeviceSpec] = []
    for cls, entries in content.items():
        if not all(part.isidentifier() for part in cls.split(".")) or "." not in cls:
            document.problem((cls,), cls, "is no dotted path of a class, such as ophyd.EpicsMotor")
            continue
        if entries is None:
            continue
        if not isinstance(entries, list):
            document.problem((cls,), cls, "needs a list: each device begins with `- name:`")
            continue
        for index, entry in enumerate(entries):
            spec = _device_spec(document, cls, index, entry)
            if spec is None:
                continue
            if spec.name in taken:
                first = taken[spec.name]
                where = f"line {first.line}" + ("" if first.file == document.file else f" of {first.file.name}")
                document.problem((cls, index, "name"), spec.name, f"the name is already used on {where}")
                continue
            if spec.name:
                taken[spec.name] = spec
            specs.append(spec)
    return specs


def _device_spec(document: Document, cls: str, index: int, entry: Any) -> DeviceSpec | None:
    """One entry, or None if it is of no use."""
    location: Location = (cls, index)
    if not isinstance(entry, dict):
        document.problem(location, cls, f"each device is `{{name: ..., prefix: ...}}`, not {entry!r}")
        return None
    name = entry.get("name", "")
    shown = name if isinstance(name, str) and name else cls
    usable = True
    if "name" in entry:
        reason = unusable(name) if isinstance(name, str) else f"must be text, not {name!r}; put it in quotes"
        if reason:
            document.problem((*location, "name"), f"{shown}.name", reason)
            usable = False
    flags: dict[str, bool] = {}
    for key in OWN_KEYS:
        if key not in entry:
            continue
        value = entry[key]
        if isinstance(value, bool):
            flags[key] = value
        else:
            document.problem((*location, key), f"{shown}.{key}", f"must be true or false, not {value!r}")
    labels = entry.get("labels") or []
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        document.problem((*location, "labels"), f"{shown}.labels", f"must be a list such as [motor], not {labels!r}")
        labels = []
    if not usable:
        return None
    flags.setdefault("baseline", "baseline" in labels)  # how the BITS packages say it
    return DeviceSpec(
        name=name,
        cls=cls,
        kwargs={key: value for key, value in entry.items() if key not in OWN_KEYS},
        labels=tuple(labels),
        file=document.file,
        line=document.line(location) or 1,
        key_lines={key: document.line((*location, key)) or 1 for key in entry},
        class_line=document.line((cls,)) or 1,
        **flags,
    )


def _with_prefixes(spec: DeviceSpec, served: Mapping[str, str]) -> DeviceSpec:
    """The device on a virtual beamline that is served under other prefixes than the packaged ones."""
    if all(packaged == prefix for packaged, prefix in served.items()):
        return spec
    return spec.model_copy(update={"kwargs": _replaced(spec.kwargs, served)})


def _replaced(value: Any, served: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        packaged = next((packaged for packaged in served if value.startswith(packaged)), "")
        return served.get(packaged, "") + value.removeprefix(packaged)
    if isinstance(value, dict):
        return {key: _replaced(item, served) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, served) for item in value]
    return value
