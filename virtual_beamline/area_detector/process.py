"""``Proc1:``: background, flat field, scale, limits and a filter in time; ADCore: NDPluginProcess."""

from __future__ import annotations

import enum
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray as Pixels

from virtual_beamline.area_detector import parameters as p
from virtual_beamline.area_detector.ndarray import NDArray
from virtual_beamline.area_detector.pixels import AUTOMATIC, DATA_TYPES_OUT, converted, dtype_out
from virtual_beamline.area_detector.plugin import Plugin
from virtual_beamline.area_detector.port import Detector

_SWITCH = ("Disable", "Enable")
_NO_YES = ("No", "Yes")
Doubles = Pixels[np.float64]


class FilterType(enum.IntEnum):
    """The choices of FilterType; each sets the coefficients."""

    RECURSIVE_AVERAGE = 0
    AVERAGE = 1
    SUM = 2
    DIFFERENCE = 3
    RECURSIVE_AVERAGE_DIFFERENCE = 4
    COPY_TO_FILTER = 5


FILTERS = ("RecursiveAve", "Average", "Sum", "Difference", "RecursiveAveDiff", "CopyToFilter")
_COEFFICIENTS = ("OC1", "OC2", "OC3", "OC4", "FC1", "FC2", "FC3", "FC4", "RC1", "RC2")


def coefficients(kind: FilterType, number: int) -> dict[str, float]:
    """Those of a filter over ``number`` arrays, by the equations of NDPluginProcess's documentation.

    Output O and filter F after input I, N being the number of arrays so far, at most ``number``::

        O[n] = OOffset + OScale*((OC1 + OC2/N)*F[n-1] + (OC3 + OC4/N)*I[n])
        F[n] = FOffset + FScale*((FC1 + FC2/N)*F[n-1] + (FC3 + FC4/N)*I[n])
        F[0] = ROffset + RC1*F[0] + RC2*I[0]
    """
    match kind:
        case FilterType.RECURSIVE_AVERAGE:
            values = (1, -1, 0, 1, 1, -1, 0, 1, 0, 1)
        case FilterType.AVERAGE:
            values = (1, 0, 1 / number, 0, 1, 0, 1 / number, 0, 0, 0)
        case FilterType.SUM:
            values = (1, 0, 1, 0, 1, 0, 1, 0, 0, 0)
        case FilterType.DIFFERENCE:
            values = (-1, 0, 1, 0, 0, 0, 1, 0, 0, 1)
        case FilterType.RECURSIVE_AVERAGE_DIFFERENCE:
            values = (-1, 0, 1, 0, 1, -1, 0, 1, 0, 1)
        case FilterType.COPY_TO_FILTER:
            values = (0, 0, 1, 0, 0, 0, 1, 0, 0, 1)
    return dict(zip(_COEFFICIENTS, map(float, values), strict=True))


class Process(Plugin):
    """See the module.

    The arithmetic is of doubles. Offset and scale are ``(value + Offset) * Scale``, as ADCore computes it and as
    AutoOffsetScale needs it; its documentation of EnableOffsetScale says otherwise.
    """

    plugin_type = "NDPluginProcess"
    parameters = (
        p.choice("DataTypeOut", DATA_TYPES_OUT, AUTOMATIC, "Type of what is passed on"),
        p.switch("SaveBackground", _NO_YES, 0, "Take the last output as background"),
        p.switch("EnableBackground", _SWITCH, 0, "Subtract the background"),
        p.switch("ValidBackground", ("Invalid", "Valid"), 0, "Whether it has one of this size").readonly(),
        p.switch("SaveFlatField", _NO_YES, 0, "Take the last output as flat field"),
        p.switch("EnableFlatField", _SWITCH, 0, "Divide by the flat field"),
        p.switch("ValidFlatField", ("Invalid", "Valid"), 0, "Whether it has one of this size").readonly(),
        p.number("ScaleFlatField", 255.0, "Factor after that division"),
        p.switch("EnableOffsetScale", _SWITCH, 0, "Add Offset, then multiply by Scale"),
        p.command("AutoOffsetScale", ("Done", "Calculate"), "Offset and Scale that fill the type").write_only(),
        p.number("Offset", 0.0, "What is added"),
        p.number("Scale", 1.0, "Factor after that"),
        p.switch("EnableLowClip", _SWITCH, 0, "Raise what is below LowClip"),
        p.number("LowClip", 0.0, "Least value"),
        p.switch("EnableHighClip", _SWITCH, 0, "Lower what is above HighClip"),
        p.number("HighClip", 100.0, "Greatest value"),
        p.switch("EnableFilter", _SWITCH, 0, "Filter in time"),
        p.switch("ResetFilter", _NO_YES, 0, "Begin the filter again"),
        p.switch("AutoResetFilter", _NO_YES, 0, "Begin again after NumFilter arrays"),
        p.switch("FilterCallbacks", ("Every array", "Array N only"), 0, "What is passed on"),
        p.integer("NumFilter", 1, "Arrays of the filter"),
        p.integer("NumFiltered", 0, "Arrays since the filter began").readonly(),
        p.number("NumFilterRecip", 1.0, "1/NumFilter").readonly(""),
        p.choice("FilterType", FILTERS, 0, "Sets OC1 to OC4, FC1 to FC4, RC1, RC2").write_only(),
        p.number("OOffset", 0.0, "Output's offset"),
        p.number("OScale", 1.0, "Output's scale"),
        p.number("FOffset", 0.0, "Filter's offset"),
        p.number("FScale", 1.0, "Filter's scale"),
        p.number("ROffset", 0.0, "Filter's offset when it begins"),
        *(
            p.number(name, value, f"Coefficient {name[-1]} of {'output' if name[0] == 'O' else 'filter'}")
            for name, value in coefficients(FilterType.RECURSIVE_AVERAGE, 1).items()
        ),
    )

    def __init__(self, detector: Detector, prefix: str, name: str, source: str) -> None:
        super().__init__(detector, prefix, name, source)
        self._guard = threading.Lock()
        self._last: Pixels[Any] | None = None
        self._saved: dict[str, Doubles] = {}
        self._filter: Doubles | None = None
        self._count = 0

    def write(self, name: str, value: Any) -> None:
        """Take a value."""
        match name:
            case "SaveBackground" | "SaveFlatField":
                super().write(name, value)
                if value:
                    self._save(name.removeprefix("Save"))
                    self.set_back(**{name: 0})
            case "AutoOffsetScale":  # done with the next array; the record alone tells who waits
                self._values[name] = value
            case "NumFilter":
                if value < 1:
                    self.refuse(name, value, "at least 1 array")
                super().write(name, value)
                self.set(NumFilterRecip=1 / value)
                if self["FilterType"] == FilterType.AVERAGE:
                    self._set_coefficients()
            case "FilterType":
                super().write(name, value)
                self._set_coefficients()
            case _:
                super().write(name, value)
        if name == "DataTypeOut":
            self.expect_again()

    def _set_coefficients(self) -> None:
        self.set_back(**coefficients(FilterType(self["FilterType"]), self["NumFilter"]))

    def _save(self, what: str) -> None:
        with self._guard:
            self._saved.pop(what, None)
            if self._last is not None:
                self._saved[what] = self._last.astype(np.float64)
            changed = self.take(**{f"Valid{what}": int(what in self._saved)})
        self.show(changed)

    # -- arrays ----------------------------------------------------------------------------------------------

    def output_of(self, array: NDArray) -> NDArray:
        """An array of the size and type of what it passes on; what is in it only :meth:`process` knows."""
        return array.derived(converted(array.data, dtype_out(self["DataTypeOut"], array)))

    def process(self, array: NDArray) -> NDArray | None:
        """Do what is enabled, in the order of the parameters."""
        with self._guard:
            saved = {what: self._saved.get(what) for what in ("Background", "FlatField")}
            fits = {what: each is not None and each.shape == array.data.shape for what, each in saved.items()}
            changed = self.take(**{f"Valid{what}": int(valid) for what, valid in fits.items()})
        self.show(changed)
        use = {what: each for what, each in saved.items() if fits[what] and self[f"Enable{what}"]}
        dtype = dtype_out(self["DataTypeOut"], array)
        automatic = self["AutoOffsetScale"]
        steps = ("EnableOffsetScale", "EnableLowClip", "EnableHighClip", "EnableFilter")
        if use or any(self[step] for step in steps):
            data = self._corrected(array.data.astype(np.float64), use.get("Background"), use.get("FlatField"))
            if self["EnableFilter"]:
                data = self._filtered_data(data)
        else:
            data = array.data
        if automatic:
            self._fill(array.data, dtype)
        if self["EnableFilter"] and self["FilterCallbacks"] and self._count < self["NumFilter"]:
            return None
        output = self.made(array.derived(converted(data, dtype)))
        with self._guard:
            self._last = output.data
        return output

    def _corrected(self, data: Doubles, background: Doubles | None, flat_field: Doubles | None) -> Doubles:
        """In place."""
        if background is not None:
            data -= background
        if flat_field is not None:
            dead = flat_field == 0
            np.divide(data, flat_field, out=data, where=~dead)
            data *= self["ScaleFlatField"]
            data[dead] = self["ScaleFlatField"]
        if self["EnableOffsetScale"]:
            data += self["Offset"]
            data *= self["Scale"]
        if self["EnableHighClip"]:
            np.minimum(data, self["HighClip"], out=data)
        if self["EnableLowClip"]:
            np.maximum(data, self["LowClip"], out=data)
        return data

    def _filtered_data(self, data: Doubles) -> Doubles:
        """What the filter gives; by the equations of :func:`coefficients`."""
        number = self["NumFilter"]
        begins = bool(self["ResetFilter"]) or (bool(self["AutoResetFilter"]) and self._count >= number)
        if self._filter is None or self._filter.shape != data.shape:
            self._filter, begins = data.copy(), True
        if begins:
            self._filter = self._sum_of(self["ROffset"], self["RC1"], self["RC2"], data)
            self._count = 0
            if self["ResetFilter"]:
                self.set_back(ResetFilter=0)
        self._count = min(self._count + 1, number)
        self.set_soon(NumFiltered=self._count)
        of_output, of_filter = self._factors("O"), self._factors("F")
        output = self._sum_of(*of_output, data)
        self._filter = output if of_filter == of_output else self._sum_of(*of_filter, data)
        return output

    def _factors(self, of: str) -> tuple[float, float, float]:
        """Offset, and factors of the filter and of the data, for the output (O) or the filter (F)."""
        scale, n = self[f"{of}Scale"], self._count
        return (
            self[f"{of}Offset"],
            scale * (self[f"{of}C1"] + self[f"{of}C2"] / n),
            scale * (self[f"{of}C3"] + self[f"{of}C4"] / n),
        )

    def _sum_of(self, offset: float, of_filter: float, of_data: float, data: Doubles) -> Doubles:
        """Offset and multiples of the filter and of the data; what has the factor 0 has no part, even if infinite."""
        total = of_data * data if of_data else np.zeros(data.shape)
        if of_filter and self._filter is not None:
            total += of_filter * self._filter
        if offset:
            total += offset
        return total

    def _fill(self, data: Pixels[Any], dtype: np.dtype[Any]) -> None:
        """AutoOffsetScale: from now on these pixels would fill the output's type."""
        least, greatest = float(data.min()), float(data.max())
        most = float(np.iinfo(dtype).max) if dtype.kind != "f" else 2.0 ** (8 * dtype.itemsize) - 1
        self.set_back(
            Offset=-least,
            Scale=most / (greatest - least) if greatest > least else 1.0,
            LowClip=0.0,
            HighClip=most,
            EnableOffsetScale=1,
            EnableLowClip=1,
            EnableHighClip=1,
        )
        self._values["AutoOffsetScale"] = 0
        self.detector.show_setpoint(self, "AutoOffsetScale")
