"""`bluesky_snapshot` in a directory of its own, as a process or as a function, at the beamline of this test process."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.terminal import ROOT, clean_environment

DEADLINE = 120.0  # s, generous: the machine may be busy


@dataclass
class Shell:
    """A shell whose environment names the beamline."""

    directory: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment(self.directory, PYTHONPATH=str(ROOT), COLUMNS="80", **self.variables)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "instrument.snapshot_cli", *arguments]

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.directory,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def shell(virtual_beamline, tmp_path):
    return Shell(tmp_path, dict(virtual_beamline.environment.variables))


@dataclass
class Told:
    code: int
    out: str
    err: str


@pytest.fixture
def snapshot(virtual_beamline, tmp_path, monkeypatch, capsys):
    """`bluesky_snapshot` without a process of its own, which takes a second; gives its exit code and its output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INSTRUMENT_CONFIG", raising=False)

    def run(*arguments: str) -> Told:
        from instrument.snapshot_cli import main

        capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as ended:
            code = ended.code
        return Told(code, *capsys.readouterr())

    return run


def channel(pv: str) -> str:
    """The PV by a channel of its own: pyepics would give what it made here to ophyd, too, which needs its own kind."""
    return f"{pv if '.' in pv else f'{pv}.VAL'}{{}}"


@pytest.fixture(scope="module")
def get(virtual_beamline):
    """What PVs have, asked by another client than the one that is tested."""

    def read(*pvs: str) -> Any:
        from instrument.devices.pvs import attach

        attach()  # before pyepics chooses another libca than ophyd does
        import epics

        values = [epics.caget(channel(pv), use_monitor=False, timeout=30, connection_timeout=30) for pv in pvs]
        return values if len(pvs) > 1 else values[0]

    return read


@pytest.fixture(scope="module")
def put(get):
    """Write a PV of the beamline, and wait until it is written; at the end each is again as others expect it."""
    before: dict[str, Any] = {}

    def write(pv: str, value: object) -> None:
        if pv not in before:
            before[pv] = get(pv)
        import epics

        assert epics.caput(channel(pv), value, wait=True, timeout=30, connection_timeout=30) == 1, pv

    yield write
    for pv, value in reversed(before.items()):
        write(pv, value)
