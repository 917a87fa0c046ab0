"""Each command of the cheat sheet works at a terminal, and the page shows what is typed here."""

import re
import shutil

import pytest

from tests.session.cheat_sheet import PAGE, SECTIONS, page, recorded

WRONG = re.compile(r"Error|Traceback|did you mean|nothing moved|is not|no such|aborted", re.IGNORECASE)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="NOT RUN: tmux is missing")
def test_each_command_works_and_is_on_the_page(tmp_path):
    shown = recorded(tmp_path)
    assert {typed: text for typed, text in shown.items() if WRONG.search(text) and typed != "last_error"} == {}
    silent = {typed for typed, text in shown.items() if not text.strip()}
    assert silent == {"mv m1 0.5", "mvr m1 -0.2"}
    assert shown["last_error"].strip() == "no error in this session"
    # what is typed, and the tables, are those of the page; what is shown has other times and counts
    assert _typed(page(shown)) == _typed(PAGE.read_text())
    assert len(shown) == sum(map(len, SECTIONS.values()))


def _typed(text):
    return [line for line in text.splitlines() if re.match(r">>> |#|\| [a-z]", line)]
