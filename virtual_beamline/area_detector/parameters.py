"""The parameter library: each parameter is one line, and the records that serve it are made from that line.

A parameter is what ADCore calls one, too: a named value of a port. Its name is that of its PV without ``_RBV``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from virtual_beamline.epics import ParameterDevice, RecordSpec

CHOICE_NAMES = "ZR ON TW TH FR FV SX SV EI NI TE EL TV TT FT FF".split()
"""How the 16 states of an mbbo are called; with ST they are fields of their names, with SV of their severities."""
TEXT_SIZE = 256


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; made by the functions below.

    Attributes:
        name: of the PV, without ``_RBV``.
        description: what it is; DESC of its records.
        default: its first value: a number, the index of a choice, text, or a sequence of numbers.
        setpoint: type of the record that clients write, or "".
        readback: type of the record that shows the value, or "".
        suffix: of the readback's name.
        fields: of all its records: units, choices, ...
    """

    name: str
    description: str
    default: Any
    setpoint: str
    readback: str
    suffix: str = "_RBV"
    fields: Mapping[str, object] = field(default_factory=dict)
    choices: tuple[str, ...] = ()

    def readonly(self, suffix: str = "_RBV") -> Parameter:
        """The same without a setpoint: clients can only read it; ``suffix`` "" for names as QueueFree."""
        return Parameter(
            self.name, self.description, self.default, "", self.readback, suffix, self.fields, self.choices
        )

    def write_only(self) -> Parameter:
        """The same without a readback."""
        return Parameter(self.name, self.description, self.default, self.setpoint, "", "", self.fields, self.choices)

    def starting_at(self, default: Any) -> Parameter:
        """The same with another default."""
        return Parameter(
            self.name,
            self.description,
            default,
            self.setpoint,
            self.readback,
            self.suffix,
            self.fields,
            self.choices,
        )

    def records(self, prefix: str) -> Iterator[RecordSpec]:
        """Its records."""
        device = {"DTYP": ParameterDevice.choice}
        if self.setpoint:
            link = "INP" if self.setpoint == "waveform" else "OUT"
            fields = {link: f"@{self.name}"} if self.setpoint == "busy" else {**device, link: f"@{self.name}"}
            if self.setpoint == "busy":  # a record type of ours, which finds its parameter by itself
                fields = {}
            yield RecordSpec(f"{prefix}{self.name}", self.setpoint, self.description, {**fields, **self.fields})
        if self.readback:
            limits = ("DRVL", "DRVH")
            fields = {name: value for name, value in self.fields.items() if name not in limits}
            yield RecordSpec(
                f"{prefix}{self.name}{self.suffix}",
                self.readback,
                self.description,
                {**device, "INP": f"@{self.name}", "SCAN": "I/O Intr", **fields},
            )


def number(name: str, default: float, description: str, units: str = "", precision: int = 3) -> Parameter:
    """A float: ao and ai."""
    return Parameter(name, description, default, "ao", "ai", fields={"EGU": units, "PREC": precision})


def integer(name: str, default: int, description: str, units: str = "") -> Parameter:
    """A whole number: longout and longin."""
    return Parameter(name, description, default, "longout", "longin", fields={"EGU": units})


def choice(
    name: str, choices: Sequence[str], default: int, description: str, severities: Mapping[int, str] | None = None
) -> Parameter:
    """One of up to 16 names: mbbo and mbbi."""
    fields: dict[str, object] = {f"{CHOICE_NAMES[index]}ST": text for index, text in enumerate(choices)}
    fields |= {f"{CHOICE_NAMES[index]}SV": severity for index, severity in (severities or {}).items()}
    return Parameter(name, description, default, "mbbo", "mbbi", fields=fields, choices=tuple(choices))


def switch(name: str, choices: tuple[str, str], default: int, description: str, **fields: str) -> Parameter:
    """One of two names: bo and bi. ``fields``: severities ZSV, OSV."""
    names = {"ZNAM": choices[0], "ONAM": choices[1], **fields}
    return Parameter(name, description, default, "bo", "bi", fields=names, choices=choices)


def command(name: str, choices: tuple[str, str], description: str) -> Parameter:
    """What goes on until it is done: busy (a put with completion waits for it) and bi."""
    return Parameter(
        name, description, 0, "busy", "bi", fields={"ZNAM": choices[0], "ONAM": choices[1]}, choices=choices
    )


def text(name: str, default: str, description: str) -> Parameter:
    """Text of up to 255 bytes: waveforms of CHAR."""
    return Parameter(name, description, default, "waveform", "waveform", fields={"FTVL": "CHAR", "NELM": TEXT_SIZE})


def string(name: str, default: str, description: str) -> Parameter:
    """Text of up to 39 bytes: stringout and stringin."""
    return Parameter(name, description, default, "stringout", "stringin")


def array(name: str, kind: str, elements: int, description: str) -> Parameter:
    """Up to ``elements`` numbers of ``kind`` (DOUBLE, LONG, ...), empty at first: waveforms.

    The value is a list, or a one-dimensional numpy array of exactly that type.
    """
    return Parameter(name, description, [], "waveform", "waveform", fields={"FTVL": kind, "NELM": elements})
