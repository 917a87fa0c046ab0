"""The shipping process's work: consumers that may hang get every run while it grows, once, in order."""

import os
import sqlite3
import threading
import time

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import ophyd.sim
import pytest
from bluesky.preprocessors import run_decorator

from instrument.callbacks import shipping
from instrument.callbacks.nexus import NexusWriter
from instrument.callbacks.nexus_shipped import ShippedNexusFiles
from instrument.callbacks.shipping import Marks
from tests.faults_page import fault

from .consumers import FeedFiles, FileConsumer

pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.fixture
def feed(tmp_path):
    return FeedFiles(tmp_path / "feed")


def count(num=1):
    return bp.count([ophyd.sim.det], num=num)


def at_points(actions):
    """A run that calls a function after each point."""

    @run_decorator(md={"plan_name": "at_points"})
    def plan():
        for action in actions:
            yield from bps.trigger_and_read([ophyd.sim.det])
            action()

    return plan()


def test_each_run_arrives_whole_and_in_order(laboratory, ship, feed):
    shipper = ship(feed)
    uids = [laboratory.engine(count(2))[0] for _ in range(20)]
    assert shipper.finish(30)
    assert feed.whole == uids
    assert feed.names(uids[7]) == ["start", "descriptor", "event", "event", "stop"]
    assert shipper.rows() == [("feed", 20, 0, "")]
    assert laboratory.reports == []


def test_a_run_is_there_while_it_grows(laboratory, ship, feed, wait_until):
    ship(feed)
    seen = []

    def look():
        (uid,) = laboratory.journal._open
        number = len(seen) + 1
        wait_until(lambda: feed.names(uid).count("event") == number)
        seen.append(feed.names(uid))

    (uid,) = laboratory.engine(at_points([look] * 3))
    assert seen == [["start", "descriptor", *["event"] * n] for n in (1, 2, 3)]
    wait_until(lambda: feed.whole == [uid])


def test_batches_of_a_run_that_goes_on_are_of_fifty_events_at_most(laboratory, ship, feed, wait_until):
    (feed.directory / "hang").touch()
    ship(feed)
    begun = []
    begin = feed.begin
    feed.begin = lambda start: begun.append(begin(start)) or begun[-1]

    def release():
        (feed.directory / "hang").unlink()
        (uid,) = laboratory.journal._open
        wait_until(lambda: feed.names(uid).count("event") == 201)

    laboratory.engine(at_points([lambda: None] * 200 + [release]))
    (run,) = begun
    assert max(run.batches) <= 52  # with start document and descriptor
    assert len(run.batches) >= 5


def test_two_runs_that_are_open_at_once_both_grow(laboratory, ship, feed, wait_until):
    ship(feed)
    uids = [f"run-{n}" for n in range(2)]
    for uid in uids:
        laboratory.journal("start", {"uid": uid, "time": time.time(), "scan_id": 1})
    for uid in uids:
        wait_until(lambda uid=uid: feed.names(uid) == ["start"])
    for uid in reversed(uids):
        laboratory.journal("stop", {"uid": f"stop {uid}", "time": 1.0, "run_start": uid, "exit_status": "success"})
        wait_until(lambda uid=uid: uid in feed.whole)
    assert feed.whole == uids[::-1]


def test_a_consumer_that_is_new_does_not_get_the_runs_of_years_but_every_later_one(laboratory, ship, feed):
    laboratory.engine(count())
    Marks(laboratory.data.ship).register(["feed"], laboratory.index)  # as a session does, before anything ships
    later = [laboratory.engine(count())[0] for _ in range(2)]
    assert ship(feed).finish(30)
    assert feed.whole == later


def test_a_clock_that_jumps_back_hides_no_run(laboratory, ship, feed, monkeypatch):
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86_400)
    shipper = ship(feed)  # registered while the clock is ahead, and before the first run
    monkeypatch.setattr(time, "time", real)
    uids = [*laboratory.engine(count())]
    monkeypatch.setattr(time, "time", lambda: real() - 86_400)
    uids += laboratory.engine(count())
    assert shipper.finish(30)
    shipper.close()
    uids += laboratory.engine(count())
    assert ship(feed).finish(30)
    assert feed.whole == uids


def test_what_one_process_did_not_deliver_the_next_one_does(laboratory, ship, feed):
    first = ship(feed)
    delivered = [*laboratory.engine(count())]
    assert first.finish(30)
    first.close()
    later = [laboratory.engine(count())[0] for _ in range(3)]
    assert Marks(laboratory.data.ship).rows(["feed"], laboratory.index) == [("feed", 1, 3, "")]
    assert ship(feed).finish(30)
    assert feed.whole == [*delivered, *later]


@fault("A consumer of the shipping process hangs", "no other starves; `outbox()` names it")
def test_a_consumer_that_hangs_starves_no_other_and_is_named(laboratory, ship, feed, tmp_path, monkeypatch, wait_until):
    hanging = FeedFiles(tmp_path / "hanging", "hanging")
    (hanging.directory / "hang").touch()
    shipper = ship(hanging, feed)
    uids = [laboratory.engine(count())[0] for _ in range(3)]
    wait_until(lambda: feed.whole == uids)
    assert not shipper.finish(0.05)
    monkeypatch.setattr(shipping, "_LONG", 0.0)
    wait_until(lambda: shipper.rows()[0][3].startswith("busy with run 1 since "))
    assert shipper.rows()[1] == ("feed", 3, 0, "")
    (hanging.directory / "hang").unlink()
    assert shipper.finish(30)
    assert hanging.whole == uids
    wait_until(lambda: shipper.rows()[0] == ("hanging", 3, 0, ""))


@fault("The shipping process is to end while a consumer hangs", "it ends; the next one delivers")
def test_a_process_with_a_consumer_that_hangs_ends_all_the_same(laboratory, ship, feed, wait_until):
    (feed.directory / "hang").touch()
    shipper = ship(feed)
    laboratory.engine(count())
    wait_until(lambda: shipper._lines["feed"].busy)
    shipper.close(timeout=0.05)
    (feed.directory / "hang").unlink()
    assert ship(feed).finish(30)
    assert len(feed.whole) == 1


@fault("A consumer of the shipping process can't take a run", "it is set aside and told; the next run is delivered")
def test_a_run_that_a_consumer_cannot_take_is_set_aside_and_the_next_one_is_delivered(laboratory, ship, feed):
    begin = feed.begin

    def picky(start):
        if start["scan_id"] == 2:
            raise ValueError("no\n  motor")
        return begin(start)

    feed.begin = picky
    shipper = ship(feed)
    uids = [laboratory.engine(count())[0] for _ in range(3)]
    assert not shipper.finish(30)
    assert feed.whole == [uids[0], uids[2]]
    assert laboratory.reports[-1].startswith("feed: run 2 cannot be delivered: ValueError: no motor; it is safe in")
    assert shipper.rows() == [("feed", 2, 1, "ValueError: no motor")]
    shipper.close()
    feed.begin = begin
    assert ship(feed).finish(30)
    assert feed.whole == [uids[0], uids[2], uids[1]]


@fault("A run's file is gone, cut or damaged before it is shipped", "told; the next run is delivered")
@pytest.mark.parametrize("damage", ["gone", "cut", "garbage"])
def test_a_damaged_file_is_told_and_the_next_run_is_delivered(laboratory, ship, feed, damage):
    (feed.directory / "down").touch()
    shipper = ship(feed)
    uids = [laboratory.engine(count(5))[0] for _ in range(2)]
    path = laboratory.path(uids[0])
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        os.truncate(path, path.stat().st_size - 10)
    else:
        content = bytearray(path.read_bytes())
        content[-200] = 0xC1
        path.write_bytes(content)
    (feed.directory / "down").unlink()
    assert not shipper.finish(30)
    assert feed.whole == uids[1:]
    assert any(line.startswith(f"feed: run 1 cannot be delivered: {path}") for line in laboratory.reports)


def test_once_leaves_runs_that_go_on_alone(laboratory, ship, feed):
    Marks(laboratory.data.ship).register(["feed"], laboratory.index)
    (whole,) = laboratory.engine(count())
    laboratory.journal("start", {"uid": "open", "time": time.time(), "scan_id": 2})
    assert ship(feed, live=False).finish(30)
    assert feed.whole == [whole]
    assert feed.names("open") == []


@fault("The index is made anew while runs are shipped", "nothing is delivered twice")
def test_an_index_that_is_made_anew_delivers_nothing_twice(laboratory, ship, feed):
    shipper = ship(feed)
    uids = [laboratory.engine(count())[0] for _ in range(3)]
    assert shipper.finish(30)
    laboratory.index.rebuild()
    uids += laboratory.engine(count())
    assert shipper.finish(30)
    assert feed.whole == uids
    assert shipper.rows() == [("feed", 4, 0, "")]


@fault("The shipping process's marks cannot be written for a while", "told once; runs are delivered")
def test_marks_that_cannot_be_written_for_a_while_hold_nothing_up(laboratory, ship, feed):
    import sqlite3

    shipper = ship(feed)
    shipper.marks._database.execute("PRAGMA busy_timeout = 10")
    other = sqlite3.connect(laboratory.data.ship, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    (uid,) = laboratory.engine(count())
    deadline = time.monotonic() + 30
    while not laboratory.reports and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert "ship.sqlite cannot be written (OperationalError: database is locked)" in laboratory.reports[0]
    other.execute("ROLLBACK")
    other.close()
    assert shipper.finish(30)
    assert feed.whole == [uid]


def test_a_long_run_is_fed_in_batches_of_bounded_size(laboratory, ship, feed):
    (feed.directory / "hang").touch()
    shipper = ship(feed)
    begun = []
    begin = feed.begin
    feed.begin = lambda start: begun.append(begin(start)) or begun[-1]
    write_run(laboratory, "long", 5000)
    (feed.directory / "hang").unlink()
    assert shipper.finish(60)
    assert len(feed.names("long")) == 5003
    assert max(begun[-1].batches) <= 1002


def write_run(laboratory, uid, events):
    """A run as the RunEngine emits it, without the time that it takes."""
    stored = laboratory.journal
    keys = {"x": {"dtype": "number", "shape": [], "source": "test"}}
    stored("start", {"uid": uid, "time": time.time(), "scan_id": 1, "plan_name": "count"})
    stored("descriptor", {"uid": f"{uid}-d", "run_start": uid, "time": 1.0, "name": "primary", "data_keys": keys})
    event = {"descriptor": f"{uid}-d", "time": 1.0, "data": {"x": 0.5}, "timestamps": {"x": 1.0}}
    for number in range(events):
        stored("event", {**event, "uid": f"{uid}-{number}", "seq_num": number + 1})
    stored("stop", {"uid": f"{uid}-s", "run_start": uid, "time": time.time(), "exit_status": "success"})


class ToldOf:
    """Takes the place of a Tiled server's catalog of NeXus files."""

    def __init__(self):
        self.uids = []

    def add(self, uid, path):
        self.uids.append(uid)
        return str(path)


def test_a_nexus_file_that_is_not_written_holds_up_no_other(laboratory, ship, monkeypatch, wait_until, tmp_path):
    """A session that hangs, and then ends, without it; the next session writes it."""

    def mark(uid, **values):
        with sqlite3.connect(laboratory.data.outbox, timeout=30) as database:
            assignments = ", ".join(f"{name} = ?" for name in values)
            database.execute(f"UPDATE deliveries SET {assignments} WHERE uid = ?", (*values.values(), uid))

    laboratory.outbox.add(FileConsumer(tmp_path, NexusWriter.name))  # and not started
    files = ToldOf()
    shipper = ship(ShippedNexusFiles(files, laboratory.data.outbox))
    uids = [laboratory.engine(count())[0] for _ in range(7)]
    for uid in uids[5:]:
        mark(uid, state="delivered", result=str(tmp_path / uid))
    wait_until(lambda: sorted(files.uids) == sorted(uids[5:]))
    monkeypatch.setattr(shipping, "_PATIENCE", 0.05)
    assert not shipper.finish(30)
    assert shipper.rows()[0][1:3] == (2, 5)
    (report,) = laboratory.reports
    assert report.startswith("NeXus on Tiled: run ")
    assert report.endswith(" is not written yet; later runs come first")

    for uid in uids[:5]:
        mark(uid, owner="ended")
    wait_until(lambda: all(error.endswith("and its session has ended") for *_, error in shipper.rows()))
    wait_until(lambda: shipper.marks.left("NeXus on Tiled", shipper.index, set_aside=False) == 0)
    for uid in uids[:5]:
        mark(uid, state="delivered", result=str(tmp_path / uid))
    shipper.marks.begin_again("NeXus on Tiled")
    assert shipper.finish(30)
    assert files.uids[2:] == uids[:5]
    wait_until(lambda: "NeXus on Tiled: run 1 is delivered now" in laboratory.reports)
