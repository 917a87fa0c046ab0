"""Each way to start a session gives the same session: a pipe, ipython, a script, `python -c`.

A Jupyter kernel is not tested: ipykernel and jupyter_client are not among the dependencies.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from spec2nexus.spec import SpecDataFile

from tests.terminal import ROOT, clean_environment

DEADLINE = 120.0  # s, generous: the machine may be busy
COUNT = "RE(bp.count([scaler1]))\n"
IPYTHONS_OWN = {"In", "Out", "exit", "get_ipython", "open", "quit"}
SHOW = f"""\
import json as _json, os as _os, instrument.session as _session
print("NAMES", _json.dumps(sorted({{n for n in globals() if n[0] != "_"}} - {IPYTHONS_OWN})))
print("PIDS", _json.dumps([_os.getpid(), _session.current().beamline.pid]))
"""


def run(directory: Path, *command: str, lines: str = "", **extra: str) -> subprocess.CompletedProcess[str]:
    """Run Python in an empty directory as a newcomer would, `lines` piped in."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=directory,
        env=clean_environment(directory, PYTHONPATH=str(ROOT), **extra),
        input=lines,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def shown(done: subprocess.CompletedProcess[str], what: str) -> list:
    """What `SHOW` printed."""
    return json.loads(re.findall(rf"{what} (\[.*\])$", done.stdout, flags=re.MULTILINE)[0])


def scans(directory: Path) -> list[str]:
    """The exit status of each scan in the SPEC file of a directory."""
    (path,) = directory.glob("*.dat")
    scans = SpecDataFile(str(path)).scans
    assert all(scan.data["scaler1_time"] == [1.0] for scan in scans.values())
    return re.findall(r"exit_status = (\w+)$", path.read_text(), flags=re.MULTILINE)


def assert_gone(pid: int) -> None:
    deadline = time.monotonic() + 10.0
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(pid)


@pytest.fixture(scope="module")
def piped(tmp_path_factory):
    """`instrument session` with a count piped in: its directory, and what became of it."""
    directory = tmp_path_factory.mktemp("piped")
    return directory, run(directory, "-m", "instrument.cli", "session", lines=COUNT + SHOW + "exit\n1/0\n")


def test_a_pipe_is_run_to_its_exit_and_its_files_are_written(piped):
    directory, done = piped
    assert (done.returncode, scans(directory)) == (0, ["success"]), done.stdout + done.stderr
    assert "generator count" in done.stdout
    for pid in shown(done, "PIDS"):
        assert_gone(pid)


def test_a_line_of_a_pipe_that_raises_is_told_by_the_exit_code_and_the_others_run(tmp_path):
    done = run(tmp_path, "-m", "instrument.cli", "session", lines=f"{COUNT}1/0\nscaler1.nothing\n{COUNT}")
    assert (done.returncode, scans(tmp_path)) == (1, ["success", "success"]), done.stdout + done.stderr
    told = (done.stdout + done.stderr).splitlines()
    assert told.count("ZeroDivisionError: division by zero") == 1
    assert "Traceback" not in done.stdout + done.stderr


def test_what_a_file_raises_that_is_run_is_told_with_its_place_and_by_the_exit_code(tmp_path):
    """The environment is that of a shell whose beamline has ended, too."""
    (tmp_path / "broken.py").write_text("def tell():\n    return nowhere\n\n\ntell()\n")
    lines = f"%run broken.py\n{COUNT}last_error()\n"
    done = run(tmp_path, "-m", "instrument.cli", "session", lines=lines, VIRTUAL_BEAMLINE="vb-gone")
    assert (done.returncode, scans(tmp_path)) == (1, ["success"]), done.stdout + done.stderr
    told = done.stdout + done.stderr
    assert "NameError: name 'nowhere' is not defined (broken.py:2)\n" in told
    assert told.count("Traceback") == 1  # last_error's
    assert (
        "no virtual beamline vb-gone is running ($VIRTUAL_BEAMLINE names it); this session starts one of its own"
        in told
    )


def test_ipython_with_startup_py_gives_the_same_names(piped, tmp_path):
    done = run(tmp_path, "-m", "IPython", "--no-banner", "-i", str(ROOT / "startup.py"), lines=COUNT + SHOW)
    assert (done.returncode, scans(tmp_path)) == (0, ["success"]), done.stdout + done.stderr
    assert shown(done, "NAMES") == shown(piped[1], "NAMES")
    names = set(shown(done, "NAMES"))
    assert {"RE", "cat", "db", "sd", "bec", "peaks", "bp", "bps", "bpp", "oregistry", "m1", "m16", "I0"} <= names
    for pid in shown(done, "PIDS"):
        assert_gone(pid)


def test_a_script_has_a_session_without_ipython(tmp_path):
    """As in the docstring of instrument.session."""
    script = tmp_path / "script.py"
    script.write_text("""\
import os, sys
from instrument.session import Session

if __name__ == "__main__":
    with Session() as session:
        (uid,) = session.RE(session.bp.count([session.devices["scaler1"]]))
        print("PIDS", [os.getpid(), session.beamline.pid])
        print("LAST", session.cat[-1].metadata["start"]["uid"] == uid)
    print("IPYTHON", getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)())
""")
    done = run(tmp_path, "script.py")
    assert (done.returncode, scans(tmp_path)) == (0, ["success"]), done.stdout + done.stderr
    assert "LAST True\n" in done.stdout
    assert "IPYTHON None\n" in done.stdout
    assert not (tmp_path / ".logs" / "ipython_console.log").exists()
    for pid in shown(done, "PIDS"):
        assert_gone(pid)


def test_python_c_with_the_collection_counts_and_writes_its_file_also_after_a_start_that_failed(tmp_path):
    packaged = ROOT / "instrument" / "config"
    for name in ("iconfig.yml", "devices.yml"):
        (tmp_path / name).write_text((packaged / name).read_text().replace("scaler.Scaler:", "scaler.Scalr:"))
    code = f"""\
from pathlib import Path
try:
    import instrument.collection
except Exception as error:
    print("FAILED", f'["{{type(error).__name__}}"]')
devices = Path("devices.yml")
devices.write_text(devices.read_text().replace("Scalr", "Scaler"))
from instrument.collection import *
{COUNT.strip()}
import os, instrument.session
print("PIDS", [instrument.session.current().beamline.pid])
"""
    done = run(tmp_path, "-c", code, INSTRUMENT_CONFIG=str(tmp_path / "iconfig.yml"))
    assert shown(done, "FAILED") == ["ConfigError"]
    assert (done.returncode, scans(tmp_path)) == (0, ["success"]), done.stdout + done.stderr
    assert_gone(shown(done, "PIDS")[0])


def test_check_tells_every_mistake_without_starting_anything(tmp_path):
    package = ROOT / "instrument" / "config"
    done = run(tmp_path, "-m", "instrument.cli", "check")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"{package / 'iconfig.yml'}: 25 devices, no mistakes\n",
        "",
    )

    for file in ("iconfig.yml", "devices.yml"):
        (tmp_path / file).write_text((package / file).read_text())
    iconfig = tmp_path / "iconfig.yml"
    iconfig.write_text(iconfig.read_text().replace("catalog_file:", "catalog_fill:"))
    devices = tmp_path / "devices.yml"
    devices.write_text(
        devices.read_text().replace("{name: m2, prefix:", "{name: m2, prefx:").replace("name: m3,", "name: m1,")
    )
    done = run(tmp_path, "-m", "instrument.cli", "check", "--config", "iconfig.yml")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    for mistake in ("catalog_file", "prefix", "m1"):
        assert any(mistake in line for line in lines), lines
    assert not (tmp_path / ".logs").exists()
    assert not (tmp_path / ".data").exists()
