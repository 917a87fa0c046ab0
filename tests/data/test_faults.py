"""No single fault loses an acquired point, and none goes untold."""

import os
import random
import shutil
import subprocess
import time

import bluesky.plans as bp
import ophyd.sim
import pytest
from event_model import DocumentNames, schema_validators

from instrument.callbacks import journal
from instrument.callbacks.journal import Journal
from instrument.config.errors import UserError
from instrument.framework.index import RunIndex
from instrument.framework.runfiles import DataDirectory, RunFile, run_path
from instrument.framework.state import StateFile
from tests.faults_page import fault

KILLS = 30


def scan(points=5):
    return bp.scan([ophyd.sim.det], ophyd.sim.motor, -1, 1, points)


def names(path):
    return [name for name, _ in RunFile(path)]


def next_session(root):
    """What a session does first with the data of earlier ones."""
    data = DataDirectory(root)
    index = RunIndex(data.index, data.runs)
    journal = Journal(data.runs, index=index)
    return index, journal, journal.close_orphans()


# -- kill -9 -------------------------------------------------------------------------------------------------------


def kill_once(warm, root, fifo, chance):
    """Kill a session at a random document; return how many documents the journal had accepted."""
    session = warm.play("acquire", root, fifo, points=10, runs=3)
    victim = chance.randrange(1, 80)
    for number, _ in enumerate(session.lines()):
        if number == victim:
            break
    code = session.kill()
    assert code in {-9, 0}
    offered = [line[2] for line in session.told if line[0] == "offered"]
    accepted = [line[2] for line in session.told if line[0] == "accepted"]
    scan_ids = [line[1] for line in session.told if line[0] == "scan_id"]

    index, journal, messages = next_session(root)
    rows = list(reversed(index.rows()))
    stored = []
    for row in rows:
        run = RunFile(row.path)
        documents = list(run)
        assert not run.damage
        assert documents[0][0] == "start"
        name, stop = documents[-1]
        assert name == "stop"
        schema_validators[DocumentNames.stop].validate(stop)
        events = sum(name == "event" for name, _ in documents)
        if "added_later" in stop:
            assert (stop["exit_status"], stop["reason"]) == ("fail", "session ended")
            assert sum(stop["num_events"].values()) == events
            assert stop["time"] == max(document["time"] for _, document in documents[:-1])
            documents.pop()
        stored.extend(document["uid"] for _, document in documents)
    # what was accepted is there; what is there was offered; in order, and not twice
    assert stored[: len(accepted)] == accepted
    assert offered[: len(stored)] == stored
    added = [row for row in rows if "added_later" in row.stop]
    assert len(added) <= 1
    assert len(messages) == len(added)
    if added:
        assert messages[0].startswith(f"run {added[0].start['scan_id']} ({added[0].uid[:8]}) was left open")

    # a scan number that left is never given again
    state = StateFile(DataDirectory(root).state)
    last = max([row.start["scan_id"] for row in rows] + scan_ids, default=0)
    assert state.next_scan_id() > last
    state.close()
    journal.close()
    index.close()
    return len(accepted)


@fault(
    "kill -9 of RunEngine, journal and state at any document, 30 times",
    "every emitted document is in the journal; the next session closes the run; no scan number is given twice",
)
def test_kill_at_any_document_loses_none_that_was_emitted(warm, tmp_path):
    chance = random.Random()
    counts = {kill_once(warm, tmp_path / f"data{n}", tmp_path / f"fifo{n}", chance) for n in range(KILLS)}
    assert len(counts) > KILLS / 4  # they were different documents


@fault("kill -9 of RunEngine, journal and state at any document, 200 times", "the same")
@pytest.mark.soak
def test_two_hundred_kills(warm, tmp_path):
    chance = random.Random()
    for n in range(200):
        kill_once(warm, tmp_path / f"data{n}", tmp_path / f"fifo{n}", chance)


@fault(
    "kill -9 of the session between a consumer's file and its mark",
    "the next session delivers again, and there is one file",
)
def test_kill_between_a_file_and_its_mark_leaves_one_copy(warm, tmp_path):
    """The file is written, the mark is not: the next session delivers again, and there is one file."""
    root = tmp_path / "data"
    session = warm.play("deliver", root, tmp_path / "fifo1", runs=5)
    session.until("written")
    session.kill()
    again = warm.play("deliver", root, tmp_path / "fifo2", runs=1)
    assert again.finish() == 0
    index, journal, _ = next_session(root)
    uids = {row.uid for row in index.rows()}
    assert {path.stem for path in (root / "delivered").glob("*.json")} == uids
    assert len(uids) >= 2
    journal.close()
    index.close()


# -- runs that were left open ---------------------------------------------------------------------------------------


@fault(
    "A second session starts while a run of the first is open",
    "the run is left alone; it is closed once its owner has ended",
)
def test_a_run_whose_session_is_alive_is_left_alone(warm, tmp_path):
    session = warm.play("hold", tmp_path / "data", tmp_path / "fifo")
    session.until("open")
    index, journal, messages = next_session(tmp_path / "data")
    assert messages == []
    (row,) = index.rows()
    assert row.stop is None
    assert names(row.path) == ["start"]

    state = StateFile(DataDirectory(tmp_path / "data").state)
    (line,) = state.messages
    assert f"(pid {session.pid} on " in line
    state.close()

    session.kill()
    (line,) = journal.close_orphans()
    assert line.startswith("run 1 (held-ope) was left open when its session ended: it is closed with exit status fail")
    assert names(row.path) == ["start", "stop"]
    assert journal.close_orphans() == []
    journal.close()
    index.close()


def test_a_session_is_told_when_another_one_joins_it(warm, tmp_path, caplog):
    (tmp_path / "data").mkdir()
    state = StateFile(DataDirectory(tmp_path / "data").state)
    assert (state.messages, state.next_scan_id()) == ([], 1)
    session = warm.play("hold", tmp_path / "data", tmp_path / "fifo")
    session.until("open")
    assert [state.next_scan_id(), state.next_scan_id()] == [2, 3]
    (record,) = caplog.records
    assert record.message.startswith(f"another session is using {state.path} (pid {session.pid} on ")
    assert "none is given twice" in record.message
    session.kill()
    assert state.next_scan_id() == 4
    assert len(caplog.records) == 1
    state.close()


@fault(
    "A run's file ends within a document (power cut)",
    "all whole documents are there, the run is closed with `exit_status: fail`, reason `session ended`",
)
@pytest.mark.parametrize("cut", [1, 7, 60])
def test_a_torn_tail_is_cut_off_and_the_run_is_closed(laboratory, make_laboratory, cut):
    (uid,) = laboratory.engine(scan(5))
    path = laboratory.path(uid)
    whole = list(RunFile(path))
    stop_size = path.stat().st_size - laboratory.index.rows()[0].layout.documents[-1][1]
    os.truncate(path, path.stat().st_size - stop_size - cut)
    laboratory.close()
    laboratory.data.index.unlink()

    second = make_laboratory()
    (line,) = second.journal.close_orphans()
    assert "was left open" in line
    stored = list(RunFile(path))
    assert stored[:-1] == whole[: len(stored) - 1]
    assert stored[-1][1]["num_events"] == {"primary": len(stored) - 3}
    assert 5 <= len(stored) < len(whole)
    assert second.index.rows()[0].stop == stored[-1][1]


@fault(
    "A run's file ends before or within its start document, the index has the run (power cut)",
    "it is told and set aside, the session starts, all other runs are there",
)
@pytest.mark.parametrize("size", [0, 10])
def test_a_run_of_which_only_the_index_is_left_is_set_aside(laboratory, make_laboratory, size):
    uids = [laboratory.engine(scan(1))[0] for _ in range(2)]
    path = laboratory.path(uids[1])
    laboratory.index._database.execute("UPDATE runs SET closed = 0, stop_time = NULL WHERE uid = ?", uids[1:])
    laboratory.close()
    os.truncate(path, size)

    second = make_laboratory()
    assert f"{path} has no start document" in second.index.check()
    (line,) = second.journal.close_orphans()
    assert line.startswith(f"{path} holds no start document, as after a power cut: it was set aside as ")
    assert path.with_name(line.rpartition(" ")[2]).stat().st_size == size
    assert second.index.uids() == uids[:1]
    assert second.index.check() == []
    assert second.journal.close_orphans() == []


def test_a_stop_document_that_only_the_file_has_reaches_the_index(laboratory, make_laboratory):
    (uid,) = laboratory.engine(scan(1))
    laboratory.index._database.execute("UPDATE runs SET closed = 0, size = 100")
    second = make_laboratory()
    assert second.journal.close_orphans() == []
    assert second.index.rows()[0].stop["run_start"] == uid


@fault("A session ends between making a run's file and writing to it", "nothing is left of it")
def test_an_empty_file_of_a_session_that_ended_is_removed(laboratory, make_laboratory):
    laboratory.engine(scan(1))
    empty = laboratory.path(laboratory.emitted[0][1]["uid"]).with_name("empty.msgpack")
    empty.touch()
    os.utime(empty, (1, 1))
    second = make_laboratory()
    assert second.journal.close_orphans() == []
    assert not empty.exists()
    assert second.index.count() == 1


# -- a full disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(mount)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting needs root; test_a_file_that_may_not_grow stands in for it")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def fill(directory):
    """Take what is left of a file system."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


@fault(
    "The journal's disk becomes full in the midst of a run",
    "the run fails in one line, what it holds is whole, earlier runs are intact, the next one works",
)
def test_a_full_disk_fails_the_run_loudly_and_earlier_runs_are_intact(small_disk, make_laboratory, wait_until):
    laboratory = make_laboratory(small_disk / "data", fsync_interval=0.05)
    (first,) = laboratory.engine(scan(5))
    before = list(RunFile(laboratory.path(first)))
    fillers = []

    def fill_at_third_event(name, document):
        if name == "event" and document["seq_num"] == 3:
            fillers.append(fill(small_disk))

    token = laboratory.engine.subscribe(fill_at_third_event)
    with pytest.raises(UserError) as caught:
        laboratory.engine(scan(1000))
    assert "cannot be written: No space left on device" in str(caught.value)
    assert "what it already holds is safe" in str(caught.value)
    assert "\n" not in str(caught.value)
    laboratory.engine.unsubscribe(token)
    assert list(RunFile(laboratory.path(first))) == before
    second = laboratory.emitted[len(before)][1]["uid"]
    stored = RunFile(run_path(laboratory.data.runs, laboratory.emitted[len(before)][1]))
    documents = list(stored)
    assert not stored.damage  # no half document
    assert [document["uid"] for _, document in documents] == [
        document["uid"] for _, document in laboratory.emitted[len(before) :]
    ][: len(documents)]
    assert len(documents) >= 5

    fillers[0].unlink()  # room again: the run is closed by itself, and the next one works
    wait_until(lambda: names(stored.path)[-1] == "stop")
    (third,) = laboratory.engine(scan(5))
    laboratory.index.refresh()
    assert [row.uid for row in laboratory.index.rows()] == [third, second, first]
    assert [row.stop["exit_status"] for row in laboratory.index.rows()] == ["success", "fail", "success"]
    assert names(laboratory.path(third)) == ["start", "descriptor", *["event"] * 5, "stop"]


@fault("The journal's disk is full", "no run starts, no number is used, one line says why")
def test_on_a_full_disk_no_run_starts_and_no_empty_file_stays(small_disk, make_laboratory):
    laboratory = make_laboratory(small_disk / "data")
    state = StateFile(laboratory.data.state)
    laboratory.engine(scan(1))
    filler = fill(small_disk)
    with pytest.raises(UserError, match=r"the run was not started, because its file .* No space left on device"):
        laboratory.engine(scan(1), padding="x" * 10_000)
    with pytest.raises(UserError, match=r"the run was not started, because .*state.json cannot be written \(No space"):
        state.next_scan_id()
    assert len(list(laboratory.data.runs.rglob("*.msgpack"))) == 1
    filler.unlink()
    assert state.next_scan_id() == 1
    state.close()
    laboratory.engine(scan(1))
    assert laboratory.index.count() == 2


@fault("A run's file may not grow", "the run fails in one line, and is closed")
def test_a_file_that_may_not_grow_fails_the_run_loudly(warm, tmp_path):
    session = warm.play("small_files", tmp_path / "data", tmp_path / "fifo")
    raised = session.until("raised")
    assert raised[1] == "RunFileError"
    assert "File too large; what it already holds is safe" in raised[2]
    assert session.finish() == 0
    index, journal, _ = next_session(tmp_path / "data")
    statuses = [row.stop["exit_status"] for row in index.rows()]
    assert statuses == ["success", "fail"]
    for row in index.rows():
        run = RunFile(row.path)
        assert list(run)[-1][0] == "stop"
        assert not run.damage
    journal.close()
    index.close()


# -- a directory that cannot be written ------------------------------------------------------------------------------


@pytest.fixture
def read_only(tmp_path):
    """Make a directory read-only, for root too."""
    mounts = []

    def make(directory):
        if os.geteuid() == 0:
            bound = subprocess.run(["mount", "--bind", directory, directory], check=False, capture_output=True)
            if bound.returncode:
                pytest.skip("root that may not mount can write everywhere")
            mounts.append(directory)
            subprocess.run(["mount", "-o", "remount,ro,bind", directory], check=True)
        else:
            for path, _, _ in os.walk(directory):
                os.chmod(path, 0o555)

    yield make
    for directory in mounts:
        subprocess.run(["umount", "-l", directory], check=True)
    for path, _, _ in os.walk(tmp_path):
        os.chmod(path, 0o755)


@fault("The data directory is read-only", "the session starts, each run is refused in one line")
def test_in_a_read_only_directory_the_session_is_there_and_each_run_is_refused(tmp_path, read_only, make_laboratory):
    root = tmp_path / "beamline"
    root.mkdir()
    read_only(root)
    laboratory = make_laboratory(root / ".data")
    assert laboratory.journal.close_orphans() == []
    state = StateFile(laboratory.data.state, {"beamline": "x"})
    (line,) = state.messages
    assert line.startswith(f"{root / '.data'} cannot be written (")
    assert "no run can be recorded" in line
    assert dict(state) == {"beamline": "x"}
    with pytest.raises(UserError, match="the run was not started, because"):
        laboratory.engine(scan(1))
    with pytest.raises(UserError, match="the run was not started, because"):
        state.next_scan_id()
    with pytest.raises(UserError, match="it is set for this session only"):
        state["beamline"] = "y"
    assert state["beamline"] == "y"
    state.close()


@fault("The journal is on a read-only disk", "its runs are found and read")
def test_runs_in_a_read_only_directory_can_be_read(tmp_path, read_only, make_laboratory):
    laboratory = make_laboratory(tmp_path / "data")
    uids = [laboratory.engine(scan(2))[0] for _ in range(3)]
    laboratory.close()
    read_only(tmp_path / "data")
    for with_index in (True, False):
        index = RunIndex(laboratory.data.index if with_index else None, laboratory.data.runs)
        assert index.refresh() == []
        assert sorted(index.uids()) == sorted(uids)
        index.close()


@fault("The journal's directory is removed", "the next run makes it again")
def test_the_next_run_makes_the_journals_directory_again(laboratory):
    laboratory.engine(scan(1))
    shutil.rmtree(laboratory.data.runs)
    laboratory.index.refresh()
    assert laboratory.index.count() == 0
    (uid,) = laboratory.engine(scan(1))
    assert laboratory.path(uid).exists()


def at(wanted, act):
    """A subscriber that acts at the first document of a kind."""
    left = [act]

    def receive(name, _document):
        if name == wanted and left:
            left.pop()()

    return receive


@fault(
    "The journal's directory is removed in the midst of a run",
    "the run goes on, and its file is whole; it is told",
)
@pytest.mark.parametrize("document", ["start", "descriptor", "event"])
def test_a_run_whose_file_is_removed_in_its_midst_has_it_whole(laboratory, document, caplog):
    laboratory.engine.subscribe(at(document, lambda: shutil.rmtree(laboratory.data.runs)))
    (uid,) = laboratory.engine(scan(5))
    laboratory.index.refresh()
    path = laboratory.path(uid)
    stored = list(RunFile(path))
    assert [(name, found["uid"]) for name, found in stored] == [
        (name, emitted["uid"]) for name, emitted in laboratory.emitted
    ]
    assert laboratory.index.rows()[0].stop == stored[-1][1]
    assert [record.message for record in caplog.records if "removed" in record.message] == [
        f"{path} was removed while its run goes on: all of it was written again"
    ]


def test_a_run_whose_file_was_removed_and_cannot_be_written_again_fails_in_one_line(laboratory):
    def replace_by_a_file():
        shutil.rmtree(laboratory.data.runs)
        laboratory.data.runs.touch()

    laboratory.engine.subscribe(at("event", replace_by_a_file))
    with pytest.raises(UserError, match=r"^the run's file .* was removed, and cannot be written again: .*") as caught:
        laboratory.engine(scan(5))
    assert "\n" not in str(caught.value)
    laboratory.data.runs.unlink()  # which mends it: the run is closed before the next one
    laboratory.engine(scan(1))
    laboratory.index.refresh()
    assert [row.stop["exit_status"] for row in laboratory.index.rows()] == ["success", "fail"]


def test_the_names_of_new_files_and_directories_are_on_the_disk_within_the_interval(
    make_laboratory, wait_until, monkeypatch
):
    """A power cut can't be produced here: what is asked of the disk is seen instead."""
    synced = []
    monkeypatch.setattr(journal, "sync_directory", synced.append)
    laboratory = make_laboratory(fsync_interval=0.01)
    start = {"uid": "named", "time": time.time()}
    laboratory.journal("start", start)
    month = run_path(laboratory.data.runs, start).parent
    wait_until(lambda: len(synced) == 4)
    assert set(synced) == {month, month.parent, laboratory.data.runs, laboratory.data.root}


# -- two sessions ----------------------------------------------------------------------------------------------------


@fault("Two sessions write at once", "no run is lost, no number given twice, the index has all")
def test_two_sessions_on_one_directory_share_numbers_and_index(warm, tmp_path):
    root = tmp_path / "data"
    sessions = [warm.play("acquire", root, tmp_path / f"fifo{n}", points=2, runs=15) for n in range(2)]
    assert [session.finish() for session in sessions] == [0, 0]
    index, journal, messages = next_session(root)
    assert messages == []
    rows = index.rows()
    assert len(rows) == 30
    assert sorted(row.start["scan_id"] for row in rows) == list(range(1, 31))
    assert all(row.stop["exit_status"] == "success" for row in rows)
    assert index.check() == []
    journal.close()
    index.close()


@fault("The clock jumps back by a day (journal)", "the last run is the last")
def test_the_last_run_is_the_last_although_the_clock_jumped_back(laboratory, monkeypatch):
    laboratory.engine(scan(1))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86_400)
    (uid,) = laboratory.engine(scan(1))
    assert laboratory.emitted[-1][1]["time"] < real() - 80_000
    assert laboratory.index.newest(0).uid == uid


@fault("The index is broken while a session runs", "runs are recorded and found")
def test_a_run_is_recorded_and_found_although_the_index_file_is_broken(laboratory, caplog):
    uids = [laboratory.engine(scan(1))[0]]
    laboratory.index._database.execute("DROP TABLE metadata")
    uids += [laboratory.engine(scan(1))[0] for _ in range(2)]
    (record,) = [record for record in caplog.records if "index" in record.message]
    assert "no such table: metadata" in record.message
    assert "keeps it in memory" in record.message
    assert laboratory.index.refresh() == []
    assert laboratory.index.uids() == uids[::-1]
    for uid in uids:
        assert names(laboratory.path(uid))[-1] == "stop"
