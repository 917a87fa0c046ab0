"""Images that can't be written, or that moved: one line, the frames so far are safe, and the next run works."""

import ast

import pytest

from tests.faults.session import Session, write_config
from tests.faults.test_disk import IN_NAMESPACE, MAY_MOUNT
from tests.faults_page import fault

DISKS = (
    *IN_NAMESPACE,
    'for disk in small ro; do mount -t tmpfs -o size=4m tmpfs $disk; done; mount -o remount,ro ro; exec "$@"',
    "sh",
)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    if not MAY_MOUNT:
        pytest.skip("NOT RUN: a full disk needs a mount namespace, which this machine does not allow")
    directory = tmp_path_factory.mktemp("images")
    for name in ("small", "ro", "moved"):
        (directory / name).mkdir()
    root_map = f"{{{directory}/.data: {directory}/moved}}"
    config = write_config(directory, f"root_map: {root_map}")
    with Session(directory, arguments=("--config", str(config)), wrapper=DISKS) as session:
        yield session


def one_line(shown):
    (line,) = [line for line in shown.splitlines() if line.strip()]
    return line


def value(session, expression):
    return ast.literal_eval(session.run(f"print({expression})").strip().splitlines()[-1])


def check_next_run(session):
    session.run('adsimdet.hdf1.file_path.put("")')
    session.run("RE(bp.count([adsimdet]))")
    assert value(session, "repr(cat[-1].metadata['stop']['exit_status'])") == "success"


@fault("The directory of images can't be written", "one line, nothing moves, the next run works")
def test_a_directory_that_is_read_only(session):
    session.run("RE(bp.count([adsimdet]))")  # which waits until the camera is there
    number = session.scan_id
    session.run(f'adsimdet.hdf1.file_path.put("{session.directory}/ro")')
    line = one_line(session.run("RE(bp.scan([adsimdet], m3, 0, 1, 3))"))
    assert line.startswith(f"adsimdet: the IOC can't write to {session.directory}/ro/: ")
    assert line.endswith("Read-only file system")
    assert session.scan_id == number
    assert value(session, "m3.position") == 0
    check_next_run(session)


@fault("The disk of images gets full in a run", "one line, the frames so far are safe, the next run works")
def test_a_disk_that_gets_full(session):
    session.run(f'adsimdet.hdf1.file_path.put("{session.directory}/small")')
    shown = session.run("RE(bp.count([adsimdet], num=20))")
    line = shown.strip().splitlines()[-1]
    assert "No space left on device" in line
    assert "3 points of this run are in" in line
    assert value(session, "cat[-1].primary.read()['adsimdet_image'].values.shape") == (3, 1, 1024, 1024)
    line = one_line(session.run("RE(bp.count([adsimdet], num=20))"))
    assert line == f"adsimdet: {session.directory}/small is full (0 kB free): make room"
    check_next_run(session)


def test_files_that_moved_are_found_by_the_root_map(session):
    session.run("RE(bp.count([adsimdet], num=2))")
    (session.directory / ".data" / "images").rename(session.directory / "moved" / "images")
    assert value(session, "cat[-1].primary.read()['adsimdet_image'].values.shape") == (2, 1, 1024, 1024)
    assert one_line(session.run("export(-1, 'moved.hdf')")).endswith("PosixPath('moved.hdf')")
