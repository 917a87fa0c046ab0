"""Device support in Python for input records of base: where an ai or stringin gets its value from."""

from __future__ import annotations

import ctypes as C  # noqa: N812
import logging
from collections.abc import Callable, Mapping
from typing import Any

from virtual_beamline.epics._base import Link, ProcessFunction, base

logger = logging.getLogger("virtual_beamline")

_FUNCTIONS = 6  # report, init, init_record, get_ioint_info, read, special_linconv (of ai only)
_NO_CONVERSION = 2
_INVALID_READ = (1, 3)  # STATUS_READ, INVALID

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
