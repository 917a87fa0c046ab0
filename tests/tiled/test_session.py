"""A real session feeds a server while it runs: its runs, images and NeXus files are read back.

A stock client reads them, too.
"""

import io
import json
import runpy
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from instrument import tiled_client
from instrument.framework.runfiles import DataDirectory, RunFile
from instrument.tiled.connection import get
from tests.faults.session import write_config
from tests.terminal import ROOT, clean_environment

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
    "image": cat[2].primary["adsimdet_image"][1, 0, :2, :3].tolist(),
    "documents": [name for name, _ in scan.documents()][:2],
}))
"""


SESSION = """
RE(bp.scan([noisy], m1, -1, 1, 5), sample={"name": "silver behenate"})
RE(bp.count([adsimdet], num=3))
adsimdet.frames_per_trigger = 2
RE(bp.count([adsimdet], num=2))
assert wait_for_files(timeout=120), outbox()
"""


class Fed:
    """A server, what a session's journal says of the runs that it was fed with, and the frames in their files."""

    def __init__(self, server, directory):
        self.server = server
        data = DataDirectory(server.directory / ".data" / "notebook")
        key = directory / "tiled.key"
        key.touch(0o600)
        key.write_text(server.write_key)
        self._config = write_config(
            directory,
            f"directories: {{data: {data.root}}}\nnexus: {{enabled: true}}\nlive: {{plot: false}}\n"
            f"tiled: {{feed: true, url: '{server.url}', key_file: {key}, catalog: notebook}}",
        )
        done = self.instrument("session", text=SESSION)
        assert done.returncode == 0, done.stdout[-3000:]
        self.catalog = tiled_client.connect(server.url, api_key=server.read_key, catalog="notebook")
        self.runs = [list(RunFile(path)) for path in data.runs.glob("*/*/*.msgpack")]
        self.runs.sort(key=lambda documents: documents[0][1]["scan_id"])

    def instrument(self, *arguments, text=""):
        return subprocess.run(
            [sys.executable, "-m", "instrument.cli", *arguments, "--config", str(self._config)],
            cwd=self._config.parent,
            env=clean_environment(self._config.parent, PYTHONPATH=str(ROOT)),
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )

    def frames(self, scan_id):
        """All frames of a run, from the file that the IOC wrote."""
        (resource,) = [document for name, document in self.runs[scan_id - 1] if name == "resource"]
        with h5py.File(Path(resource["root"]) / resource["resource_path"]) as file:
            return file["/entry/data/data"][...]


@pytest.fixture(scope="module")
def fed(sqlite_server, tmp_path_factory):
    return Fed(sqlite_server, tmp_path_factory.mktemp("notebook"))


def test_the_table_is_what_the_journal_has(fed):
    run, documents = fed.catalog[1], fed.runs[0]
    (descriptor,) = [d for name, d in documents if name == "descriptor" and d["name"] == "primary"]
    events = [d["data"] for name, d in documents if name == "event" and d["descriptor"] == descriptor["uid"]]
    table = run.data()
    assert len(events) == 5
    for key in ("m1", "m1_user_setpoint", "noisy"):
        assert list(table[key]) == [event[key] for event in events]
    assert run.start == documents[0][1]
    assert run.stop == documents[-1][1]
    assert len(run.data("baseline")) == 2


@pytest.mark.parametrize(("scan_id", "shape"), [(2, (3, 1, 1024, 1024)), (3, (2, 2, 1024, 1024))])
def test_images_are_read_by_slice_and_as_png_from_the_file_that_the_ioc_wrote(fed, scan_id, shape):
    run, frames = fed.catalog[scan_id], fed.frames(scan_id)
    array = run.arrays()["adsimdet_image"]
    assert array.shape == shape
    assert frames.any()
    np.testing.assert_array_equal(array[1, shape[1] - 1, 500:520, 480:500], frames[2 * shape[1] - 1, 500:520, 480:500])
    np.testing.assert_array_equal(run.image(-1), frames[-1])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(run.png(1)))).shape[:2], shape[2:])


def test_nexus_files_are_read_by_slice_and_as_png(fed):
    scan = fed.catalog[1]
    np.testing.assert_array_equal(scan.nexus()["entry/data/m1"][1:3], scan.data()["m1"].iloc[1:3])
    assert scan.nexus()["entry"].metadata["NX_class"] == "NXentry"
    images = fed.catalog[2].nexus()["entry/data/adsimdet"]
    np.testing.assert_array_equal(images[2, 100:110], fed.frames(2)[2, 100:110])
    picture = get(images, images.item["links"]["full"], params={"slice": "0"}, headers={"Accept": "image/png"})
    assert Image.open(io.BytesIO(picture.content)).size == (1024, 1024)


def test_a_nexus_file_that_the_server_has_forgotten_is_told_of_by_backfill(fed):
    server, uid = fed.server, fed.runs[2][0][1]["uid"]
    assert server.request("DELETE", f"metadata/nexus/notebook/{uid}", server.write_key).status_code == 200
    with pytest.raises(tiled_client.TiledQuestionError, match="has no NeXus file on"):
        fed.catalog[3].nexus()
    told = fed.instrument("tiled", "backfill")
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[0].endswith("3 of 3 runs are there, 0 are sent")
    assert told.stdout.splitlines()[-1] == "the server was told of 1 NeXus files"
    assert fed.catalog[3].nexus()["entry/data/adsimdet"].shape == (2, 2, 1024, 1024)


def test_the_questions_of_the_how_to_are_answered(fed, monkeypatch):
    server, catalog = fed.server, tiled_client.connect(fed.server.url, api_key=fed.server.read_key, catalog="notebook")
    monkeypatch.setattr(tiled_client, "connect", lambda: catalog)
    found = runpy.run_path(str(ROOT / "docs" / "code" / "tiled_questions.py"))
    assert (len(found["run"].data()), server.url in repr(found["cat"])) == (2, True)


def test_a_stock_client_with_nothing_of_ours_reads_the_same_runs(fed, tmp_path):
    server = fed.server
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
        "m1": list(fed.catalog[1].data()["m1"]),
        "image": fed.frames(2)[1, :2, :3].tolist(),
        "documents": ["start", "descriptor"],
    }
