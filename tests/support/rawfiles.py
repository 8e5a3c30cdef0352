"""Raw files of the full track, made by hand, and what is asked of every row that is made of them."""

import io
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from timetrial.data import SPLITS
from timetrial.full.recorded import Recorded, raw_folder
from timetrial.workload import Field


def write_tar(path: Path, files: Mapping[str, bytes]) -> None:
    """A tar.gz file with those files, by name."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def assert_fits(row: Mapping[str, np.ndarray], fields: Mapping[str, Field]) -> None:
    """Fails unless a row has a workload's fields: their names, shapes, dtypes and ranges."""
    assert {name: (value.shape, value.dtype) for name, value in row.items()} == {
        name: (field.shape, np.dtype(field.dtype)) for name, field in fields.items()
    }
    for name, field in fields.items():
        assert field.below is None or row[name].max() < field.below


def write_companions(dataset: Recorded, raw: Path | None, folder: Path) -> None:
    """What lies beside the records of a data set; of its twin without raw files."""
    assert dataset.layout.companions is not None
    dataset.layout.companions(raw, folder)


def rows_prepared(dataset: Recorded, raw: Path, root: Path) -> dict[str, dict[str, np.ndarray]]:
    """The rows of all splits, as they are evaluated, of a data set that is prepared from these files instead."""
    layout = replace(dataset.layout, raw=[], space_bytes=0, sizes=dict.fromkeys(SPLITS))
    put = raw_folder(layout, root)
    put.parent.mkdir(parents=True)
    put.symlink_to(raw)
    prepared = replace(dataset, layout=layout, packages={}, needs=lambda: None)
    return {split: prepared.arrays(split, root) for split in SPLITS}
