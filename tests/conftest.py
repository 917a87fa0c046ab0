"""A real IOC for each worker, and how `make test` shares the files among workers."""

from pathlib import Path

import pytest

pytest_plugins = ["virtual_beamline.pytest_plugin"]

HERE = Path(__file__).parent

# What begins last must not keep one worker busy while the others are done: these take half a minute and more each, and
# begin first. (xdist would begin with the files of the most tests; whole sessions are files of one or two.)
LONGEST = (
    "tiled/test_feeding.py",
    "session/test_commands.py",
    "data/test_consumer_faults.py",
    "data/test_kill_session.py",
    "session/test_cheat_sheet.py",
    "plans/test_images.py",
    "plans/test_plans.py",
    "test_notebooks.py",
    "session/test_ways_to_start.py",
    "virtual_beamline/test_scaler.py",
    "virtual_beamline/test_motor.py",
    "virtual_beamline/test_process.py",
    "area_detector/test_served.py",
    "faults/test_ioc_dies.py",
    "faults/test_ctrl_c.py",
    "faults/test_nexus.py",
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
RANKS = {HERE / name: rank for rank, name in enumerate(LONGEST)}
assert all(path.exists() for path in RANKS), [str(path) for path in RANKS if not path.exists()]

# Files of one worker: they have its Tiled servers together, of which each takes seconds to start.
ONE_WORKER = "tests/tiled/"


def pytest_collection_modifyitems(items):
    """Begin with what takes longest."""
    items.sort(key=lambda item: RANKS.get(item.path, RANKS[HERE / LONGEST[0]] if _together(item) else len(RANKS)))


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
            return ONE_WORKER if nodeid.startswith(ONE_WORKER) else super()._split_scope(nodeid)

    config.option.loadscopereorder = False
    return Scheduling(config, log)
