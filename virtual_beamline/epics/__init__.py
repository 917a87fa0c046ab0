'''EPICS record types written in Python, on real EPICS base.

A record type is a subclass of :class:`Record`: it declares its fields and implements its behaviour; one instance is
one record, and its fields are attributes with capital names. EPICS base does Channel Access, scanning, links, alarms,
menus, `$` long strings and completion. An example with asynchronous completion, a record that takes a while::

    class Delay(Record):
        """VAL becomes the setpoint REQ after DLY seconds; a put with completion to REQ ends then."""

        record_type = "delay"
        menus = {"delayMODE": ("Linear", "Jump")}
        fields = (
            Field("VAL", "DOUBLE", "Value", read_only=True),
            Field("REQ", "DOUBLE", "Setpoint", pp=True),             # pp: a put from outside processes the record
            Field("DLY", "DOUBLE", "Delay", initial="0.5"),
            Field("MODE", "MENU", "How to get there", menu="delayMODE"),
            Field("OUT", "OUTLINK", "Where VAL goes"),
            Field("EGU", "STRING", "Units", size=16, is_property=True),
            Field("PREC", "SHORT", "Decimals", initial="3", is_property=True),
        )

        def init(self):                        # before the IOC runs; started() is called when it does
            self._call = None                  # Python attributes: lower case, as many as you like

        def after_put(self, field, old):       # a client has written a field; before_put(field) exists too
            if field == "DLY" and self.DLY < 0:
                raise PutRefusedError("negative delay")          # the old value is restored, the client's put fails

        def process(self):
            if self._call:
                self._call.cancel()            # a new setpoint on the way redirects
            self._call = self.call_later(self.DLY, self._arrive)  # runs under the record's lock, on one common thread
            # No finish() here: the record stays busy for whoever waits (put with completion), but open for new puts.
            # self.hold() would set PACT until finish().

        def _arrive(self):
            self._call = None
            self.VAL = self.REQ                # writes memory; self.set(VAL=...) also posts it if it changed
            if self.VAL > 10:
                self.alarm(STATUS_HIGH, MINOR)
            self.put_link("OUT", self.VAL)
            self.finish("VAL")                 # time stamp, alarms, monitors of VAL, FLNK, completion

    boot([Delay], 'record(delay, "x:delay") {}')

Between, ``self.publish("VAL")`` tells clients a value on the way (time stamp, alarms, monitors) without completion.
Metadata hooks: units, precision, display_limits, control_limits, alarm_limits, enum_strings. ``limit_alarm(value)``
does HIHI..LOLO. Whatever a hook raises is logged with the record's name, and the record goes into INVALID alarm.
Hooks and timed calls hold the record's lock; other threads use ``with record.lock():``.
Clear of UDF/STAT/SEVR at init is done for every record.
'''

from virtual_beamline.epics._base import SUPPORTED_VERSION, EpicsBaseError, base
from virtual_beamline.epics._calc import CalcError, Expression, stir_random_numbers
from virtual_beamline.epics._clock import Call
from virtual_beamline.epics._database import RecordSpec
from virtual_beamline.epics._device import InputDevice, ParameterDevice, ParameterServer
from virtual_beamline.epics._fields import Field
from virtual_beamline.epics._ioc import boot, get_pv, put_pv, record_count
from virtual_beamline.epics._pvlink import PvNameLink
from virtual_beamline.epics._record import (
    INVALID,
    MAJOR,
    MINOR,
    NO_ALARM,
    STATUS_CALC,
    STATUS_COMM,
    STATUS_HIGH,
    STATUS_HIHI,
    STATUS_HW_LIMIT,
    STATUS_LINK,
    STATUS_LOLO,
    STATUS_LOW,
    STATUS_READ,
    STATUS_SOFT,
    STATUS_STATE,
    STATUS_TIMEOUT,
    STATUS_WRITE,
    PutRefusedError,
    Record,
)

__all__ = [
    "INVALID",
    "MAJOR",
    "MINOR",
    "NO_ALARM",
    "STATUS_CALC",
    "STATUS_COMM",
    "STATUS_HIGH",
    "STATUS_HIHI",
    "STATUS_HW_LIMIT",
    "STATUS_LINK",
    "STATUS_LOLO",
    "STATUS_LOW",
    "STATUS_READ",
    "STATUS_SOFT",
    "STATUS_STATE",
    "STATUS_TIMEOUT",
    "STATUS_WRITE",
    "SUPPORTED_VERSION",
    "CalcError",
    "Call",
    "EpicsBaseError",
    "Expression",
    "Field",
    "InputDevice",
    "ParameterDevice",
    "ParameterServer",
    "PutRefusedError",
    "PvNameLink",
    "Record",
    "RecordSpec",
    "base",
    "boot",
    "get_pv",
    "put_pv",
    "record_count",
    "stir_random_numbers",
]
