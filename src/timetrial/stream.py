"""The order of the training data (rule 5): seeded permutations of the epochs, one after the other, nothing dropped.

The stream is a pure function of the seed: any stretch of it can be asked for, so its state is a position.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Generator
from typing import Any

import jax
import numpy as np
from absl import flags

from timetrial import machine
from timetrial.devices import Mesh, put_batch, put_replicated
from timetrial.splits import Arrays, Split

_BLOCKS_MIXED = 64
"""Rows that are read in blocks are shuffled over so many of them, which are shuffled themselves."""
_BATCHES_A_WORKER = 8
"""For fewer, starting a process costs more than it saves."""


class EpochStream:
    """Row indices 0, …, rows-1, each once an epoch, in an order drawn anew for each epoch."""

    def __init__(self, rows: int, seed: int, *, block: int = 1) -> None:
        """`block` rows that are read together stay near each other; a batch then reads few blocks."""
        self._rows = rows
        self._seed = seed
        self._block = block
        self._permutation = functools.lru_cache(maxsize=4)(self._draw if block == 1 else self._draw_blocks)
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
        starts = self._permutation(epoch)[1]
        windows = range(
            int(np.searchsorted(starts, first, side="right")) - 1, int(np.searchsorted(starts, end, side="left"))
        )
        stretch = np.concatenate([self._mixed(epoch, window) for window in windows])
        return stretch[first - starts[windows[0]] : end - starts[windows[0]]]

    def _draw(self, epoch: int) -> np.ndarray:
        # numpy keeps the stream of this legacy generator fixed for ever (NEP 19).
        return np.random.RandomState(self._words(epoch)).permutation(self._rows).astype(np.int32)

    def _draw_blocks(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of the blocks, and where in the epoch each window of them starts."""
        order = np.random.RandomState(self._words(epoch)).permutation(-(-self._rows // self._block))
        ends = np.cumsum(np.minimum((order + 1) * self._block, self._rows) - order * self._block)
        return order, np.append(0, ends)[::_BLOCKS_MIXED]

    def _draw_mixed(self, epoch: int, window: int) -> np.ndarray:
        """The rows of a window of blocks, in their order."""
        blocks = self._permutation(epoch)[0][window * _BLOCKS_MIXED : (window + 1) * _BLOCKS_MIXED]
        rows = (blocks[:, None] * self._block + np.arange(self._block)).reshape(-1)
        return np.random.RandomState([*self._words(epoch), window]).permutation(rows[rows < self._rows])

    def _words(self, epoch: int) -> list[int]:
        return [self._seed & 0xFFFFFFFF, self._seed >> 32, epoch]


def fits_on_device(arrays: Arrays, mesh: Mesh) -> bool:
    """Whether the training data may stay on each device: at most a quarter of its memory."""
    return sum(array.nbytes for array in arrays.values()) <= mesh.memory_bytes // 4


def on_device(split: Split, mesh: Mesh) -> dict[str, jax.Array] | None:
    """The whole split on every device, read now (a mapped file would be read within charged steps); None: too large."""
    if split.arrays is None or not fits_on_device(split.arrays, mesh):
        return None
    return put_replicated({name: np.array(array) for name, array in split.arrays.items()}, mesh)


def from_host(
    split: Split, stream: EpochStream, mesh: Mesh, rows: int, *, first: int, workers: int | None = None
) -> Generator[dict[str, jax.Array]]:
    """Batches number first, first+1, … of `rows` rows, made and sent ahead of their use; see `ahead`."""
    make = functools.partial(_numbered, split, stream, mesh.size, rows)
    return ahead(make, split, mesh, range(first, 2**62), workers=workers)


def _numbered(split: Split, stream: EpochStream, devices: int, rows: int, number: int) -> dict[str, np.ndarray]:
    return stretch(split, stream, number * rows, rows, devices)


def ahead(
    make: Callable[[int], dict[str, np.ndarray]],
    split: Split,
    mesh: Mesh,
    numbers: range,
    *,
    workers: int | None = None,
) -> Generator[dict[str, jax.Array]]:
    """The batches of these numbers on the devices, in order, made while others are used.

    Rows that lie in arrays are gathered by threads; others are made in so many processes of their own (None: one a
    core, where there are batches enough). Either way the batches are the same. Closing it ends the processes.
    """
    import grain

    put = functools.partial(put_batch, mesh=mesh)
    batches = grain.MapDataset.range(numbers.start, numbers.stop).map(make)
    reading = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    if workers is None:
        workers = min(machine.cores(), len(numbers) // _BATCHES_A_WORKER) if split.arrays is None else 0
    if workers:
        if not flags.FLAGS.is_parsed():  # grain reads its own, which nobody gives here
            flags.FLAGS.mark_as_parsed()
        alone = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
        options = grain.MultiprocessingOptions(workers)
        made = batches.to_iter_dataset(alone).mp_prefetch(options, worker_init_fn=_leave_the_devices)
        sent = grain.experimental.ThreadPrefetchIterDataset(made.map(put), prefetch_buffer_size=2)
    else:
        sent = batches.map(put).to_iter_dataset(reading)
    with contextlib.closing(iter(sent)) as iterator:
        yield from iterator


def _leave_the_devices(worker: int, workers: int) -> None:
    """In a process that makes rows, jax is not to take the memory of a device."""
    del worker, workers
    os.environ["JAX_PLATFORMS"] = "cpu"


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


def pad_indices(indices: np.ndarray, mesh: Mesh) -> np.ndarray:
    """`indices` (…, B) with the last one repeated until the devices divide B."""
    missing = mesh.round_up(indices.shape[-1]) - indices.shape[-1]
    return np.pad(indices, [(0, 0)] * (indices.ndim - 1) + [(0, missing)], mode="edge")
