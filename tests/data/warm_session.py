"""Real sessions, forked from a process that has imported all that they use. The IOC is one that runs already."""

import os
import sys
import threading
import time

os.environ |= {"OPHYD_CONTROL_LAYER": "dummy", "MPLBACKEND": "Agg", "OPENBLAS_NUM_THREADS": "1"}

import apstools.callbacks
import apstools.utils
import databroker.v1
import databroker.v2
import epics.ca
import matplotlib.pyplot
import ophyd
from ophyd import _pyepics_shim

import instrument.session
from instrument import plans
from instrument.callbacks import journal, live, nexus, nexus_file, outbox, peaks, shipped, spec
from instrument.devices import calcout, health, iocstats, motors, registry, scaler, shutter, swait, temperature
from instrument.framework import baseline, catalog, embedded, engine, imports, index, metadata, runfiles, state

from .forking import Teller, serve

IMPORTED = (
    *(apstools.callbacks, apstools.utils, databroker.v1, databroker.v2, matplotlib.pyplot, _pyepics_shim, plans),
    *(journal, live, nexus, nexus_file, outbox, peaks, shipped, spec),
    *(calcout, health, iocstats, motors, registry, scaler, shutter, swait, temperature),
    *(baseline, catalog, embedded, engine, imports, index, metadata, runfiles, state),
)


class TellingJournal:
    """The session's journal, telling each document before it has it and when it has; it can halt when it has one."""

    def __init__(self, journal, tell, halt_at):
        self._journal = journal
        self._tell = tell
        self._halt_at = halt_at

    def __call__(self, name, document):
        self._tell("offered", name, document["uid"])
        self._journal(name, document)
        self._tell("accepted", name, document["uid"])
        if name == self._halt_at:
            time.sleep(600)


WRITING = {"os.mkdir", "os.rename", "os.remove", "os.link", "os.truncate", "sqlite3.connect", "socket.connect",
           "subprocess.Popen"}  # fmt: skip


class Watch:
    """What subscribers do beside the screen while they have a document."""

    def __init__(self, dispatcher):
        self.seen = []
        self._thread = None
        self._process = dispatcher.process
        dispatcher.process = self
        sys.addaudithook(self._hear)

    def __call__(self, name, document):
        self._thread = threading.get_ident()
        try:
            self._process(name, document)
        finally:
            self._thread = None

    def _hear(self, event, arguments):
        if self._thread != threading.get_ident():
            return
        flags = arguments[2] if event == "open" and len(arguments) > 2 else 0
        if event in WRITING or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            self.seen.append([event, str(arguments[0])])


def subscribers(data, fifo, beamline, **_):
    """Who is subscribed to the engine of a session, and what that writes; then the same with one that does write."""
    tell = Teller(fifo)
    session = opened(data, beamline, tell)
    registry = session.RE.dispatcher.cb_registry.callbacks
    subscribed = [
        (proxy.inst and proxy.inst()) or proxy.func for found in registry.values() for proxy in found.values()
    ]
    tell("subscribed", sorted({type(subscriber).__name__ for subscriber in subscribed}))
    watch = Watch(session.RE.dispatcher)
    for habit in (None, session.specwriter.receiver, session.nxwriter.receiver, open_file):
        if habit is not None:
            session.RE.subscribe(habit)
        session.RE(session.bp.scan([session.devices["noisy"]], session.devices["m1"], 0.0, 0.01, 3))
        tell("wrote", watch.seen)
    session.close()


def open_file(_name, _document):
    with open("written", "a") as file:
        file.write("!")


def opened(directory, beamline, tell):
    """A session in a directory."""
    os.chdir(directory)
    os.environ["VIRTUAL_BEAMLINE"] = beamline
    ophyd.set_cl("pyepics")
    session = instrument.session.Session("iconfig.yml", tell=lambda line: tell("line", line))
    return session.open()


def scan(data, fifo, beamline, runs=3, points=5, motor="m1", halt_at=None, **_):
    """A session in the directory `data`: look at what the one before it left, scan, end."""
    tell = Teller(fifo)
    session = opened(data, beamline, tell)
    session.specwriter.newfile("kills.dat")
    written = session.wait_for_files(30)
    last = session.cat[-1] if len(session.cat) else None
    if last is not None and last.metadata["stop"] is not None:  # else it is another living session's
        start, stop = last.metadata["start"], last.metadata["stop"]
        points_read = len(last.primary.read()["time"]) if "primary" in list(last) else 0
        tell("catalog", written, start["uid"], stop["exit_status"], stop.get("reason", ""), points_read)
    session.RE.journal = TellingJournal(session.RE.journal, tell, halt_at)
    for number in range(runs):
        session.RE(
            session.bp.scan([session.devices["noisy"]], session.devices[motor], 0.0, 0.01 * (number + 1), points)
        )
    session.close()
    tell("done")


if __name__ == "__main__":
    assert epics.ca.libca is None, "Channel Access began before the fork"
    serve({"scan": scan, "subscribers": subscribers})
