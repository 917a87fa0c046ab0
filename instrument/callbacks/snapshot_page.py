"""A snapshot as one page for a browser: a table, a box to search it, a link to the run. It needs nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from instrument.config.errors import UserError

if TYPE_CHECKING:
    from instrument.framework.snapshots import Entry, Snapshot


def write_page(snapshot: Snapshot, path: Path, run_file: Path | None = None) -> None:
    """Write the page, in the place of an earlier one.

    Args:
        snapshot: What it shows.
        path: The file.
        run_file: The file of the run, which the page links to.

    Raises:
        UserError: The file can't be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(page(snapshot, run_file), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise UserError(
            f"the page {path} can't be written ({error.strerror or error}); {snapshot} is recorded all the same: "
            f"bluesky_snapshot --show {snapshot.uid[:7]} --html FILE writes it elsewhere"
        ) from error


def page(snapshot: Snapshot, run_file: Path | None = None) -> str:
    """The page as HTML."""
    template = Template(files("instrument.callbacks").joinpath("snapshot_page.html").read_text(encoding="utf-8"))
    uid = escape(snapshot.uid)
    run = f'<a href="{escape(run_file.absolute().as_uri())}">{uid}</a>' if run_file else uid
    return template.substitute(
        title=escape(f"snapshot: {snapshot.start.get('iso8601', '')}"),
        run=run,
        metadata=_definitions(snapshot.header()),
        rows="\n".join(_row(entry) for entry in snapshot.sorted),
        count=len(snapshot.sorted),
        stop=_definitions({key: snapshot.stop[key] for key in sorted(snapshot.stop)}),
    )


def _row(entry: Entry) -> str:
    cells = (("time", entry.time), ("source", entry.source), ("name", entry.name), ("value", entry.shown))
    kind = ' class="problem"' if entry.problem is not None else ""
    columns = "".join(f'<td class="{name}">{escape(text)}</td>' for name, text in cells)
    return f"<tr{kind}>{columns}</tr>"


def _definitions(values: Mapping[str, Any]) -> str:
    return "\n".join(f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in values.items())
