"""Supplemental data: the baseline of each run, without the devices that are offline."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from typing import Any

from bluesky import Msg, plan_stubs
from bluesky import preprocessors as bpp

from instrument.config.names import LOGGER_NAME

logger = logging.getLogger(LOGGER_NAME)

STREAM = "baseline"


class SupplementalData(bpp.SupplementalData):
    """bluesky's SupplementalData; a device that is offline is left out instead of failing the run.

    Args:
        baseline: Devices to be read at the start and the end of each run.
        usable: Tells whether a device can be read now.
    """

    def __init__(self, *, baseline: Sequence[Any] = (), usable: Callable[[Any], bool] = lambda _device: True) -> None:
        super().__init__(baseline=list(baseline))
        self._usable = usable

    def __call__(self, plan: Any) -> Generator[Msg, Any, Any]:
        """Insert the baseline, monitors and flyers of this object into `plan`."""
        plan = bpp.fly_during_wrapper(plan, self.flyers)
        plan = bpp.monitor_during_wrapper(plan, self.monitors)
        plan = self._baseline_wrapper(plan)
        return (yield from plan)

    def _baseline_wrapper(self, plan: Any) -> Generator[Msg, Any, Any]:
        if not self.baseline:
            return (yield from plan)
        read: dict[Any, list[Any]] = {}  # what the opening reading of each open run had

        def opening(run: Any) -> Generator[Msg, Any, None]:
            read[run] = devices = [device for device in self.baseline if self._usable(device)]
            if devices:
                yield from _reading(devices, run)

        def closing(msg: Msg) -> Generator[Msg, Any, Any]:
            devices = read.pop(msg.run, [])
            lost = [device.name for device in devices if not self._usable(device)]
            if lost:
                logger.warning("no baseline at the end of this run: %s went offline", ", ".join(lost))
            elif devices:
                yield from _reading(devices, msg.run)
            return (yield msg)

        def insert(msg: Msg) -> tuple[Any, Any]:
            if msg.command == "open_run":
                return None, opening(msg.run)
            if msg.command == "close_run":
                return closing(msg), None
            return None, None

        return (yield from bpp.plan_mutator(plan, insert))


def _reading(devices: Sequence[Any], run: Any) -> Generator[Msg, Any, Any]:
    reading = plan_stubs.trigger_and_read(devices, name=STREAM)
    return (yield from (reading if run is None else bpp.set_run_key_wrapper(reading, run)))
