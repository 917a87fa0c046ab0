"""Fixtures that give tests a real IOC process; ``pytest_plugins = ["virtual_beamline.pytest_plugin"]`` in conftest.py.

The ports are leased, and the environment of Channel Access is set, before any test module can import ophyd: a CA
context reads its environment once per process. Each worker of pytest-xdist has a beamline of its own, whose area
detector is started when the first test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from virtual_beamline import supervisor
from virtual_beamline.names import AREA_DETECTOR_PREFIX
from virtual_beamline.supervisor import PortLease, RunningAreaDetector, RunningBeamline

_lease_key = pytest.StashKey[PortLease]()
_id_key = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Lease ports and point this process at them."""
    distributes = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if distributes:  # the tests run in the workers
        return
    config.stash[_lease_key] = lease = supervisor.lease_ports()
    config.stash[_id_key] = beamline_id = supervisor.new_id()
    lease.environment(beamline_id).apply()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give the ports back."""
    lease = config.stash.get(_lease_key, None)
    if lease is not None:
        lease.release()


@pytest.fixture(scope="session")
def virtual_beamline(request: pytest.FixtureRequest) -> Iterator[RunningBeamline]:
    """The beamline ``gp:`` of this test process; it answers, and is the one that the environment names; seed 1."""
    stash = request.config.stash
    beamline = supervisor.start(lease=stash[_lease_key], beamline_id=stash[_id_key], seed=1)
    beamline.wait_ready()
    yield beamline
    beamline.stop()


@pytest.fixture(scope="session")
def area_detector(request: pytest.FixtureRequest) -> Iterator[RunningAreaDetector]:
    """The area detector `ad:` of this test process's beamline; it answers. `gp:` need not run, and dithers nothing."""
    stash = request.config.stash
    ioc = supervisor.start_area_detector(stash[_id_key], AREA_DETECTOR_PREFIX, stash[_lease_key], seed=1)
    ioc.wait_ready()
    yield ioc
    ioc.stop()


@pytest.fixture
def fresh_beamline() -> Iterator[Callable[..., RunningBeamline]]:
    """A factory of beamlines of the test's own; arguments as for :func:`virtual_beamline.supervisor.start`.

    They are on other ports than this process looks at: reach them from a subprocess with their ``environment``, or
    with :func:`virtual_beamline.client.read_text`.
    """
    made: list[RunningBeamline] = []

    def make(**arguments: object) -> RunningBeamline:
        beamline = supervisor.start(**arguments)  # type: ignore[arg-type]  (passed through)
        made.append(beamline)
        beamline.wait_ready()
        return beamline

    yield make
    for beamline in made:
        beamline.stop()
