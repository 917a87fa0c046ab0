"""What EPICS records of every type have in common, by the attribute names of `apstools.synApps`."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from ophyd import Component, Device, DynamicDeviceComponent, EpicsSignal, EpicsSignalRO
from ophyd.device import create_device_from_components

CHANNEL_LETTERS = "ABCDEFGHIJKL"


class Record(Device):
    """Fields of all records."""

    description = Component(EpicsSignal, ".DESC", kind="config")
    processing_active = Component(EpicsSignalRO, ".PACT", kind="omitted")
    scanning_rate = Component(EpicsSignal, ".SCAN", kind="config")
    disable_value = Component(EpicsSignal, ".DISV", kind="config")
    scan_disable_input_link_value = Component(EpicsSignal, ".DISA", kind="config")
    scan_disable_value_input_link = Component(EpicsSignal, ".SDIS", kind="config")
    process_record = Component(EpicsSignal, ".PROC", kind="omitted", put_complete=True)
    forward_link = Component(EpicsSignal, ".FLNK", kind="config")
    trace_processing = Component(EpicsSignal, ".TPRO", kind="omitted")
    device_type = Component(EpicsSignalRO, ".DTYP", kind="config")

    alarm_status = Component(EpicsSignalRO, ".STAT", kind="config")
    alarm_severity = Component(EpicsSignalRO, ".SEVR", kind="config")
    new_alarm_status = Component(EpicsSignalRO, ".NSTA", kind="config")
    new_alarm_severity = Component(EpicsSignalRO, ".NSEV", kind="config")
    disable_alarm_severity = Component(EpicsSignal, ".DISS", kind="config")

    def _write(self, **values: Any) -> None:
        """Write fields, by attribute name."""
        for attr, value in values.items():
            getattr(self, attr).put(value)


class FloatRecord(Record):
    """Fields of records whose value is a number with alarm limits."""

    units = Component(EpicsSignal, ".EGU", kind="config")
    precision = Component(EpicsSignal, ".PREC", kind="config")
    monitor_deadband = Component(EpicsSignal, ".MDEL", kind="config")
    high_operating_range = Component(EpicsSignal, ".HOPR", kind="config")
    low_operating_range = Component(EpicsSignal, ".LOPR", kind="config")

    hihi_alarm_limit = Component(EpicsSignal, ".HIHI", kind="config")
    high_alarm_limit = Component(EpicsSignal, ".HIGH", kind="config")
    low_alarm_limit = Component(EpicsSignal, ".LOW", kind="config")
    lolo_alarm_limit = Component(EpicsSignal, ".LOLO", kind="config")
    hihi_alarm_severity = Component(EpicsSignal, ".HHSV", kind="config")
    high_alarm_severity = Component(EpicsSignal, ".HSV", kind="config")
    low_alarm_severity = Component(EpicsSignal, ".LSV", kind="config")
    lolo_alarm_severity = Component(EpicsSignal, ".LLSV", kind="config")
    alarm_hysteresis = Component(EpicsSignal, ".HYST", kind="config")


class Channel(Device):
    """One input of a calculation record; its class adds the signals `input_value` and `input_pv` at least."""

    input_value: Any
    input_pv: Any

    def __init__(self, prefix: str, letter: str, **kwargs: Any) -> None:
        self._letter = letter
        super().__init__(prefix, **kwargs)

    def reset(self) -> None:
        """Write the default values."""
        self.input_pv.put("")
        self.input_value.put(0)


def channels(channel: type[Channel]) -> DynamicDeviceComponent:
    """The twelve inputs of a calculation record, by letter."""
    return DynamicDeviceComponent(
        OrderedDict((letter, (channel, "", {"letter": letter})) for letter in CHANNEL_LETTERS)
    )


class _Bank(Device):
    lazy_wait_for_connection = False

    def reset(self) -> None:
        """Write the default values of every record."""
        for attr in self.component_names:
            if attr != "enable":
                getattr(self, attr).reset()


def bank(name: str, record: type[Device], attr: str, suffix: str, enable: Component, count: int = 20) -> type[Device]:
    """A class with the numbered records of a synApps database and what enables them all.

    The records are made at first use, and not waited for: a bank has thousands of PVs, of which a session uses a few.
    Reading the bank reads none of them (`bank.calc1` does), else `%ct` and `%wa`, which look for labels among all that
    a device reads, would make them all: seconds.

    Args:
        name: Of the class.
        record: The class of one record.
        attr: Attribute of a record, without its number.
        suffix: PV suffix of a record, without its number.
        enable: The component that enables them.
        count: How many there are.
    """
    records = {f"{attr}{n}": Component(record, f"{suffix}{n}", lazy=True, kind="omitted") for n in range(1, count + 1)}
    components: dict[str, Any] = {"enable": enable, **records}
    return create_device_from_components(name, base_class=_Bank, **components)
