"""Runs in a directory of their own, which another machine opens: the files, and if wanted what detectors wrote.

cat = intake.open_catalog("packed/catalog.yml")["packed"]          # with instrument installed
cat = intake.open_catalog("packed/catalog.yml")["packed_stock"]    # with databroker alone
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from instrument.config.errors import UserError
from instrument.framework.index import RunIndex
from instrument.framework.runfiles import DataDirectory, RunFile, write_schema

CATALOG_FILE = "catalog.yml"
_EXTERNAL = "external"


class ArchiveError(UserError):
    """Runs cannot be packed or unpacked."""


def pack(index: RunIndex, uids: Iterable[str], destination: Path, *, external: bool = False) -> list[Path]:
    """Copy runs into a new directory, with a catalog file that opens them there.

    Args:
        index: where the runs are.
        uids: which ones.
        destination: a directory that is not there yet, or is empty.
        external: copy the files that detectors wrote, too; they are found there without being renamed.

    Returns:
        The files that were copied.

    Raises:
        ArchiveError: the directory is in use, a run is not there or not complete, or a detector's file is missing.
    """
    if destination.exists() and any(destination.iterdir()):
        raise ArchiveError(f"{destination} is not empty: pack into a new directory")
    index.refresh()
    rows = []
    for uid in uids:
        found = index.with_uid(uid)
        if len(found) != 1:
            raise ArchiveError(f"there is no run {uid!r}" if not found else f"{uid!r} is the beginning of several uids")
        if found[0].stop is None:
            raise ArchiveError(f"run {uid[:8]} has no stop document yet: pack it when it has ended")
        rows.append(found[0])
    packed = DataDirectory(destination)
    packed.runs.mkdir(parents=True, exist_ok=True)
    write_schema(packed.runs)
    copied: list[Path] = []
    roots: dict[str, str] = {}
    for row in rows:
        target = packed.runs / row.path.relative_to(index.runs)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(row.path, target)
        copied.append(target)
        if external:
            copied.extend(_copy_external(RunFile(row.path, row.layout), destination, roots))
    (destination / CATALOG_FILE).write_text(_catalog_file(roots))
    return copied


def _copy_external(run: RunFile, destination: Path, roots: dict[str, str]) -> list[Path]:
    """Copy the files of a run's resources, and note where their roots are now."""
    run.survey()
    copied = []
    for resource in run.single("resource"):
        root = resource.get("root") or "/"
        base = roots.setdefault(root, f"{_EXTERNAL}/{len(roots)}")
        for source in _files_of(run, resource):
            target = destination / base / source.relative_to(root)
            if not source.is_file():
                raise ArchiveError(f"{source}, which run {resource.get('run_start', '')[:8]} refers to, is not there")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
            copied.append(target)
    return copied


def _files_of(run: RunFile, resource: dict[str, Any]) -> list[Path]:
    from databroker.core import discover_handlers
    from event_model import unpack_datum_page

    path = Path(resource.get("root") or "/", resource["resource_path"])
    handler_class = discover_handlers().get(resource["spec"])
    if path.is_file() or handler_class is None:
        return [path]
    handler = handler_class(str(path), **resource["resource_kwargs"])
    datums = (datum["datum_kwargs"] for page in run.datum_pages(resource["uid"]) for datum in unpack_datum_page(page))  # pyright: ignore[reportArgumentType]
    return sorted({Path(file) for file in handler.get_file_list(datums)})


def _catalog_file(roots: dict[str, str]) -> str:
    common: dict[str, Any] = {"root_map": roots} if roots else {}
    here = "{{ CATALOG_DIR }}"
    sources = {
        "packed": {"driver": "bluesky-embedded-catalog", "args": {"directory": here, **common}},
        "packed_stock": {
            "driver": "bluesky-msgpack-catalog",
            "args": {"paths": [f"{here}/runs/*/*/*.msgpack"], **common},
        },
    }
    return yaml.safe_dump({"sources": sources}, sort_keys=False)


def unpack(source: Path, runs: Path) -> list[Path]:
    """Take packed runs into a session's own.

    Args:
        source: the packed directory.
        runs: `DataDirectory.runs` of the session.

    Returns:
        The files that were copied; runs that are there already are left as they are.

    Raises:
        ArchiveError: the directory holds no packed runs.
    """
    packed = DataDirectory(source)
    files = sorted(packed.runs.glob("*/*/*.msgpack"))
    if not files:
        raise ArchiveError(f"{source} holds no packed runs ({packed.runs}/YYYY/MM/*.msgpack)")
    runs.mkdir(parents=True, exist_ok=True)
    write_schema(runs)
    copied = []
    for file in files:
        target = runs / file.relative_to(packed.runs)
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}")  # no one sees half a file
        shutil.copy2(file, draft)
        draft.replace(target)
        copied.append(target)
    return copied
