"""The busy record, over Channel Access."""

import time

import pytest

from tests.virtual_beamline.conftest import wait_for


@pytest.fixture
def busy(gp):
    name = "mybusy2"
    yield name
    gp.put(f"{name}.HIGH", 0)
    gp.put(f"{name}.OMSL", "supervisory")
    for field, value in {
        "OUT": "",
        "DOL": "",
        "FLNK": "",
        "ZNAM": "Done",
        "ONAM": "Busy",
        "DTYP": "Soft Channel",
    }.items():
        gp.put(f"{name}.{field}", value)
    for field in ("OSV", "ZSV", "COSV", "IVOA", "IVOV"):
        gp.put(f"{name}.{field}", 0)
    gp.put(name, 0, wait=False)
    gp.wait(name, 0)


def test_completion_comes_when_val_goes_to_done_by_a_plain_put(gp, busy):
    done = gp.start_put(busy, "Busy")
    gp.wait(busy, 1)
    assert not done
    gp.put(busy, "Done", wait=False)
    wait_for(lambda: done)


def test_completion_of_done_is_immediate(gp, busy):
    assert gp.put(busy, "Done")


def test_high_ends_it_by_itself(gp, busy):
    gp.put(f"{busy}.HIGH", 0.3)
    started = time.monotonic()
    assert gp.put(busy, 1)
    assert time.monotonic() - started >= 0.3
    assert gp.get(busy) == 0


def test_the_forward_link_waits_too(gp, busy):
    gp.put("userCalc19.CALC", "VAL+1")
    before = gp.get("userCalc19")
    gp.put(f"{busy}.FLNK", f"{gp.prefix}userCalc19")
    done = gp.start_put(busy, 1)
    gp.wait(busy, 1)
    assert gp.get("userCalc19") == before
    gp.put(busy, 0, wait=False)
    wait_for(lambda: done)
    assert gp.get("userCalc19") == before + 1


def test_it_writes_its_output_and_follows_its_desired_value(gp, busy):
    gp.put(f"{busy}.OUT", f"{gp.prefix}gp:int19")
    gp.put("gp:int19", 0)
    gp.start_put(busy, 1)
    gp.wait("gp:int19", 1)
    gp.put(busy, 0, wait=False)
    gp.wait("gp:int19", 0)
    gp.put("gp:int18", 0)
    gp.put(f"{busy}.DOL", f"{gp.prefix}gp:int18")
    gp.put(f"{busy}.OMSL", "closed_loop")
    gp.put("gp:int18", 5)
    gp.start_put(f"{busy}.PROC", 1)
    gp.wait(busy, 1)
    gp.put("gp:int18", 0)
    gp.put(f"{busy}.PROC", 1, wait=False)
    gp.wait(busy, 0)


def test_the_raw_channel_writes_the_mask(gp, busy):
    gp.put(f"{busy}.OUT", f"{gp.prefix}gp:int17")
    gp.put(f"{busy}.DTYP", "Raw Soft Channel")
    gp.put(f"{busy}.HIGH", 0.1)
    gp.put(busy, 1)
    assert gp.get(f"{busy}.RVAL") == 0
    assert gp.get(f"{busy}.MASK") == 1


def test_states_have_names_and_severities(gp, busy):
    gp.put(f"{busy}.ONAM", "Moving")
    gp.put(f"{busy}.OSV", "MINOR")
    gp.start_put(busy, 1)
    gp.wait(busy, 1)
    assert gp.get(f"{busy}.SEVR", text=True) == "MINOR"
    assert gp.get(f"{busy}.STAT", text=True) == "STATE"
    assert gp.pv(busy).get_ctrlvars()["enum_strs"] == ("Done", "Moving")
    gp.put(busy, 0, wait=False)
    gp.wait(busy, 0)
    gp.wait(f"{busy}.SEVR", 0)


def test_an_invalid_state_follows_ivoa(gp, busy):
    gp.put("gp:int16", 7)
    gp.put(f"{busy}.OUT", f"{gp.prefix}gp:int16")
    gp.put(f"{busy}.ZSV", "INVALID")
    gp.put(f"{busy}.IVOA", "Don't drive outputs")
    gp.put(busy, 0)
    assert gp.get("gp:int16") == 7
    gp.put(f"{busy}.IVOA", "Continue normally")
    gp.put(busy, 0)
    assert gp.get("gp:int16") == 0
