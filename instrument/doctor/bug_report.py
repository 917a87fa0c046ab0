"""`instrument report-bug`: one archive with what a developer asks for first, without secrets; nothing is sent."""

from __future__ import annotations

import importlib.metadata
import io
import os
import platform
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

from instrument.doctor import examination
from instrument.doctor.findings import Patient
from instrument.doctor.machine import ROOT
from instrument.doctor.secrets import Redactor

_TAIL = 400_000  # bytes of each log file
_LOGS = ("ipython_logger.log", "ipython_console.log", "ship.log")
_BEAMLINE_LOGS = 4  # of the virtual beamline, newest first


def write(config: Path | str | None, to: Path | None) -> str:
    """Write the archive.

    Args:
        config: Path of an iconfig.yml; default: as for a session.
        to: The archive, or the directory for it; default: the working directory.

    Returns:
        What is inside, and where it is.

    Raises:
        OSError: It can't be written.
    """
    name = f"instrument-bug-{time.strftime('%Y%m%d-%H%M%S')}"
    path = Path.cwd() if to is None else to
    path = path / f"{name}.tar.gz" if path.is_dir() else path
    texts = dict(_contents(config))
    redactor = Redactor(known=_keys(config))
    lines = []
    try:
        with tarfile.open(path, "x:gz") as archive:
            for member, text in texts.items():
                content = redactor.clean(text).encode()
                about = tarfile.TarInfo(f"{name}/{member}")
                about.size, about.mtime = len(content), int(time.time())
                archive.addfile(about, io.BytesIO(content))
                lines.append(f"  {member:<40} {len(content):>9,} bytes")
    except FileExistsError:
        raise
    except OSError:
        path.unlink(missing_ok=True)
        raise
    path.chmod(0o600)
    return "\n".join([
        str(path),
        *lines,
        "Secrets that were recognised (keys, passwords, tokens) are removed, your home directory is written ~.",
        "Nothing was sent. Look through it, then attach it to your report, with what you did and what you expected.",
    ])  # fmt: skip


def _contents(config: Path | str | None) -> Iterator[tuple[str, str]]:
    """Name and text of each member; what can't be read says why."""
    text, _ = examination.report(config)
    yield "doctor.txt", f"{text}\n"
    yield "versions.txt", _versions()
    yield "environment.txt", Redactor().environment()
    for file in _config_files(config):
        yield f"config/{file.name}", _tail(file, whole=True)
    for file in _log_files(config):
        yield f"logs/{file.name}", _tail(file)


def _versions() -> str:
    """Of Python, the machine, and every package installed."""
    lines = [f"Python {sys.version}", f"{platform.platform()}, {os.cpu_count()} processors", f"commit {_commit()}"]
    found = {(dist.metadata["Name"] or "?", dist.version) for dist in importlib.metadata.distributions()}
    return "\n".join([*lines, "", *(f"{name}=={version}" for name, version in sorted(found, key=_folded))]) + "\n"


def _folded(package: tuple[str, str]) -> str:
    return package[0].casefold()


def _commit() -> str:
    """Of the checkout that runs, and whether it was changed."""
    if not (ROOT / ".git").exists():
        return "none (not a checkout)"
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--tags"]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({error})"


def _config_files(config: Path | str | None) -> list[Path]:
    """iconfig.yml, the device files that it names, and the catalog file; also of a broken configuration."""
    try:
        from instrument.config import find
    except ImportError:
        return []
    file = find(config)
    try:
        from instrument.config import documents

        content = documents.read(file).content
    except ImportError:
        content = None
    named = content.get("devices", ["devices.yml"]) if isinstance(content, dict) else ["devices.yml"]
    catalogs = content.get("catalog_file", "bluesky_class.yml") if isinstance(content, dict) else "bluesky_class.yml"
    named = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    others = [file.parent / name for name in named]
    places = [Path.cwd() / str(catalogs), file.parent / str(catalogs)]
    return [one for one in dict.fromkeys([file, *others, *places]) if one.is_file()]


def _log_files(config: Path | str | None) -> list[Path]:
    try:
        from instrument.config import UserError, load

        try:
            patient = Patient.of(load(config))
        except UserError:
            patient = Patient.of(None)
    except ImportError:
        patient = Patient.of(None)
    mine = [patient.logs / name for name in _LOGS]
    return [file for file in [*mine, *_beamline_logs()] if file.is_file()]


def _beamline_logs() -> list[Path]:
    """The newest logs of this user's virtual beamlines."""
    from virtual_beamline import supervisor

    directory = supervisor.log_directory()
    try:
        files = [file for file in directory.iterdir() if file.suffix == ".log"]
        return sorted(files, key=lambda file: file.stat().st_mtime)[-_BEAMLINE_LOGS:]
    except OSError:
        return []


def _keys(config: Path | str | None) -> list[str]:
    """Keys on disk that a log may have: of this directory's Tiled server and queue server, and the configured one."""
    try:
        from instrument.config import UserError, load
        from instrument.framework.runfiles import DataDirectory
        from instrument.queueserver.places import QueueDirectory
        from instrument.tiled.places import TiledDirectory
    except ImportError:
        return []
    try:
        loaded = load(config)
    except UserError:
        loaded = None
    data = DataDirectory(Patient.of(loaded).data)
    tiled, queue = TiledDirectory(data.tiled), QueueDirectory(data.queue)
    files = [tiled.write_key, tiled.read_key]
    if loaded is not None and loaded.tiled.key_file:
        files.append(Path.cwd() / loaded.tiled.key_file)
    keys = [_tail(file, whole=True).strip() for file in files if file.is_file()]
    of_queue = "\n".join(_tail(file, whole=True) for file in (queue.keys, queue.redis_settings) if file.is_file())
    found = re.finditer(r'(?:"(?:public|private)": "|^requirepass )([^"\s]+)', of_queue, flags=re.MULTILINE)
    return [*keys, *(match[1] for match in found)]


def _tail(file: Path, *, whole: bool = False) -> str:
    try:
        with file.open("rb") as stream:
            if not whole:
                stream.seek(max(0, file.stat().st_size - _TAIL))
            content = stream.read()
    except OSError as error:
        return f"can't be read: {error}\n"
    text = content.decode("utf-8", "replace")
    # a line cut in two may hold the half of a secret
    return text if whole or len(content) < _TAIL else text.partition("\n")[2]
