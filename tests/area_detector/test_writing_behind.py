"""Frames are written while the next one is made; what could not be written is in no count."""

import threading

import h5py
import numpy as np
import pytest

from virtual_beamline.area_detector.hdf5 import _Behind, _Column
from virtual_beamline.area_detector.ndarray import NDArray

FRAME = NDArray(np.zeros((2, 2), np.uint8), 1)


def put_all(behind, numbers):
    for number in numbers:
        behind.put(number, FRAME)


def test_frames_are_written_in_order_and_all_when_it_ends():
    written = []
    behind = _Behind(lambda number, _array: written.append(number), 2)
    put_all(behind, range(50))
    behind.wait()
    assert written == list(range(50))
    put_all(behind, range(50, 60))
    behind.end()
    assert written == list(range(60))
    assert not behind.failed


def test_the_next_frame_is_taken_while_one_is_written_and_only_a_few_more():
    go_on, all_put = threading.Event(), threading.Event()
    behind = _Behind(lambda _number, _array: go_on.wait(60), 2)

    def put():
        put_all(behind, range(4))
        all_put.set()

    put_all(behind, [0])
    thread = threading.Thread(target=put)
    thread.start()
    assert not all_put.wait(0.3)  # memory has an end
    go_on.set()
    assert all_put.wait(60)
    thread.join()
    behind.end()
    assert behind.written == 5


def test_a_failure_is_told_once_and_nothing_is_written_behind_it():
    written = []

    def write(number, _array):
        if number == 3:
            raise OSError(28, "No space left on device")
        written.append(number)

    behind = _Behind(write, 2)
    with pytest.raises(OSError, match="No space left"):
        put_all(behind, range(100))
    behind.end()
    assert written == [0, 1, 2]
    assert (behind.failed, behind.written) == (True, 3)


def test_a_failure_of_the_last_frame_is_told_at_the_end():
    def write(_number, _array):
        raise OSError(28, "No space left on device")

    behind = _Behind(write, 2)
    behind.put(0, FRAME)
    with pytest.raises(OSError, match="No space left"):
        behind.end()


@pytest.mark.parametrize("kept", [0, 100, 255, 256, 257, 300])
def test_values_of_frames_that_are_not_there_are_taken_back(tmp_path, kept):
    with h5py.File(tmp_path / "values.h5", "w") as file:
        column = _Column(file.create_dataset("values", (0,), "i8", maxshape=(None,), chunks=(16,)))
        for value in range(300):  # more than are held back at a time
            column.append(value)
        column.cut(kept)
        column.flush()
        assert file["values"][:].tolist() == list(range(kept))
