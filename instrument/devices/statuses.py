"""Ending what waits for a device, when the device itself will not."""

from __future__ import annotations

import functools
from typing import Any

from ophyd.status import StatusBase


def fail_waiting(part: Any, reason: Exception) -> None:
    """Fail the moves and acquisitions of an object that are under way.

    Unlike ophyd's, a status that fails here does not stop its device: it may be gone, or doing the next thing already.

    Args:
        part: A device; its components are not looked at.
        reason: What waiting for them raises.
    """
    for event in ("_req_done", "acq_done"):
        subscribed = getattr(part, "_unwrapped_callbacks", {}).get(event, {})
        waiting = [getattr(callback, "__self__", None) for callback in list(subscribed.values())]
        subscribed.clear()
        getattr(part, "_callbacks", {}).get(event, {}).clear()
        for status in waiting:
            if isinstance(status, StatusBase) and not status.done:
                status.__class__ = _left_alone(type(status))
                status.set_exception(reason)


@functools.cache
def _left_alone(cls: type) -> type:
    """A status class that, when it fails, neither asks its device where it is nor tells it to stop."""

    def quiet(self: Any) -> None:
        pass

    return type(cls.__name__, (cls,), {"__module__": cls.__module__, "_settled": quiet, "_handle_failure": quiet})
