"""The busy record of synApps: a binary output whose processing is not complete while its value is 1.

Written from its documentation (epics-modules.github.io/busy/busyRecord.html): it is the bo record of EPICS base which
declines to process its forward link while VAL is "Busy", so that a put with completion waits until something sets VAL
to "Done" by a plain put. (As documented, that must not be a put with completion, which would wait for the first one.)
"""

from __future__ import annotations

from collections.abc import Sequence

from virtual_beamline.epics import INVALID, STATUS_STATE, Call, Field, Record

STATUS_COS = 8
RAW_SOFT_CHANNEL = 1
CLOSED_LOOP = 1
CONTINUE, DO_NOT_DRIVE, SET_TO_IVOV = range(3)


class Busy(Record):
    """See the module."""

    record_type = "busy"
    devices = ("Soft Channel", "Raw Soft Channel")
    fields = (
        Field("VAL", "ENUM", "Done or busy", pp=True),
        Field("OMSL", "MENU", "Whether DOL gives VAL", menu="menuOmsl"),
        Field("DOL", "INLINK", "Desired value"),
        Field("OUT", "OUTLINK", "Where VAL goes"),
        Field("HIGH", "DOUBLE", "Seconds until busy ends by itself"),
        Field("ZNAM", "STRING", "Name of state 0", initial="Done", size=26, is_property=True),
        Field("ONAM", "STRING", "Name of state 1", initial="Busy", size=26, is_property=True),
        Field("ZSV", "MENU", "Severity of state 0", menu="menuAlarmSevr"),
        Field("OSV", "MENU", "Severity of state 1", menu="menuAlarmSevr"),
        Field("COSV", "MENU", "Severity of a change", menu="menuAlarmSevr"),
        Field("MASK", "ULONG", "Raw value of state 1", read_only=True, initial="1"),
        Field("RVAL", "ULONG", "Raw value", read_only=True),
        Field("IVOA", "MENU", "What to do when invalid", menu="menuIvoa"),
        Field("IVOV", "USHORT", "What to write when invalid"),
        Field("LALM", "USHORT", "VAL of the last change", read_only=True),
    )

    def init(self) -> None:
        """Take VAL from DOL if that is a constant."""
        self._ending: Call | None = None
        constant = self.constant_link("DOL")
        if constant is not None:
            self.VAL = int(constant != 0)
        self.LALM = self.VAL

    def enum_strings(self, field: str) -> Sequence[str]:
        """ZNAM and ONAM."""
        return (self.ZNAM, self.ONAM)

    def process(self) -> None:
        """Write the output; complete only if VAL is "Done"."""
        if self.OMSL == CLOSED_LOOP:
            desired = self.get_link("DOL")
            if desired is not None:
                self.VAL = int(desired != 0)
        self.VAL = int(self.VAL != 0)
        self._raise_alarms()
        self.set(RVAL=self.MASK if self.VAL else 0)
        self._write()
        self._end_after_high()
        self.publish("VAL")
        if not self.VAL:
            self.complete()

    def _raise_alarms(self) -> None:
        self.alarm(STATUS_STATE, self.OSV if self.VAL else self.ZSV)
        if self.VAL != self.LALM:
            self.alarm(STATUS_COS, self.COSV)
            self.LALM = self.VAL

    def _write(self) -> None:
        if self.NSEV == INVALID:
            if self.IVOA == DO_NOT_DRIVE:
                return
            if self.IVOA == SET_TO_IVOV:
                self.VAL = int(self.IVOV != 0)
        self.put_link("OUT", self.RVAL if self.DTYP == RAW_SOFT_CHANNEL else self.VAL)

    def _end_after_high(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        if self.VAL and self.HIGH > 0:
            self._ending = self.call_later(self.HIGH, self._end)

    def _end(self) -> None:
        self._ending = None
        self.VAL = 0
        self.process()
