"""Record types in Python: one class declares the fields and implements the behaviour; one instance is one record."""

from __future__ import annotations

import ctypes as C  # noqa: N812
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from virtual_beamline.epics import _base as m
from virtual_beamline.epics._base import DBE_LOG, DBE_PROPERTY, DBE_VALUE, DBR_DOUBLE, DBR_STRING, base
from virtual_beamline.epics._clock import Call, clock
from virtual_beamline.epics._fields import CTYPES, KINDS, Field, Slot, size_and_alignment

logger = logging.getLogger("virtual_beamline")

NO_ALARM, MINOR, MAJOR, INVALID = range(4)
(
    STATUS_NONE,
    STATUS_READ,
    STATUS_WRITE,
    STATUS_HIHI,
    STATUS_HIGH,
    STATUS_LOLO,
    STATUS_LOW,
    STATUS_STATE,
    STATUS_COS,
    STATUS_COMM,
    STATUS_TIMEOUT,
    STATUS_HW_LIMIT,
    STATUS_CALC,
    STATUS_SCAN,
    STATUS_LINK,
    STATUS_SOFT,
) = range(16)

_REFUSED = -1
_UNITS_SIZE = 15


class PutRefusedError(Exception):
    """Raised by a record's behaviour: the put that came from outside is refused, the client is told that it failed."""


class Record:
    """One record; subclass it to make a record type (see the package's docstring for an example).

    Fields are attributes with capital names: reading gives the value in the record's memory, assigning writes it
    *without* telling clients; :meth:`set` does both. All of this needs the record's lock, which base holds while it
    calls the hooks below; elsewhere use ``with record.lock():``.
    """

    record_type: ClassVar[str] = ""
    menus: ClassVar[Mapping[str, Sequence[str]]] = {}
    fields: ClassVar[Sequence[Field]] = ()
    devices: ClassVar[Sequence[str]] = ()
    """Choices of DTYP, e.g. ``("Soft Channel",)``."""
    interrupt_scan: ClassVar[bool] = False
    """SCAN may be "I/O Intr"; :meth:`request_scan` then processes the record. Needs ``devices``."""

    layout: ClassVar[dict[str, Slot]]
    instances: ClassVar[dict[int, Record]]
    declared: ClassVar[dict[str, Field]]

    def __init__(self, address: int) -> None:
        put = super().__setattr__
        put("_address", address)
        put("_arrays", {})
        put("_counts", {})
        put("_old", {})
        put("_held", False)
        cells: dict[str, Any] = {}
        texts: dict[str, tuple[int, int]] = {}
        for name, slot in self.layout.items():
            if slot.kind in CTYPES:
                cells[name] = CTYPES[slot.kind].from_address(address + slot.offset)
            elif slot.kind == "STRING":
                texts[name] = (address + slot.offset, slot.size)
        put("_cells", cells)
        put("_texts", texts)
        for field in self.fields:
            if field.elements:
                self._arrays[field.name] = (CTYPES[field.kind] * field.elements)()
                self._counts[field.name] = 0
        self.name: str = self.NAME
        self._interrupts: C.c_void_p | None = None

    # -- what a record type implements -----------------------------------------------------------------------

    def init(self) -> None:
        """Called once before the IOC runs; links are resolved, no other record may be assumed initialised."""

    def started(self) -> None:
        """Called once under the lock when the IOC runs: the place to start what evolves in time."""

    def process(self) -> None:
        """Called when the record processes. Default: publish VAL, process the forward link.

        When the work is done, call :meth:`finish`, here or later (from :meth:`call_later`): puts with completion
        wait for it. Between, the record stays open for puts (PACT is 0, as with the motor record); call
        :meth:`hold` to make it refuse to process meanwhile (PACT is 1).
        """
        self.finish("VAL")

    def before_put(self, field: str) -> None:
        """A client is about to write ``field``; raise :class:`PutRefusedError` to refuse."""

    def after_put(self, field: str, old: Any) -> None:
        """A client has written ``field``, whose value was ``old`` (None for links and arrays).

        Raise :class:`PutRefusedError` to restore the old value and tell the client that the put failed.
        """

    def units(self, field: str) -> str:
        """Units of a field. Default: EGU, if there is one."""
        return self.EGU if "EGU" in self.layout else ""

    def precision(self, field: str) -> int:
        """Decimals to show of a float field. Default: PREC, if there is one."""
        return self.PREC if "PREC" in self.layout else 0

    def display_limits(self, field: str) -> tuple[float, float] | None:
        """Lowest and highest value to display; None: those of the field's type."""
        return None

    def control_limits(self, field: str) -> tuple[float, float] | None:
        """Lowest and highest value that can be written; None: as for display."""
        return self.display_limits(field)

    def alarm_limits(self, field: str) -> tuple[float, float, float, float] | None:
        """LOLO, LOW, HIGH, HIHI; None: NaN."""
        return None

    def enum_strings(self, field: str) -> Sequence[str]:
        """The states' names of an ENUM field."""
        return ()

    # -- field access ----------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        cell = self._cells.get(name)
        if cell is not None:
            return cell.value
        text = self._texts.get(name)
        if text is not None:
            return C.string_at(text[0]).decode("utf-8", "replace")
        if name in self._arrays:
            return self._arrays[name][: self._counts[name]]
        msg = f"record type {self.record_type} has no field {name}"
        raise AttributeError(msg)

    def __setattr__(self, name: str, value: Any) -> None:
        cell = self._cells.get(name)
        if cell is not None:
            cell.value = value
        elif name in self._texts:
            address, size = self._texts[name]
            encoded = value.encode("utf-8")[: size - 1]
            C.memmove(address, encoded + b"\0", len(encoded) + 1)
        elif name in self._arrays:
            count = min(len(value), len(self._arrays[name]))
            self._arrays[name][:count] = value[:count]
            self._counts[name] = count
        else:
            super().__setattr__(name, value)

    def field_address(self, field: str) -> int:
        """Where the field's value is in memory."""
        if field in self._arrays:
            return C.addressof(self._arrays[field])
        return self._address + self.layout[field].offset

    def set(self, *, mask: int = DBE_VALUE | DBE_LOG, **values: Any) -> None:
        """Write fields and post those that changed."""
        for name, value in values.items():
            before = getattr(self, name)
            setattr(self, name, value)
            if getattr(self, name) != before:
                base.db_post_events(self._address, self.field_address(name), mask)

    def post(self, *fields: str, mask: int = DBE_VALUE | DBE_LOG) -> None:
        """Tell clients the values of fields."""
        for name in fields:
            base.db_post_events(self._address, self.field_address(name), mask)

    def post_property(self, *fields: str) -> None:
        """Tell clients that units, precision or limits of fields changed."""
        self.post(*fields, mask=DBE_PROPERTY)

    # -- processing ------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the record's lock (dbScanLock); may be nested."""
        base.dbScanLock(self._address)
        try:
            yield
        finally:
            base.dbScanUnlock(self._address)

    def alarm(self, status: int, severity: int) -> None:
        """Raise an alarm; it takes effect with :meth:`finish` or :meth:`publish`, the most severe one wins."""
        base.recGblSetSevr(self._address, status, severity)

    def limit_alarm(self, value: float) -> None:
        """Raise the alarms of HIHI, HIGH, LOW, LOLO with severities HHSV, HSV, LSV, LLSV for ``value``.

        The alarm whose limit was last crossed (LALM) holds until ``value`` is HYST inside that limit.
        """
        last, hysteresis = self.LALM, self.HYST
        for limit, severity, status, sign in (
            (self.HIHI, self.HHSV, STATUS_HIHI, 1),
            (self.LOLO, self.LLSV, STATUS_LOLO, -1),
            (self.HIGH, self.HSV, STATUS_HIGH, 1),
            (self.LOW, self.LSV, STATUS_LOW, -1),
        ):
            over = sign * (value - limit)
            if severity and (over >= 0 or (last == limit and over >= -hysteresis)):
                self.alarm(status, severity)
                self.LALM = limit
                return
        self.LALM = value

    def publish(self, *fields: str, changed_only: bool = False) -> None:
        """Time stamp, alarms, and the fields' values to clients; the record goes on working."""
        base.recGblGetTimeStamp(self._address)
        alarm_mask = base.recGblResetAlarms(self._address)
        mask = alarm_mask if changed_only else alarm_mask | DBE_VALUE | DBE_LOG
        if mask:
            self.post(*fields, mask=mask)

    def finish(self, *fields: str) -> None:
        """End the processing: :meth:`publish`, forward link, completion of whoever waits for this record."""
        self.publish(*fields)
        self.complete()

    def complete(self) -> None:
        """Process the forward link and end the waiting of puts with completion."""
        self.PACT = 1  # as base's own records: a loop of forward links ends here
        base.recGblFwdLink(self._address)
        super().__setattr__("_held", False)
        self.PACT = 0

    def hold(self) -> None:
        """Called in :meth:`process`: stay active (PACT = 1) until :meth:`complete` or :meth:`finish`."""
        super().__setattr__("_held", True)
        self.PACT = 1

    def call_later(self, delay: float, function: Callable[[], object]) -> Call:
        """Call ``function`` under the record's lock in ``delay`` seconds."""
        return clock.call_at(time.monotonic() + delay, self, function)

    def call_at(self, when: float, function: Callable[[], object]) -> Call:
        """Call ``function`` under the record's lock at ``when`` (:func:`time.monotonic`)."""
        return clock.call_at(when, self, function)

    def request_process(self) -> None:
        """Have the record processed soon on base's own thread."""
        base.scanOnce(self._address)

    def request_scan(self) -> None:
        """Have the record processed soon if its SCAN is "I/O Intr"."""
        if self._interrupts is not None:
            base.scanIoRequest(self._interrupts)

    # -- links -----------------------------------------------------------------------------------------------

    def get_link(self, field: str) -> float | None:
        """Read through an INLINK; None: constant or empty link, or it failed (base has then raised a LINK alarm)."""
        value = C.c_double()
        link = self.field_address(field)
        if base.dbLinkIsConstant(link) or base.dbGetLink(link, DBR_DOUBLE, C.byref(value), None, None):
            return None
        return value.value

    def get_link_text(self, field: str) -> str | None:
        """Read text through an INLINK; None as for :meth:`get_link`."""
        buffer = C.create_string_buffer(40)
        link = self.field_address(field)
        if base.dbLinkIsConstant(link) or base.dbGetLink(link, DBR_STRING, buffer, None, None):
            return None
        return buffer.value.decode("utf-8", "replace")

    def constant_link(self, field: str) -> float | None:
        """The number of a link that is a constant; None if it is none."""
        value = C.c_double()
        return None if base.dbLoadLink(self.field_address(field), DBR_DOUBLE, C.byref(value)) else value.value

    def put_link(self, field: str, value: float | str) -> bool:
        """Write through an OUTLINK; False if it failed (base has then raised a LINK alarm)."""
        link = self.field_address(field)
        if base.dbLinkIsConstant(link):
            return True
        if isinstance(value, str):
            return not base.dbPutLink(link, DBR_STRING, C.create_string_buffer(value.encode()[:39], 40), 1)
        return not base.dbPutLink(link, DBR_DOUBLE, C.byref(C.c_double(value)), 1)

    def __repr__(self) -> str:
        return f"<{self.record_type} record {self.name}>"

    # -- called by base --------------------------------------------------------------------------------------

    def _on_process(self) -> None:
        if self.PACT:
            return
        self.PACT = 1
        try:
            self.process()
        except Exception:
            logger.exception("%s: processing failed", self.name)
            self.alarm(STATUS_SOFT, INVALID)
            self.finish()
        finally:
            if not self._held:
                self.PACT = 0

    def _on_special(self, field: str, after: bool) -> int:
        try:
            if not after:
                self.before_put(field)
                cell_or_text = field in self._cells or field in self._texts
                self._old[field] = getattr(self, field) if cell_or_text else None
                return 0
            old = self._old.pop(field, None)
            try:
                self.after_put(field, old)
            except PutRefusedError:
                if old is not None:
                    setattr(self, field, old)
                raise
        except PutRefusedError as refusal:
            logger.info("%s.%s: put refused: %s", self.name, field, refusal)
            return _REFUSED
        return 0

    def _interrupt_list(self) -> C.c_void_p:
        if self._interrupts is None:
            handle = C.c_void_p()
            base.scanIoInit(C.byref(handle))
            self._interrupts = handle
        return self._interrupts


_keep: list[Any] = []
"""What base points to must live as long as the process."""


def register(kind: type[Record]) -> None:
    """Make a record type known to base; its DBD text has been loaded (:func:`dbd_text`).

    Raises:
        EpicsBaseError: base does not lay out the way our mirrors say.
    """
    kind.layout = {}
    kind.instances = {}
    kind.declared = {field.name: field for field in kind.fields}
    common = {field.name: field for field in base.record_type("ai").fields()}
    link_size = common[b"FLNK"].size
    common_end = common[b"FLNK"].offset + link_size

    def size_offset(description_pointer: Any) -> int:
        description = description_pointer.contents
        offset = common_end
        for field in description.fields():
            kind_name = KINDS[field.field_type]
            known = common.get(field.name)
            if known is not None and known.offset < common_end:
                field.size, field.offset = known.size, known.offset
            else:
                size, alignment = size_and_alignment(kind_name, field.size, link_size)
                offset = (offset + alignment - 1) // alignment * alignment
                field.size, field.offset = size, offset
                offset += size
            # Interned, and kept so: setattr() would else put a new copy of the name into Python's table each time.
            kind.layout[sys.intern(field.name.decode())] = Slot(field.offset, kind_name, field.size)
        description.record_size = (offset + 15) // 16 * 16
        return 0

    support = RecordSupportBuilder(kind).build()
    size_offset_callback = m.SizeOffsetFunction(size_offset)
    location = (m.RecordTypeLocation * 1)()
    location[0].support = C.addressof(support)
    location[0].size_offset = C.cast(size_offset_callback, C.c_void_p).value
    names = (C.c_char_p * 1)(kind.record_type.encode())
    _keep.extend([support, size_offset_callback, location, names])
    if kind.devices:
        _register_devices(kind)
    base.registerRecordTypes(base.database, 1, names, location)


def dbd_text(kind: type[Record]) -> str:
    """The DBD text that declares a record type."""
    lines = []
    for menu, choices in kind.menus.items():
        lines.append(f"menu({menu}) {{")
        lines += [f'  choice({menu}_{index}, "{choice}")' for index, choice in enumerate(choices)]
        lines.append("}")
    lines += [f"recordtype({kind.record_type}) {{", '  include "dbCommon.dbd"']
    lines += [field.dbd() for field in kind.fields]
    lines.append("}")
    lines += [
        f'device({kind.record_type}, CONSTANT, {_device_name(kind, choice)}, "{choice}")' for choice in kind.devices
    ]
    return "\n".join(lines) + "\n"


def _device_name(kind: type[Record], choice: str) -> str:
    return f"dev{kind.record_type.capitalize()}{''.join(filter(str.isalnum, choice))}"


def _register_devices(kind: type[Record]) -> None:
    """Device support whose only duty is to know the list of records that "I/O Intr" processes."""

    @m.InterruptInfoFunction
    def interrupt_info(detach: int, address: int, result: Any) -> int:
        result[0] = kind.instances[address]._interrupt_list().value  # noqa: SLF001  (this module's own class)
        return 0

    count = len(kind.devices)
    names, tables = (C.c_char_p * count)(), (C.c_void_p * count)()
    for index, choice in enumerate(kind.devices):
        table = (C.c_void_p * 8)()
        table[0] = 5  # number of functions: report, init, init_record, get_ioint_info, one of the type's own
        if kind.interrupt_scan:
            table[4] = C.cast(interrupt_info, C.c_void_p).value
        names[index], tables[index] = _device_name(kind, choice).encode(), C.addressof(table)
        _keep.append(table)
    _keep.extend([interrupt_info, names, tables])
    base.registerDevices(base.database, count, names, tables)


class RecordSupportBuilder:
    """The functions (rset) through which base reaches the Python class."""

    def __init__(self, kind: type[Record]) -> None:
        self.kind = kind
        self.table = m.RecordSupport()
        self.table.number = m.RECORD_SUPPORT_NUMBER

    def build(self) -> m.RecordSupport:
        """Fill the table."""
        self._add("init_record", m.InitFunction, self._init_record)
        self._add("process", m.ProcessFunction, self._process)
        self._add("special", m.SpecialFunction, self._special)
        self._add("get_units", m.AddressBufferFunction, self._get_units)
        self._add("get_precision", m.PrecisionFunction, self._get_precision)
        self._add("get_graphic_double", m.LimitsFunction, self._get_graphic)
        self._add("get_control_double", m.LimitsFunction, self._get_control)
        self._add("get_alarm_double", m.LimitsFunction, self._get_alarm)
        if any(field.elements for field in self.kind.fields):
            self._add("cvt_dbaddr", m.AddressFunction, self._cvt_dbaddr)
            self._add("get_array_info", m.GetArrayInfoFunction, self._get_array_info)
            self._add("put_array_info", m.PutArrayInfoFunction, self._put_array_info)
        if any(field.kind == "ENUM" for field in self.kind.fields):
            self._add("get_enum_str", m.AddressBufferFunction, self._get_enum_string)
            self._add("get_enum_strs", m.EnumStringsFunction, self._get_enum_strings)
            self._add("put_enum_str", m.AddressBufferFunction, self._put_enum_string)
        return self.table

    def _add(self, name: str, prototype: Callable[..., Any], function: Callable[..., int]) -> None:
        def guarded(*arguments: Any) -> int:
            try:
                return function(*arguments)
            except Exception:
                first = arguments[0]
                address = first if isinstance(first, int) else first.contents.record
                record = self.kind.instances.get(address)
                who = record.name if record is not None else f"a {self.kind.record_type} record"
                logger.exception("%s: %s failed", who, name)
                return -1

        callback = prototype(guarded)
        _keep.append(callback)
        setattr(self.table, name, C.cast(callback, C.c_void_p).value)

    def _target(self, address_pointer: Any) -> tuple[Record, str]:
        address = address_pointer.contents
        return self.kind.instances[address.record], address.description.contents.name.decode()

    def _init_record(self, address: int, stage: int) -> int:
        if stage == 0:
            self.kind.instances[address] = self.kind(address)
            return 0
        record = self.kind.instances[address]
        # A record that nothing has processed yet is not broken: EpicsMotor refuses to move one in alarm.
        record.UDF = record.STAT = record.SEVR = 0
        record.init()
        return 0

    def _process(self, address: int) -> int:
        self.kind.instances[address]._on_process()  # noqa: SLF001
        return 0

    def _special(self, address_pointer: Any, after: int) -> int:
        record, field = self._target(address_pointer)
        return record._on_special(field, bool(after))  # noqa: SLF001

    def _get_units(self, address_pointer: Any, buffer: int) -> int:
        record, field = self._target(address_pointer)
        text = record.units(field).encode()[:_UNITS_SIZE]
        C.memmove(buffer, text + b"\0", len(text) + 1)
        return 0

    def _get_precision(self, address_pointer: Any, result: Any) -> int:
        record, field = self._target(address_pointer)
        if field in self.kind.declared:
            result[0] = record.precision(field)
        else:
            base.recGblGetPrec(address_pointer, result)
        return 0

    def _get_graphic(self, address_pointer: Any, result: Any) -> int:
        record, field = self._target(address_pointer)
        limits = record.display_limits(field)
        if limits is None:
            base.recGblGetGraphicDouble(address_pointer, result)
        else:
            result[1], result[0] = limits
        return 0

    def _get_control(self, address_pointer: Any, result: Any) -> int:
        record, field = self._target(address_pointer)
        limits = record.control_limits(field)
        if limits is None:
            base.recGblGetControlDouble(address_pointer, result)
        else:
            result[1], result[0] = limits
        return 0

    def _get_alarm(self, address_pointer: Any, result: Any) -> int:
        record, field = self._target(address_pointer)
        limits = record.alarm_limits(field)
        if limits is None:
            base.recGblGetAlarmDouble(address_pointer, result)
        else:
            result[3], result[2], result[1], result[0] = limits
        return 0

    def _cvt_dbaddr(self, address_pointer: Any) -> int:
        record, field = self._target(address_pointer)
        address, declared = address_pointer.contents, self.kind.declared[field]
        address.field = record.field_address(field)
        address.element_count = declared.elements
        address.field_type = address.request_type = KINDS.index(declared.kind)
        address.field_size = C.sizeof(CTYPES[declared.kind])
        address.special = 1 if declared.read_only else 100  # SPC_NOMOD, SPC_MOD of special.h
        return 0

    def _get_array_info(self, address_pointer: Any, count: Any, offset: Any) -> int:
        record, field = self._target(address_pointer)
        count[0], offset[0] = record._counts[field], 0  # noqa: SLF001
        return 0

    def _put_array_info(self, address_pointer: Any, count: int) -> int:
        record, field = self._target(address_pointer)
        record._counts[field] = count  # noqa: SLF001
        return 0

    def _get_enum_string(self, address_pointer: Any, buffer: int) -> int:
        record, field = self._target(address_pointer)
        strings: list[str] = list(record.enum_strings(field))
        value: int = getattr(record, field)
        text = (strings[value] if value < len(strings) else str(value)).encode()[:39]
        C.memmove(buffer, text + b"\0", len(text) + 1)
        return 0

    def _get_enum_strings(self, address_pointer: Any, result: Any) -> int:
        record, field = self._target(address_pointer)
        strings = list(record.enum_strings(field))
        result.contents.count = len(strings)
        for index, text in enumerate(strings):
            result.contents.strings[index].value = text.encode()[:25]
        return 0

    def _put_enum_string(self, address_pointer: Any, buffer: int) -> int:
        record, field = self._target(address_pointer)
        text = C.string_at(buffer).decode("utf-8", "replace")
        strings: list[str] = list(record.enum_strings(field))
        if text not in strings:
            return _REFUSED
        setattr(record, field, strings.index(text))
        return 0
