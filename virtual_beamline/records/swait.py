"""The swait record of synApps' calc module: an expression of PVs that are named at run time.

Written from its documentation (epics-modules.github.io/calc/swaitRecord.html) and from what apstools does with it.
Its inputs are Channel Access links to the PVs whose names are in INAN..INLN. While SCAN is "I/O Intr", a new value
of an input with INxP "Yes" processes the record. The output is written with completion: the forward link, and
whoever waits for this record, wait until everything is done that the output has started.
"""

from __future__ import annotations

from typing import Any, ClassVar

from virtual_beamline.epics import (
    INVALID,
    STATUS_CALC,
    STATUS_LINK,
    CalcError,
    Expression,
    Field,
    PvNameLink,
    Record,
    base,
)

LETTERS = "ABCDEFGHIJKL"
EVERY_TIME, ON_CHANGE, WHEN_ZERO, WHEN_NONZERO, TO_ZERO, TO_NONZERO, NEVER = range(7)
USE_VAL, USE_DOL = range(2)
IO_INTERRUPT = 2  # menuScan

_VALID, _INVALID_LINK = 0, 1


class Swait(Record):
    """See the module."""

    record_type = "swait"
    devices = ("Soft Channel",)
    interrupt_scan = True
    menus: ClassVar = {
        "swaitOOPT": (
            "Every Time",
            "On Change",
            "When Zero",
            "When Non-zero",
            "Transition To Zero",
            "Transition To Non-zero",
            "Never",
        ),
        "swaitDOPT": ("Use VAL", "Use DOL"),
        "swaitINAP": ("No", "Yes"),
    }
    fields = (
        Field("VAL", "DOUBLE", "Result of CALC"),
        Field("OVAL", "DOUBLE", "Result before this one", read_only=True),
        Field("CALC", "STRING", "Expression of A to L", initial="0", pp=True),
        Field("CLCV", "LONG", "CALC is invalid", read_only=True),
        *(Field(letter, "DOUBLE", f"Value of input {letter}", pp=True) for letter in LETTERS),
        *(Field(f"L{letter}", "DOUBLE", f"Value of input {letter} before", read_only=True) for letter in LETTERS),
        *(Field(f"IN{letter}N", "STRING", f"PV or number of input {letter}") for letter in LETTERS),
        *(
            Field(f"IN{letter}P", "MENU", f"A new {letter} processes", initial="Yes", menu="swaitINAP")
            for letter in LETTERS
        ),
        Field("OOPT", "MENU", "When to write the output", menu="swaitOOPT"),
        Field("ODLY", "FLOAT", "Seconds before the output is written"),
        Field("DOPT", "MENU", "What to write", menu="swaitDOPT"),
        Field("DOLN", "STRING", "PV of the desired output"),
        Field("DOLD", "DOUBLE", "Desired output"),
        Field("DOLV", "LONG", "DOLN is invalid", initial="1", read_only=True),
        Field("OUTN", "STRING", "PV of the output"),
        Field("OEVT", "USHORT", "Event to post with the output"),
        Field("HOPR", "FLOAT", "High operating range", is_property=True),
        Field("LOPR", "FLOAT", "Low operating range", is_property=True),
        Field("PREC", "SHORT", "Decimals to show", is_property=True),
        Field("MDEL", "DOUBLE", "Change of VAL that monitors hear of"),
        Field("ADEL", "DOUBLE", "Change of VAL that archivers hear of"),
        Field("MLST", "DOUBLE", "VAL that monitors last heard of", read_only=True),
        Field("ALST", "DOUBLE", "VAL that archivers last heard of", read_only=True),
    )

    def init(self) -> None:
        """Compile CALC."""
        self._expression: Expression | None = None
        self._inputs: dict[str, PvNameLink] = {}
        self._desired: PvNameLink | None = None
        self._output: PvNameLink | None = None
        self._posted = False
        self.OVAL = self.MLST = self.ALST = self.VAL
        self._compile()

    def started(self) -> None:
        """Connect the links."""
        for letter in LETTERS:
            self._connect_input(letter)
        self._connect_desired()
        self._connect_output()

    def display_limits(self, field: str) -> tuple[float, float] | None:
        """LOPR and HOPR for VAL and its like."""
        return (self.LOPR, self.HOPR) if field in {"VAL", "OVAL", "MLST", "ALST"} else None

    def after_put(self, field: str, old: Any) -> None:
        """A new expression or link takes effect at once."""
        if field == "CALC":
            self._compile()
        elif field == "DOLN":
            self._connect_desired()
        elif field == "OUTN":
            self._connect_output()
        elif len(field) == 4 and field.startswith("IN") and field.endswith("N"):
            self._connect_input(field[2])

    # -- processing ------------------------------------------------------------------------------------------

    def process(self) -> None:
        """Read the inputs, evaluate, write the output if it is due, maybe later."""
        self._fetch_inputs()
        if self.NSEV < INVALID:
            self._calculate()
        if not self._output_is_due():
            self._finish()
            return
        if self.ODLY > 0:
            self.hold()
            self._post_value()  # clients see the result before the delayed output
            self._posted = True
            self.call_later(self.ODLY, self._write_output)
        else:
            self._write_output()

    def _fetch_inputs(self) -> None:
        for letter, link in self._inputs.items():
            value = link.get()
            if value is None:
                self.alarm(STATUS_LINK, INVALID)
            else:
                setattr(self, letter, value)

    def _calculate(self) -> None:
        if self._expression is None:
            self.alarm(STATUS_CALC, INVALID)
            return
        try:
            value = self._expression.evaluate([getattr(self, letter) for letter in LETTERS], self.VAL)
        except CalcError:
            self.alarm(STATUS_CALC, INVALID)
            return
        for letter, operand in zip(LETTERS, self._expression.arguments, strict=False):  # CALC may assign: A:=B
            setattr(self, letter, operand)
        self.VAL = value

    def _output_is_due(self) -> bool:
        value, before = self.VAL, self.OVAL
        due = {
            EVERY_TIME: True,
            ON_CHANGE: value != before,
            WHEN_ZERO: value == 0,
            WHEN_NONZERO: value != 0,
            TO_ZERO: value == 0 and before != 0,
            TO_NONZERO: value != 0 and before == 0,
            NEVER: False,
        }[self.OOPT]
        self.OVAL = value
        return due

    def _write_output(self) -> None:
        value = self.VAL
        if self.DOPT == USE_DOL:
            desired = self._desired.get() if self._desired is not None else None
            self.set(DOLV=_INVALID_LINK if desired is None else _VALID)
            if desired is not None:
                self.set(DOLD=desired)
            value = self.DOLD
        if self.OEVT:
            base.post_event(self.OEVT)
        if self._output is None:
            self._finish()
        elif self._output.pv.split(".")[0] == self.name:  # one cannot wait for oneself
            self._finish_after_output(self._output.put(value))
        elif self._output.put_and_then(value, self._finish):
            self.hold()
        else:
            self._finish_after_output(False)

    def _finish_after_output(self, written: bool) -> None:
        if not written:
            self.alarm(STATUS_LINK, INVALID)
        self._finish()

    def _finish(self) -> None:
        if not self._posted or self.NSEV:
            self._post_value()
        self._posted = False
        self.complete()

    def _post_value(self) -> None:
        """Publish VAL within its deadbands, and the inputs that changed."""
        self.publish("VAL", changed_only=True)
        value = self.VAL
        for deadband, last, mask in (("MDEL", "MLST", 1), ("ADEL", "ALST", 2)):
            if not abs(value - getattr(self, last)) <= getattr(self, deadband):  # a NaN is a change
                setattr(self, last, value)
                self.post("VAL", mask=mask)
        for letter in LETTERS:
            now = getattr(self, letter)
            if now != getattr(self, f"L{letter}"):
                setattr(self, f"L{letter}", now)
                self.post(letter, f"L{letter}")

    # -- what clients change ---------------------------------------------------------------------------------

    def _compile(self) -> None:
        try:
            self._expression = Expression(self.CALC)
        except CalcError:
            self._expression = None
        self.set(CLCV=int(self._expression is None))

    def _connect_input(self, letter: str) -> None:
        old = self._inputs.pop(letter, None)
        if old is not None:
            old.close()
        text = getattr(self, f"IN{letter}N").strip()
        if not text:
            return
        number = _number(text)
        if number is None:
            self._inputs[letter] = PvNameLink(self, text, changed=lambda: self._input_changed(letter))
        else:
            setattr(self, letter, number)
            self.post(letter)

    def _input_changed(self, letter: str) -> None:
        if self.SCAN == IO_INTERRUPT and getattr(self, f"IN{letter}P"):
            self.request_scan()

    def _connect_desired(self) -> None:
        if self._desired is not None:
            self._desired.close()
            self._desired = None
        text = self.DOLN.strip()
        number = _number(text)
        if number is not None:
            self.set(DOLD=number)
        elif text:
            self._desired = PvNameLink(self, text, changed=self._check_desired, connected=self._check_desired)
        self.set(DOLV=_INVALID_LINK)

    def _check_desired(self) -> None:
        with self.lock():
            connected = self._desired is not None and self._desired.connected
            self.set(DOLV=_VALID if connected else _INVALID_LINK)

    def _connect_output(self) -> None:
        if self._output is not None:
            self._output.close()
            self._output = None
        text = self.OUTN.strip()
        if text and _number(text) is None:
            self._output = PvNameLink(self, text)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
