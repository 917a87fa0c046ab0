"""The plot as text: what is highest on the screen is highest in the numbers, and nothing is shown where it can't be."""

import bluesky.plans as bp
import matplotlib as mpl
import pytest
from ophyd.sim import det, det4, motor, motor1, motor2

from instrument.callbacks import text_plot
from instrument.callbacks.live import BestEffort


class Screen:
    """A terminal without a display, and what it shows."""

    def __init__(self, capsys):
        self._capsys = capsys

    @property
    def text(self):
        return self._capsys.readouterr().out


@pytest.fixture
def terminal(monkeypatch, capsys):
    mpl.use("Agg")
    monkeypatch.setattr("instrument.framework.screen.is_live", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    return Screen(capsys)


@pytest.fixture
def bec():
    bec = BestEffort(table_enabled=False)
    bec.disable_heading()
    bec.disable_baseline()
    bec.text_plots = text_plot.TextPlots()
    return bec


def inside(text):
    """The rows between the axes, and the numbers at the left."""
    lines = [line.partition("┤" if "┤" in line else "│") for line in text.splitlines()]
    rows = [(number, row) for number, axis, row in lines if axis]
    return [row for _, row in rows], [float(number) for number, _ in rows if number.strip()]


def test_a_curve_is_highest_where_the_signal_is(record, bec, terminal):
    for name, doc in record(bp.scan([det], motor, -1, 5, 31)):  # a peak at 0, hence at a sixth of the way
        bec(name, doc)
    text = terminal.text
    rows, numbers = inside(text)
    assert text.splitlines()[0].strip().startswith("det, scan 1")
    top = next(row for row in rows if row.strip())
    middle = (len(top) - len(top.lstrip()) + len(top.rstrip())) / 2
    assert middle == pytest.approx(len(rows[0]) / 6, abs=2)
    assert numbers == sorted(numbers, reverse=True)
    assert text.splitlines()[-1].split() == ["-1", "0", "1", "2", "3", "4", "5", "motor"]
    assert max(map(len, text.splitlines())) <= 80


def test_a_grid_is_darkest_where_the_signal_is_highest(record, bec, terminal):
    for name, doc in record(bp.grid_scan([det4], motor1, 0, 3, 4, motor2, 0, 5, 6)):  # a peak at 0, 0
        bec(name, doc)
    rows, _ = inside(terminal.text)
    assert len(rows) == 4
    assert rows[-1].startswith("█")  # the slow motor goes up, the fast one to the right
    assert rows[0].strip() == ""
    assert rows[-1].endswith(" ")


def test_without_a_table_the_curve_grows_in_its_place(record, bec, terminal, monkeypatch):
    monkeypatch.setattr(text_plot, "INTERVAL", 0.0)
    shown = []
    for name, doc in record(bp.scan([det], motor, -5, 5, 5)):
        bec(name, doc)
        bec.draw()
        shown.append(terminal.text)
    start, _descriptor, _first, *later, _stop = shown
    assert start == ""
    for before, after in zip(later, [*later[1:], shown[-1]], strict=True):  # goes back up over what was there
        lines = before.rpartition("\x1b[J")[2].count("\n")
        assert f"\r\x1b[{lines}A\x1b[J" in after
    bec.draw()
    assert terminal.text == ""


@pytest.mark.parametrize("why", ["piped", "display", "plots off", "one point"])
def test_nothing_is_shown_where_there_is_nothing_to_show_it_on(record, bec, terminal, monkeypatch, why):
    documents = record(bp.scan([det], motor, -5, 5, 1 if why == "one point" else 11))
    if why == "piped":
        monkeypatch.setattr("instrument.framework.screen.is_live", lambda: False)
    elif why == "display":
        monkeypatch.setattr(mpl, "get_backend", lambda *, auto_select=True: "qtagg")
    elif why == "plots off":
        bec.disable_plots()
    for name, doc in documents:
        bec(name, doc)
    assert terminal.text == ""
