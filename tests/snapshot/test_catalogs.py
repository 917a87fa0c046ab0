"""The report from databroker's catalogs (`-b`), and from MongoDB's layout; no server can be installed: mongomock."""

from __future__ import annotations

import mongomock
import pytest

from instrument.callbacks.mongo import MongoDB
from instrument.callbacks.snapshot_report import SnapshotReport
from instrument.config.errors import UserError
from instrument.framework.runfiles import RunFile
from instrument.framework.snapshots import CatalogSnapshots
from tests.snapshot.test_taking import runs

NAMES = ("gp:m2", "gp:gp:text1", "gp:gp:longtext1", "gp:gp:array1", "gp:ACCESS", "gp:nope")


@pytest.fixture
def catalog(snapshot, put, tmp_path):
    """A catalog in MongoDB's layout with a snapshot, as the shipping process fills it; and what was printed."""
    put("gp:gp:array1", [0.1, 0.2, 0.3])
    put("gp:gp:longtext1", list("a long text of more than forty characters: µm".encode()))
    printed = snapshot(*NAMES, "--timeout", "3", "-m", "purpose=example").out
    database = mongomock.MongoClient().get_database("runs")
    writer = MongoDB(database, database)
    for run in runs(tmp_path):
        documents = list(RunFile(run.path))
        writer.begin(run.start).take(documents)
    from databroker._drivers.mongo_normalized import BlueskyMongoCatalog

    return BlueskyMongoCatalog(database, database, name="mock"), printed


def test_the_report_is_the_same_from_any_catalog_and_problems_are_one_line(catalog, capsys):
    catalog, printed = catalog
    snapshots = CatalogSnapshots(catalog)
    (uid,) = catalog
    assert [found.uid for found in map(snapshots.find, (-1, 1, uid, uid[:8]))] == [uid] * 4
    assert [start["uid"] for start in snapshots.newest(5)] == [uid]
    for run in (catalog[-1], catalog.v1[-1]):
        capsys.readouterr()
        SnapshotReport().print_report(run)
        assert capsys.readouterr().out == printed
    for which, line in (
        (-2, "there is no snapshot -2: 1 is recorded here"),
        (99, "there is no run 99: give -1 for the last snapshot, a scan number or the beginning of a uid; "),
        ("f00", "there is no run f00: give -1 for the last snapshot, a scan number or the beginning of a uid; "),
    ):
        with pytest.raises(UserError) as raised:
            snapshots.find(which)
        assert str(raised.value).startswith(line)
    with pytest.raises(UserError, match=f"run 1 .{uid[:7]}. is a snapshot, not a restore"):
        snapshots.find(uid, plans=("snapshot_restore",))
