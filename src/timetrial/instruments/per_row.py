"""Gradients of single rows, never more of them at a time than memory holds; only what is summed over them is kept."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.instruments.probe import RowLosses, Rows, dot
from timetrial.submission import Batch, Leaves
from timetrial.workload import Array

GRADIENT_EDGES = np.array([10.0 ** (k / 2) for k in range(-16, 5)], np.float32)
"""Edges of a histogram of gradient elements and of curvature, mirrored at 0: half decades from 1e-8 to 100."""
PARAMETER_EDGES = np.array([10.0**k for k in range(-4, 2)], np.float32)
"""Edges of parameters in a two-dimensional histogram, mirrored at 0."""
COARSE_EDGES = GRADIENT_EDGES[::2]
"""Edges of gradient elements there: decades."""
_SAMPLED = 1 << 16
"""Parameters whose gradient elements a histogram counts, at most about; evenly spaced within each array."""
_CHUNK_BYTES = 1 << 28


class RowSums(NamedTuple):
    """What is known of the gradients g_n of the rows seen so far."""

    rows: Array
    """How many, float32 ()."""
    mean: Leaves
    """Of g_n."""
    squares: Leaves
    """The elementwise sums of (g_n - mean)^2; over rows - 1 the variance of each element."""
    histogram: Array
    """Counts of the elements of g_n between the mirrored `GRADIENT_EDGES`, int32 (43,)."""
    histogram_2d: Array | None
    """Counts by parameter (13 bins) and by element (23 bins), float32; None where not asked for."""


def no_rows(params: Leaves, *, histogram_2d: bool) -> RowSums:
    """The sums before any row is seen."""
    shape = (2 * len(PARAMETER_EDGES) + 1, 2 * len(COARSE_EDGES) + 1)
    return RowSums(
        rows=jnp.zeros(()),
        mean=[jnp.zeros_like(p) for p in params],
        squares=[jnp.zeros_like(p) for p in params],
        histogram=jnp.zeros(2 * len(GRADIENT_EDGES) + 1, jnp.int32),
        histogram_2d=jnp.zeros(shape) if histogram_2d else None,
    )


def add_rows(
    sums: RowSums, losses_of: Callable[[Rows], RowLosses], params: Leaves, rows: Rows, direction: Leaves
) -> tuple[RowSums, tuple[Array, Array]]:
    """The sums with c more rows, merged as Chan, Golub and LeVeque (1979) do; their f_n, and g_n'u for a direction u.

    `losses_of` gives the loss of some of the rows. All c gradients are in memory at the same time.
    """
    c = rows.keys.shape[0]
    stride = -(-sum(p.size for p in params) // _SAMPLED)

    def sample(leaves: Leaves) -> Array:
        """Some of the elements, (..., N), of arrays like the parameters with leading axes."""
        flat = [x.reshape(*x.shape[: x.ndim - p.ndim], -1) for x, p in zip(leaves, params, strict=True)]
        return jnp.concatenate([x[..., ::stride] for x in flat], axis=-1)

    values, gradients = _each_row(losses_of, params, rows)
    own_mean = [g.mean(0) for g in gradients]
    own_squares = [jnp.sum((g - m) ** 2, axis=0) for g, m in zip(gradients, own_mean, strict=True)]
    share = c / (sums.rows + c)
    delta = [own - old for own, old in zip(own_mean, sums.mean, strict=True)]
    squares = [s + o + sums.rows * share * d**2 for s, o, d in zip(sums.squares, own_squares, delta, strict=True)]
    elements = sample(gradients)
    counts_2d = sums.histogram_2d
    more = RowSums(
        rows=sums.rows + c,
        mean=[old + share * d for old, d in zip(sums.mean, delta, strict=True)],
        squares=squares,
        histogram=sums.histogram + histogram(elements, GRADIENT_EDGES),
        histogram_2d=None if counts_2d is None else counts_2d + _histogram_2d(sample(params), elements),
    )
    return more, (values, jax.vmap(lambda *g: dot(g, direction))(*gradients))


def _each_row(losses_of: Callable[[Rows], RowLosses], params: Leaves, rows: Rows) -> tuple[Array, Leaves]:
    """The losses of rows, (c,), and their gradients, each array with a leading axis of rows."""

    def one(batch: Batch, key: Array) -> tuple[Array, Leaves]:
        row: tuple[Batch, Array] = jax.tree.map(lambda x: x[None], (batch, key))
        return jax.value_and_grad(lambda p: losses_of(Rows(*row, rows.scale))(p)[0])(params)

    return jax.vmap(one)(rows.batch, rows.keys)


def chunk_rows(rows: int, parameters: int, platform: str) -> int:
    """How many rows' gradients are taken at a time: as many as 256 MiB hold, and one on a processor.

    XLA's processor backend takes the gradients of a convolution for several rows at a time as grouped convolutions,
    which are slower than one row after the other.
    """
    most = 1 if platform == "cpu" else max(1, _CHUNK_BYTES // (4 * parameters))
    return max(c for c in range(1, min(rows, most) + 1) if rows % c == 0)


def histogram(values: Array, edges: np.ndarray) -> Array:
    """Counts, int32 (2 E + 1,), between the E edges mirrored at 0: the first bin is below the lowest of the 2 E.

    Values that are not numbers are counted nowhere.
    """
    at_least = jnp.sum(values.reshape(1, -1) >= mirrored(edges)[:, None], axis=1)
    all_ = jnp.sum(values == values)  # not so where it is not a number
    upper, lower = jnp.append(at_least, 0), jnp.insert(at_least, 0, all_)
    return lower - upper


def mirrored(edges: np.ndarray) -> np.ndarray:
    """The edges and their negatives, rising."""
    return np.concatenate([-edges[::-1], edges])


def _histogram_2d(params_p: Array, elements_np: Array) -> Array:
    """Counts by bin of the parameter and bin of its gradient elements, over all rows."""
    bin_p = jnp.searchsorted(mirrored(PARAMETER_EDGES), params_p, side="right")
    by_parameter = jax.nn.one_hot(bin_p, 2 * len(PARAMETER_EDGES) + 1)
    bin_np = jnp.searchsorted(mirrored(COARSE_EDGES), elements_np, side="right")
    by_element = jax.nn.one_hot(bin_np, 2 * len(COARSE_EDGES) + 1).sum(0)
    return by_parameter.T @ by_element
