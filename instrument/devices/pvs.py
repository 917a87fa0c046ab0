"""PVs by name: many connected at once and read at one moment, each set with completion, without ophyd.

ophyd asks one PV after the other, five round trips each, and takes a second to import; a snapshot of a thousand PVs is
to take less than two. Channels are pyepics' own, shared with ophyd's where both use a PV.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TIMEOUT = 3.0  # s; for connecting, and again for the values
POLL = 0.002  # s; between two looks at what has not connected

GONE = "its IOC went away while it was read"

# Field types of Channel Access (db_access.h).
STRING, SHORT, FLOAT, ENUM, CHAR, LONG, DOUBLE = range(7)
_TIME, _CTRL = 14, 28  # what makes DBR_TIME_xxx and DBR_CTRL_xxx of them
_LOST = 1  # cs_prev_conn (cadef.h): it was connected
_BYTES = (40, 2, 4, 2, 1, 4, 8)  # of a value of each type
_LEAST_ARRAY_BYTES = 16384  # what EPICS_CA_MAX_ARRAY_BYTES is at least (Channel Access Reference Manual)
_TOO_LARGE = 72  # ECA_TOLARGE (caerr.h: CA_K_WARNING, message 9)


class Completion:
    """A status in the sense of the RunEngine: of something that goes on on another thread."""

    def __init__(self) -> None:
        self._future: Future[None] = Future()

    def add_callback(self, callback: Callable[[Completion], object]) -> None:
        """Have `callback` called when this is done."""
        self._future.add_done_callback(lambda _: callback(self))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What went wrong; None if nothing did."""
        return self._future.exception(timeout)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._future.done()

    @property
    def success(self) -> bool:
        """Whether it has ended well."""
        return self.done and self._future.exception(0) is None

    def finish(self, error: BaseException | None = None) -> None:
        """End it; a second end is none."""
        if self.done:
            return
        if error is None:
            self._future.set_result(None)
        else:
            self._future.set_exception(error)

    set_exception = finish  # as the RunEngine calls it, when a device went offline


@dataclass(frozen=True)
class PvReading:
    """What a PV had.

    Attributes:
        name: Of the PV.
        value: A number, text, the index of an enumeration, or an array (numpy; a list of texts).
        timestamp: When the IOC says that the value came to be (s since the epoch).
        data_key: What the RunEngine's descriptor says of it: source, dtype, shape, units, precision, limits,
            enum_strs.
        writable: Whether Channel Access lets us write it.
        count: How many values it can hold.
    """

    name: str
    value: Any
    timestamp: float
    data_key: dict[str, Any]
    writable: bool
    count: int


@dataclass
class _Channel:
    name: str
    chid: Any
    new: bool  # made by us: nobody else of this process uses it
    pending: list[int] = field(default_factory=list)  # field types that were asked for


def attach() -> Any:
    """Make the calling thread one of the process's CA context, which is made if there is none; gives `epics.ca`."""
    if "epics.ca" not in sys.modules:
        from instrument.framework.channel_access import name_libca

        name_libca()  # the libca that ophyd chooses
    from epics import ca

    if ca.libca is None:
        from instrument.framework.channel_access import silence_libca

        silence_libca()
    ca.use_initial_context()
    return ca


class PvList:
    """A list of PVs as one object that the RunEngine triggers and reads: all at one moment.

    What does not answer is no fault of the others: it is named in `unreachable`, with the reason.

    Args:
        pvs: Their names.
        timeout: How long to wait until they are connected, and again for their values (s).
        name: Of this object.
    """

    parent = None

    def __init__(self, pvs: Sequence[str], *, timeout: float = TIMEOUT, name: str = "pvs") -> None:
        self.name = name
        self.pvs = tuple(pvs)
        self.timeout = timeout
        self.readings: dict[str, PvReading] = {}
        self.unreachable: dict[str, str] = {}
        self._keys = unique_keys(self.pvs)
        self._channels: list[_Channel] = []
        self._began = 0.0

    # --- the RunEngine's side

    def trigger(self) -> Completion:
        """Connect and read, on a thread of its own."""
        done = Completion()

        def work() -> None:
            try:
                self.take()
            except Exception as error:
                done.finish(error)
            else:
                done.finish()

        threading.Thread(target=work, name="snapshot", daemon=True).start()
        return done

    def read(self) -> dict[str, dict[str, Any]]:
        """What was taken last."""
        return {
            self._keys[pv]: {"value": reading.value, "timestamp": reading.timestamp}
            for pv, reading in self.readings.items()
        }

    def describe(self) -> dict[str, dict[str, Any]]:
        """What is known of each PV that was taken."""
        return {self._keys[pv]: dict(reading.data_key) for pv, reading in self.readings.items()}

    def read_configuration(self) -> dict[str, Any]:
        """Nothing: PVs are values."""
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        """Nothing: PVs are values."""
        return {}

    def key_of(self, pv: str) -> str:
        """The data key of a PV."""
        return self._keys[pv]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.pvs)} PVs)"

    # --- Channel Access

    def connect(self) -> None:
        """Begin to connect; libca goes on with it while this process does other things."""
        if self._channels:
            return
        self._began = time.monotonic()
        ca = attach()
        for pv in self.pvs:
            new = ca.get_cache(pv) is None
            self._channels.append(_Channel(pv, ca.create_channel(pv, auto_cb=False), new))
        ca.flush_io()

    def take(self) -> None:
        """Connect what is not connected, then read all; sets `readings` and `unreachable`."""
        ca = attach()
        self.connect()
        self.readings, self.unreachable = {}, {}
        connected = self._wait_for_channels(ca)
        self._ask(ca, connected)
        deadline = time.monotonic() + self.timeout
        for channel in connected:
            if channel.name in self.unreachable:
                continue
            try:
                self.readings[channel.name] = _reading(ca, channel, deadline)
            except _NoValueError as error:
                self.unreachable[channel.name] = str(error) or _too_slow(ca, channel, self.timeout)
        self.unreachable = {pv: self.unreachable[pv] for pv in self.pvs if pv in self.unreachable}
        self._forget_unconnected(ca)

    def _wait_for_channels(self, ca: Any) -> list[_Channel]:
        """Those that are connected by the deadline, in the order given."""
        deadline = self._began + self.timeout
        while True:
            waiting = [channel for channel in self._channels if not ca.isConnected(channel.chid)]
            if not waiting or time.monotonic() >= deadline:
                break
            time.sleep(POLL)
        for channel in waiting:
            was_there = ca.state(channel.chid) == _LOST
            self.unreachable[channel.name] = GONE if was_there else f"no answer in {self.timeout:g} s"
        absent = {channel.name for channel in waiting}
        return [channel for channel in self._channels if channel.name not in absent]

    def _ask(self, ca: Any, channels: Iterable[_Channel]) -> None:
        """Ask for all values, then for all units and limits; waits for none."""
        for wanted in (_TIME, _CTRL):
            for channel in channels:
                if channel.name in self.unreachable:
                    continue
                native = ca.field_type(channel.chid)
                if not STRING <= native <= DOUBLE:
                    self.unreachable[channel.name] = GONE
                    continue
                if native == STRING and wanted == _CTRL:  # text has no units
                    continue
                count = None if wanted == _TIME else 1
                try:
                    ca.get_with_metadata(channel.chid, ftype=native + wanted, count=count, wait=False)
                except Exception as error:  # whatever libca refuses
                    self.unreachable[channel.name] = _refusal(ca, channel, error)
                else:
                    channel.pending.append(native + wanted)
        ca.flush_io()

    def _forget_unconnected(self, ca: Any) -> None:
        """Search no longer for what has not answered, unless somebody else of this process does."""
        for channel in self._channels:
            if channel.new and channel.name in self.unreachable and not ca.isConnected(channel.chid):
                ca.clear_channel(channel.chid)
        self._channels = []
        ca.flush_io()


class _NoValueError(Exception):
    """A PV that was connected gave no value; the message says why, or nothing if it was too slow."""


def _reading(ca: Any, channel: _Channel, deadline: float) -> PvReading:
    found: dict[str, Any] = {}
    for ftype in channel.pending:
        count = None if ftype < _CTRL else 1
        left = max(0.01, deadline - time.monotonic())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pyepics warns of what we tell
                got = ca.get_complete_with_metadata(channel.chid, ftype=ftype, count=count, timeout=left)
        except ca.ChannelAccessGetFailure as error:
            raise _NoValueError(_refusal(ca, channel, error)) from error
        except Exception as error:
            raise _NoValueError(" ".join(str(error).split())) from error
        if got is None:
            raise _NoValueError
        if ftype >= _CTRL:
            got.pop("value")
        found |= got
    value = found.pop("value")
    native, count = channel.pending[0] - _TIME, ca.element_count(channel.chid)
    value = plain_value(value, native, count)
    return PvReading(
        channel.name,
        value,
        float(found.get("timestamp") or time.time()),
        data_key(f"PV:{channel.name}", value, found),
        bool(ca.write_access(channel.chid)),
        count,
    )


def _refusal(ca: Any, channel: _Channel, error: Exception) -> str:
    """Why libca, or the IOC, gave no value."""
    if not ca.isConnected(channel.chid):
        return GONE
    status = getattr(error, "status", None)
    if status == _TOO_LARGE:
        return _too_large(ca, channel)
    return " ".join(str(error).split()) if status is None else str(ca.message(status)).strip()


def _too_slow(ca: Any, channel: _Channel, timeout: float) -> str:
    """Why no value came; what is larger than the set array size, libca drops without a word."""
    if not ca.isConnected(channel.chid):
        return GONE
    native = channel.pending[0] - _TIME
    size = ca.element_count(channel.chid) * _BYTES[native]
    limit = int(os.environ.get("EPICS_CA_MAX_ARRAY_BYTES") or _LEAST_ARRAY_BYTES)
    if os.environ.get("EPICS_CA_AUTO_ARRAY_BYTES", "YES").upper() == "NO" and size > max(limit, _LEAST_ARRAY_BYTES):
        return _too_large(ca, channel)
    return f"it was connected, but sent no value in {timeout:g} s"


def _too_large(ca: Any, channel: _Channel) -> str:
    limit = os.environ.get("EPICS_CA_MAX_ARRAY_BYTES") or _LEAST_ARRAY_BYTES
    return (
        f"its {ca.element_count(channel.chid)} values are more than EPICS_CA_MAX_ARRAY_BYTES={limit} lets through: "
        "set it higher, here and at the IOC"
    )


def plain_value(value: Any, native: int, count: int) -> Any:
    """A value as documents keep it.

    Args:
        value: What pyepics gave.
        native: The field type of Channel Access.
        count: How many values the PV can hold.
    """
    if native == CHAR and count > 1:
        return text_of(np.atleast_1d(np.asarray(value, dtype=np.uint8)))
    if native == STRING:
        return [str(item) for item in value] if isinstance(value, list | tuple) else str(value)
    if count > 1:
        return np.atleast_1d(np.asarray(value))
    return value.item() if isinstance(value, np.generic) else value


def text_of(characters: np.ndarray) -> Any:
    """The text in an array of characters, or the array itself, if it holds something else.

    Text ends at the first zero; nothing but zeros may follow it, and all of it must be printable.
    """
    raw = characters.tobytes()
    text, _, rest = raw.partition(b"\0")
    if rest.strip(b"\0"):
        return characters
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        return characters
    return decoded if all(c.isprintable() or c in "\t\n\r" for c in decoded) else characters


def data_key(source: str, value: Any, known: dict[str, Any]) -> dict[str, Any]:
    """What a descriptor says of a value, in the words of ophyd's `describe()`."""
    key: dict[str, Any] = {"source": source}
    if isinstance(value, np.ndarray):
        key |= {"dtype": "array", "shape": [value.size], "dtype_numpy": value.dtype.str}
    elif isinstance(value, list):
        key |= {"dtype": "array", "shape": [len(value)], "dtype_numpy": np.asarray(value, dtype=str).dtype.str}
    else:
        kind = "string" if isinstance(value, str) else "integer" if isinstance(value, int) else "number"
        key |= {"dtype": kind, "shape": []}
    for name in ("units", "precision", "lower_ctrl_limit", "upper_ctrl_limit"):
        if known.get(name) not in (None, ""):
            key[name] = known[name]
    if known.get("enum_strs"):
        key["enum_strs"] = list(known["enum_strs"])
    return key


def unique_keys(pvs: Iterable[str]) -> dict[str, str]:
    """A data key for each PV: its name with `_` for what a key may not have, numbered where two would be one."""
    keys: dict[str, str] = {}
    taken: set[str] = set()
    for pv in pvs:
        base = re.sub(r"\W", "_", pv, flags=re.ASCII)
        base = f"_{base}" if base[:1].isdigit() else base
        key, number = base, 2
        while key in taken:
            key, number = f"{base}_{number}", number + 1
        taken.add(key)
        keys[pv] = key
    return keys
