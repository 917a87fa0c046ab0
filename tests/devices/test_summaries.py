"""The printouts of the reference: summary() of each device, listdevice(), listobjects()."""

from __future__ import annotations

import re
import textwrap

import pytest

from instrument.config import UserError
from instrument.devices.listing import listdevice, listobjects

from .conftest import DEADLINE

SCALER = """\
data keys (* hints)
-------------------
*I0
*diode
 scaler1_time
*scint
*timebase

read attrs
----------
channels             Channels            ('scaler1_channels')
channels.chan01      ScalerChannel       ('scaler1_channels_chan01')
channels.chan01.s    EpicsSignalRO       ('timebase')
channels.chan02      ScalerChannel       ('scaler1_channels_chan02')
channels.chan02.s    EpicsSignalRO       ('I0')
channels.chan03      ScalerChannel       ('scaler1_channels_chan03')
channels.chan03.s    EpicsSignalRO       ('scint')
channels.chan04      ScalerChannel       ('scaler1_channels_chan04')
channels.chan04.s    EpicsSignalRO       ('diode')
time                 EpicsSignal         ('scaler1_time')

config keys
-----------
scaler1_auto_count_delay
scaler1_auto_count_time
scaler1_channels_chan01_chname
scaler1_channels_chan01_gate
scaler1_channels_chan01_preset
scaler1_channels_chan02_chname
scaler1_channels_chan02_gate
scaler1_channels_chan02_preset
scaler1_channels_chan03_chname
"""  # the reference shows no more
TEMPERATURE = """\
data keys (* hints)
-------------------
 temperature_calculation
 temperature_description
 temperature_done
 temperature_max_change
 temperature_noise
 temperature_previous_value_pv
*temperature_readback
 temperature_scanning_rate
 temperature_setpoint
 temperature_tolerance

read attrs
----------
setpoint             EpicsSignal         ('temperature_setpoint')
readback             EpicsSignal         ('temperature_readback')
done                 Signal              ('temperature_done')
calculation          EpicsSignal         ('temperature_calculation')
description          EpicsSignal         ('temperature_description')
max_change           EpicsSignal         ('temperature_max_change')
noise                EpicsSignal         ('temperature_noise')
previous_value_pv    EpicsSignal         ('temperature_previous_value_pv')
scanning_rate        EpicsSignal         ('temperature_scanning_rate')
tolerance            EpicsSignal         ('temperature_tolerance')

config keys
-----------
"""
MOTOR = """\
data keys (* hints)
-------------------
*m1
 m1_user_setpoint

read attrs
----------
user_readback        EpicsSignalRO       ('m1')
user_setpoint        EpicsSignal         ('m1_user_setpoint')

config keys
-----------
m1_acceleration
m1_motor_egu
m1_user_offset
m1_user_offset_dir
m1_velocity

configuration attrs
-------------------
user_offset          EpicsSignal         ('m1_user_offset')
user_offset_dir      EpicsSignal         ('m1_user_offset_dir')
velocity             EpicsSignal         ('m1_velocity')
acceleration         EpicsSignal         ('m1_acceleration')
motor_egu            EpicsSignal         ('m1_motor_egu')

unused attrs
------------
offset_freeze_switch EpicsSignal         ('m1_offset_freeze_switch')
set_use_switch       EpicsSignal         ('m1_set_use_switch')
motor_is_moving      EpicsSignalRO       ('m1_motor_is_moving')
motor_done_move      EpicsSignalRO       ('m1_motor_done_move')
high_limit_switch    EpicsSignalRO       ('m1_high_limit_switch')
"""


@pytest.mark.parametrize(("name", "shown"), [("scaler1", SCALER), ("temperature", TEMPERATURE), ("m1", MOTOR)])
def test_summary_is_as_the_reference_prints_it(devices, capsys, name, shown):
    devices[name].summary()
    assert capsys.readouterr().out.startswith(shown)


def test_the_steps_per_revolution_are_there_and_not_recorded(devices, capsys):
    devices["m1"].summary()
    assert "\nsteps_per_revolution EpicsSignal         ('m1_steps_per_revolution')\n" in capsys.readouterr().out
    assert devices["m1"].steps_per_revolution.get() == 2000
    assert devices["m2"].steps_per_revolution.get() == 200
    assert not any("steps" in key for key in {**devices["m1"].read(), **devices["m1"].read_configuration()})


def test_listdevice_is_as_the_reference_prints_it(devices, capsys):
    devices["scaler1"].preset_time.put(0.1)
    devices["scaler1"].trigger().wait(DEADLINE)
    table = listdevice(devices["scaler1"])
    printed = capsys.readouterr().out
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}"
    assert re.fullmatch(
        textwrap.dedent(f"""\
        name         value +timestamp                \\s
        timebase     [\\d.]+ +{time}
        I0           [\\d.]+ +{time}
        scint        [\\d.]+ +{time}
        diode        [\\d.]+ +{time}
        scaler1_time [\\d.]+ +{time}

        """),
        printed,
    ), printed
    assert [row[0] for row in table.rows] == ["timebase", "I0", "scint", "diode", "scaler1_time"]


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
