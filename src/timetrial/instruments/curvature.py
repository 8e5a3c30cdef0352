"""Curvature from Hessian-vector products, each a forward derivative of the gradient (Pearlmutter 1994).

The products are made one by one, from the host: within a compiled loop XLA's processor backend takes nine times as long
for a convolution.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.instruments.probe import RowLosses, dot
from timetrial.submission import Leaves
from timetrial.workload import Array

Product = Callable[[Leaves], Leaves]
"""v -> H v."""


def hessian_product(losses: RowLosses, params: Leaves) -> Product:
    """V -> H v, with H the Hessian of the mean of `losses` at `params`."""
    gradient = jax.grad(lambda p: jnp.mean(losses(p)))
    return lambda v: jax.jvp(gradient, (params,), (v,))[1]


class Diagonal(NamedTuple):
    """Hutchinson's estimates from k random vectors of signs."""

    traces: Array
    """v'Hv of each vector, (k,): their mean estimates the trace (Hutchinson 1990)."""
    diagonal: Leaves
    """The mean of v * Hv, which estimates the diagonal (Bekas, Kokiopoulou and Saad 2007); exact for a diagonal H."""


def hutchinson(product: Product, params: Leaves, key: Array, vectors: int) -> Diagonal:
    """Trace and diagonal of the matrix of `product`, from `vectors` products."""
    diagonal = [jnp.zeros_like(p) for p in params]
    traces: list[Array] = []
    for i in range(vectors):
        v = _signs(key, np.int32(i), params)
        diagonal, trace = _add_product(diagonal, v, product(v), 1 / vectors)
        traces.append(trace)
    return Diagonal(jnp.stack(traces), diagonal)


@jax.jit
def _signs(key: Array, number: Array, like: Leaves) -> Leaves:
    return _shaped(jax.random.rademacher(jax.random.fold_in(key, number), (_size(like),), jnp.float32), like)


def _size(leaves: Leaves) -> int:
    return sum(x.size for x in leaves)


def _shaped(flat: Array, like: Leaves) -> Leaves:
    """The elements of `flat`, one after the other, in arrays like these."""
    ends = np.cumsum([x.size for x in like])
    return [flat[end - x.size : end].reshape(x.shape).astype(x.dtype) for x, end in zip(like, ends, strict=True)]


@partial(jax.jit, donate_argnums=0)
def _add_product(diagonal: Leaves, v: Leaves, product: Leaves, weight: float) -> tuple[Leaves, Array]:
    terms = [a * b for a, b in zip(v, product, strict=True)]
    return [d + weight * t for d, t in zip(diagonal, terms, strict=True)], jnp.stack([t.sum() for t in terms]).sum()


class Tridiagonal(NamedTuple):
    """The matrix that m turns of Lanczos' iteration leave: symmetric, tridiagonal."""

    diagonal: Array
    """(m,)."""
    beside: Array
    """(m,): entry i lies beside entries i and i + 1 of the diagonal; the last is what comes next."""


def lanczos(product: Product, params: Leaves, key: Array, turns: int) -> Tridiagonal:
    """Lanczos' iteration from a random vector, by its recurrence of three terms.

    No vectors are kept: without reorthogonalisation eigenvalues come up again, and the outermost ones stay right
    (Paige 1980); that takes three copies of the parameters, however many turns.
    """
    before, v = _start(key, params)
    found: list[tuple[Array, Array]] = []
    beta = jnp.zeros(())
    for _ in range(turns):
        before, v, alpha, beta = _turn(before, v, product(v), beta)
        found.append((alpha, beta))
    alphas, betas = zip(*found, strict=True)
    return Tridiagonal(jnp.stack(alphas), jnp.stack(betas))


@jax.jit
def _start(key: Array, like: Leaves) -> tuple[Leaves, Leaves]:
    start = jax.random.normal(key, (_size(like),))
    return [jnp.zeros_like(p) for p in like], _shaped(start / jnp.sqrt(jnp.vdot(start, start)), like)


@partial(jax.jit, donate_argnums=(0, 2))
def _turn(before: Leaves, v: Leaves, product: Leaves, beta: Array) -> tuple[Leaves, Leaves, Array, Array]:
    """This vector and the next, and the two numbers that are found on the way."""
    w = [hv - beta * p for hv, p in zip(product, before, strict=True)]
    alpha = dot(w, v)
    w = [a - alpha * b for a, b in zip(w, v, strict=True)]
    beta = jnp.sqrt(dot(w, w))
    return v, [a / jnp.maximum(beta, 1e-30) for a in w], alpha, beta


class Extremes(NamedTuple):
    """The outermost eigenvalues that Lanczos' iteration has found."""

    largest: float
    largest_error: float
    """Some eigenvalue of the matrix lies within this of `largest` (the residual's norm)."""
    smallest: float


def extremes(found: Tridiagonal) -> Extremes:
    """The outermost eigenvalues of a tridiagonal matrix, cut where the iteration had found all there is."""
    alpha, beta = (np.asarray(x, np.float64) for x in found)
    if not (np.isfinite(alpha).all() and np.isfinite(beta).all()):
        return Extremes(np.nan, np.nan, np.nan)
    over = np.flatnonzero(beta <= 1e-5 * max(np.abs(alpha).max(), beta.max()))
    m = len(alpha) if over.size == 0 else int(over[0]) + 1
    values, vectors = np.linalg.eigh(np.diag(alpha[:m]) + np.diag(beta[: m - 1], 1) + np.diag(beta[: m - 1], -1))
    return Extremes(float(values[-1]), float(beta[m - 1] * abs(vectors[-1, -1])), float(values[0]))


def preconditioned(product: Product, scale: Leaves) -> Product:
    """V -> S H S v with S = diag(scale): for scale = P^(-1/2) it has the eigenvalues of P^(-1) H."""
    return lambda v: _times(scale, product(_times(scale, v)))


@jax.jit
def _times(a: Leaves, b: Leaves) -> Leaves:
    return [x * y for x, y in zip(a, b, strict=True)]
