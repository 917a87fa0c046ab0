"""The parameters and the acquisition of any camera; ADCore calls it ADDriver."""

from __future__ import annotations

import enum
import logging
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

from virtual_beamline.area_detector import parameters as p
from virtual_beamline.area_detector.ndarray import Attribute, NDArray
from virtual_beamline.area_detector.plugin import ArrayPort
from virtual_beamline.area_detector.port import Detector
from virtual_beamline.epics import RecordSpec

logger = logging.getLogger("virtual_beamline")

MAX_TIME = 1e6
"""Longest exposure or period, s."""
SHORTEST_ACQUISITION, STEP = 0.020, 0.002
"""s from Acquire = 1 until it is told that the acquisition has ended, at least. Stock ophyd's SingleTrigger.trigger()
forgets its status when it hears of the end before it has returned it. It is waited in steps: on a busy machine each of
them is late, so that a client there, which is as late, has more time."""
_COUNTDOWN = 0.1  # s between updates of TimeRemaining


class State(enum.IntEnum):
    """ADStatus_t of ADCore, which DetectorState_RBV shows."""

    IDLE = 0
    ACQUIRE = 1
    READOUT = 2
    CORRECT = 3
    SAVING = 4
    ABORTING = 5
    ERROR = 6
    WAITING = 7
    INITIALIZING = 8
    DISCONNECTED = 9
    ABORTED = 10


class ImageMode(enum.IntEnum):
    """The choices of ImageMode."""

    SINGLE = 0
    MULTIPLE = 1
    CONTINUOUS = 2


class TriggerMode(enum.IntEnum):
    """The choices of TriggerMode."""

    INTERNAL = 0
    EXTERNAL = 1


class ShutterMode(enum.IntEnum):
    """The choices of ShutterMode."""

    NONE = 0
    EPICS = 1
    DETECTOR = 2


class Driver(ArrayPort):
    """A camera; a subclass implements :meth:`take_image` and :meth:`image_format`."""

    parameters = (
        p.string("Manufacturer", "", "Who made it").readonly(),
        p.string("Model", "", "What it is").readonly(),
        p.string("SerialNumber", "No serial number", "Its serial number").readonly(),
        p.string("FirmwareVersion", "No firmware", "Release of its firmware").readonly(),
        p.string("SDKVersion", "", "Release of its vendor's library").readonly(),
        p.switch("Acquire", ("Done", "Acquire"), 0, "Take images"),
        p.command("AcquireBusy", ("Done", "Acquiring"), "Acquiring, or waiting for plugins").write_only(),
        p.switch("WaitForPlugins", ("No", "Yes"), 0, "Acquire ends when plugins are done").write_only(),
        p.integer("NumQueuedArrays", 0, "Arrays that wait in plugins").readonly(""),
        p.integer("MaxSizeX", 1024, "Size of the sensor in X", "pixels").readonly(),
        p.integer("MaxSizeY", 1024, "Size of the sensor in Y", "pixels").readonly(),
        p.integer("MinX", 0, "First pixel in X"),
        p.integer("MinY", 0, "First pixel in Y"),
        p.integer("SizeX", 1024, "Size in X, before binning", "pixels"),
        p.integer("SizeY", 1024, "Size in Y, before binning", "pixels"),
        p.integer("BinX", 1, "Pixels that are added up in X"),
        p.integer("BinY", 1, "Pixels that are added up in Y"),
        p.switch("ReverseX", ("No", "Yes"), 0, "Mirror in X"),
        p.switch("ReverseY", ("No", "Yes"), 0, "Mirror in Y"),
        p.number("AcquireTime", 0.001, "Exposure", "s"),
        p.number("AcquirePeriod", 0.005, "From one image to the next", "s"),
        p.number("TimeRemaining", 0.0, "Left of the exposure", "s").readonly(),
        p.number("Gain", 1.0, "Gain"),
        p.choice("FrameType", ("Normal", "Background", "FlatField", "DblCorrelation"), 0, "What is exposed"),
        p.choice("ImageMode", ("Single", "Multiple", "Continuous"), ImageMode.CONTINUOUS, "How many images"),
        p.choice("TriggerMode", ("Internal", "External"), 0, "What starts an exposure"),
        p.integer("NumExposures", 1, "Exposures that are added up to an image"),
        p.integer("NumExposuresCounter", 0, "Exposures of this image").readonly(),
        p.integer("NumImages", 1, "Images of ImageMode Multiple"),
        p.integer("NumImagesCounter", 0, "Images of this acquisition").readonly(),
        p.choice(
            "DetectorState",
            tuple(state.name.capitalize() for state in State),
            0,
            "What it is doing",
            {State.ABORTING: "MINOR", State.ERROR: "MAJOR", State.DISCONNECTED: "INVALID", State.ABORTED: "MINOR"},
        ).readonly(),
        p.text("StatusMessage", "", "What happened").readonly(),
        p.switch("ReadStatus", ("Done", "Read"), 0, "Show all values again").write_only(),
        p.choice("ShutterMode", ("None", "EPICS PV", "Detector output"), 0, "What the shutter is"),
        p.switch("ShutterControl", ("Close", "Open"), 0, "Close or open the shutter"),
        p.switch("ShutterStatus", ("Closed", "Open"), 0, "Whether the detector's shutter is open").readonly(),
        p.switch("ShutterControlEPICS", ("Closed", "Open"), 0, "What the EPICS shutter is told").readonly(""),
        p.number("ShutterOpenDelay", 0.0, "Wait for it to open", "s"),
        p.number("ShutterCloseDelay", 0.0, "Wait for it to close", "s"),
        p.number("Temperature", 25.0, "Where its cooler shall get", "C", 1),
    )

    def __init__(self, detector: Detector, prefix: str, name: str) -> None:
        super().__init__(detector, prefix, name)
        self._start = threading.Event()
        self._stop = threading.Event()
        self._trigger = threading.Event()
        self._began = 0.0
        detector.queue_changed = self._queue_changed
        self._idle_plugins = threading.Condition()

    def records(self) -> Iterator[RecordSpec]:
        """Those of the parameters, the chain that makes a put to Acquire wait, the shutter's links, the cooler."""
        prefix = self.prefix
        for spec in super().records():
            if spec.name == f"{prefix}Acquire":
                yield RecordSpec(
                    spec.name, spec.type, spec.description, {**spec.fields, "FLNK": f"{prefix}SetAcquireBusy"}
                )
            elif spec.name == f"{prefix}ShutterControlEPICS":
                yield RecordSpec(
                    spec.name, spec.type, spec.description, {**spec.fields, "FLNK": f"{prefix}ShutterFanout"}
                )
            else:
                yield spec
        yield RecordSpec(
            f"{prefix}SetAcquireBusy",
            "calcout",
            "Acquire makes AcquireBusy busy",
            {
                "INPA": f"{prefix}Acquire NPP NMS",
                "CALC": "A",
                "OOPT": "Transition To Non-zero",
                "OUT": f"{prefix}AcquireBusy PP NMS",
            },
        )
        shutter = {name: f"{prefix}Shutter{name}EPICS" for name in ("Open", "Close")}
        links: dict[str, object] = {f"LNK{number}": pv for number, pv in enumerate(shutter.values(), start=1)}
        yield RecordSpec(f"{prefix}ShutterFanout", "fanout", "Tells the EPICS shutter", {**links, "PINI": "YES"})
        for name, transition, value in (("Open", "Non-zero", "1"), ("Close", "Zero", "0")):
            yield RecordSpec(
                shutter[name],
                "calcout",
                f"OUT, OCAL: what and where {name.lower()} writes",
                {
                    "INPA": f"{prefix}ShutterControlEPICS NPP NMS",
                    "CALC": "A",
                    "OOPT": f"Transition To {transition}",
                    "DOPT": "Use OCAL",
                    "OCAL": value,
                },
            )
        yield RecordSpec(
            f"{prefix}ShutterStatusEPICS_RBV",
            "mbbi",
            "INP: where the EPICS shutter tells",
            {
                "DTYP": "Raw Soft Channel",
                "PINI": "YES",
                "ZRVL": 0,
                "ZRST": "Closed",
                "ONVL": 1,
                "ONST": "Open",
                "ONSV": "MINOR",
            },
        )
        yield RecordSpec(
            f"{prefix}TemperatureActual",
            "calc",
            "Temperature of the sensor",
            {
                "INPA": f"{prefix}TemperatureActual.VAL NPP NMS",
                "INPB": f"{prefix}Temperature_RBV NPP NMS",
                "CALC": "ABS(B-A)<0.05?B:A+(B-A)/10",
                "VAL": 25,
                "PREC": 1,
                "EGU": "C",
                "SCAN": "1 second",
            },
        )

    # -- what a camera implements ----------------------------------------------------------------------------

    def take_image(self) -> NDArray:
        """The pixels of the exposure that has just ended; number, time and attributes are given to it by the caller."""
        raise NotImplementedError

    def image_format(self) -> NDArray:
        """An array of the size, type and colors that the next image will have."""
        raise NotImplementedError

    # -- settings --------------------------------------------------------------------------------------------

    def started(self) -> None:
        """Tell the plugins what to expect, and wait for Acquire."""
        self.set(StatusMessage="Waiting for acquisition")
        self._tell_format()
        threading.Thread(target=self._run, name=self.name, daemon=True).start()

    def _tell_format(self) -> None:
        image = self.image_format()
        self.show_array(image, at_once=True)
        self.announce(image.with_attributes(self._attributes(image)))

    def _attributes(self, image: NDArray) -> dict[str, Attribute]:
        return {"ColorMode": Attribute(image.color_mode, "Color mode"), **self.attribute_list.values()}

    def write(self, name: str, value: Any) -> None:
        """Take a value."""
        match name:
            case "Acquire":
                self._acquire(value)
            case "AcquireBusy":  # its record alone tells who waits
                self._values[name] = value
            case "AcquireTime" | "AcquirePeriod" | "ShutterOpenDelay" | "ShutterCloseDelay":
                if not 0 <= value <= MAX_TIME:
                    self.refuse(name, value, f"0 to {MAX_TIME:g} s")
                super().write(name, value)
            case "NumImages" | "NumExposures":
                if value < 1:
                    self.refuse(name, value, "at least 1")
                super().write(name, value)
            case "MinX" | "MinY" | "SizeX" | "SizeY" | "BinX" | "BinY":
                self._write_geometry(name, value)
            case "ShutterControl":
                super().write(name, value)
                self.set_shutter(bool(value))
            case "ReadStatus":
                super().write(name, value)
                if value:
                    for each in self.by_name:
                        self.detector.publish(self, each)
                    self.set_back(ReadStatus=0)
            case _:
                super().write(name, value)
                if name in {"DataType", "ColorMode"}:
                    self._tell_format()

    def _write_geometry(self, name: str, value: int) -> None:
        """Take a value as far as the sensor reaches; the readbacks tell what it became."""
        for axis in "XY":
            wanted = {kind: self[f"{kind}{axis}"] for kind in ("Min", "Size", "Bin")}
            if name.endswith(axis):
                wanted[name[:-1]] = value
            most = self[f"MaxSize{axis}"]
            first = min(max(0, wanted["Min"]), most - 1)
            size = min(max(1, wanted["Size"]), most - first)
            values = {f"Min{axis}": first, f"Size{axis}": size, f"Bin{axis}": min(max(1, wanted["Bin"]), size)}
            self.set(**values)
        self._tell_format()

    def set_shutter(self, is_open: bool) -> None:
        """Open or close the shutter, if there is one, and wait until it is."""
        mode = self["ShutterMode"]
        if mode == ShutterMode.DETECTOR:
            self.set(ShutterStatus=int(is_open))
        elif mode == ShutterMode.EPICS:
            self.set(ShutterControlEPICS=int(is_open))

    # -- acquisition -----------------------------------------------------------------------------------------

    def _acquire(self, value: int) -> None:
        busy = self["Acquire"]
        if value and not busy:
            self._stop.clear()
            self._trigger.clear()  # one that came after the last exposure
            self._began = time.monotonic()
            self.set(StatusMessage="Acquiring data", Acquire=1)
            self._start.set()
        elif value:
            self._trigger.set()  # TriggerMode External: each further Acquire = 1 is a trigger
        elif busy:
            self.set(StatusMessage="Acquisition stopped")
            self._stop.set()

    def _run(self) -> None:
        while True:
            self._start.wait()
            self._start.clear()
            state = State.IDLE
            try:
                self._acquire_images()
                if self._stop.is_set() and self["ImageMode"] != ImageMode.CONTINUOUS:
                    state = State.ABORTED
            except Exception as error:
                logger.exception("%s: acquisition failed", self.name)
                self.set(StatusMessage=f"Acquisition failed: {error}")
                state = State.ERROR
            self._end(state)

    def _end(self, state: State) -> None:
        """The acquisition is over: tell it, and let what waits for it go on."""
        for _ in range(math.ceil((self._began + SHORTEST_ACQUISITION - time.monotonic()) / STEP)):
            self._stop.wait(STEP)
        if state == State.IDLE and not self._stop.is_set():
            self.set(StatusMessage="Waiting for acquisition")
        self.show_pool()
        self.set(DetectorState=state, TimeRemaining=0.0)
        # What plugins are done with by now is told here; for what they are not, it is waited below.
        waits = bool(self["WaitForPlugins"] and self.detector.queued)
        self.detector.tell_all()
        # Atomic for clients: who hears that Acquire has ended may start the next acquisition at once.
        with self.detector.locked(self, "Acquire"):
            self.set(Acquire=0)
            self.detector.show_setpoint_now(self, "Acquire")
            if not waits:
                self._complete()
                return
        with self._idle_plugins:
            while self.detector.queued:
                self._idle_plugins.wait()
        self.detector.tell_all()
        with self.detector.locked(self, "Acquire"):
            if not self["Acquire"]:
                self._complete()

    def _complete(self) -> None:
        """Let puts to Acquire go that wait for it."""
        self._values["AcquireBusy"] = 0
        self.detector.show_setpoint_now(self, "AcquireBusy")

    def _queue_changed(self, count: int) -> None:
        self.set_soon(NumQueuedArrays=count)
        if not count:
            with self._idle_plugins:
                self._idle_plugins.notify_all()

    def _acquire_images(self) -> None:
        images = 0
        self.set(NumImagesCounter=0)
        while not self._stop.is_set():
            began, stamp = time.monotonic(), time.time()
            if not self._expose_all():
                return
            images += 1
            self.set_soon(DetectorState=State.READOUT, NumImagesCounter=images)
            self._pass_on_image(stamp)
            mode = self["ImageMode"]
            if mode == ImageMode.SINGLE or (mode == ImageMode.MULTIPLE and images >= self["NumImages"]):
                return
            rest = began + self["AcquirePeriod"] - time.monotonic()
            if rest > 0:
                self.set_soon(DetectorState=State.WAITING)
                self._stop.wait(rest)

    def _expose_all(self) -> bool:
        """The exposures of an image; false if they were stopped."""
        for exposure in range(1, self["NumExposures"] + 1):
            self.set_soon(NumExposuresCounter=exposure - 1)
            if self["TriggerMode"] == TriggerMode.EXTERNAL and not self._wait_for_trigger():
                return False
            self.set_soon(DetectorState=State.ACQUIRE)
            self._move_shutter(True)
            done = self._expose(self["AcquireTime"])
            self._move_shutter(False)
            if not done:
                return False
            self.set_soon(NumExposuresCounter=exposure)
        return True

    def _wait_for_trigger(self) -> bool:
        self.set(DetectorState=State.WAITING, StatusMessage="Waiting for a trigger")
        while not self._stop.is_set():
            if self._trigger.wait(_COUNTDOWN):
                self._trigger.clear()
                self.set(StatusMessage="Acquiring data")
                return True
        return False

    def _move_shutter(self, is_open: bool) -> None:
        if self["ShutterMode"] != ShutterMode.NONE:
            self.set_shutter(is_open)
            self._stop.wait(self["ShutterOpenDelay" if is_open else "ShutterCloseDelay"])

    def _expose(self, duration: float) -> bool:
        """Wait for the exposure to end; false if it was stopped."""
        end = time.monotonic() + duration
        while (rest := end - time.monotonic()) > 0:
            if duration > _COUNTDOWN:
                self.set(TimeRemaining=round(rest, 3))
            if self._stop.wait(min(rest, _COUNTDOWN)):
                break
        self.set(TimeRemaining=0.0)
        return not self._stop.is_set()

    def _pass_on_image(self, stamp: float) -> None:
        number = self["ArrayCounter"] + 1
        image = self.take_image()
        image = self.made(NDArray(image.data, number, image.color_mode, stamp, self._attributes(image)))
        self.show_array(image)
        self.set_soon(ArrayCounter=number)
        self.pass_on(image)
