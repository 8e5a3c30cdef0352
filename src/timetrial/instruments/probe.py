"""The loss of a probe batch, row by row: what all instruments that need more than two states look at."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from timetrial.problem import WorkloadProblem
from timetrial.submission import Batch, Leaves
from timetrial.workload import Array

RowLosses = Callable[[Leaves], Array]


class Rows(NamedTuple):
    """Rows of a probe batch, b of them, each with what makes its loss its own."""

    batch: Batch
    keys: Array
    """A key for each row, (b,): its dropout."""
    scale: Array
    """b over the terms of the batch, (): what makes a row's loss its share of the batch's."""


@dataclass(frozen=True)
class ProbeLoss:
    """The loss f = mean of f_n over the rows of a probe batch, as the submission's own steps see it (train=True).

    f_n is the loss of row n, summed over its terms, times b over all terms; so the mean over rows is the mean over
    terms, and a gradient of f_n is what row n adds to it.
    """

    problem: WorkloadProblem
    coupled: bool
    """Whether a row's loss depends on the other rows (batch norm): then f_n has no gradient of its own."""
    dropout: bool
    """Whether a row's loss depends on its key; if not, the rows go through the loss as one batch, which is quicker."""

    def rows(self, params: Leaves, model_state: Leaves, batch: Batch, key: Array) -> Rows:
        """The rows of `batch` (all of weight 1). Their terms do not depend on the parameters."""
        terms = self._loss(params, model_state, batch, key)[1]
        return Rows(batch, jax.random.split(key, batch.size), batch.size / jnp.sum(terms))

    def row_losses(self, model_state: Leaves, rows: Rows) -> RowLosses:
        """Params -> f_n for each row, float32 (b,)."""
        if self.coupled or not self.dropout:
            return lambda params: self._loss(params, model_state, rows.batch, rows.keys[0])[0] * rows.scale

        def one(params: Leaves, batch: Batch, key: Array) -> Array:
            row = jax.tree.map(lambda x: x[None], batch)
            return self._loss(params, model_state, row, key)[0][0] * rows.scale

        return lambda params: jax.vmap(one, (None, 0, 0))(params, rows.batch, rows.keys)

    def _loss(self, params: Leaves, model_state: Leaves, batch: Batch, key: Array) -> tuple[Array, Array]:
        """The rows' summed losses and numbers of terms."""
        with self.problem.counted():
            _, aux = self.problem.loss(params, model_state, batch, key)
        return aux.losses, aux.weights


def dot(a: Any, b: Any) -> Array:
    """The inner product of two trees, float32."""
    return jnp.asarray(sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)))


def norms(leaves: Leaves) -> Array:
    """The norm of each array."""
    return jnp.stack([jnp.sqrt(jnp.vdot(x, x)) for x in leaves])
