"""SPEC data files: line for line what the reference shows, once per run, whatever the runs are like."""

import datetime
import fcntl
import logging
import math
import multiprocessing
import os
import re
import resource
import threading
import time
from pathlib import Path

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky import Msg
from bluesky.utils import RunEngineInterrupted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ophyd import Component as Cpt
from ophyd import Device, Kind, Signal
from ophyd.sim import det, det2, motor
from spec2nexus.spec import SpecDataFile

from instrument.callbacks.spec import SpecWriter
from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME

# Two scans of the reference. Times are those of its time zone; booleans are numbers here, because a reader of SPEC
# files drops a row with a word in it.
REFERENCE = """\
#F {file}
#E 1614140753
#D Tue Feb 23 22:25:53 2021
#C Bluesky  user = mintadmin  host = mint-vm
#O0{space}
#o0{space}

#S 216  count(detectors=['temperature', 'noisy'], num=1)
#D Tue Feb 23 22:25:59 2021
#C Tue Feb 23 22:25:59 2021.  plan_type = generator
#C Tue Feb 23 22:25:59 2021.  uid = 8c4f4b62-81ec-4fe3-bfa2-18178d37876b
#MD uid = 8c4f4b62-81ec-4fe3-bfa2-18178d37876b
#MD beamline_id = APS_Python_training_2021
#MD detectors = ['temperature', 'noisy']
#MD instrument_name = class_2021_03
#MD login_id = mintadmin@mint-vm
#MD num_intervals = 0
#MD num_points = 1
#MD pid = 20559
#MD proposal_id = training
#MD versions = {{'apstools': '1.4.0', 'bluesky': '1.6.7'}}
#P0{space}
#N 8
#L Epoch_float  Epoch  temperature_setpoint  temperature_readback  temperature_done  temperature_calculation  \
temperature  noisy
2.859903573989868 3 25.0 25.35954070344091 1 0 0 29.61249046818531
#U 0 temperature_calculation A+max(-D,min(D,(B-A)))+C*(RNDM-0.5)
#C Tue Feb 23 22:26:02 2021.  num_events_baseline = 2
#C Tue Feb 23 22:26:02 2021.  num_events_primary = 1
#C Tue Feb 23 22:26:02 2021.  exit_status = success

#S 217  count(detectors=['temperature', 'noisy'], num=2)
#D Tue Feb 23 22:26:02 2021
#C Tue Feb 23 22:26:02 2021.  plan_type = generator
#C Tue Feb 23 22:26:02 2021.  uid = 1e857ae9-b5bf-4965-a709-b290fb04d30f
#MD uid = 1e857ae9-b5bf-4965-a709-b290fb04d30f
#MD beamline_id = APS_Python_training_2021
#MD detectors = ['temperature', 'noisy']
#MD instrument_name = class_2021_03
#MD login_id = mintadmin@mint-vm
#MD num_intervals = 1
#MD num_points = 2
#MD pid = 20559
#MD proposal_id = training
#MD versions = {{'apstools': '1.4.0', 'bluesky': '1.6.7'}}
#P0{space}
#N 8
#L Epoch_float  Epoch  temperature_setpoint  temperature_readback  temperature_done  temperature_calculation  \
temperature  noisy
3.391828775405884 3 25.0 25.304470893415733 1 0 0 29.61249046818531
#U 0 temperature_calculation A+max(-D,min(D,(B-A)))+C*(RNDM-0.5)
6.6996848583221436 7 25.0 24.56161593041886 1 1 0 29.61249046818531
#U 1 temperature_calculation A+max(-D,min(D,(B-A)))+C*(RNDM-0.5)
#C Tue Feb 23 22:26:19 2021.  num_events_baseline = 2
#C Tue Feb 23 22:26:19 2021.  num_events_primary = 2
#C Tue Feb 23 22:26:19 2021.  exit_status = success
"""


def at(text):
    return datetime.datetime.strptime(f"2021-02-23 {text}", "%Y-%m-%d %H:%M:%S").timestamp()


def reference_run(scan_id, uid, started, ended, rows):
    start = {
        "uid": uid,
        "time": at(started),
        "scan_id": scan_id,
        "plan_type": "generator",
        "plan_name": "count",
        "plan_args": {"detectors": ["T(name='temperature')", "N(name='noisy')"], "num": len(rows)},
        "detectors": ["temperature", "noisy"],
        "hints": {"dimensions": [[["time"], "primary"]]},
        "beamline_id": "APS_Python_training_2021",
        "instrument_name": "class_2021_03",
        "login_id": "mintadmin@mint-vm",
        "num_intervals": len(rows) - 1,
        "num_points": len(rows),
        "pid": 20559,
        "proposal_id": "training",
        "versions": {"apstools": "1.4.0", "bluesky": "1.6.7"},
    }
    yield "start", start
    columns = ["setpoint", "readback", "done", "calculation"]
    data_keys = {f"temperature_{column}": {} for column in columns} | {"noisy": {}}
    hints = {"temperature": {"fields": ["temperature_readback"]}, "noisy": {"fields": ["noisy"]}}
    yield "descriptor", {"uid": "b", "name": "baseline", "data_keys": {"m1": {}}, "hints": {}, "time": at(started)}
    yield "descriptor", {"uid": "d", "name": "primary", "data_keys": data_keys, "hints": hints, "time": at(started)}
    yield "event", {"descriptor": "b", "data": {"m1": 1.0}, "time": at(started), "seq_num": 1}
    for number, (delay, readback) in enumerate(rows):
        data = dict(zip(data_keys, [25.0, readback, True, CALCULATION, 29.61249046818531], strict=True))
        yield "event", {"descriptor": "d", "data": data, "time": at(started) + delay, "seq_num": number + 1}
    events = {"baseline": 2, "primary": len(rows)}
    yield "stop", {"run_start": uid, "time": at(ended), "exit_status": "success", "num_events": events}


CALCULATION = "A+max(-D,min(D,(B-A)))+C*(RNDM-0.5)"
FIRST, SECOND = "8c4f4b62-81ec-4fe3-bfa2-18178d37876b", "1e857ae9-b5bf-4965-a709-b290fb04d30f"


def first_run():
    return reference_run(216, FIRST, "22:25:59", "22:26:02", [(2.859903573989868, 25.35954070344091)])


def second_run():
    rows = [(3.391828775405884, 25.304470893415733), (6.6996848583221436, 24.56161593041886)]
    return reference_run(217, SECOND, "22:26:02", "22:26:19", rows)


def reference_assignment(path):
    return {"file": str(path), "epoch": 1614140753, "user": "mintadmin", "host": "mint-vm"}


@pytest.fixture
def writer(tmp_path):
    return SpecWriter(tmp_path, {})


@pytest.fixture
def at_reference_time(monkeypatch):
    """#D of the header is the local time of an epoch in the reference's time zone."""
    monkeypatch.setenv("TZ", "UTC+6")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def deliver(writer, documents, notes=()):
    documents = list(documents)
    return Path(writer.deliver(documents, writer.assign(documents[0][1]), notes))


def scans(path):
    return SpecDataFile(str(path))


def test_file_is_the_references_line_for_line(writer, tmp_path, at_reference_time):
    path = tmp_path / "20210223-222553.dat"
    for run in (first_run(), second_run()):
        assert writer.deliver(run, reference_assignment(path)) == str(path)
    assert path.read_text().splitlines() == REFERENCE.format(file=path, space=" ").splitlines()
    assert path.read_text() == REFERENCE.format(file=path, space=" ")


def test_spec2nexus_reads_what_was_measured(writer, record):
    path = deliver(writer, record(bp.scan([det, det2], motor, -1, 1, 5), sample="x"))
    deliver(writer, record(bp.count([det], 3)))
    read = scans(path)
    assert read.getScanNumbers() == ["1", "2"]
    scan = read.getScan("1")
    assert scan.L == ["motor", "Epoch_float", "Epoch", "motor_setpoint", "det", "det2"]
    assert scan.data["motor"] == pytest.approx([-1, -0.5, 0, 0.5, 1])
    assert scan.data["det"] == pytest.approx(list(np.exp(-(np.array(scan.data["motor"]) ** 2) / 2)))
    assert scan.MD["motors"] == "['motor']"
    assert scan.S.startswith("1  scan(detectors=['det', 'det2'], num=5")
    assert len(read.getScan("2").data["det"]) == 3


def test_a_run_is_written_once_however_often_it_is_delivered(writer, tmp_path):
    path = tmp_path / "a.dat"
    for run in (first_run, second_run, first_run, second_run):
        writer.deliver(run(), reference_assignment(path))
    for run in (second_run, first_run):  # as after a restart
        SpecWriter(tmp_path, {}).deliver(run(), reference_assignment(path))
    assert re.findall(r"^#S (\d+)", path.read_text(), re.MULTILINE) == ["216", "217"]


def test_a_file_is_not_written_while_another_session_writes(writer, tmp_path):
    path = tmp_path / "a.dat"
    path.touch()
    with path.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = threading.Thread(target=writer.deliver, args=(first_run(), reference_assignment(path)))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        assert path.read_text() == ""
    thread.join(10)
    assert path.read_text().count("#S ") == 1


@pytest.mark.parametrize("which", ["first", "second"])
def test_a_write_cut_short_by_a_kill_is_made_good(tmp_path, which):
    whole = tmp_path / "whole.dat"
    runs = {"first": [first_run], "second": [second_run, first_run]}[which]
    for run in runs:
        SpecWriter(tmp_path, {}).deliver(run(), reference_assignment(whole))
    text = whole.read_bytes()
    torn = tmp_path / "whole.dat"
    begin = 0 if which == "first" else text.index(b"\n#S 216") + 5
    for cut in [*range(begin + 1, begin + 60), *range(begin + 60, len(text), 37)]:
        torn.write_bytes(text[:cut])
        SpecWriter(tmp_path, {}).deliver(first_run(), reference_assignment(torn))
        assert torn.read_bytes() == text, f"cut after {cut} bytes"


def test_a_full_disk_leaves_the_file_as_it_was_and_is_told_in_one_line(writer, tmp_path):
    path = tmp_path / "a.dat"
    writer.deliver(first_run(), reference_assignment(path))
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
    try:
        with pytest.raises(UserError, match=r"a\.dat can't be written") as caught:
            writer.deliver(second_run(), reference_assignment(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)  # so that the outbox tries again
    writer.deliver(second_run(), reference_assignment(path))
    assert path.read_text().count("#S ") == 2


@pytest.mark.parametrize("where", ["gone/a.dat", "/dev/full", ""])
def test_a_file_that_can_not_be_written_is_told_in_one_line(writer, tmp_path, where):
    with pytest.raises(UserError, match="it is safe in the journal") as caught:
        writer.deliver(first_run(), reference_assignment(tmp_path / where))
    assert "\n" not in str(caught.value)


def _write_many(directory, path, first):
    own = SpecWriter(directory, {})
    for number in range(first, first + 20):
        uid = f"{number:08d}-0000-4000-8000-000000000000"
        own.deliver(reference_run(number, uid, "22:25:59", "22:26:02", [(1.0, 25.0)]), reference_assignment(path))


def test_two_sessions_may_write_to_one_file(tmp_path):
    path = tmp_path / "a.dat"
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_write_many, args=(tmp_path, path, first)) for first in (100, 200)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(map(int, scans(path).getScanNumbers())) == [*range(100, 120), *range(200, 220)]
    assert path.read_text().count("exit_status = success") == 40
    assert path.read_text().count("#F ") == 1


_text = st.text(max_size=30) | st.sampled_from(["a\n#S 7  bad()", "x\r#F y", "\u2028#S 1", "'", "\ud800"])


@given(
    st.dictionaries(_text.filter(bool), _text | st.lists(_text, max_size=3) | st.dictionaries(_text, _text), max_size=4)
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_metadata_breaks_the_format(tmp_path, md):
    reserved = ("uid", "time", "scan_id", "plan_type", "plan_name", "plan_args", "hints", "detectors", "motors")
    documents = list(first_run())
    documents[0][1].update({key: value for key, value in md.items() if key not in reserved})
    path = tmp_path / "a.dat"
    path.unlink(missing_ok=True)
    SpecWriter(tmp_path, {}).deliver(documents, reference_assignment(path))
    lines = path.read_bytes().decode().splitlines()
    assert [line for line in lines if line.startswith(("#S", "#F", "#L"))][1].startswith("#S 216  count(")
    assert len([line for line in lines if line.startswith(("#S", "#F", "#L"))]) == 3
    assert scans(path).getScan("216").data["noisy"] == [29.61249046818531]


@pytest.mark.parametrize(
    "md",
    [
        {"plan_args": None},
        {"plan_args": {"detectors": "x", "motor": None, "args": 3}},
        {"hints": None, "detectors": 5},
        {"plan_args": {"args": ["a\n#S 3 b"]}},
        {"plan_type": None, "plan_name": None, "scan_id": None},
    ],
)
def test_a_start_document_of_any_kind_is_written(writer, md):
    documents = list(first_run())
    documents[0][1].update(md)
    path = deliver(writer, documents)
    assert path.read_text().count("\n#S ") == 1
    assert "exit_status = success" in path.read_text()


class Odd(Device):
    """Readings that are no numbers."""

    spectrum = Cpt(Signal, value=np.arange(4.0), kind=Kind.normal)
    image = Cpt(Signal, value=np.zeros((20, 30)), kind=Kind.normal)
    label = Cpt(Signal, value="two words\nand a line", kind=Kind.normal)
    nothing = Cpt(Signal, value=math.nan, kind=Kind.normal)
    number = Cpt(Signal, value=7, kind=Kind.normal)


def test_arrays_texts_and_nan_leave_a_table_that_can_be_read(writer, record):
    path = deliver(writer, record(bp.count([Odd("", name="odd")], 2)))
    scan = scans(path).getScan("1")
    assert scan.data["odd_number"] == [7.0, 7.0]
    assert all(math.isnan(value) for value in scan.data["odd_nothing"])
    assert scan.data["odd_label"] == [0.0, 1.0]  # the row, which says which #U line has the text
    lines = path.read_text().splitlines()
    assert "#U 0 odd_spectrum [0.0, 1.0, 2.0, 3.0]" in lines
    assert "#U 1 odd_image array of shape (20, 30), in the catalog only" in lines
    assert r"#U 0 odd_label two words\nand a line" in lines


def test_other_streams_are_counted_not_written(writer, record):
    def plan():
        yield from bps.open_run()
        yield from bps.trigger_and_read([det2], name="other")
        yield from bps.trigger_and_read([det])
        yield from bps.close_run()

    path = deliver(writer, record(plan()))
    assert scans(path).getScan("1").L == ["Epoch_float", "Epoch", "det"]
    assert ".  num_events_other = 1" in path.read_text()


def test_a_run_without_a_primary_stream_is_a_scan_without_data(writer, record):
    path = deliver(writer, record([Msg("open_run"), Msg("close_run")]))
    assert "#N 0\n#C no data column labels identified\n" in path.read_text()
    assert scans(path).getScanNumbers() == ["1"]


def test_an_aborted_run_keeps_its_data_and_says_so(writer, record):
    def plan():
        yield from bps.open_run()
        yield from bps.trigger_and_read([det])
        yield from bps.checkpoint()
        yield from bps.close_run("abort", "had enough")

    path = deliver(writer, record(plan()))
    assert len(scans(path).getScan("1").data["det"]) == 1
    assert ".  exit_status = abort" in path.read_text()


def test_a_run_that_never_stopped_is_written_and_says_so(writer):
    path = deliver(writer, [pair for pair in first_run() if pair[0] != "stop"])
    assert path.read_text().endswith(".  exit_status = not available\n")


def test_a_reconfigured_detector_loses_no_rows(writer, record):
    def plan():
        yield from bps.open_run()
        yield from bps.trigger_and_read([det])
        yield from bps.configure(det, {"Imax": 2})
        yield from bps.trigger_and_read([det])
        yield from bps.close_run()

    try:
        path = deliver(writer, record(plan()))
    finally:
        det.configure({"Imax": 1})  # one object for all tests of a process
    assert len(scans(path).getScan("1").data["det"]) == 2


def test_event_pages_are_rows(writer, record):
    from event_model import pack_event_page

    documents = record(bp.count([det], 3))
    events = [doc for name, doc in documents if name == "event"]
    paged = [pair for pair in documents if pair[0] != "event"]
    paged.insert(-1, ("event_page", pack_event_page(*events)))
    assert len(scans(deliver(writer, paged)).getScan("1").data["det"]) == 3


def test_positioners_are_named_in_the_head_and_valued_in_the_scan(writer, record):
    def plan(value):
        yield from bps.mv(motor, value)
        yield from bps.open_run()
        yield from bps.trigger_and_read([motor], name="label_start_motor")
        yield from bps.trigger_and_read([det])
        yield from bps.close_run()

    path = deliver(writer, record(plan(1.5)))
    deliver(writer, record(plan(2.5)))
    text = path.read_text()
    assert text.count("#O0 motor\n#o0 motor\n") == 1
    assert re.findall(r"#P0 (.*)", text) == ["1.5", "2.5"]
    deliver(writer, record(bp.count([det])))  # no positioners: a head of its own
    assert path.read_text().count("\n#F ") == 1


def test_comments_are_written_where_they_belong(writer, record):
    writer.spec_comment("before\nthe run")
    documents = record(bp.count([det]))
    notes = [*writer._early_notes, *({"text": kind, "doc": kind, "time": time.time()} for kind in ("start", "stop"))]
    notes.append({"text": "meanwhile", "doc": None, "time": time.time()})
    text = deliver(writer, documents, notes).read_text()
    found = re.findall(r"^(?:#C .*\.  |#)(before|the run|start|stop|meanwhile|MD uid|L )", text, re.MULTILINE)
    assert found == ["before", "the run", "start", "MD uid", "L ", "meanwhile", "stop"]


def test_a_comment_for_no_such_place_is_refused(writer):
    with pytest.raises(UserError, match=r"no place 'end'.*start, descriptor"):
        writer.spec_comment("x", "end")


def test_default_name_and_what_the_log_says(tmp_path, caplog):
    with caplog.at_level(logging.INFO, LOGGER_NAME):
        writer = SpecWriter(tmp_path, {})
        writer.announce()
    assert re.fullmatch(r"\d{8}-\d{6}\.dat", writer.spec_filename.name)
    assert writer.spec_filename.parent == tmp_path
    assert not writer.spec_filename.exists()
    assert [record.getMessage() for record in caplog.records] == [
        f"writing to SPEC file: {writer.spec_filename}",
        "   >>>>   Using default SPEC file name   <<<<",
        "   file will be created when bluesky ends its next scan",
        "   to change SPEC file, use command:   newSpecFile('title')",
    ]


def test_new_spec_file_is_named_by_day_and_title(writer, tmp_path):
    path = writer.newSpecFile("x+y = 12% (by weight)")
    assert path == writer.spec_filename == tmp_path / f"{datetime.date.today():%m_%d}_x_y___12___by_weight_.dat"


def test_scan_numbers_go_on_above_those_of_the_file(tmp_path):
    md = {"scan_id": 3}
    writer = SpecWriter(tmp_path, md)
    path = writer.newSpecFile("title")
    assert md["scan_id"] == 3
    writer.deliver(second_run(), writer.assign({}))  # number 217
    again = SpecWriter(tmp_path, md)
    assert again.newSpecFile("title") == path
    assert md["scan_id"] == 217
    again.newSpecFile("other", scan_id=500)
    assert md["scan_id"] == 500
    again.newSpecFile("title", scan_id=2)
    assert md["scan_id"] == 500  # never lower, so that no number comes twice


def test_the_file_is_the_one_chosen_when_the_run_began(writer, record):
    documents = record(bp.count([det]))
    assignment = writer.assign(documents[0][1])
    writer.newSpecFile("later")
    assert writer.deliver(documents, assignment) == assignment["file"] != str(writer.spec_filename)


@pytest.mark.parametrize("title", [None, "", "  ", 5])
def test_a_title_is_needed(writer, title):
    with pytest.raises(UserError, match="needs a title"):
        writer.newSpecFile(title)


def test_a_directory_is_no_spec_file(writer, tmp_path):
    (tmp_path / "a.dat").mkdir()
    with pytest.raises(UserError, match=r"a\.dat can't be used \(Is a directory\)"):
        writer.newfile("a.dat")


def test_newfile_without_a_name_goes_back_to_a_default_one(writer):
    writer.newSpecFile("title")
    assert re.fullmatch(r"\d{8}-\d{6}\.dat", writer.newfile().name)


def test_subscribing_it_by_habit_makes_no_second_copy(writer, run_engine, record, caplog):
    with caplog.at_level(logging.INFO, LOGGER_NAME):
        run_engine.subscribe(writer.receiver)
        path = deliver(writer, record(bp.count([det])))
    assert path.read_text().count("#S ") == 1
    assert len(os.listdir(path.parent)) == 1
    assert len([r for r in caplog.records if "it does nothing" in r.getMessage()]) == 1


def test_a_file_that_someone_else_shortened_is_read_anew(writer, tmp_path):
    path = tmp_path / "a.dat"
    writer.deliver(first_run(), reference_assignment(path))
    path.unlink()
    writer.deliver(first_run(), reference_assignment(path))
    assert path.read_text().count("#S 216") == 1
    assert path.read_text().startswith("#F ")


def test_behind_journal_and_outbox_with_comments_of_a_plan(tmp_path, run_engine):
    from instrument.callbacks.journal import Journal
    from instrument.callbacks.outbox import Outbox

    journal = Journal(tmp_path / "runs")
    reports = []
    outbox = Outbox(tmp_path / "runs", tmp_path / "outbox.sqlite", reports.append)
    run_engine.subscribe(journal)
    run_engine.subscribe(outbox)
    writer = SpecWriter(tmp_path, run_engine.md, outbox.note)
    outbox.add(writer)
    outbox.start()
    try:

        @bpp.run_decorator()
        def plan():
            yield from bps.trigger_and_read([det])
            writer.spec_comment("in the plan")

        writer.spec_comment("at the prompt")
        run_engine(plan())
        assert outbox.wait(30)
    finally:
        outbox.close(5)
        journal.close()
    text = writer.spec_filename.read_text()
    assert reports == []
    assert re.search(r"at the prompt\n(.*\n)*#L (.*\n)*.*in the plan\n", text)


def test_interrupted_runs_are_written_too(writer, run_engine, record):
    def plan():
        yield from bps.open_run()
        yield from bps.trigger_and_read([det])
        yield from bps.pause()
        yield from bps.close_run()

    with pytest.raises(RunEngineInterrupted):
        record(plan())
    seen = record.runs[0]
    token = run_engine.subscribe(lambda name, doc: seen.append((name, doc)))
    run_engine.abort("enough")
    run_engine.unsubscribe(token)
    assert ".  exit_status = abort" in deliver(writer, seen).read_text()
