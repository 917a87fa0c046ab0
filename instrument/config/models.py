"""What the configuration files may say. The field descriptions are the reference of each key."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from instrument.config.errors import nearest

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
RelativePath = Annotated[Path, Field(strict=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Model(BaseModel):
    """Unchangeable, and strict about keys and types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Metadata(Model):
    """Goes into the start document of every run; the one place where further keys are welcome."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    beamline_id: str = Field(default="virtual_beamline", description="the beamline's name")
    instrument_name: str = Field(default="class_2021_03", description="the instrument's name")
    proposal_id: str = Field(default="training", description="the proposal that the data belong to")


class Directories(Model):
    """Relative to the working directory of the session, unless absolute."""

    logs: RelativePath = Field(default=Path(".logs"), description="log files")
    data: RelativePath = Field(default=Path(".data"), description="runs, index, state.json, outbox marks")
    spec: RelativePath = Field(default=Path(), description="SPEC data files")


class VirtualBeamline(Model):
    """The simulated IOC."""

    start: bool = Field(default=True, description="start one as a child if $VIRTUAL_BEAMLINE names none")
    prefix: str = Field(
        default="gp:",
        pattern=r"^[A-Za-z0-9_.:\-\[\]<>;]+$",
        description="PV prefix that it serves; `gp:` at the start of a value in devices.yml becomes this",
    )
    area_detector: str | None = Field(
        default="ad:",
        pattern=r"^[A-Za-z0-9_.:\-\[\]<>;]+$",
        description="PV prefix of its camera, an IOC of its own; null: none is started",
    )
    seed: int | None = Field(default=None, ge=0, description="makes the simulated world repeatable")


class Journal(Model):
    """The durable record of documents."""

    fsync_interval: float = Field(
        default=1.0, ge=0, allow_inf_nan=False, description="s, longest time between two syncs"
    )


class Logging(Model):
    """Logger `bluesky-session`."""

    console: Level = Field(default="INFO", description="lowest level shown at the prompt")
    file: Level = Field(default="DEBUG", description="lowest level written to the file")
    max_bytes: int = Field(default=1_000_000, gt=0, description="size at which the file is rotated")
    backups: int = Field(default=9, ge=0, description="rotated files kept")


class Spec(Model):
    """SPEC data files."""

    enabled: bool = Field(default=True, description="write each run to a SPEC file")


PATTERN_SAMPLE: dict[str, Any] = {
    "scan_id": 1,
    "plan_name": "scan",
    "uid": "c888d282-1094-403b-baff-3781057ff087",
    "time": datetime(2022, 8, 12, 17, 27, 38),
    "beamline_id": "virtual_beamline",
    "instrument_name": "class_2021_03",
    "proposal_id": "training",
}


class NexusSource(Model):
    """`/entry/instrument/source`; what is not given stays as apstools writes it."""

    name: str | None = Field(default=None, description="the facility's name")
    short_name: str | None = Field(default=None, description="its abbreviation")
    type: (
        Literal[
            "Spallation Neutron Source", "Pulsed Reactor Neutron Source", "Reactor Neutron Source",
            "Synchrotron X-ray Source", "Pulsed Muon Source", "Rotating Anode X-ray", "Fixed Tube X-ray", "UV Laser",
            "Free-Electron Laser", "Optical Laser", "Ion Source", "UV Plasma Source",
        ]
        | None
    ) = Field(default=None, description="of the kinds that NXsource knows")  # fmt: skip
    probe: (
        Literal["neutron", "x-ray", "muon", "electron", "ultraviolet", "visible light", "positron", "proton"] | None
    ) = Field(default=None, description="of the kinds that NXsource knows")
    energy: float | None = Field(default=None, description="GeV, of the stored particles")
    current: str | None = Field(default=None, description="data key of the stored current")


class NexusMonochromator(Model):
    """`/entry/instrument/monochromator`: data keys of signals in the baseline, or in the primary stream."""

    energy: str | None = Field(default=None, description="data key of the energy")
    wavelength: str | None = Field(default=None, description="data key of the wavelength")


class NexusSample(Model):
    """`/entry/sample`; `sample` in a run's metadata, a name or a dictionary of fields, comes first."""

    name: str | None = Field(default=None, description="the sample's name")
    description: str | None = Field(default=None, description="in words")
    chemical_formula: str | None = Field(default=None, description="in the order of CIF: C, H, then the alphabet")
    temperature: str | None = Field(default=None, description="data key of its temperature")
    rotation_angle: str | None = Field(default=None, description="data key of its rotation")
    x_translation: str | None = Field(default=None, description="data key of its translation")


class NexusUser(Model):
    """`/entry/contact`."""

    name: str | None = Field(default=None, description="who to ask")
    affiliation: str | None = Field(default=None, description="where that person works")
    email: str | None = Field(default=None, description="an address")
    role: str | None = Field(default=None, description="`contact` if not given")
    facility_user_id: str | None = Field(default=None, description="badge number, ORCID, ...")


class Nexus(Model):
    """NeXus data files: each run an HDF5 file, written behind the run."""

    enabled: bool = Field(default=False, description="write each run to a NeXus file")
    directory: RelativePath = Field(default=Path(), description="relative to the data directory, unless absolute")
    pattern: str = Field(
        default="{scan_id:05d}-{plan_name}-{uid:.7}.hdf",
        description="file names; fields are scan_id, plan_name, uid, time (as {time:%Y-%m}), beamline_id, "
        "instrument_name, proposal_id; `/` makes directories",
    )
    writer: str = Field(
        default="apstools.callbacks.NXWriter",
        pattern=r"^([A-Za-z_]\w*\.)+[A-Za-z_]\w*$",
        description="the class that lays out the file: apstools' NXWriter, NXWriterAPS, or a subclass of one's own",
    )
    warn_on_missing_content: bool = Field(default=False, description="log what a run lacks of what apstools looks for")
    source: NexusSource = Field(default_factory=NexusSource, description="the source")
    monochromator: NexusMonochromator = Field(default_factory=NexusMonochromator, description="the monochromator")
    sample: NexusSample = Field(default_factory=NexusSample, description="the sample, where a run does not name it")
    user: NexusUser = Field(default_factory=NexusUser, description="the person to ask")

    @field_validator("pattern")
    @classmethod
    def _makes_file_names(cls, pattern: str) -> str:
        try:
            name = pattern.format(**PATTERN_SAMPLE)
        except KeyError as error:
            field = str(error.args[0])
            close = nearest(field, PATTERN_SAMPLE)
            hint = f"; did you mean {close!r}?" if close else f"; there are {', '.join(PATTERN_SAMPLE)}"
            raise ValueError(f"there is no field {field!r}{hint}") from None
        except (ValueError, IndexError, AttributeError, TypeError) as error:
            raise ValueError(f"makes no file name ({error})") from None
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.name or name.endswith("/"):
            raise ValueError("must make the name of a file in `directory`")
        if "{uid" not in pattern and "{scan_id" not in pattern and "{time" not in pattern:
            raise ValueError("gives every run the same file: name scan_id, uid or time")
        return pattern


class Ship(Model):
    """The shipping process, which feeds what can hang for long: MongoDB, and further consumers."""

    start: bool = Field(
        default=True,
        description="the session starts it if there is a consumer; false: `instrument ship` runs as a service",
    )
    consumers: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="further consumers: dotted path of a class, and its arguments"
    )


class Tiled(Model):
    """Runs over HTTP: the server that `instrument tiled serve` is, and the one that this session's runs go to."""

    feed: bool = Field(default=False, description="`instrument ship` sends each run there while it goes on")
    url: str | None = Field(
        default=None,
        pattern="^https?://",
        description="the server; without it, the one that serves this data directory",
    )
    catalog: str | None = Field(
        default=None,
        pattern=r"^[^/\s]+$",
        description="its catalog of these runs; metadata.instrument_name if not given",
    )
    key_file: RelativePath | None = Field(default=None, description="API key for another server than our own")
    host: str = Field(default="127.0.0.1", description="interface that `instrument tiled serve` listens on")
    port: int = Field(default=8000, ge=0, le=65535, description="its TCP port; 0 for any free one")
    public_read: bool = Field(default=False, description="reading needs no key")
    database: str | None = Field(
        default=None, pattern="^postgresql://", description="a facility's PostgreSQL; without it SQLite"
    )
    readable: Annotated[tuple[RelativePath, ...], Field(strict=False)] = Field(
        default=(), description="directories whose images the server may read; the data directory is one"
    )


class Queue(Model):
    """The queue server that `instrument qserver` is: this session in bluesky-queueserver's worker."""

    redis: str | None = Field(
        default=None,
        pattern=r"^redis://\S+$",
        description="a facility's Redis: redis://[:PASSWORD@]HOST[:PORT][/NUMBER]; without it, one of its own",
    )
    name: str | None = Field(
        default=None,
        pattern=r"^\w[\w.-]*$",
        description="of the queue, among others in a facility's Redis; without it, one kept in .data/queue/name",
    )
    host: str = Field(default="127.0.0.1", description="interface that it listens on")
    port: int = Field(default=60615, ge=0, le=65535, description="TCP port that takes requests; 0 for any free one")
    info_port: int = Field(default=60625, ge=0, le=65535, description="TCP port of the output; 0 for any free one")


class Suspender(Model):
    """What suspends a run until it is well again."""

    name: str = Field(pattern=r"^[A-Za-z_]\w*$", description="what it is called at the prompt")
    signal: str = Field(min_length=1, description="dotted path from a device to the signal that is watched")
    low: float | None = Field(default=None, description="suspend below")
    high: float | None = Field(default=None, description="suspend above")
    only: str | None = Field(default=None, description="suspend while the value is anything else than this text")
    resume_low: float | None = Field(default=None, description="go on above; `low` if not given")
    resume_high: float | None = Field(default=None, description="go on below; `high` if not given")
    settle: float = Field(default=0.0, ge=0, description="s, wait this long before going on")
    abort_after: PositiveSeconds | None = Field(default=None, description="s, end the run when it takes longer")
    enabled: bool = Field(default=False, description="on from the start")

    @model_validator(mode="after")
    def _has_condition(self) -> Suspender:
        if self.low is None and self.high is None and self.only is None:
            raise ValueError("needs low, high or only")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("low has to be below high")
        return self


class Live(Model):
    """What is shown while a run goes on."""

    table: bool = Field(default=True, description="print the table")
    plot: bool = Field(default=True, description="draw the plot")


class _Settings(Model):
    """What iconfig.yml and the loaded configuration have in common."""

    metadata: Metadata = Field(default_factory=Metadata, description="metadata of every run")
    catalog: str = Field(default="embedded", min_length=1, description="`embedded`, or a source of the catalog file")
    catalog_file: str = Field(default="bluesky_class.yml", min_length=1, description="databroker sources")
    root_map: dict[str, str] = Field(
        default_factory=dict, description="where files of images are now, by the root that the runs have for them"
    )
    connection_timeout: PositiveSeconds = Field(default=3.0, description="s, one deadline for all devices")
    directories: Directories = Field(default_factory=Directories, description="where files go")
    virtual_beamline: VirtualBeamline = Field(default_factory=VirtualBeamline, description="the simulated IOC")
    journal: Journal = Field(default_factory=Journal, description="the durable record")
    logging: Logging = Field(default_factory=Logging, description="log levels and rotation")
    spec: Spec = Field(default_factory=Spec, description="SPEC files")
    nexus: Nexus = Field(default_factory=Nexus, description="NeXus files")
    ship: Ship = Field(default_factory=Ship, description="the shipping process")
    tiled: Tiled = Field(default_factory=Tiled, description="runs over HTTP")
    queue: Queue = Field(default_factory=Queue, description="the queue server")
    live: Live = Field(default_factory=Live, description="live table and plot")
    suspenders: Annotated[tuple[Suspender, ...], Field(strict=False)] = Field(
        default=(), description="what suspends a run"
    )
    shortcuts: dict[str, str] = Field(default_factory=dict, description="exported name: dotted path from a device")


class SessionFile(_Settings):
    """iconfig.yml as it is written."""

    devices: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=("devices.yml",), description="device files, relative to this one"
    )
    code: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(),
        description="Python files of your own, relative to this one: their plans and functions are at the prompt, "
        "and devices.yml may name their classes",
    )


class DeviceSpec(Model):
    """One device of a devices.yml.

    Attributes:
        name: The device's name; empty where a factory makes its own names.
        cls: Dotted path of a class, or of a factory that returns a device or several.
        kwargs: What it is called with, `name` and `labels` included when given.
        labels: What `%ct`, `%wa` and `oregistry.find` know it by.
        baseline: Recorded at the start and end of each run.
        enabled: False: not made.
        core: Waited for before the prompt; the others connect behind it.
        file: Where it is written, with
        line: the line of the entry, and
        key_lines: the line of each of its keys.
        class_line: The line of the class path.
    """

    name: str
    cls: str
    kwargs: dict[str, Any]
    labels: tuple[str, ...] = ()
    baseline: bool = False
    enabled: bool = True
    core: bool = True
    file: Path
    line: int
    key_lines: dict[str, int] = Field(default_factory=dict, repr=False)
    class_line: int = 0


class Config(_Settings):
    """The whole configuration, checked."""

    file: Path = Field(description="the iconfig.yml that was read")
    device_files: tuple[Path, ...] = Field(description="the device files that were read")
    code: tuple[Path, ...] = Field(default=(), description="the user's own Python files")
    devices: tuple[DeviceSpec, ...] = Field(description="every device, disabled ones included, in file order")
