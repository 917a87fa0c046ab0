"""What ophyd wants to know of each PV when it connects (units, limits, time, alarm), collected by one thread.

ophyd has four threads ask for it, PV by PV, and look again and again whether the answer has come. While the 300 PVs of
a session connect they take the processor from each other, and from Channel Access: a quarter of the work of connecting.
Here each PV asks at once, and one thread takes the answers in the order in which they come.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import epics.pv
from epics import ca
from ophyd._pyepics_shim import PyepicsShimPV

from instrument.config.names import LOGGER_NAME

logger = logging.getLogger(LOGGER_NAME)

PAUSE = 0.002  # s, between two looks for an answer that has not come
Answered = Callable[[str, dict[str, Any]], object]  # takes the name of a PV, and its metadata


class CollectedPV(PyepicsShimPV):
    """ophyd's PV, whose first metadata are collected by `Collector`."""

    collector: Collector

    def get_all_metadata_callback(self, callback: Answered, *, timeout: float) -> None:
        """Ask for all metadata, and have `callback` called with them; asked again as long as the PV is connected.

        Args:
            callback: Called with the PV's name and its metadata, on the collector's thread.
            timeout: After which to ask again (s).
        """
        if not ca.isConnected(self.chid):
            return  # lost again: ophyd asks when it is back
        kinds = [ca.promote_type(self.chid, use_time=True), ca.promote_type(self.chid, use_ctrl=True)]
        if not all(self._ask(kind) for kind in kinds):
            return
        ca.flush_io()
        self.collector.add(_Question(self, kinds, callback, timeout, time.monotonic() + timeout))

    def _ask(self, kind: int) -> bool:
        """Ask for one field type; False: the connection was lost at this moment."""
        try:
            ca.get_with_metadata(self.chid, ftype=kind, count=1, wait=False)
        except ca.CASeverityException:
            channel = ca.get_cache(self.pvname)
            if channel is not None:  # else pyepics would wait for the answer for ever
                channel.get_results[kind] = [None]
            return False
        return True

    def keep(self, metadata: dict[str, Any]) -> None:
        """Take metadata over, as `PV.get_ctrlvars` does."""
        known: dict[str, Any] = self._args  # type: ignore[assignment]
        known.update(metadata)

    @property
    def metadata(self) -> dict[str, Any]:
        """All that is known beside the value."""
        return {key: value for key, value in self._args.items() if key != "value"}


@dataclass(frozen=True)
class _Question:
    """What a PV has asked for: field types of Channel Access."""

    pv: CollectedPV
    kinds: list[int]
    callback: Answered
    timeout: float
    deadline: float  # of `time.monotonic()`

    def is_answered(self) -> bool:
        """Have all answers come?

        Raises:
            LookupError: Nobody uses the PV any more.
        """
        channel = ca.get_cache(self.pv.pvname)
        if channel is None:
            raise LookupError(self.pv.pvname)
        return all(channel.get_results[kind][0] is not ca.GET_PENDING for kind in self.kinds)

    def pass_on(self) -> None:
        """Give the answers to who wants them."""
        for kind in self.kinds:
            found = ca.get_complete_with_metadata(self.pv.chid, ftype=kind, count=1)
            self.pv.keep({key: value for key, value in (found or {}).items() if key != "value"})
        self.pv.force_read_access_rights()
        self.callback(self.pv.pvname, self.pv.metadata)


class Collector:
    """Takes the answers to what PVs of one CA context have asked for, on a thread that the first of them starts."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[_Question] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, question: _Question) -> None:
        """Have the answers to a question taken."""
        self._asked.put(question)
        with self._lock:
            if self._thread is None:
                context = question.pv.context
                self._thread = threading.Thread(target=self._run, args=(context,), name="first metadata", daemon=True)
                self._thread.start()

    def _run(self, context: Any) -> None:
        ca.attach_context(context)
        while True:
            question = self._asked.get()
            try:
                while not question.is_answered() and time.monotonic() < question.deadline:
                    time.sleep(PAUSE)
                if question.is_answered():
                    question.pass_on()
                elif ca.isConnected(question.pv.chid):
                    question.pv.get_all_metadata_callback(question.callback, timeout=question.timeout)
            except Exception:  # it is lost again: ophyd asks when it is back
                logger.debug("%s does not tell its metadata", question.pv.pvname, exc_info=True)


def collect_first_metadata() -> None:
    """Have the PVs of all ophyd signals that are made from now on do so; ophyd must use pyepics."""
    if epics.pv.default_pv_class is PyepicsShimPV:  # type: ignore[comparison-overlap]
        CollectedPV.collector = Collector()
        epics.pv.default_pv_class = CollectedPV
