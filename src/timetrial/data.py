"""Data sets: obtained once, kept as arrays, the same bytes everywhere.

`Dataset.prepare` writes a data set through tensorflow-datasets (array_record files with their metadata, without
tensorflow), reads it back, checks its hash and materialises it as `.npy` files; from then on a split is one `np.load`
away, and nothing heavy is imported.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np

from timetrial.errors import UserError

Arrays = Mapping[str, np.ndarray]
SPLITS = ("train", "valid", "test")
_BLOCK_ROWS = 1024


def data_root() -> Path:
    """Where prepared data live: $TIMETRIAL_DATA, or `timetrial/data` in the user's cache folder."""
    if root := os.environ.get("TIMETRIAL_DATA"):
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "timetrial" / "data"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A fixed data set with disjoint splits `train`, `valid` and `test`, each a mapping of names to arrays of rows."""

    name: str
    version: str
    """Changes with any change of the bytes, together with `sha256`."""
    generate: Callable[[], Mapping[str, Arrays]]
    """Makes every split from the packages it needs, or from nothing. Called once, by `prepare`."""
    sha256: str
    """Of all splits, as `hash_splits` computes it; proves that this machine has the same data."""
    packages: Mapping[str, str]
    """Distributions that `generate` reads, by exact version."""
    licence: str
    citation: str

    def folder(self, root: Path | None = None) -> Path:
        return (data_root() if root is None else root) / self.name / self.version

    def prepared(self, root: Path | None = None) -> bool:
        return (self.folder(root) / "SHA256").is_file()

    def prepare(self, root: Path | None = None) -> Path:
        """The folder of the prepared data set, made now where it is missing.

        Raises `UserError` for a missing package, or for data that are not the ones that this version names.
        """
        folder = self.folder(root)
        if self.prepared(root):
            return folder
        self._require_packages()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{self.version}-") as work:
            staged = Path(work) / "arrays"
            _materialise(self, Path(work) / "tfds", staged)
            found = hash_splits({split: _load(staged, split) for split in SPLITS})
            if found != self.sha256:
                raise UserError(
                    f"data set {self.name} {self.version}: its SHA-256 is {found[:16]}…, expected {self.sha256[:16]}…; "
                    "check the versions of " + (", ".join(self.packages) or "numpy")
                )
            (staged / "SHA256").write_text(found + "\n")
            try:
                staged.rename(folder)
            except OSError:  # another process was first: its data carry the same hash
                if not self.prepared(root):
                    shutil.rmtree(folder, ignore_errors=True)
                    staged.rename(folder)
        return folder

    def arrays(self, split: str, root: Path | None = None) -> dict[str, np.ndarray]:
        """The rows of a split, by field; prepares the data set first where needed."""
        return _load(self.prepare(root), split)

    def _require_packages(self) -> None:
        wanted = [f"{name}=={version}" for name, version in self.packages.items()]
        for name, version in self.packages.items():
            try:
                found = package_version(name)
            except PackageNotFoundError:
                found = None
            if found != version:
                has = "is not installed" if found is None else f"is installed as {found}"
                raise UserError(
                    f"data set {self.name} needs {name} {version}, which {has}: pip install {' '.join(wanted)} "
                    "(or all data of the track: pip install 'timetrial[mini]')"
                )


class InMemory(Dataset):
    """A data set whose rows are made where they are asked for, and never written."""

    @staticmethod
    def holding(splits: Mapping[str, Arrays], *, like: Dataset) -> "InMemory":
        """These rows, under the name and licence of another data set."""
        copied = InMemory(**{field.name: getattr(like, field.name) for field in fields(Dataset)})
        return replace(copied, generate=lambda: splits)

    def prepared(self, root: Path | None = None) -> bool:
        """Always: there is nothing to prepare."""
        del root
        return True

    def arrays(self, split: str, root: Path | None = None) -> dict[str, np.ndarray]:
        """The rows of a split, by field."""
        del root
        return dict(self.generate()[split])


def hash_splits(splits: Mapping[str, Arrays]) -> str:
    """SHA-256 over every split's fields: name, dtype, shape and little-endian bytes, in sorted order."""
    digest = hashlib.sha256()
    for split in sorted(splits):
        for name in sorted(splits[split]):
            array = np.ascontiguousarray(splits[split][name])
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(json.dumps([split, name, array.dtype.str, array.shape]).encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def _load(folder: Path, split: str) -> dict[str, np.ndarray]:
    paths = sorted((folder / split).glob("*.npy"))
    if not paths:
        raise UserError(f"no split {split!r} in {folder}; a data set has {', '.join(SPLITS)}")
    return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in paths}


def _materialise(dataset: Dataset, tfds_folder: Path, arrays_folder: Path) -> None:
    """Writes the data set as array_record blocks with tensorflow-datasets, then as one `.npy` file a field."""
    builder = _builder(dataset, tfds_folder)
    with contextlib.redirect_stdout(sys.stderr):  # it announces itself, and stdout belongs to the caller
        builder.download_and_prepare()
    for split in SPLITS:
        blocks = builder.as_data_source(split=split)
        order = np.argsort([int(block["first_row"]) for block in blocks])
        (arrays_folder / split).mkdir(parents=True)
        for name in builder.info.features:
            if name != "first_row":
                array = np.concatenate([blocks[int(i)][name] for i in order])
                np.save(arrays_folder / split / f"{name}.npy", array)


def _builder(dataset: Dataset, folder: Path) -> Any:
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    splits = dataset.generate()

    class Builder(tfds.core.GeneratorBasedBuilder):
        """Rows in blocks, because a record a row reads fifty times slower."""

        name = dataset.name
        VERSION = tfds.core.Version(dataset.version)

        def _info(self) -> Any:
            fields = {
                # As bytes: without an encoding every number becomes a 64-bit integer of a list, ten times slower.
                key: tfds.features.Tensor(shape=(None, *array.shape[1:]), dtype=array.dtype.type, encoding="bytes")
                for key, array in splits["train"].items()
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict({**fields, "first_row": np.int64}),
                description=f"Blocks of at most {_BLOCK_ROWS} rows.",
                citation=dataset.citation,
                license=dataset.licence,
            )

        def _split_generators(self, dl_manager: Any) -> Any:
            del dl_manager  # nothing is downloaded
            return {split: self._generate_examples(splits[split]) for split in SPLITS}

        def _generate_examples(self, arrays: Arrays) -> Iterator[tuple[int, dict[str, Any]]]:
            rows = len(next(iter(arrays.values())))
            for first in range(0, rows, _BLOCK_ROWS):
                block = {name: np.asarray(array[first : first + _BLOCK_ROWS]) for name, array in arrays.items()}
                yield first, {**block, "first_row": first}

    return Builder(data_dir=folder, file_format="array_record")
