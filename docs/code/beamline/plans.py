"""Plans of this beamline."""

import numpy as np
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp


def gap_scan(detector, slits, narrow, wide, num):
    """Read a detector at several widths of the slits, and leave them as they were.

    Args:
        detector: What is read at each width.
        slits: Has a `gap`.
        narrow: First width, mm.
        wide: Last width, mm.
        num: How many.
    """
    about = {
        "plan_name": "gap_scan",
        "detectors": [detector.name],
        "motors": [slits.gap.name],
        "num_points": num,
        "hints": {"dimensions": [([slits.gap.name], "primary")]},
    }

    @bpp.stage_decorator([detector])
    @bpp.run_decorator(md=about)
    @bpp.reset_positions_decorator([slits.gap])
    def scan():
        for width in np.linspace(narrow, wide, num):
            yield from bps.checkpoint()
            yield from bps.mv(slits.gap, width)
            yield from bps.trigger_and_read([detector, slits.gap])

    yield from scan()
