"""`cat` and `db` show every run at once, through databroker's own API."""

import itertools
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import event_model
import numpy as np
import ophyd.sim
import pytest
from bluesky.preprocessors import baseline_wrapper, monitor_during_wrapper, run_decorator

from instrument.callbacks.journal import Journal
from instrument.framework import catalog as catalog_module
from instrument.framework.catalog import CatalogError, open_catalog

ROOT = Path(__file__).parents[2]


def configuration(data, catalog="embedded", file=ROOT / "instrument" / "config" / "iconfig.yml", catalog_file=None):
    return SimpleNamespace(
        catalog=catalog,
        catalog_file=str(catalog_file or "bluesky_class.yml"),
        file=file,
        directories=SimpleNamespace(data=data),
        root_map={},
    )


@pytest.fixture
def catalogs(laboratory):
    return open_catalog(configuration(laboratory.data.root), data=laboratory.data.root, index=laboratory.index)


@pytest.fixture
def cat(catalogs):
    return catalogs[0]


@pytest.fixture
def db(catalogs):
    return catalogs[1]


def scan(points=5):
    return bp.scan([ophyd.sim.det], ophyd.sim.motor, -1, 1, points)


def test_the_last_run_is_there_on_the_next_line_100_times_of_100(laboratory, cat, db):
    for _ in range(100):
        (uid,) = laboratory.engine(bp.count([ophyd.sim.det]))
        assert cat[-1].metadata["start"]["uid"] == uid
        assert cat[-1].metadata["stop"]["run_start"] == uid
        assert db[-1].stop["exit_status"] == "success"
    assert len(cat) == 100


def test_a_catalog_in_another_process_is_as_fresh(laboratory, cat):
    """Another index object on the same file stands for the other process."""
    other, _ = open_catalog(configuration(laboratory.data.root), data=laboratory.data.root)
    for _ in range(20):
        (uid,) = laboratory.engine(bp.count([ophyd.sim.det]))
        assert other[-1].metadata["start"]["uid"] == uid
        assert other[-1].metadata["stop"] is not None


def test_a_run_can_be_read_with_databrokers_v2_api(laboratory, cat):
    (uid,) = laboratory.engine(scan(5), purpose="reading")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = cat[-1]
        assert list(run) == ["primary"]
        dataset = run.primary.read()
        assert dataset["motor"].values.tolist() == [-1, -0.5, 0, 0.5, 1]
        assert dataset["time"].size == 5
        assert run.primary.to_dask()["det"].values.shape == (5,)
        assert dict(run.primary.read().sizes) == {"time": 5}
        assert run.primary.config["det"].read()["det_Imax"].values.tolist() == [1] * 5
        assert run.primary.timestamps.read()["det"].values.min() > 1e9
        assert run.primary.metadata["descriptors"][0]["name"] == "primary"
        assert run.metadata["start"]["purpose"] == "reading"
        names = [name for name, _ in run.documents(fill="no")]
        assert (names[0], names[-1], names.count("descriptor")) == ("start", "stop", 1)
    assert run is cat[uid] is cat[uid[:8]] is cat[1]
    assert run().metadata["start"]["uid"] == uid


def test_a_run_can_be_read_with_databrokers_v1_api(laboratory, db):
    (uid,) = laboratory.engine(scan(5))
    header = db[-1]
    table = header.table()
    assert table.index.tolist() == [1, 2, 3, 4, 5]
    assert table["motor"].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert table["time"].dtype.kind == "M"
    assert header.start["uid"] == header.stop["run_start"] == header.uid == uid
    assert header.stream_names == ["primary"]
    assert header.fields() == {"det", "motor", "motor_setpoint"}
    assert header.config_data("det")["primary"][0]["det_Imax"] == 1
    assert [event["seq_num"] for event in header.events()] == [1, 2, 3, 4, 5]
    assert list(header.data("motor")) == [-1, -0.5, 0, 0.5, 1]
    assert db.get_table(header).shape == (5, 4)
    assert [item.uid for item in db[-1:]] == [uid]
    assert db[uid[:6]].uid == db[1].uid == uid


def test_runs_are_searched_by_plan_time_text_and_any_key(laboratory, cat, db):
    from databroker.queries import TextQuery, TimeRange

    (first,) = laboratory.engine(scan(2), sample={"name": "steel", "mass": 3})
    middle = time.time()
    (second,) = laboratory.engine(bp.count([ophyd.sim.det]), purpose="counting the steel", sample={"name": "iron"})
    assert list(cat) == [second, first]  # newest first
    assert list(cat.search({"plan_name": "scan"})) == [first]
    assert list(cat.search(TimeRange(since=middle))) == [second]
    assert list(cat.search(TimeRange(until=middle))) == [first]
    assert list(cat.search(TextQuery("counting"))) == [second]
    assert list(cat.search({"sample.name": "steel"})) == [first]
    assert list(cat.search({"sample.mass": {"$gt": 2}})) == [first]
    assert list(cat.search({"sample": {"name": "iron"}})) == [second]  # not an SQL search
    narrowed = cat.search({"plan_name": "scan"}).search({"sample.name": "iron"})
    assert (len(narrowed), list(narrowed)) == (0, [])
    found = cat.search({"plan_name": "count"})
    assert found[-1].metadata["start"]["uid"] == second
    (third,) = laboratory.engine(bp.count([ophyd.sim.det]))
    assert found[-1].metadata["start"]["uid"] == third  # a search goes on
    assert [header.uid for header in db(plan_name="count")] == [third, second]
    assert [header.uid for header in db(since=middle)] == [third, second]
    assert [header.uid for header in db("steel")] == [second, first]
    assert [header.uid for header in db(data_key="motor")] == [first]
    assert [uid for uid, _ in cat.items()] == [third, second, first]
    assert first in cat
    assert "nothing" not in cat


def test_aliases_and_filters_of_the_broker_work(laboratory, db):
    laboratory.engine(scan(2))
    (second,) = laboratory.engine(bp.count([ophyd.sim.det]))
    db.alias("counts", plan_name="count")
    assert [header.uid for header in db.counts] == [second]
    db.add_filter(plan_name="count")
    assert [header.uid for header in db()] == [second]
    db.clear_filters()
    assert len(list(db())) == 2


def test_what_is_not_there_is_told_in_one_line(laboratory, cat, db):
    laboratory.engine(scan(1))
    for key, line in (
        (-2, "there is no run -2: the catalog holds 1 run"),
        (99, "there is no run with scan_id 99"),
        ("zz", "there is no run whose uid begins with 'zz'"),
    ):
        for catalog in (cat, db):
            with pytest.raises(LookupError) as caught:
                catalog[key]
            assert str(caught.value) == line
    assert not hasattr(cat.search({}), "no_such_run")
    assert not hasattr(cat, "no_such_run")


def test_the_beginning_of_a_uid_may_be_all_digits(laboratory, cat):
    laboratory.journal("start", {"uid": "12345678-aaaa", "time": 1.0, "scan_id": 7})
    for key in ("12345678-aaaa", "12345678", "123", "7", 7):
        assert cat[key].metadata["start"]["scan_id"] == 7
    laboratory.journal("start", {"uid": "run-123", "time": 2.0, "scan_id": 123})
    assert cat["123"].metadata["start"]["uid"] == "run-123"  # a number first of all
    with pytest.raises(LookupError, match="there is no run with scan_id 12345"):
        cat[12345]


def test_every_stream_of_a_run_can_be_read(laboratory, cat):
    @run_decorator()
    def inner():
        for position in (1, 2, 3):
            yield from bps.mv(ophyd.sim.motor2, position)
            yield from bps.trigger_and_read([ophyd.sim.det, ophyd.sim.motor2])
            yield from bps.trigger_and_read([ophyd.sim.motor1], name="second")

    plan = monitor_during_wrapper(inner(), [ophyd.sim.motor2.readback])
    laboratory.engine(baseline_wrapper(plan, [ophyd.sim.motor3]))
    run = cat[-1]
    assert set(run) == {"primary", "second", "baseline", "motor2_monitor"}
    assert run.primary.read()["motor2"].values.tolist() == [1, 2, 3]
    assert run.second.read()["motor1"].size == 3
    assert run.baseline.read()["motor3"].size == 2
    assert run.motor2_monitor.read()["motor2"].values[-1] == 3


def test_a_stream_whose_configuration_changed_can_be_read(laboratory, cat, db):
    class Configurable(type(ophyd.sim.det)):
        def configure(self, values):
            for name, value in values.items():
                getattr(self, name).put(value)
            return {}, {}

    detector = Configurable("changing", ophyd.sim.motor, "motor", center=0, Imax=1, sigma=1)

    @run_decorator()
    def changing():
        for width in (1, 2):
            yield from bps.configure(detector, {"sigma": width})
            yield from bps.trigger_and_read([detector])

    laboratory.engine(changing())
    warnings.simplefilter("error")
    run = cat[-1]
    assert len(run.primary.metadata["descriptors"]) == 2
    assert run.primary.config["changing"].read()["changing_sigma"].values.tolist() == [1, 2]
    assert run.primary.read()["changing"].size == 2
    assert len(db[-1].table()) == 2


def test_events_of_alternating_descriptors_are_read_in_the_order_of_time(laboratory, cat):
    run = event_model.compose_run()
    keys = {"x": {"source": "s", "dtype": "number", "shape": []}}
    descriptors = [run.compose_descriptor("primary", keys, uid=f"d{n}") for n in range(2)]
    laboratory.journal("start", run.start_doc)
    for descriptor in descriptors:
        laboratory.journal("descriptor", descriptor.descriptor_doc)
    for number in range(6):
        event = descriptors[number % 2].compose_event(
            data={"x": number}, timestamps={"x": 0}, seq_num=number + 1, time=float(number)
        )
        laboratory.journal("event", event)
    laboratory.journal("stop", run.compose_stop())
    assert cat[-1].primary.read()["x"].values.tolist() == [0, 1, 2, 3, 4, 5]


def test_metadata_is_no_template(laboratory, cat, db, tmp_path):
    text = f"{{{{ shell(touch {tmp_path / 'run by metadata'}) }}}} {{{{ env(HOME) }}}}"
    laboratory.engine(scan(1), sample={"name": text})
    assert cat[-1].metadata["start"]["sample"]["name"] == text
    assert cat[-1].primary.metadata["start"]["sample"]["name"] == text
    assert db[-1].start["sample"]["name"] == text
    cat[-1].primary.read()
    assert not (tmp_path / "run by metadata").exists()


def test_images_in_files_of_a_detector_are_read(laboratory, cat, db, tmp_path):
    camera = ophyd.sim.SynSignalWithRegistry(
        func=lambda: np.arange(6, dtype=float).reshape(2, 3),
        name="camera",
        labels={"detectors"},
        save_path=str(tmp_path),
    )
    laboratory.engine(bp.count([camera], num=3))
    images = cat[-1].primary.read()["camera"].values
    assert images.shape == (3, 2, 3)
    assert images[2].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert next(iter(db[-1].data("camera"))).shape == (2, 3)
    assert isinstance(db[-1].table(fill=False)["camera"][1], str)


def test_text_and_arrays_are_read(laboratory, cat):
    laboratory.engine(
        bp.count([ophyd.Signal(name="word", value="open"), ophyd.Signal(name="wave", value=np.arange(4.0))], num=2)
    )
    dataset = cat[-1].primary.read()
    assert dataset["word"].values.tolist() == ["open", "open"]
    assert dataset["wave"].values.tolist() == [[0, 1, 2, 3]] * 2


def test_arrays_that_change_their_length_are_read_as_they_are(laboratory, cat):
    lengths = itertools.count(1)
    wave = ophyd.sim.SynSignal(func=lambda: np.ones(next(lengths)), name="wave")
    laboratory.engine(bp.count([wave], num=3))
    column = cat[-1].primary.read()["wave"].values
    assert [len(value) for value in column] == [len(column[0]) + n for n in range(3)]


def test_a_stream_without_events_can_be_read(laboratory, cat):
    @run_decorator()
    def plan():
        yield from bps.declare_stream(ophyd.sim.det, name="primary")

    laboratory.engine(plan())
    assert cat[-1].primary.read()["det"].shape == (0,)


def test_a_dataset_is_the_one_that_databrokers_stock_code_makes(laboratory, cat):
    from databroker._drivers.msgpack import BlueskyMsgpackCatalog

    stock = BlueskyMsgpackCatalog(str(laboratory.data.runs / "*" / "*" / "*.msgpack"))
    wave = ophyd.Signal(name="wave", value=np.arange(6.0).reshape(2, 3))
    word = ophyd.Signal(name="word", value="open")
    laboratory.engine(bp.scan([ophyd.sim.det, wave, word], ophyd.sim.motor, -1, 1, 4))
    stock.force_reload()
    for ours, theirs in (
        (cat[-1].primary, stock[-1].primary),
        (cat[-1].primary(include=["det", "wave"]), stock[-1].primary(include=["det", "wave"])),
        (cat[-1].primary(exclude=["det"]), stock[-1].primary(exclude=["det"])),
    ):
        expected = theirs.read()
        order = list(expected.data_vars)
        assert set(ours.read().data_vars) == set(order)
        for name in order:
            assert ours.read()[name].dtype == expected[name].dtype
            assert ours.read()[name].attrs == expected[name].attrs
            np.testing.assert_array_equal(ours.read()[name].values, expected[name].values)
        assert ours.to_dask().compute().equals(ours.read())
    assert cat[-1].primary.read()["wave"].dims == ("time", "dim_0", "dim_1")
    assert cat[-1].primary.to_dask()["det"].chunks == ((4,),)


def test_a_run_that_goes_on_shows_what_it_has_so_far(laboratory, cat):
    sizes = []

    def look(name, document):
        run = cat[-1]
        assert run.metadata["stop"] is None
        sizes.append(run.primary.read()["det"].size)

    laboratory.engine(scan(4), {"event": [look]})
    assert sizes == [1, 2, 3, 4]
    assert cat[-1].metadata["stop"]["num_events"] == {"primary": 4}


def test_a_run_that_was_left_open_can_be_read(laboratory, cat, db):
    laboratory.engine(scan(3))
    changes = {
        "start": {"uid": "left"},
        "descriptor": {"uid": "left-descriptor", "run_start": "left"},
        "event": {"descriptor": "left-descriptor"},
    }
    for name, document in laboratory.emitted[:-1]:
        laboratory.journal(name, {**document, **changes[name]})
    laboratory.journal._open.pop("left").close()  # its session ended
    assert cat[-1].primary.read()["det"].size == 3
    (line,) = Journal(laboratory.data.runs, index=laboratory.index).close_orphans()
    assert "was left open" in line
    assert db[-1].stop["reason"] == "session ended"
    assert len(db[-1].table()) == 3


def test_databrokers_stock_msgpack_catalog_reads_the_files(laboratory):
    from databroker._drivers.msgpack import BlueskyMsgpackCatalog

    uids = [laboratory.engine(scan(5))[0] for _ in range(2)]
    start = {"uid": "left-open", "time": time.time(), "scan_id": 3}
    laboratory.journal("start", start)
    laboratory.journal.close()
    stock = BlueskyMsgpackCatalog(str(laboratory.data.runs / "*" / "*" / "*.msgpack"))
    assert set(stock) == {*uids, "left-open"}
    assert stock[uids[0]].primary.read()["motor"].values.tolist() == [-1, -0.5, 0, 0.5, 1]
    assert len(stock.v1[uids[1]].table()) == 5
    assert stock["left-open"].metadata["stop"]["reason"] == "session ended"


def test_a_run_that_another_writer_put_there_is_seen_at_once(laboratory, cat):
    from suitcase.msgpack import Serializer

    laboratory.engine(scan(1))
    assert len(cat) == 1
    writer = Serializer(laboratory.data.runs / "2031" / "01", file_prefix="stock")
    run = event_model.compose_run(metadata={"scan_id": 77, "plan_name": "elsewhere"})
    writer("start", run.start_doc)
    writer("stop", run.compose_stop())
    assert cat[-1].metadata["start"]["scan_id"] == 77
    assert len(cat) == 2


def test_garbage_beside_the_runs_leaves_the_rest_readable_and_is_named_once(laboratory, cat, caplog):
    (uid,) = laboratory.engine(scan(2))
    bad = laboratory.path(uid).with_name("bad.msgpack")
    bad.write_bytes(b"\xc1garbage")
    assert cat[-1].primary.read()["det"].size == 2
    assert len(cat) == 1
    (record,) = [record for record in caplog.records if "bad.msgpack" in record.message]
    assert record.levelname == "WARNING"


def test_subscribing_the_broker_by_habit_writes_nothing_twice(laboratory, cat, db):
    with pytest.warns(PendingDeprecationWarning):
        laboratory.engine(scan(2), [db.insert])
    assert len(list(laboratory.data.runs.rglob("*.msgpack"))) == 1
    assert len(cat) == 1


def test_the_source_in_bluesky_class_yml_is_the_same_catalog(laboratory, monkeypatch):
    import intake

    (uid,) = laboratory.engine(scan(2))
    laboratory.data.root.rename(laboratory.data.root.with_name(".data"))
    monkeypatch.chdir(laboratory.data.root.parent)
    assert list(intake.open_catalog(str(ROOT / "bluesky_class.yml"))["embedded"]) == [uid]


# -- which catalog ---------------------------------------------------------------------------------------------------


def test_an_unknown_catalog_is_one_line_with_the_known_ones(tmp_path, caplog):
    cat, db = open_catalog(configuration(tmp_path, "class_2021"), data=tmp_path)
    (record,) = caplog.records
    assert record.message == (
        "iconfig.yml names the catalog 'class_2021', which bluesky_class.yml does not have: "
        f"choose one of class_2021_03, embedded; runs are safe in the journal ({tmp_path / 'runs'})"
    )
    for look in (lambda: cat[-1], lambda: db(plan_name="x"), lambda: len(cat), lambda: list(cat)):
        with pytest.raises(CatalogError) as caught:
            look()
        assert str(caught.value) == record.message


def test_an_unreachable_mongodb_is_one_line_in_seconds_and_not_waited_for_again(tmp_path, monkeypatch):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "catalogs.yml").write_text(
        textwrap.dedent(f"""
        sources:
          remote:
            driver: bluesky-mongo-normalized-catalog
            args:
              metadatastore_db: mongodb://127.0.0.1:{port}/runs
              asset_registry_db: mongodb://127.0.0.1:{port}/runs
        """)
    )
    monkeypatch.setattr(catalog_module, "_SERVER_TIMEOUT", 1000)
    config = configuration(tmp_path, "remote", file=tmp_path / "iconfig.yml", catalog_file="catalogs.yml")
    cat, db = open_catalog(config, data=tmp_path)
    assert repr(cat) == "<catalog remote: opened on first use>"
    with pytest.raises(CatalogError) as caught:
        cat[-1]
    line = str(caught.value)
    assert line.startswith(f"the catalog 'remote' cannot be reached (127.0.0.1:{port}: ")
    assert line.endswith("`catalog: embedded` in iconfig.yml shows them")
    assert "\n" not in line
    monkeypatch.setattr(catalog_module, "_SERVER_TIMEOUT", 3_600_000)
    with pytest.raises(CatalogError, match="cannot be reached"):
        db[-1]


def test_a_catalog_file_that_is_no_yaml_is_named(tmp_path, caplog):
    (tmp_path / "catalogs.yml").write_text("sources: [")
    config = configuration(tmp_path, "x", file=tmp_path / "iconfig.yml", catalog_file="catalogs.yml")
    open_catalog(config, data=tmp_path)
    assert f"{tmp_path / 'catalogs.yml'} is no catalog file that can be read" in caplog.records[0].message
    assert len(caplog.records[0].message.splitlines()) == 1


# -- lazy ------------------------------------------------------------------------------------------------------------


def test_looking_at_the_names_imports_nothing_and_using_them_does(laboratory):
    laboratory.engine(scan(2))
    laboratory.close()
    script = f"""
        import os, sys, time
        os.environ["OPHYD_CONTROL_LAYER"] = "dummy"
        from pathlib import Path
        from types import SimpleNamespace as Namespace
        from instrument.framework.catalog import open_catalog
        data = Path({str(laboratory.data.root)!r})
        config = Namespace(catalog="embedded", catalog_file="x.yml", file=data, directories=Namespace(data=data))
        config.root_map = dict()
        cat, db = open_catalog(config, data=data)

        import copy, inspect
        import bluesky.protocols, ophyd
        from bluesky.magics import get_labeled_devices
        from IPython.core.completer import IPCompleter
        from IPython.core.interactiveshell import InteractiveShell

        shell = InteractiveShell.instance()
        shell.push(dict(cat=cat, db=db))
        get_labeled_devices(shell.user_ns)
        for item in (cat, db):
            for protocol in vars(bluesky.protocols).values():
                if inspect.isclass(protocol) and getattr(protocol, "_is_runtime_protocol", False):
                    isinstance(item, protocol)
            assert not isinstance(item, (ophyd.Device, ophyd.Signal))
            vars(item), dir(item), bool(item), hash(item), repr(item), str(item), callable(item), item == item
            for name in ("read", "describe", "position", "name", "_ophyd_labels_", "component_names", "__len__"):
                hasattr(item, name)
            inspect.getmembers_static(item)
            copy.copy(item)
            shell.display_formatter.format(item)
        sys.modules["warnings"].simplefilter("ignore")
        for text in ("cat.", "db.", "cat.se", "cat[", "db[-1", "cat, db"):
            list(shell.Completer.completions(text, len(text)))
            shell.complete(text)
        shell.run_line_magic("whos", "")
        shell.run_line_magic("who", "")
        shell.object_inspect_text("cat")
        from user.pv_finder import findpv
        heavy = [name for name in ("databroker", "intake", "xarray", "dask", "pandas") if name in sys.modules]
        assert not heavy, heavy
        assert repr(cat).startswith("<catalog embedded: 1 run, the last is 1: scan, "), repr(cat)
        assert cat.v1 == db and db.v2 == cat and cat.v2 == cat and cat != db
        assert "search" in dir(cat) and "get_table" in dir(db)
        assert len(cat) == 1 and len(list(cat)) == 1 and "databroker" not in sys.modules
        print("lazy", db[-1].table().shape)
    """
    if not (ROOT / "user" / "pv_finder.py").exists():
        script = script.replace("from user.pv_finder import findpv", "pass")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.splitlines()[-1:] == ["lazy (2, 4)"], done.stderr[-2000:]


def test_the_lazy_names_are_those_of_databroker():
    from databroker.v1 import Broker

    from instrument.framework.embedded import EmbeddedCatalog

    public = {name for name in vars(Broker) if not name.startswith("_")} - {
        "name",
        "v1",
        "v2",
        "fill_event",
        "fill_events",
    }
    at_run_time = {"aliases", "filters", "external_fetchers", "prepare_hook", "_catalog"}
    methods, values = catalog_module._BROKER_METHODS, catalog_module._BROKER_VALUES
    assert methods | values == public | at_run_time | {"get_events"}
    assert all(callable(getattr(Broker, name)) for name in methods)
    assert not any(callable(getattr(Broker, name, None)) for name in values)
    catalog = {name for cls in EmbeddedCatalog.__mro__ for name in vars(cls)}
    assert catalog | {"stats"} >= catalog_module._CATALOG_METHODS
    assert catalog | {"metadata", "_entries"} >= catalog_module._CATALOG_VALUES


def test_what_a_broker_lets_be_set_can_be_set(db):
    assert db.external_fetchers == {}
    db.prepare_hook = lambda name, document: document
    with pytest.raises(AttributeError, match="broker has no attribute 'nonsense' to set"):
        db.nonsense = 1


def test_whoever_loads_it_waits_for_the_importer_first(laboratory):
    waited = []
    cat, db = open_catalog(
        configuration(laboratory.data.root),
        data=laboratory.data.root,
        index=laboratory.index,
        before_loading=lambda: waited.append(True),
    )
    dir(cat), repr(db)
    assert len(cat) == 0
    assert not waited
    assert list(db()) == []
    assert waited == [True]
