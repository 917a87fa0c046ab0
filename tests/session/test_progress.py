"""Bars for what takes long: moves, counts, scans; at a terminal that can overwrite a line, and nowhere else."""

import re

import pytest

from tests.faults.session import Session
from tests.terminal import PROMPT

# A bar, and how it is taken away.
BAR = {
    "mv m1 3": r"\rm1 [\d.]+ -> 3 \|[█▏▎▍▌▋▊▉ ]+\| \d+%",
    "ct 2.5": r"\rscaler1 \|[█▏▎▍▌▋▊▉ ]+\| \d+%",
    # also before the first point, to which the motor moves 2 degrees
    "ascan m1 1 1.2 3 0.6": r"(?s)\rascan \d+ 0/4 \| +\| 00:0[1-9]<\?.*"
    r"\rascan \d+ [1-4]/4 \|[█▏▎▍▌▋▊▉ ]+\| \d\d:\d\d<(\d\d:\d\d|\?)",
    # dark frames and flat fields are points of the run, too
    "adsimdet.cam.acquire_time.put(0.4); RE(darks_flats(2, darks=3, flats=3));": (
        r"\rdarks_flats \d+ [1-6]/8 \|[█▏▎▍▌▋▊▉ ]+\| \d\d:\d\d<(\d\d:\d\d|\?)"
    ),
    "umv m1 3": r"\rm1 [\d.]+ degrees",
}
PLOT = r"^ *\w+, scan \d+|│|┤|└|^[\d. -]+  m1$"  # lines of it as text
CURVE = r"[│┤].*[⠁-⣿].*\n *└─*┬.*\n[ \d.]+  m1\n"  # its lowest line, and the axis
GONE = re.compile(r"\r {70,}\r|\r +\rm1: ")


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """A terminal that can overwrite a line, and one that can't."""
    with Session(tmp_path_factory.mktemp("live"), env={"TERM": "xterm"}) as live:
        with Session(tmp_path_factory.mktemp("dumb")) as dumb:
            yield live, dumb


@pytest.mark.parametrize("typed", BAR)
def test_what_takes_long_has_a_bar_at_a_terminal(sessions, typed):
    live, dumb = sessions
    live.process.sendline(typed)
    live.process.expect(PROMPT)
    raw = live.process.before
    assert re.search(BAR[typed], raw), raw
    assert GONE.search(raw)
    # each line that stays is whole, whatever was overwritten before
    lines = [line.rpartition("\r")[2] for line in raw.replace("\r\n", "\n").split("\n")]
    for line in lines[1:]:
        assert re.match(r"(\||\+|generator|I |New|Trans|Pers| *\w+ = |m1: |\s*$)", line) or re.search(PLOT, line), line
    plain = dumb.run(typed)
    assert "█" not in plain
    assert not re.search("[┤└⠁-⣿]", plain)
    assert "\r" not in plain


def test_without_a_display_the_curve_is_shown_as_text(sessions):
    """Below the table at the end of a scan, and of what there is of one that pauses."""
    live, _ = sessions
    live.type("ascan m1 0 0.2 4 0.1")
    below = live.until_prompt().partition("generator ascan")[2]
    assert re.search(r" \w+, scan \d+\n", below), below
    assert re.search(CURVE, below), below
    live.type("ascan m1 0 9 90 0.1")
    live.wait_for(r"\|         4 \|")
    live.press("\\")
    below = live.until_prompt().partition("Pausing...")[2]
    assert re.search(CURVE, below), below
    live.run("RE.stop()")


def test_no_bar_is_logged(sessions):
    live, _ = sessions
    for log in (live.directory / ".logs").iterdir():
        assert "█" not in log.read_text()
