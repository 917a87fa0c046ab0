"""A device that nobody serves: named at start, named when used, and in nobody's way otherwise."""

import re

import pytest

from tests.faults.session import Session, run_shown, write_config

DEVICES = """
instrument.devices.motors.Motor:
  - {name: dcm, prefix: "nobody:m1", labels: [motor], baseline: true}
ophyd.EpicsSignalRO:
  - {name: ring_current, read_pv: "nobody:current"}
ophyd.EpicsSignal:
  - {name: attenuation, read_pv: "nobody:attenuation"}
"""
DCM = "dcm is offline: no answer from nobody:m1.RBV (prefix nobody:m1)"
ATTENUATION = "attenuation is offline: no answer from nobody:attenuation"
RING = "ring_current is offline: no answer from nobody:current"


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    directory = tmp_path_factory.mktemp("offline")
    config = write_config(directory, "connection_timeout: 2.0", DEVICES)
    with Session(directory, arguments=("--config", str(config))) as session:
        yield session


def test_the_start_names_it(session):
    last = session.startup.strip().splitlines()[-1]
    assert re.search(
        r" - 28 devices, \d offline: (adsimdet, )?dcm, ring_current, attenuation(, 1 connecting: adsimdet)?; ready in ",
        last,
    )
    states = [line.split() for line in session.run("devices()").splitlines()]
    assert [line[0] for line in states if "offline" in line] == ["dcm", "ring_current", "attenuation"]


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("dcm.move(3)", DCM),
        ("dcm.position", DCM),
        ("dcm.velocity.get()", DCM),
        ("dcm.user_setpoint.put(3)", DCM),
        ("%mov dcm 3", DCM),
        ("RE(bps.mv(dcm, 3))", DCM),
        ("RE(bps.mv(m2, 5, dcm, 3))", DCM),
        ("RE(bp.scan([noisy], dcm, 0, 1, 3))", DCM),
        ("RE(bp.count([noisy, dcm]))", DCM),
        ("listdevice(dcm)", DCM),
        ("ring_current.get()", RING),
        ("RE(bp.count([ring_current]))", RING),
    ],
)
def test_its_use_is_one_line_at_once(session, command, line):
    assert session.shows(command, timeout=10).splitlines()[-1] == line
    session.until_pv("gp:m2.DMOV", "1")


@pytest.mark.parametrize(
    "command",
    [
        *("mv dcm 1", "umv dcm 1", "mvr dcm 1", "umvr dcm 1", "tw dcm", "set_lm dcm 0 1", "set_user dcm 1"),
        *(
            "set_dial dcm 1",
            "dscan dcm 0 1 2 0.1",
            "lup noisy dcm 0 1 5",
            "lineup2 noisy dcm 0 1",
            "save_position x dcm",
        ),
    ],
)
def test_each_command_tells_it_in_one_line_at_once(session, command):
    assert session.shows(command, timeout=10) == DCM


@pytest.mark.parametrize(
    "command",
    [
        *("ascan dcm 0 1 2 0.1", "mesh m2 0 1 2 dcm 0 1 2 0.1", "lookupscan dcm [0,1]", "ct detectors=dcm"),
        *("timescan 0.1 0 2 detectors=[noisy,dcm]", "ascan m2 0 9 2 detectors=dcm", "estimate(ascan(dcm, 0, 1, 2))"),
    ],
)
def test_a_dry_run_tells_it_before_anything_moves(session, command):
    name = re.split(r"[ (]", command.removeprefix("estimate("))[0]
    assert session.shows(command, timeout=10) == f"{name}: {DCM}; nothing moved"
    assert session.pv("gp:m2.DMOV") == "1"


PLAIN_SIGNAL = {
    "mv m2 9 attenuation 1": ATTENUATION,
    "umv m2 9 attenuation 1": ATTENUATION,
    "mvr m2 9 attenuation 1": ATTENUATION,
    "a2scan m2 8 9 attenuation 0 1 2": f"a2scan: {ATTENUATION}; nothing moved",
    "ascan m2 8 9 2 detectors=attenuation": f"ascan: {ATTENUATION}; nothing moved",
    "two_pass_scan motor=m2 detector=ring_current": f"two_pass_scan, first scan: {RING}; nothing moved",
    "estimate(mv(m2, 9, attenuation, 1))": f"mv: {ATTENUATION}; nothing moved",
}


def test_a_signal_that_is_no_device_is_told_before_anything_moves(session):
    number = session.scan_id
    session.run("moved = []; RE.msg_hook = lambda msg: moved.append(msg.obj.name) if msg.command == 'set' else None")
    assert {command: session.shows(command, timeout=10) for command in PLAIN_SIGNAL} == PLAIN_SIGNAL
    assert session.value("moved") == []
    assert session.scan_id == number
    session.run("RE.msg_hook = None")


def test_it_prints_nothing_else(session):
    assert session.shows("RE(bps.mv(dcm, 3))") == DCM
    assert session.shows("dcm.position") == DCM
    assert session.shows("RE(bp.count([ring_current]))") == RING


def test_scans_without_it_work_and_have_a_baseline(session):
    session.check_next_scan()
    baseline = session.value("sorted(name for name in cat[-1].baseline.read() if name in ('m1', 'm16', 'dcm'))")
    assert baseline == ["m1", "m16"]


def test_looking_at_everything_does_not_hang_on_it(session):
    rows = [line.split() for line in session.run("%wa motor").splitlines()]
    assert ["dcm", "OfflineError"] in rows
    assert ["m16", "0.0", "-32000.0", "32000.0", "0.0"] in rows
    number = session.scan_id + 1
    assert session.shows("RE(bp.count([noisy]))").startswith(run_shown(number, "count", ["noisy"], [[]]))
    assert session.exit() == 0
