"""What differs between two snapshots, or a snapshot and now."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instrument.config.errors import UserError
from instrument.framework.comparison import Tolerance, compare
from instrument.framework.snapshots import Entry, Snapshot

NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(2**63), 2**63)


def rows(out):
    """The table's cells."""
    rule = next(line for line in out.splitlines() if line.startswith("=="))
    starts = [0, *(n + 1 for n, c in enumerate(rule) if c == " ")]
    lines = out.splitlines()
    first, last = [n for n, line in enumerate(lines) if line == rule][1:]
    return [
        [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
        for line in lines[first + 1 : last]
    ]


def test_only_what_has_changed_is_shown_with_both_values_and_the_difference(snapshot, put):
    for pv, value in (("gp:gp:float1", 1.5), ("gp:gp:float2", 7), ("gp:gp:text1", "one"), ("gp:ACCESS", 0)):
        put(pv, value)
    put("gp:gp:array1", [1, 2])
    pvs = ("gp:gp:float1", "gp:gp:float2", "gp:gp:text1", "gp:gp:array1", "gp:ACCESS")
    uid = snapshot(*pvs, "-q").out.strip()
    for pv, value in (("gp:gp:float1", 1.25), ("gp:gp:text1", "two"), ("gp:ACCESS", 2), ("gp:gp:array1", [1, 2, 3])):
        put(pv, value)
    told = snapshot("--diff", "-1")
    assert (told.code, told.err) == (0, "")
    changes = [
        ["gp:ACCESS", "Running", "Test", ""],
        ["gp:gp:array1", "[1.0, 2.0]", "[1.0, 2.0, 3.0]", ""],
        ["gp:gp:float1", "1.5", "1.25", "-0.25"],
        ["gp:gp:text1", "one", "two", ""],
    ]
    assert rows(told.out) == changes
    assert told.out.endswith("\n4 of 5 differ\n")

    snapshot(*pvs, "gp:m9", "-q")
    told = snapshot("--diff", uid[:8], "-1")
    assert rows(told.out) == [*changes, ["gp:m9", "not in it", "0.0", ""]]
    found = json.loads(snapshot("--diff", "1", "2", "--json").out)
    assert found["before"] == uid
    assert found["changes"][2] == {"name": "gp:gp:float1", "before": 1.5, "after": 1.25, "problem": None}
    assert snapshot("--diff", "-1", "-1").out.endswith("\n0 of 6 differ\n")


def test_numbers_within_the_tolerance_are_the_same(snapshot, put):
    put("gp:gp:float1", 100.0)
    snapshot("gp:gp:float1", "-q")
    put("gp:gp:float1", 100.5)
    assert snapshot("--diff", "-1", "--tolerance", "0.5").out.endswith("\n0 of 1 differ by more than 0.5\n")
    assert snapshot("--diff", "-1", "--tolerance", "0.4").out.endswith("\n1 of 1 differ by more than 0.4\n")
    assert snapshot("--diff", "-1", "--relative", "0.01").out.endswith(
        "\n0 of 1 differ by more than 0.01 of the value\n"
    )


def test_a_pv_that_does_not_answer_now_is_a_difference_and_exit_code_1(shell, snapshot, fresh_beamline):
    other = fresh_beamline(prefix="sky:")
    shell.variables.pop("VIRTUAL_BEAMLINE")
    shell.variables["EPICS_CA_ADDR_LIST"] += " " + other.environment.variables["EPICS_CA_ADDR_LIST"]
    assert shell.run("gp:m1", "sky:m1", "-q").returncode == 0
    told = snapshot("--diff", "-1", "--timeout", "3")  # of this process, which does not look there
    assert told.code == 1
    assert rows(told.out) == [["sky:m1", "0.0", "not read: no answer in 3 s", ""]]


def test_a_pv_that_answered_neither_time_is_no_difference_but_exit_code_1(snapshot):
    assert snapshot("gp:m1", "sky:m1", "-q", "--timeout", "1").code == 1
    told = snapshot("--diff", "-1", "--timeout", "1", "--tolerance", "1")
    assert (told.code, told.err) == (1, "")
    assert told.out.endswith("\n0 of 2 differ by more than 1; read neither then nor now: sky:m1\n")
    snapshot("gp:m1", "-q")
    assert snapshot("--diff", "-1").code == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--diff", "-1"], "there is no snapshot -1: none is recorded here"),
        (["--diff", "1", "2", "3"], "--diff 1 2 3: two snapshots can be compared, not 3"),
        (
            ["--diff", "-1", "--tolerance", "-1"],
            "argument --tolerance: '-1' is no tolerance: give a number, 0 or more; bluesky_snapshot --help tells more",
        ),
        (["--diff", "-1", "--write"], "--write says nothing to --diff: leave it out"),
        (["gp:m1", "--tolerance", "1"], "--tolerance says nothing to a snapshot: leave it out"),
    ],
)
def test_a_mistake_is_told_in_one_line(snapshot, arguments, line):
    told = snapshot(*arguments)
    assert (told.code, told.out, told.err) == (2, "", f"bluesky_snapshot: {line}\n")


# --- properties


@given(NUMBERS)
def test_a_number_is_the_same_as_itself(number):
    assert Tolerance().same(number, number)
    assert Tolerance().same(np.array([number, 1.0], dtype=float), np.array([number, 1.0], dtype=float))


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_what_is_apart_by_no_more_than_the_tolerance_is_the_same_in_both_directions(a, b, tolerance):
    same = Tolerance(tolerance).same(a, b)
    assert same == (abs(a - b) <= tolerance)
    assert same == Tolerance(tolerance).same(b, a)
    assert same == Tolerance(tolerance).same(np.array([a, 0.0]), np.array([b, 0.0]))


def test_text_is_never_a_number_and_lengths_count():
    assert not Tolerance(1e9).same("1", 1)
    assert not Tolerance(1e9).same([1.0, 2.0], [1.0])
    assert Tolerance().same(["a", "b"], ["a", "b"])
    assert not Tolerance().same(math.nan, 1.0)


@pytest.mark.parametrize("wrong", [-1, math.nan, math.inf, "0.1", True, None])
def test_a_tolerance_is_a_number_0_or_more(wrong):
    with pytest.raises(UserError, match="is no tolerance: give a number, 0 or more"):
        Tolerance(wrong)


def test_what_was_read_neither_time_is_no_difference_and_told():
    def one(**problems):
        return Snapshot({}, [Entry(key, {"source": f"PV:{key}"}, 1, None, why) for key, why in problems.items()])

    found = compare(one(a=None, b=None, c="x", d="x"), one(a=None, b="y", c=None, d="y"), Tolerance())
    assert [change.name for change in found.changes] == ["b", "c"]
    assert found.lines()[-1] == "2 of 4 differ; read neither then nor now: d"
    assert found.unread == ["b", "d"]
    assert found.as_json()["unknown"] == ["d"]


def test_enumerations_are_compared_by_their_labels():
    def one(value, labels):
        return Snapshot({}, [Entry("a", {"source": "PV:a", "enum_strs": labels}, value)])

    assert not compare(one(1, ["off", "on"]), one(0, ["on", "off"]), Tolerance()).changes
    assert compare(one(1, ["off", "on"]), one(1, ["on", "off"]), Tolerance()).changes
