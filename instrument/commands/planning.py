"""What a plan would do, without doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instrument.config.errors import UserError
from instrument.framework.statements import is_plan, name_of

if TYPE_CHECKING:
    from instrument.plans.preflight import Forecast
    from instrument.session import Session


class PlanningCommands:
    """What a plan would do, without doing it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def estimate(self, plan: Any) -> Forecast:
        """Run a plan dry: how many points, from where to where, how long; limits and devices are checked.

        Args:
            plan: A plan that has not run, as in `estimate(ascan(m1, -1, 1, 20, 0.5))`.

        Returns:
            What it would do; `.seconds` is how long.

        Raises:
            UserError: It is no plan, would leave a limit, uses a device that is offline, or goes by what it measures.
        """
        from instrument.plans import preflight

        return preflight.asked(name_of(_checked("estimate", plan)), plan)

    def summarize(self, plan: Any) -> None:
        """Print step by step what a plan would do: runs, moves, readings; then what `estimate` tells.

        Args:
            plan: A plan that has not run.

        Raises:
            UserError: See `estimate`.
        """
        from bluesky.preprocessors import print_summary_wrapper

        from instrument.plans import preflight

        name = name_of(_checked("summarize", plan))
        print(preflight.asked(name, print_summary_wrapper(plan)))


def _checked(command: str, plan: Any) -> Any:
    if not is_plan(plan):
        raise UserError(f"{command} needs a plan, as in {command}(ascan(m1, -1, 1, 20, 0.5)), not {plan!r}")
    return plan
