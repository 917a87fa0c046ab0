"""kill -9 of a real session at any document: devices of an IOC, baseline, live table, catalog, files and all."""

import random
import re

import h5py
import pytest

from instrument.framework.presence import SoleOwner
from instrument.framework.runfiles import DataDirectory, RunFile, month_directories
from tests.faults_page import fault

from .conftest import WarmProcess
from .consumers import FeedFiles

KILLS = 30
CONFIG = "devices: [devices.yml]\nlogging: {file: WARNING}\nnexus: {enabled: true}\n"
DEVICES = """\
instrument.devices.motors.Motor:
  - {name: m1, prefix: "gp:m1", labels: [motor], baseline: true}
  - {name: m2, prefix: "gp:m2", labels: [motor], baseline: true}
ophyd.EpicsSignalRO:
  - {name: noisy, read_pv: "gp:userCalc1", labels: [detectors]}
"""


@pytest.fixture(scope="module")
def warm_session():
    process = WarmProcess("tests.data.warm_session")
    yield process
    process.close()


@pytest.fixture
def place(tmp_path):
    directory = tmp_path / "place"
    directory.mkdir()
    (directory / "iconfig.yml").write_text(CONFIG)
    (directory / "devices.yml").write_text(DEVICES)
    return directory


def journaled(directory):
    """The documents of each run of the journal, in the order of their start; none was in a file that has no start."""
    runs = [
        list(RunFile(path))
        for month in month_directories(DataDirectory(directory / ".data").runs)
        for path in month.glob("*.msgpack")
    ]
    return sorted(filter(None, runs), key=lambda documents: documents[0][1]["time"])


def specs(directory):
    """Scan numbers, uids and exit statuses of all scans in SPEC files.

    Where a session is killed between a start document and the note which file it goes to, that is the next one's.
    """
    texts = [path.read_text() for path in directory.glob("*.dat")]
    blocks = [block for text in texts for block in re.split(r"(?m)^#S ", text)[1:]]
    return [
        (int(block.split()[0]), *re.findall(r"#MD uid = (\S+)", block), *re.findall(r"exit_status = (\w+)", block))
        for block in blocks
    ]


def nexus_files(directory):
    """The uids of the runs in NeXus files, each of which is whole."""
    found = []
    for path in (directory / ".data").glob("*.hdf"):
        with h5py.File(path) as file:
            assert "end_time" in file["entry"]
            found.append(file["entry/entry_identifier"].asstr()[()])
    return found


class Kills:
    """Sessions in one directory, each killed at a random document; each looks first at what the last one left."""

    def __init__(self, warm, beamline, directory, fifos):
        self._warm = warm
        self._beamline = beamline
        self.directory = directory
        self._fifos = fifos
        self._number = 0
        self.chance = random.Random()
        self.offered = []
        self.accepted = []
        self.added = 0  # stop documents that a next session added
        self.kinds = set()  # of the last document that the journal had when the session was killed

    def play(self, **kwargs):
        """Begin a session."""
        self._number += 1
        fifo = self._fifos / f"fifo{self._number}"
        self.session = self._warm.play("scan", self.directory, fifo, beamline=self._beamline.id, **kwargs)
        return self.session

    def kill(self, halt_at=None):
        """One session, killed at any document, or when its journal has the first of a kind; what the last one left."""
        session = self.play(halt_at=halt_at)
        victim = self.chance.randrange(0, 60)
        documents = 0
        for line in session.lines():
            if line[0] in {"offered", "accepted"}:
                documents += 1
            if line[:2] == ["accepted", halt_at] if halt_at else documents > victim:
                break
        code = session.kill()
        assert code in {-9, 0}, session.shown()
        self.look(session)

    def look(self, session):
        before = len(self.accepted)
        for line in session.told:
            if line[0] == "catalog":
                self._check_catalog(*line[1:])
        self.offered += [line[2] for line in session.told if line[0] == "offered"]
        self.accepted += [line[2] for line in session.told if line[0] == "accepted"]
        if len(self.accepted) > before:
            self.kinds.add([line[1] for line in session.told if line[0] == "accepted"][-1])

    def _check_catalog(self, written, uid, status, reason, points):
        assert written  # the SPEC file has everything, of the killed session too
        *_, last = [run for run in journaled(self.directory) if run[-1][0] == "stop" and run[0][1]["uid"] == uid]
        stop = last[-1][1]
        assert (status, reason) == (stop["exit_status"], stop.get("reason", ""))
        primary = {doc["uid"] for name, doc in last if name == "descriptor" and doc["name"] == "primary"}
        assert points == sum(name == "event" and doc["descriptor"] in primary for name, doc in last)

    def check(self):
        """After a session that ended well: nothing is lost, nothing is there twice."""
        runs = journaled(self.directory)
        stored = []
        for run in runs:
            name, stop = run[-1]
            assert name == "stop"
            if "added_later" in stop:
                assert (stop["exit_status"], stop["reason"]) == ("fail", "session ended")
                self.added += 1
                run.pop()
            stored += [document["uid"] for _, document in run]
        assert len(set(stored)) == len(stored)
        assert set(self.accepted) <= set(stored) <= set(self.offered)
        numbers = [run[0][1]["scan_id"] for run in runs]
        assert numbers == sorted(set(numbers))  # none was given twice
        statuses = {run[0][1]["uid"]: "fail" if run[-1][0] != "stop" else run[-1][1]["exit_status"] for run in runs}
        assert sorted(specs(self.directory)) == sorted(
            (run[0][1]["scan_id"], run[0][1]["uid"], statuses[run[0][1]["uid"]]) for run in runs
        )
        assert sorted(nexus_files(self.directory)) == sorted(run[0][1]["uid"] for run in runs)
        assert list((self.directory / ".data").glob(".*.part")) == []


def kill_sessions(number, warm, beamline, place, fifos):
    kills = Kills(warm, beamline, place, fifos)
    for halt_at in ("start", "descriptor", "event", *[None] * (number - 3)):
        kills.kill(halt_at)
    session = kills.play(runs=1)
    assert session.finish() == 0, session.shown()
    assert session.told[-1] == ["done"]
    kills.look(session)
    kills.check()
    return kills


@fault(
    "kill -9 of a whole session (IOC, baseline, table, files) at any document, 30 times",
    "every emitted document is in the journal; the next session closes the run; one copy in catalog, SPEC, NeXus",
)
def test_kill_of_a_real_session_at_any_document_loses_none_that_was_emitted(
    warm_session, virtual_beamline, place, tmp_path
):
    kills = kill_sessions(KILLS, warm_session, virtual_beamline, place, tmp_path)
    assert kills.added > KILLS / 3  # most were killed in the midst of a run
    assert {"start", "descriptor", "event"} <= kills.kinds


@fault("kill -9 of a whole session at any document, 200 times", "the same")
@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_two_hundred_kills_of_a_real_session(warm_session, virtual_beamline, place, tmp_path):
    kill_sessions(200, warm_session, virtual_beamline, place, tmp_path)


@fault(
    "Two whole sessions write at once, to one SPEC file, NeXus files and a server",
    "nothing is lost, no scan number given twice, exactly one copy of each run everywhere",
)
def test_two_real_sessions_at_once(warm_session, virtual_beamline, place, tmp_path, wait_until):
    feed = FeedFiles(place / "feed")
    (place / "iconfig.yml").write_text(
        f"{CONFIG}ship: {{consumers: {{tests.data.consumers.FeedFiles: {{directory: {feed.directory}}}}}}}\n"
    )
    both = Kills(warm_session, virtual_beamline, place, tmp_path)
    sessions = [both.play(runs=5, motor=motor) for motor in ("m1", "m2")]
    for session in sessions:
        assert session.finish() == 0, session.shown()
        both.look(session)
    both.check()
    uids = sorted(run[0][1]["uid"] for run in journaled(place))
    assert len(uids) == 10
    wait_until(lambda: sorted(feed.whole) == uids)
    wait_until(lambda: SoleOwner(place / ".data" / "ship.lock").holder() is None)


def test_no_subscription_to_the_engine_but_the_journal_writes_anything(warm_session, virtual_beamline, place, tmp_path):
    """Not the live table and plot, nor SPEC and NeXus writers that someone subscribed by habit."""
    session = warm_session.play("subscribers", place, tmp_path / "fifo", beamline=virtual_beamline.id)
    assert session.finish() == 0, session.shown()
    assert [line[1] for line in session.told if line[0] == "subscribed"] == [["BestEffort", "Progress"]]  # the screen
    *clean, control = [line[1] for line in session.told if line[0] == "wrote"]
    assert clean == [[], [], []]
    assert control[0] == ["open", "written"]  # such a one would be seen
    assert len(specs(place)) == 4
    assert len({uid for _, uid, _ in specs(place)}) == 4
