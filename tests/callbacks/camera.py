"""A camera whose frames are in real HDF5 files, laid out and announced (AD_HDF5) as an areaDetector IOC does."""

from __future__ import annotations

import itertools
import time
import uuid
from collections import deque
from pathlib import Path

import h5py
import numpy as np
from ophyd import Device
from ophyd.status import Status

SPEC = "AD_HDF5"


class Camera(Device):
    """Frame number n is filled with n.

    Args:
        directory: Where the files go.
        frames: How many a point has.
        shape: Rows and columns.
        fails_after: So many frames go to the file; the others are lost.
        spec: Of the resource documents.

    Attributes:
        announced: Another directory that resource documents name: a wrong read path.
        compression: What h5py knows.
    """

    def __init__(self, directory, *, name="camera", frames=1, shape=(4, 5), fails_after=10**9, spec=SPEC, **kwargs):
        super().__init__(name=name, **kwargs)
        self.directory = Path(directory)
        self.announced = None
        self.compression = None
        self.frames, self.shape, self.fails_after = frames, shape, fails_after
        self.spec = spec
        self.file = None
        self._documents = deque()

    def stage(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        self.file = self.directory / f"{uuid.uuid4()}.h5"
        with h5py.File(self.file, "w") as file:
            file.create_dataset(
                "/entry/data/data", (0, *self.shape), "u2", maxshape=(None, *self.shape), compression=self.compression
            )
        self._resource = {
            "uid": str(uuid.uuid4()),
            "spec": self.spec,
            "root": str(self.announced or self.directory),
            "resource_path": self.file.name,
            "resource_kwargs": {"frame_per_point": self.frames},
            "path_semantics": "posix",
        }
        self._documents.append(("resource", self._resource))
        self._numbers = itertools.count()
        return super().stage()

    def trigger(self):
        number = next(self._numbers)
        self._datum = f"{self._resource['uid']}/{number}"
        kwargs = {"point_number": number}
        self._documents.append(
            ("datum", {"datum_id": self._datum, "resource": self._resource["uid"], "datum_kwargs": kwargs})
        )
        first, last = (min(n * self.frames, self.fails_after) for n in (number, number + 1))
        with h5py.File(self.file, "a") as file:
            data = file["/entry/data/data"]
            data.resize(last, axis=0)
            for frame in range(first, last):
                data[frame] = np.full(self.shape, frame)
        status = Status()
        status.set_finished()
        return status

    def describe(self):
        return {
            f"{self.name}_image": {
                "source": "test", "dtype": "array", "shape": [self.frames, *self.shape], "external": "FILESTORE:",
            }
        }  # fmt: skip

    def read(self):
        return {f"{self.name}_image": {"value": self._datum, "timestamp": time.time()}}

    def collect_asset_docs(self):
        while self._documents:
            yield self._documents.popleft()
