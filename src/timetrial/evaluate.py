"""The metrics of a split: every row exactly once, padding never counted."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from timetrial.batches import padded_batch
from timetrial.devices import Mesh, put_batch
from timetrial.stream import ahead, fits_on_device
from timetrial.workload import Workload

PyTree = Any


class Evaluator:
    """Evaluates a workload's model on its splits. All batches have one shape, so one compiled program serves them."""

    def __init__(self, workload: Workload, mesh: Mesh, *, batch_size: int | None = None) -> None:
        self._workload = workload
        self._mesh = mesh
        rows = workload.eval_batch_size if batch_size is None else batch_size
        self._rows = mesh.round_up(rows)
        self._rows_of: dict[str, int] = {}
        self._kept: dict[str, list[dict[str, jax.Array]]] = {}
        # Elsewhere the results lie as they come, but every process has to see all rows.
        self._step = jax.jit(workload.evaluate, out_shardings=mesh.replicated if mesh.several_processes else None)

    def __call__(self, params: PyTree, model_state: PyTree, splits: Iterable[str]) -> dict[str, float]:
        """Metrics by `split/metric` of the given parameters, on `train_eval`, `valid` or `test`."""
        pending = {split: self._pass(params, model_state, split) for split in splits}
        metrics: dict[str, float] = {}
        for split, added in pending.items():
            left = (self._rows_of[split] - number * self._rows for number in range(len(added)))
            accumulated = accumulate(jax.device_get(added), (np.arange(self._rows) < rows for rows in left))
            for name, value in self._workload.finalize(accumulated).items():
                metrics[f"{split}/{name}"] = float(value)
        return metrics

    def _pass(self, params: PyTree, model_state: PyTree, split: str) -> list[Mapping[str, jax.Array]]:
        """What each batch adds, maybe still computing.

        All batches that are on the devices are dispatched before the first is read; of others only some are, since
        what waits takes memory.
        """
        added: list[Mapping[str, jax.Array]] = []
        for batch in self._batches(split):
            added.append(self._step(params, model_state, batch))
            in_flight = self._mesh.steps_in_flight
            if len(added) > in_flight and (not in_flight or split not in self._kept):
                jax.block_until_ready(added[-1 - in_flight])
        return added

    def _batches(self, split: str) -> Iterable[dict[str, jax.Array]]:
        """On the devices: kept there where they fit, made anew each time where not."""
        if split in self._kept:
            return self._kept[split]
        rows = self._workload.rows(split)
        self._rows_of[split] = len(rows)
        numbers = range(-(-len(rows) // self._rows))
        make = functools.partial(padded_batch, rows, self._rows, share=self._mesh.share)
        if rows.arrays is None or not fits_on_device(rows.arrays, self._mesh):
            return ahead(make, rows, self._mesh, numbers)
        self._kept[split] = [put_batch(make(number), self._mesh) for number in numbers]
        return self._kept[split]


def accumulate(batches: Iterable[Mapping[str, np.ndarray]], weights: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Scalars summed in float64; arrays with a row axis concatenated, rows of weight 0 left out."""
    parts: dict[str, list[np.ndarray]] = {}
    for batch, weight in zip(batches, weights, strict=True):
        for name, value in batch.items():
            value = np.asarray(value)
            parts.setdefault(name, []).append(value.astype(np.float64) if value.ndim == 0 else value[weight > 0])
    return {
        name: np.sum(values, axis=0) if values[0].ndim == 0 else np.concatenate(values)
        for name, values in parts.items()
    }
