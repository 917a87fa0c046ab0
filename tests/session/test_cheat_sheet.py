"""Each command of the cheat sheet works at a terminal, and the page shows what is typed here."""

import re
import shutil

import pytest

from instrument import plans
from instrument.commands import NAMES
from tests.session.cheat_sheet import PAGE, SECTIONS, SHOWN_WITH_ALL_NAMES, page, recorded
from tests.terminal import ROOT

WRONG = re.compile(r"Error|Traceback|did you mean|nothing moved|is not|no such|aborted", re.IGNORECASE)
NO_ERROR = {"last_error", "outbox"}  # which tell of errors, if there were any


@pytest.mark.skipif(shutil.which("tmux") is None, reason="NOT RUN: tmux is missing")
def test_each_command_works_and_is_on_the_page(tmp_path):
    shown = recorded(tmp_path)
    assert {typed: text for typed, text in shown.items() if WRONG.search(text) and typed not in NO_ERROR} == {}
    silent = {typed for typed, text in shown.items() if not text.strip()}
    assert silent == {"mv m1 0.5", "mvr m1 -0.2"}
    assert shown["last_error"].strip() == "no error in this session"
    # what is typed, and the tables, are those of the page; what is shown has other times and counts
    assert _typed(page(shown)) == _typed(PAGE.read_text())
    assert len(shown) == sum(map(len, SECTIONS.values()))


def test_no_command_is_left_out():
    """Each is recorded, or is typed on the page that has all names."""
    here = {re.match(r"\w+", row.here)[0] for rows in SECTIONS.values() for row in rows}
    assert sorted({*NAMES, *plans.__all__} - here) == sorted(SHOWN_WITH_ALL_NAMES)
    typed = re.findall(r"(?m)^>>> (.*)", (ROOT / "docs/reference/prompt.md").read_text())
    assert {
        name for name in SHOWN_WITH_ALL_NAMES if not any(re.search(rf"\b{name}\b", line) for line in typed)
    } == set()


def _typed(text):
    return [line for line in text.splitlines() if re.match(r">>> |#|\| [a-z]", line)]
