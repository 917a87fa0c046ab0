"""A bench of guarded devices, and an engine that runs plans with them."""

from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture
def bench():
    """Guarded devices, an engine that returns what plans return, and what it executed."""
    # Not above: what imports ophyd before the ports are leased would look at other ones.
    from bluesky import RunEngine
    from ophyd import Component, Signal
    from ophyd.sim import SynAxis, SynGauss

    from instrument.devices.area_detector import AreaDetector
    from tests.plans.spy import Guard, guarded

    guard = Guard()
    part = guarded(Signal, guard)

    class Motor(guarded(SynAxis, guard)):
        """With the fields of a motor record that plans write."""

        low_limit_travel = Component(part, value=-100.0, kind="omitted")
        high_limit_travel = Component(part, value=100.0, kind="omitted")
        set_use_switch = Component(part, value=0, kind="omitted")
        offset_freeze_switch = Component(part, value=0, kind="omitted")
        dial_setpoint = Component(part, value=0.0, kind="omitted")

    class Scaler(guarded(SynGauss, guard)):
        """Counts for a time."""

        preset_time = Component(part, value=1.0, kind="config")

    class Camera(guarded(SynGauss, guard)):
        """What plans use of an area detector; tests/plans/test_images.py has the real one."""

        plugin_names = ("hdf1", "stats1")
        frame_type = Component(part, value=0, kind="omitted")
        centroid_threshold = Component(part, value=1.0, kind="omitted")

        @property
        def cam(self):
            return self

        stats1 = cam

        keeping = AreaDetector.keeping

        def select_plugins(self, *names):
            pass

    motor, motor2 = Motor(name="m1"), Motor(name="m2")
    motor.user_setpoint = motor.setpoint
    noisy = guarded(SynGauss, guard)("noisy", motor, "m1", center=0.3, Imax=1000, sigma=0.2, noise="uniform")
    noisy.noise_multiplier.put(10)
    noisy.random_state = np.random.RandomState(1)
    inputs = {letter: SimpleNamespace(input_value=guarded(Signal, guard)(name=letter, value=0.0)) for letter in "ABCDE"}
    engine = RunEngine({}, context_managers=[], call_returns_result=True)
    messages = []
    engine.msg_hook = messages.append
    guard.watch(engine)
    starts = []
    engine.subscribe(lambda _name, doc: starts.append(doc), "start")
    yield SimpleNamespace(
        motor=motor,
        motor2=motor2,
        scaler=Scaler("counts", motor, "m1", center=0.3, Imax=1000, sigma=0.2),
        camera=Camera("camera", motor, "m1", center=0.3, Imax=1000, sigma=0.2),
        noisy=noisy,
        calc=SimpleNamespace(channels=SimpleNamespace(**inputs), name="calc1"),
        run=lambda plan: engine(plan).plan_result,
        messages=messages,
        starts=starts,
        guard=guard,
    )
    # An engine's event loop has three files open, and there are hundreds of tests.
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(60)
    engine.loop.close()
