"""Runs to take along: a directory that another machine opens, images included if asked.

packed/
    runs/YYYY/MM/<uid>.msgpack     as in the journal, unchanged
    assets/0, 1, ...               files that the runs refer to, one directory for each root of theirs
    catalog.yml                    what intake and databroker open: intake.open_catalog("packed/catalog.yml")["packed"]
"""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from instrument.config.errors import UserError
from instrument.framework.image_roots import ImageRoots, note_unpacked
from instrument.framework.index import Row, RunIndex
from instrument.framework.runfiles import (
    DataDirectory,
    Document,
    RunFile,
    glance,
    month_directories,
    run_path,
    write_schema,
)

CATALOG = "catalog.yml"
ASSETS = "assets"


class PackingError(UserError):
    """Runs can't be packed or unpacked so."""


@dataclass
class Packed:
    """What was done.

    Attributes:
        runs: How many runs were copied.
        present: How many were there already.
        going_on: How many were left out, since they have no stop document yet.
        files: How many files of images were copied.
        missing: Files that a run refers to and that are not there.
        stay: Where files of images stay that unpacked runs refer to.
    """

    runs: int = 0
    present: int = 0
    going_on: int = 0
    files: int = 0
    missing: list[Path] = field(default_factory=list)
    stay: Path | None = None

    def __str__(self) -> str:
        parts = [f"{self.runs} runs", f"{self.files} files"]
        if self.stay is not None:
            parts[1] = f"files of images stay in {self.stay}"
        if self.present:
            parts.append(f"{self.present} runs were there already")
        if self.going_on:
            parts.append(f"{self.going_on} runs that go on were left out")
        if self.missing:
            parts.append(f"{len(self.missing)} files are missing, the first is {self.missing[0]}")
        return ", ".join(parts)


def pack(rows: Iterable[Row], directory: Path, *, images: bool = False, roots: ImageRoots | None = None) -> Packed:
    """Copy runs to a directory that another machine opens. Doing it again adds what is new, or goes on.

    A run without a stop document is left out: what takes it in would close it for good.

    Args:
        rows: The runs, of the index.
        directory: Made if it does not exist.
        images: Copy the files that the runs refer to, too.
        roots: Where these files are now.

    Raises:
        PackingError: The directory can't be written, or holds something else.
    """
    target = DataDirectory(directory)
    if directory.exists() and any(directory.iterdir()) and not (directory / CATALOG).exists():
        raise PackingError(f"{directory} holds something else than packed runs: name an empty or a new directory")
    done = Packed()
    places = {root: Path(place).name for root, place in _places(directory).items()}
    try:
        target.runs.mkdir(parents=True, exist_ok=True)
        write_schema(target.runs)
        _write_catalog(directory, places)  # first: by it the next attempt knows the directory, and what lies where
        for row in rows:
            if row.stop is None:
                done.going_on += 1
                continue
            _copy_run(row.path, run_path(target.runs, row.start), done)
            if images:
                for root, now, source in _assets(row.path, roots or ImageRoots()):
                    if root not in places:
                        places[root] = str(len(places))
                        _write_catalog(directory, places)
                    _copy_asset(source, directory / ASSETS / places[root] / source.relative_to(now), done)
    except OSError as error:
        raise PackingError(f"packing to {directory} failed: {error.strerror or error} ({error.filename})") from error
    return done


def unpack(
    directory: Path, data: DataDirectory, *, before: Callable[[list[tuple[str, Path]]], None] | None = None
) -> Packed:
    """Add the runs of a packed directory to the journal of this machine; a run that is there already stays as it is.

    Files of images stay where they are, in the packed directory; the data directory remembers where that is.

    Args:
        directory: What `pack` wrote.
        data: The data directory.
        before: Told the uid of each run that is added and the file it will have, before the first is.

    Raises:
        PackingError: There are no packed runs, or the journal can't be written.
    """
    source = DataDirectory(directory)
    if not (directory / CATALOG).is_file() or not source.runs.is_dir():
        raise PackingError(f"{directory} is no directory that `instrument catalog pack` wrote: it has no {CATALOG}")
    done = Packed()
    try:
        data.runs.mkdir(parents=True, exist_ok=True)
        write_schema(data.runs)
        starts = {path: glance(path).start for path in _run_files(source.runs)}
        targets = {path: run_path(data.runs, start) for path, start in starts.items()}
        if before is not None:
            before([(starts[path]["uid"], target) for path, target in targets.items() if not target.exists()])
        for path, target in targets.items():
            _copy_run(path, target, done)
        places = _places(directory)
        if places:
            note_unpacked(data.root, places)
            done.stay = directory / ASSETS
    except OSError as error:
        raise PackingError(f"unpacking to {data.root} failed: {error.strerror or error} ({error.filename})") from error
    return done


def check(index: RunIndex, *, repair: bool = False) -> list[str]:
    """Compare the index with the files, which are the truth.

    Args:
        index: Of the journal.
        repair: Make the index anew from the files first.

    Returns:
        One line for each problem; a file that is damaged stays one, whatever the index says.
    """
    if repair:
        index.rebuild()
    return index.check()


def _run_files(runs: Path) -> Iterator[Path]:
    for month in month_directories(runs):
        yield from sorted(month.glob("*.msgpack"))


def _copy_run(source: Path, target: Path, done: Packed) -> None:
    if target.exists() and filecmp.cmp(source, target, shallow=False):
        done.present += 1
        return
    if target.exists() and target.stat().st_size >= source.stat().st_size:
        done.present += 1  # the longer one has more documents
        return
    _copy(source, target)
    done.runs += 1


def _copy_asset(source: Path, target: Path, done: Packed) -> None:
    if not source.is_file():
        done.missing.append(source)
    elif not target.exists() or target.stat().st_size != source.stat().st_size:
        _copy(source, target)
        done.files += 1


def _copy(source: Path, target: Path) -> None:
    """Copy under a temporary name first: what exists is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    shutil.copy2(source, part)
    part.replace(target)


def _assets(path: Path, roots: ImageRoots) -> Iterator[tuple[str, str, Path]]:
    """The files that a run refers to, each with the root that its resource document names, and where that is now."""
    run = RunFile(path)
    run.survey()
    for resource in run.single("resource"):
        root, now, whole = resource.get("root") or "/", roots.of(resource), roots.path_of(resource)
        files = [whole] if whole.is_file() else _files_of_handler(run, resource, whole)
        yield from ((root, now, file) for file in files)


def _files_of_handler(run: RunFile, resource: Document, whole: Path) -> list[Path]:
    """The files behind a resource that names a directory or the beginning of file names; its handler knows them."""
    from databroker.core import discover_handlers

    handler = discover_handlers().get(resource["spec"])
    if handler is None:
        return [whole]
    datums = (
        dict(zip(page["datum_kwargs"], values, strict=True))
        for page in run.datum_pages(resource["uid"])
        for values in zip(*page["datum_kwargs"].values(), strict=True)
    )
    try:
        named = handler(str(whole), **resource["resource_kwargs"]).get_file_list(datums)
    except (AttributeError, OSError):  # it does not tell, or cannot without the files
        return [whole]
    return [Path(file) for file in named]


def _places(directory: Path) -> dict[str, str]:
    """Where a packed directory has files of images, by root."""
    if not (directory / CATALOG).exists():
        return {}
    known = yaml.safe_load((directory / CATALOG).read_text())["sources"]["packed"]["args"].get("root_map", {})
    return {root: str((directory / ASSETS / Path(place).name).resolve()) for root, place in known.items()}


def _write_catalog(directory: Path, roots: dict[str, str]) -> None:
    arguments: dict[str, object] = {"directory": "{{ CATALOG_DIR }}"}
    if roots:
        arguments["root_map"] = {root: f"{{{{ CATALOG_DIR }}}}/{ASSETS}/{place}" for root, place in roots.items()}
    content = {"sources": {"packed": {"driver": "bluesky-embedded-catalog", "args": arguments}}}
    (directory / CATALOG).write_text(yaml.safe_dump(content, sort_keys=False))
