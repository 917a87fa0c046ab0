"""Plans with an area detector: where the spot is, dark and flat fields, statistics against a motor."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator

from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.plans import checks, preflight
from instrument.plans.checks import plan
from instrument.plans.counting import count_times

logger = logging.getLogger(LOGGER_NAME)

NORMAL, BACKGROUND, FLAT_FIELD = 0, 1, 2  # FrameType of areaDetector


@dataclass(frozen=True)
class LocatedPeak:
    """Where the peak of an image is.

    Attributes:
        x: Centre of mass (pixels); the mean of all frames. None in a dry run.
        y: The same along y.
        uid: Of the run.
        threshold: Counts above which pixels belong to the peak.
    """

    x: float | None
    y: float | None
    uid: str | None
    threshold: float | None


def camera_of(name: str, camera: Any, *plugins: str) -> Any:
    """`camera`, if it is an area detector with these plugins.

    Raises:
        UserError: It is something else.
    """
    if not hasattr(camera, "select_plugins"):
        raise UserError(f"{name}: {getattr(camera, 'name', camera)!r} is no area detector; nothing moved")
    for plugin in plugins:
        if plugin not in camera.plugin_names:
            raise UserError(f"{name}: {camera.name} has no plugin {plugin!r} (see devices.yml); nothing moved")
    return camera


@plan
def ad_vs_motor(
    motor: Any,
    start: float,
    stop: float,
    num: int,
    *,
    camera: Any,
    images: bool = False,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str | None]:
    """Scan a motor, and keep the statistics of an image at each point; the total is plotted.

    Args:
        motor: What is moved.
        start: Where the scan begins (the motor's unit).
        stop: Where it ends.
        num: How many points.
        camera: The area detector; its plugin stats1 tells the total, of the region roi1 where it gets its frames there.
        images: Keep the images too.
        md: Metadata.

    Returns:
        The run's uid.

    Raises:
        UserError: An argument is wrong, a point is outside of the limits, or images can't be kept; nothing has moved.
    """
    name = "ad_vs_motor"
    camera = camera_of(name, camera, "stats1")
    motor = checks.motor_of(name, motor)
    start, stop = checks.number(name, "start", start), checks.number(name, "stop", stop)
    num = checks.count(name, "num", num)
    checks.within_limits(name, motor, (start, stop))
    plugins = ("hdf1", "stats1") if images else ("stats1",)

    def scan() -> MsgGenerator[str | None]:
        return bp.scan([camera], motor, start, stop, num, md={"plan_name": name, **(md or {})})

    def announced() -> MsgGenerator[str | None]:
        yield from preflight.announced(name, scan, points=num, known=count_times([camera]))
        return (yield from scan())

    return (yield from camera.keeping(announced(), *plugins))


@plan
def locate_image_peak(num: int = 1, *, camera: Any, md: dict[str, Any] | None = None) -> MsgGenerator[LocatedPeak]:
    """Take images, and tell the centre of mass of their peak, as the detector's plugin stats1 computes it.

    A first frame tells how high the peak is, so that the centroid is that of the pixels above half of it. What was
    found is also `adsimdet.located_peak`, since `RE(...)` returns uids.

    Args:
        num: How many frames to average.
        camera: The area detector.
        md: Metadata.

    Raises:
        UserError: An argument is wrong.
    """
    name = "locate_image_peak"
    camera = camera_of(name, camera, "hdf1", "stats1")
    num = checks.count(name, "num", num)
    stats = camera.stats1
    centres: list[tuple[float, float]] = []
    found: dict[str, float] = {}

    def value(reading: Any, part: str) -> float | None:
        key = f"{camera.name}_stats1_{part}"
        return float(reading[key]["value"]) if reading and key in reading else None

    @bpp.stage_decorator([camera])
    @bpp.run_decorator(md={"plan_name": name, "detectors": [camera.name], "num_points": num + 1, **(md or {})})
    def take() -> MsgGenerator[None]:
        reading = yield from bps.trigger_and_read([camera])
        highest, mean = value(reading, "max_value"), value(reading, "mean_value")
        if highest is not None and mean is not None:
            found["threshold"] = (highest + mean) / 2
            yield from bps.mv(stats.centroid_threshold, found["threshold"])
        for _ in range(num):
            reading = yield from bps.trigger_and_read([camera])
            x, y = value(reading, "centroid_x"), value(reading, "centroid_y")
            if x is not None and y is not None:
                centres.append((x, y))

    before = yield from bps.rd(stats.centroid_threshold, default_value=1.0)

    def put_back() -> MsgGenerator[None]:
        yield from bps.mv(stats.centroid_threshold, before)

    run = bpp.finalize_wrapper(take(), put_back)
    uid = yield from camera.keeping(run, "hdf1", "stats1")
    if not centres:
        return LocatedPeak(None, None, uid, None)
    x, y = (sum(place) / len(centres) for place in zip(*centres, strict=True))
    logger.info("%s: peak of %s at x = %.1f, y = %.1f", name, camera.name, x, y)
    camera.located_peak = LocatedPeak(x, y, uid, found["threshold"])
    return camera.located_peak


@plan
def darks_flats(
    num: int = 1,
    *,
    darks: int = 3,
    flats: int = 3,
    camera: Any,
    shutter: Any = None,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str | None]:
    """Take dark frames, flat fields and images in one run: streams `dark`, `flat` and `primary`.

    `show_image(corrected=True)` shows the image freed of both.

    Args:
        num: How many images.
        darks: How many frames without light.
        flats: How many frames with even light.
        camera: The area detector, which is told by FrameType what it takes.
        shutter: Closed for the dark frames and open for the others, if it is given; it is left open.
        md: Metadata.

    Returns:
        The run's uid.

    Raises:
        UserError: An argument is wrong.
    """
    name = "darks_flats"
    camera = camera_of(name, camera, "hdf1")
    counts = {
        "dark": checks.count(name, "darks", darks),
        "flat": checks.count(name, "flats", flats),
        "primary": checks.count(name, "num", num),
    }
    kinds = {"dark": BACKGROUND, "flat": FLAT_FIELD, "primary": NORMAL}
    metadata = {
        "plan_name": name,
        "detectors": [camera.name],
        "num_points": counts["primary"],
        "num_points_of_streams": counts,
        **(md or {}),
    }

    @bpp.stage_decorator([camera])
    @bpp.run_decorator(md=metadata)
    def take() -> MsgGenerator[None]:
        for stream, frames in counts.items():
            if shutter is not None:
                yield from bps.mv(shutter, "close" if stream == "dark" else "open")
            yield from bps.mv(camera.cam.frame_type, kinds[stream])
            for _ in range(frames):
                yield from bps.checkpoint()
                yield from bps.trigger_and_read([camera], name=stream)

    def put_back() -> MsgGenerator[None]:
        yield from bps.mv(camera.cam.frame_type, NORMAL)

    return (yield from camera.keeping(bpp.finalize_wrapper(take(), put_back), "hdf1"))
