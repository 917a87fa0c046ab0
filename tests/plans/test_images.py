"""Plans with adsimdet in a real session, and the commands that look at what they took."""

from __future__ import annotations

import os
import re
import signal

import h5py
import numpy as np
import pytest
from PIL import Image
from spec2nexus.spec import SpecDataFile

from instrument.framework import pictures
from tests.faults.session import Session, until
from tests.faults_page import fault

DEADLINE = 60.0


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    with Session(tmp_path_factory.mktemp("images")) as session:
        session.first_shown = session.run("print(f'{adsimdet.cam.acquire_time.get()} s')")
        session.run("dither_ad_off()")
        session.run("RE(bp.count([adsimdet], num=5))")
        yield session


def one_line(shown: str) -> str:
    (line,) = [line for line in shown.splitlines() if line.strip()]
    return line


def numbers(session, expression: str):
    return session.printed(expression)


def test_the_first_line_of_a_session_waits_for_the_camera_that_it_names(session):
    assert re.fullmatch(r"[\d.]+ s", session.first_shown.strip())


def test_databroker_gives_the_frames_lazily(session):
    shown = session.run("print(cat[1].primary.read()['adsimdet_image'])")
    assert "dask.array" in shown
    assert "(5, 1, 1024, 1024)" in shown
    frames = numbers(session, "[int(f.sum()) for f in cat[1].primary.read()['adsimdet_image'].values[:, 0]]")
    (path,) = (session.directory / ".data" / "images").rglob("*.h5")
    with h5py.File(path) as file:
        assert frames == [int(frame.sum()) for frame in file["entry/data/data"][()]]
    assert len(set(frames)) == 5  # each has noise of its own


def test_the_peak_of_an_image_is_where_the_camera_has_it(session):
    shown = session.run("print(*adsimdet.cam.peak_start.get(), *adsimdet.cam.peak_width.get())").split()
    x, y, width_x, width_y = map(float, shown[-4:])
    centroid, fwhm, total = numbers(session, "(lambda p: [p.centroid, p.fwhm, p.total])(image_peak(1))")
    assert centroid == pytest.approx((x, y), abs=4)
    assert fwhm == pytest.approx((2.355 * width_x, 2.355 * width_y), rel=0.1)
    assert total == numbers(session, "int(cat[1].primary.read()['adsimdet_image'].values[0].sum())")
    shown = session.run("RE(locate_image_peak(2))")
    found = re.search(r"peak of adsimdet at x = ([\d.]+), y = ([\d.]+)", shown)
    assert found is not None, shown
    assert (float(found[1]), float(found[2])) == pytest.approx((x, y), abs=4)
    kept = numbers(session, "(adsimdet.located_peak.x, adsimdet.located_peak.y)")
    assert kept == pytest.approx((float(found[1]), float(found[2])), abs=0.05)


def test_of_several_detectors_one_is_chosen_by_its_name(session):
    # Two cameras at two places would need two IOCs: the other one's frames are the first one's, mirrored.
    session.run("both = cat[1].primary.to_dask(); both = both.assign(other_image=both.adsimdet_image[..., ::-1])")
    session.run("two = type('Run', (dict,), {'metadata': cat[1].metadata})()")
    session.run("two['primary'] = type('Stream', (), {'to_dask': lambda self: both})()")
    choices = "choose one with detector=, of 'adsimdet', 'other'"
    assert one_line(session.run("show_image(two)")) == f"scan 1 has images of several detectors: {choices}"
    line = one_line(session.run("image_peak(two, detector='m1')"))
    assert line == f"scan 1 has no images of a detector 'm1': {choices}"
    x, _ = numbers(session, "image_peak(two, detector=adsimdet).centroid")
    mirrored, _ = numbers(session, "image_peak(two, detector='other').centroid")
    assert x + mirrored == pytest.approx(1023, abs=0.1)


def test_show_image_saves_a_picture_where_there_is_no_screen(session):
    name = one_line(session.run("show_image(1, point=2)")).removeprefix("image saved as ")
    assert name == "image-1-2.png"
    linear = np.asarray(Image.open(session.directory / name).convert("RGB"))
    session.run("show_image(1, 2, log=True, low=5, high=100, save='log.png')")
    logarithmic = np.asarray(Image.open(session.directory / "log.png").convert("RGB"))
    assert linear.shape == logarithmic.shape
    assert (linear != logarithmic).any(axis=2).mean() > 0.2
    assert len(np.unique(linear.reshape(-1, 3), axis=0)) > 100
    assert one_line(session.run("show_image(1, point=7)")) == "scan 1 has 5 points: there is no point 7"
    line = one_line(session.run("show_image(1, stream='dark')"))
    assert line == "scan 1 has no stream 'dark'; it has baseline, primary"


def test_dark_and_flat_frames_are_streams_of_their_own_and_correct_the_image(session):
    session.run("RE(darks_flats(1, darks=2, flats=2))")
    shapes = {s: numbers(session, f"cat[-1].{s}.read()['adsimdet_image'].shape") for s in ("dark", "flat", "primary")}
    assert shapes == {"dark": (2, 1, 1024, 1024), "flat": (2, 1, 1024, 1024), "primary": (1, 1, 1024, 1024)}
    mean = {s: numbers(session, f"float(cat[-1].{s}.read()['adsimdet_image'].mean())") for s in shapes}
    assert mean["dark"] < mean["primary"] < mean["flat"]
    number = session.scan_id
    for options, name in (
        ("point=-1, stream='flat'", f"image-{number}-flat-1.png"),
        ("corrected=True", f"image-{number}-0-corrected.png"),
    ):
        assert one_line(session.run(f"show_image({options})")) == f"image saved as {name}"
        assert (session.directory / name).stat().st_size > 10_000
    assert numbers(session, "adsimdet.cam.frame_type.get()") == 0


def test_statistics_against_a_motor_without_images(session):
    before = set((session.directory / ".data" / "images").rglob("*.h5"))
    shown = session.run("RE(ad_vs_motor(m2, 0, 0.2, 3))")
    assert "adsimdet_stats1_total" in shown
    assert set((session.directory / ".data" / "images").rglob("*.h5")) == before
    totals = numbers(session, "cat[-1].primary.read()['adsimdet_stats1_total'].values.tolist()")
    assert len(totals) == 3
    assert min(totals) > 0
    assert numbers(session, "adsimdet.read_attrs") == ["hdf1"]
    assert one_line(session.run("show_image()")).endswith("has no images in its stream 'primary'")


def test_images_that_cannot_be_kept_are_told_before_the_motor_moves(session):
    session.run("adsimdet.hdf1.file_path.put('/nowhere')")
    before = session.pv("gp:m2.VAL"), session.scan_id
    line = one_line(session.run("ad_vs_motor(m2, 3, 4, 3, images=True)"))
    assert line.startswith("ad_vs_motor: adsimdet")
    assert line.endswith("; nothing moved")
    assert (session.pv("gp:m2.VAL"), session.scan_id) == before
    assert "ad_vs_motor: 2 points of adsimdet, m2 0 to 0.1, about" in session.run("ad_vs_motor(m2, 0, 0.1, 2)")
    session.run("adsimdet.hdf1.file_path.put('')")


def test_any_plan_runs_without_saving_images(session):
    files = "len(list(__import__('pathlib').Path('.data/images').rglob('*.h5')))"
    before = numbers(session, files)
    session.run("RE(adsimdet.keeping(bp.count([adsimdet], num=2), 'stats1'))")
    assert numbers(session, "sorted(c for c in cat[-1].primary.read() if 'image' in c or 'total' in c)") == [
        "adsimdet_stats1_total"
    ]
    assert numbers(session, f"[{files}, adsimdet.read_attrs]") == [before, ["hdf1"]]
    line = one_line(session.run("RE(adsimdet.keeping(bp.count([adsimdet]), 'stats7'))"))
    assert line.startswith("adsimdet has no plugin 'stats7'")


def test_a_motor_in_the_light_gives_the_statistics_a_peak(session):
    height = numbers(session, "adsimdet.cam.gain.get()")
    session.run("ad_lit_by('m3', 0.2, fwhm=0.4)")
    session.run("RE(ad_vs_motor(m3, -0.4, 0.8, 13))")
    measured = numbers(session, "cat[-1].primary.read()['adsimdet_stats1_total'].values.tolist()")
    assert np.argmax(measured) == 6
    session.run("umv(m3, 0.4)")

    def gain():  # follows the motor through both IOCs
        return numbers(session, "adsimdet.cam.gain.get()")

    until(lambda: gain() == pytest.approx(height / 2, rel=0.01), "half the light")
    shown = session.run("ad_lit_by(m3, 'there')")
    assert one_line(shown).startswith("ad_lit_by: center='there'")
    assert one_line(session.run("ad_lit_by('m33')")).startswith("no device is named 'm33'; did you mean 'm3'")
    session.run("ad_lit_by()")
    until(lambda: gain() == pytest.approx(height), "all the light")


@pytest.mark.parametrize("callbacks", ["Enable", "Disable"])
def test_a_region_is_saved_and_measured(session, callbacks):
    ports = "adsimdet.hdf1.nd_array_port.put({0!r}); adsimdet.stats1.nd_array_port.put({0!r})"
    session.run("adsimdet.roi1.size.x.put(200); adsimdet.roi1.size.y.put(100)")
    session.run(f"adsimdet.roi1.array_callbacks.put({callbacks!r}); {ports.format('ROI1')}")
    session.run("adsimdet.select_plugins('hdf1', 'stats1'); RE(bp.count([adsimdet]))")
    session.run(f"adsimdet.select_plugins(); {ports.format('SIM1')}")
    assert numbers(session, "cat[-1].primary.read()['adsimdet_image'].shape") == (1, 1, 100, 200)
    total, pixels = numbers(
        session,
        "(lambda d: [float(d[f'adsimdet_{n}'].sum()) for n in ('stats1_total', 'image')])(cat[-1].primary.read())",
    )
    assert total == pixels > 0
    assert session.value("adsimdet.roi1.array_callbacks.get(as_string=True)") == callbacks


def test_the_spec_file_has_statistics_and_no_column_for_images(session):
    session.run("adsimdet.select_plugins('hdf1', 'stats1')")
    session.run("RE(bp.count([adsimdet], num=2))")
    session.run("adsimdet.select_plugins()")
    session.run("wait_for_files()")
    (path,) = session.directory.glob("*.dat")
    scan = SpecDataFile(str(path)).getScan(-1)
    assert "adsimdet_image" not in scan.L
    assert len(scan.data["adsimdet_stats1_total"]) == 2
    assert "datum_kwargs" not in path.read_text()


def test_the_simulated_spot_is_changed_and_dithered(session):
    place = "(lambda c: (c.peak_start.peak_start_x.get(), c.peak_start.peak_start_y.get()))(adsimdet.cam)"
    before = numbers(session, place)
    session.run("change_ad_simulated_image_parameters()")
    until(lambda: numbers(session, place) != before, "another place")
    assert all(100 <= value <= 900 for value in numbers(session, place))
    session.run("dither_ad_peak_position(20)")
    scanning = "[getattr(calcs, c).scanning_rate.get(as_string=True) for c in ('calc9', 'calc10')]"
    assert numbers(session, scanning) == ["1 second"] * 2
    assert numbers(session, "calcs.calc9.output_link_pv.get()" + ".join('\"\"')") == "ad:cam1:PeakStartX"
    session.run("dither_ad_off()")
    assert numbers(session, scanning) == ["Passive"] * 2
    session.run("dither_ad_on()")
    assert numbers(session, scanning) == ["1 second"] * 2
    session.run("dither_ad_off()")


@fault("The image file of a run is missing", "one line names it and root_map; the run is read when it is back")
def test_a_missing_file_is_one_line_that_names_it_until_it_is_back(session):
    session.run("RE(bp.count([adsimdet]))")
    name = numbers(session, "repr([d['resource_path'] for n, d in cat[-1].documents(fill='no') if n == 'resource'][0])")
    path = session.directory / ".data" / name.strip("'")
    away = path.rename(path.with_suffix(".away"))
    line = one_line(session.run("cat[-1].primary.read()"))
    assert line.startswith(f"image file {path} is missing")
    assert one_line(session.run("export(-1, 'lost.hdf')")).startswith(f"run {session.scan_id}: image file {path} is")
    away.rename(path)
    assert numbers(session, "cat[-1].primary.read()['adsimdet_image'].shape") == (1, 1, 1024, 1024)
    assert one_line(session.run("export(-1, 'found.hdf')")).endswith("PosixPath('found.hdf')")


def test_nexus_file_of_images_is_valid_and_shows_the_image(session):
    import punx.validate

    assert "%|" not in session.run("export(1, 'images.hdf')")
    assert "| 2/2 " in session.run("export([1, 2], 'several.csv')")
    path = session.directory / "images.hdf"
    with h5py.File(path) as file:
        data = file["entry/data"]
        frames = data[data.attrs["signal"]]
        assert frames.is_virtual
        assert frames.shape == (5, 1024, 1024)
        assert frames[0].any()
    validator = punx.validate.Data_File_Validator()
    validator.validate(str(path))
    bad = [f for f in validator.validations if str(f.status) in {"ERROR", "WARN"}]
    validator.close()
    assert not bad


@fault(
    "The detector's IOC is killed in an exposure",
    "one line; the frames so far are safe; it is started, and the next run works",
)
def test_the_detectors_ioc_is_gone_in_an_exposure_and_the_frames_so_far_are_safe(session):
    session.run("RE(bps.mv(adsimdet.cam.acquire_time, 0.3)); adsimdet.hdf1.file_name.put('mine')")
    number = session.scan_id + 1
    gone = session.beamline.area_detector
    session.type("RE(bp.count([adsimdet], num=1000))")
    session.wait_for(r"\|         3 \|")
    os.kill(gone.pid, signal.SIGKILL)
    shown = session.shows_until(r"adsimdet is offline: no answer from ad:[^\n]*\r\n", r"In \[\d+\]: ")
    assert "Traceback" not in shown
    session.process.sendline("start_beamline()")
    session.shows_until(r"area detector ad: started[^\n]*\r\n", r"adsimdet is back", r"In \[\d+\]: ")
    shape = numbers(session, f"cat[{number}].primary.read()['adsimdet_image'].shape")
    assert shape[0] >= 3
    assert shape[1:] == (1, 1024, 1024)
    assert numbers(session, f"int(cat[{number}].primary.read()['adsimdet_image'].values[-1].max())") > 50
    assert list((session.directory / ".data" / "images").rglob("mine_*.h5"))
    session.run("RE(bp.count([adsimdet]))")
    assert numbers(session, "cat[-1].metadata['stop']['exit_status'] == 'success'")
    name, path = numbers(session, "[signal.get() for signal in (adsimdet.hdf1.file_name, adsimdet.hdf1.file_path)]")
    assert name.startswith("adsimdet_")  # the choice went with the IOC
    assert path.startswith(str(session.directory / ".data" / "images"))
    log = (session.directory / ".logs" / "ipython_logger.log").read_text()
    assert "adsimdet_hdf1_file_name is 'image' since its IOC was started again, no more 'mine'" in log


def test_image_peak_is_right_for_known_images():
    y, x = np.mgrid[:200, :300]
    image = 10 + 1000 * np.exp(-(((x - 120.4) / 12) ** 2 + ((y - 60.7) / 7) ** 2) / 2)
    peak = pictures.image_peak(image)
    assert peak.centroid == pytest.approx((120.4, 60.7), abs=0.05)
    assert peak.fwhm == pytest.approx((12 * 2.3548, 7 * 2.3548), rel=0.02)
    assert peak.net == pytest.approx(1000 * 2 * np.pi * 12 * 7, rel=0.02)
    with pytest.raises(ValueError, match="no peak"):
        pictures.image_peak(np.ones((5, 5)))
    flat = np.array([[2.0, 4.0], [8.0, 1.0]])
    assert pictures.corrected(flat * 3 + 1, 1 + 0 * flat, flat + 1) == pytest.approx(3 * flat.mean())
