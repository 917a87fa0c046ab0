"""A MongoDB catalog behind the outbox. No server can be installed here: mongomock stands in for it."""

from pathlib import Path
from types import SimpleNamespace

import bluesky.plans as bp
import mongomock
import numpy as np
import ophyd.sim
import pytest
from pymongo.errors import ServerSelectionTimeoutError

from instrument.callbacks import outbox as outbox_module
from instrument.callbacks.mongo import MongoUnreachableError, MongoWriter
from instrument.framework.catalog import mongodb_of
from instrument.framework.runfiles import RunFile

ROOT = Path(__file__).parents[2]


@pytest.fixture
def database():
    return mongomock.MongoClient().get_database("runs")


@pytest.fixture
def catalog(database):
    from databroker._drivers.mongo_normalized import BlueskyMongoCatalog

    return BlueskyMongoCatalog(database, database, name="mock")


def count(database):
    names = ("run_start", "event_descriptor", "event", "resource", "datum", "run_stop")
    return [database[name].count_documents({}) for name in names]


def test_with_mongomock_databroker_reads_what_the_outbox_delivered(laboratory, database, catalog):
    laboratory.outbox.add(MongoWriter(database, database))
    laboratory.outbox.start()
    (uid,) = laboratory.engine(bp.scan([ophyd.sim.det], ophyd.sim.motor, -1, 1, 5), gain=np.float32(0.5))
    assert laboratory.outbox.wait(30)
    assert list(catalog) == [uid]
    assert catalog[-1].metadata["start"]["gain"] == 0.5
    assert catalog[-1].metadata["stop"]["num_events"] == {"primary": 5}
    assert catalog[-1].primary.read()["motor"].values.tolist() == [-1, -0.5, 0, 0.5, 1]
    assert len(catalog.v1[-1].table()) == 5
    assert laboratory.outbox.results(uid) == {"MongoDB": f"runs: {uid[:8]}"}


def test_with_mongomock_a_run_is_there_once_however_often_it_is_delivered(laboratory, database, tmp_path):
    camera = ophyd.sim.SynSignalWithRegistry(func=lambda: np.ones((2, 2)), name="camera", save_path=str(tmp_path))
    (uid,) = laboratory.engine(bp.count([camera, ophyd.Signal(name="s", value=float("nan"))], num=3))
    writer = MongoWriter(database, database)
    documents = list(RunFile(laboratory.path(uid)))
    for cut in range(1, len(documents)):

        def torn(cut=cut):
            yield from documents[:cut]
            raise ConnectionError

        with pytest.raises(ConnectionError):
            writer.deliver(torn(), {}, [])
    for _ in range(2):
        writer.deliver(documents, {}, [])
        assert count(database) == [1, 1, 3, 1, 3, 1]


def test_a_server_that_is_away_is_one_line_and_the_run_comes_later(laboratory, database, monkeypatch, wait_until):
    monkeypatch.setattr(outbox_module, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(outbox_module, "_LONGEST_PAUSE", 0.01)
    writer = MongoWriter(database, database)
    away = True
    connect = writer._connect

    def unreliable():
        if away:
            raise ServerSelectionTimeoutError("localhost:27017: refused, Timeout: 3s, Topology: x")
        return connect()

    writer._connect = unreliable
    laboratory.outbox.add(writer)
    laboratory.outbox.start()
    for _ in range(3):
        laboratory.engine(bp.count([ophyd.sim.det]))
    wait_until(lambda: laboratory.reports)
    assert laboratory.reports == ["MongoDB: run 1 is not written yet: localhost:27017: refused; it is tried again"]
    assert not laboratory.outbox.wait(0.1)
    away = False
    assert laboratory.outbox.wait(30)
    assert count(database)[0] == 3
    assert len(laboratory.reports) == 2
    assert MongoUnreachableError.transient


def test_the_databases_are_those_of_the_configured_source():
    def config(name):
        return SimpleNamespace(catalog=name, catalog_file="bluesky_class.yml", file=ROOT / "instrument/config/x.yml")

    address = "mongodb://localhost:27017/class_2021_03-bluesky?serverSelectionTimeoutMS=3000"
    assert mongodb_of(config("class_2021_03")) == (address, address)
    assert mongodb_of(config("embedded")) is None
    assert mongodb_of(config("unknown")) is None
