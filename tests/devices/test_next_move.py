"""A plan that begins the next move the moment it is told of the last one's end."""

import pytest
from ophyd.positioner import SoftPositioner

from instrument.devices.motors import Motor
from instrument.devices.scaler import Scaler
from instrument.devices.statuses import ForgetsFirst
from instrument.devices.temperature import TemperatureController


class Stage(ForgetsFirst, SoftPositioner):
    def _setup_move(self, position, status):
        """Move until `_done_moving` is called."""


def test_a_move_begun_while_the_last_one_ends_is_told_of_its_end_too():
    stage, begun = Stage(name="stage", init_pos=0.0), []
    first = stage.move(1.0, wait=False)
    # Called where ophyd's thread is when the plan's thread goes on: after the status has ended, before the cleaning up.
    stage._callbacks["_req_done"][-1] = lambda **_: begun.append(stage.move(2.0, wait=False))
    stage._done_moving(success=True)
    first.wait(10)
    stage._done_moving(success=True)
    begun[0].wait(10)
    assert begun[0].success


@pytest.mark.parametrize("device", [Motor, Scaler, TemperatureController])
def test_the_devices_that_plans_wait_for_forget_before_they_tell(device):
    assert device._run_subs is ForgetsFirst._run_subs
    assert device._reset_sub is ForgetsFirst._reset_sub
