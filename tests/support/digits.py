"""A data set of records that is made in milliseconds: numbers as text, in two raw files a split."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from toys import FEATURES, toy_splits

from timetrial.full.recorded import Example, Layout, Pipeline, RawFile, Recorded, Row

ROWS = {"train": 50, "valid": 20, "test": 10}


def digits(*, block: int = 1, mixed: bool = False, **changes: Any) -> Recorded:
    """Rows of a number `x`, its square and noise; `changes` replace fields of the layout."""
    described: dict[str, Any] = {
        "name": "digits",
        "version": "1.0.0",
        "licence": "all rights reserved",
        "citation": "Digits (2020)",
        "access": "Sign the agreement at example.org.",
        "raw": [RawFile(path="*.txt", source="example.org/digits", count=6)],
        "space_bytes": 10**6,
        "hours": 0.5,
        "sizes": ROWS,
        "features": blocks_of_features if block > 1 else features,
        "parts": blocks_of_parts if block > 1 else parts,
        "twin": twin,
        "block": block,
    }
    pipeline = Pipeline(row=squares if block > 1 else row, mix=mix if mixed else None)
    return Recorded.of(Layout(**(described | changes)), pipeline)


def write_raw(root: Path) -> None:
    """The raw files, as a user puts them into place."""
    folder = root / "raw" / "digits"
    folder.mkdir(parents=True)
    for split, rows in ROWS.items():
        for part, numbers in enumerate(np.array_split(np.arange(rows), 2)):
            (folder / f"{split}-{part}.txt").write_text(" ".join(map(str, numbers)))


def features() -> Any:
    import tensorflow_datasets as tfds

    return {"digits": tfds.features.Text()}


def blocks_of_features() -> Any:
    import tensorflow_datasets as tfds

    return {"x": tfds.features.Tensor(shape=(None,), dtype=np.int64, encoding="bytes")}


def parts(raw: Path, folder: Path, split: str) -> Sequence[functools.partial[Iterator[Example]]]:
    return [functools.partial(read, raw / f"{split}-{part}.txt") for part in range(2)]


def read(path: Path) -> Iterator[Example]:
    for number in path.read_text().split():
        yield {"digits": number.encode()}


def blocks_of_parts(raw: Path, folder: Path, split: str) -> Sequence[functools.partial[Iterator[Example]]]:
    return [functools.partial(read_three, raw / f"{split}-{part}.txt") for part in range(2)]


def read_three(path: Path) -> Iterator[Example]:
    """Three numbers at a time."""
    numbers = np.array(path.read_text().split(), np.int64)
    for first in range(0, len(numbers), 3):
        yield {"x": numbers[first : first + 3]}


def twin(split: str, random: np.random.RandomState, rows: int) -> Iterator[Example]:
    for _ in range(rows):
        yield {"digits": str(random.randint(100)).encode()}


def row(example: Example, random: np.random.RandomState | None) -> Row:
    x = int(example["digits"])
    noise = 0.0 if random is None else random.standard_normal()
    return {"x": np.int64(x), "square": np.int64(x * x), "noise": np.float32(noise)}


def squares(example: Example, random: np.random.RandomState | None) -> Row:
    assert random is None
    return {"x": example["x"], "square": example["x"] ** 2}


def mix(first: Row, second: Row, random: np.random.RandomState) -> tuple[Row, Row]:
    """Each with the other's square."""
    return {**first, "square": second["square"]}, {**second, "square": first["square"]}


def toy_records() -> Recorded:
    """Rows of the toy workload as records: 256, 32 and 32."""
    described = replace(digits().layout, name="toy_records", features=features_of_toy, twin=rows_of_toy)
    return Recorded.of(described, Pipeline(row=toy_row)).twin()


def features_of_toy() -> Any:
    import tensorflow_datasets as tfds

    x = tfds.features.Tensor(shape=(FEATURES,), dtype=np.float32, encoding="bytes")
    return {"x": x, "label": tfds.features.Tensor(shape=(), dtype=np.int32)}


def rows_of_toy(split: str, random: np.random.RandomState, rows: int) -> Iterator[Example]:
    found = toy_splits()[split]
    for i in range(rows):
        yield {"x": found["x"][i], "label": found["label"][i]}


def toy_row(example: Example, random: np.random.RandomState | None) -> Row:
    return {"x": example["x"], "label": np.int32(example["label"])}
