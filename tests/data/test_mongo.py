"""A MongoDB catalog, fed by the shipping process. No server can be installed here: mongomock stands in for it."""

from pathlib import Path
from types import SimpleNamespace

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bson
import mongomock
import numpy as np
import ophyd.sim
import pytest
from bluesky.preprocessors import run_decorator
from pymongo.errors import ServerSelectionTimeoutError

from instrument.callbacks.mongo import MongoDB, MongoUnreachableError
from instrument.callbacks.shipped import consumers_of
from instrument.config import load
from instrument.framework.catalog import mongodb_of
from instrument.framework.runfiles import RunFile
from tests.faults.session import write_config

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("short_pauses")


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


def test_with_mongomock_databroker_reads_what_was_shipped(laboratory, ship, database, catalog):
    shipper = ship(MongoDB(database, database))
    (uid,) = laboratory.engine(bp.scan([ophyd.sim.det], ophyd.sim.motor, -1, 1, 5), gain=np.float32(0.5))
    assert shipper.finish(30)
    assert list(catalog) == [uid]
    assert catalog[-1].metadata["start"]["gain"] == 0.5
    assert catalog[-1].metadata["stop"]["num_events"] == {"primary": 5}
    assert catalog[-1].primary.read()["motor"].values.tolist() == [-1, -0.5, 0, 0.5, 1]
    assert len(catalog.v1[-1].table()) == 5
    assert shipper.rows() == [("MongoDB", 1, 0, "")]


def test_with_mongomock_databroker_reads_a_run_that_grows(laboratory, ship, database, wait_until):
    from databroker._drivers.mongo_normalized import BlueskyMongoCatalog

    ship(MongoDB(database, database))
    seen = []

    @run_decorator()
    def plan():
        for number in (1, 2):
            yield from bps.trigger_and_read([ophyd.sim.det])
            wait_until(lambda number=number: count(database)[2] == number)
            reader = BlueskyMongoCatalog(database, database, name="reader")  # each holds what it read for a while
            seen.append(len(reader[-1].primary.read()["det"]))

    laboratory.engine(plan())
    assert seen == [1, 2]


def test_with_mongomock_a_run_is_there_once_however_often_it_is_begun(laboratory, database, tmp_path):
    camera = ophyd.sim.SynSignalWithRegistry(func=lambda: np.ones((2, 2)), name="camera", save_path=str(tmp_path))
    (uid,) = laboratory.engine(bp.count([camera, ophyd.Signal(name="s", value=float("nan"))], num=3))
    mongodb = MongoDB(database, database)
    documents = list(RunFile(laboratory.path(uid)))
    for cut in range(1, len(documents)):
        run = mongodb.begin(documents[0][1])
        run.take(documents[:cut])
        assert sum(count(database)) == cut
    run = mongodb.begin(documents[0][1])
    assert run.take(documents[:4]) is None
    assert run.take(documents[4:]) == f"runs: {uid[:8]}"
    assert mongodb.begin(documents[0][1]) is None
    assert count(database) == [1, 1, 3, 1, 3, 1]


def test_a_server_that_is_away_is_one_line_and_the_run_comes_later(laboratory, ship, database, wait_until):
    mongodb = MongoDB(database, database)
    away = True
    connect = mongodb._connect

    def unreliable():
        if away:
            raise ServerSelectionTimeoutError("localhost:27017: refused, Timeout: 3s, Topology: x")
        return connect()

    mongodb._connect = unreliable
    shipper = ship(mongodb)
    for _ in range(3):
        laboratory.engine(bp.count([ophyd.sim.det]))
    wait_until(lambda: laboratory.reports)
    assert laboratory.reports == ["MongoDB: run 1 is not delivered yet: localhost:27017: refused; it is tried again"]
    assert not shipper.finish(0.1)
    away = False
    wait_until(lambda: count(database)[5] == 3)
    assert len(laboratory.reports) == 2
    assert MongoUnreachableError.transient


def test_with_mongomock_what_mongodb_has_no_form_for_is_set_aside_by_name_and_the_next_run_comes(
    laboratory, ship, database, monkeypatch
):
    insert = mongomock.Collection.insert_many

    def encoded(self, documents, **options):
        for document in documents:
            bson.encode(document)  # as pymongo does, and mongomock does not
        return insert(self, documents, **options)

    monkeypatch.setattr(mongomock.Collection, "insert_many", encoded)
    shipper = ship(MongoDB(database, database))
    laboratory.engine(bp.count([ophyd.Signal(name="s", value=2**64 - 1)]))
    (uid,) = laboratory.engine(bp.count([ophyd.sim.det]))
    assert not shipper.finish(30)
    assert [document["run_start"] for document in database["run_stop"].find()] == [uid]
    ((_, delivered, pending, error),) = shipper.rows()
    assert (delivered, pending) == (1, 1)
    assert error.startswith("MongoDB does not take it: ")


def test_the_databases_are_those_of_the_configured_source(tmp_path):
    def config(name):
        return SimpleNamespace(catalog=name, catalog_file="bluesky_class.yml", file=ROOT / "instrument/config/x.yml")

    address = "mongodb://localhost:27017/class_2021_03-bluesky?serverSelectionTimeoutMS=3000"
    assert mongodb_of(config("class_2021_03")) == (address, address)
    assert mongodb_of(config("embedded")) is None
    assert mongodb_of(config("unknown")) is None
    (mongodb,) = consumers_of(load(write_config(tmp_path, "catalog: class_2021_03")))
    assert isinstance(mongodb, MongoDB)
    assert consumers_of(load(write_config(tmp_path))) == []
