"""The order of the training data (rule 5), and batches of rows in it. Without jax, for processes that make batches.

An epoch is a seeded permutation of the rows; epochs follow one another, nothing dropped. The stream is a pure function
of the seed: any stretch of it can be asked for, so its state is a position.
"""

import functools
import multiprocessing
import os
import threading
from typing import Any

import numpy as np

from timetrial.splits import Arrays, Split

_BLOCKS_MIXED = 64
"""Rows that are read in blocks are shuffled over so many of them, which are shuffled themselves."""


class EpochStream:
    """Row indices 0, …, rows-1, each once an epoch, in an order drawn anew for each epoch."""

    def __init__(self, rows: int, seed: int, *, block: int = 1) -> None:
        """`block` rows that are read together stay near each other; a batch then reads few blocks."""
        self._rows = rows
        self._seed = seed
        self._block = block
        self._permutation = functools.lru_cache(maxsize=4)(self._draw)
        self._windows = functools.lru_cache(maxsize=4)(self._draw_windows)
        self._mixed = functools.lru_cache(maxsize=8)(self._draw_mixed)

    def __reduce__(self) -> Any:
        return functools.partial(EpochStream, block=self._block), (self._rows, self._seed)

    def indices(self, start: int, count: int) -> np.ndarray:
        """Elements start, …, start+count-1 of the stream: int32, or int64 where rows lie in blocks."""
        epochs = range(start // self._rows, (start + count - 1) // self._rows + 1)
        stretch = [
            self._within(epoch, max(start - epoch * self._rows, 0), min(start + count - epoch * self._rows, self._rows))
            for epoch in epochs
        ]
        return np.concatenate(stretch)

    def keys(self, start: int, count: int) -> np.ndarray:
        """What these elements are augmented by, beside their index: seed and epoch, uint32 (count, 3)."""
        epochs = np.arange(start, start + count) // self._rows
        seeds = np.full(count, self._seed & 0xFFFFFFFF), np.full(count, self._seed >> 32)
        return np.stack([*seeds, epochs], axis=1).astype(np.uint32)

    def _within(self, epoch: int, first: int, end: int) -> np.ndarray:
        """Elements first, …, end-1 of an epoch."""
        if self._block == 1:
            return self._permutation(epoch)[first:end]
        starts = self._windows(epoch)[1]
        windows = range(
            int(np.searchsorted(starts, first, side="right")) - 1, int(np.searchsorted(starts, end, side="left"))
        )
        stretch = np.concatenate([self._mixed(epoch, window) for window in windows])
        return stretch[first - starts[windows[0]] : end - starts[windows[0]]]

    def _draw(self, epoch: int) -> np.ndarray:
        # numpy keeps the stream of this legacy generator fixed for ever (NEP 19).
        return np.random.RandomState(self._words(epoch)).permutation(self._rows).astype(np.int32)

    def _draw_windows(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of the blocks, and where in the epoch each window of them starts."""
        order = np.random.RandomState(self._words(epoch)).permutation(-(-self._rows // self._block))
        ends = np.cumsum(np.minimum((order + 1) * self._block, self._rows) - order * self._block)
        return order, np.append(0, ends)[::_BLOCKS_MIXED]

    def _draw_mixed(self, epoch: int, window: int) -> np.ndarray:
        """The rows of a window of blocks, in their order."""
        blocks = self._windows(epoch)[0][window * _BLOCKS_MIXED : (window + 1) * _BLOCKS_MIXED]
        rows = (blocks[:, None] * self._block + np.arange(self._block)).reshape(-1)
        return np.random.RandomState([*self._words(epoch), window]).permutation(rows[rows < self._rows])

    def _words(self, epoch: int) -> list[int]:
        return [self._seed & 0xFFFFFFFF, self._seed >> 32, epoch]


def numbered(split: Split, stream: EpochStream, devices: int, rows: int, number: int) -> dict[str, np.ndarray]:
    """Batch number 0, 1, … of `rows` training rows each."""
    return stretch(split, stream, number * rows, rows, devices)


def stretch(split: Split, stream: EpochStream, start: int, count: int, devices: int) -> dict[str, np.ndarray]:
    """The training rows at start, …, start+count-1 of the stream, padded with weight 0 to a multiple of the devices."""
    first = start - start % split.together
    length = -(-(start + count - first) // split.together) * split.together
    rows = split.take(stream.indices(first, length), stream.keys(first, length))
    return padded({name: array[start - first : start - first + count] for name, array in rows.items()}, devices)


def padded(rows: Arrays, devices: int) -> dict[str, np.ndarray]:
    """The rows, and the last one again with weight 0 until the devices divide them."""
    count = len(next(iter(rows.values())))
    if not (missing := -count % devices):
        return dict(rows)
    filled = {name: np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) for name, array in rows.items()}
    return {**filled, "weights": (np.arange(count + missing) < count).astype(np.float32)}


def padded_batch(split: Split, rows: int, number: int) -> dict[str, np.ndarray]:
    """Batch number 0, 1, … of `rows` rows each, the last one filled up with repetitions of weight 0."""
    first = number * rows
    batch = split.take(np.arange(first, min(first + rows, len(split))), None)
    valid = len(next(iter(batch.values())))
    indices = np.minimum(np.arange(rows), valid - 1)
    filled = batch if valid == rows else {name: array[indices] for name, array in batch.items()}
    return {**filled, "weights": (np.arange(rows) < valid).astype(np.float32)}


def begin_worker(worker: int, workers: int) -> None:
    """In a process that makes batches: it ends with the one that uses them, however that ends.

    Where a pipeline imports jax, that is not to take the memory of a device.
    """
    del worker, workers
    os.environ["JAX_PLATFORMS"] = "cpu"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
