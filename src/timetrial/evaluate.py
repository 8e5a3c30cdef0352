"""The metrics of a split: every row exactly once, padding never counted."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from timetrial.devices import Mesh, put_batch
from timetrial.workload import Workload

PyTree = Any


class Evaluator:
    """Evaluates a workload's model on its splits. All batches have one shape, so one compiled program serves them."""

    def __init__(self, workload: Workload, mesh: Mesh, *, batch_size: int | None = None) -> None:
        self._workload = workload
        self._mesh = mesh
        rows = workload.eval_batch_size if batch_size is None else batch_size
        self._rows = mesh.round_up(rows)
        self._batches: dict[str, list[tuple[dict[str, jax.Array], np.ndarray]]] = {}
        # Elsewhere the results lie as they come, but every process has to see all rows.
        self._step = jax.jit(workload.evaluate, out_shardings=mesh.replicated if mesh.several_processes else None)

    def __call__(self, params: PyTree, model_state: PyTree, splits: Iterable[str]) -> dict[str, float]:
        """Metrics by `split/metric` of the given parameters, on `train_eval`, `valid` or `test`."""
        pending = {split: [self._one(params, model_state, batch) for batch, _ in self._load(split)] for split in splits}
        metrics: dict[str, float] = {}
        for split, batches in pending.items():
            weights = [weights for _, weights in self._load(split)]
            accumulated = accumulate(jax.device_get(batches), weights)
            for name, value in self._workload.finalize(accumulated).items():
                metrics[f"{split}/{name}"] = float(value)
        return metrics

    def _one(self, params: PyTree, model_state: PyTree, batch: dict[str, jax.Array]) -> Mapping[str, jax.Array]:
        """What one batch adds, maybe still computing: all batches are dispatched before the first is read."""
        added = self._step(params, model_state, batch)
        return added if self._mesh.steps_in_flight else jax.block_until_ready(added)

    def _load(self, split: str) -> list[tuple[dict[str, jax.Array], np.ndarray]]:
        """The batches of a split, and the weights of all their rows."""
        if split not in self._batches:
            arrays = self._workload.split(split)
            available = len(next(iter(arrays.values())))
            own = self._mesh.own_rows(self._rows)
            batches: list[tuple[dict[str, jax.Array], np.ndarray]] = []
            for first in range(0, available, self._rows):
                indices, weights = padded_rows(available, first, self._rows)
                rows = {name: array[indices[own]] for name, array in arrays.items()}
                batches.append((put_batch({**rows, "weights": weights[own]}, self._mesh), weights))
            self._batches[split] = batches
        return self._batches[split]


def padded_rows(available: int, first: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices first, …, first+rows-1, with the last one repeated where rows end before, and their weights."""
    valid = min(rows, available - first)
    indices = first + np.minimum(np.arange(rows), valid - 1)
    return indices, (np.arange(rows) < valid).astype(np.float32)


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
