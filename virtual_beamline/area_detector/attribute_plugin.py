"""``Attr1:``: values of attributes that arrays have; ADCore: NDPluginAttribute."""

from __future__ import annotations

import enum
import math
import threading
from collections.abc import Iterator
from typing import Any

from virtual_beamline.area_detector import parameters as p
from virtual_beamline.area_detector.ndarray import NDArray
from virtual_beamline.area_detector.parameters import Parameter
from virtual_beamline.area_detector.plugin import Plugin
from virtual_beamline.area_detector.port import Detector
from virtual_beamline.area_detector.time_series import MOST_POINTS, Series

ATTRIBUTES = 8


class Control(enum.IntEnum):
    """The choices of TSControl."""

    ERASE_AND_START = 0
    START = 1
    STOP = 2
    READ = 3


def _attribute(number: int) -> Iterator[Parameter]:
    yield p.text(f"{number}:AttrName", "", "Attribute whose values these are")
    yield p.number(f"{number}:Value", 0.0, "Its last value").readonly()
    yield p.number(f"{number}:ValueSum", 0.0, "Sum of its values").readonly()
    yield p.array(f"{number}:TSArrayValue", "DOUBLE", MOST_POINTS, "Its value at each point").readonly("")


class Attributes(Plugin):
    """See the module.

    Besides the attributes of an array these names are known: NDArrayUniqueId, NDArrayTimeStamp, NDArrayEpicsTSSec and
    NDArrayEpicsTSnSec. Text that is no number, and an attribute that an array does not have, change nothing; a point
    of the time series is not a number then.
    """

    plugin_type = "NDPluginAttribute"
    passes_on = False
    parameters = (
        p.switch("Reset", ("Done Reset", "Reset"), 0, "Forget values, sums and points").write_only(),
        p.choice("TSControl", ("Erase/Start", "Start", "Stop", "Read"), Control.STOP, "Time series").write_only(),
        p.switch("TSAcquiring", ("Done", "Acquiring"), 0, "Whether points are collected").readonly(""),
        p.integer("TSNumPoints", MOST_POINTS, "Points to collect").write_only(),
        p.integer("TSCurrentPoint", 0, "Points so far").readonly(""),
        p.integer("TSRead", 0, "Show the points so far").write_only(),
        *(parameter for number in range(1, ATTRIBUTES + 1) for parameter in _attribute(number)),
    )

    def __init__(self, detector: Detector, prefix: str, name: str, source: str) -> None:
        super().__init__(detector, prefix, name, source)
        # Held for as long as the points are changed; never while records are shown, which wait for clients' puts.
        self._guard = threading.Lock()
        self._series = Series(ATTRIBUTES, self["TSNumPoints"])

    def write(self, name: str, value: Any) -> None:
        """Take a value."""
        match name:
            case "Reset":
                if value:
                    numbers = range(1, ATTRIBUTES + 1)
                    self._clear(**{f"{n}:{of}": 0.0 for n in numbers for of in ("Value", "ValueSum")})
                    self._read()
                    self.set_back(Reset=0)
            case "TSControl":
                super().write(name, value)
                self._control(Control(value))
            case "TSRead":
                self._read()
            case "TSNumPoints":
                if not 1 <= value <= MOST_POINTS:
                    self.refuse(name, value, f"1 to {MOST_POINTS} points")
                self._clear(TSNumPoints=value)
            case _:
                super().write(name, value)

    def _control(self, control: Control) -> None:
        if control == Control.ERASE_AND_START:
            self._clear(TSAcquiring=1)
        elif control == Control.START:
            self.set(TSAcquiring=int(self["TSCurrentPoint"] < self["TSNumPoints"]))
        else:
            if control == Control.STOP:
                self.set(TSAcquiring=0)
            self._read()

    def _clear(self, **values: Any) -> None:
        with self._guard:
            changed = self.take(**values, TSCurrentPoint=0)
            self._series.clear(self["TSNumPoints"])
        self.show(changed)

    def _read(self) -> None:
        with self._guard:
            points = self._series.points()
        self.set(**{f"{number}:TSArrayValue": values for number, values in enumerate(points, start=1)})

    # -- arrays ----------------------------------------------------------------------------------------------

    def process(self, array: NDArray) -> NDArray:
        """Take the values."""
        found = [_value(self[f"{number}:AttrName"], array) for number in range(1, ATTRIBUTES + 1)]
        with self._guard:
            values: dict[str, Any] = {}
            for number, value in enumerate(found, start=1):
                if not math.isnan(value):
                    values |= {f"{number}:Value": value, f"{number}:ValueSum": self[f"{number}:ValueSum"] + value}
            full = False
            if self["TSAcquiring"]:
                full = self._series.add(found)
                values |= {"TSCurrentPoint": self._series.count, "TSAcquiring": int(not full)}
            changed = self.take(**values)
        self.show_soon(changed)
        if full:
            self._read()
        return array


def _value(name: str, array: NDArray) -> float:
    """An attribute as a number; not a number if it is none, or there is no such attribute."""
    match name:
        case "NDArrayUniqueId":
            return float(array.unique_id)
        case "NDArrayTimeStamp":
            return array.time_stamp
        case "NDArrayEpicsTSSec":
            return float(array.epics_time[0])
        case "NDArrayEpicsTSnSec":
            return float(array.epics_time[1])
        case _ if name in array.attributes:
            try:
                return float(array.attributes[name].value)
            except ValueError:
                return math.nan
        case _:
            return math.nan
