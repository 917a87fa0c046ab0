"""Where the motors are, and moving one of them by keys; the moves themselves are plans (`instrument.plans.moves`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instrument.config.errors import UserError
from instrument.devices.registry import path_of
from instrument.framework.positioners import LABEL, is_positioner
from instrument.plans.defaults import device_of

if TYPE_CHECKING:
    from instrument.session import Session

TWEAK_HELP = "Enter or + steps up, - steps down, a number is a new step, q ends"


class MotionCommands:
    """Where the motors are, and moving one of them by keys."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def wa(self) -> None:
        """Print where all motors are: user and dial position, limits, unit; of components, those labelled `motor`."""
        parts = self._session.oregistry.findall(label=LABEL, allow_none=True)
        self._print_positions(list(dict.fromkeys([*self._session.devices.values(), *parts])))

    def wm(self, *motors: Any) -> None:
        """Print where some motors are.

        Args:
            motors: Motors, or their names.

        Raises:
            UserError: There is no such motor.
        """
        if not motors:
            raise UserError("wm needs motors, as in wm m1 m2; wa shows all")
        chosen = [device_of(self._session.devices, motor) for motor in motors]
        for motor in chosen:
            if not is_positioner(motor):
                raise UserError(f"wm: {getattr(motor, 'name', motor)} has no position")
        self._print_positions(chosen)

    def tw(self, motor: Any, step: float = 0.1) -> None:
        """Move a motor step by step, by keys: Enter or + up, - down, a number is a new step, q ends.

        Args:
            motor: A motor, or its name.
            step: How far (the motor's unit).

        Raises:
            UserError: There is no such motor, or the step is no number.
        """
        from instrument.plans import checks, mvr

        motor = checks.motor_of("tw", device_of(self._session.devices, motor))
        step = checks.number("tw", "step", step)
        if not self._session.health.usable(motor):
            raise self._session.health.error(motor)
        print(TWEAK_HELP)
        while True:
            try:
                answer = input(f"{motor.name} {_number(motor.position)}, step {step:g}? ").strip()
            except (EOFError, KeyboardInterrupt):
                print()
                return
            if answer in ("q", "quit", "."):
                return
            try:
                if answer in ("", "+", "p", "-", "n"):
                    self._session.RE(mvr(motor, -step if answer in ("-", "n") else step))
                else:
                    step = checks.number("tw", "step", float(answer))
            except ValueError:
                print(f"{answer!r}: {TWEAK_HELP}")
            except UserError as error:
                print(error)

    def _print_positions(self, devices: list[Any]) -> None:
        import pyRestTable

        table = pyRestTable.Table()
        table.labels = ["motor", "user", "dial", "low", "high", "unit"]
        states = self._session.health.states
        for device in devices:
            known = states.get(getattr(device, "root", device).name)
            if known is not None and known.state != "connected":
                if is_positioner(device):
                    table.addRow((path_of(device), known.state, "", "", "", ""))
                continue
            if is_positioner(device):
                table.addRow((path_of(device), *_position_of(device)))
        print(table.reST(fmt="simple"), end="")


def _position_of(motor: Any) -> tuple[str, ...]:
    """User and dial position, limits, unit."""
    user = motor.position
    dial = ""
    if hasattr(motor, "user_offset"):
        # user = sign * dial + offset, as the motor record has it
        sign = -1.0 if motor.user_offset_dir.get() in (1, "Neg") else 1.0
        dial = _number(sign * (user - motor.user_offset.get()))
    low, high = getattr(motor, "limits", None) or (0, 0)
    limits = (_number(low), _number(high)) if low is not None and high is not None and low < high else ("", "")
    return _number(user), dial, *limits, str(getattr(motor, "egu", "") or "")


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else str(value)
