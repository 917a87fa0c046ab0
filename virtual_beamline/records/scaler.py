"""The synApps scaler record on simulated counters.

Channel 1 counts a clock of FREQ Hz. Channel n, up to NCH, counts events at the mean rate (per second) that the PV
``<record>:rate<n>`` holds, which may change while counting; without such a PV, and on the channels beyond NCH,
which stock clients ask for, nothing comes in. The counters have 32 bits.

The first gated channel (Gn = Y) to reach its preset ends the count, at that time exactly: S of that channel is its
preset, and the clock has counted just as long. A gated channel with preset 0 ends the count when it begins.
"""

from __future__ import annotations

import ctypes as C  # noqa: N812  (as elsewhere)
import enum
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from virtual_beamline.epics import Call, Field, PutRefusedError, Record, base
from virtual_beamline.physics import ClockCounter, Counter, PoissonCounter, World

CHANNELS = 32
LARGEST = 2**32 - 1
DEFAULT_PRESET = 1000
"""What Gn = Y sets a preset of 0 to."""
HIGHEST_RATE = 60.0
HOLD_TIME = 10.0
"""Seconds that the result of a count stays before background counting goes on."""
SHORTEST_AUTO_COUNT = 0.001
INPUT_PERIOD = 0.1
"""Seconds between looks at the mean rates while counting."""
SHORTEST_PAUSE = 0.01
"""Seconds between background counts, whatever DLY1 is."""


class Activity(enum.Enum):
    """What the scaler is doing."""

    IDLE = enum.auto()
    DELAY = enum.auto()
    COUNT = enum.auto()
    AUTO_PAUSE = enum.auto()
    AUTO_COUNT = enum.auto()


def _channel_fields() -> list[Field]:
    fields = []
    for number in range(1, CHANNELS + 1):
        fields += [
            Field(f"S{number}", "ULONG", f"Counts of channel {number}", read_only=True),
            Field(f"PR{number}", "ULONG", f"Preset of channel {number}"),
            Field(f"G{number}", "MENU", f"Gate control of channel {number}", menu="scalerG"),
            Field(f"D{number}", "MENU", f"Direction of channel {number}", menu="scalerD", read_only=True),
            Field(f"NM{number}", "STRING", f"Name of channel {number}", size=16),
        ]
    return fields


class ScalerRecord(Record):
    """One scaler; see the module's docstring."""

    record_type = "scaler"
    devices = ("Asyn Scaler",)
    menus: ClassVar[Mapping[str, Sequence[str]]] = {
        "scalerCNT": ("Done", "Count"),
        "scalerCONT": ("OneShot", "AutoCount"),
        "scalerG": ("N", "Y"),
        "scalerD": ("Up", "Dn"),
    }
    fields = (
        Field("VAL", "DOUBLE", "Result", read_only=True),
        Field("CNT", "MENU", "Count", menu="scalerCNT", pp=True),
        Field("CONT", "MENU", "OneShot/AutoCount", menu="scalerCONT", pp=True),
        Field("T", "DOUBLE", "Elapsed time", read_only=True),
        Field("TP", "DOUBLE", "Time preset", initial="1"),
        Field("TP1", "DOUBLE", "Time preset of AutoCount", initial="1"),
        Field("FREQ", "DOUBLE", "Time base frequency", initial="1e7"),
        Field("DLY", "FLOAT", "Delay before counting"),
        Field("DLY1", "FLOAT", "Delay of AutoCount"),
        Field("RATE", "FLOAT", "Display rate (Hz)", initial="10"),
        Field("RAT1", "FLOAT", "Display rate of AutoCount (Hz)"),
        Field("NCH", "SHORT", "Number of channels", initial="16", read_only=True),
        Field("COUT", "OUTLINK", "CNT output"),
        Field("COUTP", "OUTLINK", "CNT output, before the delay"),
        Field("EGU", "STRING", "Units", size=8, is_property=True),
        Field("PREC", "SHORT", "Display precision", initial="3", is_property=True),
        *_channel_fields(),
    )
    world: ClassVar[World] = World()
    """Where the randomness comes from; another one is put here before the IOC boots."""

    # -- set-up --------------------------------------------------------------------------------------------------

    def init(self) -> None:
        """Channel 1 is gated: it holds the time preset."""
        self._activity = Activity.IDLE
        self._call: Call | None = None
        self._begun = 0.0
        self._shown = 0.0
        self._held_until = -math.inf
        self._count_written = False
        self._counters: list[Counter] = []
        self._rates: dict[int, C.c_double] = {}
        self.NCH = min(max(self.NCH, 1), CHANNELS)
        self.PR1 = self._time_preset(self.TP)
        self.G1 = 1
        for number in range(1, CHANNELS + 1):
            if self._channel("PR", number) and number > 1:
                setattr(self, f"G{number}", 1)
            setattr(self, f"D{number}", self._channel("G", number))

    def started(self) -> None:
        """Find the PVs of the mean rates, and load what random numbers need when the IOC is up."""
        for number in range(2, self.NCH + 1):
            address = base.address(f"{self.name}:rate{number}")
            if address is not None:
                # Read from its memory, not through base, which would lock that record while it holds this one.
                self._rates[number] = C.c_double.from_address(address.field)
        self.call_later(0.0, lambda: self.world.generator(self.name))
        if self.CONT:
            self._pause(time.monotonic())

    def units(self, field: str) -> str:
        """Seconds, Hz, or EGU for counts."""
        if field in ("T", "TP", "TP1", "DLY", "DLY1", "VAL"):
            return "s"
        return "Hz" if field in ("FREQ", "RATE", "RAT1") else self.EGU

    # -- puts ----------------------------------------------------------------------------------------------------

    def after_put(self, field: str, old: Any) -> None:
        """Keep presets, gates and times in agreement."""
        if field == "CNT":
            self._count_written = True
        elif field in ("TP", "FREQ"):
            if field == "FREQ" and not (math.isfinite(self.FREQ) and self.FREQ > 0):
                msg = f"FREQ {self.FREQ}: must be above 0"
                raise PutRefusedError(msg)
            self.set(PR1=self._time_preset(self.TP))
            if field == "TP" and self.PR1:
                self._gate(1)
        elif field == "TP1" and not self.TP1 >= 0:
            msg = f"TP1 {self.TP1}: must be at least 0"
            raise PutRefusedError(msg)
        elif field in ("DLY", "DLY1", "RATE", "RAT1"):
            value = getattr(self, field)
            if not value >= 0:
                msg = f"{field} {value}: must be at least 0"
                raise PutRefusedError(msg)
            if field.startswith("RAT"):
                setattr(self, field, min(value, HIGHEST_RATE))
        elif field.startswith("PR") and field[2:].isdigit():
            if getattr(self, field):
                self._gate(int(field[2:]))
            if field == "PR1":
                self.set(TP=self.PR1 / self.FREQ)
        elif field.startswith("G") and field[1:].isdigit():
            number = int(field[1:])
            if getattr(self, field) and not self._channel("PR", number):
                self.set(**{f"PR{number}": DEFAULT_PRESET})
                if number == 1:
                    self.set(TP=self.PR1 / self.FREQ)
            self.set(**{f"D{number}": getattr(self, field)})

    def _time_preset(self, seconds: float) -> int:
        preset = seconds * self.FREQ
        if not 0 <= preset <= LARGEST:
            msg = f"a preset of {seconds} s at {self.FREQ} Hz: 0 to {LARGEST / self.FREQ:.6g} s fit the counter"
            raise PutRefusedError(msg)
        return round(preset)

    def _gate(self, number: int) -> None:
        # A preset counter is loaded with its preset and counts down; what is reported counts up.
        self.set(**{f"G{number}": 1, f"D{number}": 1})

    def _channel(self, kind: str, number: int) -> Any:
        return getattr(self, f"{kind}{number}")

    # -- counting ------------------------------------------------------------------------------------------------

    def process(self) -> None:
        """Start or stop as CNT and CONT say; completion comes when CNT is 0."""
        now = time.monotonic()
        written, self._count_written = self._count_written, False
        busy = self._activity in (Activity.DELAY, Activity.COUNT)
        if written and self.CNT and not busy:
            self._command(now)
            return
        if written and not self.CNT and busy:
            if self._activity is Activity.COUNT:
                self._show(now - self._begun)
            self._end(now)
            return
        if busy:
            return
        if self.CONT and self._activity is Activity.IDLE:
            self._pause(now)
        elif not self.CONT and self._activity is not Activity.IDLE:
            self._cancel()
            self._activity = Activity.IDLE
        self.finish("VAL")

    def _cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _command(self, now: float) -> None:
        self._cancel()
        self._activity = Activity.DELAY
        self.publish()
        self.put_link("COUTP", 1)
        if self.DLY > 0:
            self._call = self.call_at(now + self.DLY, lambda: self._count(time.monotonic()))
        else:
            self._count(now)

    def _count(self, now: float) -> None:
        self._activity = Activity.COUNT
        self.put_link("COUT", 1)
        self._start_counters(now, {n: self._channel("PR", n) for n in range(1, CHANNELS + 1) if self._channel("G", n)})

    def _start_counters(self, now: float, presets: Mapping[int, int]) -> None:
        self._begun = self._shown = now
        generator = self.world.generator(self.name)
        self._counters = [ClockCounter(self.FREQ, presets.get(1))]
        self._counters += [
            PoissonCounter(generator, self._rate(number), presets.get(number)) for number in range(2, CHANNELS + 1)
        ]
        self._show(0.0)
        self._follow(now)

    def _rate(self, number: int) -> float:
        rate = self._rates[number].value if number in self._rates else 0.0
        return rate if math.isfinite(rate) and rate > 0 else 0.0

    def _follow(self, now: float) -> None:
        """Look at the counters: has a preset been reached, is it time to show the counts?"""
        self._call = None
        elapsed = now - self._begun
        for number, counter in enumerate(self._counters, start=1):
            if isinstance(counter, PoissonCounter):
                counter.set_rate(elapsed, self._rate(number))
        due = min(counter.due for counter in self._counters)
        if elapsed >= due:
            self._show(due)
            self._end(now)
            return
        rate = self.RATE if self._activity is Activity.COUNT else self.RAT1
        next_show = self._shown + 1 / rate if rate > 0 else math.inf
        if now >= next_show:
            self._show(elapsed)
            self._shown = now
            next_show = now + 1 / rate
        when = min(self._begun + due, next_show, now + INPUT_PERIOD)
        self._call = self.call_at(when, lambda: self._follow(time.monotonic()))

    def _show(self, elapsed: float) -> None:
        """Post the counts of ``elapsed`` seconds."""
        counts = [counter.at(elapsed) & LARGEST for counter in self._counters]
        self.publish()
        self.set(**{f"S{number}": count for number, count in enumerate(counts, start=1)}, T=counts[0] / self.FREQ)

    def _end(self, now: float) -> None:
        self._cancel()
        if self._activity is Activity.AUTO_COUNT:
            self._pause(now)
            return
        self._activity = Activity.IDLE
        self._held_until = now + HOLD_TIME
        self.set(CNT=0)
        self.put_link("COUTP", 0)
        self.put_link("COUT", 0)
        self.VAL = self.T
        self.finish("VAL")
        if self.CONT and self._activity is Activity.IDLE:
            self._pause(now)

    # -- background counting -------------------------------------------------------------------------------------

    def _pause(self, now: float) -> None:
        self._activity = Activity.AUTO_PAUSE
        when = max(now + max(self.DLY1, SHORTEST_PAUSE), self._held_until)
        self._call = self.call_at(when, lambda: self._auto_count(time.monotonic()))

    def _auto_count(self, now: float) -> None:
        self._activity = Activity.AUTO_COUNT
        if self.TP1 >= SHORTEST_AUTO_COUNT:
            presets = {1: round(self.TP1 * self.FREQ)}
        else:
            presets = {n: self._channel("PR", n) for n in range(1, CHANNELS + 1) if self._channel("G", n)}
        self._start_counters(now, presets)
