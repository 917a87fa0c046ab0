"""Two sessions on two beamlines, at once, into one server over PostgreSQL: nothing lost, nothing mixed.

What comes out again is what the journals have, of the runs that were fed while they went on, too.
"""

import os
import subprocess
import sys

import pytest

from instrument import tiled_client
from instrument.framework.presence import SoleOwner
from instrument.framework.runfiles import DataDirectory, RunFile
from instrument.tiled.connection import Server as Connection
from instrument.tiled.export import export
from tests.faults.session import write_config
from tests.terminal import ROOT, clean_environment

from .servers import until

BEAMLINES = {"blue": "m1", "red": "m2"}
RUNS, POINTS = 3, 12
PLAN = """
from pathlib import Path
import bluesky.plan_stubs as bps
from bluesky.preprocessors import run_decorator

@run_decorator(md={"plan_name": "waits"})
def waits(detector, motor, points):
    for point in range(points):
        yield from bps.mv(motor, point / 100)
        yield from bps.trigger_and_read([detector, motor])
        while point == points // 2 and not Path("go").exists():
            yield from bps.sleep(0.05)
"""


class Beamline:
    """A working directory whose session feeds a catalog of its own."""

    def __init__(self, name, directory, server):
        self.name = name
        self.directory = directory
        self.data = DataDirectory(directory / ".data")
        directory.mkdir()
        (directory / "waiting.py").write_text(PLAN)
        key = directory / "tiled.key"
        key.touch(0o600)
        key.write_text(server.write_key)
        config = write_config(
            directory,
            f"metadata: {{beamline_id: {name}}}\n"
            f"tiled: {{feed: true, url: '{server.url}', key_file: {key}, catalog: {name}}}\nlive: {{plot: false}}",
        )
        self.session = subprocess.Popen(
            [sys.executable, "-m", "instrument.cli", "session", "--config", str(config)],
            cwd=directory,
            env=clean_environment(directory, PYTHONPATH=f"{ROOT}{os.pathsep}{directory}"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, line):
        self.session.stdin.write(f"{line}\n")
        self.session.stdin.close()

    def paths(self):
        return sorted(self.data.runs.glob("*/*/*.msgpack"))

    def end(self):
        if self.session.poll() is None:
            self.session.kill()
        self.session.wait()
        owner = SoleOwner(self.data.ship_lock).holder()
        if owner is not None:
            os.kill(owner.pid, 15)


@pytest.fixture
def beamlines(tmp_path, postgresql_server):
    made = [Beamline(name, tmp_path / name, postgresql_server) for name in BEAMLINES]
    yield made
    for beamline in made:
        beamline.end()


def test_nothing_is_lost_and_nothing_mixed(beamlines, postgresql_server, tmp_path):
    server = postgresql_server
    for beamline in beamlines:
        motor = BEAMLINES[beamline.name]
        beamline.run(
            "from waiting import waits\n"
            f"for number in range({RUNS}): RE(waits(noisy, {motor}, {POINTS}), number=number)"
        )

    def grows(name):
        """Whether a run of this beamline is seen that has got to where it waits."""
        try:
            run = tiled_client.connect(server.url, api_key=server.read_key, catalog=name).runs().newest()
            return run is not None and run.stop is None and len(run.data()) == POINTS // 2 + 1
        except tiled_client.TiledQuestionError:
            return False  # no such catalog, or no such stream yet

    for beamline in beamlines:
        until(lambda name=beamline.name: grows(name), "growing run")
    for beamline in beamlines:
        (beamline.directory / "go").touch()
    for beamline in beamlines:
        output = beamline.session.stdout.read()
        assert beamline.session.wait(90) == 0, output

    for beamline in beamlines:
        cat = tiled_client.connect(server.url, api_key=server.read_key, catalog=beamline.name)
        until(lambda cat=cat: [run.stop is not None for run in cat.runs()] == [True] * RUNS, "whole runs")
        assert {run.start["beamline_id"] for run in cat.runs()} == {beamline.name}
        for path in beamline.paths():
            documents = list(RunFile(path))
            events = [document for name, document in documents if name == "event"]
            run = cat[documents[0][1]["uid"]]
            assert run.start["number"] == documents[0][1]["number"]
            primary = [event["data"] for event in events if BEAMLINES[beamline.name] in event["data"]]
            assert len(primary) >= POINTS
            table = run.data()
            motor = BEAMLINES[beamline.name]
            assert list(table[motor]) == [event[motor] for event in primary if "noisy" in event]
            assert list(table["noisy"]) == [event["noisy"] for event in primary if "noisy" in event]
        again = DataDirectory(tmp_path / "again" / beamline.name)
        uids = [path.stem for path in beamline.paths()]
        assert list(export(Connection(server.files), beamline.name, uids, again.runs)) == [(u, "written") for u in uids]
        for path in beamline.paths():
            assert (again.runs / path.relative_to(beamline.data.runs)).read_bytes() == path.read_bytes()
