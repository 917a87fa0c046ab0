"""A device that is offline is left out of the baseline; it never fails a run that does not use it."""

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from ophyd.sim import det, motor1, motor2

from instrument.framework.baseline import SupplementalData
from instrument.framework.engine import RunEngine


@pytest.fixture
def world():
    offline = set()
    documents = []
    engine = RunEngine({}, journal=lambda name, doc: documents.append((name, doc)))
    engine.preprocessors.append(
        SupplementalData(baseline=[motor1, motor2], usable=lambda device: device.name not in offline)
    )
    return engine, documents, offline


def baseline_keys(documents):
    return [set(doc["data_keys"]) for name, doc in documents if name == "descriptor" and doc["name"] == "baseline"]


def test_the_baseline_is_read_at_start_and_end(world):
    engine, documents, _ = world
    engine(bp.count([det]))
    assert documents[-1][1]["num_events"] == {"baseline": 2, "primary": 1}


def test_an_offline_device_is_left_out(world):
    engine, documents, offline = world
    offline.add("motor1")
    engine(bp.count([det]))
    (keys,) = baseline_keys(documents)
    assert "motor2" in keys
    assert "motor1" not in keys
    assert documents[-1][1]["num_events"]["baseline"] == 2


def test_a_device_that_goes_offline_during_the_run_does_not_fail_it(world):
    engine, documents, offline = world

    @bpp.run_decorator()
    def plan():
        yield from bps.trigger_and_read([det])
        offline.add("motor1")

    engine(plan())
    assert documents[-1][1]["exit_status"] == "success"
    assert documents[-1][1]["num_events"] == {"baseline": 1, "primary": 1}


def test_runs_inside_one_another_have_their_own_baselines(world):
    engine, documents, _ = world

    @bpp.set_run_key_decorator("inner")
    @bpp.run_decorator()
    def inner():
        yield from bps.trigger_and_read([det])

    @bpp.set_run_key_decorator("outer")
    @bpp.run_decorator()
    def outer():
        yield from inner()

    engine(outer())
    assert [doc["num_events"].get("baseline") for name, doc in documents if name == "stop"] == [2, 2]
