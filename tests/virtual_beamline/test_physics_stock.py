"""Stock simulations of apstools, unmodified, on the simulated world's records."""

from __future__ import annotations

import pytest

from tests.virtual_beamline.conftest import DEADLINE, connected_motor, wait_for


@pytest.fixture
def controller(gp):
    """apstools' temperature controller on userCalc8, which is as it was afterwards."""
    from apstools.devices import SimulatedSwaitControllerPositioner

    from virtual_beamline.physics import temperature_fields

    device = SimulatedSwaitControllerPositioner("", name="controller", loop_pv=f"{gp.prefix}userCalc8")
    device.wait_for_connection(timeout=DEADLINE)
    yield device
    device.cleanup()
    gp.put("userCalc8.SCAN", "Passive")
    for field, value in temperature_fields(f"{gp.prefix}userCalc8").items():
        gp.put(f"userCalc8.{field}", value)


def test_the_records_are_set_up_as_the_stock_controller_sets_them_up(gp, controller):
    fields = ["CALC", "INAN", "SCAN", "PREC"]
    before = {field: gp.get(f"userCalc8.{field}", text=True) for field in fields}
    controller.setup(25, period="2 second", max_change=2)
    assert {field: gp.get(f"userCalc8.{field}", text=True) for field in fields} == before


def test_the_stock_controller_regulates(controller):
    controller.setup(25, noise=0.2, period=".1 second", max_change=2, tolerance=0.5)
    wait_for(lambda: abs(controller.position - 25) < 0.5)
    status = controller.set(35)
    assert not status.done
    status.wait(DEADLINE)
    assert controller.inposition
    assert abs(controller.position - 35) <= 0.5


def test_the_stock_controller_stops_and_holds(controller):
    controller.setup(25, noise=0.1, period=".1 second", max_change=0.5, tolerance=0.2)
    wait_for(lambda: abs(controller.position - 25) < 0.3)
    status = controller.set(100)
    wait_for(lambda: controller.position > 27)
    controller.stop()
    wait_for(lambda: status.done)
    held = controller.setpoint.get()
    assert 27 <= held < 90
    assert abs(controller.position - held) < 2


def test_any_readback_with_a_setpoint_makes_a_positioner(gp, controller):
    from apstools.devices import PVPositionerSoftDoneWithStop

    controller.setup(25, noise=0.1, period=".1 second", max_change=5, tolerance=0.2)
    positioner = PVPositionerSoftDoneWithStop(
        gp.prefix, name="temperature", readback_pv="userCalc8.VAL", setpoint_pv="userCalc8.B", tolerance=0.5
    )
    positioner.wait_for_connection(timeout=DEADLINE)
    positioner.move(30, timeout=DEADLINE)
    assert abs(positioner.position - 30) <= 0.5
    # The value that it has already ends at once.
    assert positioner.move(30, timeout=DEADLINE).success
    positioner.cleanup()


def test_the_stock_peak_is_the_one_that_the_beamline_serves(gp):
    from apstools.synApps import SwaitRecord, setup_lorentzian_swait
    from ophyd import EpicsMotor

    motor = connected_motor(EpicsMotor(f"{gp.prefix}m1", name="m1"))
    served = SwaitRecord(f"{gp.prefix}userCalc1", name="served")
    stock = SwaitRecord(f"{gp.prefix}userCalc2", name="stock")
    for device in (served, stock):
        device.wait_for_connection(timeout=DEADLINE)
    letters = {letter: getattr(served.channels, letter).input_value.get() for letter in "BCDE"}
    setup_lorentzian_swait(
        stock,
        motor.user_readback,
        center=letters["B"],
        width=letters["C"],
        scale=letters["D"],
        noise=letters["E"],
    )
    for field in ("CALC", "INAN", "SCAN", "B", "C", "D", "E"):
        assert gp.get(f"userCalc1.{field}", text=True) == gp.get(f"userCalc2.{field}", text=True)
    motor.velocity.put(20, wait=True)
    motor.move(round(letters["B"] + letters["C"], 3), timeout=20)
    expected = letters["D"] / 2
    for device in (served, stock):  # each follows the motor on its own
        wait_for(lambda device=device: device.calculated_value.get() == pytest.approx(expected, rel=0.15))
    assert served.calculated_value.get() == pytest.approx(stock.calculated_value.get(), rel=0.1)
    motor.move(0, timeout=20)
    motor.velocity.put(1, wait=True)
    stock.reset()
