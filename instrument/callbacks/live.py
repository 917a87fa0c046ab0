"""What a person sees of a run while it runs: the table, line by line, and the plot.

The table is printed where the documents come from, the RunEngine's thread. The plot is not: a callback there only
collects numbers (some microseconds a point, where bluesky's draws for tens of milliseconds), and the main thread, which
has nothing to do while a plan runs, draws them when `BestEffort.draw` is called: about ten times a second, and less
often where that would take more than a fifth of the time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from bluesky.callbacks.core import LiveTable

from instrument.callbacks.peaks import PeakResults
from instrument.callbacks.text_plot import TextPlots
from instrument.callbacks.windows import Windows
from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.framework import screen
from instrument.framework.statistics import PeakStatistics, clearness, peak_statistics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(LOGGER_NAME)

REPORTED = ("snapshot", "snapshot_restore", "snapshot_undo")  # plans that print a report of their own
NUMERIC = ("number", "integer")


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
        measured: What is collected, and looked for peaks; the signals if not given.
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
    measured: tuple[str, ...] = ()
    columns: dict[str, list[float]] = field(default_factory=dict)
    count: int = 0  # complete points
    drawn: int = 0  # points in the last drawing
    statistics: dict[str, PeakStatistics] = field(default_factory=dict)
    ended: bool = False  # there are no more points to come
    finished: bool = False  # and all of them, and the marks, are drawn
    slot: screen.Slot | None = None  # where a notebook shows the plot

    def __post_init__(self) -> None:
        self.measured = self.measured or self.signals
        self.columns = {name: [] for name in (*self.x, *self.measured)}

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
    def clearest(self) -> str:
        """What of the signals shows the clearest peak; of those without one, the one that changes most."""
        return self.clearest_of(self.signals)

    def clearest_of(self, signals: Sequence[str]) -> str:
        """What of some signals that were measured shows the clearest peak; see `clearest`."""
        return max(signals, key=lambda name: clearness(self.arrays(name)[0], self.statistics.get(name)))

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


class BestEffort:
    """bluesky's `bec`, with a plot that costs a scan next to nothing and peaks that are right.

    The methods and attributes people type are those of bluesky's BestEffortCallback: `disable_plots() enable_plots()
    disable_table() enable_table() disable_baseline() enable_baseline() disable_heading() enable_heading()
    noplot_streams omit_single_point_plot overplot peaks plot_prune_fifo()`. Peaks are computed also while the plots are
    off. It does not derive from that class, whose module brings pyplot along: half a second before each prompt.

    Args:
        fig_factory: Makes or finds the figure of a name; pyplot's by default.
        table_enabled: Print the table?
        windows: What draws; windows with `fig_factory` by default.
    """

    def __init__(
        self,
        *,
        fig_factory: Callable[[str], Figure] | None = None,
        table_enabled: bool = True,
        windows: Windows | None = None,
    ) -> None:
        self.peaks = PeakResults()
        self.noplot_streams = ["baseline"]
        self.omit_single_point_plot = True
        self.selected: tuple[str, ...] = ()  # signals that are plotted, the first one for `cen()`; none: all
        self.last_scan: Series | None = None  # the last run that scanned one thing
        self.last_moved: dict[str, Any] | None = None  # start document of the last run that scanned anything
        self.windows = windows or Windows(fig_factory)
        self.text_plots: TextPlots | None = None  # where plots are shown as text if there is no window for them
        self._heading_enabled = self._baseline_enabled = self._plots_enabled = True
        self._table_enabled = table_enabled
        self._failed = False
        self.clear()

    @property
    def overplot(self) -> bool:
        """Draw the next scan of the same signals into the same window?"""
        return self.windows.overplot

    @overplot.setter
    def overplot(self, on: bool) -> None:
        self.windows.overplot = on

    @property
    def most_curves(self) -> int:
        """How many scans a window keeps."""
        return self.windows.most_curves

    @most_curves.setter
    def most_curves(self, count: int) -> None:
        self.windows.most_curves = count

    def enable_heading(self) -> None:
        """Print scan number, time and uid at the top of a run."""
        self._heading_enabled = True

    def disable_heading(self) -> None:
        """Print no scan number, time and uid at the top of a run."""
        self._heading_enabled = False

    def enable_table(self) -> None:
        """Print hinted readings as a table."""
        self._table_enabled = True

    def disable_table(self) -> None:
        """Print no table."""
        self._table_enabled = False

    def enable_baseline(self) -> None:
        """Print hinted readings of the baseline."""
        self._baseline_enabled = True

    def disable_baseline(self) -> None:
        """Print no readings of the baseline."""
        self._baseline_enabled = False

    def enable_plots(self) -> None:
        """Plot hinted readings of all streams that are not in `noplot_streams`."""
        self._plots_enabled = True

    def disable_plots(self) -> None:
        """Plot nothing."""
        self._plots_enabled = False

    # --- documents, on the RunEngine's thread

    def __call__(self, name: str, doc: dict[str, Any], **_options: Any) -> None:
        """Take one document. Whatever goes wrong is told once per run, and does not stop it."""
        if name == "start":
            self._failed = False
            self._silent = doc.get("plan_name") in REPORTED
        if self._failed or self._silent:
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
        """Print the heading of a run, and see what it scans."""
        self.clear()
        self._start_doc = doc
        if doc.get("motors"):
            self.last_moved = doc
        dimensions = doc.get("hints", {}).get("dimensions")
        if dimensions is not None and len({stream for _, stream in dimensions}) != 1:
            logger.warning("the plot takes the motors for its axes: the hinted dimensions are of more than one stream")
            dimensions = None
        self._named_by_motors = dimensions is None
        if dimensions is None:
            dimensions = [([motor], "primary") for motor in doc.get("motors") or ()] or [(["time"], "primary")]
        self.dim_fields = [fields[0] if fields else "time" for fields, _ in dimensions]
        self.all_dim_fields = [field for fields, _ in dimensions for field in fields]
        self.dim_stream = dimensions[0][1]
        if self._heading_enabled and (self._table_enabled or self._baseline_enabled or self._plots_enabled):
            moment = datetime.fromtimestamp(doc["time"], UTC)
            print(f"\n\nTransient Scan ID: {doc.get('scan_id', '')}     Time: {moment:%Y-%m-%d %H:%M:%S}")
            print(f"Persistent Unique Scan ID: '{doc['uid']}'")

    def descriptor(self, doc: Any) -> None:
        """Begin the table and the plot of a stream."""
        name = doc.get("name", "primary")
        if name not in self._stream_names_seen:
            self._stream_names_seen.add(name)
            if self._table_enabled:
                screen.tell(f"New stream: {name!r}")
        hinted = _hinted_fields(doc)
        if name == "primary" and self._named_by_motors:
            self._named_by_motors = False
            self.dim_fields = [field for motor in self.dim_fields for field in _fields_of(doc, motor)]
            self.all_dim_fields = self.dim_fields
        columns = [column for column in dict.fromkeys(hinted) if column not in self.all_dim_fields]
        stream = _Stream(name, baseline=hinted)
        before = next((s.series for s in self._streams.values() if s.name == name and s.series), None)
        # Before the table, which a notebook is to show in one piece.
        stream.series = before or self._series(doc, name, columns)
        if name == self.dim_stream and self._table_enabled:
            # Fields may come twice, where two names stand for one thing; arrays have no place in a table.
            keys = doc["data_keys"]
            fields = dict.fromkeys([*self.all_dim_fields, *columns])
            shown = [f for f in fields if f not in keys or keys[f]["dtype"] != "array"]
            stream.table = Table(shown, out=screen.tell)
            stream.table("start", self._start_doc)
            stream.table("descriptor", doc)
        self._table = stream.table or self._table
        self._streams[doc["uid"]] = stream

    def _series(self, doc: dict[str, Any], stream: str, columns: list[str]) -> Series | None:
        """What is to be collected of a stream, if anything can be drawn or measured."""
        x = tuple(self.dim_fields) if stream == self.dim_stream else ("time",)
        keys = doc["data_keys"]
        signals = tuple(c for c in columns if c in keys and keys[c]["dtype"] in NUMERIC and not keys[c].get("shape"))
        if not 0 < len(x) < 3 or not signals or stream in self.noplot_streams:
            return None
        label = str(self._start_doc.get("scan_id", ""))
        single = self._start_doc.get("num_points") == 1 and stream == self.dim_stream
        plot = self._plots_enabled and not (single and self.omit_single_point_plot)
        chosen = tuple(name for name in self.selected if name in signals)
        series = Series(x, chosen or signals, label, self._start_doc, plot, signals)
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
            if series.plot and series.count and self.text_plots is not None:
                self.text_plots.finish(series)
        if self._baseline_enabled:
            print(self._buffer.getvalue())
            print("\n")

    def _measure(self, series: Series) -> None:
        (x,) = series.x
        found = {}
        scanned = x != "time" and series.count > 1
        if scanned:
            self.last_scan = series
        for signal in series.measured:
            found[signal] = peak_statistics(*series.arrays(x, signal)) if scanned else PeakStatistics()
        self.peaks.update(found, x)
        series.statistics = found

    def clear(self) -> None:
        """Forget the last run; what is drawn of it stays."""
        self._start_doc: Any = None
        self._named_by_motors = False
        self.dim_fields: list[str] = []
        self.all_dim_fields: list[str] = []
        self.dim_stream = "primary"
        self._stream_names_seen: set[str] = set()
        self._streams: dict[str, _Stream] = {}
        self._table: Table | None = None
        self._buffer = StringIO()
        self._baseline_toggle = True
        self.peaks.clear()

    # --- drawing, on the main thread

    def draw(self, force: bool = False) -> None:
        """Draw what was collected since the last time; to be called often, on the main thread.

        Ten times a second at the most, but at once when a run has ended.

        Args:
            force: Draw now, and also where nobody sees it (without a display).
        """
        self.windows.draw(force)
        if self.text_plots is not None and not self._table_enabled and (series := self._plotted()) is not None:
            self.text_plots.update(series)

    def show_so_far(self) -> None:
        """Show the curve of a run that pauses, where plots are text. On the main thread only."""
        if self.text_plots is not None and (series := self._plotted()) is not None:
            self.text_plots.finish(series)

    def _plotted(self) -> Series | None:
        """What is plotted of the run that goes on."""
        all_series = (stream.series for stream in list(self._streams.values()))
        return next((s for s in all_series if s is not None and s.plot and s.count and not s.ended), None)

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


def _hinted_fields(descriptor: dict[str, Any]) -> list[str]:
    """What the devices of a stream hint at; everything of those that do not hint."""
    hints = descriptor.get("hints", {})
    keys = descriptor["object_keys"]
    return [field for name in keys for field in hints.get(name, {}).get("fields", keys[name])]


def _fields_of(descriptor: dict[str, Any], motor: str) -> list[str]:
    """The fields that stand for a motor that is only named by the start document."""
    if motor == "time":
        return ["time"]
    hint = descriptor.get("hints", {}).get(motor, {})
    return list(hint.get("fields") or descriptor["object_keys"].get(motor, [motor]))
