"""Time series of numbers: the last so many, or as many as there is room for; ADCore: NDPluginTimeSeries."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray as Pixels

from virtual_beamline.area_detector import parameters as p
from virtual_beamline.area_detector.ndarray import NDArray
from virtual_beamline.area_detector.plugin import Plugin
from virtual_beamline.area_detector.port import Detector
from virtual_beamline.epics import RecordSpec

MOST_POINTS = 2048
"""Room in the records."""


class Series:
    """Points of some signals, in order; the oldest make room if it is circular."""

    def __init__(self, signals: int, room: int) -> None:
        """Start without points."""
        self._values = np.zeros((signals, room))
        self._next = 0
        self._full = False

    @property
    def room(self) -> int:
        """How many points there is room for."""
        return self._values.shape[1]

    @property
    def count(self) -> int:
        """Where the next point goes; a circular one begins again."""
        return self._next

    def clear(self, room: int | None = None) -> None:
        """Forget all points."""
        self._values = np.zeros((len(self._values), room or self.room))
        self._next, self._full = 0, False

    def add(self, point: Sequence[float] | Pixels[Any], circular: bool = False) -> bool:
        """One more point; true if there is no room for another one."""
        self._values[:, self._next] = point
        self._next += 1
        if self._next < self.room:
            return False
        if circular:
            self._next, self._full = 0, True
        return not circular

    def points(self, circular: bool = False) -> Pixels[np.float64]:
        """The points so far, of shape (signals, points); of a circular one always as many as there is room for."""
        if circular:
            return np.roll(self._values, -self._next, axis=1) if self._full else self._values.copy()
        return self._values[:, : self._next].copy()


class TimeSeries(Plugin):
    """Gets arrays of as many numbers as there are signals, and shows what they were."""

    plugin_type = "NDPluginTimeSeries"
    parameters = (
        p.switch("EnableCallbacks", ("Disable", "Enable"), 1, "Take arrays"),
        p.integer("NDArrayAddress", 1, "Address at that port"),
        p.command("TSAcquire", ("Done", "Acquire"), "Collect points").write_only(),
        p.switch("TSAcquiring", ("Done", "Acquiring"), 0, "Whether it does").readonly(""),
        p.choice("TSAcquireMode", ("Fixed length", "Circ. buffer"), 0, "Stop when full, or go round"),
        p.switch("TSRead", ("Done", "Read"), 0, "Show the points so far").write_only(),
        p.integer("TSNumPoints", MOST_POINTS, "Points to collect").write_only(),
        p.integer("TSCurrentPoint", 0, "Points so far").readonly(""),
        p.number("TSTimePerPoint", 0.0, "From one array to the next", "s", 6),
        p.number("TSAveragingTime", 0.0, "Time of which a point is the mean", "s", 6),
        p.integer("TSNumAverage", 1, "Arrays of which a point is the mean").readonly(""),
        p.number("TSElapsedTime", 0.0, "Since it began", "s").readonly(""),
        p.array("TSTimeAxis", "DOUBLE", MOST_POINTS, "Time of each point, as it should be").readonly(""),
        p.array("TSTimestamp", "DOUBLE", MOST_POINTS, "Time of each point, as it was").readonly(""),
    )

    def __init__(
        self,
        detector: Detector,
        prefix: str,
        name: str,
        source: str,
        signals: int,
        show: Callable[[Pixels[np.float64], Pixels[np.float64]], None],
    ) -> None:
        """Make a plugin.

        Args:
            detector: whose plugin it is.
            prefix: of its PVs, e.g. ``"Stats1:TS:"``.
            name: of its port, e.g. ``"STATS1_TS"``.
            source: name of the port whose arrays at address 1 it gets at first.
            signals: how many numbers an array has.
            show: called when the points shall be shown, with them, of shape (signals, points), and their times.
        """
        super().__init__(detector, prefix, name, source)
        self._signals = signals
        self._show_points = show
        # Held for as long as the points are changed; never while records are shown, which wait for clients' puts.
        self._guard = threading.Lock()
        self._series = Series(signals + 1, self["TSNumPoints"])  # the last is the time stamp
        self._sum = np.zeros(signals)
        self._summed = 0
        self._began = 0.0
        self._wanted_average = 0.0
        self._show_axis()

    def records(self) -> Iterator[RecordSpec]:
        """Those of the parameters, and one whose DOL can be a link to the time between arrays."""
        yield from super().records()
        target = f"{self.prefix}TSTimePerPoint"
        fields = {"OMSL": "closed_loop", "OUT": f"{target} PP MS"}
        yield RecordSpec(f"{target}Link", "ao", "DOL: where TSTimePerPoint comes from", fields)

    def write(self, name: str, value: Any) -> None:
        """Take a value."""
        match name:
            case "TSAcquire":
                self._values[name] = value  # the record alone tells who waits
                if value:
                    self._clear(TSAcquiring=1, TSElapsedTime=0.0)
                else:
                    self.set(TSAcquiring=0)
                    self._read()
            case "TSRead":
                if value:
                    self._read()
                    self.set_back(TSRead=0)
            case "TSNumPoints":
                if not 1 <= value <= MOST_POINTS:
                    self.refuse(name, value, f"1 to {MOST_POINTS} points")
                self._clear(TSNumPoints=value)
                self._show_axis()
            case "TSTimePerPoint" | "TSAveragingTime":
                if value < 0:
                    self.refuse(name, value, "at least 0 s")
                if name == "TSAveragingTime":
                    self._wanted_average = value
                super().write(name, value)
                self._show_average()
            case "TSAcquireMode":
                self._clear(TSAcquireMode=value)
                self._show_axis()
            case _:
                super().write(name, value)

    def _show_average(self) -> None:
        """How many arrays a point is the mean of, and in what time they come."""
        per_point = self["TSTimePerPoint"]
        arrays = max(1, round(self._wanted_average / per_point)) if per_point else 1
        self.set(TSNumAverage=arrays, TSAveragingTime=per_point * arrays if per_point else self._wanted_average)
        self._show_axis()

    def _show_axis(self) -> None:
        axis = self["TSAveragingTime"] * np.arange(self["TSNumPoints"])
        self.set(TSTimeAxis=axis - axis[-1] if self["TSAcquireMode"] else axis)

    # -- points ----------------------------------------------------------------------------------------------

    def _clear(self, **values: Any) -> None:
        """Forget all points, and set values."""
        with self._guard:
            changed = self.take(**values, TSCurrentPoint=0)
            self._series.clear(self["TSNumPoints"])
            self._sum[:], self._summed = 0, 0
            self._began = time.monotonic()
        self.show(changed)

    def _read(self) -> None:
        """Show the points so far."""
        with self._guard:
            points = self._series.points(bool(self["TSAcquireMode"]))
        self._show_points(points[:-1], points[-1])
        self.set(TSTimestamp=points[-1])

    def process(self, array: NDArray) -> NDArray:
        """Add the numbers of an array of shape (signals,) or (times, signals)."""
        if self["TSAcquiring"] and array.data.shape[-1] != self._signals:
            self.set(TSAcquiring=0)
            self.set_back(TSAcquire=0)
            msg = f"{array.data.shape[-1]} numbers, not {self._signals}: plug it into a port with as many"
            raise ValueError(msg)
        with self._guard:
            if not self["TSAcquiring"]:
                return array
            full = any(self._add(numbers, array.time_stamp) for numbers in np.atleast_2d(array.data))
            changed = self.take(
                TSCurrentPoint=self._series.count,
                TSElapsedTime=round(time.monotonic() - self._began, 3),
                TSAcquiring=int(not full),
            )
        self.show_soon(changed)
        if full:
            self._read()
            self.set_back(TSAcquire=0)
        return array

    def _add(self, numbers: Pixels[Any], stamp: float) -> bool:
        """Add one array's numbers; true when there is no room for more points."""
        self._sum += numbers
        self._summed += 1
        if self._summed < self["TSNumAverage"]:
            return False
        point = (*(self._sum / self._summed), stamp)
        self._sum[:], self._summed = 0, 0
        return self._series.add(point, bool(self["TSAcquireMode"]))
