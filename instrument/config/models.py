"""What the configuration files may say. The field descriptions are the reference of each key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

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


class Live(Model):
    """What is shown while a run goes on."""

    table: bool = Field(default=True, description="print the table")
    plot: bool = Field(default=True, description="draw the plot")


class _Settings(Model):
    """What iconfig.yml and the loaded configuration have in common."""

    metadata: Metadata = Field(default_factory=Metadata, description="metadata of every run")
    catalog: str = Field(default="embedded", min_length=1, description="`embedded`, or a source of the catalog file")
    catalog_file: str = Field(default="bluesky_class.yml", min_length=1, description="databroker sources")
    connection_timeout: PositiveSeconds = Field(default=3.0, description="s, one deadline for all devices")
    directories: Directories = Field(default_factory=Directories, description="where files go")
    virtual_beamline: VirtualBeamline = Field(default_factory=VirtualBeamline, description="the simulated IOC")
    journal: Journal = Field(default_factory=Journal, description="the durable record")
    logging: Logging = Field(default_factory=Logging, description="log levels and rotation")
    spec: Spec = Field(default_factory=Spec, description="SPEC files")
    live: Live = Field(default_factory=Live, description="live table and plot")
    shortcuts: dict[str, str] = Field(default_factory=dict, description="exported name: dotted path from a device")


class SessionFile(_Settings):
    """iconfig.yml as it is written."""

    devices: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=("devices.yml",), description="device files, relative to this one"
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
    devices: tuple[DeviceSpec, ...] = Field(description="every device, disabled ones included, in file order")
