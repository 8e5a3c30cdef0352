"""Writes the records of a data set, part by part, so that a preparation that was killed goes on where it was.

While it is worked on, the folder holds `progress.json`, and shards under names without their number in all.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from timetrial.data import SPLITS, Watch, using
from timetrial.errors import UserError
from timetrial.full.recorded import SHARDS, Example, RawFile, Recorded, raw_folder

_PROGRESS = "progress.json"
_SHARD_BYTES = 256 << 20
_SUFFIX = "array_record"


class Shard(NamedTuple):
    """A file of records."""

    records: int
    rows: int
    bytes: int


class _Progress:
    """What is done of a preparation, in a file that is never half written."""

    def __init__(self, folder: Path, version: str) -> None:
        """Goes on with what is in the folder, if it is of that version; else begins anew."""
        self._path = folder / _PROGRESS
        self.done: dict[str, Any] = {"version": version}
        if self._path.is_file():
            self.done = json.loads(self._path.read_text())
        if self.done["version"] != version or not self._path.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            self.done = {"version": version}

    def note(self, what: str, value: Any = True) -> None:
        self.done[what] = value
        self._keep()

    def forget(self, split: str) -> None:
        """The parts of a split are to be read again."""
        self.done = {what: value for what, value in self.done.items() if not what.startswith(f"{split}-")}
        self._keep()

    def _keep(self) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(self.done))
        fresh.replace(self._path)

    def shards(self, split: str, part: int) -> list[Shard] | None:
        found = self.done.get(f"{split}-{part}")
        return None if found is None else [Shard(*shard) for shard in found]


def write_records(dataset: Recorded, root: Path, staging: Path, watch: Watch) -> None:
    """Fills `staging` with the records, their metadata and companions; goes on with what is there already.

    Raises `UserError` where raw files are not the published ones or there is no room, `OSError` where the disk refuses.
    """
    with using(staging):
        progress = _Progress(staging, dataset.version)
        if dataset.twin_of is None:
            _check_room(dataset, staging)
            _check_raw(dataset, root, progress, watch)
        if dataset.layout.companions is not None and "companions" not in progress.done:
            watch("making what lies beside the records", 0, None)
            dataset.layout.companions(None if dataset.twin_of else raw_folder(dataset.layout, root), staging)
            progress.note("companions")
        for split in SPLITS:
            _write_split(dataset, split, root, staging, progress, watch)
        (staging / _PROGRESS).unlink()


def hash_records(folder: Path, files: Iterable[Path]) -> str:
    """SHA-256 of all records in their order, and of the other files that count; ValueError for a damaged file.

    How the records are packed into their files, which another version of array_record may do otherwise, does not count.
    """
    digest = hashlib.sha256()
    for path in files:
        name = path.relative_to(folder).as_posix()
        if f".{_SUFFIX}-" in path.name:
            for record in _records(path):
                digest.update(f"{name}\0".encode() + hashlib.sha256(record).digest())
        elif path.name not in ("dataset_info.json", "features.json", "LICENSE"):  # tensorflow-datasets' own
            digest.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _records(path: Path) -> list[bytes]:
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        reader = ArrayRecordReader(str(path))
        records = reader.read_all()
        reader.close()
    except RuntimeError as error:  # so array_record says that it cannot make sense of a file
        raise ValueError(f"{path}: {error}") from error
    return records


def _check_room(dataset: Recorded, staging: Path) -> None:
    written = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
    needed, free = dataset.layout.space_bytes - written, shutil.disk_usage(staging).free
    if free < needed:
        raise UserError(
            f"data set {dataset.name}: its records take about {needed / 1e9:,.0f} GB more in {staging.parent}, where "
            f"{free / 1e9:,.0f} GB are free; make room, or set TIMETRIAL_DATA to another folder"
        )


def _check_raw(dataset: Recorded, root: Path, progress: _Progress, watch: Watch) -> None:
    """Compares the SHA-256 of raw files with what is published, each once."""
    folder = raw_folder(dataset.layout, root)
    for file in dataset.layout.raw:
        if file.sha256 is not None and f"checked {file.path}" not in progress.done:
            watch(f"checking {file.path}", 0, None)
            found = _sha256(folder, file)
            if found != file.sha256:
                raise UserError(
                    f"data set {dataset.name}: {folder / file.path} has the SHA-256 {found[:16]}…, published is "
                    f"{file.sha256[:16]}…; get it anew: {file.source}"
                )
            progress.note(f"checked {file.path}")


def _sha256(folder: Path, file: RawFile) -> str:
    with (folder / file.path).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _write_split(dataset: Recorded, split: str, root: Path, staging: Path, progress: _Progress, watch: Watch) -> None:
    """Writes the parts of a split that are not written yet, gives all shards their names, and describes them."""
    parts = dataset.parts(root, staging, split)
    expected = dataset.rows_expected(split)
    folder = staging / split
    folder.mkdir(exist_ok=True)
    named: list[Path] = []
    shards: list[Shard] = []
    watch(f"writing {split}", 0, expected)
    for number, part in enumerate(parts):
        found = progress.shards(split, number)
        if found is None:
            rows_before = sum(shard.rows for shard in shards)
            found = []
            for shard in _write_part(dataset, part(), folder / f"{number}"):
                found.append(shard)
                watch(f"writing {split}", rows_before + sum(s.rows for s in found), expected)
            progress.note(f"{split}-{number}", found)
        named += [folder / f"{number}-{i}" for i in range(len(found))]
        shards += found
    rows = sum(shard.rows for shard in shards)
    if expected not in (None, rows):
        progress.forget(split)  # or raw files that were put right would not be read
        shutil.rmtree(folder)
        raise UserError(
            f"data set {dataset.name}: the raw files give {rows:,} rows of {split}, {expected:,} are expected; compare "
            f"them with what is published ({dataset.citation or dataset.name})"
        )
    for number, path in enumerate(named):
        final = folder / f"{dataset.name}-{split}.{_SUFFIX}-{number:05d}-of-{len(named):05d}"
        with contextlib.suppress(FileNotFoundError):  # it was named before a kill
            path.rename(final)
    (folder / SHARDS).write_text(json.dumps([shard[:2] for shard in shards]))
    _describe(dataset, split, shards, folder)


def _write_part(dataset: Recorded, examples: Iterator[Example], stem: Path) -> Iterator[Shard]:
    """Writes stem-0, stem-1, … of at most `_SHARD_BYTES`."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.core import example_serializer

    features = tfds.features.FeaturesDict(dataset.layout.features())
    described: Any = features.get_serialized_info()
    serializer = example_serializer.ExampleSerializer(described)
    records = examples if dataset.layout.block == 1 else _blocks(examples, dataset.layout.block)
    writer, shard, number = None, Shard(0, 0, 0), 0
    for example in records:
        record: bytes = serializer.serialize_example(features.encode_example(dict(example)))
        if writer is not None and shard.bytes + len(record) > _SHARD_BYTES:
            with _refusals():
                writer.close()
            yield shard
            writer, shard, number = None, Shard(0, 0, 0), number + 1
        with _refusals():
            if writer is None:
                writer = ArrayRecordWriter(f"{stem}-{number}", "group_size:1")  # records are read one by one
            writer.write(record)
        rows = 1 if dataset.layout.block == 1 else len(next(iter(example.values())))
        shard = Shard(shard.records + 1, shard.rows + rows, shard.bytes + len(record))
    if writer is not None:
        with _refusals():
            writer.close()
        yield shard


@contextlib.contextmanager
def _refusals() -> Generator[None]:
    """Has what the disk refuses raised as `OSError`; array_record raises `RuntimeError`."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error)) from None


def _blocks(examples: Iterator[Example], rows: int) -> Iterator[dict[str, np.ndarray]]:
    """The rows of the examples, so many in each but the last."""
    left: dict[str, np.ndarray] | None = None
    for example in examples:
        left = dict(example) if left is None else {k: np.concatenate([left[k], v]) for k, v in example.items()}
        whole = len(next(iter(left.values()))) // rows * rows
        for first in range(0, whole, rows):
            yield {name: array[first : first + rows] for name, array in left.items()}
        left = {name: array[whole:] for name, array in left.items()}
    if left is not None and len(next(iter(left.values()))):
        yield left


def _describe(dataset: Recorded, split: str, shards: list[Shard], folder: Path) -> None:
    """Writes what tensorflow-datasets reads the folder of a split by."""
    import tensorflow_datasets as tfds
    from etils import epath
    from tensorflow_datasets.core import naming

    template = naming.ShardedFileTemplate(
        data_dir=epath.Path(folder), dataset_name=dataset.name, split=split, filetype_suffix=_SUFFIX
    )
    info = tfds.core.SplitInfo(
        name=split,
        shard_lengths=[shard.records for shard in shards],
        num_bytes=sum(shard.bytes for shard in shards),
        filename_template=template,
    )

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # it announces itself
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features=tfds.features.FeaturesDict(dataset.layout.features()),
            split_infos=[info],
            version=dataset.version,
            check_data=False,
            description=f"Records of {dataset.name}.",
            license=dataset.licence,
            citation=dataset.citation,
        )
