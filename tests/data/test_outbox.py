"""Every consumer gets every run, once, in order, whatever the others do."""

import json
import threading
import time

import bluesky.plans as bp
import ophyd.sim
import pytest

from instrument.callbacks.outbox import OPEN, READY, table
from instrument.config.errors import UserError
from instrument.framework import index
from instrument.framework.index import RunIndex
from tests.faults_page import fault

from .consumers import FileConsumer

pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.fixture
def consumer(tmp_path):
    return FileConsumer(tmp_path / "files")


def count(num=1):
    return bp.count([ophyd.sim.det], num=num)


def test_a_consumer_gets_each_run_whole_and_in_order(laboratory, consumer):
    laboratory.outbox.add(consumer)
    laboratory.outbox.start()
    uids = [laboratory.engine(count(2))[0] for _ in range(20)]
    assert laboratory.outbox.wait(30)
    assert consumer.delivered == list(range(1, 21))
    names, notes = json.loads((consumer.directory / f"{uids[7]}.json").read_text())
    assert names == ["start", "descriptor", "event", "event", "stop"]
    assert notes == []
    assert laboratory.outbox.results(uids[7]) == {"files": str(consumer.directory / f"{uids[7]}.json")}
    assert laboratory.reports == []


def test_a_consumer_that_raises_harms_neither_the_run_nor_another_and_is_reported_once(
    laboratory, consumer, tmp_path, wait_until
):
    bad = FileConsumer(tmp_path / "bad", "bad")
    bad.fail_with = OSError(28, "No space left on device")
    for each in (bad, consumer):
        laboratory.outbox.add(each)
    laboratory.outbox.start()
    for _ in range(5):
        laboratory.engine(count())
    wait_until(lambda: len(consumer.delivered) == 5)
    assert not laboratory.outbox.wait(0.1)
    (line,) = laboratory.reports
    assert line == "bad: run 1 is not written yet: [Errno 28] No space left on device; it is tried again"
    assert laboratory.outbox.rows() == [
        ("bad", 0, 5, "[Errno 28] No space left on device"),
        ("files", 5, 0, ""),
    ]
    bad.fail_with = None
    assert laboratory.outbox.wait(30)
    assert bad.delivered == [1, 2, 3, 4, 5]
    assert laboratory.reports[1].startswith("bad: run 1 is written now: ")
    assert len(laboratory.reports) == 2


@fault(
    "A consumer of the session can't digest a run",
    "it is set aside, told, and tried again in the next session; the next run is written",
)
def test_a_run_that_a_consumer_cannot_digest_is_set_aside_and_the_next_one_is_written(
    laboratory, make_laboratory, consumer
):
    class Picky(FileConsumer):
        def deliver(self, documents, assignment, notes):
            documents = list(documents)
            if documents[0][1]["scan_id"] == 2:
                raise ValueError("no\n  motor")
            return super().deliver(documents, assignment, notes)

    picky = Picky(consumer.directory)
    laboratory.outbox.add(picky)
    laboratory.outbox.start()
    for _ in range(3):
        laboratory.engine(count())
    assert not laboratory.outbox.wait(30)  # one is missing, and that is said
    assert picky.delivered == [1, 3]
    assert laboratory.reports[-1].startswith("files: run 2 cannot be written: ValueError: no motor; it is safe in")
    laboratory.close()

    second = make_laboratory()
    second.outbox.add(consumer)
    second.outbox.start()
    assert second.outbox.wait(30)
    assert consumer.delivered == [2]


@fault("A consumer of the session hangs", "no other starves; `outbox()` names it")
def test_a_consumer_that_hangs_starves_no_other_and_is_named(laboratory, consumer, tmp_path, wait_until, monkeypatch):
    hanging = FileConsumer(tmp_path / "hanging", "hanging")
    hanging.blocked = threading.Event()
    for each in (hanging, consumer):
        laboratory.outbox.add(each)
    laboratory.outbox.start()
    for _ in range(3):
        laboratory.engine(count())
    wait_until(lambda: consumer.delivered == [1, 2, 3])
    progress = []
    assert not laboratory.outbox.wait(0.2, progress.append)
    assert progress == ["waiting for hanging (3 to write)"]
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + 60)
    assert laboratory.outbox.rows()[0][3].startswith("busy with run 1 for ")
    monkeypatch.undo()
    hanging.blocked.set()
    assert laboratory.outbox.wait(30)
    assert hanging.delivered == [1, 2, 3]


def test_assign_that_raises_does_not_fail_the_run(laboratory, consumer):
    calls = []

    def assign(start):
        calls.append(threading.current_thread())
        if len(calls) == 1:
            raise RuntimeError("not now")
        return {"file": f"{start['uid']}.json"}

    consumer.assign = assign
    laboratory.outbox.add(consumer)
    laboratory.outbox.start()
    laboratory.engine(count())
    assert laboratory.outbox.wait(30)
    assert consumer.delivered == [1]
    assert laboratory.reports == ["files: run 1: RuntimeError: not now"]


def test_what_was_assigned_at_the_start_holds_although_it_changes_before_delivery(laboratory, consumer):
    prefix = "one"
    consumer.assign = lambda start: {"file": f"{prefix}-{start['scan_id']}.json"}
    consumer.blocked = threading.Event()
    laboratory.outbox.add(consumer)
    laboratory.outbox.start()
    laboratory.engine(count())
    prefix = "two"
    laboratory.engine(count())
    consumer.blocked.set()
    assert laboratory.outbox.wait(30)
    assert sorted(path.name for path in consumer.directory.iterdir()) == ["one-1.json", "two-2.json"]


@fault("A session ends before its files are written", "the next one writes them")
def test_what_a_session_did_not_deliver_the_next_one_does(laboratory, make_laboratory, consumer):
    laboratory.outbox.add(consumer)  # never started
    uids = [laboratory.engine(count())[0] for _ in range(3)]
    laboratory.outbox.note("files", {"comment": "for the next"})
    laboratory.close()
    assert consumer.delivered == []

    second = make_laboratory()
    second.journal.close_orphans()
    second.outbox.add(consumer)
    second.outbox.start()
    second.engine(count())
    assert second.outbox.wait(30)
    assert consumer.delivered == [1, 2, 3, 1]
    assert {path.stem for path in consumer.directory.iterdir()} > set(uids)
    (uid,) = [row.uid for row in second.index.rows(limit=1)]
    assert json.loads((consumer.directory / f"{uid}.json").read_text())[1] == [{"comment": "for the next"}]


def test_runs_of_a_session_that_is_alive_are_left_to_it(warm, tmp_path, make_laboratory, consumer):
    root = tmp_path / "data"
    session = warm.play("hold", root, tmp_path / "fifo")
    session.until("open")
    laboratory = make_laboratory(root)
    (owner,) = laboratory.outbox._presence.others()
    laboratory.outbox._database.execute(
        "INSERT INTO deliveries (uid, consumer, path, scan_id, owner, state) VALUES ('u', 'files', '/x', '1', ?, ?)",
        (owner.key, READY),
    )
    laboratory.outbox.add(consumer)
    laboratory.outbox.start()
    assert laboratory.outbox.wait(1)
    session.kill()
    laboratory.close()
    again = make_laboratory(root)
    again.outbox.add(consumer)
    again.outbox.start()
    assert not again.outbox.wait(30)
    assert again.reports[0].startswith("files: run 1 cannot be written: /x is gone")


@fault("A power cut takes the outbox's last marks", "the runs are delivered all the same, once")
def test_a_run_whose_marks_a_power_cut_took_is_delivered(laboratory, make_laboratory, consumer, monkeypatch):
    laboratory.outbox.add(consumer)
    laboratory.outbox.start()
    laboratory.engine(count())
    assert laboratory.outbox.wait(30)
    laboratory.engine(count())
    assert laboratory.outbox.wait(30)
    laboratory.outbox._database.execute("DELETE FROM deliveries WHERE scan_id = '2'")
    laboratory.close()
    second = make_laboratory()
    second.journal.close_orphans()
    monkeypatch.setattr(index, "unpack", None)  # no document of all the runs is looked at before there is a prompt
    second.outbox.add(consumer)
    second.outbox.start()
    assert second.outbox.wait(30)
    assert consumer.delivered == [1, 2, 2]


def test_a_consumer_gets_no_run_of_sessions_that_did_not_want_it(laboratory, make_laboratory, consumer):
    for wanted, made in ((True, laboratory), (False, make_laboratory()), (True, make_laboratory())):
        if wanted:
            made.outbox.add(consumer)
        made.outbox.start()
        made.engine(count(), wanted=wanted)
        assert made.outbox.wait(30)
        made.close()
    uids = [start["uid"] for start in (row.start for row in _rows(laboratory)) if start["wanted"]]
    assert consumer.uids == uids


def _rows(laboratory):
    index = RunIndex(None, laboratory.data.runs)
    index.refresh()
    return index.rows()[::-1]


def test_a_consumer_that_is_new_does_not_get_the_runs_of_years(laboratory, make_laboratory, consumer):
    laboratory.engine(count())
    laboratory.outbox.add(consumer)
    laboratory.outbox.start()
    assert laboratory.outbox.wait(30)
    assert consumer.delivered == []


def test_a_run_whose_stop_document_the_outbox_missed_is_delivered(laboratory, consumer):
    laboratory.outbox.add(consumer)
    laboratory.outbox.start()
    start = {"uid": "run", "time": time.time(), "scan_id": 5}
    for name, document in (
        ("start", start),
        ("stop", {"uid": "stop", "time": time.time(), "run_start": "run", "exit_status": "success"}),
    ):
        laboratory.journal(name, document)
        if name == "start":
            laboratory.outbox(name, document)
    deadline = time.monotonic() + 30
    while not consumer.delivered and time.monotonic() < deadline:
        laboratory.outbox.wait(0.1)
    assert consumer.delivered == [5]


def test_a_run_that_is_open_is_not_delivered(laboratory, consumer):
    laboratory.outbox.add(consumer)
    laboratory.outbox.start()
    start = {"uid": "run", "time": time.time(), "scan_id": 5}
    laboratory.journal("start", start)
    laboratory.outbox("start", start)
    assert laboratory.outbox.wait(0.2)
    states = laboratory.outbox._database.execute("SELECT state FROM deliveries").fetchall()
    assert states == [(OPEN,)]
    assert consumer.delivered == []

    laboratory.path("run").unlink()  # the journal writes it again at the next document
    assert laboratory.outbox.wait(0.2)
    stop = {"uid": "stop", "time": time.time(), "run_start": "run", "exit_status": "success"}
    for receive in (laboratory.journal, laboratory.outbox):
        receive("stop", stop)
    assert laboratory.outbox.wait(30)
    assert (consumer.delivered, laboratory.reports) == ([5], [])


def test_notes_go_to_the_open_run_or_else_to_the_next(laboratory, consumer):
    laboratory.outbox.add(consumer)
    laboratory.outbox.start()
    laboratory.outbox.note("files", {"n": 1})
    token = laboratory.engine.subscribe(lambda *_: laboratory.outbox.note("files", {"n": 2}), "event")
    (first,) = laboratory.engine(count())
    laboratory.engine.unsubscribe(token)
    laboratory.outbox.note("files", {"n": 3})
    (second,) = laboratory.engine(count())
    assert laboratory.outbox.wait(30)
    notes = [json.loads((consumer.directory / f"{uid}.json").read_text())[1] for uid in (first, second)]
    assert notes == [[{"n": 1}, {"n": 2}], [{"n": 3}]]
    with pytest.raises(UserError, match=f"files has written run {first[:8]} already"):
        laboratory.outbox.note("files", {"n": 4}, uid=first)


@fault("The outbox's marks are unreadable", "set aside and told; runs are delivered")
def test_unreadable_marks_are_set_aside_and_told(make_laboratory, tmp_path, consumer):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "outbox.sqlite").write_bytes(b"no database" * 1000)
    laboratory = make_laboratory()
    assert "was set aside as outbox.sqlite.unreadable-" in laboratory.reports[0]
    laboratory.outbox.add(consumer)
    laboratory.outbox.start()
    laboratory.engine(count())
    assert laboratory.outbox.wait(30)
    assert consumer.delivered == [1]


@fault("The outbox's marks cannot be written for a while", "told once; runs are delivered")
def test_marks_that_cannot_be_written_are_written_later(laboratory, consumer, tmp_path):
    import sqlite3

    laboratory.outbox.add(consumer)
    laboratory.outbox.start()
    laboratory.outbox._database.execute("PRAGMA busy_timeout = 10")
    other = sqlite3.connect(laboratory.data.outbox, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    laboratory.engine(count())
    assert laboratory.engine.state == "idle"
    assert not laboratory.outbox.wait(0.2)
    deadline = time.monotonic() + 30
    assert not laboratory.outbox.wait(30, for_failing=False)  # as at the end of a session: one attempt
    assert time.monotonic() < deadline
    assert laboratory.outbox.pending() == {"files": 1}
    with pytest.raises(UserError, match=r"files: what is to be added to a run cannot be kept \(database is locked\)"):
        laboratory.outbox.note("files", {"comment": "lost"})
    other.execute("ROLLBACK")
    other.close()
    assert laboratory.outbox.wait(30)
    assert consumer.delivered == [1]
    (line,) = laboratory.reports
    assert "its marks cannot be written (database is locked)" in line


def test_two_consumers_of_one_name_are_refused(laboratory, consumer):
    laboratory.outbox.add(consumer)
    with pytest.raises(ValueError, match="there is a consumer named files already"):
        laboratory.outbox.add(consumer)


def test_the_table_shows_every_consumer(laboratory, consumer):
    laboratory.outbox.add(consumer)
    laboratory.outbox.start()
    laboratory.engine(count())
    assert laboratory.outbox.wait(30)
    assert (
        str(table(laboratory.outbox.rows())).split()[1:]
        == (
            "========= ======= ========== consumer delivered pending last error "
            "======== ========= ======= ========== files 1 0 ======== ========= ======= =========="
        ).split()
    )


def test_close_says_whether_everything_was_delivered(laboratory, consumer):
    laboratory.outbox.add(consumer)
    laboratory.outbox.start()
    laboratory.engine(count())
    assert laboratory.outbox.close(30)
    assert consumer.delivered == [1]
    assert not any(thread.name == "outbox-files" for thread in threading.enumerate())
