"""NeXus files of a real session: 100 runs back to back, a bad disk, a bad path, kill -9; each fault is one line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from tests.callbacks.nexus import assert_valid
from tests.faults.session import Session, until, write_config
from tests.faults.test_disk import IN_NAMESPACE, MAY_MOUNT, NO_SPACE, Disks
from tests.faults_page import fault
from tests.terminal import ROOT, clean_environment

WITH_DISK = (*IN_NAMESPACE, 'mount -t tmpfs -o size=64m tmpfs nexus; exec "$@"', "sh")
SAFE = "the run is safe in the journal"


def uids_in(directory: Path) -> list[str]:
    """The runs in the files of a directory, each of which is whole; nothing else is there."""
    found = []
    for path in directory.iterdir():
        assert path.suffix == ".hdf", path
        with h5py.File(path) as file:
            entry = file["entry"]
            assert (
                entry["data"][entry["data"].attrs["signal"]].shape[0]
                == entry["instrument/bluesky/metadata/num_points"][()]
            )
            assert entry["end_time"].asstr()[()] > entry["start_time"].asstr()[()]
            found.append(entry["entry_identifier"].asstr()[()])
    return found


class Beamline(Disks):
    """A session whose NeXus files are on a disk of their own."""

    @property
    def nexus(self) -> Path:
        return Path(f"/proc/{self.process.pid}/root{self.directory}") / "nexus"

    def count(self, detector: str = "noisy") -> tuple[int, str]:
        """Count once: the run's number, and all that is shown meanwhile."""
        shown = self.run(f"RE(bp.count([{detector}]))")
        return self.scan_id, shown

    def told_after(self, command: str, pattern: str) -> str:
        """Type a command; the line that a thread tells then, before or after the next prompt."""
        self.process.sendline(command)
        shown = self.shows_until(r"\n(Out.*\s+)?In \[\d+\]: ", rf"{pattern}[^\n]*\n")
        (line,) = [line for line in shown.splitlines() if re.match(pattern, line)]
        return line


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    if not MAY_MOUNT:
        pytest.skip("NOT RUN: a full disk needs a mount namespace, which this machine does not allow")
    directory = tmp_path_factory.mktemp("nexus")
    (directory / "nexus").mkdir()
    config = write_config(
        directory,
        f"nexus: {{enabled: true, directory: {directory}/nexus}}\nlive: {{table: false, plot: false}}",
        f"tests.callbacks.camera.Camera:\n  - {{name: camera, directory: {directory}/images}}\n",
    )
    with Beamline(directory, arguments=("--config", str(config)), wrapper=WITH_DISK) as session:
        yield session


@fault("A hundred counts back to back, NeXus files on (at the prompt)", "no run waits; a hundred complete files")
def test_a_hundred_counts_back_to_back_make_a_hundred_complete_files(session):
    session.run("sd.baseline.clear()")  # to be as quick as can be
    shown = session.run("uids = [RE(bp.count([noisy]))[0] for _ in range(100)]", 300)
    assert "nexus" not in shown
    assert session.value("wait_for_files(120)") is True
    uids = session.value("uids")
    assert len(uids) == 100
    assert sorted(uids_in(session.nexus)) == sorted(uids)
    for path in sorted(session.nexus.iterdir())[::33]:
        assert_valid(path)


@fault(
    "No room for the NeXus file (at the prompt)", "the run succeeds, one line; no half file; written when there is room"
)
def test_no_room_for_the_file(session):
    session.fill("nexus")
    line = session.told_after("RE(bp.count([noisy]));", r"nexus: run \d+ is not written yet")
    number, uid = session.value("(RE.md['scan_id'], cat[-1].metadata['start']['uid'])")
    name = f"{number:05d}-count-{uid[:7]}.hdf"
    assert line == (
        f"nexus: run {number} is not written yet: <directory>/nexus/{name} can't be written ({NO_SPACE}); "
        f"{SAFE}; it is tried again"
    )
    assert [path for path in session.nexus.iterdir() if path.name.startswith(".")] == []
    session.count()
    session.make_room("nexus")
    assert session.value("wait_for_files()") is True
    assert uid in uids_in(session.nexus)


@fault(
    "The disk of NeXus files becomes read-only (at the prompt)", "the run succeeds, one line; written when it may be"
)
def test_a_disk_that_became_read_only(session):
    session.run("!mount -o remount,ro nexus")
    line = session.told_after("RE(bp.count([noisy]));", r"nexus: run \d+ is not written yet")
    assert line.endswith(f"can't be written (Read-only file system); {SAFE}; it is tried again")
    session.count()
    session.run("!mount -o remount,rw nexus")
    assert session.value("wait_for_files()") is True
    assert session.value("cat[-1].metadata['start']['uid']") in uids_in(session.nexus)


@fault(
    "The directory of NeXus files is gone, or a file stands in its place (at the prompt)",
    "it is made again; or one line, and written when it can be",
)
def test_a_directory_that_is_gone_is_made_again_and_what_stands_in_its_place_is_told(session):
    elsewhere = session.directory / "elsewhere"
    session.run(f"nxwriter.file_path = '{elsewhere}'")
    session.count()
    assert session.value("wait_for_files()") is True
    shutil.rmtree(elsewhere)
    session.count()
    assert session.value("wait_for_files()") is True
    assert len(uids_in(elsewhere)) == 1
    shutil.rmtree(elsewhere)
    elsewhere.write_text("a file")
    line = session.told_after("RE(bp.count([noisy]));", r"nexus: run \d+ is not written yet")
    assert line.endswith(f"can't be written (Not a directory); {SAFE}; it is tried again")
    elsewhere.unlink()
    assert session.value("wait_for_files()") is True
    assert len(uids_in(elsewhere)) == 1
    session.run("nxwriter.file_path = None")


@fault(
    "Another file has the name that a NeXus file should get (at the prompt)",
    "it stays, one line; the next run is written, the run can be exported",
)
def test_a_file_of_somebody_else_stays_and_the_run_is_exported_later(session):
    notes = session.directory / "notes.txt"
    notes.write_text("my notes")
    session.run(f"nxwriter.file_name = '{notes}'")
    line = session.told_after("RE(bp.count([noisy]));", r"nexus: run \d+ cannot be written")
    assert re.sub(r"run \d+", "run N", line) == (
        "nexus: run N cannot be written: <directory>/notes.txt exists and is no NeXus file of a run: it is left as "
        "it is; move it away; it is safe in the journal, and tried again in the next session"
    )
    assert notes.read_text() == "my notes"
    session.run("nxwriter.file_name = None")
    session.count()
    exported = session.directory / "later.hdf"
    assert session.value(f"str(export(-2, '{exported}'))") == str(exported)
    assert_valid(exported)


@fault("The images of a run are not where it says (at the prompt)", "one line names the file; the next run is written")
def test_a_wrong_image_path_is_named_and_the_next_run_is_written(session):
    session.run("from apstools.callbacks import NXWriter; NXWriter._external_file_read_timeout = 1.0")
    session.run("camera.announced = '/nowhere'")
    line = session.told_after("RE(bp.count([camera]));", r"nexus: run \d+ cannot be written")
    assert re.search(
        r"image file /nowhere/\S+\.h5 is missing: .* `root_map` .*, then export the run; it is safe",
        line,
    )
    session.run("camera.announced = None")
    number, _ = session.count("camera")
    session.run("wait_for_files()")
    (path,) = session.nexus.glob(f"{number:05d}-*.hdf")
    with h5py.File(path) as file:
        assert file["entry/data/camera_image"].attrs["source_file"].startswith("../images/")
    shown = session.run("export(-2, 'missing.hdf')").strip()
    assert re.fullmatch(
        r"run \d+: image file /nowhere/\S+\.h5 is missing: .* `root_map` .*, then export the run",
        shown,
    )
    assert not (session.directory / "missing.hdf").exists()


def test_the_tree_is_printed_of_a_file_and_of_a_run(session):
    session.count()
    session.run("wait_for_files()")
    of_run = session.run("nexus_tree()")
    path = session.value("outbox and str(nxwriter.output_nexus_file)")
    assert session.run(f"nexus_tree('{path}')") == of_run
    assert "data:NXdata" in of_run
    assert "noisy -> /entry/instrument/bluesky/streams/primary/noisy/value" in of_run
    assert session.run("nexus_tree('nothing.hdf')").strip() == "there is no file nothing.hdf"
    assert session.run("nexus_tree(99999)").strip() == "there is no run with scan_id 99999"


@fault("A session ends while NeXus files can't be written (at the prompt)", "it ends in time and says what is owed")
def test_the_session_ends_in_time_although_files_are_owed(session):
    session.run("!mount -o remount,ro nexus")
    session.told_after("RE(bp.count([noisy]));", r"nexus: run \d+ is not written yet")
    session.process.sendline("exit")
    shown = session.until_end(60)
    assert "not written: nexus (1); the next session here writes them from the journal" in shown
    assert session.process.exitstatus == 0


@fault(
    "kill -9 of a session at its prompt while it writes NeXus files",
    "no half file; the next session writes the rest, each once",
)
def test_a_session_that_is_killed_leaves_no_half_file_and_the_next_one_writes_the_rest(tmp_path):
    config = write_config(tmp_path, "nexus: {enabled: true}\nlive: {table: false, plot: false}")
    arguments = ("--config", str(config))
    data = tmp_path / ".data"
    with Session(tmp_path, arguments=arguments) as session:
        beamline = session.beamline.pid
        session.run("sd.baseline.clear()")
        session.type("for_ever = [RE(bp.count([noisy])) for _ in range(2000)]")
        until(lambda: len(list(data.glob("*.hdf"))) >= 5, "five files")
        session.kill()
    until(lambda: not os.path.exists(f"/proc/{beamline}"), "the end of the IOC")
    for path in data.glob("*.hdf"):
        assert_whole(path)
    with Session(tmp_path, arguments=arguments) as session:
        assert session.value("wait_for_files(120)") is True
        uids = [path.stem for path in (data / "runs").rglob("*.msgpack")]
        assert session.exit() == 0
    files = sorted(data.glob("*.hdf"))
    assert sorted(uid for path in files for uid in assert_whole(path)) == sorted(uids)
    assert list(data.glob(".*.part")) == []
    assert_valid(files[-1])


def assert_whole(path: Path) -> list[str]:
    with h5py.File(path) as file:
        assert "end_time" in file["entry"]
        return [file["entry/entry_identifier"].asstr()[()]]


@fault("A script ends right after its run", "its NeXus file is written while it ends")
def test_a_script_that_ends_at_once_writes_its_file_while_it_ends(tmp_path):
    config = write_config(tmp_path, "nexus: {enabled: true}\nlive: {table: false, plot: false}")
    done = subprocess.run(
        [sys.executable, "-c", "from instrument.collection import *\nimport h5py\nRE(bp.count([noisy]))"],
        cwd=tmp_path,
        env=clean_environment(tmp_path, PYTHONPATH=str(ROOT), INSTRUMENT_CONFIG=str(config)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "not written" not in done.stdout
    (path,) = (tmp_path / ".data").glob("*.hdf")
    assert_whole(path)
