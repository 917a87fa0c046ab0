"""What drivers and plugins have in common, and what plugins have: queue, counters, switches.

ADCore: asynNDArrayDriver and NDPluginDriver; the package's docstring says how to write a plugin.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from virtual_beamline.area_detector import parameters as p
from virtual_beamline.area_detector.attributes import AttributeList
from virtual_beamline.area_detector.ndarray import COLOR_MODES, DATA_TYPES, Attribute, NDArray
from virtual_beamline.area_detector.port import Detector, Port
from virtual_beamline.epics import RecordSpec

logger = logging.getLogger("virtual_beamline")

ADCORE_VERSION = "3.13.0"
"""Release of ADCore whose documentation the ports follow."""
DIMENSIONS = 10
_MEGABYTE = 1 << 20
_MAX_QUEUE = 10_000


class ArrayPort(Port):
    """A port that passes NDArrays on to those that are plugged into it."""

    driver_version: ClassVar[str] = ADCORE_VERSION
    addresses: ClassVar[int] = 1
    """At address 0 are the arrays; a port that passes on other ones, too, has more of them (NDArrayAddress)."""
    parameters = (
        p.string("PortName", "", "Name of this port").readonly(),
        p.string("ADCoreVersion", ADCORE_VERSION, "Release of ADCore that it acts like").readonly(),
        p.string("DriverVersion", "", "Release of the driver or plugin").readonly(),
        p.integer("ArrayCounter", 0, "Arrays so far; may be set"),
        p.switch("ArrayCallbacks", ("Disable", "Enable"), 1, "Pass arrays on to other plugins"),
        p.integer("NDimensions", 0, "Number of dimensions of the last array"),
        p.array("Dimensions", "LONG", DIMENSIONS, "Its sizes, the fastest first"),
        *(p.integer(f"ArraySize{n}", 0, f"Size of dimension {n}").readonly() for n in range(DIMENSIONS)),
        p.integer("ArraySizeX", 0, "Its size in X", "pixels").readonly(),
        p.integer("ArraySizeY", 0, "Its size in Y", "pixels").readonly(),
        p.integer("ArraySizeZ", 0, "Its number of colors, or 0").readonly(),
        p.integer("ArraySize", 0, "Its size", "bytes").readonly(),
        p.choice("DataType", DATA_TYPES, 1, "Type of its pixels"),
        p.choice("ColorMode", COLOR_MODES, 0, "Arrangement of its colors"),
        p.choice("BayerPattern", ("RGGB", "GBRG", "GRBG", "BGGR"), 0, "Colors of a Bayer sensor").readonly(),
        p.integer("UniqueId", 0, "Its number").readonly(),
        p.number("TimeStamp", 0.0, "When it was taken, since 1970", "s").readonly(),
        p.integer("EpicsTSSec", 0, "When it was taken, since 1990", "s").readonly(),
        p.integer("EpicsTSNsec", 0, "and nanoseconds", "ns").readonly(),
        p.string("Codec", "", "How its pixels are compressed").readonly(),
        p.integer("CompressedSize", 0, "Its size, compressed", "bytes").readonly(),
        p.text("NDAttributesFile", "", "XML that defines attributes").write_only(),
        p.text("NDAttributesMacros", "", "Macros in that XML, A=1,B=2").write_only(),
        p.choice(
            "NDAttributesStatus",
            ("Attributes file OK", "File not found", "XML syntax error", "Macro substitution error"),
            1,
            "What became of that XML",
        ).readonly(""),
        p.number("PoolMaxMem", 0.0, "Memory that its arrays may take; 0: any", "MB", 1).readonly(""),
        p.number("PoolUsedMem", 0.0, "Memory that its arrays take", "MB", 1).readonly(""),
        p.integer("PoolAllocBuffers", 0, "Its arrays that are in use").readonly(""),
    )

    def __init__(self, detector: Detector, prefix: str, name: str) -> None:
        super().__init__(detector, prefix, name)
        self._listeners: tuple[Plugin, ...] = ()
        self._listeners_lock = threading.Lock()
        self.last_arrays: dict[int, NDArray] = {}
        """What it has passed on last, by address; before the first frame an empty one of the right size and type."""
        self.attribute_list = AttributeList(self)
        self._arrays_in_use: dict[int, int] = {}
        self.set(PortName=name, DriverVersion=self.driver_version)

    def records(self) -> Iterator[RecordSpec]:
        """Those of the parameters, the rate, and what follows from the others."""
        yield from super().records()
        rate, counter = f"{self.prefix}ArrayRate_RBV", f"{self.prefix}ArrayCounter_RBV"
        yield RecordSpec(
            rate,
            "calc",
            "Arrays per second",
            {
                "INPA": f"{rate}.LB NPP NMS",  # the counter a second ago
                "INPB": f"{counter} NPP NMS",
                "CALC": "MAX(0,B-A)",
                "PREC": 2,
                "EGU": "Hz",
                "SCAN": "1 second",
            },
        )

    def choice(self, name: str) -> str:
        """The text of a choice."""
        return self.by_name[name].choices[self[name]]

    # -- arrays -----------------------------------------------------------------------------------------------

    def show_array(self, array: NDArray, at_once: bool = False) -> None:
        """Show size, type, number and time of an array in the parameters; ``at_once`` if it is not one of many."""
        x, y, z = self.shown_size(array)
        dimensions = array.dimensions
        seconds, nanoseconds = array.epics_time
        if self["Dimensions"] != list(dimensions):
            sizes = {f"ArraySize{n}": dimensions[n] if n < len(dimensions) else 0 for n in range(DIMENSIONS)}
            self.set(**sizes, Dimensions=list(dimensions), NDimensions=len(dimensions))
        colors = self.by_name["ColorMode"].choices
        (self.set if at_once else self.set_soon)(
            ArraySizeX=x,
            ArraySizeY=y,
            ArraySizeZ=z,
            ArraySize=array.data.nbytes,
            DataType=array.data_type,
            ColorMode=colors.index(COLOR_MODES[array.color_mode]),
            CompressedSize=array.data.nbytes,
            UniqueId=array.unique_id,
            TimeStamp=array.time_stamp,
            EpicsTSSec=seconds,
            EpicsTSNsec=nanoseconds,
        )

    def shown_size(self, array: NDArray) -> tuple[int, int, int]:
        """What ArraySizeX, Y and Z show for an array."""
        return array.image_size

    def pass_on(self, array: NDArray, address: int = 0) -> None:
        """Give an array to all that are plugged in here, at this address."""
        self.last_arrays[address] = array
        if self["ArrayCallbacks"] or address:
            for listener in self._listeners:
                if listener["NDArrayAddress"] == address:
                    listener.receive(array)

    def announce(self, array: NDArray, address: int = 0) -> None:
        """Tell all that are plugged in here what arrays to expect, so that a file can be opened before the first."""
        self.last_arrays[address] = array
        for listener in self._listeners:
            if listener["NDArrayAddress"] == address:
                listener.expect(array)

    def made(self, array: NDArray) -> NDArray:
        """Count an array that this port has made among those in use, as long as anything has it."""
        self._arrays_in_use[id(array)] = array.data.nbytes
        weakref.finalize(array, self._arrays_in_use.pop, id(array), None).atexit = False
        return array

    def show_pool(self) -> None:
        """Show how many arrays are in use."""
        sizes = list(self._arrays_in_use.values())
        self.set(PoolAllocBuffers=len(sizes), PoolUsedMem=sum(sizes) / _MEGABYTE)

    # -- connections ------------------------------------------------------------------------------------------

    def plug_in(self, plugin: Plugin) -> None:
        """From now on ``plugin`` gets the arrays."""
        with self._listeners_lock:
            self._listeners = (*self._listeners, plugin)

    def unplug(self, plugin: Plugin) -> None:
        """Undo :meth:`plug_in`."""
        with self._listeners_lock:
            self._listeners = tuple(listener for listener in self._listeners if listener is not plugin)

    def leads_to(self, other: ArrayPort) -> bool:
        """Whether ``other`` gets arrays from here, directly or not."""
        return any(listener is other or listener.leads_to(other) for listener in self._listeners)

    def write(self, name: str, value: Any) -> None:
        """Take a value."""
        if name == "Dimensions":
            self.set(Dimensions=value)
            return
        super().write(name, value)
        if name in {"NDAttributesFile", "NDAttributesMacros"}:
            self.set(NDAttributesStatus=self.attribute_list.load(self["NDAttributesFile"], self["NDAttributesMacros"]))


class Plugin(ArrayPort):
    """Gets arrays from another port; implement :meth:`process` (see the package's docstring)."""

    plugin_type: ClassVar[str] = ""
    """What ADCore calls it; stock clients check it."""
    passes_on: ClassVar[bool] = True
    """ArrayCallbacks is Enable at boot, as ADCore has it for all but those at which arrays end."""
    counts_all: ClassVar[bool] = True
    """ArrayCounter counts each array; else the plugin calls :meth:`count_array` for those that it wants to."""
    parameters = (
        p.string("PluginType", "", "What this plugin is").readonly(),
        p.string("NDArrayPort", "", "Port whose arrays it gets"),
        p.integer("NDArrayAddress", 0, "Address at that port"),
        p.switch("EnableCallbacks", ("Disable", "Enable"), 0, "Take arrays"),
        p.number("MinCallbackTime", 0.0, "Least time between arrays that it takes", "s"),
        p.number("MaxArrayRate", 0.0, "The same as a rate; 0: any", "Hz"),
        p.switch("BlockingCallbacks", ("No", "Yes"), 0, "Work on the thread of its source"),
        p.integer("QueueSize", 20, "Arrays that can wait"),
        p.integer("QueueFree", 20, "Room for arrays").readonly(""),
        p.integer("QueueUse", 0, "Arrays that wait").readonly(""),
        p.integer("DroppedArrays", 0, "Arrays that found the queue full"),
        p.number("MaxByteRate", 0.0, "Most that it passes on; 0: any", "bytes/s"),
        p.integer("DroppedOutputArrays", 0, "Arrays not passed on for that"),
        p.number("ExecutionTime", 0.0, "Time that the last array took", "ms").readonly(),
        p.switch("ProcessPlugin", ("Done", "Process"), 0, "Work on the last array again").write_only(),
    )

    def __init__(self, detector: Detector, prefix: str, name: str, source: str) -> None:
        """Make a plugin.

        Args:
            detector: whose plugin it is.
            prefix: of its PVs, e.g. ``"image1:"``.
            name: of its port, e.g. ``"Image1"``.
            source: name of the port whose arrays it gets at first.
        """
        super().__init__(detector, prefix, name)
        self.set(PluginType=self.plugin_type, NDArrayPort=source, ArrayCallbacks=int(self.passes_on))
        self.lock = threading.RLock()
        """Held while an array is worked on: hold it in :meth:`write` where that must not be disturbed."""
        self._source: ArrayPort | None = None
        self._queue: collections.deque[NDArray] = collections.deque()
        self._arrived = threading.Condition()
        self._thread: threading.Thread | None = None
        self._accepted = 0.0
        self._input: NDArray | None = None  # the last one that came
        self._expected: NDArray | None = None  # like the next one: the last one, or what has been announced since
        self._passed_bytes, self._passed_at = 0.0, 0.0

    # -- what a plugin implements ----------------------------------------------------------------------------

    def process(self, array: NDArray) -> NDArray | None:
        """Work on an array, under :attr:`lock`. What it returns is passed on; None: nothing is.

        The default passes on what :meth:`output_of` makes of it.
        """
        return self.output_of(array)

    def output_of(self, array: NDArray) -> NDArray | None:
        """What it would pass on for ``array``; sets nothing. Used by :meth:`process` and before the first frame.

        A plugin that changes size, type or colors implements this.
        """
        return array

    def attributes(self) -> Mapping[str, Attribute]:
        """What it adds to the attributes of what it passes on."""
        return self.attribute_list.values()

    def count_array(self) -> None:
        """One more array."""
        self.set_soon(ArrayCounter=self["ArrayCounter"] + 1)

    # -- arrays ----------------------------------------------------------------------------------------------

    def receive(self, array: NDArray) -> None:
        """Called by the source on its thread for each array."""
        if not self["EnableCallbacks"]:
            return
        now = time.monotonic()
        if now - self._accepted < self["MinCallbackTime"]:
            return
        self._accepted = now
        if self["BlockingCallbacks"]:
            self._work_on(array)
            return
        with self._arrived:
            full = len(self._queue) >= self["QueueSize"]
            if not full:
                self._queue.append(array)
                self.detector.count_queued(1)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
                    self._thread.start()
                self._arrived.notify()
            waiting = len(self._queue)
        if full:
            self.set_soon(DroppedArrays=self["DroppedArrays"] + 1)
        self._show_queue(waiting)

    def _show_queue(self, waiting: int) -> None:
        self.set_soon(QueueUse=waiting, QueueFree=max(0, self["QueueSize"] - waiting))

    def _run(self) -> None:
        while True:
            with self._arrived:
                while not self._queue:
                    self._arrived.wait()
                array = self._queue.popleft()
                waiting = len(self._queue)
            self._show_queue(waiting)
            self._work_on(array)
            del array  # not kept until the next one comes
            self.detector.count_queued(-1)

    def _work_on(self, array: NDArray) -> None:
        with self.lock:
            began = time.perf_counter()
            output = None
            try:
                self._input = self._expected = array
                self.show_array(array)
                if self.counts_all:
                    self.count_array()
                output = self.process(array)
                if output is not None:
                    output = output.with_attributes(self.attributes())
            except Exception:
                logger.exception("%s: working on array %d failed", self.name, array.unique_id)
            self.set_soon(ExecutionTime=round((time.perf_counter() - began) * 1000, 3))
        if output is not None and self._may_pass(output):
            self.pass_on(output)

    def _may_pass(self, array: NDArray) -> bool:
        """MaxByteRate: what has not been used in the second before is no credit."""
        most = self["MaxByteRate"]
        if most <= 0 or not self["ArrayCallbacks"]:
            return True
        now = time.monotonic()
        self._passed_bytes = max(0.0, self._passed_bytes - most * (now - self._passed_at))
        self._passed_at = now
        if self._passed_bytes and self._passed_bytes + array.data.nbytes > most:
            self.set_soon(DroppedOutputArrays=self["DroppedOutputArrays"] + 1)
            return False
        self._passed_bytes += array.data.nbytes
        return True

    def expect(self, array: NDArray) -> None:
        """Called by the source when the next arrays will be like this one."""
        self._expected = array
        self._announce_output(array)

    def _announce_output(self, array: NDArray) -> None:
        self.show_array(array, at_once=True)
        try:
            output = self.output_of(array)
        except Exception:
            logger.exception("%s: cannot tell what it will pass on", self.name)
            return
        if output is not None:
            self.announce(output.with_attributes(self.attributes()))

    def expect_again(self) -> None:
        """Tell what to expect from here after a setting of this plugin has changed it."""
        if self._expected is not None:
            self._announce_output(self._expected)

    # -- settings --------------------------------------------------------------------------------------------

    def started(self) -> None:
        """Plug into the source."""
        self._plug_into(self["NDArrayPort"])

    def _plug_into(self, name: str) -> None:
        source = self.detector.ports.get(name)
        if self._source is not None:
            self._source.unplug(self)
        self._source = source if isinstance(source, ArrayPort) else None
        if self._source is not None:
            self._source.plug_in(self)
            array = self._source.last_arrays.get(self["NDArrayAddress"])
            if array is not None:
                self.expect(array)

    def write(self, name: str, value: Any) -> None:
        """Take a value."""
        match name:
            case "NDArrayPort":
                source = self.detector.ports.get(value)
                if not isinstance(source, ArrayPort):
                    known = ", ".join(port.name for port in self.detector.ports.values() if isinstance(port, ArrayPort))
                    self.refuse(name, value, f"there is no such port (there are {known})")
                if source is self or self.leads_to(source):
                    self.refuse(name, value, "it gets its own arrays from here")
                if self["NDArrayAddress"] >= source.addresses:
                    self.refuse(name, value, f"it has no NDArrayAddress {self['NDArrayAddress']}")
                super().write(name, value)
                self._plug_into(value)
            case "NDArrayAddress":
                addresses = 1 if self._source is None else self._source.addresses
                if not 0 <= value < addresses:
                    known = "0 only" if addresses == 1 else f"0 to {addresses - 1}"
                    self.refuse(name, value, f"{self['NDArrayPort']} has the address {known}")
                super().write(name, value)
                self._plug_into(self["NDArrayPort"])
            case "QueueSize":
                if not 1 <= value <= _MAX_QUEUE:
                    self.refuse(name, value, f"1 to {_MAX_QUEUE} arrays can wait")
                super().write(name, value)
                self._show_queue(len(self._queue))
            case "MaxArrayRate":
                super().write(name, max(0.0, value))
                self.set_back(MinCallbackTime=1 / value if value > 0 else 0.0)
            case "ProcessPlugin":
                super().write(name, value)
                if value:
                    self.set_back(ProcessPlugin=0)
                    if self._input is not None:
                        self._in_background(lambda array=self._input: self._work_on(array))
            case _:
                super().write(name, value)

    def _in_background(self, function: Callable[[], None]) -> None:
        threading.Thread(target=function, name=f"{self.name} once", daemon=True).start()
