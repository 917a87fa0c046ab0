"""Runs to files, from the catalog: NeXus, SPEC, CSV or JSON, one file for each run, complete when it exists.

- `nexus`: as `nexus` writes them.
- `spec`: one scan with its header, as `spec` writes them (comments of `spec_comment` are in the session's file only).
- `csv`: the primary stream in the file itself, each other stream beside it as `name-stream.csv`; a line for each event:
  `seq_num`, `time` (s since the epoch), then the data keys. Arrays are JSON, images are named by their datum.
- `json`: an array of `{"name": ..., "doc": ...}`, all documents as `bluesky.callbacks.json_writer` lays them out; NaN
  and infinity, which JSON does not have, are null.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instrument.callbacks.nexus import NexusWriter, file_name
from instrument.config.errors import UserError, nearest
from instrument.config.models import Nexus
from instrument.framework.runfiles import RunFile, single_documents
from instrument.framework.wholefiles import write_whole

if TYPE_CHECKING:
    from instrument.framework.index import Row

Document = tuple[str, dict[str, Any]]

SUFFIXES = {"nexus": ".hdf", "spec": ".dat", "csv": ".csv", "json": ".json"}
FORMATS = {
    ".hdf": "nexus", ".h5": "nexus", ".hdf5": "nexus", ".nxs": "nexus",
    ".dat": "spec", ".spec": "spec", ".csv": "csv", ".json": "json",
}  # fmt: skip


_OCCUPIED = (
    "{} exists and holds something else than this export: it is left as it is; "
    "move it away, or export with --force (force=True)"
)


class ExportError(UserError):
    """A run can't be exported so."""


@dataclass(frozen=True)
class ExportedRun:
    """A run to export.

    Attributes:
        start: Its start document.
        complete: It has ended.
        documents: Gives all of its documents, from start to stop; pages are welcome.
    """

    start: Mapping[str, Any]
    complete: bool
    documents: Callable[[], Iterable[Document]]


@dataclass
class Summary:
    """What was done.

    Attributes:
        written: Files that were written.
        present: Files that held their run already.
        failures: A line for each run that could not be written.
    """

    written: list[Path] = field(default_factory=list)
    present: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{len(self.written)} written"]
        if self.present:
            parts.append(f"{len(self.present)} were there already")
        if self.failures:
            parts.append(f"{len(self.failures)} not written")
        return ", ".join(parts)


def of_journal(row: Row) -> ExportedRun:
    """A run of the journal."""
    return ExportedRun(row.start, row.stop is not None, lambda: iter(RunFile(row.path)))


def of_catalog(run: Any) -> ExportedRun:
    """A run of databroker: `cat[...]`, or a header of `db[...]`.

    Raises:
        UserError: It is none.
    """
    if hasattr(run, "documents") and hasattr(run, "metadata"):
        start, stop = run.metadata["start"], run.metadata["stop"]
        return ExportedRun(start, bool(stop), lambda: run.documents(fill="no"))
    if hasattr(run, "documents") and hasattr(run, "start"):
        return ExportedRun(run.start, bool(run.stop), lambda: run.documents(fill=False))
    raise ExportError(f"{run!r} is no run: give a scan number, -1 for the last one, a uid, or cat[...]")


def format_of(path: Path, wanted: str | None) -> str:
    """The format that somebody names, or that a file's suffix means; NeXus for a directory.

    Raises:
        ExportError: There is no such format, or the suffix means none.
    """
    if wanted is not None:
        if wanted not in SUFFIXES:
            close = nearest(wanted, SUFFIXES)
            hint = f"; did you mean {close!r}?" if close else f"; there are {', '.join(SUFFIXES)}"
            raise ExportError(f"there is no format {wanted!r}{hint}")
        return wanted
    if not path.suffix or path.is_dir():
        return "nexus"
    if path.suffix.lower() not in FORMATS:
        raise ExportError(
            f"{path.name}: {path.suffix} names no format; use {', '.join(FORMATS)}, or say format='nexus', for instance"
        )
    return FORMATS[path.suffix.lower()]


class Exporter:
    """Writes runs to files.

    Args:
        site: What iconfig.yml says of NeXus files, the pattern of names included.
        kind: One of `SUFFIXES`.
        force: Replace what is there.
        root_map: Where files of images are now, by the `root` of their resource documents.
    """

    def __init__(
        self, site: Nexus, kind: str, *, force: bool = False, root_map: Mapping[str, str] | None = None
    ) -> None:
        self._site = site
        self._kind = kind
        self._force = force
        self._nexus = NexusWriter(site, Path(), root_map=root_map)

    def paths(self, runs: Sequence[ExportedRun], target: Path) -> list[Path]:
        """Where each run goes.

        Args:
            runs: What is to be exported.
            target: A file; for several runs scan number and uid are added to its name. Or a directory: names by the
                pattern of iconfig.yml.
        """
        if target.is_dir() or not target.suffix:
            suffix = Path(self._site.pattern).suffix
            return [
                target / (file_name(self._site.pattern, run.start).removesuffix(suffix) + SUFFIXES[self._kind])
                for run in runs
            ]
        if len(runs) == 1:
            return [target]
        return [target.with_name(f"{target.stem}-{_number(run.start)}{target.suffix}") for run in runs]

    def write(self, run: ExportedRun, path: Path) -> bool:
        """Write one run.

        Returns:
            False if it was there already.

        Raises:
            UserError: It can't be written, or something else is there.
        """
        if not run.complete:
            raise ExportError("it has not ended")
        if self._kind == "nexus":
            return self._write_nexus(run, path)
        contents = _RENDER[self._kind](run, path)
        try:
            if path.exists() and not self._force:
                if self._holds(run, contents):
                    return False
                raise ExportError(_OCCUPIED.format(path))
            for file, content in contents:  # the one that is named comes last: when it exists, all do
                write_whole(file, content)
        except OSError as error:
            raise ExportError(f"{path} can't be written ({error.strerror or error})") from error
        return True

    def _write_nexus(self, run: ExportedRun, path: Path) -> bool:
        from instrument.callbacks.nexus_file import run_in

        if path.exists() and not self._force:
            if run_in(path) == run.start["uid"]:
                return False
            raise ExportError(_OCCUPIED.format(path))
        return self._nexus.write(run.documents(), path, overwrite=True)

    def _holds(self, run: ExportedRun, contents: list[tuple[Path, bytes]]) -> bool:
        """Whether the run's files are there."""
        if self._kind == "spec":  # apstools puts the present time into some comments
            from instrument.callbacks.spec import runs_in

            return runs_in(contents[-1][0]) == {run.start["uid"]}
        return all(file.is_file() and file.read_bytes() == content for file, content in contents)


def export(
    runs: Sequence[ExportedRun], target: Path, exporter: Exporter, progress: Callable[[Sequence], Iterable] = iter
) -> Summary:
    """Export runs one by one; one that fails does not keep the others back.

    Args:
        runs: What to export.
        target: See `Exporter.paths`.
        exporter: Writes them.
        progress: Shows how far it is, such as tqdm.
    """
    done = Summary()
    for run, path in progress(list(zip(runs, exporter.paths(runs, target), strict=True))):
        try:
            (done.written if exporter.write(run, path) else done.present).append(path)
        except UserError as error:
            done.failures.append(f"run {run.start.get('scan_id')}: {error}")
        except Exception as error:  # whatever is in an old run
            done.failures.append(
                f"run {run.start.get('scan_id')}: {type(error).__name__}: {' '.join(str(error).split())}"
            )
    return done


def progress_bar(items: Sequence[Any]) -> Iterable[Any]:
    """The items, with a bar on the terminal if they are several; for `export`."""
    from tqdm import tqdm

    # None: nothing is shown where there is no terminal.
    return tqdm(items, unit="run", disable=None if len(items) > 1 else True)


def _number(start: Mapping[str, Any]) -> str:
    number = start.get("scan_id")
    return f"{number:05d}-{start['uid'][:7]}" if isinstance(number, int) else start["uid"][:7]


# --- SPEC


def _as_spec(run: ExportedRun, path: Path) -> list[tuple[Path, bytes]]:
    from instrument.callbacks.spec import as_spec_file

    return [(path, as_spec_file(run.documents(), path))]


# --- CSV


def _as_csv(run: ExportedRun, path: Path) -> list[tuple[Path, bytes]]:
    streams: dict[str, str] = {}  # descriptor uid -> stream
    columns: dict[str, list[str]] = {"primary": []}
    events: dict[str, list[dict[str, Any]]] = {"primary": []}
    for name, page in run.documents():
        for kind, doc in single_documents(name, page):
            if kind == "descriptor":
                stream = streams[doc["uid"]] = doc.get("name", "primary")
                known = columns.setdefault(stream, [])
                known += [key for key in doc["data_keys"] if key not in known]
                events.setdefault(stream, [])
            elif kind == "event":
                events[streams[doc["descriptor"]]].append(doc)
    files = {stream: path.with_name(f"{path.stem}-{stream}{path.suffix}") for stream in events}
    files["primary"] = path
    return [
        (files[stream], _table(columns[stream], events[stream]))
        for stream in sorted(events, key=lambda stream: stream == "primary")
    ]


def _table(columns: list[str], events: list[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["seq_num", "time", *columns])
    for event in sorted(events, key=lambda event: event["time"]):
        writer.writerow([event["seq_num"], event["time"], *(_cell(event["data"].get(key)) for key in columns)])
    return text.getvalue().encode("utf-8", "backslashreplace")


def _cell(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple | dict | np.ndarray):
        return json.dumps(_json(value))
    return value


# --- JSON


def _as_json(run: ExportedRun, path: Path) -> list[tuple[Path, bytes]]:
    lines = (json.dumps({"name": name, "doc": _json(doc)}, allow_nan=False) for name, doc in run.documents())
    return [(path, ("[\n" + ",\n".join(lines) + "\n]").encode())]


def _json(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _json(value.tolist() if value.dtype.kind not in "mM" else value.astype(str).tolist())
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, complex):
        return [value.real, value.imag]
    return value


_RENDER = {"spec": _as_spec, "csv": _as_csv, "json": _as_json}
