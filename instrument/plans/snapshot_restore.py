"""Set again what a snapshot has: a table first, then one PV after the other, and back by one command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bluesky import plan_stubs as bps
from bluesky.utils import FailedStatus, MsgGenerator, RunEngineControlException

from instrument.config.errors import UserError
from instrument.devices.notes import Notes
from instrument.devices.pv_setpoint import PvSetpoint
from instrument.devices.pvs import TIMEOUT, PvList, unique_keys
from instrument.devices.restoring import PvTargets, Step, steps
from instrument.framework.comparison import Tolerance
from instrument.framework.snapshots import BEFORE, OUTCOME, RESTORE, UNDO, Snapshot, Snapshots, shown
from instrument.plans.checks import plan
from instrument.plans.snapshot import record, software_versions

SET = "set"
AS_WRITTEN = Tolerance(relative=1e-6)  # what a record of single precision gives back
UNTRIED = "not tried"


class RestoreError(UserError):
    """Not all was set; the message says what was and was not."""


@plan
def snapshot_restore(
    which: Any = -1,
    dry_run: bool = True,
    *,
    tolerance: float = 0.0,
    relative: float = 0.0,
    timeout: float = TIMEOUT,
    snapshots: Snapshots,
    show: Callable[[str], object] = print,
    commands: tuple[str, str] = ("RE(snapshot_restore('{}', dry_run=False))", "RE(snapshot_undo())"),
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str | None]:
    """Set the PVs of a snapshot to what they had, in the order in which they were given then.

    The table says first what would be set. PVs that are read-only, or whose record computes or reads its value, are
    left as they are. If a PV does not answer, or a value is outside of the limits, nothing is set at all. Motors are
    waited for. What was set before is recorded in the same run: `snapshot_undo` sets that again.

    Args:
        which: -1 for the last snapshot, -2 for the one before; a scan number; the beginning of a uid.
        dry_run: Print the table only.
        tolerance: Numbers that are no further apart are the same (unit of the PV); a motor so near has arrived.
        relative: The same as a fraction of the value.
        timeout: How long PVs are waited for (s).
        snapshots: Where snapshots are found.
        show: Takes each line that is printed.
        commands: What the last lines tell to type: to set, and to undo.
        md: Metadata.

    Returns:
        The uid of the run; None if nothing was to be set.

    Raises:
        UserError: There is no such snapshot, or nothing can be set; nothing was.
        RestoreError: Not all was set; what was and was not is in the table and the run.
    """
    saved = snapshots.find(which)
    if not isinstance(dry_run, bool):
        raise UserError(f"snapshot_restore: dry_run={dry_run!r} is neither True nor False; nothing was set")
    start = {"plan_name": RESTORE, "plan_description": f"set again what {saved} has", **(md or {})}
    within = Tolerance(tolerance, relative)
    return (
        yield from _restore(saved, start, dry_run=dry_run, within=within, timeout=timeout, show=show, told=commands)
    )


@plan
def snapshot_undo(
    which: Any = -1,
    dry_run: bool = False,
    *,
    timeout: float = TIMEOUT,
    snapshots: Snapshots,
    show: Callable[[str], object] = print,
    commands: tuple[str, str] = ("RE(snapshot_undo('{}'))", "RE(snapshot_undo())"),
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str | None]:
    """Set again what was set before the last `snapshot_restore`, in the opposite order. Once more undoes that.

    Args:
        which: -1 for the last restore or undo; a scan number; the beginning of a uid.
        dry_run: Print the table only.
        timeout: How long PVs are waited for (s).
        snapshots: Where its run is found.
        show: Takes each line that is printed.
        commands: What the last lines tell to type: to set, and to undo.
        md: Metadata.

    Returns:
        The uid of the run; None if nothing was to be set.

    Raises:
        UserError: There is no such run, or nothing can be set; nothing was.
        RestoreError: Not all was set; what was and was not is in the table and the run.
    """
    kinds = (RESTORE, UNDO)
    before = snapshots.find(which, plans=kinds, stream=BEFORE)
    outcomes = {entry.name: entry.value for entry in snapshots.find(before.uid, plans=kinds, stream=OUTCOME).entries}
    before.entries = [entry for entry in reversed(before.entries) if outcomes.get(entry.name) != UNTRIED]
    start = {"plan_name": UNDO, "plan_description": f"set again what was set before {before}", **(md or {})}
    return (
        yield from _restore(
            before, start, dry_run=dry_run, within=Tolerance(), timeout=timeout, show=show, told=commands
        )
    )


def _restore(
    saved: Snapshot,
    start: dict[str, Any],
    *,
    dry_run: bool,
    within: Tolerance,
    timeout: float,
    show: Callable[[str], object],
    told: tuple[str, str],
) -> MsgGenerator[str | None]:
    pvs = list(dict.fromkeys(entry.name for entry in saved.entries if entry.is_pv))
    targets = PvTargets(pvs, timeout=timeout)
    yield from bps.trigger(targets, wait=True)
    entries = list({entry.name if entry.is_pv else entry.key: entry for entry in saved.entries}.values())
    todo = steps(entries, targets.readings, targets.facts, targets.unreachable, within, targets.motors)
    name = str(start["plan_name"])
    for line in lines(f"before {saved}" if name == UNDO else str(saved), todo):
        show(line)
    if refused := [step for step in todo if step.action == "refuse"]:
        first = f"{refused[0].name}: {refused[0].reason}"
        more = f"; and {len(refused) - 1} more" if len(refused) > 1 else ""
        raise UserError(f"{name}: refused, nothing was set ({first}{more})")
    wanted = [step for step in todo if step.to_be_set]
    if not wanted:
        show(f"nothing is to be set: {_counts(todo)}")
        return None
    if dry_run:
        show(f"dry run: {len(wanted)} would be set, nothing was; {told[0].format(saved.uid[:7])} sets them")
        return None
    targets.only([step.name for step in wanted])
    source = {key: saved.start.get(key) for key in ("uid", "scan_id", "iso8601", "plan_name")}
    start |= {"iso8601": str(datetime.now()), "hints": {}, "software_versions": software_versions()}
    start["undoes" if name == UNDO else "snapshot"] = source
    uid = yield from bps.open_run(start)
    yield from record(targets, BEFORE)
    others = PvList([step.name for step in todo if step.action == "same"], timeout=timeout, name="others")
    yield from _set_all(wanted, Check(targets, others, todo, within), show, undo=told[1], name=name)
    return uid


@dataclass(frozen=True)
class Check:
    """What is read again when all is set.

    Attributes:
        targets: What is set.
        others: What had its value already; setting the former may have changed it (an offset does).
        todo: Every step.
        within: What counts as the same.
    """

    targets: PvTargets
    others: PvList
    todo: Sequence[Step]
    within: Tolerance

    def outcome(self, step: Step) -> Step:
        """A step that was set, and whether the PV has that value now, and its motor is there."""
        if step.outcome != SET:
            return step
        reading = self.targets.readings.get(step.name)
        if reading is None:
            return step.with_outcome(f"set, but not read again: {self.targets.unreachable.get(step.name, 'no value')}")
        motor = self.targets.motors.get(step.name)
        if not self.within.same(step.value, reading.value) and not AS_WRITTEN.same(step.value, reading.value):
            where = f" ({motor})" if motor is not None and motor.remarks else ""
            return step.with_outcome(f"set, but it is {shown(reading.value, reading.data_key)}{where}")
        arrived = motor is None or motor.arrived(step.value, self.within)
        return step if arrived else step.with_outcome(f"set, but {motor}")

    def changed(self) -> list[Step]:
        """What was as in the snapshot, and is not any more."""
        found = []
        for step in self.todo:
            reading = self.others.readings.get(step.name)
            if step.action == "same" and reading is not None and not self.within.same(step.value, reading.value):
                now = shown(reading.value, reading.data_key)
                found.append(step.with_outcome(f"not set, since it was the same, but now it is {now}"))
        return found


def _set_all(
    wanted: Sequence[Step], check: Check, show: Callable[[str], object], *, undo: str, name: str
) -> MsgGenerator[None]:
    """Set one PV after the other until one is not set; record what became of each, whatever happens, and tell it."""
    tried: list[Step] = []
    setpoints: list[PvSetpoint] = []
    interrupted: BaseException | None = None
    error: Exception | None = None
    try:
        for step in wanted:
            setpoints.append(step.setpoint())
            tried.append(step.with_outcome("begun"))
            yield from bps.checkpoint()
            yield from bps.abs_set(setpoints[-1], step.value, group=step.name)
            yield from bps.wait(group=step.name)
            tried[-1] = step.with_outcome(SET)
    except GeneratorExit:  # Ctrl-C twice: no message is carried out any more
        _tell(_all(wanted, tried), show, undo)
        raise
    except RunEngineControlException as stopped:
        interrupted = stopped
        tried[-1] = tried[-1].with_outcome("not set: interrupted")
        yield from bps.stop(setpoints[-1])
    except Exception as failed:
        error = failed
        cause = failed.__cause__ if isinstance(failed, FailedStatus) and failed.__cause__ else failed
        tried[-1] = tried[-1].with_outcome(f"not set: {' '.join(str(cause).split())}")
    yield from _conclude(_all(wanted, tried), check, show, interrupted, error, undo=undo, name=name)


def _conclude(
    outcomes: list[Step],
    check: Check,
    show: Callable[[str], object],
    interrupted: BaseException | None,
    error: Exception | None,
    *,
    undo: str,
    name: str,
) -> MsgGenerator[None]:
    """Read all again, record it with what became of each, close the run, and tell it."""
    targets = check.targets
    yield from bps.trigger(targets, wait=True)
    yield from bps.trigger(check.others, wait=True)
    outcomes = [*map(check.outcome, outcomes), *check.changed()]
    if targets.readings:
        yield from record(targets, "primary")
    keys = unique_keys(step.name for step in outcomes)
    yield from record(
        Notes(OUTCOME, {keys[step.name]: (f"PV:{step.name}", step.outcome) for step in outcomes}), OUTCOME
    )
    failed = [step for step in outcomes if step.outcome != SET]
    reason = "; ".join(f"{step.name}: {step.outcome}" for step in failed)
    if interrupted is None:
        yield from bps.close_run(exit_status="fail" if failed else "success", reason=reason)
    _tell(outcomes, show, undo)
    if interrupted is not None:
        raise interrupted
    if failed:
        untried = sum(step.outcome == UNTRIED for step in outcomes)
        raise RestoreError(
            f"{name}: {len(outcomes) - len(failed)} of {len(outcomes)} were set; {failed[0].name}: "
            f"{failed[0].outcome}; {untried} not tried; {undo} sets back what was set"
        ) from error


def _all(wanted: Sequence[Step], tried: Sequence[Step]) -> list[Step]:
    return [*tried, *(step.with_outcome(UNTRIED) for step in wanted[len(tried) :])]


def lines(label: str, todo: Sequence[Step]) -> list[str]:
    """The table: each PV in the order in which it would be set.

    Args:
        label: What the values are from.
        todo: What would be done.
    """
    import pyRestTable

    table = pyRestTable.Table()
    table.labels = ["name", "now", label, "what"]
    for step in todo:
        table.addRow((step.name, step.now_shown, step.entry.shown, step.told))
    return str(table.reST(fmt="simple")).splitlines()


def _tell(outcomes: Sequence[Step], show: Callable[[str], object], undo: str) -> None:
    """What became of each, and how to go back."""
    for step in outcomes:
        show(f"{step.name}: {step.now_shown} -> {step.entry.shown}: {step.outcome}")
    count = sum(step.outcome == SET for step in outcomes)
    show(f"{count} of {len(outcomes)} were set; {undo} sets back what they had")


def _counts(todo: Sequence[Step]) -> str:
    same, left = (sum(step.action == action for step in todo) for action in ("same", "leave"))
    return f"{same} {'is' if same == 1 else 'are'} as in the snapshot, {left} can't be set"
