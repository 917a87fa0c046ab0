"""The page that shows snapshots at work shows what they do."""

from tests.snapshot.page import PAGE, comparable, run_all


def test_the_output_in_the_how_to_is_what_its_commands_print(tmp_path):
    assert comparable(run_all(tmp_path, PAGE.read_text())) == comparable(PAGE.read_text())
