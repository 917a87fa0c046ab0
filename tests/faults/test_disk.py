"""A disk that is full, a directory that can't be written: told in one line, and what was recorded is safe.

The disks are small tmpfs in a mount namespace of the session's own, which ends with it.
"""

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.faults.session import Session, masked, run_shown, write_config
from tests.faults_page import fault

TRY = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/tmp"]
MAY_MOUNT = shutil.which("unshare") is not None and not subprocess.run(TRY, capture_output=True, check=False).returncode
IN_NAMESPACE = ("unshare", "-rm", "sh", "-ec")
SMALL_DISKS = (*IN_NAMESPACE, 'for disk in data spec; do mount -t tmpfs -o size=4m tmpfs $disk; done; exec "$@"', "sh")
READ_ONLY = (*IN_NAMESPACE, 'mount --bind . .; mount -o remount,bind,ro .; cd "$PWD"; exec "$@"', "sh")
NO_SPACE = "No space left on device"


class Disks(Session):
    """A session with `data` and `spec` on disks that can be filled."""

    def fill(self, name):
        """Leave no room on a disk."""
        with contextlib.suppress(OSError), self._filler(name).open("wb", buffering=0) as file:
            while True:
                file.write(bytes(65536))
        with contextlib.suppress(OSError), self._filler(name).open("ab", buffering=0) as file:
            while True:
                file.write(bytes(512))

    def make_room(self, name):
        """Undo `fill`."""
        self._filler(name).unlink()

    def _filler(self, name):
        # the session's mounts are seen through its own root
        return Path(f"/proc/{self.process.pid}/root{self.directory}") / name / "filler"


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    if not MAY_MOUNT:
        pytest.skip("NOT RUN: a full disk needs a mount namespace, which this machine does not allow")
    directory = tmp_path_factory.mktemp("disk")
    for name in ("data", "spec"):
        (directory / name).mkdir()
    config = write_config(directory, "directories: {data: data, spec: spec}")
    with Disks(directory, arguments=("--config", str(config)), wrapper=SMALL_DISKS) as session:
        yield session


@fault("No room to start a run (at the prompt)", "one line, nothing moves, the next scan works")
def test_no_room_to_start_a_run(session):
    session.check_next_scan()
    number = session.scan_id
    session.fill("data")
    shown = session.shows("RE(bp.scan([noisy], m2, 0, 5, 3))")
    assert shown == (
        f"the run was not started, because <directory>/data/state.json cannot be written ({NO_SPACE}): "
        "make the directory writable, or make room on the disk"
    )
    assert (session.pv("gp:m2.RBV"), session.pv("gp:m2.DMOV")) == ("0.02000", "1")
    assert session.last_run() == (number, "success", "", 3)
    session.make_room("data")
    session.check_next_scan()


@fault(
    "No room in the midst of a run (at the prompt)", "one line; what was recorded is there; closed when there is room"
)
def test_no_room_in_the_midst_of_a_run(session):
    number = session.scan_id + 1
    session.type("RE(bp.scan([noisy], m2, 0, 10, 1001))")
    before = session.wait_for(r"\|         3 \|[^\n]*\n")
    session.fill("data")
    shown = masked(before + session.until_prompt(300), session.directory)
    points = shown.count("<noisy>")
    rows = [[f"{point / 100:.5f}"] for point in range(points)]
    lines = run_shown(number, "scan", ["m2", "noisy"], rows).splitlines()
    fault = [line for line in shown.splitlines() if line.startswith("the run's file")]
    path = session.value(
        "str(max(__import__('pathlib').Path('data/runs').rglob('*.msgpack'), key=lambda path: path.stat().st_mtime))"
    )
    assert fault == [
        f"the run's file <directory>/{masked(str(path))} cannot be written: {NO_SPACE}; what it already holds is safe, "
        "as are earlier runs: make room or mend the disk, then repeat the run"
    ]
    others = [line for line in shown.splitlines() if line not in [*lines, *fault]]
    assert others == []
    session.until_pv("gp:m2.DMOV", "1")
    session.make_room("data")
    assert session.shows_until(r"is recorded now\r\n") == (
        "I <time> - the stop document of run <uid>, which did not fit before, is recorded now"
    )
    session.check_next_scan()
    # closed as soon as there was room; what was recorded of it is there
    assert session.value("(cat[-2].metadata['start']['scan_id'], cat[-2].metadata['stop']['exit_status'])") == (
        number,
        "fail",
    )
    recorded = session.value("len(cat[-2].primary.read()['noisy'])")
    assert points - 1 <= recorded <= points


@fault("No room for the SPEC file (at the prompt)", "the run succeeds, one line; written when there is room")
def test_no_room_for_the_spec_file(session):
    session.run("newSpecFile('full')")
    number = session.scan_id + 1
    session.fill("spec")
    session.process.sendline("RE(bp.scan([noisy], m2, 0, 0.02, 3));")
    shown = session.shows_until(r"In \[\d+\]: ", r"spec: run \d+ is not written yet[^\n]*\n")
    fault = (
        f"spec: run {number} is not written yet: <directory>/spec/<day>_full.dat can't be written ({NO_SPACE}); "
        "it is safe in the journal; it is tried again"
    )
    rows = [["0.00000"], ["0.01000"], ["0.02000"]]
    lines = run_shown(number, "scan", ["m2", "noisy"], rows, fault).splitlines()
    assert sorted(hide_day(shown).splitlines()[1:]) == sorted(lines)
    assert session.last_run() == (number, "success", "", 3)
    session.make_room("spec")
    session.process.sendline("wait_for_files()")
    shown = session.shows_until(r"Out\[\d+\]: True\s+In \[\d+\]: ")
    assert f"spec: run {number} is written now: <directory>/spec/<day>_full.dat" in hide_day(shown).splitlines()
    session.check_next_scan()
    assert session.value("wait_for_files()") is True
    written = str(session.value("specwriter.spec_filename.read_text()"))
    assert [line.split()[1] for line in written.splitlines() if line.startswith("#S ")] == [
        str(number),
        str(number + 1),
    ]


@fault(
    "No room in the midst of a run, and the session ends (at the prompt)", "what is left to do is told; all is ended"
)
def test_leaving_while_the_disk_is_full(session):
    beamline = session.beamline
    session.type("RE(bp.scan([noisy], m2, 0, 10, 1001))")
    session.wait_for(r"\|         3 \|[^\n]*\n")
    session.fill("data")
    session.until_prompt(300)
    session.process.sendline("exit")
    shown = session.until_end()
    assert session.process.exitstatus == 0
    assert "Traceback" not in shown
    assert "not written: spec (1); the next session here writes them from the journal" in shown.splitlines()
    assert all(ioc.poll() is not None for ioc in beamline.iocs)


def hide_day(text):
    """The file's name begins with month and day."""
    return re.sub(r"\d+_\d+_full\.dat", "<day>_full.dat", text)


# --- read-only


@pytest.fixture
def read_only(tmp_path):
    """A working directory that can't be written, and the wrapper that makes it so."""
    directory, elsewhere = tmp_path / "read_only", tmp_path / "elsewhere"
    directory.mkdir()
    elsewhere.mkdir()
    # Not by the name that a session looks for by itself.
    write_config(directory, f"directories: {{logs: {elsewhere}}}").rename(directory / "elsewhere.yml")
    if os.geteuid() != 0:
        directory.chmod(0o555)
        yield directory, elsewhere, ()
        directory.chmod(0o755)
    elif MAY_MOUNT:
        yield directory, elsewhere, READ_ONLY
    else:
        pytest.skip("NOT RUN: as root, and without mounts, no directory is read-only")


WHY = "Permission denied" if os.geteuid() != 0 else "Read-only file system"


def test_a_read_only_working_directory_is_told_at_the_start(read_only):
    directory, elsewhere, wrapper = read_only
    with Session(directory, wrapper=wrapper, env={"HOME": str(elsewhere)}, wait=False) as session:
        shown = session.until_end()
        assert masked(shown, directory) == (
            f"can't write log files in <directory>/.logs ({WHY}): start in a directory that you may write, "
            "or set `directories: logs:` in iconfig.yml"
        )
        assert session.process.exitstatus == 2


@fault("A read-only working directory (at the prompt)", "told at the start; runs are refused, moves work")
def test_a_session_that_can_record_nothing_still_moves(read_only):
    directory, elsewhere, wrapper = read_only
    home = {"HOME": str(elsewhere), "IPYTHONDIR": str(elsewhere)}
    with Session(directory, arguments=("--config", "elsewhere.yml"), wrapper=wrapper, env=home) as session:
        assert (
            f"W <time> - <directory>/.data cannot be written ({WHY}): no run can be recorded; start the session in a "
            "directory of your own, or set directories.data in iconfig.yml"
        ) in masked(session.startup, directory).splitlines()
        refused = (
            f"the run was not started, because <directory>/.data/state.json cannot be written ({WHY}): "
            "make the directory writable, or make room on the disk"
        )
        assert session.shows("RE(bp.scan([noisy], m2, 1, 2, 3))") == refused
        assert (session.pv("gp:m2.VAL"), session.pv("gp:m2.DMOV")) == ("0.00000", "1")
        assert session.shows("RE(bps.mv(m2, 0.1))") == "Out: ()"
        assert session.pv("gp:m2.RBV") == "0.10000"
        assert session.exit() == 0
    # the next scan works where it may be written
    with Session(elsewhere) as session:
        session.check_next_scan()


@fault("A read-only directory of SPEC files (at the prompt)", "the run succeeds, one line, the session ends in time")
def test_spec_files_that_cannot_be_written_hold_up_nobody(read_only):
    directory, elsewhere, wrapper = read_only
    data = elsewhere / "data"
    config = write_config(elsewhere, f"directories: {{logs: {elsewhere}, data: {data}}}")
    home = {"HOME": str(elsewhere), "IPYTHONDIR": str(elsewhere)}
    with Session(directory, arguments=("--config", str(config)), wrapper=wrapper, env=home) as session:
        session.process.sendline("RE(bp.scan([noisy], m2, 0, 0.02, 3));")
        shown = session.shows_until(r"In \[\d+\]: ", r"spec: run 1 is not written yet[^\n]*\n")
        fault = (
            f"spec: run 1 is not written yet: <directory>/<time>.dat can't be written ({WHY}); "
            "it is safe in the journal; it is tried again"
        )
        rows = [["0.00000"], ["0.01000"], ["0.02000"]]
        lines = run_shown(1, "scan", ["m2", "noisy"], rows, fault).splitlines()
        assert sorted(shown.splitlines()[1:]) == sorted(lines)
        assert session.last_run() == (1, "success", "", 3)
        session.process.sendline("exit")
        assert masked(session.until_end(40), directory).splitlines() == [
            "exit",
            "waiting for spec (1 to write)",
            "not written: spec (1); the next session here writes them from the journal",
        ]
        assert session.process.exitstatus == 0
