"""Finding runs for people: by time, plan and text, as a table."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any

from instrument.config.errors import UserError

if TYPE_CHECKING:
    from pyRestTable import Table

    from instrument.framework.index import Row, RunIndex

# Plans whose plan_args are what a person types, in that order (instrument.plans.scans, .counting, .lineup).
SPEC_SCANS = ("ascan", "dscan", "a2scan", "d2scan", "mesh", "dmesh", "timescan", "lup")
LABELS = ("scan_id", "start", "duration", "plan", "points", "status", "uid")
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d|w)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_ALL = 2**62  # more than SQLite could count
_DAY = re.compile(r"\d{4}-\d{2}(-\d{2})?")


def moment(text: str | float | datetime, *, end: bool = False, zone: tzinfo | None = None) -> float:
    """A point in time as people write it.

    Args:
        text: "2026-11-21", "2026-11-21 04:30", "2026-11" (local time); "2 h", "3 d" (ago; s, min, h, d, w); seconds
            since the epoch; or a datetime.
        end: A day or month that is not told more precisely stands for its end, not its beginning.
        zone: Of a time that does not tell its own; the machine's if not given.

    Returns:
        Seconds since the epoch.

    Raises:
        UserError: It is none of these.
    """
    if isinstance(text, int | float) and not isinstance(text, bool) and math.isfinite(text):
        return float(text)
    try:
        return _moment(text, end=end, zone=zone)
    except (OverflowError, ValueError):  # of a zone: the year before the first one, or after the last
        raise UserError(f"{str(text)!r} is too far away: write a date between the years 2 and 9998") from None


def _moment(text: str | float | datetime, *, end: bool, zone: tzinfo | None) -> float:
    if isinstance(text, datetime):
        return (text if text.tzinfo else text.replace(tzinfo=zone)).timestamp()
    words = str(text).strip()
    if ago := _AGO.fullmatch(words):
        return datetime.now().timestamp() - float(ago[1]) * _SECONDS[ago[2]]
    try:
        found = datetime.fromisoformat(f"{words}-01" if re.fullmatch(r"\d{4}-\d{2}", words) else words)
    except ValueError:
        raise UserError(
            f"{text!r} is no time: write a date ('2026-11-21'), date and time ('2026-11-21 04:30'), "
            "or how long ago ('2 h')"
        ) from None
    if end and _DAY.fullmatch(words):
        month = len(words) == len("2026-11")
        found = (found.replace(day=28) + timedelta(days=4)).replace(day=1) if month else found + timedelta(days=1)
    return (found if found.tzinfo else found.replace(tzinfo=zone)).timestamp()


def query(
    *,
    since: str | float | datetime | None = None,
    until: str | float | datetime | None = None,
    plan: str | None = None,
    text: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The catalog's query (MongoDB's language) for what a person asks.

    Args:
        since: Runs that started then or later; see `moment`.
        until: Runs that started before; a day stands for its end.
        plan: Name of the plan.
        text: Words that occur in the start document.
        metadata: Further keys of the start document and their values.
    """
    asked: dict[str, Any] = dict(metadata or {})
    times = {}
    if since is not None:
        times["$gte"] = moment(since)
    if until is not None:
        times["$lt"] = moment(until, end=True)
    if times:
        asked["time"] = times
    if plan is not None:
        asked["plan_name"] = plan
    if text is not None:
        asked["$text"] = {"$search": text}
    return asked


def select(
    index: RunIndex, *, scans: Iterable[str] = (), uids: Iterable[str] = (), last: int | None = None, **asked: Any
) -> list[Row]:
    """The runs that match all that is asked, oldest first.

    Args:
        index: The journal's index.
        scans: Scan numbers: "12", "12..20", "3,5,12..20". Several runs may have one number: all of them are meant.
        uids: Beginnings of uids; a run whose uid has one of them, or whose number is among `scans`, is meant.
        last: At most so many, the newest.
        asked: See `query`.

    Raises:
        UserError: Nothing is asked for, or something that no run has.
    """
    wanted = query(**asked)
    if not wanted and last is None and not scans and not uids:
        raise UserError("which runs? --scan 12..20, --uid, --last 5, --since '2 h', --plan or --text say so")
    if last is not None and last < 1:
        raise UserError(f"--last {last}: give a whole number, 1 or more")
    index.refresh()
    named = [{"scan_id": {"$gte": low, "$lte": high}} for text in scans for low, high in _ranges(text)]
    named += [{"uid": index.find_uid(uid).uid} for uid in uids]
    if named:
        wanted = {"$and": [wanted, {"$or": named}]} if wanted else {"$or": named}
    found = index.rows(wanted, limit=-1 if last is None else last)
    if not found:
        what = (
            " ".join([*(f"--scan {text}" for text in scans), *(f"--uid {uid}" for uid in uids)]) or "what is asked for"
        )
        raise UserError(f"no run matches {what}; `instrument runs` lists them")
    return found[::-1]


def _ranges(text: str) -> Iterator[tuple[int, int]]:
    for part in text.split(","):
        numbers = re.fullmatch(r"\s*(\d+)(?:\s*\.\.\s*(\d+))?\s*", part)
        if numbers is None or (numbers[2] and int(numbers[2]) < int(numbers[1])):
            raise UserError(f"{text!r} are no scan numbers: write 12, 12..20, or 3,5,12..20")
        yield int(numbers[1]), int(numbers[2] or numbers[1])


def table(index: RunIndex, *, num: int = 20, **asked: Any) -> Table:
    """The newest runs that match, newest first.

    Args:
        index: The journal's index.
        num: How many at the most.
        asked: See `query`.

    Raises:
        UserError: `num` is no positive number, or a time is not understood.
    """
    from pyRestTable import Table

    if isinstance(num, bool) or not isinstance(num, int) or num < 1:
        raise UserError(f"num={num!r}: how many runs to list is a whole number, 1 or more")
    wanted = query(**asked)
    index.refresh()
    made = Table()
    made.labels = list(LABELS)
    for run in index.rows(wanted, limit=min(num, _ALL)):
        made.addRow(_cells(run))
    return made


def _cells(run: Row) -> list[Any]:
    start, stop = run.start, run.stop
    return [
        start.get("scan_id", ""),
        f"{datetime.fromtimestamp(start['time']):%Y-%m-%d %H:%M:%S}",
        f"{stop['time'] - start['time']:.1f} s" if stop else "",
        start.get("plan_name", ""),
        (stop.get("num_events") or {}).get("primary", 0) if stop else "",
        stop.get("exit_status", "") if stop else "open",
        run.uid[:7],
    ]


def scans(index: RunIndex, *, num: int = 10) -> Table:
    """The newest runs, newest first, each as it was typed.

    Args:
        index: The journal's index.
        num: How many at the most.

    Raises:
        UserError: `num` is no positive number.
    """
    from pyRestTable import Table

    if isinstance(num, bool) or not isinstance(num, int) or num < 1:
        raise UserError(f"num={num!r}: how many scans to show is a whole number, 1 or more")
    index.refresh()
    made = Table()
    made.labels = ["scan_id", "start", "scan", "points", "status"]
    for run in index.rows({}, limit=min(num, _ALL)):
        cells = _cells(run)
        made.addRow([cells[0], cells[1], typed(run.start), cells[4], cells[5]])
    return made


def typed(start: Mapping[str, Any]) -> str:
    """A run's plan as a person types it; of plans that are not SPEC's, the name and its motors.

    Args:
        start: The start document.
    """
    motors = start.get("motors") or ()
    return spec_command(start) or " ".join([str(start.get("plan_name", "")), *map(str, motors)])


def spec_command(start: Mapping[str, Any]) -> str | None:
    """A run's plan as SPEC has it, `ascan m1 -1 1 20 0.5`; None of plans that are not SPEC's.

    Args:
        start: The start document.
    """
    arguments = start.get("plan_args")
    if start.get("plan_name") not in SPEC_SCANS or not isinstance(arguments, Mapping):
        return None
    values = [value for key, value in arguments.items() if key != "detectors" and value is not None]
    return " ".join([str(start["plan_name"]), *map(_word, values)])


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
