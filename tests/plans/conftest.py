"""A bench of guarded devices, and an engine that runs plans with them."""

from types import SimpleNamespace

import pytest


@pytest.fixture
def bench():
    """Guarded devices, an engine that returns what plans return, and what it executed."""
    # Not above: what imports ophyd before the ports are leased would look at other ones.
    from bluesky import RunEngine
    from ophyd import Signal
    from ophyd.sim import SynAxis, SynGauss

    from tests.plans.spy import Guard, guarded

    guard = Guard()
    motor = guarded(SynAxis, guard)(name="m1")
    noisy = guarded(SynGauss, guard)("noisy", motor, "m1", center=0.3, Imax=1000, sigma=0.2, noise="uniform")
    noisy.noise_multiplier.put(10)
    inputs = {letter: SimpleNamespace(input_value=guarded(Signal, guard)(name=letter, value=0.0)) for letter in "ABCDE"}
    engine = RunEngine({}, context_managers=[], call_returns_result=True)
    messages = []
    engine.msg_hook = messages.append
    guard.watch(engine)
    starts = []
    engine.subscribe(lambda _name, doc: starts.append(doc), "start")
    return SimpleNamespace(
        motor=motor,
        noisy=noisy,
        calc=SimpleNamespace(channels=SimpleNamespace(**inputs), name="calc1"),
        run=lambda plan: engine(plan).plan_result,
        messages=messages,
        starts=starts,
        guard=guard,
    )
