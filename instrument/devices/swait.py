"""The synApps swait records `userCalc1` ... `userCalc20`, by the attribute names of `apstools.synApps`."""

from __future__ import annotations

from typing import Any

from ophyd import Component, EpicsSignal, FormattedComponent

from instrument.devices.records import CHANNEL_LETTERS, Channel, Record, bank, channels


class SwaitChannel(Channel):
    """One input of a swait record: a value, and the PV that it comes from."""

    input_value = FormattedComponent(EpicsSignal, "{self.prefix}.{self._letter}", kind="config")
    input_pv = FormattedComponent(EpicsSignal, "{self.prefix}.IN{self._letter}N", kind="config")
    input_trigger = FormattedComponent(EpicsSignal, "{self.prefix}.IN{self._letter}P", kind="config")

    def reset(self) -> None:
        """Write the default values."""
        super().reset()
        self.input_trigger.put("Yes")


class SwaitRecord(Record):
    """A swait record: an expression of twelve inputs."""

    precision = Component(EpicsSignal, ".PREC", kind="config")
    high_operating_range = Component(EpicsSignal, ".HOPR", kind="config")
    low_operating_range = Component(EpicsSignal, ".LOPR", kind="config")

    calculated_value = Component(EpicsSignal, ".VAL", kind="hinted")
    calculation = Component(EpicsSignal, ".CALC", kind="config")

    output_link_pv = Component(EpicsSignal, ".OUTN", kind="config")
    output_location_name = Component(EpicsSignal, ".DOLN", kind="config")
    output_location_data = Component(EpicsSignal, ".DOLD", kind="config")
    output_data_option = Component(EpicsSignal, ".DOPT", kind="config")
    output_execute_option = Component(EpicsSignal, ".OOPT", kind="config")
    output_execution_delay = Component(EpicsSignal, ".ODLY", kind="config")
    event_to_issue = Component(EpicsSignal, ".OEVT", kind="config")

    channels = channels(SwaitChannel)

    @property
    def value(self) -> Any:
        """The result of the calculation."""
        return self.calculated_value.get()

    def reset(self) -> None:
        """Write the default values: an unused record."""
        self._write(
            scanning_rate="Passive",
            description=self.prefix,
            calculation="0",
            precision=5,
            output_location_data=0,
            output_location_name="",
            output_data_option="Use VAL",
            forward_link="",
            output_execution_delay=0,
            output_execute_option="Every Time",
            output_link_pv="",
        )
        for letter in CHANNEL_LETTERS:
            getattr(self.channels, letter).reset()


class UserCalc(SwaitRecord):
    """One `userCalc`, with its own enable switch."""

    enable = Component(EpicsSignal, "Enable", kind="config")

    def reset(self) -> None:
        """Write the default values, and enable the record."""
        self.enable.put("Enable")
        super().reset()


class UserCalcs(
    bank("UserCalcBank", UserCalc, "calc", "userCalc", Component(EpicsSignal, "userCalcEnable", kind="config"))
):
    """All `userCalc` records of an IOC: `calcs.calc1` ... `calcs.calc20`."""
