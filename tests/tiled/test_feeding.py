"""Runs into Tiled and out again: every kind, while they grow, exactly once."""

import contextlib
import copy
import io
import signal
import sqlite3
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instrument import tiled_client
from instrument.framework.runfiles import DataDirectory, RunFile, make_packer
from instrument.tiled.connection import Server as Connection
from instrument.tiled.export import export
from instrument.tiled.writing import TiledConsumer
from tests.faults.session import write_config
from tests.terminal import ROOT, clean_environment

from .kinds import Recorder


def instrument(server, *arguments, cwd=None):
    done = subprocess.run(
        [sys.executable, "-m", "instrument.cli", "tiled", *map(str, arguments)],
        cwd=cwd or server.directory,
        env=clean_environment(server.directory, PYTHONPATH=str(ROOT), TILED_API_KEY=server.write_key),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.fixture(scope="module")
def filled(server):
    """A server with all kinds of runs, backfilled from the journal of its directory."""
    recorder = Recorder(server.directory / ".data")
    recorder.all()
    recorder.close()
    code, lines, error = instrument(server, "backfill")
    assert code == 0, (lines, error)
    assert lines[-1].endswith("0 failed")
    recorder.catalog = tiled_client.connect(server.url, api_key=server.read_key, catalog="class_2021_03")
    return recorder


def test_backfill_again_sends_nothing_and_is_no_error(server, filled):
    before = len(filled.catalog)
    code, lines, _ = instrument(server, "backfill")
    assert (code, lines[-1][:7]) == (0, "0 runs ")
    assert len(filled.catalog) == before == len(filled.uids)


def test_the_table_is_what_was_recorded(filled):
    run = filled.catalog[filled.uids["scan"]]
    assert run.streams == ["primary", "baseline"]
    table = run.data()
    assert list(table["m1"]) == [0, 1, 2, 3, 4, 5, 6]
    assert list(table["noisy"]) == [n / 3 for n in range(7)]
    assert list(run.data("baseline")["m2"]) == [0.5, 0.5]
    assert run.stop["exit_status"] == "success"


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
def test_events_of_a_run_are_found_by_an_index_in_each_table(filled, server):
    """Stock Tiled gives all its indexes one name, so that only the first table has one."""
    with contextlib.closing(sqlite3.connect(server.files.tables)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE name GLOB 'table_*'")]
        tables = [name for name in names if not name.endswith("_dataset")]
        assert len(tables) > 3
        for table in tables:
            plan = database.execute(f'EXPLAIN QUERY PLAN SELECT * FROM "{table}" WHERE _dataset_id = 3').fetchall()
            assert "USING INDEX" in plan[0][-1], plan


def test_values_of_all_types_come_back(filled):
    run = filled.catalog[filled.uids["values"]]
    table = run.data()
    assert list(table["text"]) == [f"é {n}" for n in range(4)]
    assert list(table["flag"].astype(bool)) == [False, False, True, False]
    assert list(table["whole"]) == [0, 1, 2, 3]
    assert list(table["gap"].isna()) == [False, True, False, False]
    arrays = run.arrays()
    np.testing.assert_array_equal(arrays["many"][2], np.arange(40.0) * 2)
    np.testing.assert_array_equal(arrays["table"][3], np.full((5, 6), 3.0))
    np.testing.assert_array_equal(arrays["few"][1:3], [[1, 2, 3], [2, 3, 4]])
    assert run.start["note"] == 'ü "quoted" \\ %_'


def test_the_table_of_a_fly_run_is_what_was_collected(filled):
    run = filled.catalog[filled.uids["flown"]]
    assert run.streams == ["flown"]
    table = run.data("flown")
    assert list(table["m1"]) == [n / 4 for n in range(5)]
    assert list(table["counts"]) == [n**2 for n in range(5)]


@pytest.mark.parametrize(("kind", "per_point"), [("images_one", 1), ("images_many", 3), ("tiff", 1), ("streamed", 1)])
def test_images_are_read_by_slice_and_as_png(filled, kind, per_point):
    run = filled.catalog[filled.uids[kind]]
    images = filled.images[kind]
    for number in (0, len(images) - 1, -2):
        np.testing.assert_array_equal(run.image(number), images[number])
    array = run.arrays()["image"]
    assert array.shape[-2:] == images.shape[1:]
    assert np.prod(array.shape[:-2]) == len(images)
    part = np.asarray(array[..., 3:5, 2:9]).reshape(-1, 2, 7)
    np.testing.assert_array_equal(part, images[:, 3:5, 2:9])
    picture = Image.open(io.BytesIO(run.png(1)))
    assert (picture.format, picture.size) == ("PNG", (images.shape[2], images.shape[1]))
    with pytest.raises(tiled_client.TiledQuestionError, match=rf"has {len(images)} images, there is none of number 99"):
        run.image(99)


def test_journal_to_tiled_to_journal_is_the_same_uid_by_uid(server, filled, tmp_path):
    code, lines, error = instrument(server, "export", tmp_path / "again")
    assert code == 0, error
    assert lines[-1] == f"{len(filled.uids)} runs to {tmp_path / 'again'}, 0 were there, 0 failed"
    again = DataDirectory(tmp_path / "again")
    for kind, uid in filled.uids.items():
        (path,) = again.runs.glob(f"*/*/{uid}.msgpack")
        (original,) = filled.data.runs.glob(f"*/*/{uid}.msgpack")
        assert path.read_bytes() == original.read_bytes(), kind
        assert [name for name, _ in RunFile(path)][-1] == "stop"
    code, lines, _ = instrument(server, "export", tmp_path / "again")
    assert lines[-1].startswith(f"0 runs to {tmp_path / 'again'}, {len(filled.uids)} were there")


# Of a scan of five points, three batches of documents: the third run is cut short when three points are there.
DIES = """
import itertools, os, signal, sys
from instrument import tiled_cli
from instrument.cli import main
from instrument.tiled.writing import TiledConsumer, TiledRun

def dies_after(method, times):
    calls = itertools.count(1)
    def called(*arguments):
        done = method(*arguments)
        if next(calls) == times:
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    return called

tiled_cli._WORKERS = 1  # it dies between two requests: what there is afterwards is not left to chance
if sys.argv.pop(1) == "between runs":
    TiledConsumer.send_whole = dies_after(TiledConsumer.send_whole, 4)
else:
    tiled_cli._BATCH = 2  # as of a run of thousands of documents, which is not sent in one request
    TiledRun.take = dies_after(TiledRun.take, 8)
main(sys.argv[1:])
"""


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
def test_a_backfill_that_is_killed_and_begun_again_leaves_one_copy_of_each_run(server, tmp_path):
    recorder = Recorder(tmp_path / ".data")
    for number in range(9):
        recorder.scan(f"scan{number}", points=5)
    recorder.close()
    config = write_config(tmp_path, f"tiled: {{url: '{server.url}', catalog: killed}}")
    arguments = ("backfill", "--config", config)
    for place, there in (("between runs", 4), ("amidst a run", 7)):
        died = subprocess.run(
            [sys.executable, "-c", DIES, place, "tiled", *map(str, arguments)],
            cwd=tmp_path,
            env=clean_environment(tmp_path, PYTHONPATH=str(ROOT), TILED_API_KEY=server.write_key),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert len(server.search("killed")) == there
    cat = tiled_client.connect(server.url, api_key=server.read_key, catalog="killed")
    (cut,) = [run for run in cat.runs() if run.stop is None]
    assert len(cut.data()) == 3

    code, lines, error = instrument(server, *arguments, cwd=tmp_path)
    assert code == 0, error
    assert lines[0].endswith("6 of 9 runs are there, 3 are sent")
    assert sorted(server.search("killed")) == sorted(recorder.uids.values())
    again = DataDirectory(tmp_path / "again")
    outcomes = list(export(Connection(server.files), "killed", recorder.uids.values(), again.runs))
    assert outcomes == [(uid, "written") for uid in recorder.uids.values()]
    for uid in recorder.uids.values():
        (path,), (original,) = (data.runs.glob(f"*/*/{uid}.msgpack") for data in (again, recorder.data))
        assert path.read_bytes() == original.read_bytes()
        assert list(cat[uid].data()["m1"]) == [0, 1, 2, 3, 4]


def nodes_of(server, path):
    """All nodes below a path: what each says of itself, but for where and when it was written."""
    found = {}
    for item in server.get(f"search/{path}", server.read_key, params={"include_data_sources": "true"}).json()["data"]:
        told = item["attributes"]
        told["metadata"].get("notes", []).sort()  # TiledWriter takes the arrays of a stream in any order,
        for source in told["data_sources"] or ():
            if (source["structure"] or {}).get("dims"):
                source["structure"]["dims"] = len(source["structure"]["dims"])  # and numbers their dimensions so
        sources = [
            {
                **{
                    key: source[key]
                    for key in ("structure_family", "structure", "mimetype", "management", "properties")
                },
                "parameters": {key: value for key, value in source["parameters"].items() if key != "dataset_id"},
                "assets": [
                    (asset["parameter"], asset["num"], asset["is_directory"], Path(asset["data_uri"]).name)
                    for asset in source["assets"]
                ],
            }
            for source in told["data_sources"] or ()
        ]
        described = [told[key] for key in ("metadata", "structure_family", "specs")]
        found[f"{path.partition('/')[2]}/{item['id']}"] = [*described, sources]
        if told["structure_family"] == "container":
            found |= nodes_of(server, f"{path}/{item['id']}")
    return found


def test_a_run_that_is_sent_whole_lies_there_as_one_that_was_fed_while_it_went_on(server, filled):
    """One request of ours, or those of stock Tiled's client, which a facility's server takes as well."""
    kinds = ("scan", "values", "configured_again", "images_many", "flown", "streamed")
    consumer = TiledConsumer(Connection(server.files), "piecewise")
    for kind in kinds:
        (path,) = filled.data.runs.glob(f"*/*/{filled.uids[kind]}.msgpack")
        documents = list(RunFile(path))
        run = consumer.begin(documents[0][1])
        run.take(documents[:1])
        run.take(documents[1:])
    consumer.close()
    piecewise, whole = nodes_of(server, "piecewise"), nodes_of(server, "class_2021_03")
    for place, node in piecewise.items():
        assert node == whole[place], place
    below = [place for place in whole if any(filled.uids[kind] in place for kind in kinds)]
    assert sorted(below) == sorted(piecewise)
    cat = tiled_client.connect(server.url, api_key=server.read_key, catalog="piecewise")
    for kind in ("scan", "values"):
        one, other = cat[filled.uids[kind]], filled.catalog[filled.uids[kind]]
        assert one.data(timestamps=True).equals(other.data(timestamps=True))
        for name, array in one.arrays().items():
            np.testing.assert_array_equal(array[...], other.arrays()[name][...])


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
@pytest.mark.parametrize("place", ["uid", "stream", "array"])
@pytest.mark.parametrize("way", ["absolute", "upwards", ".."])
def test_a_run_whose_names_lead_out_of_the_servers_directory_is_refused(server, filled, tmp_path, place, way):
    (path,) = filled.data.runs.glob(f"*/*/{filled.uids['values']}.msgpack")
    victim = tmp_path / "victim"
    victim.mkdir()
    name = {"absolute": str(victim), "upwards": "../" * 20 + str(victim).lstrip("/"), "..": ".."}[way]
    documents = copy.deepcopy(list(RunFile(path)))
    documents[0][1]["uid"] = f"bad-{place}-{len(name)}"
    for kind, document in documents:
        if kind == "descriptor" and place == "array":
            document["data_keys"][name] = document["data_keys"].pop("many")
        elif kind == "descriptor" and place == "stream":
            document["name"] = name
        elif kind == "event" and place == "array":
            for part in ("data", "timestamps"):
                document[part][name] = document[part].pop("many")
        if kind == "start" and place == "uid":
            document["uid"] = name
    body = zlib.compress(b"".join(map(make_packer(), documents)))
    answer = server.request("POST", "runs/class_2021_03", server.write_key, data=body)
    assert victim.exists()
    assert answer.status_code == 400
    assert ("this is no run" if place == "array" else "is no key") in answer.json()["detail"]


# -- while a run goes on ---------------------------------------------------------------------------------------------


@pytest.fixture
def growing(server, tmp_path):
    """A consumer of a catalog of its own, what it wrote as a reader sees it, and documents to feed."""
    recorder = Recorder(tmp_path / "data")
    recorder.scan(points=120)
    recorder.close()
    (path,) = recorder.data.runs.glob("*/*/*.msgpack")
    consumer = TiledConsumer(Connection(server.files), "growing")
    yield server, consumer, list(RunFile(path))
    consumer.close()


def reader(server):
    return tiled_client.connect(server.url, api_key=server.read_key, catalog="growing")


def test_a_reader_sees_a_run_growing_and_what_was_cut_short_is_replaced(growing):
    server, consumer, documents = growing
    start = documents[0][1]
    run = consumer.begin(start)
    assert run.take(documents[:20]) is None
    seen = reader(server)[start["uid"]]
    assert seen.stop is None
    first = len(seen.data())
    assert 0 < first < 20
    run.take(documents[20:70])
    assert len(reader(server)[start["uid"]].data()) == first + 50
    assert [row.uid for row in reader(server).runs()] == [start["uid"]]

    run = consumer.begin(start)  # as after a kill
    assert run.take(documents[:3]) is None
    assert run.take(documents[3:]).endswith(start["uid"])
    whole = reader(server)[start["uid"]]
    assert list(whole.data().index) == list(range(1, 121))
    assert whole.stop["uid"] == documents[-1][1]["uid"]
    assert consumer.begin(start) is None
    assert len(reader(server)) == 1
