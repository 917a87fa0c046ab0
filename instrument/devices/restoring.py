"""What setting the PVs of a snapshot again would do: which can be set, which need not be, which must not be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from instrument.devices.pv_setpoint import PvSetpoint
from instrument.devices.pvs import PvList, PvReading
from instrument.framework.comparison import Tolerance
from instrument.framework.snapshots import Entry, shown

Action = Literal["set", "move", "same", "leave", "refuse"]

# Records whose VAL is what they read, unless their INP links to nothing (EPICS Record Reference Manual).
INPUTS = frozenset("ai aai bi event int64in longin lsi mbbi mbbiDirect stringin waveform".split())
# Records whose VAL is what they compute.
COMPUTED = frozenset(
    "acalcout aSub calc calcout compress histogram scalcout sel sub subArray swait".split()
)  # fmt: skip
# Records whose control limits are limits of what may be written, not of a display (drvh and drvl; the motor's own).
LIMITED = frozenset("ao int64out longout motor".split())
FACTS_TIMEOUT = 1.0  # s; the records answer already, fields that they do not have never will
READBACKS = {"VAL": "RBV", "DVAL": "DRBV", "RVAL": "RRBV"}  # of a motor, by the field that sends it there
MOTOR_FIELDS = [*READBACKS.values(), *"DIFF RDBD PREC MISS HLS LLS SEVR DMOV".split()]
_SEVERITIES = ("", "MINOR", "MAJOR", "INVALID")


@dataclass(frozen=True)
class Step:
    """What is to be done with one PV of a snapshot.

    Attributes:
        entry: As it was recorded.
        now: What the PV has now; None if it does not answer.
        value: What is to be set.
        action: "set" it or "move" a motor there; "same": it has that value; "leave" it; "refuse" all for its sake.
        reason: Why it is left, or all is refused.
        outcome: What has become of it: empty before it was tried.
    """

    entry: Entry
    now: PvReading | None
    value: Any
    action: Action
    reason: str = ""
    outcome: str = ""

    @property
    def name(self) -> str:
        """Of the PV."""
        return self.entry.name

    @property
    def to_be_set(self) -> bool:
        """Whether it would be set."""
        return self.action in {"set", "move"}

    @property
    def now_shown(self) -> str:
        """What the PV has now, as people read it."""
        return "" if self.now is None else shown(self.now.value, self.now.data_key)

    @property
    def told(self) -> str:
        """What is done with it, in words."""
        if self.outcome:
            return self.outcome
        what = {"set": "set", "move": "move", "same": "as it is", "leave": "left as it is", "refuse": "refused"}
        return f"{what[self.action]}: {self.reason}" if self.reason else what[self.action]

    def with_outcome(self, outcome: str) -> Step:
        """The same, tried."""
        return replace(self, outcome=outcome)

    def setpoint(self) -> PvSetpoint:
        """What the RunEngine sets."""
        stop = f"{record_and_field(self.name)[0]}.STOP" if self.action == "move" else None
        return PvSetpoint(self.name, stop_pv=stop)


@dataclass(frozen=True)
class MotorState:
    """Whether a motor is where its VAL says, which is where it was sent to.

    Attributes:
        position: Where it is: RBV.
        readback: The same in the unit of the field that sent it: RBV, DRBV (dial) or RRBV (steps).
        near: Whether it is within the retry deadband, or the last decimal that is shown.
        failed: Whether it is out of retries or in MAJOR alarm.
        held: Whether a limit switch keeps it from higher values of that field, and from lower ones.
        remarks: What speaks for it that it is not, in words.
    """

    position: float
    readback: float
    near: bool
    failed: bool
    held: tuple[bool, bool]
    remarks: tuple[str, ...]

    @classmethod
    def of(cls, fields: Mapping[str, Any], sent_by: str = "VAL") -> MotorState:
        """What the record says.

        Args:
            fields: Values of `MOTOR_FIELDS`.
            sent_by: The field that sends it: VAL, DVAL or RVAL.
        """
        severity = int(fields["SEVR"])
        alarmed = severity >= _SEVERITIES.index("MAJOR")
        # PREC 0 is what a record has whose database does not set it, and says nothing of the motor.
        digit = 10.0 ** -fields["PREC"] if fields["PREC"] > 0 else 0.0
        high, low = bool(fields["HLS"]), bool(fields["LLS"])
        # The switches are the user's high and low: the dial and the steps may count the other way.
        held = (high, low) if sent_by == "VAL" else (high or low, high or low)
        remarks = {
            "moving": not fields["DMOV"],
            "at its high limit switch": fields["HLS"],
            "at its low limit switch": fields["LLS"],
            "out of retries": fields["MISS"],
            f"in {_SEVERITIES[severity]} alarm": alarmed,
        }
        return cls(
            position=fields["RBV"],
            readback=fields[READBACKS[sent_by]],
            near=abs(fields["DIFF"]) <= max(fields["RDBD"], digit),
            failed=bool(fields["MISS"] or alarmed),
            held=held,
            remarks=tuple(text for text, applies in remarks.items() if applies),
        )

    def arrived(self, wanted: float, within: Tolerance) -> bool:
        """Whether it is where it was sent to.

        Args:
            wanted: The value of the field that sends it.
            within: What counts as the same besides what the record allows, unless a limit switch holds it there.
        """
        higher, lower = self.held
        held = (higher and wanted > self.readback) or (lower and wanted < self.readback)
        return not self.failed and (self.near or (not held and within.same(wanted, self.readback)))

    def __str__(self) -> str:
        """As it follows `set, but`."""
        return ", ".join([f"the motor is at {self.position:g}", *self.remarks])


class PvTargets(PvList):
    """The PVs of a snapshot as they are now, and what their records are.

    Attributes:
        facts: For each PV, what is known of its record: RTYP, and of inputs DTYP and INP.
        motors: For each PV that moves a motor, where that is.
    """

    def __init__(self, pvs: Sequence[str], *, timeout: float, name: str = "targets") -> None:
        super().__init__(pvs, timeout=timeout, name=name)
        self.facts: dict[str, dict[str, str]] = {}
        self.motors: dict[str, MotorState] = {}

    def take(self) -> None:
        """Read the PVs and where motors are, and ask their records what they are."""
        super().take()
        if not self.facts:
            self._ask_records()
        moving = [pv for pv in self.readings if _is_motion(pv, self.facts.get(pv, {}).get("RTYP", ""))]
        self.motors = _motor_states(moving, self.timeout)

    def _ask_records(self) -> None:
        records = {pv: record_and_field(pv) for pv in self.readings}
        types = _texts((f"{record}.RTYP" for record, _ in records.values()), self.timeout)
        self.facts = {pv: {"RTYP": types.get(f"{record}.RTYP", "")} for pv, (record, _) in records.items()}
        inputs = {record for pv, (record, _) in records.items() if self.facts[pv]["RTYP"] in INPUTS}
        fields = _texts((f"{record}.{field}" for record in inputs for field in ("DTYP", "INP")), self.timeout)
        for pv, (record, _) in records.items():
            if record in inputs:
                self.facts[pv] |= {field: fields.get(f"{record}.{field}", "") for field in ("DTYP", "INP")}

    def only(self, pvs: Sequence[str]) -> None:
        """Read no others from now on."""
        self.pvs = tuple(pv for pv in self.pvs if pv in set(pvs))
        self.readings = {pv: reading for pv, reading in self.readings.items() if pv in set(pvs)}


def _texts(pvs: Any, timeout: float) -> dict[str, str]:
    wanted = PvList(list(dict.fromkeys(pvs)), timeout=min(FACTS_TIMEOUT, timeout))
    wanted.take()
    return {pv: shown(reading.value, reading.data_key) for pv, reading in wanted.readings.items()}


def _motor_states(pvs: Iterable[str], timeout: float) -> dict[str, MotorState]:
    """Where motors are; one that does not answer is left out."""
    records = {pv: record_and_field(pv)[0] for pv in pvs}
    if not records:
        return {}
    fields = [f"{record}.{field}" for record in dict.fromkeys(records.values()) for field in MOTOR_FIELDS]
    told = PvList(fields, timeout=timeout)
    told.take()
    values = {pv: reading.value for pv, reading in told.readings.items()}
    return {
        pv: MotorState.of({field: values[f"{record}.{field}"] for field in MOTOR_FIELDS}, record_and_field(pv)[1])
        for pv, record in records.items()
        if all(f"{record}.{field}" in values for field in MOTOR_FIELDS)
    }


def _is_motion(pv: str, record_type: str) -> bool:
    return record_type == "motor" and record_and_field(pv)[1] in READBACKS


def record_and_field(pv: str) -> tuple[str, str]:
    """The record and the field of a PV: `gp:m1` and `gp:m1.VAL` are the same."""
    record, dot, field = pv.partition(".")
    return record, (field.partition("{")[0].rstrip("$") or "VAL") if dot else "VAL"


def steps(
    entries: Sequence[Entry],
    readings: Mapping[str, PvReading],
    facts: Mapping[str, Mapping[str, str]],
    unreachable: Mapping[str, str],
    tolerance: Tolerance,
    motors: Mapping[str, MotorState] | None = None,
) -> list[Step]:
    """What to do with each entry of a snapshot, in the order in which it was taken.

    Args:
        entries: Of the snapshot.
        readings: What the PVs have now.
        facts: What is known of their records.
        unreachable: Why a PV has no reading.
        tolerance: What counts as the same value.
        motors: Where the motors are that some of the PVs move.
    """
    return [_step(entry, readings, facts, unreachable, tolerance, motors or {}) for entry in entries]


def _step(
    entry: Entry,
    readings: Mapping[str, PvReading],
    facts: Mapping[str, Mapping[str, str]],
    unreachable: Mapping[str, str],
    tolerance: Tolerance,
    motors: Mapping[str, MotorState],
) -> Step:
    now = readings.get(entry.name)
    if entry.problem is not None:
        return Step(entry, now, None, "leave", f"it was not read then ({entry.problem})")
    if not entry.is_pv:
        return Step(entry, None, None, "leave", "it is no EPICS PV")
    if now is None:
        return Step(entry, None, None, "refuse", f"it does not answer ({unreachable.get(entry.name, 'not read')})")
    record_type = facts.get(entry.name, {}).get("RTYP", "")
    why = (
        "no write access"
        if not now.writable
        else _not_settable(entry.name, facts.get(entry.name, {}), isinstance(now.value, str))
    )
    if why:
        return Step(entry, now, None, "leave", f"read-only ({why})")
    value, problem = _value_now(entry, now)
    if problem:
        return Step(entry, now, None, "refuse", problem)
    motor = motors.get(entry.name)
    same = tolerance.same(value, now.value)
    if same and (motor is None or motor.arrived(value, tolerance)):
        return Step(entry, now, value, "same")
    if isinstance(value, np.ndarray | list) and not len(value):
        return Step(entry, now, None, "leave", "an empty array can't be written")
    if beyond := _beyond_limits(value, now, record_type):
        return Step(entry, now, value, "refuse", beyond)
    if not _is_motion(entry.name, record_type):
        return Step(entry, now, value, "set")
    return Step(entry, now, value, "move", str(motor) if same else "")


def _not_settable(pv: str, facts: Mapping[str, str], text: bool) -> str:
    """Why writing to a PV would not last; empty if it does."""
    if record_and_field(pv)[1] != "VAL":
        return ""
    record_type = facts.get("RTYP", "")
    if record_type in COMPUTED:
        return f"the {record_type} record computes it"
    if record_type not in INPUTS:
        return ""
    device, link = facts.get("DTYP", ""), facts.get("INP", "")
    if device not in {"", "Soft Channel"}:
        return (
            ""
            if record_type == "waveform" and _is_output(pv, device, text)
            else (f"the {record_type} record reads it from a device")
        )
    return f"the {record_type} record reads it from {link}" if _is_link(link) else ""


def _is_output(pv: str, device: str, text: bool) -> bool:
    """Whether a waveform record writes to its device, as areaDetector's file names do (asynOctetWrite)."""
    if "Write" in device or "Out" in device:
        return True
    says_input = "Read" in device or "In" in device  # asynOctetRead, asynFloat64ArrayIn
    return text and not says_input and not pv.partition(".")[0].endswith("_RBV")


def _is_link(text: str) -> bool:
    """Whether an input link leads to something; a constant, which is read once, does not."""
    words = text.split()
    if not words or text.lstrip().startswith(("[", '"')):
        return False
    try:
        float(words[0])
    except ValueError:
        return True
    return False


def _value_now(entry: Entry, now: PvReading) -> tuple[Any, str]:
    """The value as the PV takes it now, or why it can't be given."""
    value, labels = entry.value, now.data_key.get("enum_strs")
    if labels and "enum_strs" in entry.data_key:
        if entry.shown in labels:
            return list(labels).index(entry.shown), ""
        return None, f"it has no state {entry.shown!r} any more"
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, str) != isinstance(now.value, str) and now.count == 1:
        return None, f"it was {'text' if isinstance(value, str) else 'a number'} then, and is not now"
    if isinstance(value, list | np.ndarray) and len(value) > now.count:
        return None, f"it had {len(value)} values then, and has room for {now.count} now"
    return value, ""


def _beyond_limits(value: Any, now: PvReading, record_type: str) -> str:
    low, high = (now.data_key.get(f"{which}_ctrl_limit", 0.0) for which in ("lower", "upper"))
    if record_type not in LIMITED or isinstance(value, str | list | np.ndarray) or not low < high:
        return ""
    return (
        ""
        if low <= value <= high and math.isfinite(value)
        else f"{value:g} is outside of its limits {low:g} to {high:g}"
    )
