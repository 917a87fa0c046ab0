"""What all benchmarks share: figures beside their budgets, sides that take turns, fresh processes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 600.0  # s that one process may take before it counts as hung
_NO_CONCERN = {"VIRTUAL_BEAMLINE", "INSTRUMENT_CONFIG", "PYTHONSTARTUP", "PYTHONDONTWRITEBYTECODE"}
_NAME, _LIMIT, _MEASURED = 52, 14, 14  # widths of the table's columns


@dataclass(frozen=True)
class Figure:
    """One budget and what was measured.

    Attributes:
        name: What is measured.
        measured: How much, in `unit`.
        limit: The budget, in `unit`.
        unit: "s", "ms", "%", or "x" for a ratio.
        at_least: The budget is a floor, not a ceiling.
        note: What the figure is made of; figures that explain it.
    """

    name: str
    measured: float
    limit: float
    unit: str
    at_least: bool = False
    note: str = ""

    @property
    def kept(self) -> bool:
        """Is the budget kept? A figure that is no number is a miss."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def line(self) -> str:
        """The figure as a row of the table."""
        limit = f"{'>=' if self.at_least else '<='} {self.limit:g} {self.unit}"
        measured = f"{self.measured:.3g} {self.unit}"
        return _row(self.name, limit, measured, "ok" if self.kept else "MISSED")


@dataclass(frozen=True)
class Benchmark:
    """Something that `make bench` measures.

    Attributes:
        name: What it is called on the command line.
        about: One line.
        measure: Yields its figures; gets how many rounds to measure, None for its own choice.
    """

    name: str
    about: str
    measure: Callable[[int | None], Iterable[Figure]]


def _row(name: str, limit: str, measured: str, verdict: str) -> str:
    return f"{name:<{_NAME}} {limit:>{_LIMIT}} {measured:>{_MEASURED}}  {verdict}"


def run(benchmarks: Sequence[Benchmark], rounds: int | None = None, show: Callable[[str], object] = print) -> int:
    """Measure and show the table, each row as soon as it is known.

    Args:
        benchmarks: What to measure, in this order.
        rounds: How often each side is measured; None for each benchmark's own choice.
        show: Takes the lines of the table.

    Returns:
        How many budgets were missed; a benchmark that raises, or measures nothing, has missed one.
    """
    missed = 0
    show(_row("what", "budget", "measured", ""))
    show("-" * (_NAME + _LIMIT + _MEASURED + 10))
    for benchmark in benchmarks:
        began, figures = time.monotonic(), 0
        try:
            for figure in benchmark.measure(rounds):
                figures += 1
                missed += not figure.kept
                show(figure.line())
                if figure.note:
                    show(f"    {figure.note}")
            if not figures:
                raise MeasurementError("it measured nothing")
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            missed += 1
            reason = " ".join(str(error).split()) or "no reason given"
            show(_row(benchmark.name, "", "failed", "MISSED"))
            show(f"    {type(error).__name__}: {reason}")
        print(f"    [{benchmark.name}: {time.monotonic() - began:.0f} s]", file=sys.stderr)
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    show("-" * (_NAME + _LIMIT + _MEASURED + 10))
    show(f"{missed or 'no'} budget{'' if missed == 1 else 's'} missed; {os.cpu_count()} processors, load {load}")
    return missed


class MeasurementError(Exception):
    """Something could not be measured, or what was measured did not do its work."""


# -- sides that take turns -----------------------------------------------------------------------------------------


def take_turns(sides: Mapping[str, Callable[[], Any]], rounds: int, *, warm_up: bool = False) -> dict[str, list[Any]]:
    """Measure A B A B ..., so that what else the machine does meets all sides alike.

    Args:
        sides: Each measures itself once and returns its figures.
        rounds: How often.
        warm_up: Measure one more round first, and forget it.
    """
    found: dict[str, list[Any]] = {name: [] for name in sides}
    for number in range(-1 if warm_up else 0, rounds):
        for name, measure in sides.items():
            figures = measure()
            if number >= 0:
                found[name].append(figures)
    return found


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """The median of the ratios of the rounds."""
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


def median(values: Iterable[float]) -> float:
    """The median."""
    return statistics.median(values)


# -- fresh processes -----------------------------------------------------------------------------------------------


def environment(**variables: str) -> dict[str, str]:
    """This process's environment as a person's shell has it, with `benchmarks` importable.

    Without EPICS's variables, and without PYTHONDONTWRITEBYTECODE, which containers like to set: from the second start
    on Python reads the compiled modules of this repository, as it does those that pip has installed.
    """
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith("EPICS_") and key not in _NO_CONCERN
    }
    return {**inherited, "PYTHONPATH": str(ROOT), **variables}


def child(module: str, *arguments: object, cwd: Path, variables: Mapping[str, str] | None = None) -> Any:
    """Run a module of this package in a process of its own.

    Args:
        module: Its name within the package.
        arguments: Its command line.
        cwd: Its working directory.
        variables: Added to its environment.

    Returns:
        What it printed as its last line, which is JSON.

    Raises:
        MeasurementError: It failed, or printed no JSON.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment(**(variables or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        sys.stderr.write(done.stderr)
        raise MeasurementError(f"{module} {' '.join(map(str, arguments))} ended with {done.returncode}: {last}")
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise MeasurementError(f"{module} printed no figures: {done.stdout[-200:]!r}") from error


def wall_time(command: Sequence[str], cwd: Path) -> float:
    """How long a command takes (s), from exec to its end.

    Raises:
        MeasurementError: It failed.
    """
    began = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    took = time.perf_counter() - began
    if done.returncode:
        raise MeasurementError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.decode()[-200:]}")
    return took


@contextmanager
def scratch():
    """A working directory that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as name:
        yield Path(name)
