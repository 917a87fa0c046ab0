"""Area detectors: a camera and its plugins, put together by devices.yml.

    instrument.devices.area_detector.area_detector:
      - name: adsimdet
        prefix: "ad:"
        cam: SimDetectorCam                    # of ophyd.areadetector.cam, or a dotted path
        plugins: [hdf1, image, roi1, stats1]   # those of PLUGINS, or {name: {class: ..., suffix: ..., ...}}
        record: [hdf1]                         # what a run keeps: images, statistics, or both
        write_path: images/%Y/%m/%d            # as the IOC sees it

The classes are ophyd's, whose components are made at first use; what differs is the way a run uses them. All settings
are put at once, names and directories of files are checked before anything moves, an exposure that is over before
`trigger()` returns is not missed, and nothing is waited for without a deadline.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from bluesky.protocols import Hints
from bluesky.utils import MsgGenerator
from ophyd import Device, EpicsSignal, EpicsSignalRO
from ophyd.areadetector import cam as cams
from ophyd.areadetector import plugins as ophyd_plugins
from ophyd.areadetector.base import ADComponent, DDC_EpicsSignalRO, EpicsSignalWithRBV
from ophyd.areadetector.cam import CamBase, SimDetectorCam
from ophyd.areadetector.detectors import DetectorBase
from ophyd.areadetector.filestore_mixins import FileStoreBase
from ophyd.device import Component, Staged, do_not_wait_for_lazy_connection
from ophyd.status import DeviceStatus, Status
from ophyd.utils import RedundantStaging

from instrument.config.errors import UserError, nearest
from instrument.config.names import LOGGER_NAME
from instrument.devices import staging
from instrument.devices.errors import OfflineError, OutOfLimitsError
from instrument.devices.image_files import HDF5Writer

logger = logging.getLogger(LOGGER_NAME)

LATE = 10.0  # s; longer than that beyond its exposure times no acquisition takes, unless frames still come
INTERNAL = 0  # TriggerMode whose end can be foreseen: the first choice of every camera of areaDetector
MULTIPLE = 1  # ImageMode
USED_OF_CAMERA = ("port_name", "detector_state", "status_message", "num_images_counter")  # besides its configuration


T = TypeVar("T")


class AcquisitionError(UserError):
    """An acquisition failed."""


# --- camera


class TimeSignal(EpicsSignalWithRBV):
    """An exposure time or period (s): a number, 0 or more."""

    def check_value(self, value: Any) -> None:
        """Refuse what is no time.

        Raises:
            OutOfLimitsError: It is none.
        """
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number) or number < 0:
            raise OutOfLimitsError(f"{self.name}: {value!r} is no time in seconds; it was not changed")


def _camera_class(base: type[CamBase]) -> type[CamBase]:
    """A camera's class with what a run needs: a signal that shows whether it answers, and checked times."""
    members: dict[str, Any] = {
        "__doc__": base.__doc__,
        "__module__": __name__,
        "acquire": ADComponent(EpicsSignalWithRBV, "Acquire", lazy=False),
        "acquire_time": ADComponent(TimeSignal, "AcquireTime"),
        "acquire_period": ADComponent(TimeSignal, "AcquirePeriod"),
        # since ADCore 3.4; ophyd's CamBase is older
        "acquire_busy": ADComponent(EpicsSignalRO, "AcquireBusy"),
        "wait_for_plugins": ADComponent(EpicsSignal, "WaitForPlugins", string=True),
    }
    if issubclass(base, SimDetectorCam):
        members["offset"] = ADComponent(EpicsSignalWithRBV, "Offset")
    made: Any = type(base.__name__, (base,), members)
    return made


# --- plugins


class StatsPlugin(ophyd_plugins.StatsPlugin_V34):
    """Statistics of each frame; `total` is what is plotted."""

    total = ADComponent(EpicsSignalRO, "Total_RBV", kind="hinted")
    mean_value = ADComponent(EpicsSignalRO, "MeanValue_RBV", kind="normal")
    sigma = ADComponent(EpicsSignalRO, "Sigma_RBV", kind="normal")
    min_value = ADComponent(EpicsSignalRO, "MinValue_RBV", kind="normal")
    max_value = ADComponent(EpicsSignalRO, "MaxValue_RBV", kind="normal")
    net = ADComponent(EpicsSignalRO, "Net_RBV", kind="normal")
    centroid = DDC_EpicsSignalRO(("x", "CentroidX_RBV"), ("y", "CentroidY_RBV"), kind="normal", doc="The centroid XY")
    _default_read_attrs = ("total", "mean_value", "sigma", "min_value", "max_value", "net", "centroid")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stage_sigs.update(compute_statistics="Yes", compute_centroid="Yes")


# Suffix and class of what devices.yml names without saying more.
PLUGINS: Mapping[str, tuple[str, type[Device]]] = {
    "hdf1": ("HDF1:", HDF5Writer),
    "image": ("image1:", ophyd_plugins.ImagePlugin_V34),
    "pva": ("Pva1:", ophyd_plugins.PvaPlugin_V34),
    **{f"roi{n}": (f"ROI{n}:", ophyd_plugins.ROIPlugin_V34) for n in range(1, 5)},
    **{f"stats{n}": (f"Stats{n}:", StatsPlugin) for n in range(1, 6)},
    "proc1": ("Proc1:", ophyd_plugins.ProcessPlugin_V34),
    "trans1": ("Trans1:", ophyd_plugins.TransformPlugin_V34),
    "cc1": ("CC1:", ophyd_plugins.ColorConvPlugin_V34),
    "over1": ("Over1:", ophyd_plugins.OverlayPlugin_V34),
    "attr1": ("Attr1:", ophyd_plugins.AttributePlugin_V34),
    "tiff1": ("TIFF1:", ophyd_plugins.TIFFPlugin_V34),
    "jpeg1": ("JPEG1:", ophyd_plugins.JPEGPlugin_V34),
}
VIEWERS = (ophyd_plugins.ImagePlugin, ophyd_plugins.PvaPlugin)  # for people who look on; a run does not wait for them


# --- detector


class AreaDetector(DetectorBase):
    """A camera with plugins. `select_plugins` says what a run keeps; `stage_sigs` what else it sets.

    Attributes:
        timeout: How much longer than its exposure times an acquisition may take, or later the next frame may come (s).
        located_peak: What the plan `locate_image_peak` found last.
    """

    cam: Any
    plugin_names: tuple[str, ...] = ()
    timeout = LATE
    located_peak: Any = None

    def __init__(
        self, prefix: str, *, frames_per_trigger: int | None = 1, image_name: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(prefix, **kwargs)
        self._image_name = image_name or f"{self.name}_image"
        self.stage_sigs.update([("cam.acquire", 0), ("cam.image_mode", MULTIPLE), ("cam.array_callbacks", 1)])
        self.frames_per_trigger = frames_per_trigger
        self._recorded = tuple(self._default_read_attrs or ())
        self._used: list[Any] = []
        self._points = 0
        self._last: Status | None = None
        self._failed = False
        self._ending = False
        self._was_connected = False

    # --- what a run keeps

    @property
    def frames_per_trigger(self) -> int | None:
        """How many frames each point of a run has; None: what the camera has for NumImages."""
        return self.stage_sigs.get("cam.num_images")

    @frames_per_trigger.setter
    def frames_per_trigger(self, value: int | None) -> None:
        if value is None:
            self.stage_sigs.pop("cam.num_images", None)
        elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{self.name}: frames_per_trigger={value!r} has to be a whole number, 1 or more")
        else:
            self.stage_sigs["cam.num_images"] = value

    def select_plugins(self, *names: str) -> None:
        """Choose what runs keep from now on: "hdf1" for images, "stats1" for statistics without images, or both.

        Args:
            names: Plugins; none: what devices.yml says.

        Raises:
            UserError: There is no such plugin; nothing changed.
        """
        wanted = names or self._recorded
        for name in wanted:
            _check_plugin(name, self.plugin_names, self.name)
            _check_recorded(name, getattr(type(self), name).cls, self.name)
        self.read_attrs = list(wanted)

    def keeping(self, plan: MsgGenerator[T], *names: str) -> MsgGenerator[T]:
        """A plan whose runs keep what these plugins have, whatever is selected before and afterwards.

        Args:
            plan: Any plan, as `bp.count([adsimdet])`.
            names: Plugins, as for `select_plugins`; "stats1" keeps statistics without images.

        Returns:
            What the plan returns.

        Raises:
            UserError: There is no such plugin; nothing has moved.
        """
        before = list(self.read_attrs)
        self.select_plugins(*names)
        try:
            return (yield from plan)
        finally:
            self.read_attrs = before

    @property
    def hints(self) -> Hints:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What is plotted: that of the plugins that are read."""
        fields = [field for name in self.read_attrs for field in getattr(self, name).hints.get("fields", [])]
        return {"fields": fields} if fields else {}

    def use_data_directory(self, directory: Path) -> None:
        """Take the directory to which paths of devices.yml are relative."""
        for plugin in self._plugins():
            if isinstance(plugin, HDF5Writer):
                plugin.data_directory = directory

    def after_connection(self) -> None:
        """Make the signals that every run needs, together: one by one at first use they would take a second."""
        for plugin in self._plugins():
            if isinstance(plugin, HDF5Writer) and self._was_connected:
                plugin.after_restart()
        self._needed_signals()
        self._was_connected = True

    def _plugins(self) -> Iterator[Any]:
        return (getattr(self, name) for name in self.plugin_names)

    def _needed_signals(self) -> None:
        with self._not_waiting():
            wanted = [key for key in self.stage_sigs if isinstance(key, str)]
            wanted += [f"cam.{attr}" for attr in (*self.cam.configuration_attrs, *USED_OF_CAMERA)]
            for plugin in self._plugins():
                names = [key for key in plugin.stage_sigs if isinstance(key, str)]
                names += getattr(plugin, "used_in_runs", ())
                names += ("port_name", "nd_array_port", "array_callbacks")
                names += plugin.read_attrs if plugin.attr_name in self.read_attrs else ()
                wanted += [f"{plugin.attr_name}.{name}" for name in names]
            for name in wanted:
                functools.reduce(getattr, name.split("."), self)

    @contextlib.contextmanager
    def _not_waiting(self) -> Iterator[None]:
        """Signals made meanwhile connect behind."""
        with contextlib.ExitStack() as stack:
            for device in (self, self.cam, *self._plugins()):
                # Such as `stats1.centroid`, which ophyd makes with its parent.
                for part in (device, *(part for _, part in device.walk_subdevices(include_lazy=False))):
                    stack.enter_context(do_not_wait_for_lazy_connection(part))
            yield

    def __repr__(self) -> str:
        with self._not_waiting():  # a plan has it in its metadata before anything waits for the device
            return super().__repr__()

    # --- before and after a run

    def check_before_run(self) -> None:
        """Refuse what `stage` would refuse, as far as that can be told without changing anything: for dry runs.

        Raises:
            UserError: A plugin gets its frames from somewhere else, or a file can't be written.
        """
        for plugin in self._pipeline():
            if isinstance(plugin, HDF5Writer):
                plugin.check(self.frames_per_trigger or int(self.cam.num_images.get()))

    def stage(self) -> list[Any]:
        """Prepare for a run: settings, pipeline, file.

        Raises:
            UserError: It can't be prepared; what was changed is set back.
            RedundantStaging: It is prepared already.
        """
        if self._staged != Staged.no:
            raise RedundantStaging(f"{self.name} is staged already: a run of it goes on")
        self._staged = Staged.partially
        self._points, self._last, self._failed, self._ending = 0, None, False, False
        try:
            self._apply({self.cam.acquire: 0})  # before all else: a camera that acquires refuses settings
            self._used = self._pipeline()
            settings = self._resolved(self)
            for plugin in self._used:
                settings |= self._resolved(plugin)
                if isinstance(plugin, VIEWERS):
                    settings[plugin.blocking_callbacks] = "No"
            settings |= {source.array_callbacks: 1 for source in self._sources()}
            self._apply(settings)
            for writer in self._writers():
                writer.open(int(self.cam.num_images.get()))
        except Exception as error:
            self._failed = True
            self._set_back()
            if isinstance(error, UserError):
                raise
            # libca's, of an IOC that has just ended: nobody knows yet that the device is offline.
            raise OfflineError(f"{self.name}: {self.prefix} does not answer ({error}); nothing was acquired") from error
        self._staged = Staged.yes
        return [self, *self._used]

    def unstage(self) -> list[Any]:
        """Complete the file, and set back what `stage` has set. Does nothing a second time."""
        if self._staged == Staged.no:
            return [self]
        used = self._used
        self._set_back()
        return [self, *used]

    @staticmethod
    def _resolved(device: Any) -> dict[Any, Any]:
        return {
            (functools.reduce(getattr, key.split("."), device) if isinstance(key, str) else key): value
            for key, value in device.stage_sigs.items()
        }

    def _apply(self, settings: Mapping[Any, Any]) -> None:
        for signal, value in staging.apply(settings).items():
            self._original_vals.setdefault(signal, value)

    def _set_back(self) -> None:
        """Whatever happens, a new run can begin afterwards."""
        problems: list[Exception] = []
        self._ending = True
        try:
            if self.cam.acquire.connected:
                for action in (self._end_exposure, self._close_files, self._restore):
                    try:
                        action()
                    except Exception as error:
                        problems.append(error)
        finally:
            for writer in self._writers():
                writer.forget()
            self._original_vals = OrderedDict()
            self._used = []
            self._staged = Staged.no
        if problems and not self._failed:
            raise problems[0]
        for problem in problems:
            logger.debug("%s: after a failure: %s", self.name, problem)

    def _end_exposure(self) -> None:
        """After an interruption the camera may expose still, for hours."""
        staging.apply({self.cam.acquire: 0})

    def _close_files(self) -> None:
        for writer in self._writers():
            writer.close()

    def _restore(self) -> None:
        staging.apply(OrderedDict(reversed(self._original_vals.items())))

    def _writers(self) -> list[HDF5Writer]:
        return [plugin for plugin in self._used if isinstance(plugin, HDF5Writer)]

    def _pipeline(self) -> list[Any]:
        """The plugins that a run uses: what is read, what that gets its frames from, and viewers.

        Raises:
            UserError: A plugin gets its frames from somewhere else.
        """
        ports = {str(plugin.port_name.get()): plugin for plugin in self._plugins()}
        camera = str(self.cam.port_name.get())
        used: dict[str, Any] = {}
        for name in self.read_attrs:
            if name not in self.plugin_names:
                continue
            plugin = getattr(self, name)
            while plugin.attr_name not in used:
                used[plugin.attr_name] = plugin
                source = str(plugin.nd_array_port.get())
                if source == camera:
                    break
                if source not in ports:
                    known, pv = ", ".join([camera, *ports]), plugin.nd_array_port.setpoint_pvname
                    raise UserError(
                        f"{plugin.name} gets its frames from {source!r}, which is no port of {self.name} ({known}): "
                        f"put another one to {pv}, or name its plugin in devices.yml"
                    )
                plugin = ports[source]
        used |= {plugin.attr_name: plugin for plugin in self._plugins() if isinstance(plugin, VIEWERS)}
        # Sources first, so that nothing is enabled behind something that is not.
        return [plugin for plugin in reversed(used.values())]

    def _sources(self) -> list[Any]:
        """Of the plugins that a run uses, those from which others get their frames."""
        wanted = {str(plugin.nd_array_port.get()) for plugin in self._used}
        return [plugin for plugin in self._used if str(plugin.port_name.get()) in wanted]

    # --- a point

    def trigger(self) -> DeviceStatus:
        """Begin an acquisition.

        Returns:
            A status that is done when all its frames are where they belong.

        Raises:
            UserError: The detector is not staged, or frames per point were changed in the run.
        """
        if self._staged != Staged.yes:
            raise UserError(f"{self.name} is not staged: take frames with a plan, such as RE(bp.count([{self.name}]))")
        self._points += 1
        status, before, over = DeviceStatus(self), self._last, Status(self)
        over.add_callback(lambda _: _finish(status, over.exception(timeout=0)))
        begin = functools.partial(self._begin, over, self._points, self._longest())
        if before is None or before.done:
            begin()
        else:
            # A run that was paused takes this point again while its first exposure goes on: that has to end first, and
            # its frames are in the file, too.
            before.add_callback(lambda _: begin())
        self._last = over  # not `status`, which ends for the engine when it gives up waiting
        for writer in self._writers():
            writer.generate_datum(self._image_name, time.time())
        return status

    def _begin(self, over: Status, points: int, longest: float | None) -> None:
        acquired, ended = Status(self, timeout=longest), threading.Event()
        acquired.add_callback(functools.partial(self._acquired, over, points, ended, time.monotonic()))
        if self._ending:
            _finish(acquired)
            return

        def end(**_: Any) -> None:
            ended.set()
            _finish(acquired)

        # Completion of the put, not a change of Acquire, tells the end: it can't be missed, however soon it comes.
        self.cam.acquire.put(1, use_complete=True, callback=end)

    def _longest(self) -> float | None:
        """When an acquisition must be over (s); None if something else triggers it."""
        cam = self.cam
        if int(cam.trigger_mode.get()) != INTERNAL:
            return None
        images, exposures = int(cam.num_images.get()), max(1, int(cam.num_exposures.get()))
        for writer in self._writers():
            writer.check_frames_per_point(images)
        exposure, period = float(cam.acquire_time.get()), float(cam.acquire_period.get())
        return images * max(exposures * exposure, period) * 1.1 + self.timeout

    def _frames(self) -> list[int]:
        """What counts the frames of an acquisition."""
        counters = (self.cam.num_images_counter, *(writer.num_captured for writer in self._writers()))
        return [int(counter.get()) for counter in counters]

    def _ends_late(self, ended: threading.Event) -> bool:
        """Whether an acquisition that should be over comes to its end: compression may take longer than exposures."""
        before, now = None, self._frames()
        while now[0] and now != before:
            if ended.wait(self.timeout) or self._ending:
                return True
            before, now = now, self._frames()
        return ended.is_set()

    def _acquired(self, over: Status, points: int, ended: threading.Event, began: float, acquired: Status) -> None:
        """The exposure is over, or late; on a thread of the status."""
        try:
            if acquired.exception() is not None and not self._ends_late(ended):
                raise AcquisitionError(
                    f"{self.name}: no end of the acquisition in {time.monotonic() - began:.0f} s: the camera is "
                    f"{self.cam.detector_state.get(as_string=True)!r} ({self.cam.status_message.get()})"
                )
            for writer in () if self._ending else self._writers():
                writer.check_written(points)
        except Exception as error:
            self._failed = True
            _finish(over, error)
        else:
            _finish(over)

    def stop(self, *, success: bool = False) -> None:
        """End an acquisition; frames so far are kept.

        Args:
            success: The RunEngine pauses, or its plan is over. An exposure goes on then: half a point would be in the
                file where the point taken again is looked for. `unstage` ends it.
        """
        if not success and self._staged != Staged.no and self.cam.acquire.connected:
            self.cam.acquire.put(0)

    def collect_asset_docs(self) -> Generator[Any]:
        """The documents about files since the last time."""
        for writer in self._writers():
            yield from writer.collect_asset_docs()


def _finish(status: Any, error: Any = None, **_: Any) -> None:
    """End a status, unless somebody else has."""
    try:
        if error is None:
            status.set_finished()
        else:
            status.set_exception(error)
    except Exception:  # ophyd's InvalidState: the device went offline meanwhile, or it was too late
        logger.debug("%r was over already", status)


# --- devices.yml


def area_detector(
    *,
    prefix: str,
    name: str,
    labels: Iterable[str] = ("area_detector",),
    cam: str | Mapping[str, Any] = "AreaDetectorCam",
    plugins: Iterable[str] | Mapping[str, Mapping[str, Any] | None] = ("hdf1", "image"),
    record: Iterable[str] = ("hdf1",),
    write_path: str = "images/%Y/%m/%d",
    read_path: str | None = None,
    compression: str | None = None,
    file_names: str = "unique",
    lazy_open: bool = False,
    frames_per_trigger: int | None = 1,
    stage_sigs: Mapping[str, Any] | None = None,
    class_name: str = "AreaDetector",
) -> AreaDetector:
    """An area detector, for devices.yml.

    Args:
        prefix: PV prefix of the IOC, as "ad:".
        name: Of the device.
        labels: What it is found by.
        cam: Class of the camera: a name of ophyd.areadetector.cam or a dotted path; or {class: ..., suffix: "cam1:"}.
        plugins: Names of PLUGINS; or a mapping of names to {class: ..., suffix: ..., further keywords}.
        record: Those whose readings a run keeps.
        write_path: Directory of images as the IOC sees it, with fields of strftime; relative to directories.data.
        read_path: The same directory as this session sees it, if it is another path.
        compression: Of the HDF5 files: None, zlib, szip, Blosc, ...; left out: as the IOC has it.
        file_names: "unique": a name for each run unless one is put to hdf1.file_name; "ioc": what the IOC has.
        lazy_open: Make files with their first frame, which plugins of areaDetector need that have had no frame yet.
        frames_per_trigger: Frames of each point; null: what the camera has for NumImages.
        stage_sigs: What else a run sets, as {cam.gain: 2}; set back afterwards.
        class_name: What listobjects() shows.

    Raises:
        UserError: There is no such class or plugin, or a choice is none.
    """
    if file_names not in {"unique", "ioc"}:
        raise UserError(f"{name}: file_names {file_names!r} is neither 'unique' nor 'ioc'")
    cam_class, cam_suffix, cam_keywords = _chosen(cam, cams, ("cam1:", None))
    if not issubclass(cam_class, CamBase):
        raise UserError(f"{name}: {cam_class.__name__} is no camera: its class has to come from ophyd's CamBase")
    chosen = plugins if isinstance(plugins, Mapping) else dict.fromkeys(plugins)
    record = list(record)
    files = {"write_path": write_path, "read_path": read_path, "compression": compression}
    files |= {"file_names": file_names, "lazy_open": lazy_open}
    members: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": AreaDetector.__doc__,
        "cam": Component(_camera_class(cam_class), cam_suffix, **cam_keywords),
        "plugin_names": tuple(chosen),
        "_default_read_attrs": tuple(record),
    }
    for plugin, details in chosen.items():
        default = PLUGINS.get(plugin)
        if default is None and not {"class", "suffix"} <= (details or {}).keys():
            near = nearest(plugin, PLUGINS)
            raise UserError(
                f"{name}: no plugin {plugin!r}"
                + (f"; did you mean {near!r}?" if near else ": give its class and suffix")
            )
        plugin_class, suffix, keywords = _chosen(details or {}, ophyd_plugins, default or ("", None))
        if issubclass(plugin_class, HDF5Writer):
            keywords = {**files, **keywords}
        members[plugin] = Component(plugin_class, suffix, **keywords)
    for plugin in record:
        _check_plugin(plugin, tuple(chosen), name)
        _check_recorded(plugin, members[plugin].cls, name)
    made = type(class_name, (AreaDetector,), members)(
        prefix, name=name, labels=set(labels), frames_per_trigger=frames_per_trigger
    )
    made.stage_sigs.update(stage_sigs or {})
    return made


def _chosen(given: str | Mapping[str, Any], module: Any, default: tuple[str, Any]) -> tuple[Any, str, dict[str, Any]]:
    """Class, suffix and further keywords of a component, as devices.yml gives them."""
    details = {"class": given} if isinstance(given, str) else dict(given)
    suffix = details.pop("suffix", default[0])
    cls = details.pop("class", default[1])
    if isinstance(cls, str):
        holder, _, attribute = cls.rpartition(".")
        try:
            found = getattr(importlib.import_module(holder) if holder else module, attribute)
        except (ImportError, AttributeError):
            near = nearest(attribute, [n for n, value in vars(module).items() if inspect.isclass(value)])
            raise UserError(f"there is no class {cls!r}" + (f"; did you mean {near!r}?" if near else "")) from None
        cls = found
    return cls, suffix, details


def _check_plugin(name: str, names: Collection[str], device: str) -> None:
    if name not in names:
        near = nearest(name, names)
        hint = f"did you mean {near!r}?" if near else f"it has {', '.join(names)}"
        raise UserError(f"{device} has no plugin {name!r}; {hint}")


def _check_recorded(name: str, cls: type[Any], device: str) -> None:
    """Refuse file writers other than HDF5Writer, of whose files no document would tell."""
    if issubclass(cls, ophyd_plugins.FilePlugin | FileStoreBase) and not issubclass(cls, HDF5Writer):
        raise UserError(
            f"{device}: a run can't keep the files of {name!r} ({cls.__name__}), only those of an HDF5 plugin: record "
            "hdf1 instead, or give the plugin the class instrument.devices.image_files.HDF5Writer"
        )
