"""What the area detector's IOC contains (reads like a bill of materials: :func:`make_ports`), and its boot."""

from __future__ import annotations

import logging
import sys

from virtual_beamline.area_detector.attribute_plugin import Attributes
from virtual_beamline.area_detector.color_convert import ColorConvert
from virtual_beamline.area_detector.hdf5 import Hdf5
from virtual_beamline.area_detector.image_files import Jpeg, Tiff
from virtual_beamline.area_detector.overlay import Overlay
from virtual_beamline.area_detector.port import Detector
from virtual_beamline.area_detector.process import Process
from virtual_beamline.area_detector.pva import Pva
from virtual_beamline.area_detector.roi import Roi
from virtual_beamline.area_detector.sim_detector import SimDetector
from virtual_beamline.area_detector.stats import Stats
from virtual_beamline.area_detector.std_arrays import StdArrays
from virtual_beamline.area_detector.transform import Transform
from virtual_beamline.epics import RecordSpec
from virtual_beamline.names import AREA_DETECTOR_PREFIX, ID_RECORD, LOOPBACK
from virtual_beamline.physics import World

logger = logging.getLogger("virtual_beamline")

SPOT_THRESHOLD = 40.0
"""Counts that only the spot has, in every world: with ADCore's 1 the centroid would be that of the noise."""


def make_ports(detector: Detector, world: World, images: tuple[str, int] | None = None) -> None:
    """All ports: the camera, and the plugins with what they are called and where they get their arrays at first.

    Args:
        detector: gets them.
        world: what the camera looks at.
        images: interface and port of the pvAccess server of the frames.
    """
    SimDetector(detector, "cam1:", "SIM1", world)
    StdArrays(detector, "image1:", "Image1", "SIM1")
    Pva(detector, "Pva1:", "PVA1", "SIM1", images)
    Hdf5(detector, "HDF1:", "FileHDF1", "SIM1")
    Tiff(detector, "TIFF1:", "FileTIFF1", "SIM1")
    Jpeg(detector, "JPEG1:", "FileJPEG1", "SIM1")
    for number in range(1, 5):
        Roi(detector, f"ROI{number}:", f"ROI{number}", "SIM1")
    for number in range(1, 6):
        stats = Stats(detector, f"Stats{number}:", f"STATS{number}", "SIM1")  # with its time series, Stats1:TS:
        stats.set(CentroidThreshold=SPOT_THRESHOLD)
    Process(detector, "Proc1:", "PROC1", "SIM1")
    Transform(detector, "Trans1:", "TRANS1", "SIM1")
    ColorConvert(detector, "CC1:", "CC1", "SIM1")
    Overlay(detector, "Over1:", "OVER1", "SIM1")
    Attributes(detector, "Attr1:", "ATTR1", "SIM1")


def contents(prefix: str = AREA_DETECTOR_PREFIX, world: World | None = None) -> list[RecordSpec]:
    """Every record of the IOC `ad:`."""
    world = world or World()
    detector = Detector(prefix)
    make_ports(detector, world)
    return _contents(detector, world.seed)


def _contents(detector: Detector, seed: int) -> list[RecordSpec]:
    prefix = detector.prefix
    return [
        RecordSpec(f"{prefix}{ID_RECORD}", "stringin", "Which beamline this is"),
        RecordSpec(f"{prefix}SEED", "stringin", "--seed that makes this world again", {"VAL": seed, "PINI": "YES"}),
        *detector.records(),
    ]


def boot_area_detector(
    prefix: str = AREA_DETECTOR_PREFIX, seed: int | None = None, listen: str = LOOPBACK, images_port: int | None = None
) -> None:
    """Serve the area detector from this process; returns when it does.

    Raises:
        EpicsBaseError: EPICS base is unsuitable or refuses the database.
    """
    from virtual_beamline import epics

    # Two dozen threads that pass frames on: with 5 ms, the default, each hand-over can take that long.
    sys.setswitchinterval(0.0005)
    world = World(seed)
    detector = Detector(prefix)
    make_ports(detector, world, None if images_port is None else (listen, images_port))
    text = "\n".join(record.database_text() for record in _contents(detector, world.seed))
    epics.boot(detector.record_types, text, pvaccess=True, devices=detector.devices)
    detector.start()
