"""Both IOCs as one beamline: started, listed and stopped together, one world, and the link that dithers the spot."""

import json
import os
import signal
import subprocess
import sys

import psutil

from tests.virtual_beamline.conftest import DEADLINE, wait_for
from virtual_beamline import supervisor
from virtual_beamline.client import read_text

COMMAND = [sys.executable, "-m", "virtual_beamline"]

# A client of a beamline of its own, for what needs both IOCs.
DITHER = """
import json, sys
import epics
from apstools.synApps import SwaitRecord, setup_random_number_swait
from tests.virtual_beamline.conftest import Client, wait_for
from virtual_beamline.physics import DITHER, World

gp, ad = Client("gp:"), Client("ad:")
center = World(7).spot.center
seen = {axis: set() for axis in "XY"}
def watch(axis):
    hear = lambda value, **_: seen[axis].add(value)
    return epics.PV(f"ad:cam1:PeakStart{axis}_RBV", auto_monitor=True, callback=hear)

pvs = [watch(axis) for axis in seen]
gp.put("userCalc9.SCAN", ".1 second")
gp.put("userCalc10.SCAN", ".1 second")
wait_for(lambda: all(len(values) > 4 for values in seen.values()), what="dither of both axes")
near = [max(abs(value - c) for value in seen[axis]) <= DITHER / 2 for axis, c in zip("XY", center, strict=True)]
calc10 = SwaitRecord("gp:userCalc10", name="calc10")
calc10.wait_for_connection(timeout=30)
setup_random_number_swait(calc10)
gp.wait("userCalc10.OUTN", "", text=True)
def x_moves():
    seen["X"].clear()
    wait_for(lambda: len(seen["X"]) > 3, what="dither of the other axis")

x_moves()  # so that what was on its way to the camera has come
settled = ad.get("cam1:PeakStartY_RBV")
x_moves()
random = 0 <= gp.get("userCalc10") <= 1
print(json.dumps({"near": near, "y": [settled, ad.get("cam1:PeakStartY_RBV")], "random": random}))
"""


def test_user_calcs_dither_the_spot_until_somebody_takes_one(fresh_beamline):
    beamline = fresh_beamline(area_detector="ad:", seed=7)
    beamline.area_detector.wait_ready()
    done = subprocess.run(
        [sys.executable, "-c", DITHER],
        env={**os.environ, **beamline.environment.variables, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["near"] == [True, True]
    assert found["y"][0] == found["y"][1]
    assert found["random"]


def test_both_are_one_beamline_and_one_world(fresh_beamline):
    beamline = fresh_beamline(area_detector="ad:")
    beamline.area_detector.wait_ready()
    assert read_text("ad:BEAMLINE_ID", beamline.area_detector.address, DEADLINE) == beamline.id
    seed = read_text("ad:SEED", beamline.area_detector.address, DEADLINE)
    assert read_text("gp:SEED", beamline.address, DEADLINE) == seed
    (found,) = [each for each in supervisor.running() if each.id == beamline.id]
    assert [(ioc.prefix, ioc.pid) for ioc in found.iocs] == [
        ("gp:", beamline.pid),
        ("ad:", beamline.area_detector.pid),
    ]
    status = subprocess.run([*COMMAND, "status"], check=True, capture_output=True, text=True).stdout
    assert [line.split()[1] for line in status.splitlines() if line.startswith(beamline.id)] == ["gp:", "ad:"]
    os.kill(beamline.pid, signal.SIGKILL)
    wait_for(lambda: found.poll() is not None)
    assert found.area_detector.poll() is None
    (left,) = [each for each in supervisor.running() if each.id == beamline.id]
    assert left.area_detector.pid == beamline.area_detector.pid
    done = subprocess.run([*COMMAND, "stop", beamline.id], check=True, capture_output=True, text=True)
    assert f"stopped {beamline.id}" in done.stderr
    assert wait_for(lambda: beamline.area_detector.poll() is not None)
    assert beamline.id not in {each.id for each in supervisor.running()}


def test_an_ioc_that_ended_is_started_again_in_the_same_world():
    lease = supervisor.lease_ports()
    beamline = supervisor.start(lease=lease, area_detector="ad:")
    try:
        for ioc in beamline.iocs:
            ioc.wait_ready()
        peak = read_text("ad:cam1:Gain_RBV", beamline.area_detector.address, DEADLINE)
        os.kill(beamline.area_detector.pid, signal.SIGKILL)
        wait_for(lambda: beamline.area_detector.poll() is not None)
        again = supervisor.start_again(beamline, lease)
        again.area_detector.wait_ready()
        assert (again.pid, again.poll()) == (beamline.pid, None)
        assert read_text("ad:cam1:Gain_RBV", again.area_detector.address, DEADLINE) == peak
    finally:
        beamline.stop()
        lease.release()


def test_start_list_and_run_know_both_and_can_do_without(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "VIRTUAL_"))}
    done = subprocess.run([*COMMAND, "list"], check=True, capture_output=True, text=True, env=environment)
    assert {"ad:cam1:Acquire", "gp:m1"} <= {line.split()[0] for line in done.stdout.splitlines()}
    process = subprocess.Popen(
        [*COMMAND, "run", "--area-detector", "cam:"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        line = next(line for line in process.stdout if "VIRTUAL_BEAMLINE" in line)
        beamline = supervisor.find(line.strip().split("=")[1])
        wait_for(lambda: supervisor.find(beamline.id).area_detector is not None)
        ioc = supervisor.find(beamline.id).area_detector
        ioc.wait_ready()
        assert ioc.prefix == "cam:"
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0
        wait_for(lambda: ioc.poll() is not None, what="end of the area detector with the foreground process")
    finally:
        process.kill()
        process.communicate()
    done = subprocess.run(
        [*COMMAND, "start", "--no-area-detector", "--log-dir", str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    beamline_id = done.stdout.strip().splitlines()[-1].split("=")[1]
    (found,) = [each for each in supervisor.running() if each.id == beamline_id]
    assert found.area_detector is None
    found.stop()


def test_it_serves_on_loopback_and_on_the_ports_of_its_lease_only(area_detector):
    first = area_detector.environment.ca_address[1]  # of `gp:`
    ca, pva, images = range(first + 4, first + 7)

    def sockets():
        return psutil.Process(area_detector.pid).net_connections("inet")

    def listening():
        return {s.laddr for s in sockets() if s.status == psutil.CONN_LISTEN}

    wait_for(lambda: len(listening()) > 2, what="the server of the images")  # which starts behind
    assert listening() == {("127.0.0.1", ca), ("127.0.0.1", pva), ("127.0.0.1", images)}
    # 224.0.0.128 is pvAccess's multicast on the loopback interface. p4p's server of the images hears searches from
    # everywhere, which no setting changes, and answers those that were sent to 127.0.0.1.
    searched = {s.laddr.ip for s in sockets() if s.laddr.port in {ca, pva}}
    assert searched == {"127.0.0.1", "224.0.0.128"}
