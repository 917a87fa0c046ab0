"""Ports: each is a set of named values, served as records, with a behaviour; ADCore: asynPortDriver."""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, NoReturn

from virtual_beamline.area_detector.parameters import Parameter
from virtual_beamline.epics import ParameterDevice, PutRefusedError, PvNameLink, Record, RecordSpec, base
from virtual_beamline.records.busy import Busy

logger = logging.getLogger("virtual_beamline")

RECORD_TYPES = (
    "ai",
    "ao",
    "bi",
    "bo",
    "longin",
    "longout",
    "mbbi",
    "mbbo",
    "stringin",
    "stringout",
    "waveform",
)


TELL_EACH = 0.05
"""s between updates of values that change with each frame: each costs as much as a small frame's work."""


class Port:
    """A set of parameters with a behaviour; subclass it to make a driver or a plugin.

    Values are read as ``self["Gain"]`` and written as ``self.set(Gain=2.0)``, which tells the clients at once. Both may
    be done on any thread; :meth:`set` must not be called while holding a lock that :meth:`write` takes.
    """

    parameters: ClassVar[tuple[Parameter, ...]] = ()
    """Of this class; after those of its base classes; one of the same name takes the place of theirs."""

    def __init__(self, detector: Detector, prefix: str, name: str) -> None:
        """Make a port.

        Args:
            detector: whose port it is.
            prefix: of its PVs, after the detector's own, e.g. ``"cam1:"``.
            name: what other ports call it, e.g. ``"SIM1"``.
        """
        self.detector = detector
        self.prefix = f"{detector.prefix}{prefix}"
        self.name = name
        self.by_name = {parameter.name: parameter for parameter in self.all_parameters()}
        self._values = {name: parameter.default for name, parameter in self.by_name.items()}
        detector.add(self)

    @classmethod
    def all_parameters(cls) -> Iterator[Parameter]:
        """The parameters of the class and its base classes."""
        found: dict[str, Parameter] = {}
        for kind in reversed(cls.__mro__):
            found |= {parameter.name: parameter for parameter in kind.__dict__.get("parameters", ())}
        yield from found.values()

    def records(self) -> Iterator[RecordSpec]:
        """The records of the port; extend it for records that are no parameters."""
        for parameter in self.by_name.values():
            yield from parameter.records(self.prefix)

    # -- what a driver or a plugin implements ---------------------------------------------------------------

    def write(self, name: str, value: Any) -> None:
        """A client has put a value; the default takes it. Called under the lock of the setpoint's record.

        Raises:
            PutRefusedError: the value is none that it can have.
        """
        self.set(**{name: value})

    def started(self) -> None:
        """Called once when the IOC serves."""

    # -- values ---------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def set(self, **values: Any) -> None:
        """Set values and tell clients of those that changed."""
        self.show(self.take(**values))

    def take(self, **values: Any) -> list[str]:
        """Set values without telling anyone; gives the names of those that changed, for :meth:`show`.

        So values can be set under a lock that :meth:`write` takes, too, and shown without it.
        """
        return [name for name, value in values.items() if self._change(name, value)]

    def show(self, names: Iterable[str]) -> None:
        """Tell clients the present values."""
        for name in names:
            self.detector.publish(self, name)

    def show_soon(self, names: Iterable[str]) -> None:
        """The same for values that change with each frame, see :meth:`set_soon`."""
        for name in names:
            self.detector.publish_soon(self, name)

    def set_soon(self, **values: Any) -> None:
        """Set values that change with each frame: clients are told at once if they change rarely, else now and then.

        :meth:`Detector.tell_all` tells what has not been told yet.
        """
        self.show_soon(self.take(**values))

    def _change(self, name: str, value: Any) -> bool:
        before = self._values[name]
        self._values[name] = value
        if isinstance(value, int | float | str):
            return value != before
        return True

    def set_back(self, **values: Any) -> None:
        """Set values and show them in the setpoints' records too, soon, on a thread that holds no lock.

        That is how a command ends (``set_back(Capture=0)``), and how a setpoint follows, as FileNumber does.
        """
        self.set(**values)
        for name in values:
            self.detector.show_setpoint(self, name)

    def put(self, name: str, value: Any) -> None:
        """A client has put a value."""
        parameter = self.by_name[name]
        if isinstance(value, float) and math.isnan(value):
            self.refuse(name, value, "it is no number")
        if parameter.choices and not 0 <= value < len(parameter.choices):
            self.refuse(name, value, f"there are {len(parameter.choices)} choices")
        self.write(name, value)

    def refuse(self, name: str, value: object, why: str) -> NoReturn:
        """Refuse a value that a client has put.

        Raises:
            PutRefusedError: always.
        """
        msg = f"{name} = {value} refused: {why}"
        if "StatusMessage" in self.by_name:
            self.set(StatusMessage=msg)
        raise PutRefusedError(msg)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.prefix} {self.name}>"


class PortBusy(Busy):
    """A busy record whose value is a parameter of a port, instead of going through OUT only."""

    detector: ClassVar[Detector]

    def started(self) -> None:
        """Have a time from the start."""
        self.publish()

    def _write(self) -> None:
        super()._write()
        self.detector.client_put(self.name, self.VAL)

    def show(self, value: int) -> None:
        """Take a value from the port; 0 completes the put that waits."""
        with self.lock():
            if self.VAL == value:
                return
            self.VAL = value
            self.publish("VAL")
            if not value:
                self.complete()


class Detector:
    """All ports of one area detector IOC, and their way to EPICS base."""

    def __init__(self, prefix: str) -> None:
        """Make a detector without ports.

        Args:
            prefix: of all PVs, e.g. ``"ad:"``.
        """
        self.prefix = prefix
        self.ports: dict[str, Port] = {}
        self._owners: dict[str, tuple[Port, str, bool]] = {}
        self._devices = {kind: ParameterDevice(kind, self) for kind in RECORD_TYPES}
        self._readbacks: dict[tuple[str, str], tuple[ParameterDevice, int]] = {}
        self._setpoints: dict[tuple[str, str], Callable[[], None]] = {}
        self._addresses: dict[tuple[str, str], int] = {}
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._told: dict[tuple[str, str], float] = {}
        self._untold: dict[tuple[str, str], Port] = {}
        self._telling = threading.Event()
        self._teller = threading.RLock()
        self._queued = 0
        self._queued_lock = threading.Lock()
        self.queue_changed: Callable[[int], None] = lambda _: None
        """Called with the number of arrays that wait in plugins, or are worked on, whenever it changes."""

    def add(self, port: Port) -> None:
        """Called by each port when it is made."""
        self.ports[port.name] = port
        for name, parameter in port.by_name.items():
            if parameter.setpoint:
                self._owners[f"{port.prefix}{name}"] = (port, name, True)
            if parameter.readback:
                self._owners[f"{port.prefix}{name}{parameter.suffix}"] = (port, name, False)

    @property
    def devices(self) -> list[ParameterDevice]:
        """What EPICS base has to know before the records are loaded."""
        return list(self._devices.values())

    @property
    def record_types(self) -> list[type[Record]]:
        """Our record types that its database uses."""
        PortBusy.detector = self
        return [PortBusy]

    def records(self) -> Iterator[RecordSpec]:
        """The records of all ports."""
        for port in self.ports.values():
            yield from port.records()

    def start(self) -> None:
        """Connect values with records, which exist by now, and let the ports begin."""
        busy = {record.name: record for record in PortBusy.instances.values() if isinstance(record, PortBusy)}
        for record, (port, name, is_setpoint) in self._owners.items():
            parameter, key = port.by_name[name], (port.name, name)
            found = base.address(record)
            if found is None:
                msg = f"there is no record {record}"
                raise LookupError(msg)
            address = found.record
            if not is_setpoint:
                self._readbacks[key] = (self._devices[parameter.readback], address)
                continue
            self._addresses[key] = address
            if record in busy:
                self._setpoints[key] = lambda shown=busy[record], port=port, name=name: shown.show(port[name])
            else:
                device = self._devices[parameter.setpoint]
                self._setpoints[key] = lambda device=device, address=address: device.publish(address)
        threading.Thread(target=self._run, name="setpoints", daemon=True).start()
        threading.Thread(target=self._tell, name="readbacks", daemon=True).start()
        for port in self.ports.values():
            port.started()

    # -- what the records ask (ParameterServer) ---------------------------------------------------------------

    def is_setpoint(self, record: str) -> bool:
        """Whether clients write it."""
        return self._owners[record][2]

    def value_of(self, record: str) -> Any:
        """What it shows."""
        port, name, _ = self._owners[record]
        return port[name]

    def client_put(self, record: str, value: Any) -> None:
        """A client has put to it."""
        port, name, _ = self._owners[record]
        port.put(name, value)

    # -- what the ports ask -----------------------------------------------------------------------------------

    def publish(self, port: Port, name: str) -> None:
        """Show a value in its readback's record."""
        target = self._readbacks.get((port.name, name))
        if target is not None:
            device, address = target
            device.publish(address)

    def publish_soon(self, port: Port, name: str) -> None:
        """Show a value in its readback's record, at most each :data:`TELL_EACH` s."""
        now = time.monotonic()
        key = (port.name, name)
        if now - self._told.get(key, 0.0) >= TELL_EACH:
            self._told[key] = now
            self.publish(port, name)
            return
        self._untold[key] = port  # in this order: the teller may be clearing it
        if not self._telling.is_set():
            self._telling.set()

    def tell_all(self) -> None:
        """Show what :meth:`publish_soon` has not shown yet."""
        with self._teller:  # when it returns, what another thread is telling has been told, too
            while self._untold:
                (_, name), port = self._untold.popitem()
                self._told[port.name, name] = time.monotonic()
                self.publish(port, name)

    def _tell(self) -> None:
        while True:
            self._telling.wait()
            self._telling.clear()
            time.sleep(TELL_EACH)
            self.tell_all()

    def show_setpoint(self, port: Port, name: str) -> None:
        """Show a value in its setpoint's record, soon."""
        show = self._setpoints.get((port.name, name))
        if show is not None:
            self.later(show)

    def count_queued(self, change: int) -> None:
        """Arrays have been queued in a plugin (1), or are done with (-1)."""
        with self._queued_lock:
            self._queued += change
            count = self._queued
        self.queue_changed(count)

    @property
    def queued(self) -> int:
        """How many arrays wait in plugins, or are worked on."""
        return self._queued

    @contextlib.contextmanager
    def locked(self, port: Port, name: str) -> Iterator[None]:
        """Hold the lock of a setpoint's record: clients that put to it wait."""
        record = self._addresses[port.name, name]
        base.dbScanLock(record)
        try:
            yield
        finally:
            base.dbScanUnlock(record)

    def show_setpoint_now(self, port: Port, name: str) -> None:
        """As :meth:`show_setpoint`, at once; only where no lock is held but that of this record (:meth:`locked`)."""
        self._setpoints[port.name, name]()

    def link_to(self, pv: str) -> PvNameLink:
        """A link to any PV."""
        owner = next(iter(PortBusy.instances.values()))
        with owner.lock():
            return PvNameLink(owner, pv)

    def later(self, function: Callable[[], None]) -> None:
        """Call it soon, on a thread that holds no lock."""
        self._work.put(function)

    def _run(self) -> None:
        while True:
            function = self._work.get()
            try:
                function()
            except Exception:
                logger.exception("showing a setpoint failed")
