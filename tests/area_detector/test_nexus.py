"""Frames that the IOC wrote, in the NeXus file of the run: referred to, read back with h5py alone."""

import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky import plans as bp
from ophyd.sim import motor

from tests.callbacks.nexus import Files, assert_valid

from .test_stock_classes import check_spots, reads

pytestmark = pytest.mark.usefixtures("patient_ophyd")


@pytest.mark.parametrize("frames", [1, 2])
def test_frames_of_a_scan_are_in_its_nexus_file(ad, images, tmp_path, frames):
    from ophyd import Component, HDF5Plugin, SimDetector, SingleTrigger
    from ophyd.areadetector.filestore_mixins import FileStoreHDF5IterativeWrite

    class Writer(HDF5Plugin, FileStoreHDF5IterativeWrite):
        pass

    class Stock(SingleTrigger, SimDetector):
        hdf1 = Component(Writer, "HDF1:", write_path_template=f"{images}/")

    det = Stock("ad:", name="det")
    reads(det, det.hdf1)
    det.stage_sigs["cam.num_images"] = frames
    engine, documents = RunEngine({}), []
    engine.subscribe(lambda name, document: documents.append((name, document)))
    engine(bp.scan([det], motor, -1, 1, 3))
    path = Files(tmp_path / "nexus").write(documents)
    with h5py.File(path) as file:
        data = file["entry/data"]
        pixels = ["frame", "row", "column"] if frames > 1 else ["row", "column"]
        assert (data.attrs["signal"], data.attrs["axes"].tolist()) == ("det_image", ["motor", *pixels])
        found = data["det_image"][()]
        source = file["entry/instrument/bluesky/streams/primary/det_image/value"].attrs["source_file"]
    with h5py.File(path.parent / source) as file:
        np.testing.assert_array_equal(found.reshape(-1, 1024, 1024), file["entry/data/data"][()])
    assert len(found) == 3
    check_spots(found.reshape(-1, 1024, 1024))
    assert path.stat().st_size < 1024 * 1024
    assert_valid(path)
