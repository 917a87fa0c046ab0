"""A bar at the bottom of the screen while a plan runs: points of a scan, a long move, a long count, and the time left.

Documents and waits are only noted where they come from; the main thread draws, as it draws the plot. Nothing is shown
where a line can't be overwritten: piped, in a log, at a dumb terminal. In a notebook it is HTML, needs no widgets, and
leaves nothing in the file.
"""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Iterable
from typing import Any

from instrument.framework import screen

LONG = 1.0  # s; what takes less has no bar
INTERVAL = 0.1  # s between two drawings
STEPS = 1000  # of a bar whose parts are no points
POINTS = "{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed}<{remaining}"
ENDLESS = "{desc} {n_fmt} points, {elapsed}"
PART = "{desc} |{bar}| {percentage:.0f}%"


class Progress:
    """Knows what runs, and draws a bar for it.

    Subscribe it to the engine, make `waiting` its `waiting_hook`, and call `draw` on the main thread.
    """

    def __init__(self) -> None:
        self._run: tuple[str, str, int | None] | None = None  # uid, name, points
        self._descriptors: set[str] = set()
        self._streams = {"primary"}
        self._done = 0
        self._began = 0.0
        self._statuses: list[Any] = []
        self._waiting_since = 0.0
        self._bar: Any = None
        self._shows: object = None  # what the bar is about
        self._drawn = 0.0

    # --- on the RunEngine's thread

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Note a document."""
        if name == "start":
            # A plan that takes dark frames first, say, tells the points of each stream.
            streams = doc.get("num_points_of_streams")
            self._streams = set(streams) if isinstance(streams, dict) and streams else {"primary"}
            points = sum(streams.values()) if isinstance(streams, dict) and streams else doc.get("num_points")
            self._descriptors, self._done, self._began = set(), 0, time.monotonic()
            label = f"{doc.get('plan_name', 'run')} {doc.get('scan_id', '')}"
            self._run = (doc["uid"], label, points if isinstance(points, int) and points > 0 else None)
        elif name == "descriptor" and doc.get("name") in self._streams:
            self._descriptors.add(doc["uid"])
        elif name == "event" and doc["descriptor"] in self._descriptors:
            self._done += 1
        elif name == "event_page" and doc["descriptor"] in self._descriptors:
            self._done += len(doc["seq_num"])
        elif name == "stop" and self._run is not None and doc["run_start"] == self._run[0]:
            self._run = None

    def waiting(self, statuses: Iterable[Any] | None) -> None:
        """Note what the engine waits for; None: for nothing any more."""
        self._statuses = [] if statuses is None else list(statuses)
        self._waiting_since = time.monotonic()
        if statuses is None and self._run is None and self._bar is not None:
            self._bar.clear()  # at once: a line may be printed before the main thread draws again

    # --- on the main thread

    def draw(self, *, running: bool = True) -> None:
        """Bring the bar up to date, at most ten times a second; take it away at once when there is nothing to tell.

        Args:
            running: A plan runs; False: it has ended, or pauses.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        now, run = time.monotonic(), self._run
        statuses = [status for status in self._statuses if not status.done]
        if not running or (run is None and not statuses):
            self._close()
        elif now - self._drawn < INTERVAL:
            return
        elif run is not None and (self._done or run[2] is not None) and now - self._began > LONG:
            self._show(run, run[1], run[2], self._done, self._began)
        elif run is None and now - self._waiting_since > LONG:
            share, number = min((_share(status, now - self._waiting_since), n) for n, status in enumerate(statuses))
            label = _label(statuses[number])
            self._show(id(statuses[number]), label, STEPS, int(STEPS * share), self._waiting_since, part=True)
        self._drawn = now

    def _show(
        self, about: object, label: str, total: int | None, done: int, began: float, *, part: bool = False
    ) -> None:
        if self._shows != about:
            self._close()
            style = PART if part else ENDLESS if total is None else POINTS
            if screen.in_notebook():
                self._bar = _NotebookBar(total, style, began)
            elif screen.is_live():
                self._bar = _new_bar(label, total, style)
                self._bar.start_t -= time.monotonic() - began
                screen.bar_is_shown(self._bar.write)
            else:
                return
            self._shows = about
        if self._bar is None:
            return
        self._bar.n = done if total is None else min(done, total)
        self._bar.set_description_str(label, refresh=False)
        self._bar.refresh()

    def _close(self) -> None:
        if self._bar is not None:
            screen.bar_is_shown(None)
            self._bar.close()
        self._bar = self._shows = None


def _new_bar(label: str, total: int | None, style: str) -> Any:
    import sys

    from tqdm import tqdm

    options = {"desc": label, "total": total, "leave": False, "mininterval": 0, "miniters": 0}
    return tqdm(**options, bar_format=style, file=sys.stdout, ncols=80)


class _NotebookBar:
    """As much of tqdm's bar as is used here, in the output of a notebook's cell."""

    def __init__(self, total: int | None, style: str, began: float) -> None:
        self.n = 0
        self._total = total
        self._style = style
        self._began = began
        self._label = ""
        self._slot = screen.Slot()

    def set_description_str(self, label: str, *, refresh: bool = True) -> None:
        self._label = label

    def refresh(self) -> None:
        from tqdm import tqdm

        elapsed = time.monotonic() - self._began

        def line(style: str) -> str:
            total: Any = self._total  # None is allowed
            return tqdm.format_meter(self.n, total, elapsed, ncols=80, prefix=self._label, bar_format=style)

        bar = "" if self._total is None else f'<progress value="{self.n}" max="{self._total}"></progress> '
        told = html.escape(line(self._style.replace("|{bar}| ", "")))
        self._slot.show(line(self._style), html=f"{bar}<code>{told}</code>")

    def clear(self) -> None:
        self._slot.show("")

    close = clear


def _label(status: Any) -> str:
    device = getattr(status, "device", None) or getattr(status, "obj", None)
    name = getattr(device, "name", "waiting")
    target = getattr(status, "target", None)
    position = getattr(device, "position", None) if target is not None else None
    if isinstance(target, int | float) and isinstance(position, int | float):
        return f"{name} {position:.5g} -> {target:.5g}"
    return name


def _share(status: Any, elapsed: float) -> float:
    """How much of a move or a count is done, from 0 to 1; 0 where nobody can tell."""
    device = getattr(status, "device", None) or getattr(status, "obj", None)
    target, start = getattr(status, "target", None), getattr(status, "start_pos", None)
    position = getattr(device, "position", None)
    if isinstance(position, int | float) and isinstance(target, int | float) and isinstance(start, int | float):
        return min(1.0, max(0.0, (position - start) / (target - start))) if target != start else 1.0
    for_time = _count_time(device)
    return min(1.0, elapsed / for_time) if for_time else 0.0


def _count_time(detector: Any) -> float | None:
    """For how long a detector counts (s), as far as it is known without asking the network for longer than a moment."""
    preset = getattr(detector, "preset_time", None)
    if preset is None:
        return None
    try:
        return float(preset.get(timeout=0.1))
    except Exception:  # a bar is not worth an error
        return None
