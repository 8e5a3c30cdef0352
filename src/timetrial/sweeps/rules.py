"""Update rules that optax lacks, from their papers. Every number of theirs may be traced."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from timetrial.workload import Array, PyTree


class BoundState(NamedTuple):
    steps: Array
    mean: PyTree
    square: PyTree
    largest: PyTree
    """The largest `square` so far, element by element."""


def bounded_adam(
    learning_rate: Any, b1: Any, b2: Any, final_rate: Any, gamma: Any, *, eps: float, amsgrad: bool
) -> optax.GradientTransformation:
    """AdaBound, and AMSBound with `amsgrad` (Luo et al. 2019, algorithms 2 and 3; updates include the rate).

    Adam whose elementwise rate is clipped between final_rate (1 - 1/(gamma t + 1)) and final_rate (1 + 1/(gamma t)),
    which close in on SGD's. As in the authors' program, the moments are debiased as Adam's are (the debiasing of the
    mean is clipped along with the rate) and rates do not decay with the root of t.
    """

    def init(params: PyTree) -> BoundState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return BoundState(jnp.zeros((), jnp.int32), zeros, zeros, zeros)

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, BoundState]:
        del params
        steps = state.steps + 1
        t = steps.astype(jnp.float32)
        mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mean, updates)
        square = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.square, updates)
        largest = jax.tree.map(jnp.maximum, state.largest, square)
        rate = learning_rate * jnp.sqrt(1 - b2**t) / (1 - b1**t)
        lower, upper = final_rate * (1 - 1 / (gamma * t + 1)), final_rate * (1 + 1 / (gamma * t))
        updates = jax.tree.map(
            lambda m, v: -jnp.clip(rate / (jnp.sqrt(v) + eps), lower, upper) * m, mean, largest if amsgrad else square
        )
        return updates, BoundState(steps, mean, square, largest)

    return optax.GradientTransformation(init, update)


class LookaheadState(NamedTuple):
    steps: Array
    inner: PyTree
    slow: PyTree
    """The slow weights; the parameters are the fast ones."""


def lookahead(inner: optax.GradientTransformation, period: Any, slow_rate: Any) -> optax.GradientTransformation:
    """Lookahead around any optimizer (Zhang et al. 2019, algorithm 1): the parameters are the fast weights.

    After each `period` steps of `inner` the slow weights go `slow_rate` of the way to the fast ones, which go on from
    there; the inner state is kept. (`optax.lookahead` wants pairs of parameters, and a period that is not traced.)
    """

    def init(params: PyTree) -> LookaheadState:
        return LookaheadState(jnp.zeros((), jnp.int32), inner.init(params), params)

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, LookaheadState]:
        updates, inner_state = inner.update(updates, state.inner, params)
        steps = state.steps + 1
        meets = steps % period == 0
        fast = optax.apply_updates(params, updates)
        met = jax.tree.map(lambda s, f: s + slow_rate * (f - s), state.slow, fast)
        slow = jax.tree.map(lambda m, s: jnp.where(meets, m, s), met, state.slow)
        updates = jax.tree.map(lambda m, p, u: jnp.where(meets, m - p, u), met, params, updates)
        return updates, LookaheadState(steps, inner_state, slow)

    return optax.GradientTransformation(init, update)
