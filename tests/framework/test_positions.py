"""Named positions are kept, with their history, whatever the names; a damaged file is told, not lost."""

import json
import multiprocessing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instrument.config.errors import UserError
from instrument.framework.positions import KEPT, Positions

values = st.dictionaries(st.text(min_size=1), st.floats(allow_nan=False, allow_infinity=False), max_size=5)


@given(name=st.text(min_size=1).filter(str.strip), saved=st.lists(values, min_size=1, max_size=5))
def test_what_is_saved_is_found_newest_first(tmp_path_factory, name, saved):
    path = tmp_path_factory.mktemp("positions") / "positions.json"
    for one in saved:
        Positions(path).save(name, one)
    assert [one.positions for one in Positions(path).history(name)] == saved[::-1]
    assert Positions(path).names() == [name]


def test_old_ones_go(tmp_path):
    positions = Positions(tmp_path / "positions.json")
    for number in range(KEPT + 3):
        positions.save("a", {"m1": number})
    assert [one.positions["m1"] for one in positions.history("a")] == list(range(KEPT + 2, 2, -1))


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 3}', '{"a": [{"time": 1}]}'])
def test_a_damaged_file_is_told_and_left_as_it_is(tmp_path, text):
    path = tmp_path / "positions.json"
    path.write_text(text)
    for use in (lambda p: p.names(), lambda p: p.history("a"), lambda p: p.save("a", {"m1": 1})):
        with pytest.raises(UserError, match="is damaged"):
            use(Positions(path))
    assert path.read_text() == text


def test_what_is_wrong_is_refused(tmp_path):
    positions = Positions(tmp_path / "positions.json")
    for name, motors in (("", {}), (3, {}), ("a", {"m1": float("nan")}), ("a", {"m1": "here"})):
        with pytest.raises(UserError, match="save_position"):
            positions.save(name, motors)
    with pytest.raises(UserError, match="there is none yet"):
        positions.history("a")
    assert not positions.path.exists()


def _save(path, name):
    for number in range(20):
        Positions(path).save(name, {"m1": number})


def test_two_sessions_save_side_by_side(tmp_path):
    path = tmp_path / "positions.json"
    processes = [multiprocessing.get_context("spawn").Process(target=_save, args=(path, name)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert {name: len(history) for name, history in json.loads(path.read_text()).items()} == {"a": 20, "b": 20}
