"""An IOC of its own with the example record of virtual_beamline.epics' docstring, for test_epics.py.

Run as ``python -m tests.virtual_beamline.delay_ioc``: serves ``x:`` on free ports until its standard input ends.
"""

import gc
import logging
import os
import sys
from typing import ClassVar

from virtual_beamline import epics, server, supervisor
from virtual_beamline.epics import MINOR, STATUS_HIGH, Field, InputDevice, PutRefusedError, Record
from virtual_beamline.repeater import Repeater


class Delay(Record):
    """VAL becomes the setpoint REQ after DLY seconds; a put with completion to REQ ends then."""

    record_type = "delay"
    devices = ("Soft Channel",)
    interrupt_scan = True
    menus: ClassVar = {"delayMODE": ("Linear", "Jump")}
    fields = (
        Field("VAL", "DOUBLE", "Value", read_only=True),
        Field("REQ", "DOUBLE", "Setpoint", pp=True),
        Field("DLY", "DOUBLE", "Delay", initial="0.1"),
        Field("MODE", "MENU", "How to get there", menu="delayMODE", initial="Jump"),
        Field("STAE", "ENUM", "A state"),
        Field("WAVE", "DOUBLE", "Numbers", elements=5),
        Field("TEXT", "STRING", "Longer than a CA string", size=100),
        Field("INP", "INLINK", "Where REQ comes from if it is set"),
        Field("OUT", "OUTLINK", "Where VAL goes"),
        Field("COUN", "LONG", "How often it processed", read_only=True),
        Field("HOLD", "SHORT", "Stay active meanwhile"),
        Field("HIHI", "DOUBLE", "Highest"),
        Field("HIGH", "DOUBLE", "High"),
        Field("LOW", "DOUBLE", "Low"),
        Field("LOLO", "DOUBLE", "Lowest"),
        Field("HHSV", "MENU", "Severity", menu="menuAlarmSevr"),
        Field("HSV", "MENU", "Severity", menu="menuAlarmSevr"),
        Field("LSV", "MENU", "Severity", menu="menuAlarmSevr"),
        Field("LLSV", "MENU", "Severity", menu="menuAlarmSevr"),
        Field("HYST", "DOUBLE", "Hysteresis"),
        Field("LALM", "DOUBLE", "Last limit", read_only=True),
        Field("EGU", "STRING", "Units", size=16, is_property=True),
        Field("PREC", "SHORT", "Decimals", initial="3", is_property=True),
    )

    def init(self):
        self._call = None

    def enum_strings(self, field):
        return ("Calm", "Lively")

    def display_limits(self, field):
        return (-5.0, 5.0)

    def control_limits(self, field):
        return (-4.0, 4.0)

    def alarm_limits(self, field):
        return (self.LOLO, self.LOW, self.HIGH, self.HIHI)

    def before_put(self, field):
        if field == "PREC" and self.HOLD:
            raise PutRefusedError("not now")

    def after_put(self, field, old):
        if field == "DLY" and self.DLY < 0:
            raise PutRefusedError("negative delay")
        if field == "TEXT" and self.TEXT == "fail":
            raise RuntimeError("on purpose")
        if field == "STAE":
            self.request_scan()

    def process(self):
        self.set(COUN=self.COUN + 1)
        desired = self.get_link("INP")
        if desired is not None:
            self.REQ = desired
        if self.REQ == 666:
            raise RuntimeError("evil")
        if self._call:
            self._call.cancel()
        if self.HOLD:
            self.hold()
        self._call = self.call_later(self.DLY, self._arrive)

    def _arrive(self):
        self._call = None
        if self.REQ == 13:
            self.finish()
            raise RuntimeError("unlucky")
        self.VAL = self.REQ
        self.limit_alarm(self.VAL)
        if self.VAL > 1000:
            self.alarm(STATUS_HIGH, MINOR)
        self.put_link("OUT", self.VAL)
        self.finish("VAL")


DATABASE = """
record(delay, "x:delay") { field(EGU, "mm") field(FLNK, "x:after") }
record(calc, "x:after") { field(CALC, "VAL+1") }
record(ao, "x:target") {}
record(ao, "x:source") {}
record(calcout, "x:cp") { field(INPA, "x:delay.VAL CP") field(CALC, "A*10") field(OUT, "x:cpout PP") }
record(ao, "x:cpout") {}
"""
ANSWERS = """
record(ai, "x:answer") { field(DTYP, "Answers") field(INP, "@answer") }
record(stringin, "x:question") { field(DTYP, "Answers") field(INP, "@question") }
record(ai, "x:broken") { field(DTYP, "Answers") field(INP, "@nothing") }
"""

if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr)
    lease = supervisor.lease_ports()
    server._set_server_environment(lease, "127.0.0.1")
    Repeater("127.0.0.1", lease.repeater).start()
    sources = {"answer": lambda: 42, "question": lambda: "what is it?"}
    epics.boot(
        [Delay],
        DATABASE + ANSWERS,
        devices=[InputDevice(kind, "Answers", sources) for kind in ("ai", "stringin")],
    )
    gc.collect()  # what base points to is not garbage
    print(lease.environment("x").exports(), flush=True)
    sys.stdin.read()
    os._exit(0)
