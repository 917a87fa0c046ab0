"""docs/how-to/snapshots.md, whose output is what its commands print: `python -m tests.snapshot.page` makes it again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.reference.printout import Mask, masked
from tests.terminal import ROOT, Terminal, clean_environment
from virtual_beamline import supervisor

PAGE = ROOT / "docs" / "how-to" / "snapshots.md"
BLOCK = re.compile(r"(?<=```)(console|ipython)\n(.*?)(?=```)", re.DOTALL)
TYPED = {"console": re.compile(r"^\$ (.*)$", re.MULTILINE), "ipython": re.compile(r"^In \[\d+\]: (.*)$", re.MULTILINE)}
DEADLINE = 120.0  # s, generous: the machine may be busy
# EPICS' own is not on PyPI.
CAPUT = """\
#!{python}
import sys, epics
pv, text = sys.argv[1:]
value = float(text) if text.replace(".", "").isdecimal() else text
sys.exit(epics.caput(pv, value, wait=True, timeout=60) != 1)
"""
PROGRAM = """\
#!{python}
from instrument.snapshot_cli import run
run()
"""
MASKS = (
    Mask("time", r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+", "when it was read"),
    Mask("uid", r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "each run has its own"),
    Mask("uid", r"(?<=[('])[0-9a-f]{7}(?=[)'])|(?<=restore )[0-9a-f]{7}|^\d+ +[0-9a-f]{8}", "its beginning"),
    Mask("seconds", r"^time: \d+\.\d+", "when it was taken"),
    Mask("version", r"(?<=': )'(?:[^'\\]|\\.)*'", "today's packages"),
    Mask("noisy", r"(?<=gp:userCalc1) .*", "what the simulated detector counts"),
    Mask("rule", r"={5,}", "columns are as wide as the longest value"),
    Mask("", r"(?<=\S) {2,}(?=\S)", "columns are as wide as the longest value"),
)  # fmt: skip


def with_output(page: str, shell: Callable[[str], str], prompt: Callable[[str], str]) -> str:
    """The page, with what each of its commands prints now.

    Args:
        page: Its text.
        shell: Runs a command; gives what it prints.
        prompt: The same for a line at the prompt of a session.
    """

    def run(block: re.Match[str]) -> str:
        kind, text = block[1], block[2]
        act = shell if kind == "console" else prompt
        parts = [f"{typed[0]}\n{act(typed[1])}" for typed in TYPED[kind].finditer(text)]
        return f"{kind}\n{''.join(parts)}"

    return BLOCK.sub(run, page)


def comparable(page: str) -> list[str]:
    """The lines of a page, with what can't be the same twice masked."""
    return [line.rstrip() for line in masked(page, MASKS).splitlines()]


def run_all(directory: Path, page: str) -> str:
    """The page with output made in a directory, at a virtual beamline of its own."""
    beamline = supervisor.start(seed=1)
    try:
        beamline.wait_ready()
        programs = directory / "bin"
        programs.mkdir()
        for name, text in (("bluesky_snapshot", PROGRAM), ("caput", CAPUT)):
            (programs / name).write_text(text.format(python=sys.executable))
            (programs / name).chmod(0o755)
        variables = dict(beamline.environment.variables)
        environment = {**clean_environment(directory, PYTHONPATH=str(ROOT)), **variables}
        environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"

        def shell(command: str) -> str:
            done = subprocess.run(
                ["sh", "-c", command],
                cwd=directory,
                env=environment,
                capture_output=True,
                text=True,
                timeout=DEADLINE,
                check=True,
            )
            return _stripped(done.stdout)

        sessions: list[Terminal] = []

        def prompt(line: str) -> str:
            if not sessions:
                sessions.append(Terminal(directory, env=variables))
            return _stripped(sessions[0].run(line))

        shell("caput gp:m1 0.5; caput gp:gp:text1 aligned; caput gp:gp:float1 1.5")
        try:
            return with_output(page, shell, prompt)
        finally:
            for session in sessions:
                session.exit()
    finally:
        beamline.stop()


def _stripped(text: str) -> str:
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        PAGE.write_text(run_all(Path(scratch), PAGE.read_text()))
