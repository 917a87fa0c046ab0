"""Commands about images: looking at them, measuring their peak, and what the simulated camera sees."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instrument.config.errors import UserError
from instrument.plans import checks
from instrument.plans.defaults import device_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from instrument.framework.pictures import Image, ImagePeak
    from instrument.session import Session

CAMERA = "adsimdet"
DITHER = 40  # pixels
FWHM = 0.5  # of the light that a motor lets through; its units
# The simulated spot: as random as the virtual beamline makes it at its start.
CENTER, WIDTH, HEIGHT, NOISE = (100, 900), (8, 40), (120, 220), (4, 20)


class ImageCommands:
    """Looking at images, measuring their peak, and what the simulated camera sees."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # --- pictures

    def show_image(
        self,
        run: Any = -1,
        point: int = 0,
        *,
        frame: int = 0,
        stream: str = "primary",
        detector: Any = None,
        log: bool = False,
        low: float | None = None,
        high: float | None = None,
        corrected: bool = False,
        save: str | Path | None = None,
    ) -> None:
        """Show an image of a run, with profiles along the row and the column of its highest pixel.

        Where there is no screen it is saved: as `save`, or as image-<scan number>-<point>.png, with what else it is.

        Args:
            run: A scan number, -1 for the last run, the beginning of a uid, or `cat[...]`.
            point: Which point of the run, from 0.
            frame: Which of the point's frames, from 0.
            stream: Which stream of the run.
            detector: Whose image, if several of them have some: the device or its name.
            log: Logarithmic colors and profiles.
            low: Counts of the darkest color; the smallest pixel if not given.
            high: Counts of the brightest one; the largest pixel if not given.
            corrected: Free it of the run's dark frames and flat fields (plan `darks_flats`).
            save: Write a picture too; the file's ending says which kind.

        Raises:
            UserError: There is no such image, its file is missing, or the picture can't be written.
        """
        found, image, point, frame = self._image(run, point, frame, stream, detector)
        start = found.metadata["start"]
        title = f"scan {start.get('scan_id')}, {start.get('plan_name')}, {stream}, point {point}"
        if frame:
            title = f"{title}, frame {frame}"
        if corrected:
            image, title = self._corrected(found, image, detector), f"{title}, corrected"
        pyplot = self._session.importer.need("matplotlib.pyplot")
        figure = pyplot.figure(num="image", clear=True, figsize=(8, 7), layout="constrained")
        _draw(figure, image, title, log, low, high)
        backend = str(pyplot.get_backend()).lower()
        if "inline" in backend:
            from IPython.display import display

            display(figure)
        elif backend == "agg":
            parts = [
                start.get("scan_id"),
                *([] if stream == "primary" else [stream]),
                point,
                *([frame] if frame else []),
            ]
            save = save or f"image-{'-'.join(map(str, parts))}{'-corrected' if corrected else ''}.png"
        else:
            figure.canvas.draw_idle()
            pyplot.show(block=False)
        if save is not None:
            try:
                figure.savefig(Path(save).expanduser())
            except (OSError, ValueError) as error:
                raise UserError(f"can't save the image as {save}: {error}") from error
            print(f"image saved as {save}")
        if "inline" in backend:
            pyplot.close(figure)

    def image_peak(
        self, run: Any = -1, point: int = 0, *, frame: int = 0, stream: str = "primary", detector: Any = None
    ) -> ImagePeak:
        """Measure the peak of an image: centroid and FWHM as (x, y) in pixels, total in counts.

        Args:
            run: A scan number, -1 for the last run, the beginning of a uid, or `cat[...]`.
            point: Which point of the run, from 0.
            frame: Which of the point's frames, from 0.
            stream: Which stream of the run.
            detector: Whose image, if several of them have some: the device or its name.

        Raises:
            UserError: There is no such image, its file is missing, or there is no peak in it.
        """
        from instrument.framework import pictures

        found, image, *_ = self._image(run, point, frame, stream, detector)
        try:
            return pictures.image_peak(image)
        except ValueError as error:
            raise UserError(f"scan {found.metadata['start'].get('scan_id')}, point {point}: {error}") from error

    def _image(self, run: Any, point: int, frame: int, stream: str, detector: Any) -> tuple[Any, Image, int, int]:
        """The run, an image of it, and which it is, counted from 0 also where -1 was asked for."""
        from instrument.framework import pictures

        found, column = self._frames(run, stream, detector)
        label = f"scan {found.metadata['start'].get('scan_id')}"
        for name, number, count in (("point", point, column.shape[0]), ("frame", frame, column.shape[1])):
            if not -count <= number < count:
                raise UserError(f"{label} has {count} {name}{'' if count == 1 else 's'}: there is no {name} {number}")
        try:
            image = pictures.plane(column[point, frame].values)
        except (OSError, ValueError) as error:
            raise UserError(f"{label}, point {point}: the image can't be read ({error})") from error
        return found, image, point % column.shape[0], frame % column.shape[1]

    def _frames(self, run: Any, stream: str, detector: Any) -> tuple[Any, Any]:
        """The run, and its images as an array of dask of shape (point, frame, y, x)."""
        found = self._session.cat[run] if isinstance(run, int | str) else run
        label = f"scan {found.metadata['start'].get('scan_id')}"
        if stream not in list(found):
            raise UserError(f"{label} has no stream {stream!r}; it has {', '.join(sorted(found)) or 'none'}")
        dataset = found[stream].to_dask()
        names = [name for name, column in dataset.data_vars.items() if column.ndim >= 4]
        if not names:
            raise UserError(f"{label} has no images in its stream {stream!r}")
        wanted = getattr(detector, "name", detector)
        chosen = [name for name in names if wanted is None or name == wanted or name.startswith(f"{wanted}_")]
        if len(chosen) != 1:
            choices = ", ".join(repr(name.removesuffix("_image")) for name in names)
            what = "has images of several detectors" if wanted is None else f"has no images of a detector {wanted!r}"
            raise UserError(f"{label} {what}: choose one with detector=, of {choices}")
        return found, dataset[chosen[0]]

    def _corrected(self, run: Any, image: Image, detector: Any) -> Image:
        from instrument.framework import pictures

        means = []
        for stream in ("dark", "flat"):
            _, column = self._frames(run, stream, detector)
            means.append(column.mean(axis=(0, 1)).values)
        return pictures.corrected(image, *means)

    # --- the simulated camera

    def change_ad_simulated_image_parameters(self) -> None:
        """Give the simulated diffraction spot another random place, width, height and noise."""
        cam, draw = self._camera().cam, random.SystemRandom()
        center, height = (draw.randint(*CENTER), draw.randint(*CENTER)), draw.randint(*HEIGHT)
        cam.sim_mode.put("Peaks")
        for signal, value in (
            (cam.peak_start.peak_start_x, center[0]),
            (cam.peak_start.peak_start_y, center[1]),
            (cam.peak_width.peak_width_x, draw.randint(*WIDTH)),
            (cam.peak_width.peak_width_y, draw.randint(*WIDTH)),
            (cam.gain, height),
            (cam.noise, draw.randint(*NOISE)),
        ):
            signal.put(value)
        for calc, place in zip(self._dithering(), center, strict=True):
            if calc.output_link_pv.get().startswith(cam.prefix):
                calc.channels.B.input_value.put(place)
        lighting = self._lighting()
        if lighting.output_link_pv.get().startswith(cam.prefix):
            lighting.channels.D.input_value.put(height)

    def dither_ad_on(self) -> None:
        """Have the simulated spot move about its place each second (`gp:userCalc9`, `gp:userCalc10`)."""
        cam = self._camera().cam
        if not all(calc.output_link_pv.get().startswith(cam.prefix) for calc in self._dithering()):
            self.dither_ad_peak_position()  # somebody else used the records meanwhile
            return
        for calc in self._dithering():
            calc.scanning_rate.put("1 second")

    def dither_ad_off(self) -> None:
        """Have the simulated spot stay where it is."""
        for calc in self._dithering():
            calc.scanning_rate.put("Passive")

    def dither_ad_peak_position(self, magnitude: float = DITHER) -> None:
        """Have the simulated spot move about the place where it is now.

        Args:
            magnitude: Over how many pixels it moves to and fro.
        """
        if not magnitude > 0:
            raise UserError(f"dither_ad_peak_position: magnitude={magnitude!r} has to be more than 0 pixels")
        start = self._camera().cam.peak_start
        for calc, signal in zip(self._dithering(), (start.peak_start_x, start.peak_start_y), strict=True):
            calc.scanning_rate.put("Passive")
            calc.description.put("dither of the image")
            calc.calculation.put("B+NINT(C*(RNDM-0.5))")
            calc.channels.B.input_value.put(signal.get())
            calc.channels.C.input_value.put(magnitude)
            calc.output_link_pv.put(signal.setpoint_pvname)
            calc.output_execute_option.put("Every Time")
            calc.scanning_rate.put("1 second")

    def ad_lit_by(self, motor: Any = None, center: float | None = None, fwhm: float = FWHM) -> None:
        """Have the simulated spot be brightest where a motor is at `center`, as light through a slit (`gp:userCalc11`).

        Args:
            motor: The motor, or its name; None: the spot is as bright as it was, wherever motors are.
            center: Where it is brightest (the motor's unit); where the motor is now if not given.
            fwhm: Full width at half maximum of the Gaussian in between (the motor's unit).

        Raises:
            UserError: There is no such motor, it is offline, or a number is wrong.
        """
        name, gain, calc = "ad_lit_by", self._camera().cam.gain, self._lighting()
        lit = calc.output_link_pv.get() == gain.setpoint_pvname
        height = calc.channels.D.input_value.get() if lit else gain.get()
        if motor is None:
            if lit:
                calc.reset()
                gain.put(height)
            return
        motor = checks.motor_of(name, device_of(self._session.devices, motor))
        self._session.health.require(motor)
        position: Any = getattr(motor, "user_readback", None) or getattr(motor, "readback", None)
        if not hasattr(position, "pvname"):
            raise UserError(f"{name}: {motor.name} has no PV that says where it is")
        center = motor.position if center is None else checks.number(name, "center", center)
        if not checks.number(name, "fwhm", fwhm) > 0:
            raise UserError(f"{name}: fwhm={fwhm!r} has to be more than 0")
        calc.scanning_rate.put("Passive")
        calc.description.put("light on the camera")
        calc.calculation.put("D/2^((2*(A-B)/C)^2)")  # a Gaussian by its full width at half maximum
        calc.channels.A.input_pv.put(position.pvname)
        for channel, value in (("B", center), ("C", fwhm), ("D", height)):
            getattr(calc.channels, channel).input_value.put(value)
        calc.output_link_pv.put(gain.setpoint_pvname)
        calc.output_execute_option.put("Every Time")
        calc.scanning_rate.put("I/O Intr")
        calc.process_record.put(1)

    def _camera(self) -> Any:
        camera = self._device(CAMERA)
        if not hasattr(camera.cam, "peak_start"):
            raise UserError(f"{CAMERA} is no simulated camera")
        return camera

    def _dithering(self) -> tuple[Any, Any]:
        calcs = self._device("calcs")
        return calcs.calc9, calcs.calc10

    def _lighting(self) -> Any:
        return self._device("calcs").calc11

    def _device(self, name: str) -> Any:
        if name not in self._session.devices:
            raise UserError(f"there is no device {name!r}: devices.yml names none")
        self._session.health.require(self._session.devices[name])
        return self._session.devices[name]


def _draw(figure: Figure, image: Image, title: str, log: bool, low: float | None, high: float | None) -> None:
    import numpy as np
    from matplotlib.colors import LogNorm, Normalize

    low = float(image.min()) if low is None else low
    high = float(image.max()) if high is None else high
    if log:
        positive = image[image > 0]
        low = max(low, float(positive.min()) if positive.size else 1.0)
        high = max(high, 10 * low)
    elif high <= low:
        high = low + 1
    row, column = (int(place) for place in np.unravel_index(int(np.argmax(image)), image.shape))
    axes = figure.subplot_mosaic(
        [["x", "."], ["image", "y"]],
        width_ratios=(4, 1),
        height_ratios=(1, 4),
        gridspec_kw={"wspace": 0.02, "hspace": 0.02},
    )
    shown = axes["image"].imshow(
        image, norm=LogNorm(low, high) if log else Normalize(low, high), cmap="viridis", aspect="auto"
    )
    axes["image"].set(xlabel="x (pixels)", ylabel="y (pixels)")
    axes["image"].axhline(row, color="white", linewidth=0.5, alpha=0.6)
    axes["image"].axvline(column, color="white", linewidth=0.5, alpha=0.6)
    axes["x"].plot(np.arange(image.shape[1]), image[row], linewidth=0.8)
    axes["y"].plot(image[:, column], np.arange(image.shape[0]), linewidth=0.8)
    axes["x"].sharex(axes["image"])
    axes["y"].sharey(axes["image"])
    axes["x"].tick_params(labelbottom=False)
    axes["y"].tick_params(labelleft=False)
    axes["x"].set(ylabel=f"row {row}")
    axes["y"].set(xlabel=f"column {column}")
    if log:
        axes["x"].set_yscale("log")
        axes["y"].set_xscale("log")
    figure.colorbar(shown, ax=axes["y"], label="counts", fraction=0.3)
    figure.suptitle(title)
