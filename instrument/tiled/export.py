"""Runs out of a Tiled server: the journal's files again, byte for byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from instrument.config.errors import UserError
from instrument.framework.runfiles import RunFile, run_path, write_schema
from instrument.tiled.connection import Server, node_of, told
from instrument.tiled.writing import RECORDED, recorded_documents


class ExportError(UserError):
    """A run cannot be exported."""


def export(server: Server, catalog: str, uids: Iterable[str], runs: Path) -> Iterator[tuple[str, str]]:
    """Write runs to a journal; one that is there stays as it is.

    Args:
        server: Where they are.
        catalog: The catalog's name.
        uids: Which.
        runs: The journal, `DataDirectory.runs`.

    Yields:
        The uid, and `written`, `there`, or what is wrong with it.

    Raises:
        ExportError: The journal can't be written, or the server holds no recorded documents of this catalog.
    """
    root = server.connect()
    with told(server.address()):
        container = node_of(root, RECORDED)
        recorded = None if container is None else node_of(container, catalog)
    if recorded is None:
        raise ExportError(
            f"{server.address()} holds the runs of {catalog!r} without their documents: another program than "
            "`instrument ship` or `instrument tiled backfill` fed it"
        )
    try:
        runs.mkdir(parents=True, exist_ok=True)
        write_schema(runs)
        for uid in uids:
            yield uid, _export_one(recorded, uid, runs, server.address())
    except OSError as error:
        raise ExportError(f"exporting to {runs} failed: {error.strerror or error} ({error.filename})") from error


def _export_one(recorded: Any, uid: str, runs: Path, url: str) -> str:
    with told(url):
        node = node_of(recorded, uid)
        if node is None:
            return "its documents are not recorded there; it may be going on"
        content = recorded_documents(node)
    draft = runs / f".{uid}.part"
    draft.write_bytes(content)
    try:
        start = next(iter(RunFile(draft)))[1]
        target = run_path(runs, start)
        if target.exists():
            return "there"
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return "written"
