"""User code: the example finds PVs, and is loaded in each way that people load such files."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ANSWER = {
    "read": ["calcs.calc8.calculation", "temperature.calculation"],
    "write": ["calcs.calc8.calculation", "temperature.calculation"],
}
SESSION = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
from instrument.config import load
from instrument.devices.registry import Registry, build, shortcuts

class LoadedAtFirstUse:
    def __getattribute__(self, name):
        raise AssertionError(f"asked for {name}: this would import databroker")

config = load()
devices = build(config.devices)
shell = InteractiveShell.instance()
shell.push(dict(devices) | shortcuts(devices, config.shortcuts))
shell.user_ns |= {"cat": LoadedAtFirstUse(), "db": LoadedAtFirstUse()}

def show(code):
    print(json.dumps(shell.ev(code)))
"""


@pytest.fixture(autouse=True)
def beamline(virtual_beamline):
    """Up before a session makes its first channel."""


def session(code: str, *, path: Path = ROOT, cwd: Path = ROOT) -> list:
    """What a session prints, line by line as JSON."""
    # Left without exit handlers: ophyd's can crash while channels are connecting.
    script = SESSION + textwrap.dedent(code) + "\nsys.stdout.flush()\nimport os\nos._exit(0)\n"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(path)!r}]\n{script}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_findpv_gives_the_reference_answer_after_run_as_a_module():
    code = """
        shell.run_line_magic("run", "-im pv_finder")
        show('findpv("gp:userCalc8.CALC")')
        show('sorted(name for name in calcs._signals)')
    """
    found, made = session(code, path=ROOT / "user")
    assert found == ANSWER
    assert made == ["calc8", "enable"]  # the other 19 were not made for it


def test_findpv_of_the_package_finds_more():
    code = """
        shell.run_cell("from user.pv_finder import findpv").raise_error()
        for pv in ("gp:userCalc8.CALC", "gp:m1.RBV", "gp:m1", "gp:userCalc1", "gp:scaler1.S2", "gp:m3.SREV", "gp:none"):
            show(f"findpv({pv!r})")
    """
    assert session(code) == [
        ANSWER,
        {"read": ["m1.user_readback"], "write": []},
        {"read": ["m1.user_setpoint"], "write": ["m1.user_setpoint"]},
        {"read": ["calcs.calc1.calculated_value", "noisy"], "write": ["calcs.calc1.calculated_value"]},
        {"read": ["scaler1.channels.chan02.s"], "write": []},
        {"read": ["m3.steps_per_revolution"], "write": ["m3.steps_per_revolution"]},
        {"read": [], "write": []},
    ]


def test_an_edited_file_is_loaded_again(tmp_path):
    source = (ROOT / "user" / "pv_finder.py").read_text()
    edited = source + '\n\ndef findpv(pvname):\n    return "edited"\n'
    (tmp_path / "pv_finder.py").write_text(source)
    code = f"""
        import pathlib
        shell.run_line_magic("run", "-im pv_finder")
        show('findpv("gp:m1.RBV")')
        pathlib.Path("pv_finder.py").write_text({edited!r})
        shell.run_line_magic("run", "-im pv_finder")
        show('findpv("gp:m1.RBV")')
    """
    found = session(code, path=tmp_path, cwd=tmp_path)
    assert found == [{"read": ["m1.user_readback"], "write": []}, "edited"]
