"""Behaviour that evolves in time: calls at a later time, under the record's lock, on one thread for all records."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from virtual_beamline.epics._record import Record

logger = logging.getLogger("virtual_beamline")


class Call:
    """A call that is due at ``when`` (:func:`time.monotonic`); ``cancel`` is safe at any time."""

    __slots__ = ("cancelled", "function", "record", "when")

    def __init__(self, when: float, record: Record, function: Callable[[], object]) -> None:
        self.when = when
        self.record = record
        self.function = function
        self.cancelled = False

    def cancel(self) -> None:
        """Do not call. Under the record's lock it is certain that it will not be called any more."""
        self.cancelled = True


class Clock:
    """One thread that makes the calls when they are due."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._calls: list[tuple[float, int, Call]] = []
        self._order = itertools.count()
        self._thread: threading.Thread | None = None

    def call_at(self, when: float, record: Record, function: Callable[[], object]) -> Call:
        """Call ``function`` under the lock of ``record`` at the monotonic time ``when``."""
        call = Call(when, record, function)
        with self._condition:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="clock", daemon=True)
                self._thread.start()
            heapq.heappush(self._calls, (when, next(self._order), call))
            if self._calls[0][2] is call:
                self._condition.notify()
        return call

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._calls or self._calls[0][0] > time.monotonic():
                    self._condition.wait(self._calls[0][0] - time.monotonic() if self._calls else None)
                call = heapq.heappop(self._calls)[2]
            if call.cancelled:
                continue
            with call.record.lock():
                if call.cancelled:
                    continue
                try:
                    call.function()
                except Exception:
                    logger.exception("%s: its timed behaviour failed", call.record.name)


clock = Clock()
