"""Frames of the virtual area detector streamed to HDF5, beside a plain h5py loop that writes such frames."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Benchmark, Figure, MeasurementError, child, median, ratio, scratch, take_turns
from virtual_beamline import supervisor
from virtual_beamline.names import AREA_DETECTOR_PREFIX

FRAMES = {"None": 150, "zlib": 20}
BUDGET = 0.8


@contextmanager
def area_detector() -> Iterator[supervisor.RunningAreaDetector]:
    """The IOC `ad:`, at work."""
    lease = supervisor.lease_ports()
    try:
        ioc = supervisor.start_area_detector(supervisor.new_id(), AREA_DETECTOR_PREFIX, lease, seed=1)
        try:
            ioc.wait_ready()
            yield ioc
        finally:
            ioc.stop()
    finally:
        lease.release()


def plain(frames: int, compression: str, directory: Path) -> float:
    """Frames per second of a loop of h5py with the same frames (of the file that the IOC has written), and chunks."""
    import h5py

    with h5py.File(directory / "sample.h5") as file:
        images = file["data"][:]
    path = directory / "plain.h5"
    filters = {"compression": "gzip", "compression_opts": 6} if compression == "zlib" else {}
    began = time.perf_counter()
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "data",
            (0, *images.shape[1:]),
            images.dtype,
            maxshape=(None, *images.shape[1:]),
            chunks=(1, *images.shape[1:]),
            **filters,
        )
        for number in range(frames):
            data.resize(number + 1, axis=0)
            data[number] = images[number % len(images)]
    took = time.perf_counter() - began
    path.unlink()
    return frames / took


def measure(rounds: int | None) -> Iterator[Figure]:
    with scratch() as directory, area_detector() as ioc:
        variables = dict(ioc.environment.variables)

        def stream(compression: str, blocking: str, frames: int) -> dict[str, float]:
            options = (compression, blocking, frames, directory)
            return child("image_client", *options, cwd=directory, variables=variables)

        for compression, frames in FRAMES.items():

            def ours(compression: str = compression, frames: int = frames) -> dict[str, float]:
                found = stream(compression, "Yes", frames)
                if found["frames"] != frames:
                    raise MeasurementError(
                        f"{found['frames']:g} of {frames} frames are in the file: {found['message']}"
                    )
                return found

            found = take_turns(
                {"ours": ours, "plain": lambda c=compression, n=frames: plain(n, c, directory)},
                rounds or 4,
                warm_up=True,
            )
            rates = [each["rate"] for each in found["ours"]]
            dropped = sum(each["dropped"] for each in found["ours"])
            note = f"{median(rates):.0f} /s, h5py {median(found['plain']):.0f} /s; {dropped:g} frames dropped"
            yield Figure(
                f"images: 1k x 1k UInt8, {compression}, / plain h5py",
                ratio(rates, found["plain"]),
                BUDGET,
                "x",
                at_least=True,
                note=note,
            )
            many = 3 * frames  # more than the queue holds
            free = stream(compression, "No", many)
            lost = f"{free['dropped']:g} of {many} frames at {free['rate']:.0f} /s into the file"
            note = f"where the camera does not wait (BlockingCallbacks No), as fast as it can: {lost}"
            yield Figure(f"images: dropped, {compression}", dropped, 0, "frames", note=note)


BENCHMARK = Benchmark("images", "frames of the area detector into HDF5, beside a plain h5py loop", measure)
