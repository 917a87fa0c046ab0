"""What a person sees of a run while it runs: the table, line by line, and the plot.

The table is printed where the documents come from, the RunEngine's thread. The plot is not: a callback there only
collects numbers (some microseconds a point, where bluesky's draws for tens of milliseconds), and the main thread, which
has nothing to do while a plan runs, draws them when `BestEffort.draw` is called: about ten times a second, and less
often where that would take more than a fifth of the time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from bluesky.callbacks.best_effort import BestEffortCallback, hinted_fields
from bluesky.callbacks.core import LiveTable

from instrument.callbacks.peaks import PeakResults
from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.framework.statistics import PeakStatistics, peak_statistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger(LOGGER_NAME)

DRAW_INTERVAL = 0.1  # s between two drawings at the least
DRAW_SHARE = 0.2  # of the time at the most
LONGEST_INTERVAL = 1.0  # s, however long a drawing takes
MOST_CURVES = 8  # scans in one window; older ones are taken away
NUMERIC = ("number", "integer")
Corner = Literal["upper left", "upper right"]


class Table(LiveTable):
    """bluesky's LiveTable, a row formatted in one go, and without its pause of 0.1 s at the end of a run."""

    def __init__(self, fields: list[str], **options: Any) -> None:
        super().__init__(fields, separator_lines=False, **options)
        self._start: Any = None
        self._row = ""
        self._cells: list[tuple[str, str, int]] = []  # key, format, width between the bars

    def descriptor(self, doc: Any) -> None:
        """Print the heading."""
        super().descriptor(doc)
        pad = self._pad_len
        self._cells = []
        for key, style in self._format_info.items():
            precision = "" if style.dtype == "d" else f".{style.prec}"
            self._cells.append((key, f"{{: >{style.width - 2 * pad}{precision}{style.dtype}}}", style.width))
        space = " " * pad
        self._row = "|" + "|".join(f"{space}{cell}{space}" for _, cell, _ in self._cells) + "|"

    def event(self, doc: Any) -> None:
        """Print a row."""
        if doc["descriptor"] not in self._descriptors:
            return
        self._count += 1
        if not self._count % self._header_interval:
            self._print(self._sep_format)
            self._print(self._header)
            self._print(self._sep_format)
        data = doc["data"]
        values = [doc["seq_num"], str(datetime.fromtimestamp(doc["time"]).time())]
        try:
            values += [data[key] for key, _, _ in self._cells[2:]]
            row = self._row.format(*values)
        except (KeyError, ValueError, TypeError):
            row = self._row_of_parts([*values[:2], *(data.get(key) for key, _, _ in self._cells[2:])], doc)
        self._print(row)

    def _row_of_parts(self, values: list[Any], doc: dict[str, Any]) -> str:
        """A row in which some cell is no number, or is missing."""
        parts = []
        filled = doc.get("filled", {})
        for (key, cell, width), value in zip(self._cells, values, strict=True):
            inner = width - 2 * self._pad_len
            if value is None or not filled.get(key, True):
                text = ""
            else:
                plain = getattr(value, "value", value)  # of an Enum
                try:
                    text = cell.format(plain) if not isinstance(plain, bool) else str(plain)
                except (ValueError, TypeError):
                    text = str(plain)
            parts.append(f"{self._extra_pad}{text[:inner]:>{inner}}{self._extra_pad}")
        return "|" + "|".join(parts) + "|"

    def stop(self, doc: Any) -> None:
        """Print the end of the table."""
        if doc["run_start"] != self._start["uid"]:
            return
        if self._sep_format is not None:
            self._print(self._sep_format)
        start = {"plan_type": "", "plan_name": "", "scan_id": "", **self._start}
        self._out(self.water_mark.format(st=start))


@dataclass
class Series:
    """Numbers of one run and stream, collected on the RunEngine's thread, drawn on the main thread.

    Attributes:
        x: What is scanned: one name, two for a map; "time" is the time since the run started (s).
        signals: What is plotted against it, one pair of axes each.
        label: How the run is called in the legend.
        start: The run's start document.
        plot: Is it to be drawn?
        columns: The numbers, by name of x and signals.
    """

    x: tuple[str, ...]
    signals: tuple[str, ...]
    label: str
    start: dict[str, Any]
    plot: bool
    columns: dict[str, list[float]] = field(default_factory=dict)
    count: int = 0  # complete points
    drawn: int = 0  # points in the last drawing
    statistics: dict[str, PeakStatistics] = field(default_factory=dict)
    ended: bool = False  # there are no more points to come
    finished: bool = False  # and all of them, and the marks, are drawn

    def __post_init__(self) -> None:
        self.columns = {name: [] for name in (*self.x, *self.signals)}

    def take(self, event: dict[str, Any]) -> None:
        """Add one event."""
        data = event["data"]
        for name, column in self.columns.items():
            value = data.get(name)
            if value is None and name == "time":
                value = event["time"] - self.start["time"]
            elif value is None and name == "seq_num":
                value = event["seq_num"]
            column.append(np.nan if value is None else value)
        self.count += 1

    def arrays(self, *names: str) -> list[np.ndarray]:
        """The complete points of some columns, as numbers; what is none is NaN."""
        count = self.count
        return [_numbers(self.columns[name][:count]) for name in names]

    @property
    def wants_drawing(self) -> bool:
        """Are there points, or marks, that are not drawn?"""
        return self.plot and (self.count != self.drawn or (self.ended and not self.finished))


def _numbers(column: list[Any]) -> np.ndarray:
    try:
        return np.array(column, dtype=float)
    except (TypeError, ValueError):
        return np.array([_number(value) for value in column])


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


class BestEffort(BestEffortCallback):
    """bluesky's `bec`, with a plot that costs a scan next to nothing and peaks that are right.

    The methods and attributes people type are bluesky's: `disable_plots() enable_plots() disable_table()
    enable_table() disable_baseline() enable_baseline() noplot_streams overplot peaks plot_prune_fifo()`. Peaks are
    computed also while the plots are off.

    Args:
        fig_factory: Makes or finds the figure of a name; pyplot's by default.
        options: What BestEffortCallback takes.
    """

    peaks: PeakResults
    _start_doc: Any
    _table: Any

    def __init__(self, *, fig_factory: Callable[[str], Figure] | None = None, **options: Any) -> None:
        # Without bluesky's "teleporter", which with Qt would carry also the table to the main thread.
        super().__init__(fig_factory=fig_factory, use_teleporter=False, **options)
        self.peaks = PeakResults()
        self.most_curves = MOST_CURVES
        self.windows = Windows(self)
        self._streams: dict[str, _Stream] = {}
        self._failed = False

    # --- documents, on the RunEngine's thread

    def __call__(self, name: str, doc: dict[str, Any], **_options: Any) -> None:
        """Take one document. Whatever goes wrong is told once per run, and does not stop it."""
        if name == "start":
            self._failed = False
        if self._failed:
            return
        try:
            if name in ("start", "descriptor", "event", "event_page", "stop"):
                getattr(self, name)(doc)
        except Exception as error:
            self._failed = True
            logger.warning(
                "live table and plot of this run failed (%s: %s); the run goes on", type(error).__name__, error
            )
            logger.debug("live table and plot failed", exc_info=True)

    def start(self, doc: Any) -> None:
        """Print the heading of a run."""
        heading = self._heading_enabled
        self._heading_enabled = heading and (self._table_enabled or self._baseline_enabled or self._plots_enabled)
        try:
            super().start(doc)
        finally:
            self._heading_enabled = heading

    def descriptor(self, doc: Any) -> None:
        """Begin the table and the plot of a stream."""
        name = doc.get("name", "primary")
        if name not in self._stream_names_seen:
            self._stream_names_seen.add(name)
            if self._table_enabled:
                print(f"New stream: {name!r}")
        hinted = hinted_fields(doc)
        if name == "primary" and self._cleanup_motor_heuristic:
            self._cleanup_motor_heuristic = False
            self.dim_fields = [field for motor in self.dim_fields for field in _fields_of(doc, motor)]
            self.all_dim_fields = self.dim_fields
        columns = [column for column in dict.fromkeys(hinted) if column not in self.all_dim_fields]
        stream = _Stream(name, baseline=hinted)
        if name == self.dim_stream and self._table_enabled:
            # Fields may come twice, where two names stand for one thing; arrays have no place in a table.
            keys = doc["data_keys"]
            fields = dict.fromkeys([*self.all_dim_fields, *columns])
            stream.table = Table([f for f in fields if f not in keys or keys[f]["dtype"] != "array"])
            stream.table("start", self._start_doc)
            stream.table("descriptor", doc)
        self._table = stream.table or self._table
        before = next((s.series for s in self._streams.values() if s.name == name and s.series), None)
        stream.series = before or self._series(doc, name, columns)
        self._streams[doc["uid"]] = stream

    def _series(self, doc: dict[str, Any], stream: str, columns: list[str]) -> Series | None:
        """What is to be collected of a stream, if anything can be drawn or measured."""
        x = tuple(self.dim_fields) if stream == self.dim_stream else ("time",)
        keys = doc["data_keys"]
        signals = tuple(c for c in columns if c in keys and keys[c]["dtype"] in NUMERIC and not keys[c].get("shape"))
        if not 0 < len(x) < 3 or not signals or stream in self.noplot_streams:
            return None
        label = str(self._start_doc.get("scan_id", ""))
        plot = self._verify_plot_data(stream, list(signals))
        series = Series(x, signals, label, self._start_doc, plot)
        if plot:
            self.windows.add(series)
        return series

    def event(self, doc: Any) -> None:
        """Print a row, collect a point."""
        stream = self._streams.get(doc["descriptor"])
        if stream is None:
            return
        if stream.table is not None:
            stream.table.event(doc)
        if stream.name == "baseline":
            self._show_baseline(stream, doc)
        if stream.series is not None:
            stream.series.take(doc)

    def event_page(self, doc: Any) -> Any:
        """Print rows, collect points."""
        from event_model import unpack_event_page

        for event in unpack_event_page(doc):
            self.event(event)
        return doc

    def _show_baseline(self, stream: _Stream, doc: dict[str, Any]) -> None:
        self._baseline_toggle = not self._baseline_toggle
        end = self._baseline_toggle
        if not self._baseline_enabled:
            return
        border = "+" + "-" * 32 + "+" + "-" * 32 + "+"
        lines = [f"{'End' if end else 'Start'}-of-run baseline readings:", border]
        for key, value in doc["data"].items():
            if key in stream.baseline:
                text = f"{value:<30}" if isinstance(value, str | int | float) else f"{value!s:<30}"
                lines.append(f"| {key:>30} | {text} |")
        print("\n".join([*lines, border]), file=self._buffer if end else None)

    def stop(self, doc: Any) -> None:
        """Print the end of the table, measure the peaks."""
        if self._table is not None:
            self._table("stop", doc)
        for series in {id(s.series): s.series for s in self._streams.values() if s.series}.values():
            if len(series.x) == 1:
                self._measure(series)
            series.ended = True
        if self._baseline_enabled:
            print(self._buffer.getvalue())
            print("\n")

    def _measure(self, series: Series) -> None:
        (x,) = series.x
        found = {}
        for signal in series.signals:
            scanned = x != "time" and series.count > 1
            found[signal] = peak_statistics(*series.arrays(x, signal)) if scanned else PeakStatistics()
        self.peaks.update(found, x)
        series.statistics = found

    def clear(self) -> None:
        """Forget the last run; what is drawn of it stays."""
        self._start_doc = None
        self._stream_names_seen.clear()
        self._streams.clear()
        self._table = None
        self.peaks.clear()
        self._buffer = StringIO()
        self._baseline_toggle = True

    # --- drawing, on the main thread

    def draw(self, force: bool = False) -> None:
        """Draw what was collected since the last time; to be called often, on the main thread.

        Ten times a second at the most, but at once when a run has ended.

        Args:
            force: Draw now, and also where nobody sees it (without a display).
        """
        self.windows.draw(force)

    def save_plot(self, path: Path | str, signal: str | None = None) -> Path:
        """Save a plot as a picture; the file's ending says which kind. On the main thread only.

        Args:
            path: The file to write.
            signal: The detector signal whose plot it is to be; None: the plot drawn last.

        Raises:
            UserError: There is no such plot, or the file can't be written.
        """
        self.draw(force=True)
        figure = self.windows.figure_of(signal)
        try:
            figure.savefig(path)
        except (OSError, ValueError) as error:
            raise UserError(f"can't save the plot as {path}: {error}") from error
        return Path(path)

    def plot_prune_fifo(self, num_lines: int, x_signal: Any, y_signal: Any) -> None:
        """Keep only the newest scans in the plot of one signal against another. On the main thread only.

        Args:
            num_lines: How many scans to keep.
            x_signal: What was scanned.
            y_signal: What was measured.
        """
        if num_lines < 0:
            raise ValueError(f"Argument 'num_lines' (given as {num_lines}) must be >= 0.")
        self.windows.prune(num_lines, x_signal.name, y_signal.name)


@dataclass
class _Stream:
    name: str
    baseline: list[str]
    table: Table | None = None
    series: Series | None = None


def _fields_of(descriptor: dict[str, Any], motor: str) -> list[str]:
    """The fields that stand for a motor that is only named by the start document."""
    if motor == "time":
        return ["time"]
    hint = descriptor.get("hints", {}).get(motor, {})
    return list(hint.get("fields") or descriptor["object_keys"].get(motor, [motor]))


class Windows:
    """The figures of a session: one for each set of signals, used again by the next scan of the same.

    `add` may be called from any thread, everything else is for the main thread.
    """

    def __init__(self, bec: BestEffort) -> None:
        self._bec = bec
        self._new: deque[Series] = deque()  # filled on the RunEngine's thread
        self._curves: list[_Curve] = []
        self._last: Figure | None = None
        self._not_before = 0.0
        self._drawing = False
        self._laid_out: set[int] = set()

    def add(self, series: Series) -> None:
        """Have a series drawn from now on."""
        self._new.append(series)

    def draw(self, force: bool = False) -> None:
        """Bring the figures up to date, at most ten times a second; see `BestEffort.draw`."""
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
        figures = dict.fromkeys(curve.figure for curve in self._curves if curve.update())
        if force and not figures and self._last is not None:
            figures = dict.fromkeys([self._last])
        for figure in figures:
            self._show(figure, force)
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
        bec, signals = self._bec, list(series.signals)
        is_map = len(series.x) == 2
        if is_map:
            name = f"{' '.join(sorted(signals))} vs {' '.join(sorted(series.x))}"
        else:
            name = bec._get_figure_name(signals, list(series.x))  # noqa: SLF001  bluesky's naming of windows
        figure = bec._fig_factory(name)  # noqa: SLF001
        if is_map:  # which would hide the one below it
            figure.clear()
            self._laid_out.discard(id(figure))
            figure.set_layout_engine("constrained")
            self._curves = [curve for curve in self._curves if curve.figure is not figure]
        axes = bec._generate_axes(signals, len(series.x), figure)  # noqa: SLF001
        self._curves.append((_Map if is_map else _Line)(series, figure, dict(zip(signals, axes, strict=False))))
        same = [curve for curve in self._curves if curve.figure is figure]
        for old in same[: -bec.most_curves]:
            old.remove()
            self._curves.remove(old)
        self._last = figure

    def _show(self, figure: Figure, force: bool) -> None:
        self._last = figure
        has_window = _has_window(figure)
        if not has_window and not force:
            return
        if has_window and id(figure) not in self._laid_out:
            figure.show()
        figure.canvas.draw()
        if id(figure) not in self._laid_out:
            # Laying out anew costs as much as drawing; once is enough.
            self._laid_out.add(id(figure))
            figure.set_layout_engine("none")
        if has_window:
            figure.canvas.flush_events()

    def _keep_alive(self) -> None:
        """Let an idle window react to the mouse."""
        if self._last is not None and _has_window(self._last):
            self._last.canvas.flush_events()


def _has_window(figure: Figure) -> bool:
    import matplotlib.pyplot as plt

    interactive = getattr(figure.canvas, "required_interactive_framework", None) is not None
    return interactive and figure.number in plt.get_fignums()


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

    def is_open(self) -> bool:
        """Is the figure still there?"""
        import matplotlib.pyplot as plt

        number = getattr(self.figure, "number", None)
        return number is None or plt.fignum_exists(number)

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


class _Line(_Curve):
    """Signals against what is scanned, or against time."""

    def open(self) -> None:
        (x,) = self.series.x
        last = list(self.axes.values())[-1]
        for signal, axes in self.axes.items():
            (line,) = axes.plot([], [], ".-", label=self.series.label)
            self.artists[signal] = [line]
            axes.set_ylabel(signal)
            axes.set_xlabel(("time (s)" if x == "time" else x) if axes is last else "")
            axes.margins(0.05)
            _legend(axes)

    def refresh(self, ended: bool) -> None:
        for signal, axes in self.axes.items():
            if not self.artists[signal]:
                continue
            line = self.artists[signal][0]
            line.set_data(*self.series.arrays(self.series.x[0], signal))
            if ended:
                self._mark(signal, axes, line.get_color())
                _legend(axes, self._free_corner(*line.get_data()))
            axes.relim(visible_only=True)
            axes.autoscale_view()

    def _mark(self, signal: str, axes: Axes, color: Any) -> None:
        """Mark the peak's centre, if there is one."""
        statistics = self.series.statistics.get(signal)
        if statistics is not None and statistics.cen is not None:
            mark = axes.axvline(statistics.cen, color=color, linestyle=":", linewidth=1)
            self.artists[signal].append(mark)
            self.artists[signal][0].set_label(f"{self.series.label}: cen {statistics.cen:.5g}")

    @staticmethod
    def _free_corner(x: np.ndarray, y: np.ndarray) -> Corner:
        """The upper corner that the highest point is farther from."""
        if not np.any(np.isfinite(y)):
            return "upper right"
        highest = x[np.nanargmax(y)]
        return "upper left" if highest > (np.nanmin(x) + np.nanmax(x)) / 2 else "upper right"


class _Map(_Curve):
    """Signals on a plane: an image where the plan says it goes over a grid, else coloured points."""

    def open(self) -> None:
        slow, fast = self.series.x
        self._image = self._grid()
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

    def _grid(self) -> tuple[tuple[int, int], tuple[float, float, float, float]] | None:
        """Shape (slow, fast) and the extent of the image; None without a rectilinear grid."""
        start = self.series.start
        if start.get("hints", {}).get("gridding") != "rectilinear" or "shape" not in start or "extents" not in start:
            return None
        slow, fast = start["shape"]
        (y0, y1), (x0, x1) = start["extents"]
        half_x, half_y = (x1 - x0) / max(1, fast - 1) / 2, (y1 - y0) / max(1, slow - 1) / 2
        return (slow, fast), (x0 - half_x, x1 + half_x, y0 - half_y, y1 + half_y)

    def refresh(self, ended: bool) -> None:
        for signal, axes in self.axes.items():
            if not self.artists[signal]:
                continue
            artist = self.artists[signal][0]
            slow, fast, values = self.series.arrays(*self.series.x, signal)
            if self._image is not None:
                shape, (left, right, bottom, top) = self._image
                image = np.full(shape, np.nan)
                rows = np.clip((slow - bottom) / ((top - bottom) or 1.0) * shape[0], 0, shape[0] - 1).astype(int)
                cols = np.clip((fast - left) / ((right - left) or 1.0) * shape[1], 0, shape[1] - 1).astype(int)
                image[rows, cols] = values
                artist.set_data(image)
            else:
                artist.set_offsets(np.column_stack([slow, fast]))
                artist.set_array(values)
                axes.update_datalim(np.column_stack([slow, fast]))
                axes.autoscale_view()
            if np.any(np.isfinite(values)):
                artist.set_clim(np.nanmin(values), np.nanmax(values))
