"""What a person types at the prompt: thin, over the session and its plans.

Each class groups commands of one kind; its public methods become names of the user's namespace.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from instrument.commands.counting import CountingCommands
from instrument.commands.engine import EngineCommands
from instrument.commands.experiment import ExperimentCommands
from instrument.commands.files import FileCommands
from instrument.commands.images import ImageCommands
from instrument.commands.information import InformationCommands
from instrument.commands.motion import MotionCommands
from instrument.commands.peak import PeakCommands
from instrument.commands.planning import PlanningCommands
from instrument.commands.positions import PositionCommands
from instrument.commands.snapshots import SnapshotCommands
from instrument.commands.suspending import SuspendingCommands
from instrument.plans import checks

if TYPE_CHECKING:
    from instrument.session import Session

__all__ = ["NAMES", "commands"]

GROUPS = (
    InformationCommands,
    MotionCommands,
    CountingCommands,
    PeakCommands,
    PlanningCommands,
    PositionCommands,
    ExperimentCommands,
    FileCommands,
    EngineCommands,
    ImageCommands,
    SnapshotCommands,
    SuspendingCommands,
)

NAMES: tuple[str, ...] = tuple(name for group in GROUPS for name in vars(group) if not name.startswith("_"))


def commands(session: Session) -> dict[str, Callable[..., Any]]:
    """Every command, bound to `session`."""
    bound: dict[str, Callable[..., Any]] = {}
    for group in GROUPS:
        instance = group(session)
        bound.update({name: _checked(getattr(instance, name)) for name in vars(group) if not name.startswith("_")})
    return bound


def _checked(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same command, which tells arguments that do not fit in one line; Python's own counts `self`."""
    signature = inspect.signature(command)

    @functools.wraps(command)
    def call(*args: Any, **options: Any) -> Any:
        checks.fitting(command.__name__, signature, args, options)
        return command(*args, **options)

    return call
