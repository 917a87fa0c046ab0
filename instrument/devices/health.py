"""Whether each device answers: connecting, connected, offline or disabled."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ophyd.signal import EpicsSignalBase, Signal

from instrument.config.names import LOGGER_NAME
from instrument.devices import offline
from instrument.devices.errors import OfflineError
from instrument.devices.listing import prefix_of

if TYPE_CHECKING:
    from bluesky import Msg
    from pyRestTable import Table

    from instrument.config.models import DeviceSpec

logger = logging.getLogger(LOGGER_NAME)

State = Literal["connected", "offline", "disabled", "connecting"]

POLL = 0.005  # s; while somebody waits for the devices
LOOK = 1.0  # s; how often the background thread looks even if nothing told it to
TOGETHER = 0.3  # s; changes that follow each other faster are told in one line
# Messages that act on a device, hence need it.
COMMANDS = frozenset(
    "collect complete configure kickoff locate monitor prepare read set stage trigger".split()  # as bluesky has them
)


@dataclass(frozen=True)
class DeviceState:
    """What is known of a device.

    Attributes:
        name: The device's name.
        prefix: Its PV prefix; empty for one without PVs.
        state: Whether it answers.
        first_dead_pv: The first PV that does not answer.
        since: When it came to this state (s since the epoch).
    """

    name: str
    prefix: str
    state: State
    first_dead_pv: str | None
    since: float

    def line(self) -> str:
        """The state in one line."""
        if self.state == "offline":
            return f"{self.name} is offline: {offline.no_answer(self.first_dead_pv, self.prefix)}"
        return f"{self.name} is {self.state}"


class Health:
    """Connects devices, keeps trying those that are offline, and tells what becomes of them.

    Args:
        devices: The devices by name; what `registry.build` gave tells which are waited for, and which are disabled.
        timeout: One deadline (s) for all of them.
        core: Names of the devices that `connect_all` waits for; by default what `devices` says, else all.
        on_change: Called at once with the new state of each device that changed after `connect_all`, on any thread.
        tell: Called with a line about devices that went offline or came back, those of a moment together.
    """

    def __init__(
        self,
        devices: Mapping[str, Any],
        timeout: float = 3.0,
        *,
        core: Collection[str] | None = None,
        on_change: Callable[[DeviceState], object] | None = None,
        tell: Callable[[str], object] = logger.warning,
    ) -> None:
        self._devices = devices
        self._timeout = timeout
        self._core = _core_of(devices) if core is None else set(core)
        self._on_change = on_change
        self._tell = tell
        self._untold: dict[str, DeviceState] = {}
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._watched: set[int] = set()
        self._prepared: set[str] = set()  # devices whose hook was called since they answered
        self._deadline = time.monotonic() + timeout
        self._expected: dict[str, float] = {}  # devices that have a later deadline than the others
        self._announcing = False
        now = time.time()
        self._states = {name: DeviceState(name, prefix_of(d), "connecting", None, now) for name, d in devices.items()}
        self._disabled = [
            DeviceState(spec.name or spec.cls, str(spec.kwargs.get("prefix", "")), "disabled", None, now)
            for spec in _disabled_of(devices)
        ]

    # --- what there is to know

    @property
    def states(self) -> dict[str, DeviceState]:
        """The state of each device, disabled ones included."""
        with self._lock:
            return {**self._states, **{state.name: state for state in self._disabled}}

    def names(self, state: State) -> list[str]:
        """Names of the devices in a state."""
        return [name for name, known in self.states.items() if known.state == state]

    def usable(self, obj: Any) -> bool:
        """Whether an object can be used now: it is no device of ours, or its device is connected."""
        known = self._state_of(obj)
        return known is None or known.state == "connected"

    def summary(self) -> str:
        """One line: `31 devices, 2 offline: adsimdet, dcm`."""
        found = {state: self.names(state) for state in ("offline", "connecting", "disabled")}
        told = [f"{len(names)} {state}: {', '.join(names)}" for state, names in found.items() if names]
        return ", ".join([f"{len(self.states)} devices", *told])

    def table(self) -> Table:
        """The table that `devices()` prints."""
        import pyRestTable

        table = pyRestTable.Table()
        table.labels = ["name", "class", "prefix", "labels", "state", "since", "first dead PV"]
        for name, known in self.states.items():
            device = self._devices.get(name)
            kind = type(device).__name__ if device is not None else ""
            labels = " ".join(sorted(getattr(device, "_ophyd_labels_", ())))
            since = time.strftime("%H:%M:%S", time.localtime(known.since))
            table.addRow((name, kind, known.prefix, labels, known.state, since, known.first_dead_pv or ""))
        return table

    # --- use

    def require(self, obj: Any) -> None:
        """Raise if an object can't be used.

        Args:
            obj: A device or a component of one; objects that are no part of our devices are no business of ours.

        Raises:
            OfflineError: One line that names the device, the first dead PV and the prefix.
        """
        known = self._state_of(obj)
        if known is None or known.state == "connected":
            return
        if known.state == "connecting" and self._wait_for(known.name):
            return
        raise self.error(obj)

    def error(self, obj: Any) -> OfflineError:
        """What using an object raises while its device is offline."""
        known = self._state_of(obj)
        return offline.error(obj, known.first_dead_pv if known else None)

    def check_message(self, msg: Msg) -> None:
        """Raise if a message of a plan acts on a device that can't be used.

        Raises:
            OfflineError: See `require`.
        """
        if msg.command in COMMANDS and msg.obj is not None:
            self.require(msg.obj)

    # --- connecting

    def connect_all(self) -> dict[str, DeviceState]:
        """Wait until the core devices answer, or until the deadline; the PVs of all connect at the same time.

        Returns:
            The states. Devices that are not core may still be connecting; `start()` follows them.
        """
        self._deadline = time.monotonic() + self._timeout
        waiting = [name for name in self._devices if name in self._core]
        while True:
            self._look(waiting)
            waiting = [name for name in waiting if self._states[name].state == "connecting"]
            if not waiting:
                break
            if time.monotonic() >= self._deadline:
                for name in waiting:
                    self._change(name, "offline")
                break
            time.sleep(POLL)
        self._look(self._devices)
        self._announcing = True
        return self.states

    def expect(self, prefix: str, seconds: float) -> None:
        """Give the devices of an IOC that has only been started some time (s), from now on."""
        deadline = time.monotonic() + seconds
        self._expected |= {name: deadline for name, known in self._states.items() if known.prefix.startswith(prefix)}

    def wait_for(self, names: Iterable[str]) -> None:
        """Wait for those devices of these names that are still connecting, each not longer than its deadline."""
        for name in names:
            if name in self._states:
                self._wait_for(name)

    def _deadline_of(self, name: str) -> float:
        return max(self._deadline, self._expected.get(name, self._deadline))

    def start(self) -> None:
        """Follow the devices on a thread of its own until `stop()`."""
        if self._thread is None or not self._thread.is_alive():
            self._ended.clear()
            self._announcing = True
            self._thread = threading.Thread(target=self._follow, daemon=True, name="device health")
            self._thread.start()

    def stop(self) -> None:
        """End the thread that `start()` began.

        Devices that are still connecting are waited for: ophyd's exit handlers can crash amidst that.
        """
        end = min(max([self._deadline, *self._expected.values()]), time.monotonic() + LOOK)
        while time.monotonic() < end and not all(offline.answers(self._devices[n]) for n in self.names("connecting")):
            time.sleep(POLL)
        self._ended.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=2.0)

    def _follow(self) -> None:
        changed = time.monotonic()
        while not self._ended.is_set():
            self._wake.wait(POLL * 10 if self._untold or self.names("connecting") else LOOK)
            self._wake.clear()
            untold = len(self._untold)
            try:
                self._look(self._devices)
                now = time.monotonic()
                for name in self.names("connecting"):
                    if now > self._deadline_of(name):
                        self._change(name, "offline")
                if len(self._untold) != untold:
                    changed = now
                elif untold and now - changed > TOGETHER:
                    self._tell_changes()
            except Exception:
                logger.exception("looking after the devices failed; it goes on")

    def _wait_for(self, name: str) -> bool:
        """Wait for a device that is connecting, not longer than its deadline."""
        while self._states[name].state == "connecting" and time.monotonic() < self._deadline_of(name):
            self._look([name])
            if self._states[name].state == "connecting":
                time.sleep(POLL)
        return self._states[name].state == "connected"

    def _look(self, names: Iterable[str]) -> None:
        """Bring the states up to date with what the PVs say."""
        for name in list(names):
            device, known = self._devices[name], self._states[name]
            answers = offline.answers(device)
            if answers and known.state != "connected":
                self._connected(name, device)
            elif answers:
                self._watch(device)  # what was made at first use meanwhile
            elif known.state == "connected":
                self._change(name, "offline")
            else:
                self._prepared.discard(name)

    def _connected(self, name: str, device: Any) -> None:
        """A device has answered; let it do what it must know from its hardware."""
        with self._lock:
            if self._states[name].state == "connected":
                return
            if name not in self._prepared:
                offline.bring_online(device)
                try:
                    getattr(device, "after_connection", _nothing)()
                except Exception as error:
                    if not offline.answers(device):  # lost again meanwhile
                        if self._states[name].state == "offline":
                            offline.take_offline(device)
                        return
                    logger.warning("%s: is connected, but: %s", name, error)
                self._prepared.add(name)
            if not getattr(device, "connected", True) and time.monotonic() < self._deadline_of(name):
                return  # it has made components that are still connecting
            self._change(name, "connected")

    def _change(self, name: str, state: State) -> None:
        with self._lock:
            device, known = self._devices[name], self._states[name]
            if known.state == state:
                return
            dead = offline.first_dead_pv(device) if state == "offline" else None
            self._states[name] = replace(known, state=state, first_dead_pv=dead, since=time.time())
            self._watch(device)
            if state == "offline":
                self._prepared.discard(name)
                offline.take_offline(device)
        if self._announcing:
            self._announce(self._states[name], known)

    def _announce(self, new: DeviceState, old: DeviceState) -> None:
        logger.debug("%s", new.line())
        if "offline" in {new.state, old.state}:
            with self._lock:
                self._untold[new.name] = new
            self._wake.set()
        if self._on_change is not None:
            self._on_change(new)

    def _tell_changes(self) -> None:
        with self._lock:
            changes, self._untold = list(self._untold.values()), {}
        for state, word in (("offline", "offline"), ("connected", "back")):
            named = [change for change in changes if change.state == state]
            if not named:
                continue
            first = named[0]
            why = f": {offline.no_answer(first.first_dead_pv, first.prefix)}" if state == "offline" else ""
            if len(named) == 1:
                self._tell(f"{first.name} is {word}{why}")
            else:
                self._tell(f"{len(named)} devices are {word} ({', '.join(change.name for change in named)}){why}")

    def _watch(self, device: Any) -> None:
        """Be woken when a PV of a device comes or goes."""
        for part in offline.parts(device):
            if isinstance(part, EpicsSignalBase) and id(part) not in self._watched:
                self._watched.add(id(part))
                part.subscribe(self._told, event_type=Signal.SUB_META, run=False)

    def _told(self, connected: bool = True, obj: Any = None, **_: Any) -> None:
        known = self._state_of(obj)
        if known is not None and connected != (known.state == "connected"):
            self._wake.set()

    def _state_of(self, obj: Any) -> DeviceState | None:
        root = getattr(obj, "root", obj)
        known = self._states.get(getattr(root, "name", ""))
        return known if known is not None and self._devices.get(known.name) is root else None


def _core_of(devices: Mapping[str, Any]) -> set[str]:
    core = getattr(devices, "core", None)
    return set(devices) if core is None else set(core)


def _disabled_of(devices: Mapping[str, Any]) -> list[DeviceSpec]:
    return list(getattr(devices, "disabled", ()))


def _nothing() -> None:
    """What most devices do when they have answered."""
