"""What ophyd wants to know of each PV when it connects (units, limits, time, alarm), collected by one thread.

ophyd has four threads ask for it, PV by PV, and look again and again whether the answer has come. While the 300 PVs of a
session connect they take the processor from each other, and from Channel Access: a third of the time of connecting.
Here each PV asks at once, and one thread takes the answers in the order in which they come.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import epics.pv
from epics import ca
from ophyd._pyepics_shim import PyepicsShimPV

from instrument.config.names import LOGGER_NAME

logger = logging.getLogger(LOGGER_NAME)

PAUSE = 0.002  # s, before answers are looked for: looking for one that has not come costs more than the answer
Answered = Callable[[str, dict[str, Any]], object]  # takes the name of a PV, and its metadata


class CollectedPV(PyepicsShimPV):
    """ophyd's PV, whose first metadata are collected by `Collector`."""

    collector: Collector

    def get_all_metadata_callback(self, callback: Answered, *, timeout: float) -> None:
        """Ask for all metadata, and have `callback` called with them.

        Args:
            callback: Called with the PV's name and its metadata, on the collector's thread.
            timeout: After that (s), or if the IOC gives none, ophyd tries in its own way.
        """
        kinds = [ca.promote_type(self.chid, use_time=True), ca.promote_type(self.chid, use_ctrl=True)]
        for kind in kinds:
            ca.get_with_metadata(self.chid, ftype=kind, count=1, wait=False)
        ca.flush_io()
        self.collector.add(self, kinds, callback, time.monotonic() + timeout)

    def as_ophyd_does(self, callback: Answered, timeout: float) -> None:
        """Ask once more, in ophyd's way."""
        super().get_all_metadata_callback(callback, timeout=timeout)


class Collector:
    """Takes the answers to what PVs of one CA context have asked for, on a thread that the first of them starts."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[tuple[CollectedPV, list[int], Answered, float]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, pv: CollectedPV, kinds: list[int], callback: Answered, deadline: float) -> None:
        """Have answers taken.

        Args:
            pv: Who has asked.
            kinds: The field types of Channel Access that it has asked for.
            callback: What is called with all of it.
            deadline: Until when to wait, of `time.monotonic()`.
        """
        self._asked.put((pv, kinds, callback, deadline))
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, args=(pv.context,), name="first metadata", daemon=True)
                self._thread.start()

    def _run(self, context: Any) -> None:
        ca.attach_context(context)
        while True:
            pv, kinds, callback, deadline = self._asked.get()
            if self._asked.empty():
                time.sleep(PAUSE)
            try:
                if _take(pv, kinds, deadline):
                    callback(pv.pvname, {key: value for key, value in pv._args.items() if key != "value"})  # noqa: SLF001
                elif pv.chid is not None and ca.isConnected(pv.chid):
                    pv.as_ophyd_does(callback, timeout=max(1.0, deadline - time.monotonic()))
                # What is lost again is asked again when it is back.
            except Exception:
                logger.debug("%s: its metadata are not known", pv.pvname, exc_info=True)


def _take(pv: CollectedPV, kinds: list[int], deadline: float) -> bool:
    """Keep the answers where pyepics does; False if there are none."""
    for kind in kinds:
        try:
            left = max(0.0, deadline - time.monotonic())
            found = ca.get_complete_with_metadata(pv.chid, ftype=kind, count=1, timeout=left)
        except ca.ChannelAccessException:  # its IOC is gone, or refuses
            return False
        if found is None:
            return False
        found.pop("value", None)
        pv._args.update(found)  # noqa: SLF001  as PV.get_ctrlvars does
    pv.force_read_access_rights()
    return True


def collect_first_metadata() -> None:
    """Have the PVs of all ophyd signals that are made from now on do so; ophyd must use pyepics."""
    if epics.pv.default_pv_class is PyepicsShimPV:  # type: ignore[comparison-overlap]
        CollectedPV.collector = Collector()
        epics.pv.default_pv_class = CollectedPV
