"""Data sets: obtained once, kept as arrays, the same bytes everywhere.

`Dataset.prepare` writes a data set through tensorflow-datasets (array_record files with their metadata, without
tensorflow), reads it back, checks its hash and materialises it as `.npy` files; from then on a split is one `np.load`
away, and nothing heavy is imported. In the folder of data, `NAME/VERSION` holds the arrays of a prepared data set with
the file SHA256 that makes it one; `NAME/.lock` is held by the process that prepares it, and `NAME/.staging` is where
it works.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from tokenize import TokenError
from typing import ClassVar, Literal

import numpy as np

from timetrial.errors import UserError
from timetrial.splits import Arrays, ArraySplit, Split

SPLITS = ("train", "valid", "test")
State = Literal["prepared", "absent", "incomplete", "corrupt"]
"""`incomplete`: files are missing, have other sizes than when they were prepared, or are those of another hash.
`corrupt`: the sizes are right and the bytes are not."""
Watch = Callable[[str, int, int | None], None]
"""Told (stage, rows done, all rows or None): 0 rows as a stage of a preparation begins, then more where they are known.
May be called while `sys.stdout` is put aside, because tensorflow-datasets announces itself there."""
UNKNOWN_SHA256 = "0" * 64
"""Of data that were not prepared from the real files yet: whatever is found is taken, and said."""
SEAL = "SHA256"
"""The file in a data set's folder that says what is in it."""


class DataFolderError(UserError):
    """The folder of data cannot be read or written: whatever else was to be prepared there cannot be either."""


def unwatched(stage: str, rows: int, of: int | None) -> None:
    """Tells nobody."""


def data_root() -> Path:
    """Where prepared data live: $TIMETRIAL_DATA, or `timetrial/data` in the user's cache folder."""
    if root := os.environ.get("TIMETRIAL_DATA"):
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "timetrial" / "data"


@dataclass(frozen=True, kw_only=True)
class AnyDataset(ABC):
    """A fixed data set with disjoint splits `train`, `valid` and `test`, kept in a folder of its own."""

    extra: ClassVar[str] = "mini"
    """The extra of this distribution that has all `packages`."""
    name: str
    version: str
    """Changes with any change of the bytes, together with `sha256`."""
    sha256: str
    """Of all that is kept; proves that this machine has the same data."""
    packages: Mapping[str, str]
    """Distributions that are read to make it, by exact version."""
    licence: str
    citation: str
    needs: Callable[[], str | None] = lambda: None
    """Says which files are missing that pip cannot bring, and how they are had; None when all are there."""

    @abstractmethod
    def rows(self, split: str, root: Path | None = None) -> Split:
        """The rows of `train`, `valid` or `test`; prepares the data set first where needed."""

    @abstractmethod
    def arrays(self, split: str, root: Path | None = None) -> dict[str, np.ndarray]:
        """All rows of a split, by field."""

    @abstractmethod
    def train_alone(self, folder: Path) -> "AnyDataset":
        """The training rows of `folder`, which is that of the split in some prepared data set, and no others."""

    def twin(self) -> "AnyDataset":
        """Noise that looks like the data set; raises `UserError` where there is no such twin."""
        raise UserError(f"data set {self.name} has no synthetic twin: it is had in minutes itself")

    @abstractmethod
    def _make(self, folder: Path, watch: Watch) -> None:
        """Makes what is to be in `folder`, and seals it (`_seal`). The data set's lock is held."""

    @abstractmethod
    def _files(self, folder: Path) -> list[Path]:
        """What is kept in the folder, sorted."""

    @abstractmethod
    def _hash(self, folder: Path) -> str:
        """The SHA-256 of what is in the folder."""

    def folder(self, root: Path | None = None) -> Path:
        return (data_root() if root is None else root) / self.name / self.version

    def state(self, root: Path | None = None, *, verify: bool = False) -> State:
        """What is in the data set's folder; only `verify`, which reads all of it, finds it `corrupt`."""
        folder = self.folder(root)
        with using(folder):
            if not folder.is_dir():
                return "absent"
            seal = folder / SEAL
            said = seal.read_text(encoding="utf-8", errors="replace") if seal.is_file() else ""
            sha256 = self.sha256 if self.sha256 != UNKNOWN_SHA256 else said.partition("\n")[0]
            if said != self._sealed(folder, sha256):
                return "incomplete"
            try:
                return "corrupt" if verify and self._hash(folder) != sha256 else "prepared"
            except (ValueError, TypeError, TokenError):  # what numpy makes of a file's damaged header
                return "corrupt"

    def prepared(self, root: Path | None = None) -> bool:
        return self.state(root) == "prepared"

    def prepare(self, root: Path | None = None, *, verify: bool = False, watch: Watch = unwatched) -> Path:
        """The folder of the prepared data set, made now where it is missing or damaged (see `state`).

        One process prepares; others wait for it. One that is killed leaves what the next call clears away or goes on
        with. Raises `UserError` for a missing package, or for data that are not the ones that this version names.
        """
        folder = self.folder(root)
        if self.state(root, verify=verify) == "prepared":
            return folder
        self._require()
        with _locked(folder.parent, watch):
            if self.state(root, verify=verify) != "prepared":  # unless another process was first
                watch("generating", 0, None)
                self._make(folder, watch)
        return folder

    def installed(self) -> dict[str, str | None]:
        """The version of each of `packages` that is installed; None where it is not."""
        return {name: _installed(name) for name in self.packages}

    def missing(self) -> list[str]:
        """Which of `packages` pip has to install, as name==version."""
        installed = self.installed()
        return [f"{name}=={version}" for name, version in self.packages.items() if installed[name] != version]

    def bytes_on_disk(self, root: Path | None = None) -> int:
        return sum(path.stat().st_size for path in self.folder(root).rglob("*") if path.is_file())

    def _require(self) -> None:
        said: list[str] = []
        if missing := self.missing():
            installed = ", ".join(f"{name} is {found or 'not'} installed" for name, found in self.installed().items())
            track = f"(or all data of the track: pip install 'timetrial[{self.extra}]')"
            said.append(f"{installed}: pip install {' '.join(missing)} {track}")
        if need := self.needs():
            said.append(need)
        if said:
            raise UserError(f"data set {self.name}: {'; '.join(said)}")

    def _seal(self, staging: Path, folder: Path) -> None:
        """Checks the hash of what is complete in `staging`, and puts it in the place of `folder`."""
        found = self._hash(staging)
        if self.sha256 not in (found, UNKNOWN_SHA256):
            raise UserError(
                f"data set {self.name} {self.version}: its SHA-256 is {found[:16]}…, expected "
                f"{self.sha256[:16]}…; check the versions of {', '.join(self.packages) or 'numpy'}"
            )
        (staging / SEAL).write_text(self._sealed(staging, found), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        staging.rename(folder)

    def _sealed(self, folder: Path, sha256: str) -> str:
        """What the seal of data that are whole in `folder` holds: their hash, and each file's bytes and name."""
        sizes = [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in self._files(folder)]
        return "".join([f"{sha256}\n", *(f"{size} {name}\n" for name, size in sizes)])


@dataclass(frozen=True, kw_only=True)
class Dataset(AnyDataset):
    """A data set that fits into memory: each split is a mapping of names to arrays of rows, kept as `.npy` files.

    Its `sha256` is that of `hash_splits`.
    """

    generate: Callable[[], Mapping[str, Arrays]]
    """Makes every split from the packages it needs, or from nothing. Called once, by `prepare`."""

    def rows(self, split: str, root: Path | None = None) -> ArraySplit:
        return ArraySplit(self.arrays(split, root))

    def arrays(self, split: str, root: Path | None = None) -> dict[str, np.ndarray]:
        return _load(self.prepare(root), split)

    def train_alone(self, folder: Path) -> "InMemory":
        rows = _load(folder.parent, folder.name) if any(folder.glob("*.npy")) else {}
        return InMemory.holding({"train": rows}, like=self)

    def _make(self, folder: Path, watch: Watch) -> None:
        from timetrial.blocks import write_arrays

        staging = folder.parent / ".staging"
        try:
            with using(folder):
                if staging.exists():  # of a process that was killed: one that lives holds the lock
                    shutil.rmtree(staging)
                staging.mkdir()
            splits = dict(self.generate())
            with using(folder):
                write_arrays(self, splits, staging, watch)
                watch("verifying", 0, None)
                self._seal(staging, folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _files(self, folder: Path) -> list[Path]:
        return sorted(folder.glob("*/*.npy"))

    def _hash(self, folder: Path) -> str:
        return hash_splits({split: _load(folder, split) for split in SPLITS})


class InMemory(Dataset):
    """A data set whose rows are made where they are asked for, and never written."""

    @staticmethod
    def holding(splits: Mapping[str, Arrays], *, like: AnyDataset) -> "InMemory":
        """These rows, under the name and licence of another data set."""
        return InMemory(
            name=like.name,
            version=like.version,
            generate=lambda: splits,
            sha256=like.sha256,
            packages=like.packages,
            licence=like.licence,
            citation=like.citation,
        )

    def state(self, root: Path | None = None, *, verify: bool = False) -> State:
        """Always `prepared`: there is nothing to prepare."""
        del root, verify
        return "prepared"

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
            digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _load(folder: Path, split: str) -> dict[str, np.ndarray]:
    paths = sorted((folder / split).glob("*.npy"))
    if not paths:
        raise UserError(f"no split {split!r} in {folder}; a data set has {', '.join(SPLITS)}")
    return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in paths}


def _installed(package: str) -> str | None:
    try:
        return package_version(package)
    except PackageNotFoundError:
        return None


@contextlib.contextmanager
def _locked(folder: Path, watch: Watch) -> Generator[None]:
    """Holds the lock of a data set; waits for the process that does. However a process ends, that frees it."""
    with using(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    with file:
        with using(folder):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                watch("waiting for another process that prepares it", 0, None)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def using(folder: Path) -> Generator[None]:
    """Says what to do where the disk refuses."""
    try:
        yield
    except OSError as error:
        raise DataFolderError(
            f"cannot keep data in {error.filename or folder}: {error.strerror or error}; make room or allow it there, "
            "or set TIMETRIAL_DATA to another folder"
        ) from None
