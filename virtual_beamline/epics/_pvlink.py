"""Links that are named by text at run time, as swait's INAN, OUTN and DOLN, on base's own Channel Access links."""

from __future__ import annotations

import ctypes as C  # noqa: N812
import itertools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from virtual_beamline.epics._base import DBR_DOUBLE, Link, LinkCallbackFunction, base

if TYPE_CHECKING:
    from virtual_beamline.epics._record import Record

logger = logging.getLogger("virtual_beamline")

# pvlOptInpNative, pvlOptOutNative of link.h: subscribe as soon as the PV is connected, be ready to write.
_MASK = 0x80 | 0x200

_handles = itertools.count(1)
_links: dict[int, PvNameLink] = {}
_completions: dict[int, tuple[Record, Callable[[], None]]] = {}
_retired: list[tuple[Link, C.Array[C.c_char]]] = []
"""Base's CA thread may still look at a link that has been removed; the few bytes of each are kept."""


@LinkCallbackFunction
def _on_connection(handle: int) -> None:
    _dispatch(handle, "has_connected")


@LinkCallbackFunction
def _on_monitor(handle: int) -> None:
    _dispatch(handle, "new_value")


@LinkCallbackFunction
def _on_put_done(handle: int) -> None:
    entry = _completions.pop(handle, None)
    if entry is None:  # the link has been closed meanwhile, which has completed the put
        return
    record, completed = entry
    try:
        with record.lock():
            completed()
    except Exception:
        logger.exception("%s: completion of its output failed", record.name)


def _dispatch(handle: int, event: str) -> None:
    link = _links.get(handle)
    if link is None:
        return
    try:
        getattr(link, event)()
    except Exception:
        logger.exception("%s: update of its link to %s failed", link.record.name, link.pv)


class PvNameLink:
    """A link of ``record`` to the PV of a name, wherever it is served."""

    def __init__(
        self,
        record: Record,
        pv: str,
        changed: Callable[[], None] | None = None,
        connected: Callable[[], None] | None = None,
    ) -> None:
        """Begin to connect.

        Args:
            record: whose link it is.
            pv: the PV's name.
            changed: called with each new value, on base's CA thread, without the record's lock.
            connected: called when the PV has connected, likewise; base does not tell of PVs of text, nor of
                disconnections.
        """
        self.record = record
        self.pv = pv
        self._changed = changed
        self._connected = connected
        self._handle = next(_handles)
        self._put_handle = 0
        self._name = C.create_string_buffer(pv.encode())
        self._link = Link()
        self._link.record = record.field_address("NAME")
        self._link.type = 1  # PV_LINK
        self._link.flags = 1  # DBLINK_FLAG_INITIALIZED
        self._link.pv.name = C.addressof(self._name)
        self._link.pv.mask = _MASK
        _links[self._handle] = self
        base.dbCaAddLinkCallback(C.byref(self._link), _on_connection, _on_monitor, self._handle)

    def close(self) -> None:
        """Disconnect for good; called under the record's lock. A put that is not done counts as done.

        Base would never say so of a link that it has removed, and the record would wait for ever.
        """
        if _links.pop(self._handle, None) is None:
            return
        base.dbCaRemoveLink(None, C.byref(self._link))
        _retired.append((self._link, self._name))
        entry = _completions.pop(self._put_handle, None)
        if entry is not None:
            entry[1]()

    @property
    def connected(self) -> bool:
        """Whether the PV can be used now."""
        return bool(base.dbIsLinkConnected(C.byref(self._link)))

    def get(self) -> float | None:
        """The last value that the PV has sent; None when it is not connected."""
        value, count = C.c_double(), C.c_long(1)
        if not self.connected or base.dbCaGetLink(C.byref(self._link), DBR_DOUBLE, C.byref(value), C.byref(count)):
            return None
        return value.value

    def put(self, value: float) -> bool:
        """Write without waiting; False if it cannot be written."""
        number = C.c_double(value)
        return self.connected and not base.dbCaPutLink(C.byref(self._link), DBR_DOUBLE, C.byref(number), 1)

    def put_and_then(self, value: float, completed: Callable[[], None]) -> bool:
        """Write; when all processing that this started is done, call ``completed`` under the record's lock.

        Returns False, and calls nothing, if it cannot be written.
        """
        if not self.connected:
            return False
        number = C.c_double(value)
        self._put_handle = handle = next(_handles)
        _completions[handle] = (self.record, completed)
        if base.dbCaPutLinkCallback(C.byref(self._link), DBR_DOUBLE, C.byref(number), 1, _on_put_done, handle):
            del _completions[handle]
            return False
        return True

    def new_value(self) -> None:
        """Called by base's CA thread."""
        if self._changed is not None:
            self._changed()

    def has_connected(self) -> None:
        """Called by base's CA thread."""
        if self._connected is not None:
            self._connected()
