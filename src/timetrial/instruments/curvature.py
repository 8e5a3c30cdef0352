"""Curvature from Hessian-vector products, each a forward derivative of the gradient (Pearlmutter 1994)."""

from collections.abc import Callable
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
    """v -> H v, with H the Hessian of the mean of `losses` at `params`."""
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

    def add(diagonal: Leaves, key: Array) -> tuple[Leaves, Array]:
        v = _signs(key, params)
        terms = [a * b for a, b in zip(v, product(v), strict=True)]
        return [d + t / vectors for d, t in zip(diagonal, terms, strict=True)], jnp.stack([t.sum() for t in terms]).sum()

    zeros = [jnp.zeros_like(p) for p in params]
    diagonal, traces = jax.lax.scan(add, zeros, jax.random.split(key, vectors))
    return Diagonal(traces, diagonal)


class Tridiagonal(NamedTuple):
    """The matrix that m turns of Lanczos' iteration leave: symmetric, tridiagonal."""

    diagonal: Array
    """(m,)."""
    beside: Array
    """(m,): entry i lies beside entries i and i + 1 of the diagonal; the last is what the next turn would start from."""


def lanczos(product: Product, params: Leaves, key: Array, turns: int) -> Tridiagonal:
    """Lanczos' iteration from a random vector, by its recurrence of three terms.

    No vectors are kept: without reorthogonalisation eigenvalues come up again, and the outermost ones stay right
    (Paige 1980); that takes three copies of the parameters, however many turns.
    """

    def turn(carry: tuple[Leaves, Leaves, Array], _: None):
        before, v, beta = carry
        w = [hv - beta * p for hv, p in zip(product(v), before, strict=True)]
        alpha = dot(w, v)
        w = [a - alpha * b for a, b in zip(w, v, strict=True)]
        beta = jnp.sqrt(dot(w, w))
        return (v, [a / jnp.maximum(beta, 1e-30) for a in w], beta), (alpha, beta)

    keys = jax.random.split(key, len(params))
    start = [jax.random.normal(k, p.shape, p.dtype) for k, p in zip(keys, params, strict=True)]
    size = jnp.sqrt(dot(start, start))
    carry = ([jnp.zeros_like(p) for p in params], [x / size for x in start], jnp.float32(0))
    return Tridiagonal(*jax.lax.scan(turn, carry, None, length=turns)[1])


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
    """v -> S H S v with S = diag(scale): for scale = P^(-1/2) it has the eigenvalues of P^(-1) H."""

    def own(v: Leaves) -> Leaves:
        scaled = product([s * x for s, x in zip(scale, v, strict=True)])
        return [s * x for s, x in zip(scale, scaled, strict=True)]

    return own


def _signs(key: Array, params: Leaves) -> Leaves:
    keys = jax.random.split(key, len(params))
    return [jax.random.rademacher(k, p.shape, p.dtype) for k, p in zip(keys, params, strict=True)]
