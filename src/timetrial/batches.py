"""The order of the training data (rule 5), and batches of rows in it. Without jax, for processes that make batches.

An epoch is a seeded permutation of the rows; epochs follow one another, nothing dropped. The stream is a pure function
of the seed: any stretch of it can be asked for, so its state is a position.
"""

import functools
import multiprocessing
import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from timetrial.splits import Split

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


class Share(NamedTuple):
    """The part of each batch that one process makes: that of some neighbours among the devices."""

    first: int
    own: int
    devices: int

    def of(self, rows: int) -> range:
        """Which of `rows` rows, a multiple of the devices."""
        return range(self.first * rows // self.devices, (self.first + self.own) * rows // self.devices)


WHOLE = Share(0, 1, 1)


def numbered(split: Split, stream: EpochStream, share: Share, rows: int, number: int) -> dict[str, np.ndarray]:
    """Batch number 0, 1, … of `rows` training rows each."""
    return stretch(split, stream, number * rows, rows, share)


def stretch(split: Split, stream: EpochStream, start: int, count: int, share: Share = WHOLE) -> dict[str, np.ndarray]:
    """The training rows at start, …, start+count-1 of the stream, padded with weight 0 to a multiple of the devices."""

    def take(low: int, high: int) -> dict[str, np.ndarray]:
        first = low - low % split.together
        length = -(-(high - first) // split.together) * split.together
        rows = split.take(stream.indices(first, length), stream.keys(first, length))
        return {name: array[low - first : high - first] for name, array in rows.items()}

    total = count + -count % share.devices
    batch, weights = _padded(lambda low, high: take(start + low, start + high), count, share.of(total))
    return batch if total == count else {**batch, "weights": weights}


def padded_batch(split: Split, rows: int, number: int, share: Share = WHOLE) -> dict[str, np.ndarray]:
    """Batch number 0, 1, … of `rows` rows each, a multiple of the devices; the last is filled up with weight 0."""
    first = number * rows
    valid = min(rows, len(split) - first)
    batch, weights = _padded(
        lambda low, high: split.take(np.arange(first + low, first + high), None), valid, share.of(rows)
    )
    return {**batch, "weights": weights}


def _padded(
    take: Callable[[int, int], dict[str, np.ndarray]], valid: int, own: range
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Rows `own` of a batch of which `valid` rows are there and the others repeat the last, and their weights (B,)."""
    low, high = min(own.start, valid - 1), max(min(own.stop, valid), 1)
    rows = take(low, max(high, low + 1))
    places = np.minimum(np.arange(own.start, own.stop), valid - 1) - low
    if len(places) != len(next(iter(rows.values()))):
        rows = {name: array[places] for name, array in rows.items()}
    return rows, (np.arange(own.start, own.stop) < valid).astype(np.float32)


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
