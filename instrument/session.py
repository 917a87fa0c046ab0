"""The one place that puts the parts of a beamline together: build, connect, subscribe, close.

`instrument.collection` makes the session of an interactive process; scripts, queue workers and tests do the same:

    from instrument.session import Session

    with Session() as session:
        session.RE(session.plans.count([session.devices["scaler1"]]))
"""

from __future__ import annotations

import functools
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from instrument.config import Config, load, own_code
from instrument.config.errors import ConfigError, UserError
from instrument.config.names import LOGGER_NAME
from instrument.framework.image_roots import ImageRoots
from instrument.framework.imports import without_garbage_collection
from instrument.framework.logs import start_console_log, start_logging

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from instrument.callbacks.shipping_process import ShippingProcess
    from instrument.devices.health import DeviceState
    from instrument.framework.engine import RunEngine
    from virtual_beamline.supervisor import PortLease, RunningBeamline, RunningIoc

logger = logging.getLogger(LOGGER_NAME)

# Names that a session gives to its user beside the devices; a device may not take one of them.
NAMES = (
    "RE", "cat", "db", "sd", "bec", "peaks", "bp", "bps", "bpp", "oregistry",
    "specwriter", "newSpecFile", "spec_comment", "nxwriter",
    "mv", "mvr", "umv", "umvr", "set_lm", "set_dial", "set_user", "ct", "timescan",
    "ascan", "dscan", "a2scan", "d2scan", "mesh", "dmesh", "lookupscan",
    "lup", "lineup2", "two_pass_scan", "findpeak_multipass", "repeat_findpeak", "change_noisy_parameters",
    "locate_image_peak", "darks_flats", "ad_vs_motor",
    "snapshot", "snapshot_restore", "snapshot_undo", "SnapshotReport",
)  # fmt: skip

# What is imported behind the prompt, in this order.
BEHIND_THE_PROMPT = (
    "matplotlib.pyplot",
    "apstools.callbacks",
    "databroker",
    "databroker.v2",
    "databroker.v1",
    "apstools.utils",
)

FILES_DEADLINE = 60.0  # s; how long the end of a session waits for files
DEVICES_DEADLINE = 20.0  # s; libca waits for 10 s before it looks for lost channels again
WORTH_TELLING = 1.0  # s; a shorter wait for files is not told


class Session:
    """A beamline at work: devices connected, a RunEngine whose documents are kept, files written behind it.

    The constructor does what is quick (configuration, logging, starting the virtual beamline); `open()` the rest.

    Args:
        config: A loaded configuration, the path of an iconfig.yml, or None for the usual places.
        began: When the start of this session began, of `time.monotonic()`.
        tell: How a line that comes from another thread is shown.

    Raises:
        ConfigError: The configuration has mistakes; all of them are told.
        UserError: The working directory can't be written.
    """

    def __init__(
        self,
        config: Config | Path | str | None = None,
        *,
        began: float | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        self._began = time.monotonic() if began is None else began
        self._tell = tell
        self.config = config if isinstance(config, Config) else _load(config)
        self.directory = Path.cwd()
        directories = self.config.directories
        self.logs_directory = self.directory / directories.logs
        self.data_directory = self.directory / directories.data
        self.spec_directory = self.directory / directories.spec
        logs = self.config.logging
        self.log_file = start_logging(
            self.logs_directory, console=logs.console, file=logs.file, max_bytes=logs.max_bytes, backups=logs.backups
        )
        self.beamline: RunningBeamline | None = None
        self._lease: PortLease | None = None  # held while this session has a beamline of its own
        self.shipping: ShippingProcess | None = None  # only where a consumer of it is configured
        self._opened = False
        self._closed = False
        self._closing = threading.Event()
        with self._nothing_half_open():
            self._start_beamline()
        # With ophyd and bluesky, while the virtual beamline boots.
        from instrument.framework.channel_access import import_ophyd
        from instrument.framework.prompt import LastError

        import_ophyd()
        self.last_error = LastError()

    # --- the virtual beamline

    def _start_beamline(self) -> None:
        """Start the virtual beamline as a child, or use the one that $VIRTUAL_BEAMLINE names."""
        wanted = self.config.virtual_beamline
        named = os.environ.get("VIRTUAL_BEAMLINE")
        if named is None and not wanted.start:
            return
        from virtual_beamline import supervisor
        from virtual_beamline.client import CaContextExistsError

        self.beamline = next((beamline for beamline in supervisor.running() if beamline.id == named), None)
        if named is not None and self.beamline is None:
            instead = "; this session starts one of its own" if wanted.start else ""
            logger.warning("no virtual beamline %s is running ($VIRTUAL_BEAMLINE names it)%s", named, instead)
            if not wanted.start:
                return
        try:
            if self.beamline is not None:
                self.beamline.environment.apply()
                return
            self._lease = supervisor.lease_ports()
            self.beamline = supervisor.start(
                prefix=wanted.prefix,
                area_detector=wanted.area_detector,
                area_detector_later=True,
                seed=wanted.seed,
                lease=self._lease,
            )
            self.beamline.environment.apply()
        except (supervisor.BeamlineStartError, CaContextExistsError) as error:
            raise UserError(str(error)) from error

    def start_beamline(self) -> None:
        """Start the virtual beamline again after it ended; devices come back by themselves.

        Raises:
            UserError: It is running, or it is not this session's.
        """
        if self._lease is None or self.beamline is None:
            raise UserError("this session did not start a virtual beamline, so it can't start it again")
        ended = [ioc.prefix for ioc in self.beamline.iocs if ioc.poll() is not None]
        if not ended:
            raise UserError(f"the virtual beamline is running (pid {self.beamline.pid})")
        from virtual_beamline import supervisor

        self.beamline = supervisor.start_again(self.beamline, self._lease)
        started = [ioc for ioc in self.beamline.iocs if ioc.prefix in ended]
        for ioc in started:
            self._wait_for_ioc(ioc)
            self._watch(ioc)
            print(f"{ioc.title} started (pid {ioc.pid}); its devices are back within some 10 s")
        self._wait_for_devices(tuple(ended))

    def _wait_for_beamline(self) -> None:
        """Wait until the beamline that this session started answers, and watch it from then on."""
        if self._lease is None or self.beamline is None:
            return
        self._wait_for_ioc(self.beamline)
        self._watch(self.beamline)

    def _start_area_detector(self) -> None:
        """Start the camera's IOC; nobody waits for it but the devices that need it.

        While the others connect it would take their processor: on two cores, half a second of each start.
        """
        prefix = self._camera_to_start()
        if self._lease is None or self.beamline is None or prefix is None:
            return
        from virtual_beamline import supervisor

        try:
            ioc = supervisor.start_area_detector(self.beamline.id, prefix, self._lease, seed=self.beamline.seed)
        except supervisor.BeamlineStartError as error:
            raise UserError(str(error)) from error
        self.beamline.area_detector = ioc
        self._watch(ioc)

    def _camera_to_start(self) -> str | None:
        """Prefix of the camera's IOC that this session is to start and has not yet; else None."""
        if self._lease is None or self.beamline is None or self.beamline.area_detector is not None:
            return None
        return self.config.virtual_beamline.area_detector

    @staticmethod
    def _wait_for_ioc(ioc: RunningIoc) -> None:
        from virtual_beamline.supervisor import BeamlineStartError

        try:
            ioc.wait_ready()
        except BeamlineStartError as error:
            raise UserError(str(error)) from error

    def _wait_for_devices(self, prefixes: tuple[str, ...]) -> None:
        """Wait for the devices of IOCs that were started again."""
        deadline = time.monotonic() + DEVICES_DEADLINE
        while waiting := [
            state.name
            for state in self.health.states.values()
            if state.state in {"offline", "connecting"} and state.prefix.startswith(prefixes)
        ]:
            if time.monotonic() > deadline:
                print(f"not back yet: {', '.join(waiting)}; the session goes on trying")
                return
            time.sleep(0.01)

    def _watch(self, ioc: RunningIoc) -> None:
        """Tell when an IOC of the beamline ends before the session does."""

        def watch() -> None:
            while (code := ioc.poll()) is None:
                if self._closing.wait(0.5):
                    return
            if not self._closing.is_set():
                how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                self.notify(
                    f"the {ioc.title} (pid {ioc.pid}) ended with {how}: its devices are offline; "
                    "start_beamline() starts it again"
                )

        threading.Thread(target=watch, name=f"{ioc.prefix} watch", daemon=True).start()

    # --- putting it together

    def open(self, reserved: Iterable[str] = (), *, shell: InteractiveShell | None = None) -> Self:
        """Build, connect and subscribe; a second call changes nothing. The log names the caller's module.

        Args:
            reserved: Names beside the session's own that a device may not take.
            shell: The IPython shell whose input is recorded in `ipython_console.log`.

        Raises:
            ConfigError: A device specification is wrong.
            BeamlineStartError: The virtual beamline did not start.
        """
        if self._opened:
            return self
        with self._nothing_half_open(), without_garbage_collection():
            logger.info("#### Bluesky Framework ####", stacklevel=2)
            if shell is not None:
                start_console_log(shell, self.logs_directory)
            self._open_framework()
            logger.info("#### Devices ####", stacklevel=2)
            self._open_devices({*NAMES, *reserved, *self.config.shortcuts})
            logger.info("#### Callbacks ####", stacklevel=2)
            self._open_callbacks()
            logger.info("#### Plans ####", stacklevel=2)
            self._open_plans()
            self._start_area_detector()
        self._opened = True
        _open.add(self)
        _close_at_exit()
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "instrument":
                logger.debug("%s", getattr(module, "__file__", name))
        logger.info("Startup is complete.", stacklevel=2)
        logger.info("%s", self.summary(), stacklevel=2)
        return self

    def _open_framework(self) -> None:
        """Engine, state, journal, catalog."""
        from bluesky import plan_stubs, plans, preprocessors

        from instrument.callbacks.journal import Journal, validate_metadata
        from instrument.callbacks.live import BestEffort
        from instrument.callbacks.outbox import Outbox
        from instrument.callbacks.progress import Progress
        from instrument.callbacks.text_plot import TextPlots
        from instrument.callbacks.windows import Windows
        from instrument.framework.catalog import open_catalog
        from instrument.framework.engine import RunEngine, during_task
        from instrument.framework.imports import Importer
        from instrument.framework.index import RunIndex
        from instrument.framework.metadata import session_metadata
        from instrument.framework.runfiles import DataDirectory
        from instrument.framework.state import StateFile

        self.bp, self.bps, self.bpp = plans, plan_stubs, preprocessors
        self.files = DataDirectory(self.data_directory)
        self.index = RunIndex(self.files.index, self.files.runs)
        self.state = StateFile(
            self.files.state,
            explicit=session_metadata(self.config.catalog, self.config.metadata.model_dump()),
            last_scan_id=self.index.last_scan_id,
        )
        self.journal = Journal(self.files.runs, index=self.index, fsync_interval=self.config.journal.fsync_interval)
        self.outbox = Outbox(self.files.runs, self.files.outbox, self.notify, index=self.index)
        for line in (*self.state.messages, *self.journal.close_orphans()):
            logger.warning("%s", line)
        self.importer = Importer(BEHIND_THE_PROMPT, busy=lambda: self.RE.state != "idle")
        self.bec = BestEffort(windows=Windows(pyplot=lambda: self.importer.need("matplotlib.pyplot")))
        self.bec.text_plots = TextPlots()
        self.bec.disable_baseline()  # some dozens of lines at the start and end of each run
        if not self.config.live.table:
            self.bec.disable_table()
        if not self.config.live.plot:
            self.bec.disable_plots()
        self.progress = Progress()
        self.RE = RunEngine(
            self.state,
            journal=self.journal,
            delivery=self.outbox,
            scan_id_source=self.state.next_scan_id,
            md_validator=validate_metadata,
            during_task=during_task(self._draw),
        )
        self.RE.waiting_hook = self.progress.waiting
        self.cat, self.db = open_catalog(
            self.config,
            data=self.data_directory,
            index=self.index,
            before_loading=lambda: self.importer.need("databroker.v1"),
        )
        logger.info("using databroker catalog '%s'", self.config.catalog)

    def _open_devices(self, reserved: set[str]) -> None:
        """Build all devices, connect them against one deadline."""
        from instrument.devices import registry
        from instrument.devices.health import Health
        from instrument.framework.baseline import SupplementalData
        from instrument.framework.channel_access import silence_libca
        from instrument.framework.first_metadata import collect_first_metadata

        silence_libca()
        collect_first_metadata()
        self._load_code({*reserved, *(spec.name for spec in self.config.devices)})
        self.devices = registry.build(self.config.devices, reserved)
        for device in self.devices.values():
            if hasattr(type(device), "use_data_directory"):
                device.use_data_directory(self.data_directory)  # type: ignore[attr-defined]
        self.oregistry = registry.Registry(self.devices)
        self._wait_for_beamline()
        self.health = Health(
            self.devices, self.config.connection_timeout, on_change=self._device_changed, tell=self.notify
        )
        camera = self._camera_to_start()
        if camera is not None:
            self.health.expect(camera, DEVICES_DEADLINE)  # beyond the time-out of those that are there already
            if any(self.health.states[name].prefix.startswith(camera) for name in self.devices.core):
                self._start_area_detector()  # somebody's camera is to be there at the prompt
        self.health.connect_all()
        self.health.start()
        self.RE.guard(self.health.check_message)
        self.sd = SupplementalData(baseline=self.devices.baseline, usable=self.health.usable)
        self.RE.preprocessors.append(self.sd)
        self._open_suspenders()

    def _load_code(self, taken: set[str]) -> None:
        """The user's own files; one that can't be imported is told, and is no reason not to start."""
        loaded = own_code.load(self.config.code)
        for problem in loaded.problems:
            logger.warning("%s", problem)
            self.last_error.keep(loaded.errors[problem.file])
        for name in sorted(loaded.names.keys() & taken):
            logger.warning(
                "%s.%s is not at the prompt, which has another %s", loaded.names[name].__module__, name, name
            )
        self.code = {name: value for name, value in loaded.names.items() if name not in taken}

    def _open_suspenders(self) -> None:
        """What holds runs while something is wrong, off unless iconfig.yml says otherwise."""
        from instrument.devices import registry
        from instrument.framework.suspenders import Condition, Suspender, Suspenders

        wanted = {one.name: one for one in self.config.suspenders}
        signals = registry.shortcuts(self.devices, {name: one.signal for name, one in wanted.items()})
        self.suspenders = Suspenders(
            self.RE,
            [
                Suspender(
                    name,
                    signal,
                    Condition(**{key: getattr(wanted[name], key) for key in Condition.__dataclass_fields__}),
                    settle=wanted[name].settle,
                    abort_after=wanted[name].abort_after,
                    tell=self.notify,
                )
                for name, signal in signals.items()
            ],
        )
        for name in signals:
            if wanted[name].enabled:
                try:
                    self.suspenders.switch(name, on=True)
                except UserError as error:
                    logger.warning("suspender %s", error)

    def _open_callbacks(self) -> None:
        """Live table and plot, and the files that are written behind each run."""
        from instrument.callbacks.nexus import NexusWriter
        from instrument.callbacks.shipped import consumers_of
        from instrument.callbacks.spec import SpecWriter

        self.RE.subscribe(self.bec)
        self.RE.subscribe(self.progress)
        self.specwriter = SpecWriter(self.spec_directory, self.state, self.outbox.note)
        if self.config.spec.enabled:
            self.outbox.add(self.specwriter)
            self.specwriter.announce()
        self.nxwriter = NexusWriter(
            self.config.nexus,
            self.data_directory / self.config.nexus.directory,
            is_live=self.journal.is_open,
            enable=lambda: self.outbox.add(self.nxwriter),
            wait=self.wait_for_files,
            root_map=ImageRoots(self.config.root_map, self.data_directory),
        )
        if self.config.nexus.enabled:
            self.outbox.add(self.nxwriter)
        self.outbox.start()
        if consumers := consumers_of(self.config):
            self._open_shipping([consumer.name for consumer in consumers])

    def _open_shipping(self, names: list[str]) -> None:
        """See to it that databases and servers are fed; that they can't be is no reason not to start."""
        from instrument.callbacks.shipping_process import ShippingProcess

        try:
            self.shipping = ShippingProcess(names, self.files, self.index, self.notify)
        except UserError as error:
            logger.warning("%s", error)
            return
        if self.config.ship.start:
            self.shipping.start(self.config.file, self.directory)

    def _open_plans(self) -> None:
        """Plans that are names of the user's namespace."""
        from instrument import plans
        from instrument.framework.snapshots import JournalSnapshots
        from instrument.plans.defaults import Counters, with_devices

        self.counters = Counters(self.devices, self.health.usable)
        parts = {
            "snapshots": JournalSnapshots(self.index),
            "counted": lambda: (self.counters.devices, self.bec.selected),
        }
        self.plans = {
            name: with_devices(getattr(plans, name), self.devices, self.counters, **parts) for name in plans.__all__
        }

    def engine_without_documents(self) -> RunEngine:
        """A RunEngine for moves and counts that nobody keeps (`%mov`, `%ct`)."""
        from instrument.framework.engine import RunEngine, during_task

        return RunEngine({}, check_message=self.health.check_message, during_task=during_task(self.bec.draw))

    def summary(self) -> str:
        """One line: how many devices, which are not connected, how long the start took (s)."""
        return f"{self.health.summary()}; ready in {time.monotonic() - self._began:.1f} s"

    def names(self) -> dict[str, Any]:
        """What the session gives to its user: engine, catalog, devices, plans, shortcuts."""
        from instrument.callbacks.snapshot_report import SnapshotReport
        from instrument.devices import registry

        names: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("RE", "cat", "db", "sd", "bec", "bp", "bps", "bpp", "oregistry", "specwriter", "nxwriter")
        }
        names["peaks"] = self.bec.peaks
        names["newSpecFile"] = self.specwriter.newSpecFile
        names["spec_comment"] = self.specwriter.spec_comment
        names["SnapshotReport"] = SnapshotReport
        names |= self.plans | self.devices
        names |= registry.shortcuts(self.devices, self.config.shortcuts)
        return self.code | names

    # --- at work

    def _draw(self) -> None:
        """What the main thread does while a plan runs."""
        self.bec.draw()
        self.progress.draw(running=self.RE.state == "running")
        if self.RE.state == "paused":
            self.bec.show_so_far()

    def _device_changed(self, state: DeviceState) -> None:
        """Fail what a plan waits for on a device that went offline."""
        if state.state == "offline":
            device = self.devices[state.name]
            self.RE.fail_pending(device, self.health.error(device))

    def notify(self, line: str) -> None:
        """Tell a line from any thread, and log it."""
        logger.debug("%s", line)
        self._tell(line)

    def wait_for_named(self, typed: str) -> None:
        """Wait for devices that are named in what was typed and still connect, as the camera just after the start."""
        self.health.wait_for(set(re.findall(r"\w+", typed)))

    def wait_for_files(self, timeout: float = FILES_DEADLINE) -> bool:
        """Wait until the files of all runs are written and databases have them, telling what is waited for.

        Args:
            timeout: How long to wait at the most (s).

        Returns:
            True if all are written and delivered.
        """
        began = time.monotonic()
        at_once = min(timeout, WORTH_TELLING)
        written = self.outbox.wait(at_once) or self.outbox.wait(timeout - at_once, progress=self._tell)
        left = max(0.0, timeout - (time.monotonic() - began))
        return (self.shipping is None or self.shipping.wait(left, progress=self._tell)) and written

    def deliveries(self) -> list[tuple[str, int, int, str]]:
        """For each file writer and each database: its name, how many runs it has, has not, and its last error."""
        return [*self.outbox.rows(), *(self.shipping.rows() if self.shipping else [])]

    def close(self) -> None:
        """Wait for the files, then stop what this session started; a second call does nothing.

        All of it is tried, whatever goes wrong; what went wrong last is raised.
        """
        if self._closed:
            return
        self._closed = True
        self._closing.set()
        with ExitStack() as ending:  # the last one first
            ending.callback(self._forget)
            if self._lease is not None:
                ending.callback(self._lease.release)
                if self.beamline is not None:
                    ending.callback(self._stop_beamline, self.beamline)
            for part, end in (
                ("index", "close"),
                ("state", "close"),
                ("importer", "close"),
                ("health", "stop"),
                ("outbox", "close"),
                ("shipping", "close"),
            ):
                if getattr(self, part, None) is not None:  # not made, where a start failed
                    ending.callback(getattr(getattr(self, part), end))
            if self._opened:
                ending.callback(self._wait_for_last_files)
            if getattr(self, "journal", None) is not None:
                ending.callback(self.journal.close)  # what it closes is delivered
            if self._opened:
                ending.callback(self._end_paused_run)

    def _end_paused_run(self) -> None:
        if self.RE.state == "paused":
            self.RE.abort("session ended")

    def _wait_for_last_files(self) -> None:
        if not self.outbox.wait(FILES_DEADLINE, progress=self._tell, for_failing=False):
            left = ", ".join(f"{name} ({count})" for name, count in self.outbox.pending().items() if count)
            if left:
                self._tell(f"not written: {left}; the next session here writes them from the journal")

    def _stop_beamline(self, beamline: RunningBeamline) -> None:
        beamline.stop()
        if os.environ.get("VIRTUAL_BEAMLINE") == beamline.id:
            del os.environ["VIRTUAL_BEAMLINE"]

    def _forget(self) -> None:
        global _current  # noqa: PLW0603  the process's one session
        _open.discard(self)
        if _current is self:
            _current = None

    @contextmanager
    def _nothing_half_open(self) -> Iterator[None]:
        """Close what was opened if the rest fails, so that a second try begins at the beginning."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _load(path: Path | str | None) -> Config:
    """The configuration; if it has mistakes, those of the devices (slow to find) are told with the rest."""
    try:
        return load(path, exported_names=NAMES)
    except ConfigError:
        from instrument.devices import registry

        return load(path, check_devices=registry.check, exported_names=NAMES)


_current: Session | None = None
_open: set[Session] = set()


@functools.cache
def _close_at_exit() -> None:
    """Have the sessions that are still open when the process ends closed before all that `atexit` has.

    h5py's clean-up there would spoil the file that is being written just then, and what is imported to write the last
    files can register its own. Python's executors end in the same way.
    """
    threading._register_atexit(_close_open_ones)  # type: ignore[attr-defined]  # noqa: SLF001


def _close_open_ones() -> None:
    for session in tuple(_open):
        session.close()


def is_current() -> bool:
    """Has this process a session?"""
    return _current is not None


def current(config: Path | str | None = None, **options: Any) -> Session:
    """The session of this process; made by the first call.

    Args:
        config: Path of an iconfig.yml, for the first call.
        options: What `Session` takes, for the first call.
    """
    global _current  # noqa: PLW0603  the process's one session
    if _current is None:
        _current = Session(config, **options)
    return _current
