"""A real IOC for each worker, and how `make test` shares the files among workers."""

import collections
import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.gate import FAILED_FILE, NOT_RUN, NOT_RUN_FILE

pytest_plugins = ["virtual_beamline.pytest_plugin"]

HERE = Path(__file__).parent

# The same examples each time, however long one takes: whether a gate is red does not depend on chance, nor on what else
# the machine does. `pytest --hypothesis-profile=default` looks for new ones.
settings.register_profile("gate", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gate")

# What begins last must not keep one worker busy while the others are done: these take half a minute and more each, and
# begin first. (xdist would begin with the files of the most tests; whole sessions are files of one or two.)
LONGEST = (
    "test_notebooks.py",
    "tiled/test_feeding.py",
    "docs/test_pages.py",
    "session/test_commands.py",
    "data/test_consumer_faults.py",
    "data/test_kill_session.py",
    "session/test_cheat_sheet.py",
    "plans/test_images.py",
    "plans/test_plans.py",
    "queueserver/test_queue.py",
    "queueserver/test_everywhere.py",
    "session/test_ways_to_start.py",
    "virtual_beamline/test_scaler.py",
    "virtual_beamline/test_motor.py",
    "virtual_beamline/test_process.py",
    "area_detector/test_served.py",
    "faults/test_ioc_dies.py",
    "faults/test_ctrl_c.py",
    "faults/test_nexus.py",
    "session/test_window.py",
    "faults/test_disk.py",
    "data/test_ship_process.py",
    "session/test_progress.py",
    "snapshot/test_restoring.py",
    "snapshot/test_taking.py",
    "snapshot/test_how_to.py",
    "test_run_engine_2015.py",
    "test_import_purity.py",
    "test_faults_page.py",
    "reference/test_databroker.py",
    "faults/test_two_sessions.py",
)
FIRST_TOGETHER = HERE / "tiled/test_feeding.py"
RANKS = {HERE / name: rank for rank, name in enumerate(LONGEST)}
assert all(path.exists() for path in RANKS), [str(path) for path in RANKS if not path.exists()]

# Files of one worker: they have its Tiled servers together, of which each takes seconds to start.
ONE_WORKER = "tests/tiled/"
# Tests of half a minute and more that share nothing with others of their file: each may go to any worker.
BY_THEMSELVES = "tests/docs/test_pages.py::test_what_a_page_tells_to_type_shows_what_it_says"


def pytest_collection_modifyitems(items):
    """Begin with what takes longest."""
    items.sort(key=lambda item: RANKS.get(item.path, RANKS[FIRST_TOGETHER] if _together(item) else len(RANKS)))


def _together(item):
    return item.nodeid.startswith(ONE_WORKER)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give out files as `--dist loadfile` does, in the order of collection."""
    from xdist.scheduler import LoadFileScheduling

    if config.getoption("dist") != "loadfile":
        return None

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            if nodeid.startswith(ONE_WORKER):
                return ONE_WORKER
            return nodeid if nodeid.startswith(BY_THEMSELVES) else super()._split_scope(nodeid)

    config.option.loadscopereorder = False
    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Bring the sessions of a test that failed back to their prompts: the tests after it have their own chance."""
    report = yield
    if report.failed:
        from tests.terminal import Terminal

        for value in list(item.funcargs.values()):
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, Terminal):
                    with contextlib.suppress(Exception):  # it has ended, or nothing helps
                        one.recover()
    return report


@pytest.fixture
def patient_ophyd(monkeypatch):
    """Signals of stock classes connect at first use, and have more than ophyd's second: the machine may be busy."""
    from ophyd.signal import EpicsSignalBase

    for what in ("connection_timeout", "timeout"):
        monkeypatch.setattr(EpicsSignalBase, f"_EpicsSignalBase__default_{what}", 30.0)


def pytest_terminal_summary(terminalreporter, config):
    """What was NOT RUN, by reason, and what failed, for tests.gate; and how long the notebooks took in all."""
    reasons = [str(report.longrepr[2]) for report in terminalreporter.getreports("skipped")]
    not_run = collections.Counter(
        reason.removeprefix("Skipped: ") for reason in reasons if reason.removeprefix("Skipped: ").startswith(NOT_RUN)
    )
    lines = [f"{reason}: {count} test{'s'[: count > 1]}" for reason, count in sorted(not_run.items())]
    if place := os.environ.get(NOT_RUN_FILE):
        Path(place).write_text("".join(f"{line}\n" for line in lines))
    if place := os.environ.get(FAILED_FILE):
        failed = {report.nodeid for kind in ("failed", "error") for report in terminalreporter.getreports(kind)}
        Path(place).write_text("".join(f"{name}\n" for name in sorted(failed)))
    took = [
        report.duration
        for report in terminalreporter.getreports("passed")
        if "::test_a_notebook_runs[" in report.nodeid
    ]
    if took:
        terminalreporter.write_line(f"{len(took)} notebooks ran in {sum(took) / 60:.1f} min (of 15)")
