"""Comparison of a printout with the reference's, whole: masks and differences are listed, each with its reason.

The reference is "The instrument package for Bluesky Data Acquisition" of the APS Python training of March 2021. Its
text stands in the tests as it is there; masks are applied to both sides. A mask or a difference that no longer
applies fails the test, so that the lists say what is true.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple


class Mask(NamedTuple):
    """What cannot be the same twice."""

    name: str
    pattern: str
    reason: str


class Difference(NamedTuple):
    """Where ours is not what the reference shows; `text` may be empty on one side."""

    reference: str
    ours: str
    reason: str


TIME = Mask("time", r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+", "when it was read")
WIDTH = Mask("", r"(?<=\S) +(?=\S)", "columns are as wide as the longest value")
TABLE = Mask("table", r"(?:Out\[\d+\]: )?<pyRestTable\.rest_table\.Table at 0x[0-9a-f]+>", "address; no Out[] there")


def masked(text: str, masks: Sequence[Mask]) -> str:
    """The text with its masks on; a mask without a name stands for a single blank."""
    for mask in masks:
        text = re.sub(mask.pattern, f"<{mask.name}>" if mask.name else " ", text, flags=re.MULTILINE)
    return text


def assert_same(shown: str, reference: str, masks: Sequence[Mask] = (), differences: Sequence[Difference] = ()) -> None:
    """Fail with a diff unless `shown` is what the reference shows; blanks at the end of a line do not count."""
    expected = reference
    for difference in differences:
        assert difference.reference in expected, f"{difference} is none:\n{expected}"
        expected = expected.replace(difference.reference, difference.ours)
    for mask in masks:
        found = (re.search(mask.pattern, text, flags=re.MULTILINE) for text in (shown, expected))
        assert any(found), f"{mask} hides nothing:\n{shown}"
    ours, theirs = (
        [line.rstrip() for line in masked(text, masks).strip("\n").splitlines()] for text in (shown, expected)
    )
    assert ours == theirs, "\n".join(["", *difflib.unified_diff(theirs, ours, "reference", "ours", n=100, lineterm="")])
