"""Find a peak by several scans, each narrower than the one before."""

from __future__ import annotations

import logging
import random
from typing import Any

from bluesky import plan_stubs as bps
from bluesky.utils import MsgGenerator

from instrument.config.names import LOGGER_NAME
from instrument.plans import checks, preflight
from instrument.plans.checks import plan
from instrument.plans.lineup import FEWEST_POINTS, Lineup, no_peak, position_of, scan_peak, signal_of

logger = logging.getLogger(LOGGER_NAME)

# The simulated peak of `noisy`: as random as the virtual beamline makes it at its start.
CENTER_RANGE = (-1.0, 1.0)
WIDTH_RANGE = (0.02, 0.06)  # half width at half height
SCALE_RANGE = (80_000.0, 100_000.0)  # counts
NOISE_RANGE = (0.02, 0.08)  # of the signal


@plan
def change_noisy_parameters(*, calc: Any) -> MsgGenerator[None]:
    """Give the simulated peak another random centre, width, height and noise.

    Args:
        calc: The swait record behind the peak: inputs B centre, C half width, D height, E noise.
    """
    draw = random.SystemRandom().uniform
    channels = calc.channels
    yield from bps.mv(
        *(channels.B.input_value, draw(*CENTER_RANGE)),
        *(channels.C.input_value, draw(*WIDTH_RANGE)),
        *(channels.D.input_value, draw(*SCALE_RANGE)),
        *(channels.E.input_value, draw(*NOISE_RANGE)),
    )


def _passes(
    name: str,
    detector: Any,
    motor: Any,
    ranges: tuple[float, float, float],
    numbers: tuple[int, int],
    md: dict[str, Any],
) -> MsgGenerator[list[Lineup]]:
    """Scan about a centre again and again, each time centred on the last peak and `magnify` of its widths wide."""
    center, half_width, magnify = ranges
    number_of_scans, number_of_points = numbers
    signal = signal_of(name, detector, None)
    checks.within_limits(name, motor, (center - half_width, center + half_width))
    origin = yield from position_of(motor)
    found: list[Lineup] = []
    for sequence in range(1, number_of_scans + 1):
        low, high = center - half_width, center + half_width
        if sequence > 1:
            low, high = checks.clipped(motor, low, high)
        numbered = {**md, "scan_sequence": sequence, "scan_sequence_number": sequence}
        one = yield from scan_peak(
            name, [detector], motor, low, high, number_of_points, sequence=sequence, signal=signal, md=numbered
        )
        if one.uid is None:  # a dry run: no data, so nothing to narrow down
            continue
        statistics = one.statistics
        if statistics.kind not in ("peak", "dip") or statistics.cen is None or statistics.fwhm is None:
            logger.warning("%s: no peak of %s in scan %s", name, one.signal, one.scan_id)
            break
        found.append(one)
        center, half_width = statistics.cen, magnify * statistics.fwhm
    seen = bool(found) and found[-1].statistics.inside
    target = center if seen else origin
    yield from bps.mv(motor, target)
    if found and not seen:
        logger.warning("%s: %s; %s went back to %g", name, no_peak(found[-1], motor), motor.name, origin)
    elif found:
        logger.info("%s: %s is at the peak of %s, %g", name, motor.name, found[-1].signal, target)
    return [Lineup(one.uid, one.scan_id, one.signal, one.statistics, target) for one in found]


def _table(found: list[Lineup]) -> str:
    import pyRestTable

    table = pyRestTable.Table()
    table.labels = ["scan_id", "center", "FWHM"]
    for one in found:
        table.addRow((one.scan_id, one.statistics.cen, one.statistics.fwhm))
    return str(table)


@plan
def two_pass_scan(
    md: dict[str, Any] | None = None,
    *,
    detector: Any,
    motor: Any,
    center: float = 0.0,
    half_width: float = 2.0,
    number_of_points: int = 23,
    magnify: float = 1.2,
) -> MsgGenerator[list[Lineup]]:
    """Find a peak by two scans: the whole range first, then about the peak.

    Args:
        md: Metadata.
        detector: What shows the peak.
        motor: What is moved; it is left at the peak, or where it was if there is none.
        center: Middle of the first scan (the motor's unit).
        half_width: Half the range of the first scan.
        number_of_points: Of each scan.
        magnify: Half the range of the second scan, in widths (FWHM) of the peak.

    Returns:
        What each scan found.

    Raises:
        UserError: An argument is wrong, or the scan would leave the motor's limits; nothing has moved. Where a later
            scan can't begin, the motor stays where the one before ended.
    """
    name = "two_pass_scan"
    (detector,) = checks.detectors_of(name, [detector])
    motor = checks.motor_of(name, motor)
    ranges = (
        checks.number(name, "center", center),
        checks.number(name, "half_width", half_width, positive=True),
        checks.number(name, "magnify", magnify, positive=True),
    )
    numbers = (2, checks.count(name, "number_of_points", number_of_points, FEWEST_POINTS))
    return (yield from _passes(name, detector, motor, ranges, numbers, md or {}))


@plan
def findpeak_multipass(
    number_of_scans: int = 4,
    number_of_points: int = 23,
    magnify: float = 1.2,
    md: dict[str, Any] | None = None,
    *,
    detector: Any,
    motor: Any,
    center: float = 0.0,
    half_width: float = 2.1,
) -> MsgGenerator[list[Lineup]]:
    """Find a peak by repeated scans, each centred on the last peak, and log what each of them found.

    Args:
        number_of_scans: How many scans.
        number_of_points: Of each scan.
        magnify: Half the range of the second and later scans, in widths (FWHM) of the peak.
        md: Metadata.
        detector: What shows the peak.
        motor: What is moved; it is left at the peak, or where it was if there is none.
        center: Middle of the first scan (the motor's unit).
        half_width: Half the range of the first scan.

    Returns:
        What each scan found.

    Raises:
        UserError: An argument is wrong, or the scan would leave the motor's limits; nothing has moved. Where a later
            scan can't begin, the motor stays where the one before ended.
    """
    name = "findpeak_multipass"
    (detector,) = checks.detectors_of(name, [detector])
    motor = checks.motor_of(name, motor)
    numbers = (
        checks.count(name, "number_of_scans", number_of_scans),
        checks.count(name, "number_of_points", number_of_points, FEWEST_POINTS),
    )
    ranges = (
        checks.number(name, "center", center),
        checks.number(name, "half_width", half_width, positive=True),
        checks.number(name, "magnify", magnify, positive=True),
    )
    metadata = {**(md or {}), "number_of_scans": numbers[0]}
    found = yield from _passes(name, detector, motor, ranges, numbers, metadata)
    if found:
        logger.info("iterative results:\n%s", _table(found))
    return found


@plan
def repeat_findpeak(
    iters: int = 1,
    md: dict[str, Any] | None = None,
    *,
    detector: Any,
    motor: Any,
    calc: Any = None,
) -> MsgGenerator[list[list[Lineup]]]:
    """Find a peak, again and again; a simulated one is changed each time.

    Args:
        iters: How often.
        md: Metadata.
        detector: What shows the peak.
        motor: What is moved.
        calc: The swait record behind a simulated peak; None leaves the peak as it is.

    Returns:
        What `findpeak_multipass` returned, each time.

    Raises:
        UserError: An argument is wrong, or the scan would leave the motor's limits; nothing has moved or changed. Where
            a later scan can't begin, the motor stays where those before left it.
    """
    name = "repeat_findpeak"
    iters = checks.count(name, "iters", iters)
    checks.detectors_of(name, [detector])
    checks.motor_of(name, motor)

    def once(iteration: int) -> MsgGenerator[list[Lineup]]:
        if calc is not None:
            yield from change_noisy_parameters(calc=calc)
        metadata = {**(md or {}), "iteration": iteration}
        return (yield from findpeak_multipass(md=metadata, detector=detector, motor=motor))

    if not preflight.is_dry():  # before the simulated peak is changed
        changed = () if calc is None else (calc.channels.B.input_value,)  # which may be connecting
        yield from preflight.forecast(name, lambda: once(1), known=changed)
    results = []
    for iteration in range(1, iters + 1):
        if iteration == 1:
            results.append((yield from once(iteration)))
        else:
            with preflight.after_moves(f"{motor.name} stays where the scans before left it"):
                results.append((yield from once(iteration)))
        if not preflight.is_dry():
            logger.info("Finished #%d of %d iterations", iteration, iters)
    return results
