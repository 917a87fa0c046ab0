"""How a record type declares its fields."""

from __future__ import annotations

import ctypes as C  # noqa: N812
from dataclasses import dataclass
from typing import Any

KINDS: tuple[str, ...] = tuple(
    (
        "STRING CHAR UCHAR SHORT USHORT LONG ULONG INT64 UINT64 FLOAT DOUBLE ENUM MENU DEVICE INLINK OUTLINK FWDLINK "
        "NOACCESS"
    ).split()
)
CTYPES: dict[str, Any] = {
    "CHAR": C.c_int8,
    "UCHAR": C.c_uint8,
    "SHORT": C.c_int16,
    "USHORT": C.c_uint16,
    "LONG": C.c_int32,
    "ULONG": C.c_uint32,
    "INT64": C.c_int64,
    "UINT64": C.c_uint64,
    "FLOAT": C.c_float,
    "DOUBLE": C.c_double,
    "ENUM": C.c_uint16,
    "MENU": C.c_uint16,
    "DEVICE": C.c_uint16,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record type.

    Attributes:
        name: at most 4 capital letters and digits by EPICS custom.
        kind: DBF type without its prefix, e.g. ``"DOUBLE"``.
        prompt: what it is, in a few words; ``virtual-beamline list`` and GUIs show it.
        initial: value in a new record, as text.
        pp: a put from outside processes the record.
        read_only: puts from outside are refused (SPC_NOMOD); the record's behaviour alone writes it.
        menu: name of the menu of a MENU field.
        size: bytes of a STRING field, its end mark included.
        is_property: a change is told to clients as DBE_PROPERTY (limits, units, precision).
        elements: above 0 makes an array of so many elements of this kind.
    """

    name: str
    kind: str
    prompt: str
    initial: str | None = None
    pp: bool = False
    read_only: bool = False
    menu: str = ""
    size: int = 40
    is_property: bool = False
    elements: int = 0

    def dbd(self) -> str:
        """This field's part of the record type's DBD text."""
        words = [f'prompt("{self.prompt}")', "asl(ASL0)"]
        if self.elements:
            words += [f'extra("void *{self.name.lower()}")', "special(SPC_DBADDR)"]
            words += ["pp(TRUE)"] if self.pp else []
            return f"  field({self.name}, DBF_NOACCESS) {{ {' '.join(words)} }}"
        words.append("special(SPC_NOMOD)" if self.read_only else "special(SPC_MOD)")
        if not self.read_only:
            words.append('promptgroup("40 - Input")')
        if self.kind == "STRING":
            words.append(f"size({self.size})")
        if self.kind == "MENU":
            words.append(f"menu({self.menu})")
        if self.initial is not None:
            words.append(f'initial("{self.initial}")')
        words += ["pp(TRUE)"] if self.pp else []
        words += ["prop(YES)"] if self.is_property else []
        return f"  field({self.name}, DBF_{self.kind}) {{ {' '.join(words)} }}"


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a field is in a record's memory."""

    offset: int
    kind: str
    size: int


def size_and_alignment(kind: str, declared_size: int, link_size: int) -> tuple[int, int]:
    """Bytes and alignment of a field in C."""
    if kind == "STRING":
        return declared_size, 1
    if kind.endswith("LINK"):
        return link_size, 8
    if kind == "NOACCESS":
        return 8, 8
    size = C.sizeof(CTYPES[kind])
    return size, size
