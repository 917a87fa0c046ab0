"""One session, wherever it runs: a script, IPython, a notebook and the queue server's worker have the same in it."""

import json
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from instrument import commands
from instrument.config import load
from instrument.session import NAMES
from tests.terminal import ROOT, Terminal, clean_environment

from .servers import DEADLINE, serving

START = "from instrument.collection import *"
SCAN = 'RE(ascan("m1", 0, 0.2, 2, 0.1, md={"sample": "the same"}))'
# What is looked at afterwards, the same code everywhere.
LOOK = f"""
import json, pathlib
from instrument.session import current
written = current().wait_for_files(60)
run = cat[-1]
data = run.primary.read()
pathlib.Path("facts.json").write_text(json.dumps({{
    "names": [name for name in {[*NAMES, *commands.NAMES]!r} if name not in globals()],
    "devices": sorted(oregistry.device_names),
    "connected": [name for name, state in current().health.states.items() if state.state != "connected"],
    "scan": [run.metadata["start"][key] for key in ("plan_name", "num_points", "sample", "scan_id")],
    "end": run.metadata["stop"]["exit_status"],
    "m1": data["m1"].values.tolist(),
    "read": sorted(data),
    "written": written,
    "files": sorted(path.suffix for path in pathlib.Path().rglob("*") if path.suffix in {{".dat", ".msgpack", ".log"}}),
    "engine": type(RE).__module__,
}}))
"""


def in_a_script(directory):
    subprocess.run(
        [sys.executable, "-c", "\n".join((START, SCAN, LOOK))],
        cwd=directory,
        env=clean_environment(directory, PYTHONPATH=str(ROOT)),
        check=True,
        timeout=DEADLINE,
    )


def in_ipython(directory):
    with Terminal(directory) as session:
        session.run(SCAN)
        (directory / "look.py").write_text(LOOK)
        session.run("%run -i look.py")
        assert session.exit() == 0


def in_a_notebook(directory):
    cells = [nbformat.v4.new_code_cell(source) for source in (START, SCAN, LOOK)]
    client = NotebookClient(
        nbformat.v4.new_notebook(cells=cells), timeout=DEADLINE, resources={"metadata": {"path": str(directory)}}
    )
    client.execute(env=clean_environment(directory, PYTHONPATH=str(ROOT)))


def in_the_queue(directory):
    with serving(directory) as server, server.connect() as queue:
        queue.add("ascan", "m1", 0, 0.2, 2, 0.1, md={"sample": "the same"})
        queue.start()
        queue.wait()
        task = queue.ask("script_upload", script=LOOK, update_lists=False)["task_uid"]
        queue.api.wait_for_completed_task(task, timeout=int(DEADLINE))
        result = queue.ask("task_result", task_uid=task)["result"]
        assert result["success"], result["traceback"]


@pytest.mark.parametrize("run", [in_a_script, in_ipython, in_a_notebook, in_the_queue], ids=lambda run: run.__name__)
def test_the_session_is_the_same(run, tmp_path):
    run(tmp_path)
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts.pop("names") == []
    assert facts.pop("devices") == sorted(spec.name for spec in load().devices if spec.enabled)
    assert set(facts.pop("connected")) <= {"adsimdet"}  # its IOC starts behind the others
    suffixes = facts.pop("files")
    assert suffixes.count(".dat") == 1
    assert suffixes.count(".msgpack") == 1
    assert ".log" in suffixes
    assert {"m1", "noisy", "I0", "scint", "timebase"} <= set(facts.pop("read"))
    assert facts == {
        "scan": ["ascan", 3, "the same", 1],
        "end": "success",
        "m1": [0, 0.1, 0.2],
        "written": True,
        "engine": "instrument.framework.engine",
    }
