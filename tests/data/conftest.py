"""A journal, an index, an outbox and a RunEngine over real files; and a warmed process that forks sessions."""

import json
import os
import select
import signal
import subprocess
import sys
import time

import pytest
from bluesky import RunEngine

from instrument.callbacks import attempts, outbox, shipping
from instrument.callbacks.journal import Journal, validate_metadata
from instrument.callbacks.outbox import Outbox
from instrument.callbacks.shipping import Shipper
from instrument.framework.index import RunIndex
from instrument.framework.runfiles import DataDirectory

DEADLINE = 120.0  # s, generous: the machine may be busy


# Of the faults of a real Tiled server those that `make test` has time for; `make soak` has the others.
TILED_FAULTS = (
    "test_raises[Tiled-event]",
    "test_its_place_cannot_be_used_at_the_start[Tiled-down]",
    "test_its_place_is_lost_in_mid_run[Tiled-down]",
    "test_a_lost_mark[Tiled]",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        case = getattr(item, "callspec", None) and item.callspec.params.get("case")
        if case == "Tiled" and item.name not in TILED_FAULTS:
            item.add_marker(pytest.mark.soak)


class Laboratory:
    """What a session has, as far as data go."""

    def __init__(self, root, *, fsync_interval=1.0):
        self.data = DataDirectory(root)
        self.index = RunIndex(self.data.index, self.data.runs)
        self.journal = Journal(self.data.runs, index=self.index, fsync_interval=fsync_interval)
        self.reports = []
        self.outbox = Outbox(self.data.runs, self.data.outbox, report=self.reports.append, index=self.index)
        self.engine = RunEngine({}, context_managers=[])
        self.engine.md_validator = validate_metadata
        self.engine.subscribe(self.journal)
        self.engine.subscribe(self.outbox)
        self.emitted = []
        self.engine.subscribe(lambda name, document: self.emitted.append((name, document)))

    def path(self, uid):
        return self.index.with_uid(uid)[0].path

    def close(self):
        self.journal.close()
        self.outbox.close(0)
        self.index.close()


@pytest.fixture
def laboratory(tmp_path):
    laboratory = Laboratory(tmp_path / "data")
    yield laboratory
    laboratory.close()


@pytest.fixture
def make_laboratory(tmp_path):
    made = []

    def make(root=tmp_path / "data", **kwargs):
        made.append(Laboratory(root, **kwargs))
        return made[-1]

    yield make
    for laboratory in made:
        laboratory.close()


@pytest.fixture
def ship(laboratory):
    """Start shipping the laboratory's runs to consumers."""
    made = []

    def start(*consumers, **options):
        shipper = Shipper(laboratory.data, consumers, laboratory.reports.append, **options)
        made.append(shipper)
        shipper.start()
        return shipper

    yield start
    for shipper in made:
        shipper.close()


@pytest.fixture
def short_pauses(monkeypatch):
    """Retries follow at once, and looks each other."""
    monkeypatch.setattr(attempts, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(attempts, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(outbox, "_LOOK", 0.01)
    monkeypatch.setattr(shipping, "LOOK", 0.01)


class WarmProcess:
    """A process that forks others: see `forking`."""

    def __init__(self, module):
        self._process = subprocess.Popen(
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout.readline() == "ready\n"

    def _ask(self, **request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def play(self, scenario, data, fifo, **kwargs):
        """Fork a process that plays a scenario on a data directory."""
        os.mkfifo(fifo)
        pid = self._ask(scenario=scenario, data=str(data), fifo=str(fifo), **kwargs)
        return Forked(self, pid, fifo)

    def wait(self, pid):
        return self._ask(wait=pid)

    def close(self):
        self._process.stdin.close()
        self._process.wait(DEADLINE)


class Forked:
    """A session in a process of its own, and what it tells."""

    def __init__(self, warm, pid, fifo):
        self._warm = warm
        self.pid = pid
        self._shown = f"{fifo}.shown"
        self._descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(self._descriptor, True)
        self._rest = b""
        self._began = False
        self.told = []

    def lines(self):
        """What the session tells, until it ends."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN | select.POLLHUP)
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            ready = poll.poll(1000)
            received = os.read(self._descriptor, 65536) if ready else None
            if received == b"" and not self._began:
                os.sched_yield()  # it has not opened the FIFO yet
                continue
            if received == b"":
                return
            if received:
                self._began = True
                *lines, self._rest = (self._rest + received).split(b"\n")
                self.told.extend(json.loads(line) for line in lines)
                yield from self.told[-len(lines) or len(self.told) :]
        raise TimeoutError(f"session {self.pid} told nothing more")

    def until(self, *words):
        for line in self.lines():
            if line[: len(words)] == list(words):
                return line
        raise AssertionError(f"the session ended without telling {words}; it told {self.told[-3:]}")

    def shown(self):
        """What it showed so far, an error that ended it for instance."""
        with open(self._shown) as file:
            return file.read()

    def finish(self):
        """Wait for its end; return its exit status."""
        for _ in self.lines():
            pass
        os.close(self._descriptor)
        return self._warm.wait(self.pid)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        return self.finish()


@pytest.fixture(scope="session")
def warm():
    process = WarmProcess("tests.data.warm")
    yield process
    process.close()


@pytest.fixture
def wait_until():
    def wait(condition, timeout=DEADLINE):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true"
            select.select([], [], [], 0.005)

    return wait
