"""EPICS base as ctypes sees it: the libraries, the functions that we call, and mirrors of its structures.

Nothing is loaded at import: :meth:`EpicsBase.load` does it, in the IOC's process only.
The mirrors fit one release of ``epicscorelibs``, so that another one is refused before it can corrupt memory.
"""

from __future__ import annotations

import ctypes as C  # noqa: N812  (every line below names it)
import importlib.metadata
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

SUPPORTED_VERSION = "7.0.10.99.0.2"

DBE_VALUE, DBE_LOG, DBE_ALARM, DBE_PROPERTY = 1, 2, 4, 8
DBR_STRING, DBR_LONG, DBR_DOUBLE = 0, 5, 10


class EpicsBaseError(RuntimeError):
    """EPICS base is missing, of another release than our structures fit, or refused a request."""


class EllNode(C.Structure):
    _fields_ = [("next", C.c_void_p), ("previous", C.c_void_p)]


class EllList(C.Structure):
    _fields_ = [("node", EllNode), ("count", C.c_int)]


class FieldDescription(C.Structure):
    """``dbFldDes`` of dbBase.h."""

    _fields_ = [
        ("prompt", C.c_char_p),
        ("name", C.c_char_p),
        ("extra", C.c_char_p),
        ("record_type", C.c_void_p),
        ("index", C.c_short),
        ("special", C.c_short),
        ("field_type", C.c_int),
        ("bits", C.c_uint),
        ("base", C.c_int),
        ("promptgroup", C.c_short),
        ("interest", C.c_short),
        ("as_level", C.c_int),
        ("initial", C.c_char_p),
        ("private", C.c_void_p),
        ("size", C.c_short),
        ("offset", C.c_ushort),
    ]


class RecordTypeDescription(C.Structure):
    """``dbRecordType`` of dbBase.h."""

    _fields_ = [
        ("node", EllNode),
        ("attributes", EllList),
        ("records", EllList),
        ("devices", EllList),
        ("definitions", EllList),
        ("name", C.c_char_p),
        ("field_count", C.c_short),
        ("prompt_count", C.c_short),
        ("link_count", C.c_short),
        ("alias_count", C.c_short),
        ("link_indices", C.c_void_p),
        ("sorted_names", C.c_void_p),
        ("sorted_indices", C.c_void_p),
        ("value_field", C.c_void_p),
        ("value_index", C.c_short),
        ("field_pointers", C.POINTER(C.POINTER(FieldDescription))),
        ("support", C.c_void_p),
        ("record_size", C.c_int),
    ]

    def fields(self) -> list[FieldDescription]:
        """The descriptions of all fields, in the order of the declaration."""
        return [self.field_pointers[index].contents for index in range(self.field_count)]


class Address(C.Structure):
    """``dbAddr`` of dbAddr.h."""

    _fields_ = [
        ("record", C.c_void_p),
        ("field", C.c_void_p),
        ("description", C.POINTER(FieldDescription)),
        ("element_count", C.c_long),
        ("field_type", C.c_short),
        ("field_size", C.c_short),
        ("special", C.c_short),
        ("request_type", C.c_short),
    ]


class Entry(C.Structure):
    """``DBENTRY`` of dbStaticLib.h; only the beginning is used, the rest is room."""

    _fields_ = [("pdbbase", C.c_void_p), ("record_type", C.POINTER(RecordTypeDescription)), ("rest", C.c_char * 512)]


class PvLink(C.Structure):
    """``struct pv_link`` of link.h."""

    _fields_ = [
        ("backlink", EllNode),
        ("name", C.c_void_p),
        ("private", C.c_void_p),
        ("conversion", C.c_void_p),
        ("mask", C.c_short),
        ("last_type", C.c_short),
    ]


class Link(C.Structure):
    """``struct link`` of link.h; its union is as large as its largest member, ``pv_link``."""

    _fields_ = [
        ("record", C.c_void_p),
        ("type", C.c_short),
        ("flags", C.c_ushort),
        ("support", C.c_void_p),
        ("text", C.c_void_p),
        ("pv", PvLink),
    ]


class EnumStrings(C.Structure):
    """``struct dbr_enumStrs`` of dbAccessDefs.h."""

    _fields_ = [("count", C.c_uint32), ("padding", C.c_int32), ("strings", (C.c_char * 40) * 30)]


class RecordSupport(C.Structure):
    """``rset`` of recSup.h."""

    _fields_ = [("number", C.c_long)] + [
        (name, C.c_void_p)
        for name in (
            "report init init_record process special get_value cvt_dbaddr get_array_info put_array_info get_units "
            "get_precision get_enum_str get_enum_strs put_enum_str get_graphic_double get_control_double "
            "get_alarm_double"
        ).split()
    ]


class RecordTypeLocation(C.Structure):
    """``recordTypeLocation`` of registryRecordType.h."""

    _fields_ = [("support", C.c_void_p), ("size_offset", C.c_void_p)]


RECORD_SUPPORT_NUMBER = 17

# What base calls in us. ctypes callbacks take the GIL; base may hold a record's lock meanwhile, so every
# base function that can wait for such a lock is called through CDLL, which lets the GIL go.
SizeOffsetFunction = C.CFUNCTYPE(C.c_int, C.POINTER(RecordTypeDescription))
ProcessFunction = C.CFUNCTYPE(C.c_long, C.c_void_p)
InitFunction = C.CFUNCTYPE(C.c_long, C.c_void_p, C.c_int)
SpecialFunction = C.CFUNCTYPE(C.c_long, C.POINTER(Address), C.c_int)
AddressFunction = C.CFUNCTYPE(C.c_long, C.POINTER(Address))
GetArrayInfoFunction = C.CFUNCTYPE(C.c_long, C.POINTER(Address), C.POINTER(C.c_long), C.POINTER(C.c_long))
PutArrayInfoFunction = C.CFUNCTYPE(C.c_long, C.POINTER(Address), C.c_long)
AddressBufferFunction = C.CFUNCTYPE(C.c_long, C.POINTER(Address), C.c_void_p)
EnumStringsFunction = C.CFUNCTYPE(C.c_long, C.POINTER(Address), C.POINTER(EnumStrings))
PrecisionFunction = C.CFUNCTYPE(C.c_long, C.POINTER(Address), C.POINTER(C.c_long))
LimitsFunction = C.CFUNCTYPE(C.c_long, C.POINTER(Address), C.POINTER(C.c_double))
InterruptInfoFunction = C.CFUNCTYPE(C.c_long, C.c_int, C.c_void_p, C.POINTER(C.c_void_p))
LinkCallbackFunction = C.CFUNCTYPE(None, C.c_void_p)

_record, _pointer, _text = C.c_void_p, C.c_void_p, C.c_char_p
_DB_FUNCTIONS: dict[str, tuple[list[Any], Any]] = {
    "iocshRegisterCommon": ([], None),
    "dbLoadDatabase": ([_text, _text, _text], C.c_int),
    "registerAllRecordDeviceDrivers": ([_pointer], C.c_int),
    "dbLoadRecords": ([_text, _text], C.c_int),
    "callbackSetQueueSize": ([C.c_int], C.c_int),
    "scanOnceSetQueueSize": ([C.c_int], C.c_int),
    "iocInit": ([], C.c_int),
    "dbInitEntry": ([_pointer, _pointer], None),
    "dbFinishEntry": ([_pointer], None),
    "dbFindRecordType": ([_pointer, _text], C.c_long),
    "registerRecordTypes": ([_pointer, C.c_int, C.POINTER(_text), C.POINTER(RecordTypeLocation)], None),
    "registerDevices": ([_pointer, C.c_int, _pointer, _pointer], None),
    "dbValueSize": ([C.c_short], C.c_long),
    "dbNameToAddr": ([_text, C.POINTER(Address)], C.c_long),
    "dbGetField": ([C.POINTER(Address), C.c_short, _pointer, _pointer, _pointer, _pointer], C.c_long),
    "dbPutField": ([C.POINTER(Address), C.c_short, _pointer, C.c_long], C.c_long),
    "dbScanLock": ([_record], None),
    "dbScanUnlock": ([_record], None),
    "dbProcess": ([_record], C.c_long),
    "scanOnce": ([_record], C.c_int),
    "scanIoInit": ([_pointer], None),
    "scanIoRequest": ([_pointer], C.c_uint),
    "post_event": ([C.c_int], None),
    "db_post_events": ([_record, _pointer, C.c_uint], C.c_int),
    "recGblFwdLink": ([_record], None),
    "recGblGetTimeStamp": ([_record], None),
    "recGblResetAlarms": ([_record], C.c_ushort),
    "recGblSetSevr": ([_record, C.c_int, C.c_int], C.c_int),
    "recGblGetPrec": ([C.POINTER(Address), _pointer], None),
    "recGblGetGraphicDouble": ([C.POINTER(Address), _pointer], None),
    "recGblGetControlDouble": ([C.POINTER(Address), _pointer], None),
    "recGblGetAlarmDouble": ([C.POINTER(Address), _pointer], None),
    "dbGetLink": ([_pointer, C.c_short, _pointer, _pointer, _pointer], C.c_long),
    "dbPutLink": ([_pointer, C.c_short, _pointer, C.c_long], C.c_long),
    "dbLoadLink": ([_pointer, C.c_short, _pointer], C.c_long),
    "dbLinkIsConstant": ([_pointer], C.c_int),
    "dbIsLinkConnected": ([_pointer], C.c_int),
    "dbCaAddLinkCallback": ([_pointer, LinkCallbackFunction, LinkCallbackFunction, _pointer], None),
    "dbCaRemoveLink": ([_pointer, _pointer], None),
    "dbCaGetLink": ([_pointer, C.c_short, _pointer, _pointer], C.c_long),
    "dbCaPutLinkCallback": ([_pointer, C.c_short, _pointer, C.c_long, LinkCallbackFunction, _pointer], C.c_long),
    "dbCaPutLink": ([_pointer, C.c_short, _pointer, C.c_long], C.c_long),
    "casStatsFetch": ([C.POINTER(C.c_uint), C.POINTER(C.c_uint)], None),
}
_COM_FUNCTIONS: dict[str, tuple[list[Any], Any]] = {
    "postfix": ([_text, _pointer, C.POINTER(C.c_short)], C.c_long),
    "calcPerform": ([_pointer, C.POINTER(C.c_double), _pointer], C.c_long),
    "calcArgUsage": ([_pointer, C.POINTER(C.c_ulong), C.POINTER(C.c_ulong)], C.c_long),
    "calcErrorStr": ([C.c_short], C.c_char_p),
    "epicsExitCallAtExits": ([], None),
    "epicsThreadIsSuspended": ([_pointer], C.c_int),
    "epicsThreadMap": ([_pointer], None),
}
# Pure computation, never waits: called without letting the GIL go, which saves two context switches.
_QUICK = {"recGblSetSevr", "calcPerform", "postfix", "dbLinkIsConstant", "calcErrorStr", "calcArgUsage"}


class EpicsBase:
    """The loaded libraries; one per process, :data:`base`."""

    iocshRegisterCommon: Callable[..., Any]  # noqa: N815  (base's own names)

    def __init__(self) -> None:
        self.loaded = False
        self.directory = Path()

    def load(self) -> None:
        """Load EPICS base.

        Raises:
            EpicsBaseError: ``epicscorelibs`` is missing or of another release than the mirrors fit.
        """
        if self.loaded:
            return
        # Found without importing it: its own import costs a quarter of a second (setuptools).
        specification = importlib.util.find_spec("epicscorelibs")
        if specification is None or specification.origin is None:
            msg = (
                f"EPICS base is missing: epicscorelibs is not installed; pip install epicscorelibs=={SUPPORTED_VERSION}"
            )
            raise EpicsBaseError(msg)
        found = importlib.metadata.version("epicscorelibs")
        if found != SUPPORTED_VERSION:
            msg = (
                f"EPICS base of epicscorelibs {found} is not supported: the virtual beamline's record types are laid "
                f"out for {SUPPORTED_VERSION} only; pip install epicscorelibs=={SUPPORTED_VERSION}"
            )
            raise EpicsBaseError(msg)
        self.directory = Path(specification.origin).parent
        com, db = self._library("Com"), self._library("dbCore")
        self._library("dbRecStd")
        quick_com = C.PyDLL(com._name)  # noqa: SLF001  (the path that it was loaded from)
        quick_db = C.PyDLL(db._name)  # noqa: SLF001
        for functions, normal, quick in ((_DB_FUNCTIONS, db, quick_db), (_COM_FUNCTIONS, com, quick_com)):
            for name, (arguments, result) in functions.items():
                function = getattr(quick if name in _QUICK else normal, name)
                function.argtypes, function.restype = arguments, result
                setattr(self, name, function)
        self._db = db
        self.loaded = True

    def _library(self, name: str) -> C.CDLL:
        return C.CDLL(str(self.directory / "lib" / f"lib{name}.so"), mode=C.RTLD_GLOBAL)

    def load_pvaccess(self) -> None:
        """Load the pvAccess server and QSRV, which serve the same records over pvAccess."""
        for name in ("pvAccessIOC", "qsrv"):
            self._library(name)

    def run_repeater(self) -> None:
        """Be the CA repeater of this host on $EPICS_CA_REPEATER_PORT; does not return."""
        self._library("ca")._Z11ca_repeaterv()  # noqa: SLF001  (C++ name; the C name is not exported)

    @property
    def version(self) -> str:
        """EPICS base's own name of its release, e.g. ``7.0.10.1-DEV``."""
        header = (self.directory / "include" / "epicsVersion.h").read_text()
        found = re.search(r'EPICS_VERSION_FULL\s+"([^"]+)"', header)
        return found.group(1) if found else SUPPORTED_VERSION

    @property
    def database(self) -> C.c_void_p:
        """``pdbbase``; set once a DBD file has been loaded."""
        return C.c_void_p.in_dll(self._db, "pdbbase")

    @property
    def dbd_directory(self) -> bytes:
        """Where base's own DBD files are."""
        return str(self.directory / "dbd").encode()

    def record_type(self, name: str) -> RecordTypeDescription:
        """What base knows of a record type.

        Raises:
            EpicsBaseError: there is no such record type.
        """
        entry = Entry()
        self.dbInitEntry(self.database, C.byref(entry))
        if self.dbFindRecordType(C.byref(entry), name.encode()):
            msg = f"EPICS base knows no record type {name}"
            raise EpicsBaseError(msg)
        return entry.record_type.contents

    def address(self, pv: str) -> Address | None:
        """Where a local PV is, or None."""
        address = Address()
        return None if self.dbNameToAddr(pv.encode(), C.byref(address)) else address

    def __getattr__(self, name: str) -> Any:
        msg = f"EPICS base function {name}: not declared, or EPICS base is not loaded in this process"
        raise AttributeError(msg)


base = EpicsBase()
