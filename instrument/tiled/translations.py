"""The SQL, on SQLite and PostgreSQL, of queries that stock Tiled 0.2 leaves out; registered in the server's process."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from bluesky_tiled_plugins import queries as bluesky
from sqlalchemy import String, and_, cast, column, func, literal, or_, select, text, true, type_coerce
from sqlalchemy.dialects.postgresql import JSONPATH
from tiled.catalog import orm
from tiled.catalog.adapter import CatalogNodeAdapter
from tiled.queries import QueryValueError, Regex

from instrument.tiled.queries import REGEX, Loose

# uids would match every short word of the letters a to f; notes are the writer's
_LEFT_OUT = (("start", "uid"), ("stop", "uid"), ("stop", "run_start"), ("notes",))
_METADATA = orm.Node.metadata_
_UNESCAPED = re.compile(r"[ !#-\[\]-~]+")  # stands in JSON as it is


def register() -> None:
    """Make the server answer these queries."""
    for query, condition in (
        (Loose, _loose),
        (Regex, _regex),
        (bluesky.TimeRange, _time_range),
        (bluesky._ScanID, _scan_id),  # noqa: SLF001  what ScanID() makes
        (bluesky.ScanIDRange, _scan_id_range),
        (bluesky._PartialUID, _partial_uid),  # noqa: SLF001  what PartialUID() makes
    ):
        CatalogNodeAdapter.register_query(query, _narrowing(condition))


def _narrowing(condition: Callable[[Any, bool], Any]) -> Callable[[Any, Any], Any]:
    def narrow(query: Any, tree: Any) -> Any:
        sqlite = tree.context.engine.dialect.name == "sqlite"
        return tree.new_variation(conditions=[*tree.conditions, condition(query, sqlite)])

    return narrow


def _at(key: str) -> Any:
    value = _METADATA
    for part in key.split("."):
        value = value[part]
    return value


# -- loose matches ---------------------------------------------------------------------------------------------------


def _loose(query: Loose, sqlite: bool) -> Any:
    if query.key:
        return and_(*(_in_value(_at(query.key).as_string(), query, pattern, sqlite) for pattern in query.patterns))
    return and_(*(_anywhere(query, pattern, sqlite) for pattern in query.patterns))


def _in_value(value: Any, query: Loose, pattern: str, sqlite: bool) -> Any:
    if query.how == REGEX:
        return _matches(value, pattern, query.case_sensitive, sqlite)
    if query.case_sensitive:
        return func.instr(value, pattern) > 0 if sqlite else func.strpos(value, pattern) > 0
    if sqlite and not pattern.isascii():  # SQLite's LIKE knows the capitals of ASCII only
        return _matches(value, re.escape(pattern), False, sqlite)
    return value.icontains(pattern, autoescape=True)


def _matches(value: Any, pattern: str, case_sensitive: bool, sqlite: bool) -> Any:
    if sqlite:  # SQLAlchemy gives it Python's re.search as REGEXP
        return value.regexp_match(pattern if case_sensitive else f"(?i){pattern}")
    return value.regexp_match(pattern, flags=None if case_sensitive else "i")


def _anywhere(query: Loose, pattern: str, sqlite: bool) -> Any:
    """A text of the metadata, at any depth, but for what says nothing."""
    if not sqlite:
        document = _METADATA
        for path in _LEFT_OUT:
            document = document.op("#-")(text(f"'{{{','.join(path)}}}'::text[]"))
        flags = ("" if query.case_sensitive else "i") + ("" if query.how == REGEX else "q")
        path = f'$.** ? (@.type() == "string" && @ like_regex {json.dumps(pattern)} flag "{flags}")'
        found = func.jsonb_path_exists(document, cast(cast(path, String), JSONPATH))
        if query.how == REGEX or not _UNESCAPED.fullmatch(pattern):
            return found
        whole = cast(_METADATA, String)  # looked through first: quicker than taking all of it apart
        contains = whole.contains if query.case_sensitive else whole.icontains
        return and_(contains(pattern, autoescape=True), found)
    document = func.json_remove(_METADATA, *("$." + ".".join(path) for path in _LEFT_OUT))
    tree = func.json_tree(document).table_valued(column("atom", String), column("type", String), name="tree")
    found = (
        select(literal(1)).select_from(tree).where(tree.c.type == "text", _in_value(tree.c.atom, query, pattern, True))
    )
    exists = found.correlate(orm.Node).exists()
    if query.how == REGEX or not _UNESCAPED.fullmatch(pattern):
        return exists
    # looking through the whole text first takes a tenth of the time of taking all of it apart
    return and_(type_coerce(_METADATA, String).contains(pattern, autoescape=True), exists)


def _regex(query: Regex, sqlite: bool) -> Any:
    """Tiled's own query, which its catalogs do not answer."""
    try:
        re.compile(query.pattern)
    except re.error as error:
        msg = f"regex: {query.pattern!r} is no regular expression: {error}"
        raise QueryValueError(msg) from error
    return _matches(_at(query.key).as_string(), query.pattern, query.case_sensitive, sqlite)


# -- bluesky's own, which a client that is no Python client sends as they are ------------------------------------------


def _time_range(query: bluesky.TimeRange, sqlite: bool) -> Any:
    time = _at("start.time").as_float()
    conditions = [true()]
    if query.since is not None:
        conditions.append(time >= query.since)
    if query.until is not None:
        conditions.append(time < query.until)
    return and_(*conditions)


def _scan_id(query: Any, sqlite: bool) -> Any:
    _need_all(query)
    return _at("start.scan_id").as_integer().in_(query.scan_ids)


def _scan_id_range(query: bluesky.ScanIDRange, sqlite: bool) -> Any:
    _need_all(query)
    number = _at("start.scan_id").as_integer()
    return and_(number >= query.start_id, number < query.end_id)


def _need_all(query: Any) -> None:
    if query.duplicates != bluesky.Duplicates.all:
        msg = f"duplicates={query.duplicates.value} is not supported: say duplicates=all, sort, and take what you want"
        raise QueryValueError(msg)


def _partial_uid(query: Any, sqlite: bool) -> Any:
    return or_(*(orm.Node.key.startswith(uid, autoescape=True) for uid in query.partial_uids))
