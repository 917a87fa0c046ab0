"""``image1:``: the pixels in a waveform, for any client of Channel Access; ADCore: NDPluginStdArrays."""

from __future__ import annotations

import numpy as np

from virtual_beamline.area_detector import parameters as p
from virtual_beamline.area_detector.ndarray import NDArray
from virtual_beamline.area_detector.plugin import Plugin

PIXELS = 3 * 1024 * 1024
"""Room for one RGB frame of the camera."""


class StdArrays(Plugin):
    """See the module. ArrayData is of doubles, so that it is right for pixels of any type."""

    plugin_type = "NDPluginStdArrays"
    passes_on = False
    parameters = (p.array("ArrayData", "DOUBLE", PIXELS, "The pixels, the fastest dimension first").readonly(""),)

    def process(self, array: NDArray) -> NDArray:
        """Show the pixels."""
        self.set(ArrayData=np.ascontiguousarray(array.data, np.float64).reshape(-1))
        return array
