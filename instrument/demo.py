"""`make demo`: the session of a beamline without a keyboard, which checks what it shows.

Counts, scans the simulated peak, finds it again, lists the runs and the files, saves the plot; then asks the
catalog, the SPEC file, the picture and the simulation whether all of it really happened.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instrument.config.errors import UserError
from instrument.session import current

if TYPE_CHECKING:
    from instrument.session import Session

PICTURE = Path("demo") / "noisy.png"
IMAGE = Path("demo") / "image.png"
FRAMES = 3
DITHERED = 15  # pixels; the simulated spot moves to and fro by 10, once a second
EXPORTED = Path("demo") / "scan.csv"
SCAN_POINTS = 41
COUNTS = 3
SCAN_RANGE = (-1.2, 1.2)  # degrees; the simulated peak's centre is within ±0.9 or so


class DemoError(UserError):
    """Something that the demonstration promises did not happen."""


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise DemoError(f"demo: {what}")
    print(f"   ok: {what}")


def _show(command: str) -> None:
    print(f"\n>>> {command}")


def run(*, config: Path | str | None = None, began: float | None = None) -> int:
    """Run the demonstration.

    Args:
        config: Path of an iconfig.yml.
        began: When the start began, of `time.monotonic()`.

    Returns:
        0 if everything worked, 1 if not; what did not is the last line.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    session = current(config=config, began=began)
    from instrument import commands

    session.open(commands.NAMES)
    names = {**session.names(), **commands.commands(session)}
    try:
        _demonstrate(session, names)
    except Exception as error:
        import logging

        logging.getLogger("bluesky-session").debug("demo failed", exc_info=True)
        print(f"{type(error).__name__}: {error}" if not isinstance(error, UserError) else error, file=sys.stderr)
        return 1
    finally:
        session.close()
    print("\nThe demonstration worked; `make session` gives you the same beamline at a prompt.")
    return 0


def _demonstrate(session: Session, names: dict[str, Any]) -> None:
    engine, bp, cat = names["RE"], names["bp"], names["cat"]
    m1, noisy, scaler1, temperature = (names[name] for name in ("m1", "noisy", "scaler1", "temperature"))

    _show("devices()")
    names["devices"]()
    offline = [state.name for state in session.health.states.values() if state.state not in ("connected", "connecting")]
    _check(not offline, f"no device is offline{': ' + ', '.join(offline) if offline else ''}")

    _show("RE.subscribe(nxwriter.receiver)")
    engine.subscribe(names["nxwriter"].receiver)

    _show(f"RE(bp.count([scaler1, noisy, temperature], num={COUNTS}))")
    (count_uid,) = engine(bp.count([scaler1, noisy, temperature], num=COUNTS))
    table = cat[-1].primary.read()
    _check(cat[-1].metadata["start"]["uid"] == count_uid, "cat[-1] is the run that just ended")
    _check(table["timebase"].shape == (COUNTS,), f"the catalog has its {COUNTS} points")

    _show(f"RE(bp.scan([noisy], m1, {SCAN_RANGE[0]}, {SCAN_RANGE[1]}, {SCAN_POINTS}))")
    (scan_uid,) = engine(bp.scan([noisy], m1, *SCAN_RANGE, SCAN_POINTS))
    _check(len(cat[scan_uid].primary.read()["noisy"]) == SCAN_POINTS, f"the catalog has its {SCAN_POINTS} points")
    PICTURE.parent.mkdir(exist_ok=True)
    session.bec.save_plot(PICTURE, "noisy")
    _check(PICTURE.read_bytes().startswith(b"\x89PNG"), f"the plot is in {PICTURE}")

    _show("peaks")
    centre, width = names["peaks"]["cen"]["noisy"], names["peaks"]["fwhm"]["noisy"]
    print(f"centre {centre:.4f} {m1.egu}, full width at half maximum {width:.4f} {m1.egu}")
    truth = names["calcs"].calc1.channels.B.input_value.get()
    _check(abs(centre - truth) < width / 2, f"the peak was found where the simulation has it ({truth:.4f})")

    _show(f"RE(bps.mv(m1, {centre:.3f}))")
    engine(names["bps"].mv(m1, centre))
    reach = 2 * width
    _show(f"RE(lup([noisy], m1, {-reach:.3f}, {reach:.3f}, 21))")
    (lup_uid,) = engine(names["lup"]([noisy], m1, -reach, reach, 21))
    _check(abs(m1.position - truth) < width / 4, f"m1 stands on the peak, at {m1.position:.4f}")

    image_uid = _take_images(names)

    _show("wait_for_files()")
    _check(session.wait_for_files(), "every file is written")
    from spec2nexus.spec import SpecDataFile

    scans = SpecDataFile(str(session.specwriter.spec_filename)).getScanNumbers()
    _check(
        len(scans) >= 3, f"spec2nexus reads scans {', '.join(scans)} of {Path(session.specwriter.spec_filename).name}"
    )

    nexus = Path(session.outbox.results(scan_uid)["nexus"])
    _show(f"nexus_tree('{nexus.name}')   # of its default plot")
    _show_nexus(nexus, "noisy", ["m1"], (SCAN_POINTS,))
    _show(f"export(scan, '{EXPORTED}')")
    names["export"](scan_uid, EXPORTED, force=True)
    _check(len(EXPORTED.read_text().splitlines()) == SCAN_POINTS + 1, f"{EXPORTED} has a line for each point")

    images = Path(session.outbox.results(image_uid)["nexus"])
    _show(f"nexus_tree('{images.name}')   # of its default plot")
    _show_nexus(images, "adsimdet_image", [], (FRAMES, 1024, 1024))

    _show("listruns()")
    names["listruns"]()
    print("\nfiles:")
    for path in (session.specwriter.spec_filename, nexus, images, EXPORTED, PICTURE, IMAGE, session.log_file):
        print(f"   {path}")
    for uid in (count_uid, scan_uid, lup_uid, image_uid):
        print(f"   {session.index.with_uid(uid)[0].path}")


def _take_images(names: dict[str, Any]) -> str:
    """Take images, show one, and check that its peak is where the simulated camera has it; returns the run's uid."""
    adsimdet, cat = names["adsimdet"], names["cat"]
    _show(f"RE(bp.count([adsimdet], num={FRAMES}))")
    (uid,) = names["RE"](names["bp"].count([adsimdet], num=FRAMES))
    shape = cat[uid].primary.read()["adsimdet_image"].shape
    _check(shape == (FRAMES, 1, 1024, 1024), f"the catalog has its {FRAMES} images of 1024 x 1024 pixels")
    _show(f"show_image(save='{IMAGE}')")
    names["show_image"](save=IMAGE)
    _check(IMAGE.read_bytes().startswith(b"\x89PNG"), f"the image is in {IMAGE}")
    _show("image_peak()")
    peak = names["image_peak"]()
    print(f"centroid {peak.centroid[0]:.1f}, {peak.centroid[1]:.1f} pixels, {peak.total:.0f} counts in all")
    truth = adsimdet.cam.peak_start.get()
    _check(
        all(abs(found - there) < DITHERED for found, there in zip(peak.centroid, truth, strict=True)),
        f"the spot is where the simulation has it, about {truth[0]}, {truth[1]}",
    )
    return uid


def _show_nexus(path: Path, signal: str, axes: list[str], shape: tuple[int, ...]) -> None:
    """Print what a NeXus file plots by default, found as any reader finds it, and check that it is the run's data."""
    import h5py
    from nexusformat.nexus import nxload

    plotted: Any = nxload(str(path)).plottable_data
    print(plotted.tree)
    found = [axis.nxname for axis in plotted.nxaxes] if axes else []
    against = f" against {', '.join(axes)}" if axes else ""
    _check((plotted.nxsignal.nxname, found) == (signal, axes), f"{path.name} plots {signal}{against}")
    with h5py.File(path) as file:
        data: Any = file["entry/data"]
        found_shape = data[signal].shape
    _check(found_shape == shape, f"its shape is that of the run, {' x '.join(map(str, shape))}")
    _validate(path)


def _validate(path: Path) -> None:
    """Have punx, NeXus' own validator, look at a file; it comes with what developers install."""
    if find_spec("punx") is None:
        print(f"   {path.name} was not validated: punx is not installed")
        return
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")  # punx brings PyQt along, and nobody looks at a window here
    from punx.validate import Data_File_Validator

    validator = Data_File_Validator()
    try:
        validator.validate(str(path))
        found = [str(each.status) for each in validator.validations]
    finally:
        validator.close()
    counts = f"{found.count('OK')} items right, {found.count('ERROR')} errors, {found.count('WARN')} warnings"
    _check(not {"ERROR", "WARN"} & set(found) and "OK" in found, f"punx: {counts}")
