"""The NeXus file of the reference ("Callback" and "Export" of the NXWriter pages), tree and all.

`nexus_tree.txt` is the reference's printout of `punx tree`; what differs from it is listed here.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .printout import Difference, Mask, assert_same

REFERENCE = Path(__file__).with_name("nexus_tree.txt").read_text()
METADATA = "/entry/instrument/bluesky/metadata"

# Stock ophyd's motor forgets a move in a thousand on a busy machine, and the scan hangs: not this one.
SET_UP = """\
from apstools.synApps import setup_random_number_swait
from apstools.synApps import SwaitRecord
from apstools.utils import replay
from instrument.devices.statuses import ForgetsFirst
from ophyd import EpicsMotor
from ophyd import EpicsSignalRO
import pathlib
EpicsMotor = type("EpicsMotor", (ForgetsFirst, EpicsMotor), {})
IOC = "gp:"
motor = EpicsMotor(f"{IOC}m10", name="motor")
calc10 = SwaitRecord(f"{IOC}userCalc10", name="calc10")
sensor = EpicsSignalRO(calc10.calculated_value.pvname, name="sensor")
motor.wait_for_connection(timeout=30)
sensor.wait_for_connection(timeout=30)
calc10.wait_for_connection(timeout=30)
setup_random_number_swait(calc10)
sd.baseline.clear()
"""

MASKS = [
    Mask("uid", r"(?<!\w)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "a new run"),
    Mask("uid7", r"(?<=scan-S0001-)[0-9a-f]{7}", "a new run"),
    Mask("when", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+", "another day"),
    Mask("read when", r"(?<=timestamp=)[\d.]+(?=,)", "when the sensor was read"),
    Mask("number", r"(?<![\w.])(?:1\d{9}\.\d+|\d+\.\d{5,}(?:e-\d+)?)", "what was measured, and when"),
    Mask("file", r"/\S+/nxwriter\.h5", "a directory of its own"),
    Mask("versions", r"(?<=versions:NX_CHAR = ).*", "newer libraries, and more of them named"),
    Mask("HDF5", r"(?<=@HDF5_Version = ).*", "a newer library"),
    Mask("h5py", r"(?<=@h5py_version = ).*", "a newer library"),
]


def _field(name: str, value: str) -> str:
    return f'          {name}:{value}\n            @target = "{METADATA}/{name}"\n'


def _before(name: str, *fields: str) -> Difference:
    """Metadata of this session, which the reference's RunEngine({}) did not have."""
    line = f"          {name}:"
    return Difference(line, "".join(fields) + line, "the session's metadata are in every run")


DIFFERENCES = [
    Difference("@NeXus_version =", "@NeXus_release =", "apstools has renamed the attribute"),
    _before(
        "detectors",
        _field("beamline_id", "NX_CHAR = b'virtual_beamline'"),
        _field("databroker_catalog", "NX_CHAR = b'embedded'"),
    ),
    Difference(
        r"dimensions:\n- !!python/tuple\n  - - motor\n  - primary\n",
        r"dimensions:\n- - - motor\n  - primary\n",
        "runs come from the journal, where tuples are lists; the YAML is what yaml.safe_load reads",
    ),
    Difference(r"b'!!python/tuple\n- motor\n'", r"b'- motor\n'", "the same"),
    _before(
        "motors",
        _field("hostname", "NX_CHAR = b'<host>'"),
        _field("instrument_name", "NX_CHAR = b'class_2021_03'"),
        _field("login_id", "NX_CHAR = b'<login>'"),
    ),
    _before("plan_args", _field("pid", "NX_INT64[] =")),
    _before("run_start_uid", _field("proposal_id", "NX_CHAR = b'training'")),
]


def punx_tree(path: Path) -> str:
    """What `punx tree` prints, without its own first line, floats as numpy 1 wrote them, host and login hidden."""
    command = [str(Path(sys.executable).with_name("punx")), "tree", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    tree = done.stdout.partition("!!! WARNING: this program is not ready for distribution.")[2].lstrip()
    tree = re.sub(r"np\.float64\(([^)]*)\)", r"\1", tree)
    tree = re.sub(r"(?<=hostname:NX_CHAR = b').*(?=')", "<host>", tree)
    return re.sub(r"(?<=login_id:NX_CHAR = b').*(?=')", "<login>", tree)


@pytest.fixture(scope="module")
def scanned(session):
    """The reference's session up to its scan."""
    for line in SET_UP.splitlines():
        assert "Error" not in session.run(line)
    file = session.directory / "nxwriter.h5"
    session.run(f"h5_file = pathlib.Path('{file}')")
    session.run("RE.subscribe(nxwriter.receiver)")
    session.run("nxwriter.file_name = str(h5_file)")
    session.run("nxwriter.warn_on_missing_content = False")
    shown = session.run("RE(bp.scan([sensor], motor, -0.5, 0.5, 5))")
    assert "generator scan [" in shown
    return file


def test_callback_the_file_is_there_after_the_scan(session, scanned):
    session.run("nxwriter.wait_writer()")
    assert session.run('print(f"{h5_file.exists()=}  {h5_file=}")') == (
        f"h5_file.exists()=True  h5_file=PosixPath('{scanned}')"
    )


def test_callback_the_subscription_makes_no_second_file(session, scanned):
    session.run("wait_for_files()")
    assert [path.name for path in session.directory.rglob("*") if path.suffix in (".h5", ".hdf", ".part")] == [
        scanned.name
    ]


def test_callback_the_tree_is_the_references(session, scanned):
    session.run("wait_for_files()")
    assert_same(punx_tree(scanned), REFERENCE, MASKS, DIFFERENCES)


def test_export_by_replay_gives_the_same_tree_at_once(session, scanned):
    session.run("wait_for_files()")
    export = session.directory / "db_export.h5"
    session.run(f"h5_file = pathlib.Path('{export}')")
    session.run("nxwriter.file_name = str(h5_file)")
    session.run("nxwriter.warn_on_missing_content = False")
    session.run("replay(cat.v1[1], nxwriter.receiver)")
    assert "h5_file.exists()=True" in session.run('print(f"{h5_file.exists()=}  {h5_file=}")')
    again = re.sub(r"@file_time = .*", "", punx_tree(export).replace(str(export), str(scanned)))
    assert again == re.sub(r"@file_time = .*", "", punx_tree(scanned))


def test_stock_nxwriter_replays_the_run_as_well_and_differs_in_the_title_only(session, scanned):
    stock = session.directory / "stock.h5"
    session.run("from apstools.callbacks import NXWriter")
    session.run("stock = NXWriter()")
    session.run(f"stock.file_name = '{stock}'")
    session.run("stock.warn_on_missing_content = False")
    session.run("replay(cat.v1[1], stock.receiver)")
    deadline = time.monotonic() + 60
    while str(stock) not in session.run("print(getattr(stock, 'output_nexus_file', None))"):  # a thread writes it
        assert time.monotonic() < deadline
    ours, theirs = (
        [line for line in punx_tree(path).splitlines()[1:] if "@file_" not in line] for path in (scanned, stock)
    )
    assert [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b] == [
        (line, re.sub(r"scan-(S0001)", r"\1-scan", line)) for line in ours if "title:" in line
    ]
