"""NeXus data files: each run an HDF5 file, written behind the run.

`NexusWriter` is `nxwriter` at the prompt and the outbox's consumer. It is light; `nexus_file`, which lays out the file
with apstools' NXWriter, is imported when the first run is to be written.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instrument.config.errors import UserError
from instrument.config.models import PATTERN_SAMPLE, Nexus
from instrument.config.names import LOGGER_NAME

if TYPE_CHECKING:
    from instrument.callbacks.nexus_file import NexusFile

logger = logging.getLogger(LOGGER_NAME)

Document = tuple[str, dict[str, Any]]

# Settings of apstools' NXWriter that people set on `nxwriter`; kept with a run when it starts.
SETTINGS = ("warn_on_missing_content", "instrument_name", "nexus_release", "nxdata_signal", "nxdata_signal_axes")


class NexusFileError(UserError):
    """A NeXus file can't be written so; to try again changes nothing."""

    final = True


class NexusWriter:
    """Writes runs to NeXus files; a consumer behind the outbox.

    The attributes are those of apstools' NXWriter, and hold for runs that start from then on.

    Args:
        site: What iconfig.yml says.
        directory: Where files with names by the pattern go.
        is_live: Tells whether a run is going on in this session, by its uid.
        enable: Has the outbox deliver runs to this consumer; called at most once.
        wait: Waits until every run is delivered.
        root_map: Where files of images are now, by the `root` of their resource documents.

    Attributes:
        warn_on_missing_content: Log what a run lacks of what apstools looks for.
        instrument_name: `/@instrument` of the files.
        nexus_release: `/@NeXus_release` of the files; None for apstools' own.
        nxdata_signal: What the default plot shows; None: the first detector's first signal.
        nxdata_signal_axes: Against what; None: the motors.
        output_nexus_file: The file that was written last.
    """

    name = "nexus"

    def __init__(
        self,
        site: Nexus,
        directory: Path,
        *,
        is_live: Callable[[str], bool] = lambda _uid: False,
        enable: Callable[[], object] | None = None,
        wait: Callable[[], object] = lambda: None,
        root_map: Mapping[str, str] | None = None,
    ) -> None:
        self._site = site
        self._directory = directory
        self._is_live = is_live
        self._enable = enable
        self._wait = wait
        self._root_map = root_map
        self._file_name: Path | None = None
        self._file_path: Path | None = None
        self._subscribed: str | None = None  # the run whose documents `receiver` got
        self._told = False
        self._replayed: NexusFile | None = None
        self.warn_on_missing_content = site.warn_on_missing_content
        self.instrument_name: str | None = None
        self.nexus_release: str | None = None
        self.nxdata_signal: str | None = None
        self.nxdata_signal_axes: list[str] | None = None
        self.output_nexus_file: Path | None = None

    # --- what people use

    @property
    def file_name(self) -> Path | None:
        """The file of the next runs, each of which replaces the one before; None: a name for each, by the pattern."""
        return self._file_name

    @file_name.setter
    def file_name(self, value: Path | str | None) -> None:
        self._file_name = None if value is None else Path(value).expanduser()

    @property
    def file_path(self) -> Path | None:
        """The directory of files with names by the pattern; None: that of iconfig.yml."""
        return self._file_path

    @file_path.setter
    def file_path(self, value: Path | str | None) -> None:
        self._file_path = None if value is None else Path(value).expanduser()

    def receiver(self, name: str, doc: dict[str, Any]) -> None:
        """Take documents, of a run that goes on or of one that is replayed.

        `RE.subscribe(nxwriter.receiver)`: the run is written behind the run, once, whether iconfig.yml enables that or
        not. `replay(cat.v1[1], nxwriter.receiver)`: it is written when its stop document comes, in this thread.

        Raises:
            UserError: A replayed run can't be written.
        """
        if name == "start":
            self._replayed = None
            if self._is_live(doc["uid"]):
                self._subscribed = doc["uid"]
                self._deliver_from_now_on()
                return
            path, chosen = self._path_of(doc)
            self._check_free(path, doc["uid"], may_replace=chosen)
            self._replayed = self._new_file(path, self._settings())
        if self._replayed is not None:
            _take(self._replayed, name, doc)
            if name == "stop":
                self.output_nexus_file = self._replayed.path
                self._replayed = None

    def wait_writer(self) -> None:
        """Wait until the files of all runs are written."""
        self._wait()

    def wait_writer_plan_stub(self) -> Generator[Any, Any, None]:
        """Nothing to wait for: the next run does not disturb the file of the last one."""
        yield from ()

    def __repr__(self) -> str:
        where = self._file_name or (self._file_path or self._directory) / self._site.pattern
        return f"NexusWriter({'on' if self._site.enabled else 'off unless subscribed'}: {where})"

    # --- what the outbox uses

    def assign(self, start: dict[str, Any]) -> dict[str, Any]:
        """Settle the file of a run that starts now, and how it is written."""
        if not self._site.enabled and self._subscribed != start["uid"]:
            return {"skip": True}  # it was subscribed before, and is no more
        path, chosen = self._path_of(start)
        return {"file": str(path), "chosen": chosen, "settings": self._settings()}

    def deliver(
        self, documents: Iterable[Document], assignment: Mapping[str, Any], notes: Iterable[Mapping[str, Any]] = ()
    ) -> str | None:
        """Write a run to its file, unless it is there.

        Args:
            documents: The run, from start to stop.
            assignment: What `assign` gave.
            notes: There are none.

        Returns:
            The file's path.

        Raises:
            UserError: The file can't be written; the message says why.
        """
        if assignment.get("skip"):
            return None
        path = Path(assignment["file"])
        self.write(
            documents, path, settings=assignment["settings"], may_replace=bool(assignment["chosen"]), patient=True
        )
        self.output_nexus_file = path
        return str(path)

    def write(
        self,
        documents: Iterable[Document],
        path: Path,
        *,
        settings: Mapping[str, Any] | None = None,
        may_replace: bool = False,
        overwrite: bool = False,
        patient: bool = False,
    ) -> bool:
        """Write one complete run to a file.

        Args:
            documents: The run, from start to stop.
            path: The file.
            settings: Attributes of apstools' NXWriter; those of this object if not given.
            may_replace: Replace the NeXus file of another run.
            overwrite: Replace whatever is there, the same run too.
            patient: An image file may take a while to appear.

        Returns:
            False if the file was there.

        Raises:
            UserError: The file can't be written; the message says why.
        """
        remaining = iter(documents)
        name, start = next(remaining)
        if not overwrite and self._check_free(path, start["uid"], may_replace=may_replace):
            return False
        file = self._new_file(path, settings or self._settings(), patient=patient)
        _take(file, name, start)
        for name, doc in remaining:
            _take(file, name, doc)
        if file.stop_time is None:
            raise NexusFileError(f"run {start.get('scan_id')} has not ended: its NeXus file is written when it has")
        return True

    # --- inside

    def _deliver_from_now_on(self) -> None:
        if not self._told:
            self._told = True
            if self._site.enabled:
                logger.info("NeXus files are written without RE.subscribe(nxwriter.receiver); it makes no second file")
            elif self._enable is not None:
                self._enable()

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SETTINGS}

    def _path_of(self, start: Mapping[str, Any]) -> tuple[Path, bool]:
        """The file of a run, and whether somebody chose it."""
        if self._file_name is not None:
            return self._file_name.absolute(), True
        directory = self._directory if self._file_path is None else self._file_path.absolute()
        return directory / file_name(self._site.pattern, start), False

    def _check_free(self, path: Path, uid: str, *, may_replace: bool) -> bool:
        """Is this run in the file already?

        Raises:
            NexusFileError: Something else is.
        """
        if not path.exists():
            return False
        from instrument.callbacks.nexus_file import run_in

        held = run_in(path)
        if held == uid:
            return True
        if held is None:
            raise NexusFileError(f"{path} exists and is no NeXus file of a run: it is left as it is; move it away")
        if not may_replace:
            raise NexusFileError(f"{path} exists and holds run {held[:7]}: it is left as it is; move it away")
        return False

    def _new_file(self, path: Path, settings: Mapping[str, Any], *, patient: bool = False) -> NexusFile:
        from instrument.callbacks.nexus_file import file_class

        file = file_class(self._site.writer)(path, self._site, root_map=self._root_map, patient=patient)
        for name, value in settings.items():
            if value is not None:
                setattr(file, name, value)
        return file


def _take(file: NexusFile, name: str, doc: dict[str, Any]) -> None:
    try:
        file.take(name, doc)
    except OSError as error:
        raise UserError(
            f"{file.path} can't be written ({error.strerror or error}); the run is safe in the journal"
        ) from error


def file_name(pattern: str, start: Mapping[str, Any]) -> str:
    """The name of a run's file, of the pattern in iconfig.yml.

    Args:
        pattern: See `config.models.Nexus`.
        start: The start document.
    """
    fields: dict[str, Any] = {name: _part_of_path(start.get(name, "none")) for name in PATTERN_SAMPLE}
    number = start.get("scan_id")
    fields["scan_id"] = number if isinstance(number, int) and not isinstance(number, bool) else 0
    fields["time"] = datetime.fromtimestamp(start["time"])
    return pattern.format(**fields)


def _part_of_path(value: object) -> str:
    """A text from the metadata that makes no directories and hides no file."""
    return re.sub(r"[^\w.@+=-]+", "_", str(value)).lstrip(".")[:80] or "_"
