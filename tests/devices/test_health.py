"""Devices that are offline: told by name, used in vain at once, followed until they come back.

The IOC is killed and started again, so each story runs in a process of its own, whose report the tests read.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STORY = """
import json, os, signal, sys, threading, time
from virtual_beamline import supervisor

lease, beamline_id = supervisor.lease_ports(), supervisor.new_id()
lease.environment(beamline_id).apply()

def start():
    running = supervisor.start(lease=lease, beamline_id=beamline_id)
    running.wait_ready()
    return running

def report(**facts):
    print(json.dumps(facts, default=str), flush=True)

def wait_until(condition, what, deadline=60):
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            report(failed=what)
            os._exit(1)
        time.sleep(0.005)

def attempt(text, **names):
    fastest = None
    for _ in range(3):  # a busy machine may halt us for a moment, hardly each time
        began = time.monotonic()
        try:
            result, failed = repr(eval(text, {**devices, **names})), False
        except Exception as error:
            result, failed = f"{type(error).__name__}: {error}", True
        took = time.monotonic() - began
        fastest = min(took, fastest or took)
        if not failed or took < 0.5:
            break
    return [result, fastest]

from bluesky import Msg
from instrument.config import load
from instrument.devices.health import Health
from instrument.devices import registry
from instrument.framework.first_metadata import collect_first_metadata

collect_first_metadata()  # as sessions do

def build(specs):  # without the camera, whose IOC no story needs
    return registry.build([spec for spec in specs if spec.name != "adsimdet"])
"""


def story(code: str, devices_yml: str | None = None, directory: Path | None = None) -> dict:
    """Run a story; gives all that it reports."""
    config = ""
    if devices_yml is not None and directory is not None:
        (directory / "iconfig.yml").write_text("")
        (directory / "devices.yml").write_text(textwrap.dedent(devices_yml))
        config = repr(str(directory))
    script = f"{STORY}\ndevices = None\nCONFIG = {config or None}\n{textwrap.dedent(code)}\nos._exit(0)\n"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=200, check=False, cwd=ROOT
    )
    assert run.returncode == 0, run.stdout + run.stderr
    facts: dict = {}
    for line in run.stdout.splitlines():
        facts |= json.loads(line)
    facts["stderr"] = run.stderr
    return facts


@pytest.fixture(scope="module")
def crash() -> dict:
    """All devices of the packaged configuration, while the IOC dies and comes back."""
    return story("""
        ioc = start()
        devices = build(load().devices)
        told, changes = [], []
        health = Health(devices, 20, on_change=lambda state: changes.append(state.line()), tell=told.append)
        health.connect_all()
        core = {name: state.state for name, state in health.states.items()}
        health.start()
        wait_until(lambda: not health.names("connecting"), "the others are connected")
        report(core=core, all=health.names("connected"), summary=health.summary(), first_told=list(told))

        m1, m2, scaler1, temperature = (devices[name] for name in ("m1", "m2", "scaler1", "temperature"))
        types = {name: type(device) for name, device in devices.items()}
        m1.velocity.put(1)
        scaler1.preset_time.put(60)
        temperature.max_change.put(0.01)
        statuses = {"move": m1.set(100), "count": scaler1.trigger(), "ramp": temperature.set(200)}
        wait_until(lambda: m1.moving, "it moves")
        os.kill(ioc.pid, signal.SIGKILL)
        killed = time.monotonic()
        ends = {}
        for name, status in statuses.items():
            try:
                status.wait(30)
                ends[name] = "success"
            except Exception as error:
                ends[name] = f"{type(error).__name__}: {error}"
        report(ends=ends, ended=time.monotonic() - killed)
        wait_until(lambda: told, "it is told")
        report(offline=health.names("offline"), told=list(told), offline_summary=health.summary())
        attempts = (
            "m1.move(1)", "m1.set(1)", "m1.position", "m1.limits", "m1.read()", "m1.velocity.get()",
            "m1.velocity.put(2)", "m1.steps_per_revolution.get()", "m1.stop()", "m1.summary()", "m1.trigger()",
            "scaler1.trigger()", "scaler1.channels.chan02.s.get()", "scaler1.select_channels()",
            "noisy.get()", "noisy.read()", "temperature.set(20)", "temperature.position",
            "calcs.calc8.calculation.get()", "gp_stats.uptime.get()",
        )
        report(attempts={text: attempt(text) for text in attempts})
        harmless = ("repr(m1)", "m1.connected", "m1.name", "m1.hints", "shutter.state")
        report(harmless={text: attempt(text) for text in harmless})
        report(required=attempt("require(m1.user_readback)", require=health.require))
        report(messages={
            "read": attempt("check(msg)", check=health.check_message, msg=Msg("read", m1)),
            "unstage": attempt("check(msg)", check=health.check_message, msg=Msg("unstage", m1)),
            "shutter": attempt("check(msg)", check=health.check_message, msg=Msg("set", devices["shutter"], "open")),
            "sleep": attempt("check(msg)", check=health.check_message, msg=Msg("sleep", None, 1)),
        })
        report(usable=[health.usable(m1), health.usable(devices["shutter"]), health.usable(object())])
        report(table=str(health.table()))

        told.clear()
        ioc = start()
        wait_until(lambda: not health.names("offline"), "all are back")
        wait_until(lambda: told, "it is told")
        report(back=list(told), same_types=all(type(devices[name]) is cls for name, cls in types.items()))
        m1.velocity.put(10)
        m1.move(0.5, timeout=30)
        scaler1.preset_time.put(0.1)
        scaler1.trigger().wait(30)
        temperature.max_change.put(50)
        temperature.scanning_rate.put(".1 second")
        temperature.set(30).wait(30)
        report(position=m1.position, counted=list(scaler1.read()), temperature=temperature.position)
        health.stop()
        ioc.stop()
    """)


def test_core_devices_are_waited_for_and_the_others_follow(crash):
    assert all(
        crash["core"][name] == "connected" for name in ("m1", "m16", "scaler1", "temperature", "noisy", "shutter")
    )
    assert len(crash["all"]) == 24
    assert crash["summary"] == "24 devices"
    assert crash["first_told"] == []


def test_a_crash_of_the_ioc_ends_what_waits_for_it_and_says_why(crash):
    assert crash["ends"] == {
        "move": "OfflineError: m1 is offline: no answer from gp:m1.RBV (prefix gp:m1)",
        "count": crash["ends"]["count"],
        "ramp": "OfflineError: temperature is offline: no answer from gp:userCalc8.B (prefix gp:userCalc8)",
    }
    assert crash["ends"]["count"].startswith("OfflineError: scaler1 is offline: no answer from gp:scaler1.")
    assert crash["ended"] < 20


def test_a_crash_of_the_ioc_is_told_in_one_line(crash):
    assert len(crash["offline"]) == 23  # all but the shutter, which has no PVs
    (line,) = crash["told"]
    assert line.startswith("23 devices are offline (")
    assert {"m1", "scaler1", "calcs"} <= set(line.replace("(", " ").replace(")", " ").replace(",", " ").split())
    assert crash["offline_summary"].startswith("24 devices, 23 offline: m1, m2")


def test_using_an_offline_device_fails_at_once_with_one_line(crash):
    for text, (result, took) in crash["attempts"].items():
        device = text.partition(".")[0]
        assert result.startswith(f"OfflineError: {device} is offline: no answer from gp:"), (text, result)
        assert took < 0.5, text
    assert crash["attempts"]["m1.position"][0].endswith("no answer from gp:m1.RBV (prefix gp:m1)")
    assert crash["attempts"]["noisy.get()"][0].endswith("no answer from gp:userCalc1")


def test_looking_at_an_offline_device_is_harmless(crash):
    assert crash["harmless"]["repr(m1)"][0].startswith("\"Motor(prefix='gp:m1'")
    assert [crash["harmless"][text][0] for text in ("m1.connected", "m1.name", "shutter.state")] == [
        "False",
        "'m1'",
        "'close'",
    ]
    assert "Error" not in crash["harmless"]["m1.hints"][0]


def test_a_plan_is_refused_what_it_cannot_use_and_nothing_else(crash):
    line = "OfflineError: m1 is offline: no answer from gp:m1.RBV (prefix gp:m1)"
    assert crash["required"][0] == line
    assert {name: result for name, (result, _) in crash["messages"].items()} == {
        "read": line,
        "unstage": "None",
        "shutter": "None",
        "sleep": "None",
    }
    assert crash["usable"] == [False, True, True]


def test_the_table_says_what_is_wrong(crash):
    rows = crash["table"].splitlines()
    assert "first dead PV" in rows[1]
    (row,) = [row for row in rows if row.startswith("m2 ")]
    assert "Motor" in row
    assert "offline" in row
    assert "gp:m2.RBV" in row


def test_devices_come_back_and_work(crash):
    assert all(" back" in line for line in crash["back"])
    assert crash["same_types"]
    assert crash["position"] == pytest.approx(0.5, abs=0.001)
    assert crash["counted"] == ["timebase", "I0", "scint", "diode", "scaler1_time"]
    assert crash["temperature"] == pytest.approx(30, abs=1)


def test_a_crash_prints_no_traceback(crash):
    assert "Traceback" not in crash["stderr"]


@pytest.fixture(scope="module")
def missing(tmp_path_factory) -> dict:
    """Stock classes, some on an IOC that does not exist; the other one is started late."""
    return story(
        """
        devices = build(load(CONFIG).devices)
        told = []
        health = Health(devices, 1.0, tell=told.append)
        began = time.monotonic()
        states = health.connect_all()
        report(took=time.monotonic() - began, states={name: s.state for name, s in states.items()}, none=list(told))
        health.start()
        report(summary=health.summary())
        attempts = ("late.move(1)", "late.position", "late.velocity.get()", "far.position", "weird.get()",
                    "counter.trigger()", "counter.read()")
        report(attempts={text: attempt(text) for text in attempts})
        ioc = start()
        wait_until(lambda: "late" in health.names("connected"), "the late IOC is found")
        wait_until(lambda: told, "it is told")
        report(back=list(told), position=attempt("late.position"), still=health.names("offline"))
        report(disabled=health.states["unused"].state)
        health.stop()
        ioc.stop()
        """,
        """\
        ophyd.EpicsMotor:
        - {name: far, prefix: "nowhere:m1"}
        ophyd.Signal:
        - {name: soft, value: 1}
        - {name: unused, enabled: false}
        ophyd.epics_motor.EpicsMotor:
        - {name: late, prefix: "gp:m1"}
        ophyd.EpicsSignal:
        - {name: weird, read_pv: "gp:m1.RBV", write_pv: "nowhere:x"}
        instrument.devices.scaler.Scaler:
        - {name: counter, prefix: "nowhere:scaler1"}
        """,
        tmp_path_factory.mktemp("missing"),
    )


def test_offline_devices_cost_no_more_than_the_deadline(missing):
    assert missing["states"] == {
        "far": "offline",
        "soft": "connected",
        "late": "offline",
        "weird": "offline",
        "counter": "offline",
        "unused": "disabled",
    }
    assert 1.0 <= missing["took"] < 3.0
    assert missing["none"] == []  # the start's summary tells them
    assert missing["summary"] == "6 devices, 4 offline: far, late, weird, counter, 1 disabled: unused"


def test_stock_classes_say_so_as_ours_do(missing):
    for text, (result, took) in missing["attempts"].items():
        device = text.partition(".")[0]
        assert result.startswith(f"OfflineError: {device} is offline: no answer from "), (text, result)
        assert took < 0.5, text
    assert missing["attempts"]["far.position"][0].endswith("no answer from nowhere:m1.RBV (prefix nowhere:m1)")


def test_an_ioc_that_is_started_late_is_found(missing):
    assert any("late is back" in line or "late" in line for line in missing["back"])
    assert missing["position"][0] == "0.0"
    assert missing["still"] == ["far", "weird", "counter"]


def test_a_lost_connection_is_not_taken_for_the_end_of_a_count():
    """Nobody follows the devices here: what Channel Access tells at once is told apart by the scaler itself."""
    facts = story("""
        from instrument.devices.scaler import Scaler
        ioc = start()
        scaler = Scaler("gp:scaler1", name="scaler1")
        scaler.wait_for_connection(timeout=20)
        scaler.preset_time.put(60)
        status = scaler.trigger()
        wait_until(lambda: scaler.count.get(), "it counts")
        os.kill(ioc.pid, signal.SIGKILL)
        devices = {}
        report(end=attempt("status.wait(30)", status=status)[0])
    """)
    assert facts["end"].startswith("OfflineError: scaler1 is offline: no answer from gp:scaler1.")


def test_devices_of_an_ioc_that_is_expected_have_time_and_others_have_not(tmp_path):
    facts = story(
        """
        devices = build(load(CONFIG).devices)
        told = []
        health = Health(devices, 0.2, core=set(), tell=told.append)
        health.expect("gp:", 60)
        health.connect_all()
        report(first=health.names("connecting"))
        health.start()
        wait_until(lambda: health.names("offline"), "the one is given up")
        report(then={name: s.state for name, s in health.states.items()})
        ioc = start()
        health.wait_for({"late", "print"})
        report(last=health.names("connected"), told=told)
        health.stop()
        ioc.stop()
        """,
        """\
        ophyd.EpicsMotor:
        - {name: far, prefix: "nowhere:m1"}
        - {name: late, prefix: "gp:m1"}
        """,
        tmp_path,
    )
    assert facts["first"] == ["far", "late"]
    assert facts["then"] == {"far": "offline", "late": "connecting"}
    assert facts["last"] == ["late"]
    assert not any("late" in line for line in facts["told"])


def test_a_component_that_is_about_to_be_connected_is_no_sign_of_an_offline_device():
    """ophyd marks a signal as connected a moment after its metadata came, later yet if its thread has much to do."""
    facts = story("""
        from ophyd.signal import EpicsSignalBase
        from instrument.devices import offline
        ioc = start()
        devices = build(load().devices)
        calcs, seen = devices["calcs"], []
        calcs.wait_for_connection(timeout=20)
        becomes_ready = EpicsSignalBase._set_event_if_ready

        def look(signal):
            between = all(signal._received_first_metadata.values()) and not signal.connected
            seen.append((between, offline.answers(calcs)))
            if between and threading.current_thread() is threading.main_thread():
                looked.set()
            becomes_ready(signal)

        looked, connects = threading.Event(), EpicsSignalBase._pv_connected
        EpicsSignalBase._set_event_if_ready = look
        calcs.calc2.calculation.wait_for_connection(timeout=20)
        report(soon=[answers for between, answers in seen if between])

        def connects_late(signal, **told):
            looked.wait(20)
            connects(signal, **told)

        looked.clear()
        seen.clear()
        EpicsSignalBase._pv_connected = connects_late
        calcs.calc3.calculation.wait_for_connection(timeout=20)
        report(late=[answers for between, answers in seen if between])
        os.kill(ioc.pid, signal.SIGKILL)
        wait_until(lambda: not calcs.calc2.calculation.connected, "it is lost")
        report(after=offline.answers(calcs))
    """)
    for moments in (facts["soon"], facts["late"]):
        assert moments
        assert all(moments)
    assert not facts["after"]


def test_a_pv_that_is_lost_just_when_it_is_to_be_asked_is_asked_when_it_is_back():
    facts = story("""
        from epics import ca
        from ophyd import EpicsSignal
        ioc, found, devices = start(), [], {}
        high = EpicsSignal("gp:m1.HLM", name="high")
        high.wait_for_connection(timeout=20)
        pv = high._read_pv
        kind = ca.promote_type(pv.chid, use_ctrl=True)
        os.kill(ioc.pid, signal.SIGKILL)
        wait_until(lambda: not high.connected, "it is lost")
        report(asked=[pv._ask(kind), attempt("pv.get_all_metadata_callback(print, timeout=1)", pv=pv)[0]])
        ioc = start()
        wait_until(lambda: high.connected, "it is back")
        pv.get_all_metadata_callback(lambda name, metadata: found.append(metadata), timeout=5)
        wait_until(lambda: found, "it answers")
        report(units=found[0]["units"])
        ioc.stop()
    """)
    assert facts["asked"] == [False, "None"]
    assert facts["units"] == "degrees"


def test_nothing_is_written_when_devices_are_made_and_connected():
    facts = story("""
        ioc = start()
        import epics.ca
        written = []
        put = epics.ca.put
        epics.ca.put = lambda chid, *args, **kwargs: written.append(epics.ca.name(chid)) or put(chid, *args, **kwargs)
        devices = build(load().devices)
        health = Health(devices, 20, core=set(devices))
        health.connect_all()
        before = list(written)
        devices["m1"].velocity.put(2)
        report(states=sorted({state.state for state in health.states.values()}), before=before, after=written)
        ioc.stop()
    """)
    assert facts["states"] == ["connected"]
    assert facts["before"] == []
    assert facts["after"] == ["gp:m1.VELO"]  # the spy sees what is written
