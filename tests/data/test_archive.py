"""Packed runs are opened elsewhere, images included."""

import shutil

import bluesky.plans as bp
import intake
import numpy as np
import ophyd.sim
import pytest

from instrument.framework.archive import ArchiveError, pack, unpack


def test_packed_runs_are_opened_where_neither_the_runs_nor_the_images_are(laboratory, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    camera = ophyd.sim.SynSignalWithRegistry(func=lambda: np.ones((2, 3)), name="camera", save_path=str(images))
    uids = [laboratory.engine(bp.count([camera], num=2))[0], laboratory.engine(bp.count([ophyd.sim.det]))[0]]
    laboratory.engine(bp.count([ophyd.sim.det]))
    copied = pack(laboratory.index, uids, tmp_path / "packed", external=True)
    assert len(copied) == 4
    shutil.rmtree(images)
    shutil.rmtree(laboratory.data.runs)
    elsewhere = shutil.move(tmp_path / "packed", tmp_path / "elsewhere")
    for name in ("packed", "packed_stock"):
        catalog = intake.open_catalog(str(elsewhere / "catalog.yml"))[name]
        assert set(catalog) == set(uids)
        assert catalog[uids[0]].primary.read()["camera"].values.tolist() == [[[1] * 3] * 2] * 2
        assert catalog[uids[1]].primary.read()["det"].size == 1


def test_unpacked_runs_are_in_the_catalog_once(laboratory, make_laboratory, tmp_path):
    uids = [laboratory.engine(bp.count([ophyd.sim.det]))[0] for _ in range(3)]
    pack(laboratory.index, uids[:2], tmp_path / "packed")
    other = make_laboratory(tmp_path / "other")
    assert len(unpack(tmp_path / "packed", other.data.runs)) == 2
    assert unpack(tmp_path / "packed", other.data.runs) == []
    assert other.index.refresh() == []
    assert set(other.index.uids()) == set(uids[:2])
    assert other.index.check() == []


def test_what_cannot_be_packed_is_told_in_one_line(laboratory, tmp_path):
    (uid,) = laboratory.engine(bp.count([ophyd.sim.det]))
    laboratory.journal("start", {"uid": "open", "time": 1.0})
    for wanted, line in (("nothing", "there is no run 'nothing'"), ("open", "run open has no stop document yet")):
        with pytest.raises(ArchiveError, match=line):
            pack(laboratory.index, [wanted], tmp_path / "packed")
    pack(laboratory.index, [uid], tmp_path / "packed")
    with pytest.raises(ArchiveError, match="is not empty: pack into a new directory"):
        pack(laboratory.index, [uid], tmp_path / "packed")
    with pytest.raises(ArchiveError, match="holds no packed runs"):
        unpack(tmp_path, laboratory.data.runs)


def test_a_missing_image_is_named(laboratory, tmp_path):
    camera = ophyd.sim.SynSignalWithRegistry(func=lambda: np.ones((2, 3)), name="camera", save_path=str(tmp_path))
    (uid,) = laboratory.engine(bp.count([camera]))
    (image,) = tmp_path.glob("*.npy")
    image.unlink()
    with pytest.raises(ArchiveError, match=f"{image.name}, which run {uid[:8]} refers to, is not there"):
        pack(laboratory.index, [uid], tmp_path / "packed", external=True)
