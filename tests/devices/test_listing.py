"""What `listdevice()` and `listobjects()` show; tests/reference has the printouts, whole, of a session."""

from __future__ import annotations

import re

import pytest

from instrument.config import UserError
from instrument.devices.listing import listdevice, listobjects


def test_the_steps_per_revolution_are_there_and_not_recorded(devices, capsys):
    devices["m1"].summary()
    assert "\nsteps_per_revolution EpicsSignal         ('m1_steps_per_revolution')\n" in capsys.readouterr().out
    assert devices["m1"].steps_per_revolution.get() == 2000
    assert devices["m2"].steps_per_revolution.get() == 200
    assert not any("steps" in key for key in {**devices["m1"].read(), **devices["m1"].read_configuration()})


def test_listdevice_takes_signals_and_shows_all_if_asked(devices, capsys):
    assert len(listdevice(devices["noisy"]).rows) == 1
    assert len(listdevice(devices["m3"], scope="full").rows) == len(devices["m3"].component_names)
    with pytest.raises(UserError, match="scope='epics' is neither 'read' nor 'full'"):
        listdevice(devices["m3"], scope="epics")


def test_listobjects_shows_every_device(devices, capsys):
    listobjects(devices)
    printed = capsys.readouterr().out
    assert re.search(r"^name +ophyd structure +EPICS PV +label\(s\)\s*$", printed, re.MULTILINE)
    assert re.search(r"^m1 +Motor +gp:m1 +motor\s*$", printed, re.MULTILINE)
    assert re.search(r"^noisy +EpicsSignalRO +gp:userCalc1 +detectors\s*$", printed, re.MULTILINE)
    assert re.search(r"^shutter +SimulatedShutter\s*$", printed, re.MULTILINE)
    assert len(printed.splitlines()) == len(devices) + 5
