"""docs/explanations/faults.md, made from the tests: which fault, what is promised, whether it was kept.

`python -m tests.faults_page` runs every test that is marked with `@fault(...)`, the long ones too, and writes the page.
With pytest's `-k` it runs some of them, and leaves the other results as they are.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "explanations" / "faults.md"
PLACES = ("tests/data", "tests/faults", "tests/callbacks", "tests/plans", "tests/reference")
RESULTS = ("passed", "failed", "skipped")


def fault(what: str, promise: str) -> pytest.MarkDecorator:
    """Mark a test: it brings about this fault, and checks that this promise is kept.

    Args:
        what: The fault, as a row of the page.
        promise: What a user may rely on.
    """
    return pytest.mark.fault(what, promise)


Row = tuple[str, str]


class Collector:
    """A pytest plugin that knows the rows, the tests of each, and what became of them."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}  # by test
        self.results: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item], config: pytest.Config) -> None:
        """Keep the tests with a fault."""
        marked = {item: marker for item in items if (marker := item.get_closest_marker("fault"))}
        config.hook.pytest_deselected(items=[item for item in items if item not in marked])
        items[:] = list(marked)
        self.rows = {item.nodeid: (marker.args[0], marker.args[1]) for item, marker in marked.items()}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take note of a result; the worst of set-up, call and tear-down."""
        if report.when == "call" or report.outcome != "passed":
            before = self.results.get(report.nodeid, "passed")
            self.results[report.nodeid] = before if before == "failed" else report.outcome


def collect(*arguments: str) -> tuple[Collector, int]:
    """Run pytest over all faults."""
    collector = Collector()
    code = pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments, *PLACES], plugins=[collector])
    return collector, int(code)


def rows_of(page: str) -> list[Row]:
    """The rows of a page, without their results."""
    found = re.findall(r"(?m)^\| (.+?) \| (.+?) \| [^|]+ \| [^|]+ \|$", page)
    return [row for row in found if row[0] not in {"fault", "---"}]


def results_of(page: str) -> dict[Row, str]:
    """The results of a page."""
    return {
        (what, promise): result for what, promise, result in re.findall(r"(?m)^\| (.+?) \| (.+?) \| ([^|]+) \|", page)
    }


def rows(collector: Collector) -> dict[Row, list[str]]:
    """The tests of each row, in the order of the tests."""
    found: dict[Row, list[str]] = {}
    for test, row in collector.rows.items():
        found.setdefault(row, []).append(test)
    return found


def write(collector: Collector) -> str:
    """The page."""
    lines = []
    before = results_of(PAGE.read_text()) if PAGE.exists() else {}
    for (what, promise), tests in rows(collector).items():
        counts = Counter(collector.results[test] for test in tests if test in collector.results)
        result = ", ".join(f"{counts[name]} {name}" for name in RESULTS if counts[name])
        result = result or before.get((what, promise), "not run")
        where = ", ".join(
            f"`{name}`" for name in dict.fromkeys(re.sub(r"\[.*", "", test.split("/")[-1]) for test in tests)
        )
        lines.append(f"| {what} | {promise} | {result} | {where} |")
    return "\n".join([*HEAD.format(day=time.strftime("%Y-%m-%d")).splitlines(), *lines, ""])


HEAD = """\
# Faults, and what is promised

Made by `python -m tests.faults_page` from the tests that bring these faults about; results of {day}.
Each consumer that there is goes through each fault of a consumer: a stub, SPEC files and NeXus files behind the
session's outbox; a stub, a Tiled server and MongoDB behind the shipping process. No MongoDB server can be installed
here: mongomock stands in for it.

| fault | promise | result (tests) | tests |
| --- | --- | --- | --- |
"""


def main(arguments: list[str]) -> int:
    """Write the page, or print its rows as JSON (`--rows`)."""
    sys.path.insert(0, str(ROOT))
    if arguments == ["--rows"]:
        collector, code = collect("--collect-only", "-qq", "-m", "")
        print("ROWS", json.dumps([list(row) for row in rows(collector)]))
        return code
    collector, code = collect("-m", "", *arguments)
    PAGE.write_text(write(collector))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
