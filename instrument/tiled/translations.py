"""The SQL, on SQLite and PostgreSQL, of queries that stock Tiled 0.2 leaves out; registered in the server's process."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from bluesky_tiled_plugins import queries as bluesky
from sqlalchemy import String, and_, cast, column, func, literal, or_, select, text, true, type_coerce
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH, REGCONFIG
from tiled.catalog import adapter as tiled_catalog
from tiled.catalog import orm
from tiled.catalog.adapter import CatalogNodeAdapter
from tiled.queries import Comparison, Eq, FullText, Operator, QueryValueError, Regex

from instrument.tiled.indexes import INDEXED, scan_id, start_time
from instrument.tiled.queries import REGEX, Loose
from instrument.tiled.regular_expressions import certain_text, for_postgresql

# uids would match every short word of the letters a to f; notes are the writer's
_LEFT_OUT = (("start", "uid"), ("stop", "uid"), ("stop", "run_start"), ("notes",))
_METADATA = orm.Node.metadata_
_SIMPLE = cast("simple", REGCONFIG)
_LETTERS = re.compile(r"[^\W_]+")
_UNESCAPED = re.compile(r"[ !#-\[\]-~]+")  # stands in JSON as it is


def register() -> None:
    """Make the server answer these queries, and those of its own by an index that would not use one."""
    CatalogNodeAdapter.register_query(Comparison, _or_stock(_compared, tiled_catalog.comparison))
    CatalogNodeAdapter.register_query(Eq, _or_stock(_equal, partial(tiled_catalog.binary_op, operation=operator.eq)))
    for query, condition in (
        (FullText, _full_text),
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
        return tree.new_variation(conditions=[*tree.conditions, condition(query, _is_sqlite(tree))])

    return narrow


def _or_stock(condition: Callable[[Any, bool], Any], stock: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def narrow(query: Any, tree: Any) -> Any:
        found = condition(query, _is_sqlite(tree))
        return stock(query, tree) if found is None else tree.new_variation(conditions=[*tree.conditions, found])

    return narrow


def _is_sqlite(tree: Any) -> bool:
    return tree.context.engine.dialect.name == "sqlite"


def _at(key: str) -> Any:
    return _METADATA[key.split(".")]


# -- Tiled's own, by an index ----------------------------------------------------------------------------------------


def _compared(query: Comparison, sqlite: bool) -> Any:
    if query.key not in INDEXED or not _is_number(query.value):
        return None
    compare = {Operator.lt: operator.lt, Operator.le: operator.le, Operator.gt: operator.gt, Operator.ge: operator.ge}
    return compare[query.operator](INDEXED[query.key](), _number(query.value, sqlite))


def _equal(query: Eq, sqlite: bool) -> Any:
    if query.key not in INDEXED or not _is_number(query.value):
        return None
    return INDEXED[query.key]() == _number(query.value, sqlite)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: float, sqlite: bool) -> Any:
    return value if sqlite else type_coerce(value, _METADATA.type)


# -- whole words -----------------------------------------------------------------------------------------------------


def _full_text(query: FullText, sqlite: bool) -> Any:
    """All of these words, in texts: what stock Tiled takes for the database's own query language.

    The database's index of words finds candidates. On SQLite it has the names of keys too, on both the uids: each
    candidate is looked at.
    """
    words = [word for word in query.text.split() if _LETTERS.search(word)]
    if not words:
        msg = f"fulltext: there is no word in {query.text!r}"
        raise QueryValueError(msg)
    if not sqlite:
        asked = func.plainto_tsquery(_SIMPLE, " ".join(words))
        return and_(*(_words_of(document).op("@@")(asked) for document in (_METADATA, _telling(sqlite))))
    quoted = " ".join('"{}"'.format(word.replace('"', '""')) for word in words)
    # Tiled joins the index to the runs, and SQLite then asks it once for each run
    index = orm.metadata_fts5.c
    candidates = orm.Node.id.in_(select(index.rowid).where(index.metadata.match(quoted)))
    return and_(candidates, *(_in_texts(partial(_has_word, word)) for word in words))


def _words_of(document: Any) -> Any:
    """As Tiled's index has it, else PostgreSQL does not use that."""
    return func.jsonb_to_tsvector(_SIMPLE, document, cast(["string"], JSONB))


def _has_word(word: str, value: Any) -> Any:
    """As SQLite's index takes words: letters and digits, whatever stands between them."""
    parts = r"[\W_]+".join(map(re.escape, _LETTERS.findall(word)))
    return _matches(value, rf"(?<![^\W_]){parts}(?![^\W_])", False, True)


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
    return value.regexp_match(for_postgresql(pattern), flags=None if case_sensitive else "i")


def _anywhere(query: Loose, pattern: str, sqlite: bool) -> Any:
    """A text of the metadata, at any depth, but for what says nothing."""
    if sqlite:
        found = _in_texts(lambda value: _in_value(value, query, pattern, sqlite))
    else:
        flags = ("" if query.case_sensitive else "i") + ("" if query.how == REGEX else "q")
        asked = for_postgresql(pattern) if query.how == REGEX else pattern
        path = f'$.** ? (@.type() == "string" && @ like_regex {json.dumps(asked)} flag "{flags}")'
        found = func.jsonb_path_exists(_telling(sqlite), cast(cast(path, String), JSONPATH))
    return and_(_looked_through(query, pattern, sqlite), found)


def _telling(sqlite: bool) -> Any:
    """The metadata without what says nothing."""
    if sqlite:
        return func.json_remove(_METADATA, *("$." + ".".join(path) for path in _LEFT_OUT))
    document = _METADATA
    for path in _LEFT_OUT:
        document = document.op("#-")(text(f"'{{{','.join(path)}}}'::text[]"))
    return document


def _in_texts(condition: Callable[[Any], Any]) -> Any:
    """Whether that is so for a text of the metadata, at any depth, on SQLite."""
    tree = func.json_tree(_telling(sqlite=True)).table_valued(
        column("atom", String), column("type", String), name="tree"
    )
    found = select(literal(1)).select_from(tree).where(tree.c.type == "text", condition(tree.c.atom))
    return found.correlate(orm.Node).exists()


def _looked_through(query: Loose, pattern: str, sqlite: bool) -> Any:
    """What must be somewhere in the text of all metadata: looking for it takes a tenth of taking the text apart."""
    part = certain_text(pattern) if query.how == REGEX else pattern
    found = max(_UNESCAPED.findall(part), key=len, default="")
    if not found:
        return true()
    if sqlite:  # whose LIKE takes capital letters and others for the same
        return type_coerce(_METADATA, String).contains(found, autoescape=True)
    whole = cast(_METADATA, String)
    # PostgreSQL takes LIKE for rare, and would look at all runs where going from the newest on finds enough soon
    if query.case_sensitive and query.how != REGEX:
        return func.strpos(whole, found) > 0
    return func.strpos(func.lower(whole), found.lower()) > 0


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
    conditions = [true()]
    if query.since is not None:
        conditions.append(start_time() >= _number(query.since, sqlite))
    if query.until is not None:
        conditions.append(start_time() < _number(query.until, sqlite))
    return and_(*conditions)


def _scan_id(query: Any, sqlite: bool) -> Any:
    _need_all(query)
    return or_(*(scan_id() == _number(number, sqlite) for number in query.scan_ids))


def _scan_id_range(query: bluesky.ScanIDRange, sqlite: bool) -> Any:
    _need_all(query)
    return and_(scan_id() >= _number(query.start_id, sqlite), scan_id() < _number(query.end_id, sqlite))


def _need_all(query: Any) -> None:
    if query.duplicates != bluesky.Duplicates.all:
        msg = f"duplicates={query.duplicates.value} is not supported: say duplicates=all, sort, and take what you want"
        raise QueryValueError(msg)


def _partial_uid(query: Any, sqlite: bool) -> Any:
    key = orm.Node.key
    if sqlite:  # its LIKE uses no index
        return or_(*(and_(key >= uid, key < f"{uid}\uffff") for uid in query.partial_uids))
    return or_(*(key.startswith(uid, autoescape=True) for uid in query.partial_uids))
