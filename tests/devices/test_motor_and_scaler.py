"""Motors and scalers: what differs from ophyd's classes."""

from __future__ import annotations

import logging
import math
import threading

import bluesky.plans as bp
import ophyd
import pytest
from bluesky import RunEngine
from ophyd import Component, EpicsSignal
from ophyd.scaler import ScalerCH
from ophyd.signal import ReadTimeoutError
from ophyd.utils import LimitError

from instrument.config import UserError
from instrument.devices import offline
from instrument.devices.errors import MoveEndedError
from instrument.devices.health import Health
from instrument.devices.motors import Motor
from instrument.devices.scaler import Scaler
from instrument.plans import preflight
from instrument.plans.moves import mv

from .conftest import DEADLINE, wait_until


@pytest.fixture(scope="module", autouse=True)
def as_found(devices):
    """Speeds and the preset time are left as they were."""
    signals = [devices["m5"].velocity, devices["m7"].velocity, devices["scaler1"].preset_time]
    kept = [signal.get(use_monitor=False) for signal in signals]
    yield
    for signal, value in zip(signals, kept, strict=True):
        signal.put(value, use_complete=True)


@pytest.mark.parametrize("target", [40_000, -1e9, math.nan, "far", None])
def test_a_target_outside_of_the_limits_is_refused(devices, target):
    m5 = devices["m5"]
    before = m5.user_setpoint.get(use_monitor=False)
    with pytest.raises(UserError, match=r"^m5: ") as caught:
        m5.move(target)
    assert isinstance(caught.value, LimitError)
    assert m5.user_setpoint.get(use_monitor=False) == before


def test_the_refusal_names_motor_limits_and_units(devices):
    with pytest.raises(UserError) as caught:
        devices["m5"].set(40_000)
    assert str(caught.value) == ("m5: 40000 degrees is outside of its limits -32000 to 32000 degrees; it was not moved")


def test_the_limits_that_hold_are_those_of_the_motor_now(devices):
    """ophyd's setpoint keeps those from before, now and then, when both are set at once: here it does."""
    m5 = devices["m5"]
    m5.user_setpoint._metadata.update(lower_ctrl_limit=-0.1, upper_ctrl_limit=0.1)
    m5.move(0.5, timeout=DEADLINE)
    assert math.isclose(m5.position, 0.5, abs_tol=0.005)


def test_a_motor_moves_as_ophyds_does(devices):
    m5 = devices["m5"]
    m5.velocity.put(10)
    m5.move(0.25, timeout=DEADLINE)
    assert math.isclose(m5.position, 0.25, abs_tol=0.005)
    assert not m5.moving


def test_a_new_target_redirects_and_is_not_stopped_by_the_move_before(devices):
    m7 = devices["m7"]
    m7.velocity.put(10)
    for target in (0.5, -0.5):
        first = m7.move(100, wait=False)
        wait_until(lambda: m7.moving, "it moves")
        m7.move(target, timeout=DEADLINE)
        with pytest.raises(MoveEndedError, match=f"^m7: another move, to {target}, took the place of this one$"):
            first.wait(DEADLINE)
        assert math.isclose(m7.position, target, abs_tol=0.005)


def test_a_move_that_ends_in_alarm_fails_and_tells_why(devices):
    """Each motor's: of 16, the end of some moves is told before the alarm, by base's queues of 36 monitors."""
    for number in range(1, 17):
        motor = devices[f"m{number}"]
        before = motor.position
        servo = EpicsSignal(f"{motor.prefix}.CNEN", name="servo")
        servo.wait_for_connection(timeout=DEADLINE)
        servo.put(0, wait=True)
        try:
            with pytest.raises(MoveEndedError, match=f"^m{number}: the move ended at .*, in alarm: MAJOR STATE$"):
                motor.move(before + 1, timeout=DEADLINE)
        finally:
            servo.put(1, wait=True)
            servo.destroy()
        assert motor.position == before
        wait_until(lambda: not motor.user_readback.alarm_severity, "the alarm is over")  # noqa: B023
        motor.move(before, timeout=DEADLINE)


def test_a_move_ends_when_a_limit_switch_does_not_answer(devices, monkeypatch):
    m7 = devices["m7"]
    monkeypatch.setattr(m7.low_limit_switch, "get", unanswered)
    monkeypatch.setattr(m7.high_limit_switch, "get", unanswered)
    why = r"^m7: the move ended at .*, but a limit switch does not answer \(no answer\)$"
    with pytest.raises(MoveEndedError, match=why):
        m7.move(m7.position + 0.1, timeout=DEADLINE)
    monkeypatch.undo()
    m7.move(0, timeout=DEADLINE)


def unanswered(**_kwargs):
    raise ReadTimeoutError("no answer")


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_homing_takes_the_place_of_a_move(devices, direction):
    m7 = devices["m7"]
    move = m7.move(100, wait=False)
    wait_until(lambda: m7.moving, "it moves")
    home = m7.home(direction, wait=False)
    with pytest.raises(MoveEndedError, match=r"^m7: homing took the place of this move$"):
        move.wait(DEADLINE)
    home.wait(DEADLINE)
    assert math.isclose(m7.position, 0, abs_tol=0.005)


@pytest.fixture
def stopped(devices):
    """Stop m7 amid a move, and return it."""

    def stop():
        m7 = devices["m7"]
        first = m7.move(100, wait=False)
        wait_until(lambda: m7.moving, "it moves")
        m7.stop()
        with pytest.raises(MoveEndedError, match=r"^m7: was stopped$"):
            first.wait(DEADLINE)
        wait_until(lambda: not m7.moving, "it stands")
        return m7

    return stop


def test_a_stopped_motor_can_be_moved_again(stopped):
    m7 = stopped()
    m7.move(1, timeout=DEADLINE)
    assert math.isclose(m7.position, 1, abs_tol=0.005)


@pytest.fixture
def late_monitors():
    """What monitors say is kept back until it is set, as on a busy machine."""
    release = threading.Event()
    ophyd.get_cl().get_dispatcher().threads["monitor"].queue.put((release.wait, (DEADLINE,), {}))
    yield release
    release.set()


def test_a_move_does_not_end_with_the_end_of_the_one_before_that_is_told_late(stopped, late_monitors):
    m7 = stopped()
    second = m7.move(5, wait=False)
    late_monitors.set()
    second.wait(DEADLINE)
    assert math.isclose(m7.position, 5, abs_tol=0.005)


def test_a_motor_is_connected_when_it_knows_where_it_is(late_monitors):
    motor = Motor("gp:m6", name="motor")
    health = Health({"motor": motor}, DEADLINE, core=["motor"])
    connecting = threading.Thread(target=health.connect_all)
    connecting.start()
    signals = [getattr(motor, name) for name in motor.component_names if not motor._sig_attrs[name].lazy]
    wait_until(lambda: all(signal.connected for signal in signals), "its PVs answer")
    connecting.join(0.1)
    assert health.names("connecting") == ["motor"]
    late_monitors.set()
    connecting.join(DEADLINE)
    assert health.names("connected") == ["motor"]
    assert math.isclose(motor.position, motor.user_readback.get(use_monitor=False), abs_tol=0.005)
    motor.destroy()


@pytest.mark.parametrize("kind", [Motor, ophyd.EpicsMotor])
def test_a_motor_that_missed_its_first_values_is_told_them(kind):
    motor = kind("gp:m6", name="motor")
    health = Health({"motor": motor}, DEADLINE, core=["motor"])
    health.connect_all()
    # As ophyd leaves it where the value came first; of its own class it says so.
    motor._position, motor._required_for_connection = None, dict(kind._required_for_connection)
    wait_until(lambda: offline.answers(motor), "it knows where it is")
    assert motor.position == motor.user_readback.get(use_monitor=False)
    motor.destroy()


@pytest.mark.parametrize("kind", [Motor, ophyd.EpicsMotor])
def test_a_scan_is_not_refused_for_a_motor_that_has_yet_to_hear_its_first_values(kind):
    motor = kind("gp:m6", name="motor")
    motor.wait_for_connection(timeout=DEADLINE)
    here = motor.user_readback.get(use_monitor=False)
    # As ophyd leaves it where the value came first; a thread of ophyd's is about to tell it.
    motor._position, motor._required_for_connection = None, dict(kind._required_for_connection)
    assert preflight.asked("scan", bp.scan([], motor, here, here, 2)).points == 2
    motor.destroy()


def test_what_is_connected_at_first_use_can_be_set_at_once():
    """Its connection is told half a second later here, as on a busy machine."""
    motor = Motor("gp:m6", name="motor")
    motor.wait_for_connection(timeout=DEADLINE)
    release = threading.Event()
    ophyd.get_cl().get_dispatcher().threads["metadata"].queue.put((release.wait, (DEADLINE,), {}))
    timer = threading.Timer(0.5, release.set)
    timer.start()
    try:
        RunEngine({}, context_managers=[])(mv(motor.steps_per_revolution, 200))
    finally:
        release.set()
        timer.join()
    assert motor.steps_per_revolution.get(use_monitor=False) == 200
    motor.destroy()


class MotorWithAFieldTooMany(Motor):
    """Such as a soft motor whose record lacks a field that others have."""

    extra = Component(EpicsSignal, ".NONE", kind="omitted", lazy=True)


def test_a_rarely_used_field_that_is_missing_does_not_take_the_motor_offline():
    motor = MotorWithAFieldTooMany("gp:m6", name="motor")
    told = []
    health = Health({"motor": motor}, DEADLINE, tell=told.append)
    health.connect_all()
    health.start()
    with pytest.raises(TimeoutError, match=r"gp:m6\.NONE"):
        motor.extra.get()
    motor.steps_per_revolution.get()
    motor.move(0.1, timeout=DEADLINE)
    health.require(motor)
    assert told == []
    assert health.names("connected") == ["motor"]
    health.stop()
    motor.destroy()


@pytest.fixture
def scaler(devices):
    yield devices["scaler1"]
    devices["scaler1"].select_channels(["timebase", "I0", "scint", "diode"])


def test_channels_go_by_their_epics_names(scaler):
    assert [scaler.channels.chan01.s.name, scaler.channels.chan02.s.name] == ["timebase", "I0"]
    assert list(scaler.read()) == ["timebase", "I0", "scint", "diode", "scaler1_time"]
    assert scaler.channels.chan02.s._ophyd_labels_ == {"channel", "counter"}


def test_all_named_channels_are_selected_as_by_ophyd(scaler):
    stock = ScalerCH("gp:scaler1", name="scaler1")
    stock.wait_for_connection(timeout=DEADLINE)
    for choice in (None, ["I0", "diode"], ["diode"]):
        stock.select_channels(choice)
        scaler.select_channels(choice)
        wait_until(lambda: scaler.connected, "chosen channels are connected")
        assert list(scaler.read()) == list(stock.read())
        assert sorted(scaler.read_configuration()) == sorted(stock.read_configuration())
        assert scaler.hints == stock.hints
    stock.destroy()


def test_an_unknown_channel_is_told_with_the_nearest_match(scaler):
    with pytest.raises(UserError, match=r"^scaler1: no channel is named 'timebas'; did you mean 'timebase'\?$"):
        scaler.select_channels(["timebas"])
    assert list(scaler.read()) == ["timebase", "I0", "scint", "diode", "scaler1_time"]  # unchanged


def test_a_channel_that_the_configuration_names_in_vain_is_told_and_left_out(caplog):
    scaler = Scaler("gp:scaler1", name="s", channels=["I0", "ionchamber"])
    scaler.wait_for_connection(timeout=DEADLINE)
    with caplog.at_level(logging.WARNING, "bluesky-session"):
        scaler.after_connection()
    assert "s: no channel is named ionchamber; its channels are timebase, I0, scint, diode" in caplog.text
    wait_until(lambda: scaler.connected, "channels are connected")
    assert list(scaler.read()) == ["I0", "s_time"]
    scaler.destroy()


def test_a_count_ends_at_its_preset(scaler):
    scaler.preset_time.put(0.2)
    scaler.trigger().wait(DEADLINE)
    assert math.isclose(scaler.time.get(), 0.2, rel_tol=0.5)
    assert scaler.count.get() == 0


def test_a_stop_ends_the_count_and_keeps_the_counts(scaler):
    scaler.preset_time.put(60)
    status = scaler.trigger()
    wait_until(lambda: scaler.channels.chan01.s.get() > 0, "it counts")
    scaler.stop()
    status.wait(DEADLINE)
    assert scaler.count.get() == 0
    assert scaler.channels.chan01.s.get() > 0
    scaler.preset_time.put(0.1)
