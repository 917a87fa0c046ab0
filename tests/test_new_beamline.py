"""`instrument new` makes a beamline; `instrument notebook` starts Jupyter on it.

That its session starts, has its plan, and its own tests pass is in tests/docs: docs/tutorials/your-own-beamline.md.
"""

import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from instrument.config import ConfigError, UserError, own_code
from instrument.doctor.configuration import checked
from instrument.new_beamline import create
from instrument.notebook import command
from tests.terminal import ROOT, clean_environment
from tests.tiled.servers import until

DEADLINE = 120


def run(directory, *words, lines="", **variables):
    """A program in a directory, the packages found as if they were installed: exit code and all that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=directory,
        env=clean_environment(directory, PYTHONPATH=str(ROOT), **variables),
        input=lines,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def beamline(tmp_path_factory):
    directory = tmp_path_factory.mktemp("new")
    code, shown = run(directory, "instrument.cli", "new", "45-ID")
    assert code == 0, shown
    return directory / "45-ID"


def test_nothing_is_overwritten_and_a_bad_name_is_one_line(beamline, tmp_path, monkeypatch):
    before = {path: path.read_bytes() for path in beamline.iterdir() if path.is_file()}
    with pytest.raises(UserError, match="is there already, and nothing is overwritten"):
        create(beamline)
    assert all(path.read_bytes() == content for path, content in before.items())
    monkeypatch.chdir(tmp_path)
    for name in ("", ".", "..", "a b", "-x", "ä", "x/..", "nowhere/x"):
        code, shown = run(tmp_path, "instrument.cli", "new", "--", name)
        assert (code, len(shown.splitlines())) == (2, 1), shown
    assert list(tmp_path.iterdir()) == []


def test_code_with_mistakes_is_told_by_check_and_does_not_keep_a_session_from_starting(tmp_path, monkeypatch):
    (tmp_path / "devices.yml").write_text("parts.Stage:\n- {name: stage, prefix: 'gp:'}\n")
    (tmp_path / "iconfig.yml").write_text("devices: [devices.yml]\ncode: [parts.py, brokn.py]\n")
    (tmp_path / "parts.py").write_text(
        "from ophyd import Device\nclass Stage(Device):\n    pass\ndef scan(): yield\ndef ct(): pass\n"
    )
    (tmp_path / "broken.py").write_text("x = 1\ny = x +\n")
    with pytest.raises(
        ConfigError, match=r"iconfig.yml:2: code: there is no file 'brokn.py'; did you mean 'broken.py'"
    ):
        checked(tmp_path)
    (tmp_path / "iconfig.yml").write_text("devices: [devices.yml]\ncode: [parts.py, broken.py]\n")
    with pytest.raises(ConfigError, match=r"broken.py:2: can't be imported: SyntaxError: invalid syntax"):
        checked(tmp_path)
    (tmp_path / "broken.py").write_text("x = 1\n\n1 / 0\n")
    lines = "print(type(stage).__module__, list(scan()), ct.__module__)\n"
    code, shown = run(tmp_path, "instrument.cli", "session", lines=lines)
    assert (code, "parts [None] instrument.plans.counting" in shown) == (0, True), shown
    assert "parts.ct is not at the prompt, which has another ct" in shown
    assert re.search(r"W .*broken\.py:3: can't be imported: ZeroDivisionError: division by zero", shown), shown
    (tmp_path / "json.py").write_text("")
    (problem,) = own_code.load([tmp_path / "json.py"]).problems
    assert "'json' is the name of another Python module: rename the file" in str(problem)


def _asked(url):
    try:
        return urllib.request.urlopen(url, timeout=DEADLINE).read()
    except urllib.error.URLError:
        return None


def test_jupyter_starts_there_and_its_kernels_find_the_configuration(beamline):
    pytest.importorskip("jupyterlab", reason="NOT RUN: Jupyter is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "instrument.cli", "notebook", str(beamline), "--no-browser", "--port", str(port)]
    environment = clean_environment(beamline.parent, PYTHONPATH=str(ROOT), JUPYTER_PLATFORM_DIRS="1")
    process = subprocess.Popen(
        words, cwd=beamline.parent, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        shown = ""
        for line in process.stderr:
            shown += line
            if found := re.search(r"(http://(?:127.0.0.1|localhost):\d+/)lab\?token=(\w+)", line):
                break
        else:
            raise AssertionError(shown)
        listing = until(lambda: _asked(f"{found[1]}api/contents?token={found[2]}"), "Jupyter")  # told before it listens
        names = {entry["name"] for entry in json.loads(listing)["content"]}
        assert {"iconfig.yml", "plans.py"} <= names
        with open(f"/proc/{process.pid}/environ") as variables:
            assert f"INSTRUMENT_CONFIG={beamline / 'iconfig.yml'}" in variables.read().split("\0")
    finally:
        process.terminate()
        process.wait(DEADLINE)
        process.stderr.close()


def test_without_jupyter_one_line_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT)])
    monkeypatch.delitem(sys.modules, "jupyterlab", raising=False)  # of another test
    sys.path_importer_cache.clear()
    with pytest.raises(UserError) as told:
        command(tmp_path, browser=False, port=None)
    assert str(told.value) == "Jupyter is not installed: `pip install '.[notebook]'` in the clone of instrument"
