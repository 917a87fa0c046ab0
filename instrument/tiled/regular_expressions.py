"""Regular expressions of Python, for databases: SQLite asks Python itself, PostgreSQL has a language of its own."""

from __future__ import annotations

import re
from re import _constants as sre  # type: ignore[attr-defined]  there is no public parser
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from tiled.queries import QueryValueError

_MOST_REPEATS = 255  # PostgreSQL's
_PLACES = {
    sre.AT_BEGINNING: "^",
    sre.AT_BEGINNING_STRING: r"\A",
    sre.AT_END: "$",
    sre.AT_END_STRING: r"\Z",
    sre.AT_BOUNDARY: r"\y",
    sre.AT_NON_BOUNDARY: r"\Y",
}
_KINDS = {
    sre.CATEGORY_DIGIT: r"\d",
    sre.CATEGORY_NOT_DIGIT: r"\D",
    sre.CATEGORY_SPACE: r"\s",
    sre.CATEGORY_NOT_SPACE: r"\S",
    sre.CATEGORY_WORD: r"\w",
    sre.CATEGORY_NOT_WORD: r"\W",
}


def certain_text(pattern: str) -> str:
    """The longest text that is in whatever a regular expression matches."""
    runs = [""]

    def look(parsed: Any) -> None:
        for kind, value in parsed:
            if kind is sre.LITERAL:
                runs[-1] += chr(value)
            elif kind is sre.SUBPATTERN:
                look(value[-1])
            elif kind is not sre.AT:  # the beginning, the end, the edge of a word are no text
                runs.append("")
                if kind in {sre.MAX_REPEAT, sre.MIN_REPEAT} and value[0] > 0:
                    look(value[-1])
                    runs.append("")

    look(parser.parse(pattern))
    return max(runs, key=len)


def for_postgresql(pattern: str) -> str:
    r"""What PostgreSQL must be given to find what Python's `re.search` finds.

    Written anew from what Python understands: `\b` is the edge of a word in Python and a backspace in PostgreSQL, a dot
    takes the end of a line in one only, `[[:x:]]` means two things.

    Raises:
        QueryValueError: PostgreSQL has nothing that means the same.
    """
    parsed = parser.parse(pattern)
    if parsed.state.flags & ~(sre.SRE_FLAG_IGNORECASE | sre.SRE_FLAG_UNICODE):
        raise _refusal(pattern, "flags but (?i)")
    begin = "(?i)" if parsed.state.flags & sre.SRE_FLAG_IGNORECASE else ""
    return begin + _sequence(parsed, pattern)


def _sequence(parsed: Any, pattern: str) -> str:
    return "".join(_item(kind, value, pattern) for kind, value in parsed)


def _item(kind: Any, value: Any, pattern: str) -> str:
    if kind is sre.LITERAL:
        return _character(value, pattern)
    if kind is sre.NOT_LITERAL:
        return f"[^{_character(value, pattern)}]"
    if kind is sre.ANY:
        return r"[^\n]"
    if kind is sre.AT:
        return _PLACES[value]
    if kind is sre.IN:
        return _set(value, pattern)
    if kind is sre.BRANCH:
        return f"(?:{'|'.join(_sequence(branch, pattern) for branch in value[1])})"
    if kind is sre.SUBPATTERN and not (value[1] or value[2]):
        return f"(?:{_sequence(value[3], pattern)})"
    if kind in {sre.MAX_REPEAT, sre.MIN_REPEAT}:
        least, most, repeated = value
        if least > _MOST_REPEATS or (most is not sre.MAXREPEAT and most > _MOST_REPEATS):
            raise _refusal(pattern, f"more than {_MOST_REPEATS} repetitions")
        return f"(?:{_sequence(repeated, pattern)}){{{least},{'' if most is sre.MAXREPEAT else most}}}"
    if kind in {sre.ASSERT, sre.ASSERT_NOT}:
        direction, ahead = value
        sign = "=" if kind is sre.ASSERT else "!"
        return f"(?{'<' if direction < 0 else ''}{sign}{_sequence(ahead, pattern)})"
    raise _refusal(pattern, "back references, atomic groups, or flags of a part")


def _set(items: Any, pattern: str) -> str:
    if len(items) == 1 and items[0][0] is sre.CATEGORY:
        return _KINDS[items[0][1]]
    parts = []
    for kind, value in items:
        if kind is sre.NEGATE:
            parts.append("^")
        elif kind is sre.LITERAL:
            parts.append(_character(value, pattern))
        elif kind is sre.RANGE:
            parts.append("-".join(_character(end, pattern) for end in value))
        else:
            parts.append(_KINDS[value])
    return f"[{''.join(parts)}]"


def _character(code: int, pattern: str) -> str:
    if code == 0:
        raise _refusal(pattern, "a NUL character")
    character = chr(code)
    return re.escape(character) if character.isascii() and character.isprintable() else character


def _refusal(pattern: str, what: str) -> QueryValueError:
    return QueryValueError(f"the server's PostgreSQL knows no {what}, as in {pattern!r}: write it without")
