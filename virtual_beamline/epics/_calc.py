"""EPICS base's own expression engine."""

from __future__ import annotations

import ctypes as C  # noqa: N812
from collections.abc import Sequence

from virtual_beamline.epics._base import base

ARGUMENTS = 21  # CALCPERFORM_NARGS of postfix.h: A..U


class CalcError(ValueError):
    """The text is no expression; the message is base's own."""


class Expression:
    """A compiled CALC expression."""

    def __init__(self, text: str) -> None:
        """Compile.

        Raises:
            CalcError: ``text`` is no valid expression.
        """
        self.text = text
        encoded = text.encode("latin1", "replace")
        # Base sizes it 21 bytes per 6 characters (INFIX_TO_POSTFIX_SIZE), at least one constant's worth.
        self._code = C.create_string_buffer((len(encoded) + 2) * 21 // 6 + 32)
        error = C.c_short()
        if not encoded.strip() or base.postfix(encoded, self._code, C.byref(error)):
            reason = (base.calcErrorStr(error.value) or b"").decode() if encoded.strip() else "empty expression"
            raise CalcError(reason)
        self._arguments = (C.c_double * ARGUMENTS)()

    def evaluate(self, arguments: Sequence[float], previous: float) -> float:
        """The value for A, B, ...; ``previous`` is what the operand VAL stands for.

        Assignments (``A:=A+1``) stay visible in :attr:`arguments`.

        Raises:
            CalcError: base could not evaluate it.
        """
        self._arguments[: len(arguments)] = arguments  # type: ignore[assignment]  (ctypes takes any sequence)
        result = C.c_double(previous)
        if base.calcPerform(self._arguments, C.byref(result), self._code):
            msg = f"cannot evaluate {self.text!r}"
            raise CalcError(msg)
        return result.value

    @property
    def arguments(self) -> list[float]:
        """The operands after the last evaluation."""
        return list(self._arguments)


def stir_random_numbers(count: int) -> None:
    """Draw ``count`` (modulo 65536) numbers of RNDM, whose generator base starts with the same seed in each process."""
    draws, rest = divmod(count % 65536, 100)
    for number, times in ((100, draws), (rest, 1)):
        if number:
            expression = Expression("+".join(["RNDM"] * number))
            for _ in range(times):
                expression.evaluate((), 0.0)
