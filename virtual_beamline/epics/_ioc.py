"""Boot of EPICS base with our record types, and the self-check of the memory layout."""

from __future__ import annotations

import ctypes as C  # noqa: N812
import logging
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

from virtual_beamline.epics._base import (
    DBR_DOUBLE,
    DBR_STRING,
    SUPPORTED_VERSION,
    EllList,
    EpicsBaseError,
    Link,
    RecordTypeDescription,
    base,
)
from virtual_beamline.epics._device import InputDevice, ParameterDevice
from virtual_beamline.epics._fields import CTYPES
from virtual_beamline.epics._record import Record, dbd_text, register

logger = logging.getLogger("virtual_beamline")

CALLBACK_QUEUE = 50_000
"""Base's default of 2000 overflows when many motors report at once."""

# What qsrv.dbd and PVAServerRegister.dbd say, without the pvAccess links between records: their client would listen on
# all interfaces.
_PVACCESS = """
registrar(QSRVRegistrar)
registrar(registerStartPVAServer)
include "PVACommonRegister.dbd"
"""

# dbCommon.dbd in the supported release: the beginning of every record type.
_COMMON_FIELDS = (
    "NAME DESC ASG SCAN PINI PHAS EVNT TSE TSEL DTYP DISV DISA SDIS MLOK MLIS BKLNK DISP PROC STAT SEVR AMSG NSTA NSEV "
    "NAMSG ACKS ACKT DISS LCNT PACT PUTF RPRO ASP PPN PPNR SPVT RSET DSET DPVT RDES LSET PRIO TPRO BKPT "
    "UDF UDFS TIME UTAG FLNK"
).split()


def boot(
    kinds: Sequence[type[Record]],
    database_text: str,
    *,
    pvaccess: bool = False,
    devices: Sequence[InputDevice | ParameterDevice] = (),
) -> None:
    """Load EPICS base, the record types and the database, and start serving.

    Args:
        kinds: our record types.
        database_text: ``record(...) {...}`` text.
        pvaccess: serve pvAccess too.
        devices: device support for record types of base.

    Raises:
        EpicsBaseError: base is unsuitable or refuses the definitions or the database; its own lines are on stderr.
    """
    base.load()
    if pvaccess:
        base.load_pvaccess()
    base.iocshRegisterCommon()
    _require(base.dbLoadDatabase(b"base.dbd", base.dbd_directory, None) == 0, "cannot load base.dbd")
    if pvaccess:
        _load_definitions(_PVACCESS, "pvAccess")
    _require(base.registerAllRecordDeviceDrivers(base.database) == 0, "cannot register its record types")
    check_mirrors()
    for kind in kinds:
        _load_definitions(dbd_text(kind), f"record type {kind.record_type}")
        register(kind)
    for device in devices:
        _load_definitions(device.dbd(), f"device {device.choice}")
        device.register()
    with tempfile.NamedTemporaryFile("w", suffix=".db") as file:
        file.write(database_text)
        file.flush()
        _require(base.dbLoadRecords(file.name.encode(), None) == 0, "refuses the database")
    for kind in kinds:
        for record in list(_records(kind)):
            check_layout(kind, record)
            break
    base.callbackSetQueueSize(CALLBACK_QUEUE)
    base.scanOnceSetQueueSize(CALLBACK_QUEUE)
    _require(base.iocInit() == 0, "iocInit failed")
    for kind in kinds:
        for record in kind.instances.values():
            with record.lock():
                record.started()


def _require(condition: bool, what: str) -> None:
    if not condition:
        msg = f"EPICS base {what}; its own messages stand above"
        raise EpicsBaseError(msg)


def _load_definitions(text: str, what: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".dbd") as file:
        file.write(text)
        file.flush()
        loaded = base.dbLoadDatabase(file.name.encode(), base.dbd_directory, None) == 0
    _require(loaded, f"refuses the definition of {what}")


def _records(kind: type[Record]) -> Iterable[str]:
    """Names of the records of a type; they exist as soon as the database is loaded."""
    node = base.record_type(kind.record_type).records.node.next
    while node:
        # dbRecordNode: ELLNODE node; void *precord; char *recordname
        yield (C.c_char_p.from_address(node + 24).value or b"").decode()
        node = C.c_void_p.from_address(node).value


def check_mirrors() -> None:
    """Compare our structures with a record type that base itself laid out.

    Raises:
        EpicsBaseError: they differ; nothing has been written to memory yet.
    """
    description = base.record_type("ai")
    names = [(field.name or b"").decode() for field in description.fields()[: len(_COMMON_FIELDS)]]
    problem = ""
    if names != _COMMON_FIELDS:
        problem = f"its common fields are {' '.join(names)}"
    else:
        fields = {field.name: field for field in description.fields()}
        offsets = [field.offset for field in description.fields()[: len(_COMMON_FIELDS)]]
        if offsets != sorted(offsets) or fields[b"NAME"].offset != 0 or fields[b"VAL"].offset <= offsets[-1]:
            problem = f"the offsets of its common fields are {offsets}"
        elif not offsets[-1] < description.record_size < 65536:
            problem = f"an ai record has {description.record_size} bytes"
        elif fields[b"FLNK"].size != C.sizeof(Link):
            problem = f"a link has {fields[b'FLNK'].size} bytes, not {C.sizeof(Link)}"
    if problem:
        msg = (
            f"EPICS base is not laid out as the virtual beamline needs ({problem}); "
            f"pip install --force-reinstall epicscorelibs=={SUPPORTED_VERSION}"
        )
        raise EpicsBaseError(msg)


def check_layout(kind: type[Record], record: str) -> None:
    """Compare where base finds each field of a record of ours with where we have put it.

    Raises:
        EpicsBaseError: they differ.
    """
    for field, slot in kind.layout.items():
        if slot.kind == "NOACCESS":
            continue
        address = base.address(f"{record}.{field}")
        size = base.dbValueSize(address.request_type) if address is not None and slot.kind in CTYPES else slot.size
        if address is None or (address.field - address.record, size) != (slot.offset, slot.size):
            found = "nowhere" if address is None else f"in {size} bytes at {address.field - address.record}"
            msg = (
                f"EPICS base finds {record}.{field} {found}, we have put it in {slot.size} bytes at {slot.offset}; "
                f"pip install --force-reinstall epicscorelibs=={SUPPORTED_VERSION}"
            )
            raise EpicsBaseError(msg)


def put_pv(pv: str, value: float | str) -> None:
    """Write a local PV as a client would.

    Raises:
        EpicsBaseError: there is no such PV or it refuses the value.
    """
    address = base.address(pv)
    buffer: Any
    if isinstance(value, str):
        request, buffer = DBR_STRING, C.create_string_buffer(value.encode()[:39], 40)
    else:
        request, buffer = DBR_DOUBLE, C.c_double(value)
    if address is None or base.dbPutField(C.byref(address), request, C.byref(buffer), 1):
        msg = f"cannot write {value!r} to {pv}: {'no such PV' if address is None else 'refused'}"
        raise EpicsBaseError(msg)


def get_pv(pv: str) -> float:
    """Read a local PV as a number.

    Raises:
        EpicsBaseError: there is no such PV or it is not readable as a number.
    """
    address, value, count = base.address(pv), C.c_double(), C.c_long(1)
    if address is None or base.dbGetField(C.byref(address), DBR_DOUBLE, C.byref(value), None, C.byref(count), None):
        msg = f"cannot read {pv}"
        raise EpicsBaseError(msg)
    return value.value


def record_count() -> int:
    """How many records base serves."""
    # dbBase: ELLLIST menuList, recordTypeList, ...; each list begins with a pointer to its first node
    count = 0
    node = C.c_void_p.from_address((base.database.value or 0) + C.sizeof(EllList)).value
    while node:
        description = RecordTypeDescription.from_address(node)
        count += description.records.count - description.alias_count
        node = C.c_void_p.from_address(node).value
    return count
