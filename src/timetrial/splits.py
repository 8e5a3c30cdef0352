"""The rows of one split of a data set: ready in arrays, or made from records as they are taken."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

Arrays = Mapping[str, np.ndarray]


class Split(Protocol):
    """Rows 0, 1, … of a split, taken in any order."""

    @property
    def arrays(self) -> Arrays | None:
        """All rows by field, where they lie ready; None where each is made as it is taken."""
        ...

    @property
    def block(self) -> int:
        """Rows that are read together: 1, or of which many should be taken at a time."""
        ...

    @property
    def together(self) -> int:
        """Training rows that go into each other: stretches of the stream are taken from a multiple of this on."""
        ...

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray, keys: np.ndarray | None) -> dict[str, np.ndarray]:
        """The rows at `indices` (B,), by field: arrays (B, …).

        `keys`, uint32 (B, K), are what each row's augmentation is drawn by, with its index; None asks for rows as they
        are evaluated.
        """
        ...

    def sample(self, rows: int) -> "Split":
        """So many of the rows, always the same ones."""
        ...


class ArraySplit:
    """Rows that lie ready in arrays. Nothing is augmented."""

    block = 1
    together = 1

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def take(self, indices: np.ndarray, keys: np.ndarray | None) -> dict[str, np.ndarray]:
        del keys
        return {name: np.asarray(array[indices]) for name, array in self.arrays.items()}

    def sample(self, rows: int) -> "ArraySplit":
        """The first ones."""
        return ArraySplit({name: array[:rows] for name, array in self.arrays.items()})
