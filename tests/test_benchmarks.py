"""The runner of `make bench`: what it says, and how it ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from benchmarks.harness import Benchmark, Figure, MeasurementError, child, ratio, run, take_turns

ROOT = Path(__file__).parent.parent


def benchmark(name: str, *figures: Figure, error: Exception | None = None) -> Benchmark:
    def measure(_rounds):
        yield from figures
        if error is not None:
            raise error

    return Benchmark(name, f"about {name}", measure)


KEPT = Figure("within", 1.0, 2.0, "s")
MISSED = Figure("beyond", 3.0, 2.0, "s", note="why")


def lines_of(*benchmarks: Benchmark) -> tuple[int, list[str]]:
    lines: list[str] = []
    return run(benchmarks, show=lines.append), lines


def test_a_kept_budget_exits_0_and_is_printed_beside_what_was_measured(capsys):
    assert bench.main([], [benchmark("quick", KEPT)]) == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("within"))
    assert row.split() == ["within", "<=", "2", "s", "1", "s", "ok"]


def test_a_missed_budget_exits_1_also_when_later_ones_are_kept(capsys):
    assert bench.main([], [benchmark("slow", MISSED), benchmark("quick", KEPT)]) == 1
    rows = capsys.readouterr().out.splitlines()
    (row,) = (line for line in rows if line.startswith("beyond"))
    assert row.endswith("MISSED")
    assert rows[rows.index(row) + 1].strip() == "why"
    assert any(line.startswith("within") for line in rows)


def test_a_benchmark_that_raises_is_a_miss_with_its_reason_and_the_next_one_still_runs(capsys):
    broken = benchmark("broken", KEPT, error=OSError("the IOC\nis gone"))
    missed, lines = lines_of(broken, benchmark("quick", KEPT))
    assert missed == 1
    assert "    OSError: the IOC is gone" in lines
    assert [line.split()[0] for line in lines if line.endswith(" ok")] == ["within", "within"]
    assert "Traceback" in capsys.readouterr().err


def test_a_benchmark_that_measures_nothing_is_a_miss():
    missed, lines = lines_of(benchmark("empty"))
    assert missed == 1
    assert any("it measured nothing" in line for line in lines)


@pytest.mark.parametrize(
    ("measured", "at_least", "kept"),
    [
        (2.0, False, True),
        (2.1, False, False),
        (2.0, True, True),
        (1.9, True, False),
        (float("nan"), True, False),
        (float("nan"), False, False),
    ],
)
def test_a_budget_is_a_ceiling_or_a_floor_and_no_number_is_a_miss(measured, at_least, kept):
    assert Figure("", measured, 2.0, "x", at_least=at_least).kept is kept


def test_only_the_named_benchmarks_are_measured(capsys):
    assert bench.main(["quick"], [benchmark("slow", MISSED), benchmark("quick", KEPT)]) == 0
    assert "beyond" not in capsys.readouterr().out


def test_an_unknown_name_is_refused_with_the_nearest_one(capsys):
    assert bench.main(["calalog"], [benchmark("catalog", KEPT), benchmark("ioc", KEPT)]) == 2
    assert "'calalog'; did you mean 'catalog'?" in capsys.readouterr().err


def test_less_than_one_round_is_refused(capsys):
    assert bench.main(["--rounds", "0"], [benchmark("quick", KEPT)]) == 2
    assert "--rounds 0" in capsys.readouterr().err


def test_the_command_lists_every_benchmark_and_measures_nothing():
    listing = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--list"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=99
    ).stdout
    names = [line.split()[0] for line in listing.splitlines()]
    assert names == [each.name for each in bench.BENCHMARKS]
    assert len(names) == len(set(names)) >= 6


def test_sides_take_turns_and_the_warm_up_round_is_forgotten():
    calls = []
    sides = {name: lambda name=name: calls.append(name) or len(calls) for name in "AB"}
    assert take_turns(sides, 2, warm_up=True) == {"A": [3, 5], "B": [4, 6]}
    assert "".join(calls) == "ABABAB"


def test_the_ratio_is_the_median_of_the_rounds_ratios():
    assert ratio([1.0, 2.0, 90.0], [1.0, 1.0, 1.0]) == 2.0


def test_a_child_that_fails_is_told_with_its_last_words(tmp_path, capfd):
    with pytest.raises(MeasurementError, match=r"caproto_ioc nowhere ended with 1: FileNotFoundError.*nowhere"):
        child("caproto_ioc", "nowhere", cwd=tmp_path)
    assert "Traceback" in capfd.readouterr().err
