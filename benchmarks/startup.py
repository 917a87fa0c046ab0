"""From the shell to the prompt, beside the imports that no session can do without."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Benchmark, Figure, MeasurementError, median, ratio, scratch, take_turns, wall_time
from benchmarks.terminal import terminal

IMPORTS = "import bluesky, ophyd, IPython, matplotlib.pyplot"
PROMPT = "In [1]:"
INSTRUMENT = [str(Path(sys.executable).parent / "instrument")]


def _to_prompt(directory: Path) -> float:
    """Start a session at a terminal; the time to its prompt (s)."""
    with terminal([*INSTRUMENT, "session"], directory, IPYTHONDIR=str(directory / "ipython")) as session:
        took = session.wait_for(PROMPT)
        ready = re.search(r"(\d+) devices(.*); ready in", session.text)
        if ready is None:
            raise MeasurementError(f"the session did not say that it is ready: {session.text[-300:]!r}")
        if "offline" in ready[2]:
            raise MeasurementError(f"the session is at its prompt without its devices: {ready[0]}")
        session.type("exit()")
        session.wait_for_end(60)
    return took


def _to_imports(directory: Path) -> float:
    """Import what every session needs, at a terminal too; the time until that is done (s)."""
    command = [sys.executable, "-c", f"{IMPORTS}; print('imports done')"]
    with terminal(command, directory) as python:
        took = python.wait_for("imports done")
        python.wait_for_end(60)
    return took


def measure_session(rounds: int | None) -> Iterator[Figure]:
    with scratch() as directory:
        sides = {"session": lambda: _to_prompt(directory), "imports": lambda: _to_imports(directory)}
        times = take_turns(sides, rounds or 5, warm_up=True)
    session, imports = times["session"], times["imports"]
    note = f"{median(session):.2f} s at a terminal, until {PROMPT!r}; {median(imports):.2f} s for {IMPORTS!r}"
    yield Figure("session: shell to prompt / bare imports", ratio(session, imports), 1.5, "x", note=note)


def measure_help(rounds: int | None) -> Iterator[Figure]:
    with scratch() as directory:
        sides = {
            "help": lambda: wall_time([*INSTRUMENT, "--help"], directory),
            "python": lambda: wall_time([sys.executable, "-c", "pass"], directory),
        }
        times = take_turns(sides, rounds or 9, warm_up=True)
    python = median(times["python"])
    note = f"{ratio(times['help'], times['python']):.1f} x `python -c pass` ({python:.3f} s)"
    yield Figure("instrument --help", median(times["help"]), 0.5, "s", note=note)


SESSION = Benchmark("session", "from the shell to the prompt, IOC started and devices connected", measure_session)
HELP = Benchmark("help", "`instrument --help`", measure_help)
