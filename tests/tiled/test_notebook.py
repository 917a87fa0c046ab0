"""The reference's notebook, brought up to date, from top to bottom; and a stock client with nothing of ours."""

import json
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from instrument.framework.runfiles import RunFile
from instrument.tiled.connection import Server as Connection
from instrument.tiled.writing import TiledConsumer
from tests.terminal import ROOT, clean_environment

from .kinds import Recorder

STOCK = """
import json, sys
sys.modules["instrument"] = None  # nothing of ours can be imported
from bluesky_tiled_plugins.queries import ScanID, TimeRange
from tiled.client import from_uri
from tiled.queries import FullText, Key
cat = from_uri(sys.argv[1], api_key=sys.argv[2])["notebook"]
scan = cat[1]
print(json.dumps({
    "class": type(cat).__name__, "runs": len(cat), "first": scan.start["plan_name"],
    "range": len(cat.search(TimeRange(since=scan.start["time"] + 1))),
    "scan_id": [run.start["scan_id"] for run in cat.search(ScanID(2)).values()],
    "plan": len(cat.search(Key("plan_name") == "scan")), "text": len(cat.search(FullText("behenate"))),
    "streams": sorted(scan), "m1": scan.primary.read()["m1"].values.tolist(),
    "image": cat[2].primary["image"][1, 0, :2, :3].tolist(),
    "documents": [name for name, _ in scan.documents()][:2],
}))
"""


@pytest.fixture(scope="module")
def served(sqlite_server):
    recorder = Recorder(sqlite_server.directory / ".data" / "notebook")
    recorder.scan(points=5, sample="silver behenate")
    recorder.hdf5("images_one", 1)
    recorder.hdf5("images_many", 3)
    recorder.close()
    consumer = TiledConsumer(Connection(sqlite_server.files), "notebook")
    for path in recorder.data.runs.glob("*/*/*.msgpack"):
        documents = list(RunFile(path))
        consumer.begin(documents[0][1]).take(documents)
    consumer.close()
    return sqlite_server, recorder


def test_the_notebook_runs_from_top_to_bottom(served, tmp_path, monkeypatch):
    server, _ = served
    for name, value in {"URL": server.url, "API_KEY": server.read_key, "CATALOG": "notebook"}.items():
        monkeypatch.setenv(f"TILED_{name}", value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(ROOT / "notebooks" / "18-tiled-client.ipynb", as_version=4)
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    text = json.dumps(notebook.cells)
    assert "Search of catalog='notebook' has 3 runs." in text
    assert "did you mean 'time_range'?" in text
    assert text.count('"image/png": ') == 2
    assert "[ ]" not in notebook.cells[0].source


def test_a_stock_client_with_nothing_of_ours_reads_the_same_runs(served, tmp_path):
    server, recorder = served
    done = subprocess.run(
        [sys.executable, "-c", STOCK, server.url, server.read_key],
        cwd=tmp_path,
        env=clean_environment(tmp_path, PYTHONPATH=""),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {
        "class": "CatalogOfBlueskyRuns",
        "runs": 3,
        "first": "scan",
        "range": 2,
        "scan_id": [2],
        "plan": 1,
        "text": 1,
        "streams": ["baseline", "primary"],
        "m1": [0, 1, 2, 3, 4],
        "image": recorder.images["images_one"][1, :2, :3].tolist(),
        "documents": ["start", "descriptor"],
    }
