"""`make test` itself: what it makes of tests that fail, on small projects of their own."""

import os
import subprocess
import sys

import pytest

from tests import gate

PASSES = """
def test_passes():
    pass
"""
FAILS_FIRST = """
from pathlib import Path

def test_fails_first():
    here = Path(__file__).with_suffix(".ran")
    ran = here.exists()
    here.touch()
    assert ran
"""
FAILS = """
import pytest

@pytest.mark.parametrize("n", range({count}))
def test_fails(n):
    with open(__file__ + ".times", "a") as file:
        file.write("x")
    assert False
"""
GATE = """
import pathlib, sys
from tests import gate
gate.ROOT = pathlib.Path.cwd()
gate.AT_ONCE = gate.BESIDE_THE_TESTS = ()
gate.SYSTEM_PROGRAMS = {}
gate.WORKERS = "2"
sys.exit(gate.main([]))
"""


@pytest.fixture
def make_test(tmp_path):
    """Run the gate on test files, with our conftest's summary; return how it ended and what it printed."""

    def run(**files):
        (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_terminal_summary\n")
        (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    soak\n")
        for name, text in files.items():
            (tmp_path / f"test_{name}.py").write_text(text)
        environment = {**os.environ, "PYTHONPATH": str(gate.ROOT), "WORKERS": "2"}
        for name in list(environment):
            if name.startswith("PYTEST_"):
                del environment[name]
        return subprocess.run(
            [sys.executable, "-c", GATE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return run


def test_what_fails_only_beside_others_passes_and_is_told_last(make_test):
    done = make_test(first=FAILS_FIRST, passes=PASSES)
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("all passed\nPASSED ONLY ALONE: test_first.py::test_fails_first\n")


def test_what_fails_alone_fails_the_gate(make_test, tmp_path):
    done = make_test(first=FAILS_FIRST, fails=FAILS.format(count=1), passes=PASSES)
    assert done.returncode == 1
    assert done.stdout.endswith("failed: pytest\n")
    assert (tmp_path / "test_fails.py.times").read_text() == "xx"


def test_many_failures_are_not_tried_again(make_test, tmp_path):
    done = make_test(fails=FAILS.format(count=gate.SECOND_TRIES + 1), passes=PASSES)
    assert done.returncode == 1
    assert len((tmp_path / "test_fails.py.times").read_text()) == gate.SECOND_TRIES + 1


def test_a_file_that_can_not_be_collected_fails_the_gate(make_test):
    done = make_test(broken="import nothing_of_this_name\n", passes=PASSES)
    assert done.returncode == 1
    assert done.stdout.endswith("failed: pytest\n")


def test_all_that_pass_pass_at_once(make_test):
    done = make_test(passes=PASSES)
    assert done.returncode == 0
    assert done.stdout.endswith("all passed\n")
