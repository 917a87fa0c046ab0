"""Section "SPEC data files": the file that the shown counts write, line for line."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from spec2nexus.spec import SpecDataFile

from .printout import Difference, Mask, assert_same

COUNTS = (
    "RE(bp.count([scaler1, noisy, temperature], num=1))",
    "RE(bp.count([scaler1, noisy, temperature], num=5))",
    "RE(bp.count([temperature], num=5))",
)

REFERENCE_FILE = Path(__file__).parent / "reference.dat"  # the example of the reference
REFERENCE = REFERENCE_FILE.read_text()

MASKS = [
    Mask("directory", r"(?<=^#F )/\S+/\d{8}-\d{6}(?=\.dat$)", "working directory, and the time of the session's start"),
    Mask("epoch", r"(?<=^#E )\d+$", "time"),
    Mask("date", r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}", "time"),
    Mask("user", r"(?<=user = )\S+", "who, where"),
    Mask("host", r"(?<=host = )\S+", "who, where"),
    Mask("login", r"(?<=^#MD login_id = )\S+@\S+$", "who, where"),
    Mask("hostname", r"(?<=^#MD hostname = )\S+$", "who, where"),
    Mask("scan", r"(?<=^#S )\d+", "number of the scan; their three follow each other, see below"),
    Mask("uid", r"(?<=uid = )[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", "random"),
    Mask("pid", r"(?<=^#MD pid = )\d+$", "of the session"),
    Mask("versions", r"(?<=^#MD versions = )\{'apstools': '.*'\}$", "of the packages"),
]
# Readings, by the name of their column; all others are compared.
MEASURED = {
    "Epoch_float": "time",
    "Epoch": "time",
    "temperature_readback": "it has noise",
    "timebase": "follows scaler1_time",
    "I0": "random",
    "scint": "random",
    "diode": "random",
    "scaler1_time": "issue 2: 1.0 s, without the extra 0.1 s of the soft scaler (they counted 2 s)",
    "noisy": "random",
}
DIFFERENCES = [
    *(
        Difference(f"num={num})\n", f"num={num}, delay=0.0)\n", "bluesky 1.15 records a plan's delay, 1.6 did not")
        for num in (1, 5)
    ),
    Difference(
        "APS_Python_training_2021\n", "virtual_beamline\n#MD databroker_catalog = embedded\n", "issue 2: metadata"
    ),
    Difference("#MD instrument_name", "#MD hostname = host\n#MD instrument_name", "issue 2: metadata has the hostname"),
]


def with_masked_data(text: str) -> str:
    """Readings masked by their columns."""
    labels: list[str] = []
    lines = []
    for line in text.splitlines():
        shown = line
        if line.startswith("#L "):
            labels = line.split("  ")
            labels[0] = labels[0].removeprefix("#L ")
        elif line and not line.startswith("#"):
            values = dict(zip(labels, line.split(), strict=True))
            assert all(
                re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", values[label]) for label in MEASURED if label in values
            )
            shown = " ".join("<reading>" if label in MEASURED else value for label, value in values.items())
        lines.append(shown)
    return "\n".join(lines)


def with_columns_as_given(text: str) -> str:
    """The reference with the scaler's columns first.

    bluesky 1.6.7 had the objects of an event in the order of a set, any order; 1.15 has them as they are given.
    """
    begin, end = "timebase", "scaler1_time"
    order: list[int] = []
    lines = []
    for line in text.splitlines():
        shown = line
        if line.startswith("#L "):
            labels = line.removeprefix("#L ").split("  ")
            scaler = labels[labels.index(begin) : labels.index(end) + 1] if begin in labels else []
            rest = [label for label in labels[2:] if label not in scaler]
            moved = [*labels[:2], *scaler, *rest]
            order = [labels.index(label) for label in moved]
            shown = "#L " + "  ".join(moved)
        elif line and not line.startswith("#"):
            values = line.split()
            shown = " ".join(values[n] for n in order)
        lines.append(shown)
    return "\n".join(lines)


@pytest.fixture(scope="module")
def spec_file(session, directory):
    """The file of a session that has counted as the reference's had."""
    for count in COUNTS:
        assert "Out[" in session.run(count)
    assert session.run("print(wait_for_files())") == "True"
    (path,) = directory.glob("*.dat")
    return path


def test_the_file_is_that_of_the_startup_lines(session, spec_file):
    assert f" - writing to SPEC file: {spec_file}\n" in session.startup
    assert re.fullmatch(r"\d{8}-\d{6}\.dat", spec_file.name)


def test_the_file_is_line_for_line_as_in_the_reference(spec_file):
    # spec2nexus takes no True for a number, and reads no data at all of the reference's scans: so it is 1 in ours.
    reference = with_columns_as_given(REFERENCE.replace(" True ", " 1 "))
    ours = with_masked_data(spec_file.read_text())
    assert_same(ours, with_masked_data(reference), MASKS, DIFFERENCES)


def test_scan_numbers_follow_each_other(spec_file):
    assert re.findall(r"^#S (\d+)  ", spec_file.read_text(), flags=re.MULTILINE) == ["1", "2", "3"]
    assert re.findall(r"^#S (\d+)  ", REFERENCE, flags=re.MULTILINE) == ["216", "217", "218"]


def test_spec2nexus_reads_it(spec_file):
    scans = SpecDataFile(str(spec_file)).scans
    assert SpecDataFile(str(REFERENCE_FILE)).scans["216"].data["temperature_done"] == []  # hence 1 for True
    assert list(scans) == ["1", "2", "3"]
    for scan, points in zip(scans.values(), (1, 5, 5), strict=True):
        assert len(scan.data["temperature_readback"]) == points
        assert scan.data["temperature_setpoint"] == [25.0] * points
        assert scan.data["temperature_done"] == [1.0] * points
    # 1 s each, to the tick of the 10 MHz clock
    assert scans["2"].data["scaler1_time"] == [1.0] * 5
    assert scans["2"].data["timebase"] == [1e7] * 5
    assert scans["2"].U[0].startswith("0 temperature_calculation A+max(-D,min(D,(B-A)))+C*(RNDM-0.5)")


def test_metadata_has_the_versions_that_the_reference_has(spec_file):
    ours, theirs = (
        set(ast.literal_eval(re.findall(r"^#MD versions = (.*)$", text, flags=re.MULTILINE)[0]))
        for text in (spec_file.read_text(), REFERENCE)
    )
    assert theirs <= ours
