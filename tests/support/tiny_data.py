"""A data set of a few blocks of rows. As a script: prepares it, prints each stage, and waits at one for a line."""

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from timetrial.data import Arrays, Dataset, hash_splits

ROWS = {"train": 2500, "valid": 1024, "test": 7}


def tiny_splits() -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.RandomState(0)
    return {
        split: {
            "image": rng.randint(0, 256, (n, 5, 2)).astype(np.uint8),
            "weight": rng.standard_normal(n).astype(np.float32),
            "label": np.arange(n, dtype=np.int64),
        }
        for split, n in ROWS.items()
    }


@functools.cache
def tiny_sha256() -> str:
    return hash_splits(tiny_splits())


def tiny(generate: Callable[[], Mapping[str, Arrays]] = tiny_splits, **changes: Any) -> Dataset:
    kept: dict[str, Any] = {
        "name": "tiny",
        "version": "1.0.0",
        "sha256": tiny_sha256(),
        "packages": {},
        "licence": "CC0",
        "citation": "",
    }
    return Dataset(generate=generate, **(kept | changes))


def main(root: str, stop_at: str) -> None:
    def watch(stage: str, rows: int, of: int | None) -> None:
        if rows == 0:
            print(stage, file=sys.__stdout__, flush=True)
            if stage == stop_at:
                sys.stdin.readline()

    tiny().prepare(Path(root), watch=watch)


if __name__ == "__main__":
    main(*sys.argv[1:])
