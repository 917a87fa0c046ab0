"""Documents as a real RunEngine emits them."""

import pytest


@pytest.fixture
def run_engine():
    """bluesky's RunEngine, without Ctrl-C handling of its own."""
    from bluesky import RunEngine

    return RunEngine({}, context_managers=[])


@pytest.fixture
def record(run_engine):
    """Run a plan and give its documents, run by run."""

    def run(plan, **md):
        runs = []

        def take(name, doc):
            if name == "start":
                runs.append([])
            runs[-1].append((name, doc))

        token = run_engine.subscribe(take)
        try:
            run_engine(plan, **md)
        finally:
            run_engine.unsubscribe(token)
            run.runs = runs
        return runs[0] if len(runs) == 1 else runs

    return run
