"""Real sessions, forked from a process that has imported all that they use. The IOC is one that runs already."""

import os

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
    """The session's journal, telling each document before it has it and when it has."""

    def __init__(self, journal, tell):
        self._journal = journal
        self._tell = tell

    def __call__(self, name, document):
        self._tell("offered", name, document["uid"])
        self._journal(name, document)
        self._tell("accepted", name, document["uid"])


def scan(data, fifo, beamline, runs=3, points=5, **_):
    """A session in the directory `data`: look at what the one before it left, scan, end."""
    tell = Teller(fifo)
    os.chdir(data)
    os.environ["VIRTUAL_BEAMLINE"] = beamline
    ophyd.set_cl("pyepics")
    session = instrument.session.Session("iconfig.yml", tell=lambda line: tell("line", line))
    session.open()
    session.specwriter.newfile("kills.dat")
    written = session.wait_for_files(30)
    last = session.cat[-1] if len(session.cat) else None
    if last is not None:
        start, stop = last.metadata["start"], last.metadata["stop"]
        points_read = len(last.primary.read()["time"]) if "primary" in list(last) else 0
        tell("catalog", written, start["uid"], stop["exit_status"], stop.get("reason", ""), points_read)
    session.RE.journal = TellingJournal(session.RE.journal, tell)
    motor, noisy = session.devices["m1"], session.devices["noisy"]
    for number in range(runs):
        session.RE(session.bp.scan([noisy], motor, 0.0, 0.01 * (number + 1), points))
    session.close()
    tell("done")


if __name__ == "__main__":
    assert epics.ca.libca is None, "Channel Access began before the fork"
    serve({"scan": scan})
