"""The plot as text, for a terminal without a display: when a run has ended or pauses, and all the time without a table.

plotille, which draws with Braille dots, is loaded by the first plot.
"""

from __future__ import annotations

import itertools
import math
import os
import shutil
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from instrument.framework import screen

if TYPE_CHECKING:
    from instrument.callbacks.live import Series

WIDEST, HEIGHT = 88, 14  # characters of the curve
MOST_PLOTS = 2  # below each other, of signals that `plotselect` chose
SHADES = " ░▒▓█"
TICK = 9  # characters from one number at the x axis to the next, at the least
INTERVAL = 0.5  # s between two drawings in the same place


def is_wanted() -> bool:
    """Is there a terminal that can show one, and no window that does?"""
    if screen.in_notebook() or not screen.is_live() or not str(sys.stdout.encoding).lower().startswith("utf"):
        return False
    import matplotlib as mpl
    from matplotlib.backends.registry import BackendFilter, backend_registry

    backend = mpl.get_backend(auto_select=False)  # on the RunEngine's thread: it is not to load one
    if backend is not None:
        return str(backend).lower() in backend_registry.list_builtin(BackendFilter.NON_INTERACTIVE)
    return sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class TextPlots:
    """Shows them, from both threads: in the same place while a run goes on, to stay at its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines = 0  # of what is shown and will be replaced
        self._count = 0  # points of it
        self._not_before = 0.0
        self._stays: tuple[Any, ...] = ()  # run, points and whether it has ended, of what was shown to stay

    def update(self, series: Series) -> None:
        """Show what there is of a run that goes on; at most twice a second. Nothing else may be printed meanwhile."""
        with self._lock:
            if series.ended or series.count in (0, self._count) or time.monotonic() < self._not_before:
                return
            if is_wanted():
                self._show(text_plot(series))
                self._count = series.count
            self._not_before = time.monotonic() + INTERVAL

    def finish(self, series: Series) -> None:
        """Show a run, or what there is of it, to stay."""
        with self._lock:
            stays = (series.start.get("uid"), series.count, series.ended)
            if stays != self._stays and is_wanted():
                self._show(text_plot(series))
            self._stays = stays
            self._lines = self._count = 0

    def _show(self, text: str) -> None:
        if self._lines:
            screen.clear_bar()
            print(f"\r\x1b[{self._lines}A\x1b[J{text}", flush=True)
        elif text:
            screen.tell(text)
        self._lines = text.count("\n") + 1 if text else 0


def text_plot(series: Series) -> str:
    """What was measured so far: a curve for the clearest signal, or for those that were chosen; a grid as shades.

    Returns:
        Lines; none where nothing can be drawn.
    """
    if len(series.signals) < len(series.measured):
        signals = list(series.signals)[:MOST_PLOTS]
    else:
        signals = [series.clearest]
    width = min(WIDEST, shutil.get_terminal_size().columns - 14)
    draw = _curve if len(series.x) == 1 else _grid
    return "\n".join(part for signal in signals if (part := draw(series, signal, width)))


def _curve(series: Series, signal: str, width: int) -> str:
    from plotille import Canvas

    (name,) = series.x
    x, y = series.arrays(name, signal)
    good = np.isfinite(x) & np.isfinite(y)
    x, y = x[good], y[good]
    if x.size < 2 or np.ptp(x) == 0 or width < 2 * TICK:
        return ""
    low, high = float(y.min()), float(y.max())
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - margin, high + margin
    left, right = float(x.min()), float(x.max())
    beyond = 1e-6 * (right - left)  # the last point is on the canvas too
    canvas = Canvas(width, HEIGHT, left, low, right + beyond, high)
    points = [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
    for start, end in itertools.pairwise(points):
        canvas.line(start[0], start[1], end[0], end[1])
    rows = canvas.plot(linesep="\n").replace("⠀", " ").split("\n")
    return _framed(_title(series, signal), rows, (low, high), (left, right), "time (s)" if name == "time" else name)


def _grid(series: Series, signal: str, width: int) -> str:
    from instrument.callbacks.windows import grid_of, on_grid

    grid = grid_of(series.start, *series.arrays(*series.x))
    if grid is None:  # points that lie anywhere
        return ""
    image = on_grid(grid, *series.arrays(*series.x, signal))[::-1]  # the slow motor goes up
    low, high = float(np.nanmin(image)), float(np.nanmax(image))
    each = max(1, min(4, width // image.shape[1]))
    if not np.isfinite(low) or image.shape[1] > width:
        return ""
    shade = np.nan_to_num((image - low) / ((high - low) or 1.0) * (len(SHADES) - 1), nan=0.0).round().astype(int)
    rows = ["".join(SHADES[value] * each for value in row) for row in shade]
    _, (x0, x1, y0, y1) = grid
    slow, fast = series.x
    title = f"{_title(series, signal)}; {SHADES[1]} to {SHADES[-1]}: {low:.4g} to {high:.4g}; up: {slow}"
    return _framed(title, rows, (y0, y1), (x0, x1), fast)


def _title(series: Series, signal: str) -> str:
    found = series.statistics.get(signal)
    title = f"{signal}, scan {series.label}"
    if found is None or found.cen is None or not found.inside:
        return title
    return f"{title}: cen {found.cen:.6g}" + (f", fwhm {found.fwhm:.4g}" if found.fwhm else "")


def _framed(title: str, rows: list[str], y: tuple[float, float], x: tuple[float, float], name: str) -> str:
    """Rows with a title, and numbers at both axes.

    Args:
        title: Above them.
        rows: From top to bottom, all of one length.
        y: What the lower end of the lowest row stands for, and the upper end of the highest.
        x: What both ends of a row stand for.
        name: Of what is at the x axis.
    """
    height, width = len(rows), len(rows[0])
    per_row = (y[1] - y[0]) / height
    labels = {height - 1 - int((value - y[0]) / per_row): text for value, text in _ticks(*y, height // 3)}
    margin = max(map(len, labels.values()), default=0)
    lines = [f"{'':>{margin}}  {title}"]
    for number, row in enumerate(rows):
        lines.append(f"{labels.get(number, ''):>{margin}} {'┤' if number in labels else '│'}{row}")
    begin = margin + 2
    ruler, numbers = ["─"] * width, [" "] * (begin + width + TICK)
    for value, text in _ticks(*x, width // TICK):
        place = min(width - 1, int((value - x[0]) / (x[1] - x[0]) * width))
        ruler[place] = "┬"
        first = begin + place - len(text) // 2
        numbers[first : first + len(text)] = text
    lines.append(f"{'':>{margin}} └{''.join(ruler)}")
    return "\n".join([*lines, f"{''.join(numbers).rstrip()}  {name}"])


def _ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Round numbers from `low` to `high`, about as many as `most`, and how they are written."""
    rough = (high - low) / max(1, most)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    values = step * np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    texts = [f"{value + 0.0:.{digits}f}" if digits < 6 and abs(value) < 1e7 else f"{value:.6g}" for value in values]
    return [(float(value), text) for value, text in zip(values, texts, strict=True)]
