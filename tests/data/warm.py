"""Processes that have an engine, a journal and an outbox, forked from one that has imported what these need."""

import os
import resource
import time
from pathlib import Path

os.environ["OPHYD_CONTROL_LAYER"] = "dummy"

import bluesky.plans as bp
import ophyd.sim
from bluesky import RunEngine

from instrument.callbacks.journal import Journal
from instrument.callbacks.outbox import Outbox
from instrument.framework.index import RunIndex
from instrument.framework.runfiles import DataDirectory
from instrument.framework.state import StateFile

from .consumers import FileConsumer
from .forking import Teller, serve


class TellingConsumer(FileConsumer):
    def __init__(self, directory, tell):
        super().__init__(directory)
        self._tell = tell

    def deliver(self, documents, assignment, notes):
        result = super().deliver(documents, assignment, notes)
        self._tell("written", result)
        return result


def acquire(data, fifo, points=20, runs=1, **_):
    """Scans, telling each document when it is offered to the journal and when the journal has it."""
    tell = Teller(fifo)
    files = DataDirectory(Path(data))
    state = StateFile(files.state)
    journal = Journal(files.runs, index=RunIndex(files.index, files.runs), fsync_interval=0.05)
    journal.close_orphans()
    engine = RunEngine(state, scan_id_source=state.next_scan_id, context_managers=[])
    engine.subscribe(lambda name, document: tell("offered", name, document.get("uid")))
    engine.subscribe(journal)
    engine.subscribe(lambda name, document: tell("accepted", name, document.get("uid")))
    engine.subscribe(lambda name, document: tell("scan_id", document["scan_id"]) if name == "start" else None)
    for _ in range(runs):
        engine(bp.scan([ophyd.sim.det], ophyd.sim.motor, -1, 1, points))
    tell("done")


def hold(data, fifo, **_):
    """Open a run, and stay alive with it open."""
    tell = Teller(fifo)
    files = DataDirectory(Path(data))
    StateFile(files.state)
    journal = Journal(files.runs, index=RunIndex(files.index, files.runs))
    journal("start", {"uid": "held-open", "time": time.time(), "scan_id": 1, "plan_name": "hold"})
    tell("open")
    time.sleep(600)


def deliver(data, fifo, runs=5, **_):
    """Runs with a file written of each, telling when a file is there, before its mark is."""
    tell = Teller(fifo)
    files = DataDirectory(Path(data))
    index = RunIndex(files.index, files.runs)
    journal = Journal(files.runs, index=index)
    journal.close_orphans()
    outbox = Outbox(files.runs, files.outbox, report=lambda line: None, index=index)
    outbox.add(TellingConsumer(files.root / "delivered", tell))
    outbox.start()
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(journal)
    engine.subscribe(outbox)
    for _ in range(runs):
        engine(bp.count([ophyd.sim.det]))
    outbox.wait(30)
    tell("done")


def small_files(data, fifo, limit=4000, **_):
    """A scan where no file may grow beyond a limit, which is what a full disk looks like without being root."""
    tell = Teller(fifo)
    files = DataDirectory(Path(data))
    journal = Journal(files.runs)
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(journal)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        engine(bp.scan([ophyd.sim.det], ophyd.sim.motor, -1, 1, 200))
    except Exception as error:  # told to the test
        tell("raised", type(error).__name__, str(error))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    engine(bp.count([ophyd.sim.det]))
    journal.close()
    tell("done")


if __name__ == "__main__":
    serve({function.__name__: function for function in (acquire, hold, deliver, small_files)})
