"""Where the training data lie while a submission is charged."""

from pathlib import Path

import numpy as np

from timetrial.devices import Mesh
from timetrial.stream import on_device


def test_data_on_the_device_are_no_longer_in_their_file(tmp_path: Path):
    np.save(tmp_path / "x.npy", np.ones((1000, 64), np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    (array,) = on_device({"x": mapped}, Mesh.local()).values()
    assert not np.shares_memory(np.asarray(array.addressable_shards[0].data), mapped)
