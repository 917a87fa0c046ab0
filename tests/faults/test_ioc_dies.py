"""The IOC ends in the midst of something: told by name, nothing lost, and start_beamline() brings everything back."""

import os
import re
import signal

import pytest

from tests.faults.session import Session, masked, run_shown
from tests.faults_page import fault
from virtual_beamline.client import read_text

ENDED = (
    "the virtual beamline (pid <pid>) ended with signal SIGKILL: its devices are offline; "
    "start_beamline() starts it again"
)
MOTORS = ", ".join(f"m{number}" for number in range(1, 17))
DEVICES = f"{MOTORS}, scaler1, temperature, noisy, ring, calcs, calcouts, gp_stats"
OFFLINE = f"23 devices are offline ({DEVICES}): no answer from gp:m1.RBV (prefix gp:m1)"
NO_BASELINE = "W <time> - no baseline at the end of this run: <devices> went offline"
STARTED = r"virtual beamline started \(pid \d+\); its devices are back within some 10 s\r\n"
TOLD = (r"start_beamline\(\) starts it again\r\n", r"23 devices are offline[^\n]*\r\n", r"In \[\d+\]: ")


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    with Session(tmp_path_factory.mktemp("ioc")) as session:
        yield session


def hide_chance(text):
    """Which of its PVs a device misses first is chance, and which devices are known to be gone when the run ends."""
    text = re.sub(r"(?<=end of this run: )m[\w, ]+(?= went offline)", "<devices>", text)
    return re.sub(r"(?<=no answer from gp:scaler1)\.\w+", ".<field>", text)


def restart(session):
    """All devices are back when the command returns; the lines that tell it may come a little later."""

    def all_told(shown):
        back = re.findall(r"(\d+) devices are back|\w+ (is) back", shown)
        return sum(int(number or 1) for number, _ in back) == 23

    session.process.sendline("start_beamline()")
    shown = session.shows_until(STARTED, r"In \[\d+\]: ", all_told)
    assert [line for line in shown.splitlines() if not re.match(r"\d+ devices are back \(|\w+ is back", line)] == [
        "start_beamline()",
        "virtual beamline started (pid <pid>); its devices are back within some 10 s",
    ]
    assert session.value("[name for name, device in oregistry.items() if not device.connected]") == []


def test_the_area_detectors_ioc_is_named_and_the_other_one_goes_on(session):
    session.run("RE(bp.count([adsimdet]))")  # which waits until it is there
    gone = session.beamline.area_detector
    os.kill(gone.pid, signal.SIGKILL)
    told = r"area detector ad: \(pid \d+\) ended with signal SIGKILL[^\n]*\r\n"
    offline = r"adsimdet is offline: no answer from ad:[^\n]*\r\n"
    assert "the virtual beamline (pid" not in session.shows_until(told, offline)
    session.check_next_scan()
    started = r"area detector ad: started \(pid \d+\); its devices are back within some 10 s\r\n"
    session.process.sendline("start_beamline()")
    session.shows_until(started, r"adsimdet is back", r"In \[\d+\]: ")
    beamline = session.beamline
    assert read_text("ad:BEAMLINE_ID", beamline.area_detector.address, timeout=10) == beamline.id
    assert beamline.area_detector.pid != gone.pid


@fault("The IOC is killed while a motor moves", "the run fails at once and names the device; it is recorded")
def test_in_a_move(session):
    number = session.scan_id + 1
    session.type("RE(bp.scan([noisy], m2, 0, 40, 3))")
    before = session.wait_for(r"\|         1 \|[^\n]*\n")
    session.until_moving()
    session.kill_ioc()
    shown = masked(before) + "\n" + session.shows_until(r"m2 is offline[^\n]*\r\n", *TOLD)
    fault = "m2 is offline: no answer from gp:m2.RBV (prefix gp:m2)"
    lines = run_shown(number, "scan", ["m2", "noisy"], [["0.00000"]]).splitlines()
    assert sorted(hide_chance(shown).splitlines()) == sorted([*lines, NO_BASELINE, fault, OFFLINE, ENDED])
    assert session.last_run() == (number, "fail", fault, 1)
    assert session.shows("RE(bps.mv(m2, 1))") == "m2 is offline: no answer from gp:m2.RBV (prefix gp:m2)"
    assert session.shows("m2.position") == "m2 is offline: no answer from gp:m2.RBV (prefix gp:m2)"
    restart(session)
    assert (session.pv("gp:m2.DMOV"), session.pv("gp:m2.MOVN"), session.pv("gp:m2.RBV")) == ("1", "0", "0.00000")
    session.check_next_scan()


@fault("The IOC is killed while a scaler counts", "the run fails at once and names the device; it is recorded")
def test_in_a_count(session):
    number = session.scan_id + 1
    session.type("RE(bp.count([noisy, scaler1], num=1000))")
    before = session.wait_for(r"\|         3 \|[^\n]*\n")
    session.until_pv("gp:scaler1.CNT", "Count")
    session.kill_ioc()
    shown = masked(before) + "\n" + session.shows_until(r"scaler1 is offline[^\n]*\r\n", *TOLD)
    points = shown.count("<I0>")
    assert points >= 3
    fault = "scaler1 is offline: no answer from gp:scaler1.<field> (prefix gp:scaler1)"
    lines = run_shown(number, "count", ["noisy", "timebase", "I0", "scint", "diode"], [[]] * points).splitlines()
    assert sorted(hide_chance(shown).splitlines()) == sorted([*lines, NO_BASELINE, fault, OFFLINE, ENDED])
    found = session.last_run()
    assert (found[:2], hide_chance(str(found[2])), found[3]) == ((number, "fail"), fault, points)
    restart(session)
    assert session.pv("gp:scaler1.CNT") == "Done"
    session.check_next_scan()


def test_between_runs(session):
    session.kill_ioc()
    shown = session.shows_until(*TOLD[:2])
    assert sorted(shown.splitlines()) == sorted([OFFLINE, ENDED])
    number = session.scan_id
    assert session.shows("RE(bp.scan([noisy], m2, 0, 1, 3))") == "noisy is offline: no answer from gp:userCalc1"
    assert session.value("len(cat)") == number
    restart(session)
    session.check_next_scan()
    assert session.shows("start_beamline()") == "the virtual beamline is running (pid <pid>)"
