"""docs/explanations/faults.md has a row for each fault that a test brings about, and for each that was promised."""

import json
import re
import subprocess
import sys

import pytest

from tests.faults_page import PAGE, ROOT, rows_of

# The faults that the issue names, in words of the page.
PROMISED = (
    "kill -9 of a whole session .* 30 times",
    "kill -9 of a whole session .* 200 times",
    "Power cut",
    "raises on a document, of each kind",
    "consumer hangs",
    "server is down, .* from the start; it comes back",
    "server is down, .* in the midst of a run; it comes back",
    "server is down for an hour of runs; it comes back",
    "disk of a consumer is full, from the start",
    "disk of a consumer is full, in the midst",
    "journal's disk is full",
    "directory of a consumer is removed",
    "journal's directory is removed",
    "directory of a consumer, or its server, is read-only",
    "data directory is read-only",
    "clock jumps back",
    "Two whole sessions write at once",
    "1,000 one-point runs back to back",
    "run of 100,000 events",
    "Event data that cannot be stored",
    "Unusual event data",
    "between its write and its mark",
    "second session starts while a run of the first is open",
    "kill -9 of the shipping process",
)


@pytest.fixture(scope="module")
def page():
    return rows_of(PAGE.read_text())


def test_the_page_has_the_rows_of_the_tests(page):
    """Run `python -m tests.faults_page` when this fails."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults_page", "--rows"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    found = re.search(r"(?m)^ROWS (.*)$", done.stdout)
    assert found, done.stdout + done.stderr
    assert sorted(page) == sorted(tuple(row) for row in json.loads(found[1]))


@pytest.mark.parametrize("fault", PROMISED)
def test_every_fault_that_was_promised_is_a_row(page, fault):
    assert any(re.search(fault, what) for what, _ in page)


def test_no_promise_was_broken_when_the_page_was_made():
    assert "failed" not in PAGE.read_text()
