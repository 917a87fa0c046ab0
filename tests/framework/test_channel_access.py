"""ophyd is imported sooner than by itself and works as ever; what PVs tell at first is what ophyd has of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

# Each in a fresh interpreter, because a process has one libca.
SAME_LIBCA = """
from instrument.framework.channel_access import import_ophyd
import_ophyd()
import os, sys
chosen = os.environ["PYEPICS_LIBCA"]
assert "setuptools" not in sys.modules
import epicscorelibs.path.pyepics  # as programs do that want the same libca
from epicscorelibs.path import get_lib  # as p4p and aioca do
assert get_lib("ca") == chosen, chosen
from epics import ca
assert ca.initialize_libca()._name == chosen
"""
USERS_LIBCA = """
import os
os.environ["PYEPICS_LIBCA"] = os.environ["OTHER"]
from instrument.framework.channel_access import import_ophyd
import_ophyd()
from epics import ca
assert ca.initialize_libca()._name == os.environ["OTHER"]
"""
LATE_NETWORKX = """
from instrument.framework.channel_access import import_ophyd
import_ophyd()
import sys
assert "networkx.classes" not in sys.modules
import ophyd.areadetector.base as base
assert list(base.nx.Graph([("SIM1", "HDF1")]).nodes) == ["SIM1", "HDF1"]
import networkx.algorithms
assert networkx.algorithms.is_connected(networkx.Graph([(1, 2)]))
"""


def run(code: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not done.returncode, done.stderr
    return done.stdout


def test_ophyd_gets_the_libca_that_it_would_choose_without_setuptools(monkeypatch):
    monkeypatch.delenv("PYEPICS_LIBCA", raising=False)
    run(SAME_LIBCA)


def test_a_libca_that_the_user_names_is_used(tmp_path):
    from epicscorelibs.lib import Com_dsoinfo, ca_dsoinfo

    for library in (Com_dsoinfo.sofilename, ca_dsoinfo.sofilename):
        (tmp_path / Path(library).name).symlink_to(library)
    run(USERS_LIBCA, OTHER=str(tmp_path / Path(ca_dsoinfo.sofilename).name))


def test_networkx_is_there_when_an_area_detector_uses_it():
    run(LATE_NETWORKX)


METADATA = """
import json, os, sys
from instrument.framework.channel_access import import_ophyd
import_ophyd()
if sys.argv[1] == "collected":
    from instrument.framework.first_metadata import collect_first_metadata
    collect_first_metadata()
import ophyd, epics
signals = [ophyd.EpicsSignal(pv, name=pv) for pv in sys.argv[2:]]
signals.append(ophyd.EpicsSignal("gp:m1.HLM", write_pv="gp:m1.VAL", name="both"))
for signal in signals:
    signal.wait_for_connection(timeout=20)
kinds = {type(signal._read_pv).__name__ for signal in signals}
assert kinds == {"CollectedPV" if sys.argv[1] == "collected" else "PyepicsShimPV"}, kinds
assert all(signal.metadata["timestamp"] > 6e8 for signal in signals)
times = {"timestamp", "setpoint_timestamp"}
found = [[s.name, {k: str(v) for k, v in s.metadata.items() if k not in times}] for s in signals]
print(json.dumps(found), flush=True)
os._exit(0)  # libca may crash in a process that ends just after it has connected
"""
PVS = ("gp:m1", "gp:m1.DIR", "gp:m1.EGU", "gp:scaler1.CNT", "gp:gp:text1", "gp:gp:array1", "gp:m1.MSTA")


def test_what_a_pv_tells_at_first_is_what_ophyd_asks_for(virtual_beamline):
    environment = virtual_beamline.environment.variables
    stock, collected = (json.loads(run(METADATA, how, *PVS, **environment)) for how in ("stock", "collected"))
    assert dict(stock)["gp:m1"]["units"] == "degrees"
    assert collected == stock


def has_stopped(pid: int) -> bool:
    """Whether no thread of a process runs any more."""
    states = [file.read_text().rpartition(")")[2].split()[0] for file in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


@pytest.fixture
def connected_pv(virtual_beamline):
    """A PV of the kind that sessions use, connected; pyepics makes its own kind again afterwards."""
    from instrument.framework.channel_access import import_ophyd

    import_ophyd()
    import epics.ca

    from instrument.framework.first_metadata import CollectedPV, Collector

    CollectedPV.collector = Collector()
    pv = CollectedPV("gp:m2.HLM")
    assert pv.wait_for_connection(timeout=20)
    yield pv
    epics.ca.clear_channel(pv.chid)


def test_who_asked_pvs_before_ophyd_was_imported_hears_no_warning():
    run(
        "from instrument.devices.pvs import attach; attach(); import warnings; warnings.simplefilter('error'); "
        "import ophyd"
    )


def test_an_ioc_that_does_not_answer_in_time_is_asked_again(connected_pv, virtual_beamline):
    answered, asked_again, found = threading.Event(), threading.Event(), {}
    add = connected_pv.collector.add
    asked = []

    def note(question):
        asked.append(question)
        if len(asked) > 1:
            asked_again.set()
        add(question)

    def answer(name, metadata):
        found[name] = metadata
        answered.set()

    connected_pv.collector.add = note
    os.kill(virtual_beamline.pid, signal.SIGSTOP)
    try:
        end = time.monotonic() + 20
        while not has_stopped(virtual_beamline.pid):
            assert time.monotonic() < end
            time.sleep(0.005)
        connected_pv.get_all_metadata_callback(answer, timeout=0.2)
        assert asked_again.wait(20)
        assert not answered.is_set()
    finally:
        os.kill(virtual_beamline.pid, signal.SIGCONT)
    assert answered.wait(20)
    assert found["gp:m2.HLM"]["units"] == "degrees"
