"""Batches on the devices, ahead of their use: of arrays that lie there, or made on the host by threads or processes."""

import contextlib
import functools
from collections.abc import Callable, Generator

import jax
import numpy as np
from absl import flags

from timetrial import machine
from timetrial.batches import EpochStream, begin_worker, numbered
from timetrial.devices import Mesh, put_batch, put_replicated
from timetrial.splits import Arrays, Split

_BATCHES_A_WORKER = 8
"""For fewer, starting a process costs more than it saves."""


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
    make = functools.partial(numbered, split, stream, mesh.share, rows)
    return ahead(make, split, mesh, range(first, 2**62), workers=workers)


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
        made = batches.to_iter_dataset(alone).mp_prefetch(options, worker_init_fn=begin_worker)
        sent = grain.experimental.ThreadPrefetchIterDataset(made.map(put), prefetch_buffer_size=2)
    else:
        sent = batches.map(put).to_iter_dataset(reading)
    with contextlib.closing(iter(sent)) as iterator:
        yield from iterator


def pad_indices(indices: np.ndarray, mesh: Mesh) -> np.ndarray:
    """`indices` (…, B) with the last one repeated until the devices divide B."""
    missing = mesh.round_up(indices.shape[-1]) - indices.shape[-1]
    return np.pad(indices, [(0, 0)] * (indices.ndim - 1) + [(0, missing)], mode="edge")
