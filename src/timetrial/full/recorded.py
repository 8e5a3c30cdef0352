"""Data sets too large for arrays: a split is a sequence of records, and a row is made when it is taken.

A `Layout` says what a data set is and how its records are made, from files that the user puts into place or from
nothing (the synthetic twin). A `Pipeline` says how a workload makes rows of them; two workloads may share a layout.
Together they are a `Recorded` data set.

Whatever a worker process calls must lie in a module that builds no workload, or each worker would start jax: so the
layouts and pipelines of a data set are in `timetrial.full`, not in the workload's folder.
"""

import functools
import json
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from timetrial.data import SEAL, SPLITS, UNKNOWN_SHA256, AnyDataset, State, Watch, data_root, using
from timetrial.errors import UserError

Example = Mapping[str, Any]
"""What a record holds, by feature: bytes, numbers and arrays, nothing decoded."""
Row = dict[str, Any]
"""A workload's fields of one row, arrays and numbers; where records are blocks of rows, those of all rows of a record,
in arrays with an axis of rows."""
RAW_FOLDER = "raw"
TWIN_ROWS: Mapping[str, int] = {"train": 256, "valid": 32, "test": 32}
_OTHER_FILES = 64
"""That a process has open beside shards, at least."""
SHARDS = "shards.json"
"""In the folder of a split: the numbers of records and of rows of each shard."""


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """A file, or many alike, that the user puts into place."""

    path: str
    """Below the folder of the data set's raw files; a glob where they are many."""
    source: str
    """Where it comes from: an address, or what to choose on a page."""
    count: int = 1
    """How many files match."""
    bytes: int | None = None
    """Of all of them together, where that is published."""
    sha256: str | None = None
    """Of a single file, where that is published."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a data set is, and how its records are made."""

    name: str
    version: str
    licence: str
    citation: str
    access: str
    """What is to be done before the files may be had, in a sentence: an agreement to sign, an account to make."""
    raw: Sequence[RawFile]
    space_bytes: int
    """Of the records, about, beside the raw files."""
    hours: float
    """To make them on a machine of 16 cores, about."""
    sizes: Mapping[str, int | None]
    """Rows of each split of the real data; None where that is not known before they are made."""
    features: Callable[[], Any]
    """A tfds FeaturesDict without images or audio: encoded bytes (`Text`), or a `Tensor` with an encoding.

    A tensor with two unknown dimensions needs the encoding "zlib"; others, "bytes".
    """
    parts: Callable[[Path, Path, str], Sequence[Callable[[], Iterator[Example]]]]
    """(folder of the raw files, folder with the companions, split) -> its parts in order, each a function that reads
    its examples from the first on. A part that is done is not read again after a kill."""
    twin: Callable[[str, np.random.RandomState, int], Iterator[Example]]
    """(split, random numbers, rows) -> examples of noise that look like the real ones to a pipeline."""
    companions: Callable[[Path | None, Path], None] | None = None
    """(folder of the raw files, or None for the twin; folder to write into): makes what lies beside the records, before
    they are made (the pieces of words, say)."""
    block: int = 1
    """Rows in a record. Above 1, an example is any number of rows with an axis for them, which are laid into records
    of so many; rows are then shuffled by blocks, and never augmented."""
    sha256: str = UNKNOWN_SHA256
    packages: Mapping[str, str] = field(default_factory=dict[str, str])
    """Distributions that `parts` needs, by exact version."""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """How a workload makes its rows."""

    row: Callable[[Example, np.random.RandomState | None], Row]
    """Decodes and preprocesses one record. The random numbers, which depend on (seed, epoch, index of the row) alone,
    are those of a training row; None asks for a row as it is evaluated. With blocks they are always None."""
    mix: Callable[[Row, Row, np.random.RandomState], tuple[Row, Row]] | None = None
    """Mixes two training rows that follow each other in the stream (mixup), into as many."""


@dataclass(frozen=True, kw_only=True)
class Recorded(AnyDataset):
    """A data set of records, in array_record files that tensorflow-datasets can read too."""

    extra: ClassVar[str] = "full"
    layout: Layout
    pipeline: Pipeline
    twin_of: str | None = None
    """The data set that this is a synthetic twin of."""

    @staticmethod
    def of(layout: Layout, pipeline: Pipeline) -> "Recorded":
        """The real data set."""
        return Recorded(
            name=layout.name,
            version=layout.version,
            sha256=layout.sha256,
            packages=layout.packages,
            licence=layout.licence,
            citation=layout.citation,
            needs=functools.partial(_needs, layout),
            layout=layout,
            pipeline=pipeline,
        )

    def twin(self) -> "Recorded":
        """The synthetic twin: noise in the same records, for trying the workload without its data."""
        return replace(
            self,
            name=f"{self.name}_twin",
            version="1.0.0",
            sha256=UNKNOWN_SHA256,
            packages={},
            licence="CC0-1.0",
            citation="",
            needs=lambda: None,
            twin_of=self.name,
        )

    def rows(self, split: str, root: Path | None = None) -> "RecordSplit":
        return RecordSplit(self.prepare(root) / split, self.pipeline, self.layout.block)

    def arrays(self, split: str, root: Path | None = None) -> dict[str, np.ndarray]:
        """All rows of a split as they are evaluated; for a twin."""
        rows = self.rows(split, root)
        return rows.take(np.arange(len(rows)), None)

    def train_alone(self, folder: Path) -> "Recorded":
        return _Placed(**{field.name: getattr(self, field.name) for field in fields(self)}, place=folder.parent)

    def parts(self, root: Path, folder: Path, split: str) -> Sequence[Callable[[], Iterator[Example]]]:
        """The parts of a split, real or of the twin."""
        if self.twin_of is None:
            return self.layout.parts(raw_folder(self.layout, root), folder, split)
        return [functools.partial(_twin_examples, self.layout, split)]

    def rows_expected(self, split: str) -> int | None:
        """How many rows a split will have, where that is known."""
        return self.layout.sizes[split] if self.twin_of is None else TWIN_ROWS[split]

    def _make(self, folder: Path, watch: Watch) -> None:
        from timetrial.full.recording import write_records

        staging = folder.parent / ".staging"
        with using(folder):
            staging.mkdir(exist_ok=True)  # what is in it is gone on with
        write_records(self, folder.parent.parent, staging, watch)
        watch("verifying", 0, None)
        with using(folder):
            self._seal(staging, folder)

    def _files(self, folder: Path) -> list[Path]:
        return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)

    def _hash(self, folder: Path) -> str:
        from timetrial.full.recording import hash_records

        return hash_records(folder, self._files(folder))


@dataclass(frozen=True, kw_only=True)
class _Placed(Recorded):
    """A data set that is in a folder, whatever is missing there."""

    place: Path

    def folder(self, root: Path | None = None) -> Path:
        del root
        return self.place

    def state(self, root: Path | None = None, *, verify: bool = False) -> State:
        del root, verify
        return "prepared"


def raw_folder(layout: Layout, root: Path | None = None) -> Path:
    """Where the user puts the raw files."""
    return (data_root() if root is None else root) / RAW_FOLDER / layout.name


def _twin_examples(layout: Layout, split: str) -> Iterator[Example]:
    return layout.twin(split, np.random.RandomState(SPLITS.index(split)), TWIN_ROWS[split])


def _allow_open(shards: int) -> None:
    """Lets this process open so many files more; each shard that was read of stays open.

    The limit that a shell sets as a rule, 1,024, is less than ImageNet and Criteo 1TB have shards.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = float("inf") if hard == resource.RLIM_INFINITY else hard
    if most < shards + _OTHER_FILES:
        raise UserError(
            f"a split is in {shards:,} files, which a process keeps open, and it may open {hard:,} at most: raise the "
            "hard limit (`ulimit -Hn`; of a container, `--ulimit nofile=…`)"
        )
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(min(soft + shards, most)), hard))


def _needs(layout: Layout) -> str | None:
    """What to put where, as long as something is missing or has another size than is published."""
    folder = raw_folder(layout)
    states = [_raw_state(folder, file) for file in layout.raw]
    if all(state == "there" for state in states):
        return None
    lines = [
        f"its files are to be put into place by you; they are under {layout.licence}. {layout.access}",
        f"  Put into {folder}:",
        *(f"    {_described(file)}: {state}" for file, state in zip(layout.raw, states, strict=True)),
        f"  The records take about {layout.space_bytes / 1e9:,.0f} GB beside these, and {layout.hours:g} h to make.",
    ]
    return "\n".join(lines)


def _raw_state(folder: Path, file: RawFile) -> str:
    found = sorted(folder.glob(file.path))
    if len(found) < file.count:
        return "missing" if file.count == 1 else f"{len(found):,} of {file.count:,} are there"
    size = sum(path.stat().st_size for path in found)
    if file.bytes is not None and size != file.bytes:
        return f"has {size:,} bytes"
    return "there"


def _described(file: RawFile) -> str:
    what = file.path if file.count == 1 else f"{file.path} ({file.count:,} files)"
    size = "" if file.bytes is None else f", {file.bytes:,} bytes"
    return f"{what} from {file.source}{size}"


class RecordSplit:
    """The rows of a split of records; may be sent to another process."""

    arrays = None

    def __init__(self, folder: Path, pipeline: Pipeline, block: int, sampled: int | None = None) -> None:
        """`folder` is that of the split; `sampled` is the number of rows of a sample (see `sample`)."""
        self._folder = folder
        self._pipeline = pipeline
        self._sampled = sampled
        self.block = block
        self.together = 1 if pipeline.mix is None else 2
        shards = np.array(json.loads((folder / SHARDS).read_text()))
        self._first_record, self._first_row = (np.append(0, np.cumsum(column)) for column in shards.T)

    def __len__(self) -> int:
        rows = int(self._first_row[-1])
        return rows if self._sampled is None else min(rows, self._sampled)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_source"}

    def take(self, indices: np.ndarray, keys: np.ndarray | None) -> dict[str, np.ndarray]:
        if len(self) < self._first_row[-1]:
            indices = self._places(indices)
        if self.block > 1:
            return self._taken_from_blocks(indices)
        examples = self._source.__getitems__([int(index) for index in indices])
        if keys is None:
            rows = [self._pipeline.row(example, None) for example in examples]
        else:
            randoms = [np.random.RandomState([*key, index]) for key, index in zip(keys, indices, strict=True)]
            rows = [self._pipeline.row(example, random) for example, random in zip(examples, randoms, strict=True)]
            if self._pipeline.mix is not None:
                for i in range(0, len(rows), 2):
                    random = np.random.RandomState([*keys[i], *indices[i : i + 2]])
                    rows[i : i + 2] = self._pipeline.mix(rows[i], rows[i + 1], random)
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def sample(self, rows: int) -> "RecordSplit":
        """Rows, or blocks of them, at equal distances: records may be in the order of their classes."""
        return RecordSplit(self._folder, self._pipeline, self.block, rows)

    def _places(self, sampled: np.ndarray) -> np.ndarray:
        """The indices of the rows of a sample. Computed: a sample may have too many to send to each worker."""
        number, within = np.divmod(sampled, self.block)
        blocks, needed = max(1, self._first_row[-1] // self.block), -(-len(self) // self.block)
        return number * blocks // needed * self.block + within

    @functools.cached_property
    def _source(self) -> Any:
        """The records, by number: opened in each process that reads them."""
        import tensorflow_datasets as tfds

        _allow_open(len(self._first_record) - 1)
        builder: Any = tfds.builder_from_directory(str(self._folder))
        return builder.as_data_source(split=self._folder.name)

    def _taken_from_blocks(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        shard = np.searchsorted(self._first_row, indices, side="right") - 1
        record, within = np.divmod(indices - self._first_row[shard], self.block)
        needed, which = np.unique(self._first_record[shard] + record, return_inverse=True)
        examples = self._source.__getitems__([int(number) for number in needed])
        blocks = [self._pipeline.row(example, None) for example in examples]
        first = np.append(0, np.cumsum([len(next(iter(block.values()))) for block in blocks]))
        places = first[which] + within
        return {name: np.concatenate([block[name] for block in blocks])[places] for name in blocks[0]}
