"""``Stats1:`` and on: what is in each array, in numbers; ADCore: NDPluginStats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray as Pixels

from virtual_beamline.area_detector import image_statistics as statistics
from virtual_beamline.area_detector import parameters as p
from virtual_beamline.area_detector.ndarray import NDArray
from virtual_beamline.area_detector.pixels import xyz_axes
from virtual_beamline.area_detector.plugin import Plugin
from virtual_beamline.area_detector.port import Detector
from virtual_beamline.area_detector.time_series import MOST_POINTS, TimeSeries

MOST_BINS = 65_536
"""Room for a histogram."""
LONGEST_PROFILE = 4096
"""Room for a profile, pixels."""

_BASIC = {
    "MinValue": "Least value",
    "MinX": "X of the least value",
    "MinY": "Y of the least value",
    "MaxValue": "Greatest value",
    "MaxX": "X of the greatest value",
    "MaxY": "Y of the greatest value",
    "MeanValue": "Mean value",
    "Sigma": "Standard deviation of the values",
    "Total": "Sum of the values",
    "Net": "Sum of the values less background",
}
_CENTROID = {
    "CentroidTotal": "Sum of the values above the threshold",
    "CentroidX": "Centroid in X",
    "CentroidY": "Centroid in Y",
    "SigmaX": "Width in X",
    "SigmaY": "Width in Y",
    "SigmaXY": "Correlation of X and Y",
    "SkewX": "Skewness in X",
    "SkewY": "Skewness in Y",
    "KurtosisX": "Excess kurtosis in X",
    "KurtosisY": "Excess kurtosis in Y",
    "Eccentricity": "0 (round) to 1 (a line)",
    "Orientation": "Angle of the long axis from X",
}
_UNITS = {"Orientation": "deg", **dict.fromkeys(("CentroidX", "CentroidY", "SigmaX", "SigmaY"), "pixels")}
SIGNALS = (*_BASIC, *_CENTROID)
"""What the time series has, in this order."""
_PROFILES = ("Average", "Threshold", "Centroid", "Cursor")


def _statistic(name: str, description: str) -> p.Parameter:
    statistic = p.number(name, 0.0, description, _UNITS.get(name, ""))
    return statistic.readonly() if name == "Sigma" else statistic  # its setpoint is called SigmaValue


class Stats(Plugin):
    """See the module.

    Statistics have setpoints, too, as in ADCore: what is written shows until the next array.
    The time series is a plugin of its own, ``TS:``, that gets the statistics as arrays from address 1.
    """

    plugin_type = "NDPluginStats"
    addresses = 2
    parameters = (
        p.switch("ComputeStatistics", ("No", "Yes"), 1, "Minimum, maximum, sum, ..."),
        p.switch("ComputeCentroid", ("No", "Yes"), 1, "Centroid, widths, ..."),
        p.switch("ComputeProfiles", ("No", "Yes"), 0, "Profiles"),
        p.switch("ComputeHistogram", ("No", "Yes"), 0, "Histogram"),
        p.integer("BgdWidth", 1, "Width of the border that is background", "pixels"),
        p.number("CentroidThreshold", 1.0, "Less than that counts as 0"),
        *(_statistic(name, description) for name, description in (_BASIC | _CENTROID).items()),
        p.number("SigmaValue", 0.0, "Sets Sigma_RBV").write_only(),
        p.switch("Reset", ("Done", "Reset"), 0, "Set all statistics to 0").write_only(),
        *(p.array(f"TS{name}", "DOUBLE", MOST_POINTS, f"{name} of each point").readonly("") for name in SIGNALS),
        p.array("TSTimestamp", "DOUBLE", MOST_POINTS, "Time of each point, since 1970").readonly(""),
        p.integer("CursorX", 256, "X of the column of ProfileCursorY", "pixels"),
        p.integer("CursorY", 256, "Y of the row of ProfileCursorX", "pixels"),
        p.number("CursorVal", 0.0, "Value at the cursor").readonly(""),
        p.integer("ProfileSizeX", 0, "Length of profiles in X", "pixels").readonly(),
        p.integer("ProfileSizeY", 0, "Length of profiles in Y", "pixels").readonly(),
        *(
            p.array(f"Profile{kind}{axis}", "DOUBLE", LONGEST_PROFILE, f"Profile in {axis}: {kind.lower()}").readonly()
            for kind in _PROFILES
            for axis in "XY"
        ),
        p.integer("HistSize", 256, "Bins of the histogram"),
        p.number("HistMin", 0.0, "Where its first bin begins"),
        p.number("HistMax", 255.0, "Where its last bin ends"),
        p.integer("HistBelow", 0, "Values below HistMin"),
        p.integer("HistAbove", 0, "Values above HistMax"),
        p.number("HistEntropy", 0.0, "Entropy of the histogram"),
        p.array("Histogram", "DOUBLE", MOST_BINS, "Values in each bin").readonly(),
        p.array("HistogramX", "DOUBLE", MOST_BINS, "Where each bin begins").readonly(),
    )

    def __init__(self, detector: Detector, prefix: str, name: str, source: str) -> None:
        """Make a plugin and its time series; arguments as for any plugin."""
        super().__init__(detector, prefix, name, source)
        self._frame: NDArray | None = None
        self._show_bins()
        TimeSeries(detector, f"{prefix}TS:", f"{name}_TS", name, len(SIGNALS), self._show_series)

    def _show_series(self, points: Pixels[np.float64], stamps: Pixels[np.float64]) -> None:
        series = {f"TS{name}": np.ascontiguousarray(values) for name, values in zip(SIGNALS, points, strict=True)}
        self.set(**series, TSTimestamp=stamps)

    def output_of(self, array: NDArray) -> NDArray:
        """The array as it is."""
        return array

    def started(self) -> None:
        """Plug in, and tell the time series what to expect."""
        super().started()
        self.announce(NDArray(np.zeros(len(SIGNALS)), 0), address=1)

    def write(self, name: str, value: Any) -> None:
        """Take a value."""
        match name:
            case "HistSize" if not 1 <= value <= MOST_BINS:
                self.refuse(name, value, f"1 to {MOST_BINS} bins")
            case "HistMin" if not value < self["HistMax"]:
                self.refuse(name, value, f"less than HistMax, {self['HistMax']:g}")
            case "HistMax" if not value > self["HistMin"]:
                self.refuse(name, value, f"more than HistMin, {self['HistMin']:g}")
            case "SigmaValue":
                self.set(Sigma=value)
            case "Reset":
                if value:
                    self.set(**dict.fromkeys(SIGNALS, 0.0), HistBelow=0, HistAbove=0, HistEntropy=0.0)
                    self.set_back(Reset=0)
                return
            case _:
                pass
        super().write(name, value)
        if name.startswith("Hist"):
            self._show_bins()
        if name in {"CentroidThreshold", "CursorX", "CursorY"} and self._frame is not None:
            self._in_background(self._measure_again)

    def _show_bins(self) -> None:
        size, lowest = self["HistSize"], self["HistMin"]
        self.set(HistogramX=lowest + (self["HistMax"] - lowest) / size * np.arange(size))

    # -- arrays ----------------------------------------------------------------------------------------------

    def process(self, array: NDArray) -> NDArray:
        """Measure it, and pass the statistics on to the time series."""
        self._frame = array
        if array.data.size:
            self._measure(array)
            if self["ComputeHistogram"]:
                self._show_histogram(array)
        numbers = np.array([self[name] for name in SIGNALS])
        self.pass_on(NDArray(numbers, array.unique_id, time_stamp=array.time_stamp), address=1)
        return array

    def _measure_again(self) -> None:
        with self.lock:
            if self._frame is not None:
                self._measure(self._frame, again=True)

    def _measure(self, array: NDArray, again: bool = False) -> None:
        if self["ComputeStatistics"] and not again:
            self._show_basic(array)
        if array.data.ndim > 2 or not (self["ComputeCentroid"] or self["ComputeProfiles"]):
            return
        image = np.atleast_2d(array.data)
        above = statistics.projections(image, self["CentroidThreshold"])
        if self["ComputeCentroid"]:
            moments = statistics.centroid(above)
            values = (getattr(moments, field) for field in statistics.Centroid.__slots__)
            self.set_soon(**dict(zip(_CENTROID, values, strict=True)))
        if self["ComputeProfiles"]:
            self._show_profiles(image, above)

    def _show_basic(self, array: NDArray) -> None:
        found = statistics.basic(array.data)
        x, y, _ = xyz_axes(array)
        least, greatest = (np.unravel_index(at, array.data.shape) for at in (found.minimum_at, found.maximum_at))
        self.set_soon(
            MinValue=found.minimum,
            MinX=float(least[x]) if x is not None else 0.0,
            MinY=float(least[y]) if y is not None else 0.0,
            MaxValue=found.maximum,
            MaxX=float(greatest[x]) if x is not None else 0.0,
            MaxY=float(greatest[y]) if y is not None else 0.0,
            MeanValue=found.mean,
            Sigma=found.sigma,
            Total=found.total,
            Net=statistics.net(array.data, found.total, self["BgdWidth"]),
        )

    def _show_profiles(self, image: Pixels[Any], above: statistics.Projections) -> None:
        rows, columns = image.shape
        every = statistics.projections(image, -math.inf)
        cursor_x, cursor_y = _within(self["CursorX"], columns), _within(self["CursorY"], rows)
        center_x = _within(math.floor(self["CentroidX"] + 0.5), columns)
        center_y = _within(math.floor(self["CentroidY"] + 0.5), rows)
        profiles = {
            "ProfileAverageX": every.x / rows,
            "ProfileAverageY": every.y / columns,
            "ProfileThresholdX": above.x / rows,
            "ProfileThresholdY": above.y / columns,
            "ProfileCentroidX": image[center_y],
            "ProfileCentroidY": image[:, center_x],
            "ProfileCursorX": image[cursor_y],
            "ProfileCursorY": image[:, cursor_x],
        }
        self.set_soon(
            **{name: np.ascontiguousarray(values, np.float64) for name, values in profiles.items()},
            CursorVal=float(image[cursor_y, cursor_x]),
            ProfileSizeX=columns,
            ProfileSizeY=rows,
        )

    def _show_histogram(self, array: NDArray) -> None:
        found = statistics.histogram(array.data, self["HistSize"], self["HistMin"], self["HistMax"])
        self.set_soon(
            Histogram=found.counts, HistBelow=found.below, HistAbove=found.above, HistEntropy=float(found.entropy)
        )


def _within(place: int, length: int) -> int:
    return min(max(0, place), length - 1)
