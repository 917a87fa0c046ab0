"""The synApps motor record on a simulated stepper axis.

The record is the documented one (motorRecord R7-3): coordinates, limits, backlash, jog, tweak, home, retries, SPMG.
Behind it is an axis with a position register in steps, an encoder, two limit switches and a home switch. The register
is loaded when the position is redefined (SET); the switches stay where they are, counted from where the axis stands at
power-up.

Where the documentation leaves it open:

- A new target while moving redirects at once (NTM = YES): the axis keeps its speed if the target lies ahead, else it
  slows down and returns. A target behind by no more than NTMF * (|BDST| + RDBD), or any with NTM = NO, is gone to
  when the motion under way has ended. DMOV is 0 throughout.
- DMOV stays 0, and puts with completion wait, while a target is not reached because SPMG is Stop or Pause; STOP ends
  that.
- A target beyond the limits is refused: LVIO becomes 1, VAL, DVAL and RVAL return, DMOV shows a pulse, and a motion
  under way goes on. A limit that comes to exclude the target of a motion under way stops it.
- Redefining the raw or dial position while moving ends the motion there.
- CNEN = Disable takes the holding power off: the axis stands still, moves end at once with the PROBLEM bit of MSTA,
  and the record is in MAJOR STATE alarm until CNEN = Enable.
- The home switch is where the axis stood at power-up. It is approached in the direction asked for, from the other side
  if need be, and the position register is zero afterwards.
"""

from __future__ import annotations

import enum
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from virtual_beamline.epics import (
    MAJOR,
    STATUS_HIGH,
    STATUS_LOW,
    STATUS_STATE,
    Call,
    Field,
    PutRefusedError,
    Record,
)
from virtual_beamline.records import coordinates
from virtual_beamline.records.coordinates import CoordinateError
from virtual_beamline.records.motion import Speeds, Trajectory, halt, run, travel

UPDATE_PERIOD = 0.05
"""Seconds between readbacks of a moving axis."""
TRAVEL = 35_000.0
"""The limit switches are so far from where the axis stands at power-up, EGU (dial)."""
HOME_RUN_UP = 20
"""Steps from which the home switch is approached if the axis comes from the other side."""
JOG_MARGIN = 1.0
"""Seconds of travel before a limit at which a jog is stopped."""

STOP, PAUSE, MOVE, GO = range(4)  # SPMG
UNITY, ARITHMETIC, GEOMETRIC, IN_POSITION = range(4)  # RMOD


class StatusBit(enum.IntFlag):
    """Bits of MSTA."""

    DIRECTION = 1 << 0
    DONE = 1 << 1
    PLUS_LS = 1 << 2
    HOMELS = 1 << 3
    POSITION = 1 << 5
    HOME = 1 << 7
    PRESENT = 1 << 8
    PROBLEM = 1 << 9
    MOVING = 1 << 10
    GAIN_SUPPORT = 1 << 11
    MINUS_LS = 1 << 13
    HOMED = 1 << 14


class Activity(enum.Enum):
    """What the axis is doing."""

    IDLE = enum.auto()
    MOVE = enum.auto()
    SETTLE = enum.auto()
    JOG = enum.auto()
    JOG_STOP = enum.auto()
    HOME = enum.auto()
    STOP = enum.auto()
    PAUSE = enum.auto()
    PAUSED = enum.auto()


@dataclass(frozen=True, slots=True)
class Leg:
    """A part of a motion: to ``target`` (dial) at ``speeds``."""

    target: float
    speeds: Speeds


def _readback(name: str, kind: str, prompt: str, initial: str | None = None) -> Field:
    return Field(name, kind, prompt, initial=initial, read_only=True)


def _drive(name: str, kind: str, prompt: str, menu: str = "", initial: str | None = None) -> Field:
    return Field(name, kind, prompt, pp=True, menu=menu, initial=initial)


_DRIVES = ("VAL", "DVAL", "RVAL", "RLV", "TWF", "TWR")
_LIMITS = ("HLM", "LLM", "DHLM", "DLLM")
_SPEED_PAIRS = {"VELO": "S", "BVEL": "SBAK", "VMAX": "SMAX", "VBAS": "SBAS"}
_SPEED_OF_TURNS = {turns: speed for speed, turns in _SPEED_PAIRS.items()}
_SLEWS = ("VELO", "BVEL", "JVEL", "HVEL")


class MotorRecord(Record):
    """One motor; see the module's docstring."""

    record_type = "motor"
    devices = ("asynMotor",)
    menus: ClassVar[Mapping[str, Sequence[str]]] = {
        "motorDIR": ("Pos", "Neg"),
        "motorFOFF": ("Variable", "Frozen"),
        "motorSET": ("Use", "Set"),
        "motorSPMG": ("Stop", "Pause", "Move", "Go"),
        "motorUEIP": ("No", "Yes"),
        "motorCNEN": ("Disable", "Enable"),
        "motorRMOD": ("Unity", "Arithmetic", "Geometric", "In-Position"),
        "motorNTM": ("NO", "YES"),
        "motorACCU": ("Use ACCL", "Use ACCS"),
        "motorSYNC": ("No", "Yes"),
    }
    fields = (
        _drive("VAL", "DOUBLE", "User Desired Value"),
        _drive("DVAL", "DOUBLE", "Dial Desired Value"),
        _drive("RVAL", "LONG", "Raw Desired Value"),
        _drive("RLV", "DOUBLE", "Relative Value"),
        _drive("SYNC", "MENU", "Sync position", "motorSYNC"),
        # readback
        _readback("RBV", "DOUBLE", "User Readback Value"),
        _readback("DRBV", "DOUBLE", "Dial Readback Value"),
        _readback("RRBV", "LONG", "Raw Readback Value"),
        _readback("RMP", "LONG", "Raw Motor Position"),
        _readback("REP", "LONG", "Raw Encoder Position"),
        _readback("DIFF", "DOUBLE", "Difference dval-drbv"),
        _readback("RDIF", "LONG", "Difference rval-rrbv"),
        _readback("RVEL", "LONG", "Raw Velocity"),
        _readback("DMOV", "SHORT", "Done moving to value", "1"),
        _readback("MOVN", "SHORT", "Motor is moving"),
        _readback("TDIR", "SHORT", "Direction of Travel", "1"),
        _readback("CDIR", "SHORT", "Raw commanded direction", "1"),
        _readback("MSTA", "ULONG", "Motor Status"),
        _readback("ATHM", "SHORT", "At HOME"),
        _readback("RCNT", "SHORT", "Retry count"),
        _readback("MISS", "SHORT", "Ran out of retries"),
        Field("MDEL", "DOUBLE", "Monitor Deadband"),
        Field("ADEL", "DOUBLE", "Archive Deadband"),
        # commands
        _drive("SPMG", "MENU", "Stop/Pause/Move/Go", "motorSPMG", "3"),
        _drive("STOP", "SHORT", "Stop"),
        _drive("HOMF", "SHORT", "Home Forward"),
        _drive("HOMR", "SHORT", "Home Reverse"),
        _drive("JOGF", "SHORT", "Jog motor Forward"),
        _drive("JOGR", "SHORT", "Jog motor Reverse"),
        _drive("TWF", "SHORT", "Tweak motor Forward"),
        _drive("TWR", "SHORT", "Tweak motor Reverse"),
        Field("TWV", "DOUBLE", "Tweak Step Size (EGU)", initial="1"),
        # calibration
        _drive("DIR", "MENU", "User Direction", "motorDIR"),
        Field("OFF", "DOUBLE", "User Offset (EGU)"),
        Field("FOFF", "MENU", "Offset-Freeze Switch", menu="motorFOFF"),
        Field("VOF", "SHORT", "Variable Offset"),
        Field("FOF", "SHORT", "Freeze Offset"),
        Field("SET", "MENU", "Set/Use Switch", menu="motorSET"),
        Field("SSET", "SHORT", "Set SET Mode"),
        Field("SUSE", "SHORT", "Set USE Mode"),
        Field("IGSET", "SHORT", "Ignore SET field"),
        # resolution
        _drive("MRES", "DOUBLE", "Motor Step Size (EGU)"),
        _drive("SREV", "LONG", "Steps per Revolution", initial="200"),
        _drive("UREV", "DOUBLE", "EGU's per Revolution"),
        _drive("ERES", "DOUBLE", "Encoder Step Size (EGU)"),
        _drive("UEIP", "MENU", "Use Encoder If Present", "motorUEIP"),
        # speeds
        Field("VELO", "DOUBLE", "Velocity (EGU/s)"),
        Field("VBAS", "DOUBLE", "Base Velocity (EGU/s)"),
        Field("VMAX", "DOUBLE", "Max. Velocity (EGU/s)"),
        Field("BVEL", "DOUBLE", "BL Velocity (EGU/s)"),
        Field("HVEL", "DOUBLE", "Home Velocity (EGU/s)"),
        Field("JVEL", "DOUBLE", "Jog Velocity (EGU/s)"),
        Field("JAR", "DOUBLE", "Jog Acceleration (EGU/s^2)"),
        Field("S", "DOUBLE", "Speed (RPS)"),
        Field("SBAS", "DOUBLE", "Base Speed (RPS)"),
        Field("SMAX", "DOUBLE", "Max. Velocity (RPS)"),
        Field("SBAK", "DOUBLE", "BL Speed (RPS)"),
        Field("ACCL", "DOUBLE", "Seconds to Velocity", initial="0.2"),
        Field("ACCS", "DOUBLE", "Acceleration (EGU/s^2)"),
        Field("ACCU", "MENU", "Acceleration used", menu="motorACCU"),
        Field("BACC", "DOUBLE", "BL Seconds to Velocity", initial="0.5"),
        Field("BDST", "DOUBLE", "BL Distance (EGU)"),
        # arrival
        Field("RDBD", "DOUBLE", "Retry Deadband (EGU)"),
        Field("SPDB", "DOUBLE", "Set Point Deadband (EGU)"),
        Field("RTRY", "SHORT", "Max retry count", initial="10"),
        Field("RMOD", "MENU", "Retry Mode", menu="motorRMOD"),
        Field("DLY", "DOUBLE", "Readback settle time (s)"),
        Field("NTM", "MENU", "New Target Monitor", menu="motorNTM", initial="1"),
        Field("NTMF", "SHORT", "NTM Deadband Factor", initial="2"),
        # limits
        _drive("HLM", "DOUBLE", "User High Limit"),
        _drive("LLM", "DOUBLE", "User Low Limit"),
        _drive("DHLM", "DOUBLE", "Dial High Limit"),
        _drive("DLLM", "DOUBLE", "Dial Low Limit"),
        _readback("RHLM", "DOUBLE", "Raw High Limit"),
        _readback("RLLM", "DOUBLE", "Raw Low Limit"),
        _readback("LVIO", "SHORT", "Limit violation"),
        _readback("HLS", "SHORT", "User At High Limit Switch"),
        _readback("LLS", "SHORT", "User At Low Limit Switch"),
        _readback("RHLS", "SHORT", "Raw High Limit Switch"),
        _readback("RLLS", "SHORT", "Raw Low Limit Switch"),
        Field("HLSV", "MENU", "HW Lim. Violation Svr", menu="menuAlarmSevr"),
        # servo
        Field("CNEN", "MENU", "Enable control", menu="motorCNEN", initial="1"),
        # display
        Field("EGU", "STRING", "Engineering Units", size=16, is_property=True),
        Field("PREC", "SHORT", "Display Precision", is_property=True),
        _readback("CARD", "SHORT", "Card Number", "-1"),
    )

    # The fields that records/coordinates.py works on.
    VAL: float
    DVAL: float
    RVAL: int
    OFF: float
    DIR: int
    FOFF: int
    MRES: float
    SREV: int
    UREV: float
    HLM: float
    LLM: float
    DHLM: float
    DLLM: float
    RHLM: float
    RLLM: float

    # -- set-up --------------------------------------------------------------------------------------------------

    def init(self) -> None:
        """Make the fields that the database gave agree; the axis stands at dial zero."""
        self._activity = Activity.IDLE
        self._register = 0.0  # the position register as a dial position; whole steps when the axis stands
        self._origin = 0.0  # power-up position + register = place on the rail, where the switches are
        self._trajectory: Trajectory | None = None
        self._speeds = Speeds(0.0, 1.0, math.inf)
        self._legs: deque[Leg] = deque()
        self._settled_at = 0.0
        self._deferred = False  # VAL is a target that is gone to after the motion under way
        self._beyond = False  # the target written last is beyond the position register
        self._homed = False
        self._problem = False
        self._written: list[str] = []
        self._call: Call | None = None
        self._cells_to_watch = [
            (field.name, self._cells[field.name]) for field in self.fields if field.kind != "STRING"
        ]
        if self.SREV <= 0:
            self.SREV = 200
        step, turn = (self.UREV / self.SREV, self.UREV) if self.UREV else (self.MRES, self.MRES * self.SREV)
        self.MRES, self.UREV = (step, turn) if step and math.isfinite(step) else (1.0, float(self.SREV))
        self.ERES = self.ERES or self.MRES
        self._start_speeds()
        self.RDBD = max(self.RDBD, abs(self.MRES))
        coordinates.follow_dial_limits(self)
        coordinates.target_dial(self, 0.0)
        self._good_target = self.VAL, self.DVAL, self.RVAL
        self._read_back(time.monotonic())
        self._last = {name: cell.value for name, cell in self._cells_to_watch}
        self._last_logged = self.RBV

    def started(self) -> None:
        """Give the position a time, as the first poll of a controller does."""
        self.publish(changed_only=True)

    def _start_speeds(self) -> None:
        turn = abs(self.UREV)
        for speed, turns in _SPEED_PAIRS.items():
            if getattr(self, turns):
                setattr(self, speed, getattr(self, turns) * turn)
        self.VELO = self.VELO or max(self.VBAS, 1.0)
        for speed in ("BVEL", "JVEL", "HVEL"):
            setattr(self, speed, getattr(self, speed) or self.VELO)
        self._keep_speeds_in_range()
        self.ACCL = self.ACCL or 0.2
        self._follow_speeds()
        self.JAR = self.JAR or self.JVEL / self.ACCL

    # -- what clients see ----------------------------------------------------------------------------------------

    def units(self, field: str) -> str:
        """EGU, per second for speeds."""
        if field in (*_SLEWS, "VBAS", "VMAX"):
            return f"{self.EGU}/s"
        if field in ("S", "SBAS", "SMAX", "SBAK"):
            return "rev/s"
        if field in ("ACCL", "BACC", "DLY"):
            return "s"
        if field in ("JAR", "ACCS"):
            return f"{self.EGU}/s^2"
        return self.EGU

    def display_limits(self, field: str) -> tuple[float, float] | None:
        """The limits of the coordinate that the field belongs to."""
        if field in ("VAL", "RBV"):
            return self.LLM, self.HLM
        if field in ("DVAL", "DRBV"):
            return self.DLLM, self.DHLM
        if field in ("RVAL", "RRBV"):
            return self.RLLM, self.RHLM
        if field in _SLEWS and self.VMAX:
            return self.VBAS, self.VMAX
        return None

    # -- puts ----------------------------------------------------------------------------------------------------

    def after_put(self, field: str, old: Any) -> None:
        """Make the other fields agree with the one that was written; what moves the axis waits for processing."""
        try:
            self._follow_put(field, old)
        except CoordinateError as error:
            raise PutRefusedError(str(error)) from error
        now = time.monotonic()
        self._read_back(now)
        if field != "VAL" and field in self._last:  # base itself tells clients what was written; not so of VAL
            self._last[field] = self._cells[field].value
        if field not in _DRIVES:  # those wait for processing: a target may be refused
            self._stamp()
            self._post_changes()

    def _follow_put(self, field: str, old: Any) -> None:
        if field in _DRIVES:
            self._drive_put(field, old)
        elif field in ("HLM", "LLM"):
            coordinates.follow_user_limit(self, field)
        elif field in ("DHLM", "DLLM"):
            self._require_number(field)
            coordinates.follow_dial_limits(self)
        elif field == "OFF":
            coordinates.follow_offset(self)
            self._keep_target()
        elif field == "DIR":
            coordinates.follow_direction(self)
            self._keep_target()
        elif field in ("MRES", "UREV", "SREV"):
            self._resolution_put(field)
        elif field == "ERES":
            self._require_number(field)
            self.ERES = self.ERES or self.MRES
        elif field in _SPEED_PAIRS or field in _SPEED_OF_TURNS or field in (*_SLEWS, "ACCL", "ACCS", "BACC", "JAR"):
            self._speed_put(field)
        elif field in ("BDST", "RDBD", "SPDB", "DLY", "TWV", "MDEL", "ADEL"):
            self._require_number(field)
            if field == "RDBD":
                self.RDBD = max(self.RDBD, abs(self.MRES))
        elif field == "NTMF":
            self.NTMF = max(self.NTMF, 2)
        elif field in ("VOF", "FOF", "SSET", "SUSE"):
            self.set(**{"VOF": {"FOFF": 0}, "FOF": {"FOFF": 1}, "SSET": {"SET": 1}, "SUSE": {"SET": 0}}[field])
            setattr(self, field, 0)
        elif field in ("HOMF", "HOMR") and not getattr(self, field):
            msg = f"{field} can only be set to 1; STOP ends the homing"
            raise PutRefusedError(msg)
        elif field == "CNEN":
            self._servo_put()
        if field in ("STOP", "SYNC"):
            if getattr(self, field):
                self._written.append(field)
            setattr(self, field, 0)
        elif field in ("SPMG", "HOMF", "HOMR", "JOGF", "JOGR", *_LIMITS):
            self._written.append(field)
        if field in _LIMITS:
            self.post_property("VAL", "RBV", "DVAL", "DRBV")

    def _require_number(self, *fields: str) -> None:
        for field in fields:
            if not math.isfinite(getattr(self, field)):
                msg = f"{field} must be a number"
                raise PutRefusedError(msg)

    def _drive_put(self, field: str, old: Any) -> None:
        value = getattr(self, field)
        if field in ("RLV", "TWF", "TWR"):
            way = value if field == "RLV" else self.TWV * (bool(value) if field == "TWF" else -bool(value))
            if not math.isfinite(way):
                msg = f"{field} must be a number"
                raise PutRefusedError(msg)
            setattr(self, field, 0)
            if not way:
                return
            field, value, old = "VAL", self.VAL + way, self.VAL
        if not math.isfinite(value):
            msg = f"{field} must be a number"
            raise PutRefusedError(msg)
        if self.SET and not self.IGSET:
            self._define(field, value)
            return
        target = {
            "VAL": coordinates.target_user,
            "DVAL": coordinates.target_dial,
            "RVAL": coordinates.target_raw,
        }[field]
        try:
            target(self, value)
        except CoordinateError:
            setattr(self, field, old)
            self._beyond = True
        else:
            self._beyond = False
        self._written.append("VAL")

    def _define(self, field: str, value: float) -> None:
        """Call the present position ``value``."""
        if field == "VAL":
            load = coordinates.define_user(self, value)
        else:
            load = True
            coordinates.define_dial(self, value if field == "DVAL" else coordinates.from_raw(self, int(value)))
        if load:
            self._load_register(self.DVAL)
        self._keep_target()

    def _load_register(self, dial: float) -> None:
        """Load the position register; what has been a motion ends here."""
        now = time.monotonic()
        place = self._where(now)[0] + self._origin
        self._register = self._whole_steps(dial)
        self._origin = place - self._register
        if self._trajectory is not None:
            self._halt_here(now)

    def _halt_here(self, now: float) -> None:
        self._trajectory = Trajectory(now, self._register, ())
        self._legs.clear()
        self._activity = Activity.STOP
        self._wake(now)

    def _keep_target(self) -> None:
        """Drive fields changed without a move: they are what a refused target returns to."""
        self._good_target = self.VAL, self.DVAL, self.RVAL

    def _resolution_put(self, field: str) -> None:
        step, turn = coordinates.resolution(self, field)
        now = time.monotonic()
        position = self._where(now)[0]
        keep_raw = bool(self.SET and not self.IGSET)
        steps = coordinates.to_raw(position, self._last["MRES"])
        if not keep_raw:
            coordinates.to_raw(position, step)  # refused if the register cannot hold it
        coordinates.rescale(self, step, turn, keep_raw=keep_raw)
        if field != "SREV":
            for speed, turns in _SPEED_PAIRS.items():
                setattr(self, speed, getattr(self, turns) * abs(turn))
            self._keep_speeds_in_range()
        self._follow_speeds()
        self.RDBD = max(self.RDBD, abs(step))
        if keep_raw:
            self._load_register(coordinates.from_raw(self, steps))
        elif self._trajectory is None:
            place = position + self._origin
            self._register = self._whole_steps(position)
            self._origin = place - self._register
        elif math.isfinite(self._trajectory.end):
            self._trajectory.end = self._whole_steps(self._trajectory.end)
        self._keep_target()

    def _servo_put(self) -> None:
        now = time.monotonic()
        if self.CNEN:
            self._problem = False
        elif self._trajectory is not None:
            self._register = self._whole_steps(self._where(now)[0])
            self._problem = True
            self._halt_here(now)
        self._wake(now)

    # -- speeds --------------------------------------------------------------------------------------------------

    def _speed_put(self, field: str) -> None:
        value = getattr(self, field)
        self._require_number(field)
        may_be_zero = field in ("VBAS", "SBAS", "VMAX", "SMAX")
        silently_raised = field in (*_SLEWS, "S", "SBAK") and self.VBAS > 0
        if (value < 0 and not silently_raised) or (value == 0 and not (may_be_zero or silently_raised)):
            msg = f"{field} {value}: must be {'at least' if may_be_zero else 'above'} 0"
            raise PutRefusedError(msg)
        if field in _SPEED_OF_TURNS:
            setattr(self, _SPEED_OF_TURNS[field], value * abs(self.UREV))
            field = _SPEED_OF_TURNS[field]
        if self.VMAX and self.VBAS > self.VMAX:
            if field == "VMAX":
                self.VBAS = self.VMAX
            else:
                self.VMAX = self.VBAS
        self._keep_speeds_in_range()
        if field == "ACCL" and self.VELO > self.VBAS:
            self.ACCS = (self.VELO - self.VBAS) / self.ACCL
        elif field == "ACCS" and self.VELO > self.VBAS:
            self.ACCL = (self.VELO - self.VBAS) / self.ACCS
        self._follow_speeds()
        now = time.monotonic()
        if field in ("JVEL", "JAR") and self._activity is Activity.JOG:
            self._run_jog(now, *self._where(now))

    def _keep_speeds_in_range(self) -> None:
        highest = self.VMAX or math.inf
        for speed in _SLEWS:
            setattr(self, speed, min(max(getattr(self, speed), self.VBAS), highest))

    def _follow_speeds(self) -> None:
        """The fields that say the same in other units."""
        turn = abs(self.UREV)
        for speed, turns in _SPEED_PAIRS.items():
            setattr(self, turns, getattr(self, speed) / turn)
        gain = self.VELO - self.VBAS
        if self.ACCU and self.ACCS and gain:
            self.ACCL = gain / self.ACCS
        elif not self.ACCU or not self.ACCS:
            self.ACCS = gain / self.ACCL

    def _slew(self, cruise: float) -> Speeds:
        if self.ACCU and self.ACCS:
            return Speeds(self.VBAS, cruise, self.ACCS)
        return Speeds.ramped(self.VBAS, cruise, self.ACCL)

    # -- processing ----------------------------------------------------------------------------------------------

    def process(self) -> None:
        """Obey what was written; completion comes when DMOV is 1."""
        now = time.monotonic()
        self._advance(now)
        written, self._written = self._written, []
        for field in written:
            if field == "VAL":
                self._to_target(now)
            elif field == "STOP":
                self._stop(now)
            elif field == "SPMG":
                self._switch(now)
            elif field in ("JOGF", "JOGR"):
                self._jog(now, field)
            elif field in ("HOMF", "HOMR"):
                self._home(now, field)
            elif field == "SYNC":
                if self._activity is Activity.IDLE:
                    self._sync(now)
            else:
                self._check_limits(now)
        self._report(now)
        if self.DMOV:
            self.complete()

    def _tick(self) -> None:
        self._call = None
        was_done = self._last["DMOV"]
        self._report(time.monotonic())
        if self.DMOV and not was_done:
            self.complete()

    def _report(self, now: float) -> None:
        """Tell clients how things are, and arrange to be called again."""
        self._advance(now)
        if self._deferred and self.NTM:
            self._go(now)  # the deadband may have been left meanwhile
        self._read_back(now)
        self._stamp()
        self._post_changes()
        self._plan_next_call(now)

    def _plan_next_call(self, now: float) -> None:
        if self._trajectory is not None:
            self._wake(min(now + UPDATE_PERIOD, self._trajectory.finish))
        elif self._activity is Activity.SETTLE:
            self._wake(self._settled_at)

    def _wake(self, when: float) -> None:
        if self._call is not None:
            self._call.cancel()
        self._call = self.call_at(when, self._tick)

    def _stamp(self) -> None:
        """Take the time and the alarms for what is posted next."""
        self._raise_alarms()
        self.publish("RBV", "VAL", changed_only=True)

    def _announce(self, **values: int) -> None:
        """Tell clients a state that may not last, such as DMOV = 0 of a move of no length."""
        for name, value in values.items():
            if self._last[name] != value:
                setattr(self, name, value)
                self._last[name] = value
                self._stamp()
                self.post(name)

    def _raise_alarms(self) -> None:
        if self._problem:
            self.alarm(STATUS_STATE, MAJOR)
        if self.HLSV:
            limited = coordinates.has_limits(self)
            if self.HLS or (limited and self.RBV > self.HLM):
                self.alarm(STATUS_HIGH, self.HLSV)
            elif self.LLS or (limited and self.RBV < self.LLM):
                self.alarm(STATUS_LOW, self.HLSV)

    def _post_changes(self) -> None:
        last = self._last
        for name, cell in self._cells_to_watch:
            value = cell.value
            if value == last[name]:
                continue
            if name == "RBV":
                self._post_readback(value)
            else:
                last[name] = value
                self.post(name)

    def _post_readback(self, value: float) -> None:
        """RBV goes to clients when it has left the deadbands MDEL and ADEL."""
        mask = 0
        if abs(value - self._last["RBV"]) > self.MDEL:
            mask |= 1  # DBE_VALUE
            self._last["RBV"] = value
        if abs(value - self._last_logged) > self.ADEL:
            mask |= 2  # DBE_LOG
            self._last_logged = value
        if mask:
            self.post("RBV", mask=mask)

    # -- the axis ------------------------------------------------------------------------------------------------

    def _where(self, now: float) -> tuple[float, float]:
        """Dial position and velocity."""
        if self._trajectory is None:
            return self._register, 0.0
        return self._trajectory.position(now), self._trajectory.velocity(now)

    def _whole_steps(self, dial: float) -> float:
        return coordinates.from_raw(self, coordinates.to_raw(dial, self.MRES))

    def _read_back(self, now: float) -> None:
        position, velocity = self._where(now)
        self.RMP = coordinates.nearest(position / self.MRES)
        self.REP = coordinates.nearest(position / self.ERES)
        if self.UEIP and self.ERES != self.MRES:
            self.RRBV, self.DRBV = self.REP, self.REP * self.ERES
        else:
            self.RRBV, self.DRBV = self.RMP, coordinates.from_raw(self, self.RMP)
        self.RBV = coordinates.to_user(self, self.DRBV)
        self.DIFF = self.DVAL - self.DRBV
        self.RDIF = _limited(self.DIFF / self.MRES)
        self.RVEL = _limited(abs(velocity / self.MRES))
        self.MOVN = int(self._trajectory is not None)
        raw_velocity = velocity / self.MRES
        if raw_velocity:
            self.TDIR = int(raw_velocity > 0)
        place, slack = position + self._origin, abs(self.MRES) / 2
        high, low = place >= TRAVEL - slack, place <= -TRAVEL + slack
        at_home = abs(place) < slack
        self.HLS, self.LLS = (int(low), int(high)) if self.DIR else (int(high), int(low))
        self.RHLS, self.RLLS = (int(high), int(low)) if self.MRES > 0 else (int(low), int(high))
        self.ATHM = int(at_home)
        status = StatusBit.PRESENT | StatusBit.GAIN_SUPPORT
        for bit, on in (
            (StatusBit.DIRECTION, self.TDIR),
            (StatusBit.DONE, self._trajectory is None),
            (StatusBit.PLUS_LS, self.RHLS),
            (StatusBit.MINUS_LS, self.RLLS),
            (StatusBit.HOMELS | StatusBit.HOME, at_home),
            (StatusBit.POSITION, self.CNEN),
            (StatusBit.PROBLEM, self._problem),
            (StatusBit.MOVING, velocity),
            (StatusBit.HOMED, self._homed),
        ):
            if on:
                status |= bit
        self.MSTA = int(status)

    def _advance(self, now: float) -> None:
        """Bring the axis to the present: parts of the motion that have ended, switches that were hit."""
        while True:
            if self._trajectory is None:
                if self._activity is Activity.SETTLE and now >= self._settled_at:
                    self._after_settling(now)
                    if self._activity in (Activity.MOVE, Activity.SETTLE):
                        continue
                return
            if self._hits_switch(now):
                return
            if self._activity is Activity.JOG and self._jog_is_near_limit(now):
                self.LVIO = 1
                self._brake(now, Activity.JOG_STOP)
            if not self._trajectory.finished(now):
                return
            ended, self._register = self._trajectory.finish, self._whole_steps(self._trajectory.end)
            self._trajectory = None
            if self._legs:
                self._next_leg(ended, self._register, 0.0)
            else:
                self._arrive(now)

    def _next_leg(self, when: float, position: float, velocity: float) -> None:
        leg = self._legs.popleft()
        self._speeds = leg.speeds
        self._trajectory = travel(when, position, velocity, self._whole_steps(leg.target), leg.speeds)
        self._commanded(self._trajectory.end - position)

    def _commanded(self, way: float) -> None:
        if way:
            self.CDIR = int(way / self.MRES > 0)

    def _brake(self, now: float, activity: Activity) -> None:
        """Slow down; ``activity`` says what to do then."""
        self._trajectory = halt(now, *self._where(now), self._speeds)
        self._legs.clear()
        self._deferred = False
        self._activity = activity
        self.JOGF = self.JOGR = self.HOMF = self.HOMR = 0

    def _hits_switch(self, now: float) -> bool:
        trajectory = self._trajectory
        if trajectory is None:
            return False
        position, velocity = self._where(now)
        heading = velocity or trajectory.end - trajectory.start
        beyond = position + self._origin - math.copysign(TRAVEL, heading)
        if not heading or beyond * heading < 0:
            return False
        self._register = self._whole_steps(math.copysign(TRAVEL, heading) - self._origin)
        self._trajectory = None
        self._legs.clear()
        self._deferred = False
        self._sync(now)
        self._finish()
        return True

    def _arrive(self, now: float) -> None:
        """The axis has come to a stand."""
        if self._activity is Activity.MOVE:
            self._activity = Activity.SETTLE
            self._settled_at = now + max(self.DLY, 0.0)
            if not self.DLY > 0:
                self._after_settling(now)
        elif self._activity is Activity.PAUSE:
            self._activity = Activity.PAUSED
        elif self._activity is Activity.JOG_STOP:
            self._sync(now)
            if self._has_backlash() and coordinates.within_limits(self, self.DVAL - self.BDST):
                self._activity = Activity.MOVE
                self._legs.extend(self._backlash_legs(self.DVAL))
                self._next_leg(now, self._register, 0.0)
            else:
                self._finish()
        elif self._activity is Activity.HOME:
            self._origin = 0.0
            self._register = 0.0
            self._homed = True
            self._sync(now)
            self._finish()
        else:
            self._sync(now)
            self._finish()

    def _after_settling(self, now: float) -> None:
        """Compare where the axis is with where it was to go, and try again within RTRY."""
        self._read_back(now)
        if self._deferred:
            self._go(now)
        elif abs(self.DIFF) <= self.RDBD * (1 + 1e-9):
            self.MISS = 0
            self._finish()
        elif self.RCNT >= self.RTRY:
            self.MISS = 1
            self._finish()
        else:
            self.RCNT += 1
            if self.RMOD == IN_POSITION:
                self._activity = Activity.SETTLE
                self._settled_at = now + max(self.DLY, 0.0)
                return
            share = 1.0
            if self.RMOD == ARITHMETIC:
                share = (self.RTRY - self.RCNT + 1) / self.RTRY
            elif self.RMOD == GEOMETRIC:
                share = 0.5 ** (self.RCNT - 1)
            position = self._register
            self._activity = Activity.MOVE
            self._legs = deque(self._legs_to(position + self.DIFF * share, position))
            self._next_leg(now, position, 0.0)

    def _sync(self, now: float) -> None:
        """Make the drive fields agree with the readback."""
        self._read_back(now)
        self.VAL, self.DVAL, self.RVAL = self.RBV, self.DRBV, coordinates.nearest(self.DRBV / self.MRES)
        self._keep_target()

    def _finish(self) -> None:
        """The motion is complete."""
        self._activity = Activity.IDLE
        self._deferred = False
        self.DMOV = 1
        self.JOGF = self.JOGR = self.HOMF = self.HOMR = 0
        if self.SPMG == MOVE:
            self.SPMG = PAUSE

    # -- moves ---------------------------------------------------------------------------------------------------

    def _has_backlash(self) -> bool:
        return abs(self.BDST) >= max(abs(self.MRES), self.SPDB)

    def _allowed(self, dial: float) -> bool:
        return coordinates.within_limits(self, dial) and (
            not self._has_backlash() or coordinates.within_limits(self, dial - self.BDST)
        )

    def _backlash_legs(self, target: float) -> list[Leg]:
        back = Speeds.ramped(self.VBAS, self.BVEL, self.BACC)
        return [Leg(target - self.BDST, self._slew(self.VELO)), Leg(target, back)]

    def _legs_to(self, target: float, position: float) -> list[Leg]:
        if not self._has_backlash():
            return [Leg(target, self._slew(self.VELO))]
        way, legs = target - position, self._backlash_legs(target)
        return legs if abs(way) > abs(self.BDST) or way * self.BDST < 0 else legs[1:]

    def _to_target(self, now: float) -> None:
        """A drive field was written."""
        beyond, self._beyond = self._beyond, False
        if beyond or not self._allowed(self.DVAL):
            self.LVIO = 1
            self.VAL, self.DVAL, self.RVAL = self._good_target
            self._announce(DMOV=0)
            if self._activity is Activity.IDLE:
                self.DMOV = 1
            return
        self.LVIO = 0
        self._keep_target()
        self.RCNT = 0
        self._announce(DMOV=0)
        if self.SPMG in (STOP, PAUSE):
            self._activity = Activity.PAUSED if self._trajectory is None else Activity.PAUSE
        else:
            self._go(now)

    def _go(self, now: float) -> None:
        """Set out for DVAL, from a stand or from a motion under way."""
        position, velocity = self._where(now)
        if self._activity is Activity.MOVE and self._trajectory is not None and self._must_defer(position, velocity):
            self._deferred = True
            return
        self._deferred = False
        self._read_back(now)
        if not self.CNEN:
            self._problem = True
            self._sync(now)
            self._finish()
            return
        # With an encoder, motor steps are no measure of where the axis is: destinations are relative.
        target = position + self.DVAL - self.DRBV if self.UEIP else self.DVAL
        self.JOGF = self.JOGR = self.HOMF = self.HOMR = 0
        if self._trajectory is None and self._is_too_small(target):
            self.MISS = 0
            self._finish()
            return
        self._activity = Activity.MOVE
        self._legs = deque(self._legs_to(target, position))
        self._next_leg(now, position, velocity)

    def _is_too_small(self, target: float) -> bool:
        return self._whole_steps(target) == self._register or abs(self.DIFF) < self.SPDB

    def _must_defer(self, position: float, velocity: float) -> bool:
        if not self.NTM:
            return True
        behind = (position - self.DVAL) * math.copysign(1.0, velocity)
        return 0 < behind <= self.NTMF * (abs(self.BDST) + self.RDBD)

    def _check_limits(self, now: float) -> None:
        """A limit was written."""
        self._read_back(now)
        self.LVIO = int(not (self._allowed(self.DVAL) and coordinates.within_limits(self, self.DRBV)))
        targeted = self._activity in (Activity.MOVE, Activity.SETTLE, Activity.PAUSE, Activity.PAUSED)
        if targeted and not self._allowed(self.DVAL):
            self._stop(now)

    # -- commands ------------------------------------------------------------------------------------------------

    def _stop(self, now: float) -> None:
        if self._trajectory is not None:
            self._brake(now, Activity.STOP)
        elif self._activity is not Activity.IDLE:
            self._sync(now)
            self._finish()

    def _switch(self, now: float) -> None:
        """SPMG was written."""
        if self.SPMG == STOP:
            self._stop(now)
            if self._activity is Activity.IDLE:
                self._sync(now)
        elif self.SPMG == PAUSE:
            if self._trajectory is None:
                if self._activity is Activity.SETTLE:
                    self._activity = Activity.PAUSED
            elif self._activity is Activity.MOVE:
                self._brake(now, Activity.PAUSE)
            elif self._activity is Activity.JOG:
                self._brake(now, Activity.JOG_STOP)
            elif self._activity is Activity.HOME:
                self._brake(now, Activity.STOP)
        elif self._activity in (Activity.PAUSE, Activity.PAUSED):
            self._go(now)

    def _may_start(self, field: str) -> bool:
        if self.SPMG in (STOP, PAUSE):
            setattr(self, field, 0)
            return False
        if not self.CNEN:
            self._problem = True
            setattr(self, field, 0)
            return False
        return True

    def _jog(self, now: float, field: str) -> None:
        if not getattr(self, field):
            if self._activity is Activity.JOG and not (self.JOGF or self.JOGR):
                self._brake(now, Activity.JOG_STOP)
            return
        if not self._may_start(field):
            return
        setattr(self, "JOGR" if field == "JOGF" else "JOGF", 0)
        self.HOMF = self.HOMR = 0
        if self._jog_is_near_limit(now):
            self.LVIO = 1
            setattr(self, field, 0)
            return
        self.LVIO = 0
        self._announce(DMOV=0)
        self._legs.clear()
        self._deferred = False
        self._activity = Activity.JOG
        self._run_jog(now, *self._where(now))

    def _jog_direction(self) -> int:
        """In dial coordinates."""
        return coordinates.sign(self) * (1 if self.JOGF else -1)

    def _run_jog(self, now: float, position: float, velocity: float) -> None:
        self._speeds = Speeds(self.VBAS, self.JVEL, self.JAR)
        self._trajectory = run(now, position, velocity, self._jog_direction(), self._speeds)
        self._commanded(self._jog_direction())

    def _jog_is_near_limit(self, now: float) -> bool:
        if not coordinates.has_limits(self):
            return False
        position = self._where(now)[0]
        room = self.DHLM - position if self._jog_direction() > 0 else position - self.DLLM
        return room <= JOG_MARGIN * self.JVEL

    def _home(self, now: float, field: str) -> None:
        if not self._may_start(field):
            return
        setattr(self, "HOMR" if field == "HOMF" else "HOMF", 0)
        self.JOGF = self.JOGR = 0
        self._announce(DMOV=0)
        position, velocity = self._where(now)
        switch, direction = -self._origin, 1 if field == "HOMF" else -1
        speeds = self._slew(self.HVEL)
        self._legs = deque([Leg(switch, speeds)])
        if (switch - position) * direction <= 0:
            self._legs.appendleft(Leg(switch - direction * HOME_RUN_UP * abs(self.MRES), speeds))
        self._deferred = False
        self._activity = Activity.HOME
        self._next_leg(now, position, velocity)


def _limited(value: float) -> int:
    """Rounded, within 32 bits."""
    largest = coordinates.RAW_LARGEST
    return coordinates.nearest(min(max(value, -largest), largest)) if not math.isnan(value) else 0
