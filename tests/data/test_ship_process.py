"""`instrument ship`: a process of its own that can be killed, is alone, and is started by a session that needs it."""

import configparser
import itertools
import json
import os
import random
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import bluesky.plans as bp
import ophyd.sim
import psutil
import pytest

from instrument.callbacks.shipping import Marks
from instrument.framework.presence import Presence, SoleOwner
from tests.faults.session import Session, until, write_config
from tests.faults_page import fault
from tests.terminal import ROOT, clean_environment

from .consumers import FeedFiles

INSTRUMENT = [sys.executable, "-m", "instrument.cli"]
FEED = "tests.data.consumers.FeedFiles"


def count(num=1):
    return bp.count([ophyd.sim.det], num=num)


class Place:
    """A working directory whose runs are shipped to files."""

    def __init__(self, directory, laboratory):
        self.directory = directory
        self.feed = FeedFiles(directory / "feed")
        self.config = write_config(directory, f"ship: {{consumers: {{{FEED}: {{directory: {self.feed.directory}}}}}}}")
        self.environment = clean_environment(directory, PYTHONPATH=str(ROOT))
        self.laboratory = laboratory
        self.processes = []
        Marks(laboratory.data.ship).register(["feed"], laboratory.index)

    def ship(self, *arguments):
        process = subprocess.Popen(
            [*INSTRUMENT, "ship", "--config", str(self.config), *arguments],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    def shipping(self):
        """A shipping process that is at work."""
        process = self.ship()
        assert process.stdout.readline().startswith(f"shipping {self.laboratory.data.runs} to feed (pid ")
        return process

    def run(self, *arguments):
        process = self.ship(*arguments)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output.splitlines()

    def runs(self, number):
        return [self.laboratory.engine(count(3))[0] for _ in range(number)]


@pytest.fixture
def place(tmp_path, make_laboratory):
    place = Place(tmp_path, make_laboratory(tmp_path / ".data"))
    yield place
    for process in place.processes:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()


def test_it_feeds_runs_is_the_only_one_says_so_and_ends_when_told(place, wait_until):
    process = place.shipping()
    uids = place.runs(3)
    wait_until(lambda: place.feed.whole == uids)
    code, (line,) = place.run()
    assert code == 2
    assert line.startswith(f"the runs in {place.laboratory.data.runs} are shipped already (pid {process.pid} on ")
    wait_until(lambda: place.run("--status")[1][4].split() == ["feed", "3", "0"])
    code, lines = place.run("--status")
    assert code == 0
    assert lines[0].startswith(f"{place.laboratory.data.runs} is shipped (pid {process.pid} on ")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output.splitlines()) == (0, ["feed: 3 delivered, 0 pending"])
    assert place.run("--status")[1][0] == f"{place.laboratory.data.runs} is not shipped: start `instrument ship`"


@fault("Ctrl-C of `instrument ship` while a consumer hangs", "it ends; the next one delivers")
def test_ctrl_c_ends_it_although_a_consumer_hangs_and_the_next_one_delivers(place, wait_until):
    (place.feed.directory / "hang").touch()
    process = place.shipping()
    uids = place.runs(2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    (place.feed.directory / "hang").unlink()
    assert place.run("--once") == (
        0,
        [
            f"shipping {place.laboratory.data.runs} to feed (pid {place.processes[-1].pid})",
            "feed: 2 delivered, 0 pending",
        ],
    )
    assert place.feed.whole == uids


@fault(
    "The server is down when `instrument ship --once` runs", "exit code 1 and one line; the next time it is delivered"
)
def test_once_tells_what_it_could_not_deliver(place):
    (place.feed.directory / "down").touch()
    uids = place.runs(2)
    code, lines = place.run("--once")
    assert code == 1
    assert lines[1:] == [
        "feed: run 1 is not delivered yet: the server is down; it is tried again",
        "feed: 0 delivered, 2 pending (the server is down)",
    ]
    (place.feed.directory / "down").unlink()
    assert place.run("--once")[0] == 0
    assert place.feed.whole == uids


@fault("kill -9 of the shipping process at any moment", "exactly one copy of each run")
def test_kill_at_any_moment_leaves_exactly_one_copy_of_each_run(place, wait_until):
    chance = random.Random()
    uids = []
    for _ in range(6):
        process = place.shipping()
        uids += place.runs(chance.randrange(1, 12))
        wanted = len(uids) - chance.randrange(0, 3)
        wait_until(lambda wanted=wanted: len(place.feed.whole) >= wanted)
        process.kill()
        process.wait()
    assert place.run("--once")[0] == 0
    assert sorted(place.feed.whole) == sorted(uids)
    assert list(place.feed.directory.glob("*.partial")) == []
    for uid in uids:
        assert place.feed.names(uid) == ["start", "descriptor", "event", "event", "event", "stop"]


def test_with_nobody_to_ship_to_it_says_so(tmp_path):
    done = subprocess.run(
        [*INSTRUMENT, "ship"],
        cwd=tmp_path,
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("there is nobody to ship to: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("consumers", "told"),
    [
        ("{no.such.Class: {}}", "ship: consumers: no.such.Class: there is no such class"),
        (f"{{{FEED}: {{directry: x}}}}", "got an unexpected keyword argument 'directry'"),
    ],
)
def test_a_consumer_that_cannot_be_made_is_told_by_check(tmp_path, consumers, told):
    config = write_config(tmp_path, f"ship: {{consumers: {consumers}}}")
    done = subprocess.run(
        [*INSTRUMENT, "check", "--config", str(config)],
        cwd=tmp_path,
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_service_is_a_unit_with_absolute_paths_that_starts_it(place):
    code, lines = place.run("--print-service")
    assert code == 0
    unit = configparser.RawConfigParser()
    unit.optionxform = str
    unit.read_string("\n".join(lines))
    assert unit["Service"]["WorkingDirectory"] == str(place.directory)
    program, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert Path(program).is_absolute()
    assert arguments == ["ship", "--config", str(place.config)]
    done = subprocess.run(
        [program, *arguments, "--once"], cwd="/", env=place.environment, capture_output=True, check=False, timeout=60
    )
    assert done.returncode in {0, 2}  # in another directory there is nothing to ship, or it may not be written


def test_with_sessions_it_lives_as_long_as_any_and_delivers_the_rest(place, wait_until):
    session = Presence.join(place.laboratory.data.sessions)
    process = place.ship("--with-sessions")
    lock = SoleOwner(place.laboratory.data.ship_lock)
    wait_until(lambda: lock.holder() is not None)
    (place.feed.directory / "down").touch()
    uids = place.runs(2)
    marks = Marks(place.laboratory.data.ship)
    wait_until(lambda: marks.rows(["feed"], place.laboratory.index)[0] == ("feed", 0, 2, "the server is down"))
    place.laboratory.close()
    (place.feed.directory / "down").unlink()
    session.leave()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert place.feed.whole == uids


def shipper_of(directory):
    owner = SoleOwner(directory / ".data" / "ship.lock").holder()
    return owner if owner and owner.pid else None  # it has the lock a moment before it has written its name


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    directory = tmp_path_factory.mktemp("session")
    feed = FeedFiles(directory / "feed")
    config = write_config(directory, f"ship: {{consumers: {{{FEED}: {{directory: {feed.directory}}}}}}}")
    with Session(directory, arguments=("--config", str(config)), env={"PYTHONPATH": str(ROOT)}) as session:
        session.feed = feed
        yield session
    owner = shipper_of(directory)
    if owner is not None:
        os.kill(owner.pid, signal.SIGKILL)


def outbox(session):
    """The rows of `outbox()`."""
    lines = session.run("outbox()").splitlines()
    rule = next(line for line in lines if line.startswith("==="))
    ends = [0, *(position for position, character in enumerate(rule) if character == " "), 500]
    rows = [line for line in lines if not line.startswith("===")][1:]
    return [[row[begin:end].strip() for begin, end in itertools.pairwise(ends)] for row in rows]


@fault(
    "kill -9 of the shipping process that a session started",
    "told in one line, started again, nothing is lost or doubled",
)
def test_a_session_starts_it_shows_it_and_starts_it_again_when_it_is_killed(session):
    until(lambda: shipper_of(session.directory), "the shipping process")
    pid = shipper_of(session.directory).pid
    session.run("RE(bp.count([noisy]))")
    assert session.value("wait_for_files()") is True
    assert outbox(session) == [["spec", "1", "0", ""], ["feed", "1", "0", ""]]

    session.press("c")  # at the prompt: it is none of the shipping process's business
    session.until_prompt()
    (session.feed.directory / "down").touch()
    session.process.sendline("RE(bp.count([noisy]));")
    session.shows_until(r"In \[\d+\]: ", r"feed: run 2 is not delivered yet: the server is down; it is tried again")
    assert shipper_of(session.directory).pid == pid
    assert outbox(session)[1] == ["feed", "1", "1", "the server is down"]
    os.kill(pid, signal.SIGKILL)
    session.shows_until(rf"the shipping process \(pid {pid}\) ended with signal SIGKILL: it is started again")
    (session.feed.directory / "down").unlink()
    until(lambda: len(session.feed.whole) == 2, "run 2")
    assert session.value("wait_for_files()") is True
    assert outbox(session) == [["spec", "2", "0", ""], ["feed", "2", "0", ""]]


@fault(
    "A session ends while its last run is on its way to a server", "nobody waits; it is delivered behind the session"
)
def test_it_goes_on_behind_a_session_that_ends(session):
    until(lambda: shipper_of(session.directory), "the shipping process")
    shipper = psutil.Process(shipper_of(session.directory).pid)
    before = len(session.feed.whole)
    (session.feed.directory / "hang").touch()
    session.run("RE(bp.count([noisy]))")
    session.process.sendline("exit")
    assert "shipping goes on behind the session: feed (1);" in session.until_end()
    assert session.process.exitstatus == 0
    assert shipper.is_running()
    (session.feed.directory / "hang").unlink()
    until(lambda: len(session.feed.whole) == before + 1, "the last run")
    until(lambda: not shipper.is_running() or shipper.status() == psutil.STATUS_ZOMBIE, "the end of the process")
    log = (session.directory / ".logs" / "ship.log").read_text()
    assert json.dumps(f"feed: {before + 1} delivered, 0 pending")[1:-1] in log
