"""What the simulated world does: a diffraction peak, a spot on a camera, a temperature, counts; all from one seed.

What a seed repeats: the peak and the spot (centre, width, height, noise), how the camera's pixels differ, the noise of
the images in their order, each scaler's counts (for the same sequence of presets and rates; a count that is stopped by
hand, or read while it goes on, uses its numbers at times that are not repeatable), and the sequence of RNDM, which
EPICS base shares between all records, so that a record's share of it depends on which others are processed meanwhile.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.random import Generator

PEAK_CALC = "D*(0.95+E*RNDM)/(1+((A-b)/c)^2)"
"""A noisy Lorentzian of A, as apstools.synApps.setup_lorentzian_swait writes it."""
TEMPERATURE_CALC = "A+max(-D,min(D,(B-A)))+C*(RNDM-0.5)"
"""From reading A towards setpoint B, at most D a time, with noise of width C: a controller as apstools simulates it."""

CLOCK_FREQUENCY = 1e7
"""Of the clock that channel 1 of the scaler counts, Hz."""
CHANNEL_RATES = {
    "timebase": CLOCK_FREQUENCY,
    "I0": 5000.0,
    "scint": 800.0,
    "diode": 1200.0,
    "I00": 6000.0,
    "I000": 7000.0,
}
"""The named channels of the scaler, from the first one on, with their mean counts per second."""


@dataclass(frozen=True, slots=True)
class Peak:
    """A Lorentzian: ``scale`` at ``center``, half of it ``width`` away.

    Attributes:
        center: where, in units of the motor.
        width: half the width at half the height.
        scale: height.
        noise: width of the uniform noise, relative to the height; it lies between 95 % and 95 % + noise.
    """

    center: float
    width: float
    scale: float
    noise: float

    def fields(self, position_pv: str) -> dict[str, object]:
        """Fields of the swait record that computes the peak whenever ``position_pv`` changes."""
        return {
            "DESC": "noisy Lorentzian curve",
            "INAN": position_pv,
            "B": repr(self.center),
            "C": repr(self.width),
            "D": repr(self.scale),
            "E": repr(self.noise),
            "CALC": PEAK_CALC,
            "SCAN": "I/O Intr",
        }


@dataclass(frozen=True, slots=True)
class Spot:
    """A diffraction spot on the camera, in pixels and counts.

    Attributes:
        center: X and Y.
        width: sigma of the Gaussian in X and Y.
        height: counts at the centre.
        noise: width of the uniform noise, in counts.
    """

    center: tuple[int, int]
    width: tuple[int, int]
    height: float
    noise: float


DITHER_CALC = "B+NINT(C*(RNDM-0.5))"
"""A whole pixel about the centre B, within C / 2."""
DITHER = 10.0
"""Pixels over which the spot moves to and fro."""


def dither_fields(center: int, target_pv: str) -> dict[str, object]:
    """Fields of the swait record that moves the spot about its centre, by writing ``target_pv`` each second."""
    return {
        "DESC": "dither of the image",
        "B": center,
        "C": DITHER,
        "CALC": DITHER_CALC,
        "OUTN": target_pv,
        "OOPT": "Every Time",
        "SCAN": "1 second",
    }


def temperature_fields(pv: str, setpoint: float = 25.0) -> dict[str, object]:
    """Fields of the swait record ``pv`` that simulates a temperature controller, at its setpoint to begin with."""
    return {
        "DESC": "temperature",
        "VAL": setpoint,
        "INAN": f"{pv}.VAL",
        "A": setpoint,
        "B": setpoint,
        "C": 1.0,
        "D": 2.0,
        "E": 1.0,  # tolerance: no part of the calculation, read by the controller
        "CALC": TEMPERATURE_CALC,
        "SCAN": "2 second",
        "PINI": "RUN",  # has a time from the start, not only after the first 2 s
        "PREC": 3,
    }


BEAM_CALC = "B?(A<C?D:A-E):0"
"""Stored current A: it decays by E each time and is topped up to D below C, while there is beam (B)."""


def beam_fields(switch_pv: str) -> dict[str, object]:
    """Fields of the calc record that simulates a storage ring's current (mA), which ``switch_pv`` can take away."""
    return {
        "EGU": "mA",
        "PREC": 3,
        "INPB": f"{switch_pv} CP",
        "C": 100.0,
        "D": 102.0,
        "E": 0.01,
        "VAL": 102.0,
        "SCAN": "1 second",
        "PINI": "YES",
        "CALC": BEAM_CALC,
    }


class World:
    """One simulated world; equal seeds make equal worlds."""

    def __init__(self, seed: int | None = None) -> None:
        """Make a world.

        Args:
            seed: at least 0; None: another world each time.
        """
        self.seed = random.SystemRandom().getrandbits(32) if seed is None else seed
        self._generators: dict[str, Generator] = {}

    def _draws(self, purpose: str) -> random.Random:
        """Random numbers for one purpose, which do not depend on what else is drawn."""
        return random.Random(f"{self.seed}/{purpose}")

    @property
    def peak(self) -> Peak:
        """The peak of ``noisy``, somewhere between -1 and 1, a few percent of that wide."""
        draws = self._draws("peak")
        return Peak(
            center=round(draws.uniform(-1, 1), 5),
            width=round(draws.uniform(0.02, 0.06), 5),
            scale=round(draws.uniform(80_000, 100_000), 1),
            noise=round(draws.uniform(0.02, 0.08), 5),
        )

    @property
    def spot(self) -> Spot:
        """The spot on the camera: somewhere between 100 and 900, some 10 pixels wide, below what 8 bits can hold."""
        draws = self._draws("spot")
        return Spot(
            center=(draws.randint(100, 900), draws.randint(100, 900)),
            width=(draws.randint(8, 40), draws.randint(8, 40)),
            height=float(draws.randint(120, 220)),
            noise=float(draws.randint(4, 20)),
        )

    @property
    def rndm_draws(self) -> int:
        """How many of base's numbers (RNDM) to draw first: their generator starts equally in each process."""
        return self._draws("RNDM").randrange(65536)

    def generator(self, purpose: str) -> Generator:
        """A random generator of its own for ``purpose``."""
        # Imported at first use: 0.15 s that the start of the IOC does without.
        import numpy

        if purpose not in self._generators:
            self._generators[purpose] = numpy.random.default_rng(self._draws(purpose).getrandbits(128))
        return self._generators[purpose]


class Counter:
    """Counts of one input of a scaler since the count began; at ``due`` (seconds from then) its preset is reached."""

    due: float

    def at(self, elapsed: float) -> int:
        """The counts ``elapsed`` seconds after the beginning; never earlier than in the call before."""
        raise NotImplementedError


class ClockCounter(Counter):
    """Counts a clock."""

    def __init__(self, frequency: float, preset: int | None) -> None:
        self._frequency = frequency
        self._preset = preset
        self.due = math.inf if preset is None else preset / frequency

    def at(self, elapsed: float) -> int:
        """The periods that have passed."""
        if self._preset is not None and elapsed >= self.due:
            return self._preset
        return math.floor(elapsed * self._frequency)


class PoissonCounter(Counter):
    """Counts events that are independent of each other, at a mean rate that may change while it counts.

    The time at which the preset is reached is drawn first: the sum of so many exponential intervals is a gamma
    distribution. Until then the other events lie uniformly in that time, so that their number is binomial. Without a
    preset the number is Poisson.
    """

    def __init__(self, generator: Generator, rate: float, preset: int | None) -> None:
        """Begin to count.

        Args:
            generator: source of randomness.
            rate: mean number of events per second, at least 0.
            preset: number of events after which to stop; None to go on.
        """
        self._generator = generator
        self._rate = rate
        self._preset = preset
        self._counts = 0
        self._elapsed = 0.0
        self.due = self._draw_due()

    def _draw_due(self) -> float:
        if self._preset is None:
            return math.inf
        missing = self._preset - self._counts
        if missing <= 0:
            return self._elapsed
        if not self._rate:
            return math.inf
        return self._elapsed + float(self._generator.gamma(missing)) / self._rate

    def at(self, elapsed: float) -> int:
        """The events that have come."""
        step = elapsed - self._elapsed
        if self._preset is not None and elapsed >= self.due:
            self._counts = self._preset
        elif step > 0 and self._rate:
            if self._preset is None:
                self._counts += int(self._generator.poisson(self._rate * step))
            else:
                before = self._preset - 1 - self._counts
                self._counts += int(self._generator.binomial(before, step / (self.due - self._elapsed)))
        self._elapsed = max(elapsed, self._elapsed)
        return self._counts

    def set_rate(self, elapsed: float, rate: float) -> None:
        """From ``elapsed`` on events come at another mean rate."""
        if rate != self._rate and elapsed < self.due:
            self.at(elapsed)
            self._rate = rate
            self.due = self._draw_due()
