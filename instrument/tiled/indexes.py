"""Runs by time and by number, with an index each: Tiled's own queries look into the metadata of every run.

SQLite uses an index of an expression only where the query has the same expression, its key written out; Tiled's has a
parameter, extracts the start document first, and sorts numbers as text.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Float, Integer
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from tiled.catalog import adapter as tiled_catalog

_TIME = """json_extract({}metadata, '$."start"."time"')"""
_NUMBER = """json_extract({}metadata, '$."start"."scan_id"')"""
_JSONB_TIME = "(({}metadata -> 'start') -> 'time')"
_JSONB_NUMBER = "(({}metadata -> 'start') -> 'scan_id')"

STATEMENTS = {
    "sqlite": (
        f"CREATE INDEX IF NOT EXISTS instrument_start_time ON nodes (parent, {_TIME.format('')}, id)",
        f"CREATE INDEX IF NOT EXISTS instrument_scan_id ON nodes (parent, {_NUMBER.format('')}, id)",
        "PRAGMA analysis_limit = 1000",
        "ANALYZE nodes",  # else SQLite goes through all runs by time to find the one of a number
    ),
    "postgresql": (
        f"CREATE INDEX IF NOT EXISTS instrument_start_time ON nodes (parent, {_JSONB_TIME.format('')}, id)",
        f"CREATE INDEX IF NOT EXISTS instrument_scan_id ON nodes (parent, {_JSONB_NUMBER.format('')}, id)",
    ),
}


class start_time(FunctionElement):  # noqa: N801  SQLAlchemy's way to name functions
    """When a run started (s since the epoch); JSON on PostgreSQL."""

    type = Float()
    inherit_cache = True


class scan_id(FunctionElement):  # noqa: N801
    """The number of a run; JSON on PostgreSQL."""

    type = Integer()
    inherit_cache = True


@compiles(start_time, "sqlite")
def _(*_: Any, **__: Any) -> str:
    return _TIME.format("nodes.")


@compiles(start_time, "postgresql")
def _(*_: Any, **__: Any) -> str:
    return _JSONB_TIME.format("nodes.")


@compiles(scan_id, "sqlite")
def _(*_: Any, **__: Any) -> str:
    return _NUMBER.format("nodes.")


@compiles(scan_id, "postgresql")
def _(*_: Any, **__: Any) -> str:
    return _JSONB_NUMBER.format("nodes.")


INDEXED = {"start.time": start_time, "start.scan_id": scan_id}


def sort_by_index() -> None:
    """Make the server sort by the indexes."""
    stock = tiled_catalog.construct_order_by_clauses

    def construct_order_by_clauses(sorting: Any) -> Any:
        clauses, direction = stock(sorting)
        keys = [(key.removeprefix("metadata."), way) for key, way in sorting if key]
        for place, (key, way) in enumerate(keys):
            if key in INDEXED:
                clauses[place] = INDEXED[key]().desc() if way == -1 else INDEXED[key]()
        return clauses, direction

    tiled_catalog.construct_order_by_clauses = construct_order_by_clauses
