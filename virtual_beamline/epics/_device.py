"""Device support in Python for records of base: where an input gets its value from, where an output puts it."""

from __future__ import annotations

import ctypes as C  # noqa: N812
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from virtual_beamline.epics._base import InterruptInfoFunction, Link, ProcessFunction, base
from virtual_beamline.epics._fields import CTYPES
from virtual_beamline.epics._record import PutRefusedError

logger = logging.getLogger("virtual_beamline")

_FUNCTIONS = 6  # report, init, init_record, get_ioint_info, read, special_linconv (of ai only)
_NO_CONVERSION = 2
_INVALID_READ = (1, 3)  # STATUS_READ, INVALID
_INVALID_WRITE = (2, 3)  # STATUS_WRITE, INVALID

_registered: list[tuple[Any, ...]] = []
"""What base points to must live as long as the process: held here, not in a cycle that Python may collect."""


class InputDevice:
    """A choice of DTYP for one record type; its INP is ``@source``, and each processing reads that source."""

    def __init__(self, record_type: str, choice: str, sources: Mapping[str, Callable[[], Any]]) -> None:
        self.record_type = record_type
        self.choice = choice
        self.sources = sources
        self._fields: dict[bytes, tuple[int, int]] = {}

    @property
    def _symbol(self) -> str:
        return f"devPython{self.record_type.capitalize()}{''.join(filter(str.isalnum, self.choice))}"

    def dbd(self) -> str:
        """The DBD text that declares the choice."""
        return f'device({self.record_type}, INST_IO, {self._symbol}, "{self.choice}")\n'

    def register(self) -> None:
        """Make the choice known to base; its DBD text has been loaded."""
        fields = base.record_type(self.record_type).fields()
        self._fields = {field.name or b"": (field.offset, field.size) for field in fields}
        read = ProcessFunction(self._read)
        table = (C.c_void_p * (_FUNCTIONS + 1))()
        table[0] = _FUNCTIONS
        table[5] = C.cast(read, C.c_void_p).value
        names, tables = (C.c_char_p * 1)(self._symbol.encode()), (C.c_void_p * 1)(C.addressof(table))
        _registered.append((self, read, table, names, tables))
        base.registerDevices(base.database, 1, names, tables)

    def _read(self, record: int) -> int:
        try:
            self._write(record, self.sources[self._source(record)]())
        except Exception:
            name = C.string_at(record + self._fields[b"NAME"][0]).decode()
            logger.exception("%s: reading its device failed", name)
            base.recGblSetSevr(record, *_INVALID_READ)
            return -1
        return _NO_CONVERSION if self.record_type == "ai" else 0

    def _source(self, record: int) -> str:
        # instio is the first member of the union of struct link, the text after the @
        pointer = C.c_char_p.from_address(record + self._fields[b"INP"][0] + Link.pv.offset)
        return (pointer.value or b"").decode()

    def _write(self, record: int, value: Any) -> None:
        offset, size = self._fields[b"VAL"]
        if self.record_type == "ai":
            C.c_double.from_address(record + offset).value = value
        else:
            text = str(value).encode()[: size - 1]
            C.memmove(record + offset, text + b"\0", len(text) + 1)
        C.c_uint8.from_address(record + self._fields[b"UDF"][0]).value = 0


@dataclass(frozen=True, slots=True)
class _Kind:
    """How device support reaches the value of a record type of base."""

    field: str
    """Where the value is: VAL, the OVAL that an ao has limited, or BPTR, the buffer of a waveform."""
    ctype: Any
    """None: text of 40 bytes, or a waveform."""
    link: str
    result: int
    """What read or write returns when it is done; 2: there is nothing left to convert."""
    initialised: int
    """What init_record returns."""

    @property
    def is_output(self) -> bool:
        return self.link == "OUT"


_KINDS = {
    "ai": _Kind("VAL", C.c_double, "INP", _NO_CONVERSION, 0),
    "longin": _Kind("VAL", C.c_int32, "INP", 0, 0),
    "bi": _Kind("VAL", C.c_uint16, "INP", _NO_CONVERSION, 0),
    "mbbi": _Kind("VAL", C.c_uint16, "INP", _NO_CONVERSION, 0),
    "stringin": _Kind("VAL", None, "INP", 0, 0),
    "ao": _Kind("OVAL", C.c_double, "OUT", 0, _NO_CONVERSION),
    "longout": _Kind("VAL", C.c_int32, "OUT", 0, 0),
    "bo": _Kind("VAL", C.c_uint16, "OUT", 0, _NO_CONVERSION),
    "mbbo": _Kind("VAL", C.c_uint16, "OUT", 0, _NO_CONVERSION),
    "stringout": _Kind("VAL", None, "OUT", 0, 0),
    "waveform": _Kind("BPTR", None, "INP", 0, 0),
}
_FTVL = ("STRING", "CHAR", "UCHAR", "SHORT", "USHORT", "LONG", "ULONG", "INT64", "UINT64", "FLOAT", "DOUBLE", "ENUM")
"""menuFtype of base: what a waveform's elements are."""


class ParameterServer(Protocol):
    """What owns the values that records with :class:`ParameterDevice` show; ``record`` is a record's name."""

    def is_setpoint(self, record: str) -> bool:
        """Whether clients write it."""
        ...

    def value_of(self, record: str) -> Any:
        """The present value: a number, an index of choices, text, or for a waveform anything with a buffer."""

    def client_put(self, record: str, value: Any) -> None:
        """A client has put a value to an output record; raise :class:`PutRefusedError` to refuse."""


class ParameterDevice:
    """The choice "Parameter" of DTYP for one record type of base: Python owns the value, the record shows it.

    An input record reads it whenever it is processed (:meth:`publish` does that for one record), an output record
    writes it. A waveform is an output if the server says that it is a setpoint.
    """

    choice = "Parameter"

    def __init__(self, record_type: str, server: ParameterServer) -> None:
        self.record_type = record_type
        self._server = server
        self._kind = _KINDS[record_type]
        self._fields: dict[bytes, tuple[int, int]] = {}
        self._readback: set[int] = set()

    @property
    def _symbol(self) -> str:
        return f"devParameter{self.record_type.capitalize()}"

    def dbd(self) -> str:
        """The DBD text that declares the choice."""
        return f'device({self.record_type}, INST_IO, {self._symbol}, "{self.choice}")\n'

    def register(self) -> None:
        """Make the choice known to base; its DBD text has been loaded."""
        fields = base.record_type(self.record_type).fields()
        self._fields = {field.name or b"": (field.offset, field.size) for field in fields}
        handle = C.c_void_p()
        base.scanIoInit(C.byref(handle))

        @InterruptInfoFunction
        def interrupt_info(detach: int, address: int, result: Any) -> int:
            result[0] = handle.value  # SCAN is "I/O Intr", and publish() is what interrupts
            return 0

        initialise, transfer = ProcessFunction(self._initialise), ProcessFunction(self._transfer)
        table = (C.c_void_p * (_FUNCTIONS + 1))()
        table[0] = _FUNCTIONS
        table[3] = C.cast(initialise, C.c_void_p).value
        table[4] = C.cast(interrupt_info, C.c_void_p).value
        table[5] = C.cast(transfer, C.c_void_p).value
        names, tables = (C.c_char_p * 1)(self._symbol.encode()), (C.c_void_p * 1)(C.addressof(table))
        _registered.append((self, initialise, transfer, interrupt_info, handle, table, names, tables))
        base.registerDevices(base.database, 1, names, tables)

    def _name(self, record: int) -> str:
        return C.string_at(record + self._fields[b"NAME"][0]).decode()

    def _initialise(self, record: int) -> int:
        """A record shows its value, with a time and without an alarm, before anything has processed it."""
        try:
            self._show(record, self._server.value_of(self._name(record)))
            C.c_uint8.from_address(record + self._fields[b"UDF"][0]).value = 0
            for field in (b"STAT", b"SEVR"):
                C.c_uint16.from_address(record + self._fields[field][0]).value = 0
            base.recGblGetTimeStamp(record)
        except Exception:
            logger.exception("%s: no first value", self._name(record))
            return -1
        return self._kind.initialised

    def _transfer(self, record: int) -> int:
        name = self._name(record)
        is_output = self._server.is_setpoint(name) if self.record_type == "waveform" else self._kind.is_output
        writes = is_output and record not in self._readback
        try:
            if writes:
                self._server.client_put(name, self._value(record))
            else:
                self._show(record, self._server.value_of(name))
        except PutRefusedError as refusal:
            logger.info("%s: put refused: %s", name, refusal)
            base.recGblSetSevr(record, *_INVALID_WRITE)
            return -1
        except Exception:
            logger.exception("%s: %s failed", name, "writing" if writes else "reading")
            base.recGblSetSevr(record, *(_INVALID_WRITE if writes else _INVALID_READ))
            return -1
        C.c_uint8.from_address(record + self._fields[b"UDF"][0]).value = 0
        return self._kind.result

    def publish(self, record: int) -> None:
        """Have a record show the present value and tell its clients.

        Args:
            record: its address. The caller may hold the lock of no other record that waits for this one.
        """
        base.dbScanLock(record)
        try:
            self._readback.add(record)
            base.dbProcess(record)
        finally:
            self._readback.discard(record)
            base.dbScanUnlock(record)

    # -- the record's memory -------------------------------------------------------------------------------

    def _cell(self, record: int, ctype: Any, field: bytes) -> Any:
        return ctype.from_address(record + self._fields[field][0])

    def _elements(self, record: int) -> tuple[Any, int]:
        """Type and maximum number of a waveform's elements."""
        kind = _FTVL[self._cell(record, C.c_uint16, b"FTVL").value]
        return CTYPES[kind], self._cell(record, C.c_uint32, b"NELM").value

    def _value(self, record: int) -> Any:
        if self.record_type == "waveform":
            ctype, _ = self._elements(record)
            count = self._cell(record, C.c_uint32, b"NORD").value
            values = (ctype * count).from_address(self._cell(record, C.c_void_p, b"BPTR").value)
            if C.sizeof(ctype) == 1:
                return bytes(values).split(b"\0")[0].decode("utf-8", "replace")
            return list(values)
        if self._kind.ctype is None:
            return C.string_at(record + self._fields[b"VAL"][0]).decode("utf-8", "replace")
        return self._cell(record, self._kind.ctype, self._kind.field.encode()).value

    def _show(self, record: int, value: Any) -> None:
        if self.record_type == "waveform":
            self._show_elements(record, value)
        elif self._kind.ctype is None:
            offset, size = self._fields[b"VAL"]
            text = str(value).encode()[: size - 1]
            C.memmove(record + offset, text + b"\0", len(text) + 1)
        else:
            self._cell(record, self._kind.ctype, b"VAL").value = value
            if self.record_type == "ao":
                self._cell(record, self._kind.ctype, b"OVAL").value = value

    def _show_elements(self, record: int, value: Any) -> None:
        ctype, most = self._elements(record)
        if isinstance(value, str):
            data: Any = value.encode()[: most - 1] + b"\0"
            count = len(data)
        elif isinstance(value, list | tuple):
            count = min(len(value), most)
            data = (ctype * count)(*value[:count])
        else:  # a numpy array of the elements' own type
            count = min(value.size, most)
            data = value.ctypes.data
        C.memmove(self._cell(record, C.c_void_p, b"BPTR").value, data, count * C.sizeof(ctype))
        self._cell(record, C.c_uint32, b"NORD").value = count
