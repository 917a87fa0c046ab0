"""Ending what waits for a device, when the device itself will not."""

from __future__ import annotations

import functools
from typing import Any

from ophyd.status import StatusBase
from ophyd.status import wait as wait_for_status

REQUESTS = ("_req_done", "acq_done")  # ophyd's subscriptions of the status of a move, and of an acquisition


class ForgetsFirst:
    """Forgets who waits for a move or an acquisition before it tells them, and not afterwards as ophyd does.

    Once told, a plan begins the next move on its own thread. Where ophyd's thread came to forgetting only then, it
    forgot that move too, whose status never ended: on a busy machine once in a thousand points.
    """

    _callbacks: dict[str, dict[int, Any]]
    _unwrapped_callbacks: dict[str, dict[int, Any]]

    def _run_subs(self, *args: Any, sub_type: str, **kwargs: Any) -> None:
        if sub_type not in REQUESTS:
            super()._run_subs(*args, sub_type=sub_type, **kwargs)  # type: ignore[misc]  of OphydObject
            return
        waiting, unwrapped = self._callbacks[sub_type], self._unwrapped_callbacks[sub_type]
        to_tell = []
        for number in list(waiting):
            to_tell.append(waiting.pop(number, None))
            unwrapped.pop(number, None)
        for callback in to_tell:
            if callback is not None:
                callback(*args, sub_type=sub_type, obj=self, **kwargs)

    def _reset_sub(self, event_type: str) -> None:
        if event_type not in REQUESTS:
            super()._reset_sub(event_type)  # type: ignore[misc]


def wait_or_stop(device: Any, status: StatusBase) -> None:
    """Wait for a move of a device; a Ctrl-C stops it."""
    try:
        wait_for_status(status)
    except KeyboardInterrupt:
        device.stop()
        raise


def fail_waiting(part: Any, reason: Exception) -> None:
    """Fail the moves and acquisitions of an object that are under way.

    Unlike ophyd's, a status that fails here does not stop its device: it may be gone, or doing the next thing already.

    Args:
        part: A device; its components are not looked at.
        reason: What waiting for them raises.
    """
    for event in REQUESTS:
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
