"""Named positions: save where the motors are, list what was saved, go back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instrument.config.errors import UserError
from instrument.devices.registry import path_of
from instrument.framework.positioners import LABEL, is_positioner
from instrument.framework.positions import Positions
from instrument.plans.defaults import device_of

if TYPE_CHECKING:
    from bluesky.utils import Plan

    from instrument.session import Session


class PositionCommands:
    """Named positions: save where the motors are, list what was saved, go back."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._positions = Positions(session.files.state.with_name("positions.json"))

    def save_position(self, name: str, *motors: Any) -> None:
        """Save where motors are under a name; what was saved under it before stays in its history.

        Args:
            name: For `goto_position`.
            motors: Motors, or their names; none: all that have the label `motor` and answer, components included.

        Raises:
            UserError: A motor is no motor, or the file can't be written; nothing is saved.
        """
        chosen = [device_of(self._session.devices, motor) for motor in motors] or [
            device
            for device in self._session.oregistry.findall(label=LABEL, allow_none=True)
            if self._session.health.usable(device)
        ]
        for motor in chosen:
            if not is_positioner(motor):
                raise UserError(f"save_position: {getattr(motor, 'name', motor)} has no position; nothing is saved")
        saved = self._positions.save(name, {path_of(motor): motor.position for motor in chosen})
        print(f"saved as {name!r}: {_line(saved.positions)}")

    def positions(self, name: str | None = None) -> None:
        """Print the named positions, or the history of one of them, newest first.

        Args:
            name: Whose history.

        Raises:
            UserError: There is no such name.
        """
        import pyRestTable

        table = pyRestTable.Table()
        if name is None:
            names = self._positions.names()
            if not names:
                print("no positions are saved yet; save_position('aligned') saves where the motors are")
                return
            table.labels = ["name", "saved", "times", "motors"]
            for one in names:
                history = self._positions.history(one)
                table.addRow((one, history[0].when, len(history), _line(history[0].positions)))
        else:
            table.labels = ["back", "saved", "motors"]
            for back, saved in enumerate(self._positions.history(name)):
                table.addRow((back, saved.when, _line(saved.positions)))
        print(table.reST(fmt="simple"), end="")

    def goto_position(self, name: str, back: int = 0) -> Plan:
        """Move motors to where they were when a position was saved; prints a table of old -> new first.

        Args:
            name: The name that they were saved under.
            back: 0: what was saved last, 1: the time before, ...

        Raises:
            UserError: There is no such name, a motor is gone, or a position is outside of the limits; nothing moves.
        """
        from instrument.plans.moves import go_back

        history = self._positions.history(name)
        if isinstance(back, bool) or not isinstance(back, int) or not 0 <= back < len(history):
            raise UserError(f"goto_position: {name!r} was saved {len(history)} times: back is 0 to {len(history) - 1}")
        places = []
        for motor, position in history[back].positions.items():
            try:
                places.append((device_of(self._session.devices, motor), position))
            except UserError:
                raise UserError(f"goto_position: {motor} is no device of this session; nothing moved") from None
        return go_back(f"{name!r} of {history[back].when}", places)


def _line(positions: dict[str, float]) -> str:
    """Positions in one line; those at 0 of many are left out."""
    told = [(name, value) for name, value in positions.items() if value or len(positions) < 7]
    rest = len(positions) - len(told)
    parts = [f"{name} {value:.6g}" for name, value in told]
    return ", ".join([*parts, f"{rest} others at 0"] if rest else parts)
