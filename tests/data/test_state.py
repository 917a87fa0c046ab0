"""RE.md outlives the session, and two sessions do not get in each other's way."""

import contextlib
import enum
import json
import os
import threading

import bluesky.plans as bp
import hypothesis.strategies as st
import numpy as np
import ophyd.sim
import pytest
from bluesky import RunEngine
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from instrument.framework import state as state_module
from instrument.framework.state import Presence, StateError, StateFile

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=10,
)
keys = st.sampled_from(["a", "b", "sample", "proposal_id", ""])


@pytest.fixture
def open_state(tmp_path):
    opened = []

    def open_it(*args, **kwargs):
        opened.append(StateFile(tmp_path / "state.json", *args, **kwargs))
        return opened[-1]

    yield open_it
    for state in opened:
        state.close()


def test_what_was_set_is_there_in_the_next_session(open_state, tmp_path):
    first = open_state()
    first["proposal_id"] = "2026-1"
    first["sample"] = {"name": "steel"}
    first["sample"]["thickness"] = 1.5
    first.close()
    assert dict(open_state()) == {"proposal_id": "2026-1", "sample": {"name": "steel", "thickness": 1.5}}
    assert json.loads((tmp_path / "state.json").read_text())["sample"]["thickness"] == 1.5


def test_explicit_goes_before_saved_and_saved_before_defaults(open_state):
    first = open_state()
    first.update(a="saved", b="saved")
    first.close()
    second = open_state({"a": "default", "b": "default", "c": "default"}, {"b": "explicit"})
    assert dict(second) == {"a": "saved", "b": "explicit", "c": "default"}
    second.close()
    assert dict(open_state()) == {"a": "saved", "b": "saved"}  # neither default nor explicit values were saved


def test_only_what_was_set_is_in_a_new_file(open_state, tmp_path):
    state = open_state({"a default": 1}, {"explicit": 2})
    state["set"] = 3
    assert json.loads((tmp_path / "state.json").read_text()) == {"set": 3}


def test_a_session_may_overrule_what_is_explicit(open_state):
    state = open_state(None, {"b": "explicit"})
    state["b"] = "mine"
    assert state["b"] == "mine"
    assert open_state()["b"] == "mine"


def test_a_deleted_key_stays_away(open_state):
    first = open_state()
    first.update(a=1, b=2)
    del first["a"]
    assert dict(open_state()) == {"b": 2}
    with pytest.raises(KeyError):
        del first["a"]


class StateMachine(RuleBasedStateMachine):
    """Two sessions on one file against a dictionary."""

    directory = None

    def __init__(self):
        super().__init__()
        import tempfile
        from pathlib import Path

        self.path = Path(tempfile.mkdtemp(dir=self.directory)) / "state.json"
        self.sessions = [StateFile(self.path), StateFile(self.path)]
        self.saved = {}
        self.scan_ids = []

    @rule(session=st.integers(0, 1), key=keys, value=json_values)
    def set_value(self, session, key, value):
        unchanged = key in self.sessions[session] and json.dumps(self.sessions[session][key]) == json.dumps(value)
        self.sessions[session][key] = value
        assert self.sessions[session][key] == value
        if not unchanged:  # setting what is set already changes nothing, whatever the other session did meanwhile
            self.saved[key] = value

    @rule(session=st.integers(0, 1), key=keys)
    def delete(self, session, key):
        if key in self.sessions[session]:
            del self.sessions[session][key]
            self.saved.pop(key, None)

    @rule(session=st.integers(0, 1))
    def number_a_run(self, session):
        self.scan_ids.append(self.sessions[session].next_scan_id())
        self.sessions[session]["scan_id"] = self.scan_ids[-1]  # the RunEngine sets it once more

    @rule(session=st.integers(0, 1))
    def restart(self, session):
        self.sessions[session].close()
        self.sessions[session] = StateFile(self.path)
        assert self.sessions[session].messages == []

    @precondition(lambda self: self.path.exists())
    @invariant()
    def the_file_holds_what_was_set_last(self):
        saved = json.loads(self.path.read_text())
        assert saved.pop("scan_id", 0) == len(self.scan_ids)
        assert saved == self.saved

    @invariant()
    def no_number_is_given_twice(self):
        assert self.scan_ids == list(range(1, len(self.scan_ids) + 1))

    def teardown(self):
        for session in self.sessions:
            session.close()


@pytest.fixture(autouse=True)
def _quick_sync(monkeypatch, tmp_path, request):
    """Hypothesis writes thousands of files: they need not reach the disk."""
    if "sync" not in request.node.name:
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    StateMachine.directory = tmp_path


TestTwoSessions = StateMachine.TestCase
TestTwoSessions.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)


@given(
    values=st.dictionaries(keys, json_values, max_size=4),
    cut=st.integers(0, 400),
    garbage=st.binary(max_size=20),
)
@settings(deadline=None, max_examples=60)
def test_no_content_of_the_file_is_a_reason_not_to_start(values, cut, garbage, tmp_path_factory):
    path = tmp_path_factory.mktemp("state") / "state.json"
    content = json.dumps(values).encode()[:cut] + garbage
    path.write_bytes(content)
    state = StateFile(path, {"a default": 1})
    with contextlib.suppress(ValueError):
        if isinstance(readable := json.loads(content), dict):
            assert dict(state) == {"a default": 1, **readable}
            assert state.messages == []
            state.close()
            return
    (line,) = state.messages
    assert "is unreadable and was set aside as state.json.unreadable-" in line
    (aside,) = path.parent.glob("state.json.unreadable-*")
    assert aside.read_bytes() == content
    assert state.next_scan_id() == 1
    state.close()


def test_an_unreadable_file_gives_way_to_the_version_before(open_state, tmp_path):
    first = open_state()
    first["proposal_id"] = "one"
    first["proposal_id"] = "two"
    first.close()
    (tmp_path / "state.json").write_text("{")
    second = open_state(last_scan_id=lambda: 41)
    assert second["proposal_id"] == "one"
    assert "goes on from the version before" in second.messages[0]
    assert second.next_scan_id() == 42  # not one that the journal has


def test_a_missing_file_goes_on_from_the_last_number_in_the_journal(open_state):
    state = open_state(last_scan_id=lambda: 7)
    assert state.messages == ["scan numbers go on from 7, the last one in the journal"]
    assert state.next_scan_id() == 8


def test_the_number_is_on_the_disk_before_the_first_document_leaves(open_state, tmp_path):
    state = open_state()
    engine = RunEngine(state, scan_id_source=state.next_scan_id, context_managers=[])
    seen = []

    def look(name, document):
        seen.append((document["scan_id"], json.loads((tmp_path / "state.json").read_text())["scan_id"]))

    engine.subscribe(look, "start")
    for _ in range(3):
        engine(bp.count([ophyd.sim.det]))
    assert seen == [(1, 1), (2, 2), (3, 3)]


def test_the_file_reaches_the_disk_before_it_takes_the_place_of_the_old_one_sync(open_state, tmp_path, monkeypatch):
    state = open_state()
    state["a"] = 1
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("sync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append(str(paths[1])), replace(*paths)))
    state["a"] = 2
    path = str(tmp_path / "state.json")
    assert order == ["sync", f"{path}.previous", path, "sync"]


def test_a_user_may_set_the_number_back(open_state):
    state = open_state()
    for _ in range(5):
        state.next_scan_id()
    state["scan_id"] = 100
    assert state.next_scan_id() == 101
    state["scan_id"] = 0
    assert state.next_scan_id() == 1


def test_numbers_of_many_threads_and_files_are_all_different(open_state):
    states = [open_state() for _ in range(4)]
    given_out = []

    def take(state):
        given_out.extend(state.next_scan_id() for _ in range(25))

    threads = [threading.Thread(target=take, args=(state,)) for state in states]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given_out) == list(range(1, 101))


class Mode(enum.StrEnum):
    FAST = "fast"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.arange(3), [0, 1, 2]),
        ((1, (2, 3)), [1, [2, 3]]),
        (Mode.FAST, "fast"),
        ({"x": np.bool_(True)}, {"x": True}),
    ],
)
def test_numpy_and_tuples_are_kept_as_json_has_them(open_state, value, kept):
    open_state()["value"] = value
    assert open_state()["value"] == kept


@pytest.mark.parametrize("value", [object(), {1: 2}, [{"x": {3}}], b"x", "\ud800", np.array([object()])])
def test_what_json_cannot_hold_is_refused_by_name_and_changes_nothing(open_state, value):
    state = open_state()
    state["sample"] = 1
    with pytest.raises(StateError, match=r"^RE.md\['sample'\]") as caught:
        state["sample"] = value
    assert "\n" not in str(caught.value)
    assert state["sample"] == open_state()["sample"] == 1


def test_a_key_must_be_text(open_state):
    with pytest.raises(StateError, match=r"RE.md\[3\]: a key must be text"):
        open_state()[3] = 1


def test_the_run_engine_gets_a_plain_copy_for_each_run(open_state):
    state = open_state()
    state["sample"] = {"name": "x"}
    engine = RunEngine(state, scan_id_source=state.next_scan_id, context_managers=[])
    starts = []
    engine.subscribe(lambda name, document: starts.append(document), "start")
    engine(bp.count([ophyd.sim.det]))
    assert starts[0]["sample"] == {"name": "x"}
    assert starts[0]["sample"] is not state["sample"]
    assert type(starts[0]["sample"]) is dict


def test_a_lock_that_another_session_does_not_give_back_is_told_with_its_name(open_state, tmp_path, monkeypatch):
    import fcntl

    state = open_state()
    state["a"] = 1
    monkeypatch.setattr(state_module, "_LOCK_TIMEOUT", 0.05)
    with (tmp_path / "state.json.lock").open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write("pid 1234 on elsewhere     ")
        other.flush()
        with pytest.raises(StateError, match=r"locked for 0 s by another session \(pid 1234 on elsewhere"):
            state["a"] = 2


def test_lock_files_of_ended_sessions_are_removed(tmp_path):
    (tmp_path / "gone.lock").write_text('{"pid": 1, "host": "x", "since": 0}')
    presence = Presence.join(tmp_path)
    assert presence.others() == []
    assert not (tmp_path / "gone.lock").exists()
    assert not presence.is_living("gone")
    assert presence.is_living(presence.key)
    presence.leave()
    assert list(tmp_path.glob("*.lock")) == []
