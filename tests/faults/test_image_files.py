"""Images that can't be written, or that moved: one line, the frames so far are safe, and the next run works."""

import psutil
import pytest

from tests.faults.session import Session, until, write_config
from tests.faults.test_disk import IN_NAMESPACE, MAY_MOUNT
from tests.faults_page import fault

DISKS = (
    *IN_NAMESPACE,
    'for disk in small ro; do mount -t tmpfs -o size=4m tmpfs $disk; done; mount -o remount,ro ro; exec "$@"',
    "sh",
)


# The same camera, whose images this session looks for where they are not.
ELSEWHERE = """
instrument.devices.area_detector.area_detector:
  - {name: elsewhere, prefix: "ad:", cam: SimDetectorCam, plugins: [hdf1], read_path: nowhere}
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    directory = tmp_path_factory.mktemp("images")
    for name in ("small", "ro", "moved", "mine"):
        (directory / name).mkdir()
    root_map = f"{{{directory}/.data: {directory}/moved}}"
    config = write_config(directory, f"root_map: {root_map}", ELSEWHERE)
    with Session(directory, arguments=("--config", str(config)), wrapper=DISKS if MAY_MOUNT else ()) as session:
        session.run("RE(bp.count([adsimdet]))")  # which waits until the camera is there
        yield session


@pytest.fixture
def disks():
    if not MAY_MOUNT:
        pytest.skip("NOT RUN: a full disk needs a mount namespace, which this machine does not allow")


def one_line(shown):
    (line,) = [line for line in shown.splitlines() if line.strip()]
    return line


def value(session, expression):
    return session.printed(expression)


def check_next_run(session):
    session.run('adsimdet.hdf1.file_path.put("")')
    session.run("RE(bp.count([adsimdet]))")
    assert value(session, "repr(cat[-1].metadata['stop']['exit_status'])") == "success"


@fault("The directory of images can't be written", "one line, nothing moves, the next run works")
def test_a_directory_that_is_read_only(session, disks):
    number = session.scan_id
    session.run(f'adsimdet.hdf1.file_path.put("{session.directory}/ro")')
    line = one_line(session.run("RE(bp.scan([adsimdet], m3, 0, 1, 3))"))
    assert line.startswith(f"adsimdet: the IOC can't write to {session.directory}/ro/: ")
    assert line.endswith("Read-only file system")
    assert session.scan_id == number
    assert value(session, "m3.position") == 0
    check_next_run(session)


@fault("The disk of images gets full in a run", "one line, the frames so far are safe, the next run works")
def test_a_disk_that_gets_full(session, disks):
    session.run(f'adsimdet.hdf1.file_path.put("{session.directory}/small")')
    shown = session.run("RE(bp.count([adsimdet], num=20))")
    line = shown.strip().splitlines()[-1]
    assert "No space left on device" in line
    assert "3 points of this run are in" in line
    assert value(session, "cat[-1].primary.read()['adsimdet_image'].values.shape") == (3, 1, 1024, 1024)
    line = one_line(session.run("RE(bp.count([adsimdet], num=20))"))
    assert line == f"adsimdet: {session.directory}/small is full (0 kB free, a point takes 1024 kB): make room"
    check_next_run(session)


def refused(session, command, *parts):
    """The one line that a run is refused with before anything moves; the next run works."""
    number = session.scan_id
    line = one_line(session.run(command))
    assert all(part in line for part in parts), line
    assert (session.scan_id, value(session, "m3.position")) == (number, 0)
    return line


def ended(session, command, *parts, points):
    """The last line of a run that ended early; its first points are there, and the next run works."""
    line = session.run(command).strip().splitlines()[-1]
    assert all(part in line for part in parts), line
    shape = value(
        session,
        "(lambda run: (run.metadata['stop']['exit_status'], "
        "*run.primary.read()['adsimdet_image'].values.shape))(cat[-1])",
    )
    assert shape == ("fail", points, 1, 1024, 1024)


@fault("The directory of images does not exist", "one line, nothing moves, the next run works")
def test_a_directory_that_does_not_exist(session):
    missing = f"{session.directory}/no/such"
    session.run(f'adsimdet.hdf1.file_path.put("{missing}")')
    refused(session, "RE(bp.scan([adsimdet], m3, 0, 1, 3))", f"no directory {missing}", "file_path.put(")
    check_next_run(session)


@fault("The image file exists", "one line says what to type, nothing moves, the file stays as it is")
def test_a_file_that_exists(session):
    session.run(f'adsimdet.hdf1.file_path.put("{session.directory}/mine"); adsimdet.hdf1.file_name.put("mine")')
    session.run("adsimdet.hdf1.file_number.put(5); RE(bp.count([adsimdet]))")
    path = session.directory / "mine" / "mine_005.h5"
    content = path.read_bytes()
    session.run("adsimdet.hdf1.file_number.put(5)")
    line = refused(session, "RE(bp.scan([adsimdet], m3, 0, 1, 3))", f"{path} exists")
    assert path.read_bytes() == content
    session.run(line.partition(", or ")[2])
    session.run("RE(bp.count([adsimdet]))")
    assert sorted(file.name for file in path.parent.iterdir()) == ["mine_005.h5", "mine_006.h5"]
    session.run('adsimdet.hdf1.file_name.put("")')
    check_next_run(session)


@fault("The session looks for images where they are not", "one line names read_path, nothing moves")
def test_a_read_path_that_leads_nowhere(session):
    refused(
        session, "RE(bp.scan([elsewhere], m3, 0, 1, 3))", "elsewhere: ", "sees no directory", "read_path in devices.yml"
    )
    check_next_run(session)


@fault("Frames of another shape in the midst of a run", "one line, the frames so far are safe, the next run works")
def test_a_frame_of_another_shape(session):
    plan = "RE(bp.list_scan([adsimdet], adsimdet.cam.size.size_x, [1024, 1024, 512, 512]))"
    ended(session, plan, "a frame was not written", "2 points of this run are in", points=2)
    session.run("adsimdet.cam.size.size_x.put(1024)")
    check_next_run(session)


@fault("An exposure time that is no number", "refused in one line")
def test_an_exposure_time_that_is_no_number(session):
    for command in ('adsimdet.cam.acquire_time.put(float("nan"))', 'mv(adsimdet.cam.acquire_time, float("nan"))'):
        refused(session, command, "adsimdet_cam_acquire_time: nan is no time in seconds")
    session.run('adsimdet.stage_sigs["cam.acquire_time"] = float("nan")')
    refused(session, "RE(bp.scan([adsimdet], m3, 0, 1, 3))", "nan is no time in seconds")
    session.run('del adsimdet.stage_sigs["cam.acquire_time"]')
    check_next_run(session)


@fault("More frames than NumCapture", "one line, the frames so far are safe, the next run works")
def test_more_frames_than_num_capture(session):
    session.run('adsimdet.hdf1.stage_sigs["num_capture"] = 2')
    ended(session, "RE(bp.count([adsimdet], num=4))", "NumCapture is 2", "2 points of this run are in", points=2)
    session.run('adsimdet.hdf1.stage_sigs["num_capture"] = 0')
    check_next_run(session)


def test_files_that_moved_are_found_by_the_root_map(session):
    session.run("RE(bp.count([adsimdet], num=2))")
    (session.directory / ".data" / "images").rename(session.directory / "moved" / "images")
    assert value(session, "cat[-1].primary.read()['adsimdet_image'].values.shape") == (2, 1, 1024, 1024)
    assert one_line(session.run("export(-1, 'moved.hdf')")).endswith("PosixPath('moved.hdf')")


@fault(
    "kill -9 of a session while images are written", "its IOC ends; the next session has each frame of the run's points"
)
def test_a_session_that_is_killed_while_images_are_written(tmp_path):
    with Session(tmp_path) as session:
        session.run("adsimdet.cam.acquire_time.put(0.05)")
        session.type("RE(bp.count([adsimdet], num=1000))")
        session.wait_for(r"\|         5 \|")
        camera = session.beamline.area_detector.pid
        session.kill()
        until(lambda: not psutil.pid_exists(camera), "the end of the camera's IOC")
    with Session(tmp_path) as session:
        assert "run 1 " in session.startup
        points, frames = value(
            session,
            "(lambda run: (run.metadata['stop']['num_events']['primary'], "
            "run.primary.read()['adsimdet_image'].values.shape))(cat[1])",
        )
        assert points >= 5
        assert frames == (points, 1, 1024, 1024)
        session.run("RE(bp.count([adsimdet]))")
        assert session.last_run() == (2, "success", "", 1)
