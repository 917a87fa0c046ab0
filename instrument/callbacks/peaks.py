"""The peak of the last scan: `peaks["cen"]["noisy"]`, as people know it from bluesky, with statistics that hold."""

from __future__ import annotations

from collections.abc import Mapping
from pprint import pformat
from typing import Any, ClassVar

from instrument.framework.statistics import PeakStatistics


class PeakResults:
    """Statistics of the last run, by statistic and detector signal.

    `peaks["cen"]["noisy"]` and `peaks.cen["noisy"]` are the same. What could not be determined is None.

    Attributes:
        com: Centre of mass above the background, unit of x.
        cen: Mid-point between the half heights, unit of x.
        max: (x, y) of the largest reading.
        min: (x, y) of the smallest reading.
        fwhm: Full width at half height, unit of x.
        statistics: Everything known about a signal's peak, by signal.
        x: Name of the signal that was scanned; None before the first scan.
    """

    ATTRS: ClassVar[tuple[str, ...]] = ("com", "cen", "max", "min", "fwhm")

    def __init__(self) -> None:
        self.com: dict[str, float | None] = {}
        self.cen: dict[str, float | None] = {}
        self.max: dict[str, tuple[float, float] | None] = {}
        self.min: dict[str, tuple[float, float] | None] = {}
        self.fwhm: dict[str, float | None] = {}
        self.statistics: dict[str, PeakStatistics] = {}
        self.x: str | None = None

    def clear(self) -> None:
        """Forget everything."""
        for attribute in (*self.ATTRS, "statistics"):
            getattr(self, attribute).clear()
        self.x = None

    def update(self, found: Mapping[str, PeakStatistics], x: str | None = None) -> None:
        """Take the statistics of the signals in `found`, which were measured against signal `x`."""
        self.x = x
        for signal, statistics in found.items():
            self.statistics[signal] = statistics
            for attribute in self.ATTRS:
                getattr(self, attribute)[signal] = getattr(statistics, attribute)

    def __getitem__(self, key: str) -> dict[str, Any]:
        """One statistic of all signals."""
        if key in self.ATTRS:
            return getattr(self, key)
        raise KeyError(f"Keys are: {self.ATTRS}")

    def __repr__(self) -> str:
        return pformat({attribute: getattr(self, attribute) for attribute in self.ATTRS}, sort_dicts=False)
