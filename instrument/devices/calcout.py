"""The calcout records `userCalcOut1` ... `userCalcOut20`, by the attribute names of `apstools.synApps`."""

from __future__ import annotations

from typing import Any

from ophyd import Component, EpicsSignal, EpicsSignalRO, FormattedComponent

from instrument.devices.records import CHANNEL_LETTERS, Channel, FloatRecord, bank, channels


class CalcoutChannel(Channel):
    """One input of a calcout record: a value, the one before it, and the PV that it comes from."""

    input_value = FormattedComponent(EpicsSignal, "{self.prefix}.{self._letter}", kind="config")
    last_value = FormattedComponent(EpicsSignalRO, "{self.prefix}.L{self._letter}", kind="config")
    input_pv = FormattedComponent(EpicsSignal, "{self.prefix}.INP{self._letter}", kind="config")
    input_pv_valid = FormattedComponent(EpicsSignalRO, "{self.prefix}.IN{self._letter}V", kind="config")


class CalcoutRecord(FloatRecord):
    """A calcout record: an expression of twelve inputs, and a second one for what is written elsewhere."""

    calculated_value = Component(EpicsSignal, ".VAL", kind="normal")
    calculation = Component(EpicsSignal, ".CALC", kind="config")

    output_pv = Component(EpicsSignal, ".OUT", kind="config")
    output_execute_option = Component(EpicsSignal, ".OOPT", kind="config")
    output_execution_delay = Component(EpicsSignal, ".ODLY", kind="config")
    output_data_option = Component(EpicsSignal, ".DOPT", kind="config")
    output_calculation = Component(EpicsSignal, ".OCAL", kind="config")
    output_value = Component(EpicsSignal, ".OVAL", kind="hinted")
    invalid_output_action = Component(EpicsSignal, ".IVOA", kind="config")
    invalid_output_value = Component(EpicsSignal, ".IVOV", kind="config")
    event_to_issue = Component(EpicsSignal, ".OEVT", kind="config")

    output_pv_status = Component(EpicsSignal, ".OUTV", kind="config")
    calculation_valid = Component(EpicsSignal, ".CLCV", kind="config")
    output_calculation_valid = Component(EpicsSignal, ".OCLV", kind="config")
    output_delay_active = Component(EpicsSignal, ".DLYA", kind="config")

    channels = channels(CalcoutChannel)

    @property
    def value(self) -> Any:
        """The result of the calculation."""
        return self.calculated_value.get()

    def reset(self) -> None:
        """Write the default values: an unused record."""
        self._write(
            scanning_rate="Passive",
            description=self.prefix,
            units="",
            precision=5,
            calculation="0",
            calculated_value=0,
            output_calculation="",
            output_value=0,
            forward_link="",
            output_pv="",
            invalid_output_action=0,
            invalid_output_value=0,
            output_execution_delay=0,
            output_execute_option=0,
            output_data_option=0,
        )
        for letter in CHANNEL_LETTERS:
            getattr(self.channels, letter).reset()


class UserCalcout(CalcoutRecord):
    """One `userCalcOut`, with its own enable switch."""

    enable = Component(EpicsSignal, "Enable", kind="config")

    def reset(self) -> None:
        """Write the default values, and enable the record."""
        self.enable.put("Enable")
        super().reset()


_ENABLE = Component(EpicsSignal, "userCalcOutEnable", kind="omitted")


class UserCalcouts(bank("UserCalcoutBank", UserCalcout, "calcout", "userCalcOut", _ENABLE)):
    """All `userCalcOut` records of an IOC: `calcouts.calcout1` ... `calcouts.calcout20`."""
