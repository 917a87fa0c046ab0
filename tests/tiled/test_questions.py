"""The reference's questions, answered by the server on both databases."""

import datetime
import zoneinfo

import pytest

from instrument import tiled_client
from instrument.config.errors import UserError
from instrument.framework.runfiles import RunFile
from instrument.tiled import connection
from instrument.tiled.connection import Server as Connection
from instrument.tiled.writing import TiledConsumer

from .kinds import EPOCH, Recorder

SCANS = {  # kind: metadata; they begin 1000 s apart
    "first": {"plan_name": "scan", "sample": {"name": "silver behenate"}, "title": "Strain in steel", "n": 17},
    "second": {
        "plan_name": "rel_scan",
        "sample": {"name": "Lanthanum hexaboride"},
        "title": "100% _real_",
        "calibrant": "bone-ash",
    },
    "third": {
        "plan_name": "count",
        "sample": {"name": "Ångström"},
        "tags": ["calibration", "SAXS/WAXS"],
        "note": "it's of 2026-05-01",
        "file": "niobium.dat",
    },
}


@pytest.fixture(scope="module")
def questions(server, tmp_path_factory):
    recorder = Recorder(tmp_path_factory.mktemp("questions"))
    for kind, metadata in SCANS.items():
        recorder.scan(kind, points=3, **{key: value for key, value in metadata.items() if key != "plan_name"})
    recorder.close()
    consumer = TiledConsumer(Connection(server.files), "questions")
    for path in sorted(recorder.data.runs.glob("*/*/*.msgpack")):
        documents = list(RunFile(path))
        kind = documents[0][1]["kind"]
        documents[0][1]["plan_name"] = SCANS[kind]["plan_name"]
        consumer.begin(documents[0][1]).take(documents)
    consumer.close()
    recorder.catalog = tiled_client.connect(server.url, api_key=server.read_key, catalog="questions")
    recorder.server = server
    return recorder


def kinds(runs):
    """Which runs were found, oldest first."""
    return [run.start["kind"] for run in reversed(list(runs))]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ({}, "first second third"),
        ({"plan": "scan"}, "first"),
        ({"scan_id": 2}, "second"),
        ({"sample__name": "silver behenate"}, "first"),
        ({"metadata": {"sample.name": "Ångström", "stop.exit_status": "success"}}, "third"),
        ({"n": 17}, "first"),
        ({"n": 18}, ""),
        ({"text": "steel"}, "first"),
        ({"text": "stee"}, ""),  # whole words, as stock
        ({"text": "STEEL in"}, "first"),
        ({"text": "bone-ash"}, "second"),
        ({"text": "ash silver-behenate"}, ""),
        ({"text": "niobium.dat"}, "third"),
        ({"text": "100%"}, "second"),
        ({"text": "it's 2026-05-01"}, "third"),
        ({"text": 'NOT "steel'}, ""),
        ({"text": "kind"}, ""),  # names of keys are no metadata
        ({"text": "scan"}, "first second"),
        ({"like": "STEE"}, "first"),
        ({"like": "stee", "case_sensitive": True}, "first"),
        ({"like": "STEE", "case_sensitive": True}, ""),
        ({"like": "behen SILV"}, "first"),  # several words, in any order
        ({"like": '"silver behen"'}, "first"),
        ({"like": '"behen silver"'}, ""),
        ({"like": "silver hexaboride"}, ""),  # all of them in one run
        ({"like": "%"}, "second"),  # no wildcards
        ({"like": "_real_"}, "second"),
        ({"like": "ång"}, "third"),
        ({"like": "ÅNG"}, "third"),
        ({"like": "saxs/w"}, "third"),  # in a list
        ({"like": "can", "key": "plan_name"}, "first second"),
        ({"like": "boride", "key": "sample.name"}, "second"),
        ({"like": "silver", "key": "title"}, ""),
        ({"like": "kind"}, ""),  # names of keys are no metadata
        ({"regex": r"^Strain\s"}, "first"),
        ({"regex": r"^STRAIN\s"}, "first"),
        ({"regex": r"^STRAIN\s", "case_sensitive": True}, ""),
        ({"regex": "^(rel_)?scan$", "key": "plan_name"}, "first second"),
        ({"regex": r"\d+%", "plan": "rel_scan"}, "second"),
        ({"regex": r"\bsteel\b"}, "first"),
        ({"regex": r"\bstee\b"}, ""),
        ({"regex": r"\Bteel", "key": "title"}, "first"),
        ({"regex": r"^(?P<what>St)[^\W\d]+ in"}, "first"),
        ({"regex": r"^[\[:alp0-9]{2,}[\]\b%]?.(?=_)", "key": "title"}, "second"),
        ({"regex": r"^[\w.]+\.dat$|(?<!a)_real_|it's(?!\sof)", "case_sensitive": True}, "second third"),
        ({"regex": "(?i)STRAIN", "case_sensitive": True}, "first"),
        ({"plan": "scan", "like": "boride"}, ""),
        ({"since": EPOCH + 1000}, "second third"),
        ({"until": EPOCH + 1000}, "first"),
        ({"since": EPOCH + 500, "until": EPOCH + 1500}, "second"),
    ],
)
def test_found_by_the_server(questions, question, expected):
    runs = questions.catalog.runs(**question)
    assert kinds(runs) == expected.split()
    assert len(runs) == len(expected.split())


@pytest.mark.parametrize(
    ("pattern", "certain"),
    [
        (r"^lysozyme \d+0$", "lysozyme "),
        (r"(rel_)?scan", "scan"),
        (r"(rel_)+scan", "rel_"),
        ("scan|count", ""),
        (r"a(bc)d\b", "abcd"),
        (r"[Ss]ilver (beh|stear)", "ilver "),
        (r"x{0,3}(?!yes)no", "no"),
        (r"\d+%", "%"),
    ],
)
def test_what_is_certain_of_a_regular_expression(pattern, certain):
    from instrument.tiled.regular_expressions import certain_text

    assert certain_text(pattern) == certain


def test_dates_are_of_the_time_zone_that_is_asked_for(questions):
    begin = datetime.datetime.fromtimestamp(EPOCH, zoneinfo.ZoneInfo("US/Central"))
    day = f"{begin:%Y-%m-%d}"
    assert kinds(questions.catalog.runs(since=day, until=day, tz="US/Central")) == list(SCANS)
    minute = f"{begin:%Y-%m-%d %H:%M:%S}"
    assert kinds(questions.catalog.runs(until=minute, tz="US/Central")) == []
    assert kinds(questions.catalog.runs(since=minute, tz="US/Central")) == list(SCANS)
    assert kinds(questions.catalog.runs(since=minute, tz="Asia/Tokyo")) == list(SCANS)  # 15 h earlier
    assert kinds(questions.catalog.runs(until=minute, tz="US/Hawaii")) == list(SCANS)  # 4 h later
    with pytest.raises(UserError, match="there is no time zone 'US/Centrl': did you mean 'US/Central'"):
        questions.catalog.runs(since=day, tz="US/Centrl")


def test_a_run_is_found_by_number_scan_id_and_uid_and_tells_what_it_is(questions):
    cat, uid = questions.catalog, questions.uids["third"]
    run = cat[-1]
    assert run.uid == cat[3].uid == cat[uid].uid == cat[uid[:8]].uid == uid
    assert cat[-3].start["kind"] == "first"
    for name in (-4, 77, "zzzzz"):
        with pytest.raises(tiled_client.TiledQuestionError):
            cat[name]
    summary = run.summary()
    assert list(summary) == ["plan_name", "scan_id", "datetime", "duration", "streams", "num_events"]
    assert summary["datetime"] == datetime.datetime.fromtimestamp(EPOCH + 2000).isoformat()
    assert (summary["plan_name"], summary["scan_id"], summary["duration"]) == ("count", 3, 4.0)
    assert summary["num_events"] == {"baseline": 2, "primary": 3}
    assert run.stream("primary")["data_keys"]["m1"]["units"] == "mm"
    with pytest.raises(tiled_client.TiledQuestionError, match="has no stream 'secondary': primary, baseline"):
        run.stream("secondary")


def test_answers_are_tables_and_dataframes(questions):
    lines = questions.catalog.runs().table().reST(fmt="simple").splitlines()
    assert lines[1].split() == ["scan_id", "start", "duration", "plan", "streams", "status", "uid"]
    assert lines[3].split()[0] == "3"
    assert "primary (3), baseline (2)" in lines[3] or "baseline (2), primary (3)" in lines[3]
    frame = questions.catalog.runs(plan="rel_scan").dataframe()
    assert list(frame.index) == [questions.uids["second"]]
    assert frame["datetime"].dtype.kind == "M"
    rows = questions.catalog.tree().rows
    assert [row[:2] for row in rows if row[0] == "questions"] == [["questions", 3]]


def test_catalogs_may_hold_what_is_no_run_or_not_yet_a_whole_one(server):
    """What is listed is told of as far as it goes, and nothing else fails for it."""
    consumer = TiledConsumer(Connection(server.files), "odd")
    TiledConsumer(Connection(server.files), "empty").nodes()
    catalog, _ = consumer.nodes()
    catalog.create_container("nothing")
    catalog.create_container("no-time", metadata={"start": {"uid": "no-time"}})
    catalog.write_array([1, 2, 3], key="array")
    catalog.create_container("begun", metadata={"start": {"uid": "begun", "time": EPOCH, "scan_id": 4}})
    consumer.close()
    cat = tiled_client.connect(server.url, api_key=server.read_key, catalog="odd")
    rows = {row[0]: row[1:] for row in cat.tree().rows}
    assert rows["empty"] == [0, "", ""]
    assert rows["odd"][0] == 4
    assert {row[-1] for row in cat.summary().rows} == {"nothing", "no-time", "array", "begun"}
    assert len(cat.runs().dataframe()) == 4
    begun = cat[4]
    assert (begun.streams, begun.stop, begun.summary()["duration"]) == ([], None, None)
    for ask in (begun.data, begun.image, begun.nexus, cat["array"].data):
        with pytest.raises(tiled_client.TiledQuestionError):
            ask()
    empty = tiled_client.connect(server.url, api_key=server.read_key, catalog="empty")
    assert (len(empty), list(empty.runs()), repr(empty.runs())) == (0, [], "no runs")
    assert len(empty.runs().dataframe()) == 0
    with pytest.raises(tiled_client.TiledQuestionError, match="there is no run -1"):
        empty[-1]
    with pytest.raises(tiled_client.TiledQuestionError, match="a text, a number"):
        empty.runs(sample={"name": "AgBh"})


def test_what_the_server_would_ignore_is_refused(questions, monkeypatch):
    known = questions.catalog.root.context.server_info.queries
    monkeypatch.setattr(questions.catalog.root.context.server_info, "queries", [q for q in known if q != "loose"])
    with pytest.raises(tiled_client.TiledQuestionError, match="'loose' and would answer with all runs"):
        questions.catalog.runs(like="x")
    with pytest.raises(tiled_client.TiledQuestionError, match="no regular expression"):
        questions.catalog.runs(regex="(")


def test_a_catalog_that_is_none_is_refused(questions):
    server = questions.server
    for name, told in (("recorded", "lacks the spec CatalogOfBlueskyRuns"), ("question", "did you mean 'questions'?")):
        with pytest.raises(tiled_client.TiledQuestionError, match=told.replace("?", r"\?")):
            tiled_client.connect(server.url, api_key=server.read_key, catalog=name)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"eq][condition][key": "start.plan_name", "eq][condition][value": '"scan"'}, "first"),
        ({"time_range][condition][since": EPOCH + 900, "time_range][condition][timezone": "UTC"}, "second third"),
        ({"fulltext][condition][text": "steel"}, "first"),
        ({"loose][condition][text": "stee"}, "first"),
        ({"regex][condition][key": "start.plan_name", "regex][condition][pattern": "^rel"}, "second"),
        ({"scan_id][condition][scan_ids": "1,3", "scan_id][condition][duplicates": "all"}, "first third"),
        ({"scan_id_range][condition][start_id": 2, "scan_id_range][condition][end_id": 9,
          "scan_id_range][condition][duplicates": "all"}, "second third"),
    ],
)  # fmt: skip
def test_the_same_by_plain_http(questions, filters, expected):
    parameters = [(f"filter[{name}]", value) for name, value in filters.items()]
    found = questions.server.search("questions", *parameters, ("sort", "start.time"))
    assert found == [questions.uids[kind] for kind in expected.split()]


def test_the_beginning_of_a_uid_by_plain_http(questions):
    uid = questions.uids["first"]
    assert questions.server.search("questions", ("filter[partial_uid][condition][partial_uids]", uid[:9])) == [uid]


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ({"loose][condition][text": "(", "loose][condition][how": "regex"}, "no regular expression"),
        ({"regex][condition][key": "start.title", "regex][condition][pattern": "("}, "no regular expression"),
        ({"fulltext][condition][text": "% -"}, "there is no word in '% -'"),
    ],
)
def test_a_question_that_is_none_is_told(questions, filters, told):
    answer = asked(questions.server, filters)
    assert answer.status_code == 400
    assert told in answer.json()["detail"]


@pytest.mark.parametrize("pattern", [r"(a)\1", "(?m)^a", "a{300}", "(?i:a)b"])
def test_a_regular_expression_that_postgresql_has_none_for_is_told(questions, pattern):
    answer = asked(questions.server, {"loose][condition][text": pattern, "loose][condition][how": "regex"})
    sqlite = "sqlite" in questions.server.directory.name
    assert answer.status_code == (200 if sqlite else 400)
    assert sqlite or "the server's PostgreSQL knows no " in answer.json()["detail"]


def asked(server, filters):
    parameters = [(f"filter[{name}]", value) for name, value in filters.items()]
    return server.get("search/questions", server.read_key, params=parameters)


def test_more_than_a_hundred_are_counted_and_read_page_by_page(sqlite_server, monkeypatch):
    """Stock Tiled says 101 for whatever is more than 100."""
    consumer = TiledConsumer(Connection(sqlite_server.files), "counted")
    catalog, _ = consumer.nodes()
    for number in range(103):
        catalog.create_container(f"run-{number}", metadata={"start": {"uid": f"run-{number}", "time": EPOCH + number}})
    consumer.close()
    cat = tiled_client.connect(sqlite_server.url, api_key=sqlite_server.read_key, catalog="counted")
    assert len(cat) == 103
    assert len(cat.runs(since=EPOCH + 1)) == 102
    assert sqlite_server.get("search/counted", sqlite_server.read_key).json()["meta"]["count"] == 103
    monkeypatch.setattr(connection, "PAGE", 34)
    assert cat.runs(since=EPOCH + 1).uids() == [f"run-{number}" for number in range(102, 0, -1)]
