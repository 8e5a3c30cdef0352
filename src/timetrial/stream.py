"""The order of the training data (rule 5): seeded permutations of the epochs, one after the other, nothing dropped.

The stream is a pure function of the seed: any stretch of it can be asked for, so its state is a position.
"""

import functools
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from timetrial.devices import Mesh, put_batch, put_replicated


class EpochStream:
    """Row indices 0, …, rows-1, each once an epoch, in an order drawn anew for each epoch."""

    def __init__(self, rows: int, seed: int) -> None:
        self._rows = rows
        self._seed = seed
        self._permutation = functools.lru_cache(maxsize=4)(self._draw)

    def indices(self, start: int, count: int) -> np.ndarray:
        """Elements start, …, start+count-1 of the stream, int32."""
        epochs = range(start // self._rows, (start + count - 1) // self._rows + 1)
        stretch = np.concatenate([self._permutation(epoch) for epoch in epochs])
        offset = start - epochs[0] * self._rows
        return stretch[offset : offset + count]

    def _draw(self, epoch: int) -> np.ndarray:
        # numpy keeps the stream of this legacy generator fixed for ever (NEP 19).
        words = [self._seed & 0xFFFFFFFF, self._seed >> 32, epoch]
        return np.random.RandomState(words).permutation(self._rows).astype(np.int32)


def fits_on_device(arrays: Mapping[str, np.ndarray], mesh: Mesh) -> bool:
    """Whether the training data may stay on each device: at most a quarter of its memory."""
    return sum(array.nbytes for array in arrays.values()) <= mesh.memory_bytes // 4


def on_device(arrays: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """The whole training split on every device, read now: a mapped file would be read within charged steps."""
    return put_replicated({name: np.array(array) for name, array in arrays.items()}, mesh)


def from_host(
    arrays: Mapping[str, np.ndarray], stream: EpochStream, mesh: Mesh, rows: int, *, first: int
) -> Iterator[dict[str, jax.Array]]:
    """Batches number first, first+1, … of `rows` rows, gathered and sent by threads ahead of their use."""
    import grain

    def batch(number: int) -> dict[str, jax.Array]:
        return put_batch(gather(arrays, stream.indices(number * rows, rows), mesh), mesh)

    batches = grain.MapDataset.range(first, 2**62).map(batch)
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))


def gather(arrays: Mapping[str, np.ndarray], indices: np.ndarray, mesh: Mesh) -> dict[str, np.ndarray]:
    """This process's share of the rows at `indices`, padded with weight 0 to a multiple of the number of devices."""
    rows = len(indices)
    padded = pad_indices(indices, mesh)
    own = mesh.own_rows(len(padded))
    batch = {name: np.asarray(array[padded[own]]) for name, array in arrays.items()}
    if len(padded) > rows:
        batch["weights"] = (np.arange(len(padded)) < rows)[own].astype(np.float32)
    return batch


def pad_indices(indices: np.ndarray, mesh: Mesh) -> np.ndarray:
    """`indices` (…, B) with the last one repeated until the devices divide B."""
    missing = mesh.round_up(indices.shape[-1]) - indices.shape[-1]
    return np.pad(indices, [(0, 0)] * (indices.ndim - 1) + [(0, missing)], mode="edge")
