"""What the last scan shows: centre, peak, width, fits; and moving there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instrument.config.errors import UserError, nearest

if TYPE_CHECKING:
    from bluesky.utils import Plan

    from instrument.callbacks.live import Series
    from instrument.framework.fits import Fit
    from instrument.framework.statistics import PeakStatistics
    from instrument.session import Session


class PeakCommands:
    """What the last scan shows, and moving there."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def cen(self, signal: str | None = None) -> float:
        """Mid-point between the half heights of the peak in the last scan; prints where the motor is -> where it is.

        Args:
            signal: Which of the scan's signals; the one that `plotselect` chose, or that shows a peak.

        Returns:
            The position (the motor's unit).

        Raises:
            UserError: There was no scan, or it shows no peak.
        """
        return self._told("cen", signal)

    def com(self, signal: str | None = None) -> float:
        """Centre of mass of the peak above its background in the last scan; see `cen`."""
        return self._told("com", signal)

    def peak(self, signal: str | None = None) -> float:
        """Where the last scan measured most (of a dip: least); see `cen`."""
        return self._told("peak", signal)

    def pic(self, signal: str | None = None) -> float:
        """Another name of `peak`."""
        return self._told("peak", signal)

    def fwhm(self, signal: str | None = None) -> float:
        """Full width at half height of the peak in the last scan (the motor's unit); see `cen`."""
        series, name, statistics = self._found(signal)
        if statistics.fwhm is None:
            raise UserError(f"{name} in scan {series.label} is no peak with a width ({statistics.kind})")
        print(f"fwhm of {name} in scan {series.label}: {statistics.fwhm:.6g}")
        return statistics.fwhm

    def fit(self, model: str = "gaussian", signal: str | None = None) -> Fit:
        """Fit a model and a straight line to the last scan, and print what was found.

        Args:
            model: "gaussian", "lorentzian", "voigt", "pvoigt", "erf", "atan", "logistic", "step" or "line".
            signal: See `cen`.

        Returns:
            The fit: `fit("gaussian")["center"]`.

        Raises:
            UserError: No such model, or nothing to fit.
        """
        from instrument.framework import fits

        series = self._last()
        name = self._signal(series, signal)
        result = fits.fit(model, *series.arrays(series.x[0], name))
        if "center" in result.values:
            motor = self._motors(series)[0]
            print(f"fit of {name} in scan {series.label}: {motor.name} {motor.position:.6g} -> {result['center']:.6g}")
        return result

    def goto_cen(self, signal: str | None = None) -> Plan:
        """Move to the centre of the peak in the last scan, see `cen`; of a scan of two motors, move both."""
        return self._goto("cen", signal)

    def goto_com(self, signal: str | None = None) -> Plan:
        """Move to the centre of mass of the peak in the last scan, see `com`."""
        return self._goto("com", signal)

    def goto_peak(self, signal: str | None = None) -> Plan:
        """Move to where the last scan measured most, see `peak`."""
        return self._goto("peak", signal)

    # --- the last scan

    def _last(self) -> Series:
        series, start = self._session.bec.last_scan, self._session.bec.last_moved
        if series is not None and (start is None or series.start["uid"] == start["uid"]):
            return series
        if start is None:
            raise UserError("there was no scan of a motor yet in this session")
        which = f"scan {start.get('scan_id', '')}"
        if len((start.get("hints") or {}).get("dimensions") or ()) > 1:
            raise UserError(f"{which} was a {start.get('plan_name', 'scan of several motors')}: scan one motor")
        raise UserError(f"{which} has too few points to look for a peak in: scan again")

    def _signal(self, series: Series, signal: str | None) -> str:
        """The signal that is asked for, that is plotted, or that shows the clearest peak."""
        if signal is not None:
            name = getattr(signal, "name", signal)
            if name not in series.measured:
                near = nearest(str(name), series.measured)
                hint = f"; did you mean {near!r}?" if near else f"; it has {', '.join(series.measured)}"
                raise UserError(f"scan {series.label} has no signal {name!r}{hint}")
            return name
        selected = [name for name in self._session.bec.selected if name in series.measured]
        return selected[0] if selected else series.clearest_of(series.measured)

    def _found(self, signal: str | None, *, whole: bool = True) -> tuple[Series, str, PeakStatistics]:
        series = self._last()
        name = self._signal(series, signal)
        statistics = series.statistics[name]
        if not whole:
            return series, name, statistics
        which = f"{name} in scan {series.label}"
        if not statistics.found:
            raise UserError(f"there is no peak of {which}")
        if flank := statistics.flank(which, series.x[0]):
            raise UserError(flank)
        return series, name, statistics

    @staticmethod
    def _top(statistics: PeakStatistics) -> float:
        down = statistics.kind == "dip"
        place = statistics.min if down else statistics.max
        if place is None:
            raise UserError("the last scan has no points")
        return place[0]

    def _place(self, key: str, signal: str | None) -> tuple[Series, str, float]:
        series, name, statistics = self._found(signal, whole=key != "peak")
        place = self._top(statistics) if key == "peak" else statistics[key]
        if place is None:
            raise UserError(f"{name} in scan {series.label} has no {key}: it is no peak ({statistics.kind})")
        return series, name, place

    def _motors(self, series: Series) -> list[Any]:
        """What was scanned."""
        names = series.start.get("motors") or ()
        if not names:
            raise UserError(f"scan {series.label} moved nothing")
        motors = [self._session.oregistry.named(name) for name in names]
        for name, motor in zip(names, motors, strict=True):
            if motor is None:
                raise UserError(f"scan {series.label} moved {name}, which is no device of this session")
        return motors

    def _told(self, key: str, signal: str | None) -> float:
        series, name, place = self._place(key, signal)
        motor = self._motors(series)[0]
        print(f"{key} of {name} in scan {series.label}: {motor.name} {motor.position:.6g} -> {place:.6g}")
        return place

    def _goto(self, key: str, signal: str | None) -> Plan:
        from instrument.plans.lineup import goto

        series, name, place = self._place(key, signal)
        first, *others = self._motors(series)
        places = [(first, place)]
        if others:
            low, high = (float(value) for value in series.arrays(series.x[0])[0][[0, -1]])
            if low == high or series.start.get("plan_pattern") != "inner_product":
                raise UserError(f"scan {series.label} moved {len(others) + 1} motors not along a line: say where to go")
            share = (place - low) / (high - low)
            places += [(motor, self._along(series, motor, share)) for motor in others]
        return goto(f"{key} of {name} in scan {series.label}", places)

    def _along(self, series: Series, motor: Any, share: float) -> float:
        """Where another motor of the scan was at a share of the way."""
        values = self._session.cat[series.start["uid"]].primary.read()[motor.name].values
        return float(values[0] + share * (values[-1] - values[0]))
