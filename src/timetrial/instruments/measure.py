"""The sums that a set of instruments needs of a step: a few compiled passes, each made once for all that need it."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.instrument_log import SetName
from timetrial.instruments.curvature import Tridiagonal, hessian_product, hutchinson, lanczos, preconditioned
from timetrial.instruments.optimizer_state import inverse_root
from timetrial.instruments.per_row import GRADIENT_EDGES, RowSums, add_rows, histogram, no_rows
from timetrial.instruments.probe import ProbeLoss, RowLosses, Rows, norms
from timetrial.instruments.sets import has
from timetrial.submission import Batch, Leaves
from timetrial.workload import Array

_VECTORS = 2
"""Random vectors of a look at the Hessian's trace."""
_TURNS = 8
"""Turns of Lanczos' iteration."""
_FLAT = 1e-3
"""What the smallest variances and curvatures count as, over their mean, where something is divided by them."""


class Seen(NamedTuple):
    """The two ends of a step, as a set needs them."""

    initial: Leaves
    before: Leaves
    after: Leaves
    model_state: Leaves
    """Before the step."""
    second_moments: tuple[Leaves, Leaves] | None
    """Before and after the step."""
    step: Array
    """Steps taken with it."""


class Sums(NamedTuple):
    """What the device makes of a step; None where the set, or the workload, does not have it."""

    param_norm: Array
    """(L,) for the L arrays of parameters; likewise `distance`, `update_size` and `gradient_norm`."""
    distance: Array
    update_size: Array
    start: tuple[Array, Array] | None = None
    """f_n and slopes along the step, (b,) each, where it begins."""
    end: tuple[Array, Array] | None = None
    gradient_norm: Array | None = None
    spread: Array | None = None
    """The sum over rows of |g_n - g|^2."""
    along: Array | None = None
    """Inner products of g_n and g, (b,)."""
    counts: Array | None = None
    counts_2d: Array | None = None
    signal_to_noise: Array | None = None
    """The mean of g^2 / S over the parameters."""
    tic_diagonal: Array | None = None
    traces: Array | None = None
    diagonal_sums: Array | None = None
    """(L,): the estimated diagonal, summed over each array."""
    diagonal_counts: Array | None = None
    plain: Tridiagonal | None = None
    preconditioned: Tridiagonal | None = None


class Measure:
    """One set of instruments for one workload; calling it makes the sums of a step."""

    def __init__(self, set_name: SetName, loss: ProbeLoss | None, *, chunk: int) -> None:
        """`loss` is None where only parameters are seen; `chunk` rows have their gradients taken at a time."""
        self._set: SetName = set_name
        self._loss = loss
        self._chunk = chunk
        self._sizes = jax.jit(_sizes)
        if loss is None:
            return

        def losses(seen: Seen, rows: Rows) -> RowLosses:
            return loss.row_losses(seen.model_state, rows)

        def add(
            sums: RowSums, seen: Seen, rows: Rows, first: Array, update: Leaves
        ) -> tuple[RowSums, tuple[Array, Array]]:
            part: tuple[Batch, Array] = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, chunk), rows[:2])
            return add_rows(sums, lambda some: losses(seen, some), seen.before, Rows(*part, rows.scale), update)

        self._rows = jax.jit(lambda seen, batch, key: loss.rows(seen.before, seen.model_state, batch, key))
        self._along = jax.jit(lambda seen, rows, at, v: jax.jvp(losses(seen, rows), (at,), (v,)))
        self._gradient = jax.jit(lambda seen, rows: jax.grad(lambda p: jnp.mean(losses(seen, rows)(p)))(seen.before))
        self._product = jax.jit(lambda seen, rows, v: hessian_product(losses(seen, rows), seen.before)(v))
        self._add = jax.jit(add, donate_argnums=0)

    def __call__(self, seen: Seen, batch: Batch | None, key: Array) -> Sums:
        """What the set can tell of a step, from a probe batch of rows of weight 1; on the device."""
        update, sums = self._sizes(seen)
        if self._loss is None or batch is None:
            return sums
        own, vectors, start = jax.random.split(key, 3)
        rows = self._rows(seen, batch, own)
        sums = sums._replace(end=self._along(seen, rows, seen.after, update))
        moments = None
        if self._loss.coupled:
            line, gradient = self._along(seen, rows, seen.before, update), self._gradient(seen, rows)
        else:
            moments, line = self._moments(seen, rows, update)
            gradient = moments.mean
            sums = sums._replace(
                spread=_total_of(moments.squares),
                along=self._along(seen, rows, seen.before, gradient)[1],
                counts=moments.histogram,
                counts_2d=moments.histogram_2d,
            )
        sums = sums._replace(start=line, gradient_norm=_norms(gradient))
        product = partial(self._product, seen, rows)
        if has(self._set, "business"):
            found = hutchinson(product, seen.before, vectors, _VECTORS)
            sums = sums._replace(
                traces=found.traces,
                diagonal_sums=_sums_of(found.diagonal),
                diagonal_counts=_histogram(found.diagonal),
            )
            if moments is not None:
                signal, tic = _ratios(moments, found.diagonal)
                sums = sums._replace(signal_to_noise=signal, tic_diagonal=tic)
        if has(self._set, "full"):
            sums = sums._replace(plain=lanczos(product, seen.before, start, _TURNS))
            if seen.second_moments is not None:
                scaled = preconditioned(product, _inverse_root(*seen.second_moments, seen.step))
                sums = sums._replace(preconditioned=lanczos(scaled, seen.before, start, _TURNS))
        return sums

    def _moments(self, seen: Seen, rows: Rows, update: Leaves) -> tuple[RowSums, tuple[Array, Array]]:
        sums = no_rows(seen.before, histogram_2d=has(self._set, "full"))
        lines: list[tuple[Array, Array]] = []
        for first in range(0, rows.batch.size, self._chunk):
            sums, line = self._add(sums, seen, rows, np.int32(first), update)
            lines.append(line)
        values, slopes = zip(*lines, strict=True)
        return sums, (jnp.concatenate(values), jnp.concatenate(slopes))


def _sizes(seen: Seen) -> tuple[Leaves, Sums]:
    """The update, and what can be told of a step without the loss."""
    update = [a - b for a, b in zip(seen.after, seen.before, strict=True)]
    moved = [b - a for a, b in zip(seen.initial, seen.before, strict=True)]
    return update, Sums(norms(seen.before), norms(moved), norms(update))


_norms = jax.jit(norms)
_inverse_root = jax.jit(inverse_root)


@jax.jit
def _sums_of(leaves: Leaves) -> Array:
    return jnp.stack([x.sum() for x in leaves])


@jax.jit
def _total_of(leaves: Leaves) -> Array:
    return _sums_of(leaves).sum()


@jax.jit
def _histogram(leaves: Leaves) -> Array:
    return histogram(jnp.concatenate([x.reshape(-1) for x in leaves]), GRADIENT_EDGES)


@jax.jit
def _ratios(moments: RowSums, diagonal: Leaves) -> tuple[Array, Array]:
    """The mean of g^2 / S (Liu et al. 2020, equation 2), and TIC from both diagonals (Thomas et al. 2020).

    A thousandth of the mean variance is added to each: some gradients, like those of words that no row holds, are
    nearly the same in all rows, and a few of them would be the mean. In TIC negative curvature counts by its size.
    """
    gradient, squares, curvature = (
        jnp.concatenate([x.reshape(-1) for x in leaves]) for leaves in (moments.mean, moments.squares, diagonal)
    )
    variance = squares / (moments.rows - 1)
    ratios = gradient**2 / (variance + _FLAT * variance.mean() + 1e-30)
    curvature = jnp.abs(curvature)
    second_moment = squares / moments.rows + gradient**2
    tic = jnp.sum(second_moment / jnp.maximum(curvature, _FLAT * curvature.mean() + 1e-30))
    return ratios.mean(), tic
