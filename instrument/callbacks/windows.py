"""The windows of the live plot: figures, curves and maps. Everything here but `Windows.add` is for the main thread.

matplotlib.pyplot, half a second of import, is loaded by the first drawing, or behind the prompt.
"""

from __future__ import annotations

import logging
import math
import operator
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np

from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.framework import screen

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from instrument.callbacks.live import Series

logger = logging.getLogger(LOGGER_NAME)

DRAW_INTERVAL = 0.1  # s between two drawings at the least
DRAW_SHARE = 0.2  # of the time at the most
LONGEST_INTERVAL = 1.0  # s, however long a drawing takes
ROOM = 0.5  # of what is shown: how much is added where points leave the axes, so that the next ones find them unchanged
MOST_CURVES = 8  # scans in one window; older ones are taken away
AXES_INCHES = 5  # the side of one pair of axes, as bluesky has it
NOTEBOOK_INCHES = 3.5  # the same in a notebook, whose cells are narrower than a window
Corner = Literal["upper left", "upper right"]


def _pyplot() -> Any:
    import matplotlib.pyplot as plt

    return plt


class Windows:
    """The figures of a session: one for each set of signals, used again by the next scan of the same.

    `add` may be called from any thread, everything else is for the main thread.

    Args:
        fig_factory: Makes or finds the figure of a name; pyplot's by default.
        pyplot: Gives matplotlib.pyplot; where a thread of this process may be importing it, the way to wait for that.

    Attributes:
        overplot: Draw the next scan of the same signals into the same window?
        most_curves: How many scans a window keeps.
    """

    def __init__(self, fig_factory: Callable[[str], Figure] | None = None, pyplot: Callable[[], Any] = _pyplot) -> None:
        self.overplot = True
        self.most_curves = MOST_CURVES
        self._pyplot = pyplot
        self._fig_factory = fig_factory or self._figure
        self._own_figures = fig_factory is None
        self._pictures: dict[str, Figure] = {}  # figures of a notebook, which pyplot would show once more
        self._new: deque[Series] = deque()  # filled on the RunEngine's thread
        self._curves: list[_Curve] = []
        self._last: Figure | None = None
        self._not_before = 0.0
        self._drawing = False
        self._laid_out: WeakKeyDictionary[Figure, list[int] | None] = WeakKeyDictionary()  # with its labels' lengths
        self._blitters: WeakKeyDictionary[Figure, _Blitter] = WeakKeyDictionary()

    def add(self, series: Series) -> None:
        """Have a series drawn from now on; in a notebook, below what was shown before."""
        if self._own_figures and _is_inline():
            series.slot = screen.Slot()
            series.slot.show("")
        self._new.append(series)

    def draw(self, force: bool = False) -> None:
        """Bring the figures up to date, at most ten times a second."""
        if self._drawing or threading.current_thread() is not threading.main_thread():
            return
        ended = any(series.ended for series in list(self._new)) or any(
            c.series.ended and c.series.wants_drawing for c in self._curves
        )
        if not (force or ended) and time.monotonic() < self._not_before:
            return
        self._drawing = True  # a window that reacts to the mouse may call for a drawing in the midst of this one
        try:
            self._draw(force)
        except Exception as error:
            # What could not be drawn once is not tried again; the next run has a plot again.
            self._new.clear()
            for curve in self._curves:
                curve.keep_still()
            self._curves.clear()
            if force:
                raise
            logger.warning("live plot failed (%s: %s); the run goes on without it", type(error).__name__, error)
            logger.debug("live plot failed", exc_info=True)
        finally:
            self._drawing = False

    def _draw(self, force: bool) -> None:
        for _ in range(len(self._new)):
            series = self._new.popleft()
            if series.count:
                self._open(series)
            elif not series.ended:  # a run that ends without a point has no plot
                self._new.append(series)
        self._curves = [curve for curve in self._curves if curve.is_open()]
        begin = time.monotonic()
        updated = [curve for curve in self._curves if curve.update()]
        figures = {curve.figure: False for curve in updated}
        figures |= {curve.figure: True for curve in updated if curve.series.finished}
        if force and not figures and self._last is not None:
            figures = {self._last: False}
        for figure, ended in figures.items():
            self._show(figure, force, ended)
        if not figures:
            self._keep_alive()
        end = time.monotonic()
        self._not_before = end + min(max(DRAW_INTERVAL, (end - begin) / DRAW_SHARE), LONGEST_INTERVAL)

    def figure_of(self, signal: str | None) -> Figure:
        """The figure drawn last, or the last one of `signal`."""
        if signal is None and self._last is not None:
            return self._last
        for curve in reversed(self._curves):
            if signal in curve.series.signals:
                return curve.figure
        raise UserError(f"there is no plot{'' if signal is None else f' of {signal!r}'} yet: run a scan first")

    def prune(self, keep: int, x: str, signal: str) -> None:
        """Keep the newest `keep` scans of a signal against x."""
        drawn = [c for c in self._curves if c.series.x == (x,) and signal in c.series.signals and c.is_open()]
        for curve in drawn[: max(0, len(drawn) - keep)]:
            curve.remove(signal)
        for curve in drawn[-1:]:
            curve.figure.canvas.draw_idle()

    def _open(self, series: Series) -> None:
        signals = list(series.signals)
        is_map = len(series.x) == 2
        name = f"{' '.join(sorted(signals))} vs {' '.join(sorted(series.x))}"
        if not is_map and not self.overplot:
            name = self._unused(name)
        figure = self._fig_factory(name)
        if is_map:  # which would hide the one below it
            figure.clear()
            self._lay_out(figure)
            self._curves = [curve for curve in self._curves if curve.figure is not figure]
        if not figure.axes:
            for signal, axes in zip(signals, _make_axes(figure, len(signals), share_y=is_map), strict=True):
                axes.set_label(signal)
        # The same signals may come in another order than those of the scan that the axes were made for.
        placed = {str(axes.get_label()): axes for axes in figure.axes}
        if not placed.keys() >= set(signals):  # axes that somebody else made
            placed = dict(zip(signals, figure.axes, strict=False))
        axes_of = {signal: placed[signal] for signal in signals if signal in placed}
        self._curves.append((_Map if is_map else _Line)(series, figure, axes_of))
        same = [curve for curve in self._curves if curve.figure is figure]
        for old in same[: -self.most_curves]:
            old.remove()
            self._curves.remove(old)
        self._last = figure
        if figure in self._blitters:
            self._blitters[figure].forget()

    def _figure(self, name: str) -> Figure:
        if _is_inline():
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure

            if name not in self._pictures:
                self._pictures[name] = Figure(layout="constrained")
                FigureCanvasAgg(self._pictures[name])
            return self._pictures[name]
        return self._pyplot().figure(name, layout="constrained")

    def _unused(self, name: str) -> str:
        """`name`, with the first number behind it that no window has."""
        taken, number, candidate = {*self._pyplot().get_figlabels(), *self._pictures}, 1, name
        while candidate in taken:
            number += 1
            candidate = f"{name} {number}"
        return candidate

    def _show(self, figure: Figure, force: bool, ended: bool) -> None:
        self._last = figure
        has_window, slot = _has_window(figure), self._slot_of(figure)
        if not has_window and slot is None and not force:
            return
        if figure not in self._blitters:
            self._blitters[figure] = _Blitter(figure)
            if has_window:
                figure.show()
            figure.canvas.mpl_connect("resize_event", lambda _event: self._lay_out(figure))
        blitter = self._blitters[figure]
        curves = [curve for curve in self._curves if curve.figure is figure]
        moving = [line for curve in curves for line in curve.moving((has_window or slot is not None) and not ended)]
        if ended or self._laid_out.get(figure) is None:
            self._lay_out(figure)
        if self._laid_out.get(figure) is None or not blitter.move(moving):
            blitter.draw(moving)
            # Laying out anew costs as much as drawing: only at the end, and where labels have become longer.
            # The colour bar of a signal that does not change has no labels at all.
            lengths = [
                max((len(label.get_text()) for label in labels), default=0)
                for axes in figure.axes
                for labels in (
                    axes.get_yticklabels(),
                    [axes.yaxis.get_offset_text()],
                )  # the power of ten above the axis
            ]
            laid_out = self._laid_out.get(figure) or lengths
            fits = len(lengths) == len(laid_out) and all(map(operator.le, lengths, laid_out))
            self._laid_out[figure] = laid_out if fits else None
            figure.set_layout_engine("none")
        if has_window:
            figure.canvas.flush_events()
        if slot is not None:
            slot.show("plot", png=_png(figure))

    def _slot_of(self, figure: Figure) -> screen.Slot | None:
        """Where a notebook shows a figure: in the output of the cell that ran the last scan in it."""
        return next((curve.series.slot for curve in reversed(self._curves) if curve.figure is figure), None)

    def _lay_out(self, figure: Figure) -> None:
        """Have the next drawing place axes and labels."""
        figure.set_layout_engine("constrained")
        self._laid_out[figure] = None

    def _keep_alive(self) -> None:
        """Let an idle window react to the mouse."""
        if self._last is not None and _has_window(self._last):
            self._last.canvas.flush_events()


def _make_axes(figure: Figure, count: int, *, share_y: bool) -> list[Axes]:
    """One pair of axes for each signal: up to four in a column, more in as square a block as they fill."""
    columns = 1 if count < 5 else math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    inches = NOTEBOOK_INCHES if _is_inline() and count > 1 else AXES_INCHES
    figure.set_size_inches(columns * inches, rows * inches)
    grid = figure.subplots(rows, columns, sharex=True, sharey=share_y, squeeze=False)
    for axes in grid.flat[count:]:
        axes.remove()
    for column in range(columns):  # the lowest of each column names its ticks
        lowest = max(row for row in range(rows) if row * columns + column < count)
        grid[lowest, column].tick_params(axis="x", labelbottom=True)
    return figure.axes


def _has_window(figure: Figure) -> bool:
    canvas: Any = figure.canvas
    # A widget in a notebook (ipympl) needs no framework; its manager sends each drawing to the browser.
    framework = getattr(canvas, "required_interactive_framework", None)
    interactive = framework is not None or hasattr(canvas.manager, "refresh_all")
    return interactive and figure.number in _pyplot().get_fignums()


def _is_inline() -> bool:
    """Are plots pictures in a notebook?"""
    if not screen.in_notebook():
        return False
    import matplotlib as mpl

    return "inline" in str(mpl.get_backend(auto_select=False))


def _png(figure: Figure) -> bytes:
    """What a figure's canvas shows."""
    from matplotlib.image import imsave

    picture = BytesIO()
    canvas: Any = figure.canvas
    imsave(picture, canvas.buffer_rgba(), format="png", dpi=figure.dpi)
    return picture.getvalue()


class _Blitter:
    """Draws what moves in a figure onto a kept picture of the rest, at a tenth of the work of drawing all of it.

    That is what matplotlib calls blitting. A picture is kept whenever all is drawn, also by the window itself, which
    does so when it is resized, or its user zooms.
    """

    def __init__(self, figure: Figure) -> None:
        self._figure = weakref.ref(figure)
        self._moving: list[tuple[Axes, Artist]] = []
        self._rest: Any = None  # pixels
        self._limits: list[tuple[float, ...]] = []  # of the axes on that picture
        figure.canvas.mpl_connect("draw_event", self._drawn)

    def forget(self) -> None:
        """Something of what does not move has changed."""
        self._rest = None

    def draw(self, moving: list[tuple[Axes, Artist]]) -> None:
        """Draw all of it."""
        self._moving = moving
        self.canvas.draw()

    def move(self, moving: list[tuple[Axes, Artist]]) -> bool:
        """Draw what moves; False if that is not enough."""
        if self._rest is None or moving != self._moving or not moving or self._limits != _limits(self.figure):
            return False
        self.canvas.restore_region(self._rest)
        self._draw_moving()
        self.canvas.blit(self.figure.bbox)
        return True

    @property
    def figure(self) -> Figure:
        """The figure."""
        figure = self._figure()
        assert figure is not None  # who calls has it
        return figure

    @property
    def canvas(self) -> Any:
        """Its canvas, of whatever backend."""
        return self.figure.canvas

    def _drawn(self, _event: Any) -> None:
        """All but what moves has been drawn."""
        if self.canvas.is_saving():  # to a file, and with what moves
            return
        self._rest = self.canvas.copy_from_bbox(self.figure.bbox) if self.canvas.supports_blit else None
        self._limits = _limits(self.figure)
        self._draw_moving()

    def _draw_moving(self) -> None:
        for axes, artist in self._moving:
            if artist.axes is axes:  # it may have been removed
                axes.draw_artist(artist)


def _limits(figure: Figure) -> list[tuple[float, ...]]:
    return [(*axes.get_xlim(), *axes.get_ylim()) for axes in figure.axes]


class _Curve:
    """What one run has drawn into a figure."""

    def __init__(self, series: Series, figure: Figure, axes: dict[str, Axes]) -> None:
        self.series = series
        self.figure = figure
        self.axes = axes
        self.artists: dict[str, list[Any]] = {signal: [] for signal in axes}
        self.open()

    def open(self) -> None:
        """Make the artists."""
        raise NotImplementedError

    def refresh(self, ended: bool) -> None:
        """Give the artists the numbers collected so far, and the marks if the run has ended."""
        raise NotImplementedError

    def update(self) -> bool:
        """Bring the artists up to date; False if there was nothing to do."""
        if not self.series.wants_drawing:
            return False
        count, ended = self.series.count, self.series.ended  # more may come meanwhile
        self.refresh(ended)
        self.series.drawn, self.series.finished = count, ended
        return True

    def moving(self, _on: bool) -> list[tuple[Axes, Artist]]:
        """What can be drawn by itself, above all else, while the run goes on; if it is not on, nothing any more."""
        return []

    def keep_still(self) -> None:
        """Have all of it drawn with the rest of the figure."""
        self.moving(False)

    def is_open(self) -> bool:
        """Is the figure still there?"""
        number = getattr(self.figure, "number", None)
        return number is None or _pyplot().fignum_exists(number)

    def remove(self, signal: str | None = None) -> None:
        """Take this run out of the figure, or one signal of it."""
        for name in self.artists if signal is None else [signal]:
            for artist in self.artists[name]:
                artist.remove()
            self.artists[name] = []
            axes = self.axes[name]
            axes.relim(visible_only=True)
            axes.autoscale_view()
            _legend(axes)


def _legend(axes: Axes, corner: Corner = "upper right") -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc=corner, title="scan")  # not "best", which looks at every point, each time
    elif (legend := axes.get_legend()) is not None:
        legend.remove()


def _free_corner(axes: Axes) -> Corner:
    """The upper corner that the highest point of all curves is farther from."""
    curves = [np.array(line.get_data(), dtype=float) for line in axes.lines]
    points = np.hstack([curve for curve in curves if curve.shape[1] > 2] or [np.empty((2, 0))])  # marks have two
    x, y = points[:, np.all(np.isfinite(points), axis=0)]
    if not x.size:
        return "upper right"
    return "upper left" if x[np.argmax(y)] > (x.min() + x.max()) / 2 else "upper right"


class _Line(_Curve):
    """Signals against what is scanned, or against time."""

    def open(self) -> None:
        (x,) = self.series.x
        self._has_room = False
        for signal, axes in self.axes.items():
            (line,) = axes.plot([], [], ".-", label=self.series.label)
            self.artists[signal] = [line]
            axes.set_ylabel(signal)
            lowest = axes.xaxis.get_tick_params().get("labelbottom", True)  # of its column
            axes.set_xlabel(("time (s)" if x == "time" else x) if lowest else "")
            axes.margins(0.05)
            _legend(axes, _free_corner(axes))

    def refresh(self, ended: bool) -> None:
        for signal, axes in self.axes.items():
            if not self.artists[signal]:
                continue
            line = self.artists[signal][0]
            line.set_data(*self.series.arrays(self.series.x[0], signal))
            if ended:
                self._mark(signal, axes, line.get_color())
                _legend(axes, _free_corner(axes))
            axes.relim(visible_only=True)
            if ended:
                axes.autoscale_view()
            else:
                self._make_room(axes)

    def moving(self, on: bool) -> list[tuple[Axes, Artist]]:
        """The lines."""
        on = on and not self.series.ended
        lines = [(axes, self.artists[signal][0]) for signal, axes in self.axes.items() if self.artists[signal]]
        for _, line in lines:
            if line.get_animated() != on:  # matplotlib's word for what is not drawn with the rest
                line.set_animated(on)
        return lines if on else []

    def _make_room(self, axes: Axes) -> None:
        """Have the axes show all points, and room for what is likely to follow; at the end of the run they fit again.

        What a person has set, a range or a scale, is left alone.
        """
        points = axes.dataLim.get_points()
        for which, on, scale, shown, show in (
            (0, axes.get_autoscalex_on(), axes.get_xscale(), axes.get_xlim(), axes.set_xlim),
            (1, axes.get_autoscaley_on(), axes.get_yscale(), axes.get_ylim(), axes.set_ylim),
        ):
            low, high = (float(end) for end in points[:, which])
            if not on or (scale == "linear" and self._has_room and shown[0] <= low <= high <= shown[1]):
                continue
            if scale != "linear" or not low < high or shown[0] > shown[1]:
                axes.autoscale_view(scalex=which == 0, scaley=which == 1)
                continue
            first, last = self._expected(low, high) if which == 0 else (low, high)
            room = ROOM * (high - low)
            if self._has_room:
                first, last = (low - room if low < shown[0] else first), (high + room if high > shown[1] else last)
            margin = 0.05 * (last - first)
            show(first - margin, last + margin, auto=True)
        self._has_room = self.series.count > 1

    def _expected(self, low: float, high: float) -> tuple[float, float]:
        """The range of all points of this run, if they are at equal steps and it is known how many there will be."""
        series = self.series
        count, wanted = series.count, series.start.get("num_points") or 0
        steps = series.start.get("plan_pattern") == "inner_product" or series.x == ("time",)
        if not steps or not 1 < count < wanted:
            return low, high
        x = series.arrays(series.x[0])[0]
        last = x[0] + (x[count - 1] - x[0]) * (wanted - 1) / (count - 1)
        return (min(low, last), max(high, last)) if np.isfinite(last) else (low, high)

    def _mark(self, signal: str, axes: Axes, color: Any) -> None:
        """Mark the peak's centre, if the scan has seen the whole of one."""
        statistics = self.series.statistics.get(signal)
        if statistics is not None and statistics.cen is not None and statistics.inside:
            mark = axes.axvline(statistics.cen, color=color, linestyle=":", linewidth=1)
            self.artists[signal].append(mark)
            self.artists[signal][0].set_label(f"{self.series.label}: cen {statistics.cen:.5g}")


Grid = tuple[tuple[int, int], tuple[float, float, float, float]]  # shape (slow, fast); left, right, bottom, top


def grid_of(start: Mapping[str, Any], slow_positions: np.ndarray, fast_positions: np.ndarray) -> Grid | None:
    """The grid that a start document announces, with the outer edges of its cells; None without a rectilinear one.

    Args:
        start: The start document.
        slow_positions: Readings of the slow motor so far.
        fast_positions: The same of the fast motor.
    """
    if start.get("hints", {}).get("gridding") != "rectilinear" or "shape" not in start or "extents" not in start:
        return None
    slow, fast = start["shape"]
    (y0, y1), (x0, x1) = start["extents"]
    if (
        str(start.get("plan_name", "")).startswith("rel_") and slow_positions.size
    ):  # those are distances; the first point is at a corner
        y0, y1 = slow_positions[0], slow_positions[0] + y1 - y0
        x0, x1 = fast_positions[0], fast_positions[0] + x1 - x0
    half_x, half_y = (x1 - x0) / max(1, fast - 1) / 2, (y1 - y0) / max(1, slow - 1) / 2
    return (slow, fast), (x0 - half_x, x1 + half_x, y0 - half_y, y1 + half_y)


def on_grid(grid: Grid, slow: np.ndarray, fast: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values at their places in an image of shape (slow, fast); NaN where nothing was measured."""
    shape, (left, right, bottom, top) = grid
    image = np.full(shape, np.nan)
    rows = np.clip((slow - bottom) / ((top - bottom) or 1.0) * shape[0], 0, shape[0] - 1).astype(int)
    columns = np.clip((fast - left) / ((right - left) or 1.0) * shape[1], 0, shape[1] - 1).astype(int)
    image[rows, columns] = values
    return image


class _Map(_Curve):
    """Signals on a plane: an image where the plan says it goes over a grid, else coloured points."""

    def open(self) -> None:
        slow, fast = self.series.x
        self._image = grid_of(self.series.start, *self.series.arrays(*self.series.x))
        for signal, axes in self.axes.items():
            if self._image is not None:
                shape, extent = self._image
                artist = axes.imshow(np.full(shape, np.nan), extent=extent, origin="lower", aspect="auto")
            else:
                artist = axes.scatter([], [], c=[])
            self.artists[signal] = [artist]
            axes.set_xlabel(fast if self._image is not None else slow)
            axes.set_ylabel(slow if self._image is not None else fast)
            axes.set_title(f"{signal}, scan {self.series.label}")
            self.figure.colorbar(artist, ax=axes)

    def refresh(self, ended: bool) -> None:
        for signal, axes in self.axes.items():
            if not self.artists[signal]:
                continue
            artist = self.artists[signal][0]
            slow, fast, values = self.series.arrays(*self.series.x, signal)
            if self._image is not None:
                artist.set_data(on_grid(self._image, slow, fast, values))
            else:
                artist.set_offsets(np.column_stack([slow, fast]))
                artist.set_array(values)
                axes.update_datalim(np.column_stack([slow, fast]))
                axes.autoscale_view()
            if np.any(np.isfinite(values)):
                artist.set_clim(np.nanmin(values), np.nanmax(values))
