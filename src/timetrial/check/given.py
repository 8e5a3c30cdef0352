"""The rows that a submission passes through the loss: chosen, repeated or reweighted, but not altered (rule 9)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from timetrial.workload import Array, Batch, PyTree, Workload


class Given:
    """A workload that notes each batch that its model is applied to in training, whatever loops the call is in."""

    def __init__(self, workload: Workload) -> None:
        self._given: list[Mapping[str, np.ndarray]] = []

        def apply(
            params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
        ) -> tuple[PyTree, PyTree]:
            jax.debug.callback(self._note, dict(batch))
            return workload.apply(params, model_state, batch, key, train=train, dropout_rate=dropout_rate)

        self.workload = replace(workload, apply=apply)

    def _note(self, batch: Mapping[str, Any]) -> None:
        self._given.append({name: np.asarray(field) for name, field in batch.items()})

    def altered(self, drawn: Mapping[str, np.ndarray]) -> int:
        """How many rows of non-zero weight were given that are none of those drawn, to the bit in the type given."""
        jax.effects_barrier()
        return sum(_strangers(batch, drawn) for batch in self._given)


def _strangers(given: Mapping[str, np.ndarray], drawn: Mapping[str, np.ndarray]) -> int:
    known = set(_rows({name: rows.astype(given[name].dtype) for name, rows in drawn.items()}))
    rows = _rows({name: given[name] for name in drawn})
    counts = given.get("weights", np.ones(len(rows))) != 0
    return sum(row not in known for row, counted in zip(rows, counts, strict=True) if counted)


def _rows(fields: Mapping[str, np.ndarray]) -> list[bytes]:
    """Each row's bytes, field after field."""
    count = len(next(iter(fields.values())))
    return [b"".join(fields[name][i].tobytes() for name in sorted(fields)) for i in range(count)]
