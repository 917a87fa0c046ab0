"""Questions that stock Tiled does not answer: loose matches, and a regular expression anywhere.

A query is the same class on both sides. The server translates it to SQL (`translations`); a client encodes it into the
URL. With plain HTTP it is `?filter[loose][condition][text]=silver behen`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from tiled.queries import NoBool, QueryValueError
from tiled.query_registration import register

WORDS, REGEX = "words", "regex"
_WORDS = re.compile(r'"([^"]+)"|(\S+)')


@register(name="loose")
@dataclass(init=False)
class Loose(NoBool):
    """Runs in whose metadata this text occurs, loosely.

    Args:
        text: Words, each of which occurs as it is or as a part of a longer word, in any order; "several words" in
            quotation marks stand together. Or a regular expression.
        key: Where it occurs: a dotted key such as `start.sample.name`; without it any text of the metadata, but for
            the uids.
        how: `words` or `regex`.
        case_sensitive: Whether capital letters matter.
    """

    text: str
    key: str = ""
    how: str = WORDS
    case_sensitive: bool = False

    def __init__(self, text: str, key: str = "", how: str = WORDS, *, case_sensitive: bool = False) -> None:
        self.text, self.key, self.how, self.case_sensitive = text, key, how, bool(case_sensitive)
        if how not in {WORDS, REGEX}:
            msg = f"loose: how={how!r} is neither {WORDS!r} nor {REGEX!r}"
            raise QueryValueError(msg)
        if not self.patterns:
            msg = "loose: there is nothing to look for"
            raise QueryValueError(msg)
        if how == REGEX:
            try:
                re.compile(text)
            except re.error as error:
                msg = f"loose: {text!r} is no regular expression: {error}"
                raise QueryValueError(msg) from error

    @property
    def patterns(self) -> list[str]:
        """The words, or the regular expression."""
        if self.how == REGEX:
            return [self.text] if self.text else []
        return [phrase or word for phrase, word in _WORDS.findall(self.text)]

    def encode(self) -> dict[str, str]:
        """As parameters of a URL."""
        return {
            "text": self.text,
            "key": self.key,
            "how": self.how,
            "case_sensitive": json.dumps(self.case_sensitive),
        }

    @classmethod
    def decode(cls, *, text: str, key: str = "", how: str = WORDS, case_sensitive: Any = False) -> Loose:
        """From parameters of a URL."""
        return cls(text, key, how, case_sensitive=case_sensitive)
