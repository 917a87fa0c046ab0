"""Python, packages, disks, the display."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instrument.doctor.findings import Finding, Patient, count, some

if TYPE_CHECKING:
    from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]  # a checkout, or site-packages
OURS = "instrument"

_TOO_LITTLE, _LITTLE = 100e6, 2e9  # bytes; an hour of scans fits in the first, not an hour of images in the second
_FEW_FILES = 1000
_REMOTE = {"nfs", "nfs4", "cifs", "smb3", "afs", "fuse.sshfs"}

# GUI toolkits of matplotlib's interactive backends, in the order in which matplotlib tries them.
_TOOLKITS = {
    "QtAgg": ("PyQt6", "PySide6", "PyQt5", "PySide2"),
    "GTK4Agg": ("gi",),
    "TkAgg": ("tkinter",),
    "WXAgg": ("wx",),
}
_ALIASES = {"qt5agg": "QtAgg", "gtk3agg": "GTK4Agg"}


def declared() -> dict[str, Any]:
    """`requires-python`, `dependencies` and `optional-dependencies`, of pyproject.toml or of what is installed."""
    try:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        if project["name"] == OURS:
            return project
    except (OSError, tomllib.TOMLDecodeError, KeyError):
        pass
    try:
        metadata = importlib.metadata.metadata(OURS)
        requirements = importlib.metadata.requires(OURS) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    needed = [text for text in requirements if "extra ==" not in text]
    extras: dict[str, list[str]] = {}
    for text in requirements:
        if found := re.search(r"extra == ['\"]([\w-]+)['\"]", text):
            extras.setdefault(found[1], []).append(text.partition(";")[0])
    return {
        "requires-python": metadata["Requires-Python"] or "",
        "dependencies": needed,
        "optional-dependencies": extras,
    }


def python(_patient: Patient) -> Iterator[Finding]:
    """Is this Python new enough, and whose is it?"""
    text = f"{platform.python_version()} ({sys.executable}), {platform.system()} {platform.machine()}"
    found = re.search(r">=\s*(\d+)\.(\d+)", declared().get("requires-python", ""))
    if found and sys.version_info < (int(found[1]), int(found[2])):
        advice = f"make the environment again with Python {found[1]}.{found[2]} or newer"
        yield Finding("Python", "wrong", text, advice)
    else:
        yield Finding("Python", "ok", text)


def packages(_patient: Patient) -> Iterator[Finding]:
    """Is what pyproject.toml names there, in the versions that it allows, and are those of constraints.txt used?"""
    project = declared()
    install = f"{sys.executable} -m pip install"
    again = f"{install} -c constraints.txt -e . (in {ROOT})" if (ROOT / "constraints.txt").exists() else None
    if not project:
        advice = again or f"{install} . (in the clone of instrument)"
        yield Finding("packages", "wrong", "the package `instrument` is not installed in this environment", advice)
        return
    try:
        from packaging.requirements import Requirement
    except ImportError:
        yield Finding("packages", "wrong", "packaging is missing", again or f"{install} packaging")
        return
    needed = [Requirement(text) for text in project["dependencies"]]
    needed = [one for one in needed if one.marker is None or one.marker.evaluate()]
    missing, unfit = _unmet(needed)
    what = [f"{name} is missing" for name in missing] + unfit
    if what:
        names = " ".join(f"'{one}'" for one in needed if any(w.startswith(f"{one.name} ") for w in what))
        yield Finding("packages", "wrong", some(what), again or f"{install} {names}")
    else:
        others = _not_pinned()
        text = f"{len(needed)} needed, all there"
        if others:
            advice = f"nothing, unless something else is wrong; `make setup` in {ROOT} has the tested ones"
            text += f"; {count(len(others), 'version')} not those of constraints.txt: {some(others)}"
            yield Finding("packages", "warning", text, advice)
        else:
            yield Finding("packages", "ok", text)
    extras = project["optional-dependencies"]
    lacking = [
        name
        for name in extras
        if name not in {"dev", "docs"} and any(_unmet([Requirement(text) for text in extras[name]]))
    ]
    if lacking:
        extra = ",".join(lacking)
        text = f"without {some(lacking)}, which only `instrument {'`, `instrument '.join(lacking)}` needs"
        yield Finding("packages", "ok", f"{text}: pip install '.[{extra}]' in the clone of instrument")


def _unmet(needed: list[Requirement]) -> tuple[list[str], list[str]]:
    missing, unfit = [], []
    for one in needed:
        if one.name == OURS:
            continue
        try:
            version = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(one.name)
            continue
        if not one.specifier.contains(version, prereleases=True):
            unfit.append(f"{one.name} is {version}, not {one.specifier}")
    return missing, unfit


def _not_pinned() -> list[str]:
    """Installed packages whose version is not that of constraints.txt; none where there is no such file."""
    try:
        lines = (ROOT / "constraints.txt").read_text().splitlines()
    except OSError:
        return []
    pins = dict(re.findall(r"(?m)^([\w.-]+)==([\w.+!-]+)", "\n".join(lines)))
    found = []
    for name, pinned in pins.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if version != pinned:
            found.append(f"{name} {version} ({pinned})")
    return found


def disk(patient: Patient) -> Iterator[Finding]:
    """Is there room, may we write, and is it a disk of this machine?"""
    wanted = {"data": patient.data, "logs": patient.logs, "spec": patient.spec}
    seen: dict[tuple[int, str], str] = {}
    for name, path in wanted.items():
        there = next(parent for parent in (path, *path.parents) if parent.exists())
        key = f"`directories: {name}:` in iconfig.yml"
        if not there.is_dir():
            yield Finding("disk", "wrong", f"{path}: {there} is a file", f"move it away, or change {key}")
        elif not os.access(there, os.W_OK | os.X_OK):
            advice = f"start where you may write, make it writable, or change {key}"
            yield Finding("disk", "wrong", f"{there} can't be written, and {name} goes there", advice)
        else:
            finding = _room(there)
            told = (there.stat().st_dev, finding.status)
            if told not in seen:  # one line for each disk
                seen[told] = name
                yield finding


def _room(directory: Path) -> Finding:
    free = shutil.disk_usage(directory).free
    files = os.statvfs(directory)
    kind = _file_system(directory)
    text = f"{free / 1e9:,.1f} GB free for {directory}"
    if free < _TOO_LITTLE:
        return Finding("disk", "wrong", f"{free / 1e6:,.0f} MB free for {directory}", "make room: runs need it")
    if files.f_files and files.f_favail < _FEW_FILES:
        return Finding("disk", "wrong", f"room for {files.f_favail} more files in {directory}", "remove some files")
    if kind in _REMOTE:
        advice = "if the server is not always there, set `directories: data:` to a local disk, and `instrument ship`"
        return Finding("disk", "warning", f"{text}, on a file server ({kind})", advice)
    if free < _LITTLE:
        return Finding("disk", "warning", text, "make room before images are taken")
    return Finding("disk", "ok", text)


def _file_system(directory: Path) -> str:
    """The type of the file system, by the longest mount point above the directory; empty if that can't be told."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return ""
    above = [(place.replace("\\040", " "), kind) for place, kind in mounts if directory.is_relative_to(place)]
    return max(above, key=lambda mount: len(mount[0]), default=("", ""))[1]


def display(_patient: Patient) -> Iterator[Finding]:
    """Will plots be seen?"""
    wanted = os.environ.get("MPLBACKEND", "")
    screen = next((f"${name}" for name in ("WAYLAND_DISPLAY", "DISPLAY") if os.environ.get(name)), "")
    have = [name for name, modules in _TOOLKITS.items() if any(map(_is_there, modules))]
    unset = "unset MPLBACKEND"
    if wanted and not wanted.startswith("module://"):
        kind = {name.lower(): name for name in _TOOLKITS} | _ALIASES
        needs = kind.get(wanted.lower())
        known = _backends()
        if known and wanted.lower() not in known:
            yield Finding("display", "wrong", f"MPLBACKEND={wanted} is no backend of matplotlib", unset)
        elif needs and needs not in have:
            modules = " or ".join(_TOOLKITS[needs])
            advice = f"{sys.executable} -m pip install {_TOOLKITS[needs][0]}, or {unset}"
            yield Finding("display", "wrong", f"MPLBACKEND={wanted} needs {modules}", advice)
        elif needs and not screen:
            advice = f"{unset}, or log in with `ssh -X`"
            yield Finding("display", "wrong", f"MPLBACKEND={wanted} needs a display, and there is none", advice)
        else:
            yield Finding("display", "ok", f"MPLBACKEND={wanted}" + (f" on {screen}" if screen else ""))
    elif not screen:
        text = "no display: plots are drawn without a window, bec.save_plot('scan.png') and notebooks show them"
        yield Finding("display", "ok", text)
    elif not have:
        advice = f"{sys.executable} -m pip install PyQt6"
        yield Finding("display", "warning", f"{screen} is there, but no toolkit that could open a window", advice)
    else:
        yield Finding("display", "ok", f"plots in windows of {have[0]} on {screen}")


def _is_there(module: str) -> bool:
    if module == "tkinter":  # the module is in every Python, what it needs is not
        module = "_tkinter"
    return importlib.util.find_spec(module) is not None


def _backends() -> set[str]:
    """The backends that matplotlib knows, in lower case; importing matplotlib itself would fail on a wrong one."""
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        return set()
    files = (Path(found.origin).parent / "backends").glob("backend_*.py")
    return {file.stem.removeprefix("backend_") for file in files} | {"inline", "widget", "ipympl", "nbagg", "notebook"}
