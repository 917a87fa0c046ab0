"""Runs of the journal as files: every format, resumed, refused, from the command line."""

import csv
import json
import re
import subprocess
import sys

import bluesky.plans as bp
import h5py
import numpy as np
import ophyd.sim
import pytest
from spec2nexus.spec import SpecDataFile

from instrument.callbacks import export
from instrument.callbacks.nexus import NexusWriter
from instrument.config.errors import UserError
from instrument.config.models import Nexus
from instrument.framework import runs as find_runs
from tests.callbacks.nexus import assert_valid
from tests.terminal import ROOT, clean_environment

from .conftest import Laboratory


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A working directory with three runs, numbers 1 to 3, and one that is open."""
    directory = tmp_path_factory.mktemp("beamline")
    laboratory = Laboratory(directory / ".data")
    odd = ophyd.Signal(name="odd", value=[1.0, float("nan")])
    laboratory.engine(bp.count([ophyd.sim.det, odd], num=2))
    laboratory.engine(bp.scan([ophyd.sim.det], ophyd.sim.motor, -1, 1, 3), sample="dirt")
    laboratory.engine(bp.count([ophyd.sim.det]))
    laboratory.journal("start", {"uid": "open-run", "time": 2e9, "scan_id": 4, "plan_name": "endless"})
    yield directory
    laboratory.close()


@pytest.fixture
def instrument(directory, monkeypatch, capsys):
    """Run `instrument` there: what it prints, its errors, its exit code."""
    from instrument.cli import main

    monkeypatch.chdir(directory)

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return shown.out.strip(), shown.err.strip(), code

    return run


@pytest.fixture(scope="module")
def index(directory):
    from instrument.framework.index import RunIndex
    from instrument.framework.runfiles import DataDirectory

    data = DataDirectory(directory / ".data")
    index = RunIndex(data.index, data.runs)
    yield index
    index.close()


def exported(index, kind, target, *numbers, force=False):
    rows = find_runs.select(index, scans=[",".join(map(str, numbers))])
    exporter = export.Exporter(Nexus(), kind, force=force)
    return export.export([export.of_journal(row) for row in rows], target, exporter)


def test_each_format_from_the_command_line_again_and_forced(instrument, directory, tmp_path):
    target = tmp_path / "files"
    for kind in ("nexus", "spec", "csv", "json"):
        assert instrument("export", "--scan", "1..3", "--format", kind, "--to", target) == (
            f"{target}: 3 written", "", 0,
        )  # fmt: skip
    names = sorted(re.sub(r"-[0-9a-f]{7}", "-uid", path.name) for path in target.iterdir())
    runs = ("00001-count-uid", "00002-scan-uid", "00003-count-uid")
    assert names == sorted(name + suffix for name in runs for suffix in (".hdf", ".dat", ".csv", ".json"))
    before = {path: path.stat().st_mtime_ns for path in target.iterdir()}
    for kind in ("nexus", "spec", "csv", "json"):
        assert instrument("export", "--scan", "1..3", "--format", kind, "--to", target) == (
            f"{target}: 0 written, 3 were there already", "", 0,
        )  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in target.iterdir()} == before
    assert instrument("export", "--last", 2, "--plan", "count", "--to", target, "--force")[::2] == (
        f"{target}: 2 written", 0,
    )  # fmt: skip


def test_an_export_that_was_cut_short_goes_on_and_what_is_in_its_way_is_left(instrument, tmp_path):
    target = tmp_path / "files"
    instrument("export", "--scan", "1..3", "--to", target)
    first, second, third = sorted(target.iterdir())
    first.unlink()
    second.write_text("my notes")
    shown, told, code = instrument("export", "--scan", "1..3", "--to", target)
    assert (shown, code) == (f"{target}: 1 written, 1 were there already, 1 not written", 1)
    assert told == (
        f"run 2: {second} exists and holds something else than this export: it is left as it is; "
        "move it away, or export with --force (force=True)"
    )
    assert second.read_text() == "my notes"
    assert instrument("export", "--scan", "1..3", "--to", target, "--force")[::2] == (f"{target}: 3 written", 0)
    for path in (first, second, third):
        assert_valid(path)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "which runs? --scan 12..20, --uid, --last 5, --since '2 h', --plan or --text say so"),
        (("--scan", "2..x"), "'2..x' are no scan numbers: write 12, 12..20, or 3,5,12..20"),
        (("--scan", "3..2"), "'3..2' are no scan numbers: write 12, 12..20, or 3,5,12..20"),
        (("--scan", "70..80"), "no run matches --scan 70..80; `instrument runs` lists them"),
        (("--uid", "zz"), "there is no run whose uid begins with 'zz'"),
        (("--last", "0"), "--last 0: give a whole number, 1 or more"),
        (("--since", "soon", "--last", "1"), "'soon' is no time: write a date"),
    ],
)
def test_a_selection_that_means_nothing_is_told_in_one_line(instrument, tmp_path, arguments, told):
    shown, line, code = instrument("export", "--to", tmp_path / "files", *arguments)
    assert (shown, code) == ("", 2)
    assert line.startswith(told)
    assert "\n" not in line
    assert not (tmp_path / "files").exists()


def test_a_target_that_is_no_directory_is_told(instrument, tmp_path):
    (tmp_path / "file").write_text("")
    assert instrument("export", "--last", 1, "--to", tmp_path / "file")[1:] == (
        f"--to {tmp_path / 'file'} is no directory", 2,
    )  # fmt: skip
    assert instrument("export", "--last", 1, "--to", tmp_path / "file" / "below")[1:] == (
        f"--to {tmp_path / 'file' / 'below'} can't be made (Not a directory)", 2,
    )  # fmt: skip


def test_a_run_that_is_open_is_not_exported_and_the_others_are(instrument, tmp_path):
    shown, told, code = instrument("export", "--scan", "3..4", "--to", tmp_path)
    assert (shown, told, code) == (f"{tmp_path}: 1 written, 1 not written", "run 4: it has not ended", 1)


def test_a_bar_is_shown_at_a_terminal_and_nowhere_else(directory, tmp_path):
    import pexpect

    command = ["-m", "instrument.cli", "export", "--scan", "1..3", "--format", "json", "--to", str(tmp_path)]
    environment = clean_environment(directory, PYTHONPATH=str(ROOT))
    bar = pexpect.spawn(
        sys.executable, command, cwd=str(directory), env=environment, encoding="utf-8", timeout=60, use_poll=True
    )
    bar.expect("3/3")
    bar.expect(pexpect.EOF)
    bar.close()
    assert bar.exitstatus == 0


@pytest.mark.parametrize(("kind", "slow"), [("csv", ["apstools", "h5py"]), ("nexus", [])])
def test_exporting_starts_neither_a_session_nor_an_ioc_and_imports_little(directory, tmp_path, kind, slow):
    slow += ["ophyd", "instrument.session", "bluesky", "virtual_beamline", "databroker", "pandas", "dask"]
    script = (
        "import sys; from instrument.cli import main; code = main(sys.argv[1:]);"
        f"print(code, sorted({set(slow)} & {{*sys.modules}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "export", "--scan", "1..3", "--format", kind, "--to", str(tmp_path)],
        cwd=directory,
        env=clean_environment(directory, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0 []"


# --- what is in them


def test_nexus_is_what_the_session_writes(index, tmp_path):
    done = exported(index, "nexus", tmp_path / "one.h5", 2)
    assert done.written == [tmp_path / "one.h5"]
    (row,) = find_runs.select(index, scans=["2"])
    writer = NexusWriter(Nexus(enabled=True), tmp_path / "session")
    from instrument.framework.runfiles import RunFile

    path = writer.deliver(iter(RunFile(row.path)), writer.assign(row.start))
    found = []
    for name in (tmp_path / "one.h5", path):
        with h5py.File(name) as file:
            names = []
            file.visit(names.append)
            found.append((names, file["entry/data/det"][:].tolist(), file["entry/entry_identifier"][()]))
    assert found[0] == found[1]


def test_spec_is_read_by_spec2nexus(index, tmp_path):
    exported(index, "spec", tmp_path / "one.dat", 2)
    file = SpecDataFile(str(tmp_path / "one.dat"))
    assert list(file.scans) == ["2"]
    assert file.scans["2"].data["motor"] == [-1.0, 0.0, 1.0]


def test_csv_has_a_line_for_each_event_and_a_file_for_each_stream(index, tmp_path, make_laboratory):
    exported(index, "csv", tmp_path / "one.csv", 1)
    with (tmp_path / "one.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["seq_num", "time", "det", "odd"]
    assert [row["seq_num"] for row in rows] == ["1", "2"]
    assert json.loads(rows[0]["odd"]) == [1.0, None]
    assert float(rows[0]["det"]) == pytest.approx(float(ophyd.sim.det.read()["det"]["value"]), abs=2)

    import bluesky.preprocessors as bpp

    laboratory = make_laboratory(tmp_path / "data")
    laboratory.engine(bpp.baseline_wrapper(bp.count([ophyd.sim.det]), [ophyd.sim.motor1]))
    exported(laboratory.index, "csv", tmp_path / "two.csv", 1)
    assert (tmp_path / "two-baseline.csv").read_text().splitlines()[0] == "seq_num,time,motor1,motor1_setpoint"
    assert len((tmp_path / "two.csv").read_text().splitlines()) == 2


def test_json_is_every_document_and_strict(index, tmp_path):
    exported(index, "json", tmp_path / "one.json", 1)
    documents = json.loads((tmp_path / "one.json").read_text(), parse_constant=pytest.fail)
    assert [each["name"] for each in documents] == ["start", "descriptor", "event", "event", "stop"]
    assert documents[2]["doc"]["data"]["odd"] == [1.0, None]
    (row,) = find_runs.select(index, scans=["1"])
    assert documents[0]["doc"]["uid"] == row.uid


def test_arrays_and_scalars_of_numpy_become_lists_and_numbers():
    value = {"a": np.arange(3), "b": np.float32(0.5), "c": [np.inf, (1, b"x")], "d": np.datetime64("2026-01-01")}
    assert export._json(value) == {"a": [0, 1, 2], "b": 0.5, "c": [None, [1, "x"]], "d": "2026-01-01"}


def test_several_runs_to_one_name_become_several_files(index, tmp_path):
    done = exported(index, "json", tmp_path / "all.json", 1, 3)
    uids = [row.uid[:7] for row in find_runs.select(index, scans=["1,3"])]
    assert done.written == [tmp_path / f"all-0000{n}-{uid}.json" for n, uid in zip((1, 3), uids, strict=True)]


def test_a_file_that_cannot_be_written_is_told_and_the_others_are_written(index, tmp_path):
    (row,) = find_runs.select(index, scans=["2"])
    blocked = tmp_path / f"00002-scan-{row.uid[:7]}.csv"
    blocked.mkdir()
    done = exported(index, "csv", tmp_path, 1, 2, 3)
    assert len(done.written) == 2
    assert re.fullmatch(rf"run 2: {re.escape(str(blocked))} exists and holds something else .*", done.failures[0])


def test_runs_of_databroker_are_exported_like_those_of_the_journal(index, directory, tmp_path):
    from instrument.framework.embedded import EmbeddedCatalog

    catalog = EmbeddedCatalog(directory / ".data", index=index)
    for number, run in enumerate((catalog[2], catalog.v1[2])):
        export.Exporter(Nexus(), "csv").write(export.of_catalog(run), tmp_path / f"{number}.csv")
    exported(index, "csv", tmp_path / "2.csv", 2)
    texts = [(tmp_path / f"{number}.csv").read_text() for number in range(3)]
    assert texts[0] == texts[1] == texts[2]
    with pytest.raises(UserError, match=r"12\.5 is no run: give a scan number, -1 for the last one, a uid, or cat"):
        export.of_catalog(12.5)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("a.h5", None, "nexus"), ("a.NXS", None, "nexus"), ("a.dat", None, "spec"), ("a.csv", None, "csv"),
        ("a.txt", "json", "json"), ("a", None, "nexus"),
    ],
)  # fmt: skip
def test_the_suffix_means_the_format(tmp_path, name, kind, expected):
    assert export.format_of(tmp_path / name, kind) == expected


def test_a_suffix_or_format_that_means_nothing_is_told(tmp_path):
    with pytest.raises(UserError, match=r"a\.xlsx: \.xlsx names no format; use .hdf"):
        export.format_of(tmp_path / "a.xlsx", None)
    with pytest.raises(UserError, match="there is no format 'nexsu'; did you mean 'nexus'"):
        export.format_of(tmp_path / "a", "nexsu")
