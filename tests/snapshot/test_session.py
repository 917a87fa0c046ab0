"""Snapshots in a session: plans and commands at the prompt, beside `bluesky_snapshot` in a shell."""

from __future__ import annotations

import json
import re

import pytest

from instrument.framework.runfiles import DataDirectory
from tests.snapshot.conftest import Shell
from tests.terminal import Terminal


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    with Terminal(tmp_path_factory.mktemp("session")) as terminal:
        yield terminal


@pytest.fixture(scope="module")
def beside(session):
    """A shell in the directory of the session, at its beamline."""
    session.run("import os, json")
    shown = session.run("print(json.dumps({k: v for k, v in os.environ.items() if k[:6] in ('EPICS_', 'VIRTUA')}))")
    variables = json.loads(re.search(r"^\{.*\}$", shown, re.MULTILINE)[0])
    return Shell(session.directory, variables)


def report(shown: str) -> str:
    """The part of what is shown that is the report."""
    return shown[shown.index("=" * 40) : shown.rindex("\nuid: ")]


def test_the_plan_records_devices_signals_and_pvs_and_prints_the_report(session):
    shown = session.run('RE(snapshot([m1, noisy, "gp:m2.DESC", calcs.calc2], md={"purpose": "example"}))')
    for pv in ("gp:m1.VAL", "gp:m1.VELO", "gp:userCalc1", "gp:m2.DESC", "gp:userCalc2.VAL"):
        assert f" PV     {pv} " in shown
    assert "\npurpose: example\n" in shown
    assert "seq_num" not in shown  # no live table beside it
    again = session.run("SnapshotReport().print_report(cat[-1])")
    assert report(again) == report(shown)
    assert report(session.run("SnapshotReport().print_report(db[-1])")) == report(shown)
    assert session.run("SnapshotReport().print_report(cat[-1]) if RE(bp.count([noisy])) else 0").count("snapshot:") == 0


def test_the_shell_and_the_session_see_each_other_s_snapshots_and_no_number_is_given_twice(session, beside):
    before = int(session.run("RE.md['scan_id']").split()[-1])
    done = beside.run("gp:m1", "gp:gp:float1", "-m", "from=the shell")
    assert done.returncode == 0, done.stderr
    assert f"\nscan_id: {before + 1}\n" in done.stdout
    assert done.stderr == ""
    assert report(session.run("SnapshotReport().print_report(cat[-1])")) == report(done.stdout)
    session.run("RE(bp.count([noisy]))")
    assert session.run("cat[-1].metadata['start']['scan_id']").split()[-1] == str(before + 2)


def test_diff_restore_and_undo_at_the_prompt(session):
    session.run("RE(bps.mv(m1, 0.3))")
    session.run('RE(snapshot(["gp:m1", "gp:gp:text1", "gp:m1.RBV"], report=False))')
    session.run("RE(bps.mv(m1, 0.1))")
    shown = session.run("snapshot_diff(-1, tolerance=0.01)")
    assert re.search(r"^gp:m1 +0\.3 +0\.1 +-0\.2\s*$", shown, re.MULTILINE)
    assert "\n2 of 3 differ by more than 0.01" in shown
    shown = session.run("RE(snapshot_restore(-1))")
    command = re.search(r"dry run: 1 would be set, nothing was; (RE\(.*\)) sets them", shown)[1]
    assert session.run("m1.position").split()[-1].startswith("0.1")
    shown = session.run(command)
    assert "gp:m1: 0.1 -> 0.3: set" in shown
    undo = re.search(r"1 of 1 were set; (RE\(.*\)) sets back what they had", shown)[1]
    assert session.run("m1.position").split()[-1].startswith("0.3")
    assert "seq_num" not in session.run(undo)  # it has told what it set: no table besides
    assert session.run("m1.position").split()[-1].startswith("0.1")
    runs = session.run("listruns(3)")
    assert [name in runs for name in ("snapshot_undo", "snapshot_restore", "snapshot ")] == [True, True, True]


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("RE(snapshot([]))", "snapshot: nothing is given: give names of PVs, signals or devices"),
        ("RE(snapshot([m1, m1]))", "snapshot: m1 is given twice: give each once"),
        ("RE(snapshot([m1, 5]))", "snapshot: 5 can't be read: give names of PVs, signals or devices"),
        (
            "RE(snapshot_restore(99))",
            "there is no run 99: give -1 for the last snapshot, a scan number or the beginning",
        ),
        (
            "RE(snapshot_restore(-1, dryrun=False))",
            "snapshot_restore has no argument 'dryrun': did you mean 'dry_run'?",
        ),
        (
            "RE(snapshot_restore(-1, dry_run=0))",
            "snapshot_restore: dry_run=0 is neither True nor False; nothing was set",
        ),
        ("snapshot_diff(-1, tolerance='1')", "tolerance='1' is no tolerance: give a number, 0 or more"),
        (
            "snapshot_diff(True)",
            "True is no snapshot: give -1 for the last one, a scan number or the beginning of a uid",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(session, typed, line):
    shown = [told for told in session.run(typed).splitlines() if told.strip()]
    assert len(shown) == 1
    assert shown[0].startswith(line)


def test_the_files_written_behind_runs_take_snapshots_of_a_session_as_any_run(session):
    """Last: it leaves the session."""
    session.run('RE(snapshot([m1, "gp:gp:text1"], report=False))')
    number = int(session.run("RE.md['scan_id']").split()[-1])
    assert session.exit() == 0
    (path,) = session.directory.glob("*.dat")
    scan = path.read_text().split(f"#S {number}  snapshot()\n")[1]
    assert "#L Epoch_float  Epoch  m1  m1_user_setpoint  gp_gp_text1\n" in scan
    assert scan.rstrip().endswith(".  exit_status = success")
    assert "from = the shell" not in path.read_text()  # the shell's own is not for this file
    assert DataDirectory(session.directory / ".data").runs.is_dir()
