"""Beam search for the sequence that a model finds likeliest, with a length penalty (Wu et al. 2016, arXiv:1609.08144).

Shapes: B rows, K beams (C = 2 K candidates), T symbols of a sequence, V symbols to choose from.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from timetrial.workload import Array, PyTree

Step = Callable[[Array, PyTree, Array], tuple[Array, PyTree]]
"""From the symbols at t, int32 (B * K,), what is kept of those before, and t: logits (B * K, V) of the symbols at
t + 1, and what is to be kept. Leaves of what is kept have B * K rows."""


class _Beams(NamedTuple):
    t: Array
    alive: Array
    """Int32 (B, K, T + 1), the likeliest first, behind the start symbol."""
    log_p: Array
    """Of each that is alive."""
    ended: Array
    """Int32 (B, K, T + 1), the best first."""
    score: Array
    """Of each that has ended; minus infinity where none has."""
    kept: PyTree


def beam_search(
    step: Step, kept: PyTree, *, rows: int, beams: int, length: int, start: int, end: int, alpha: float
) -> Array:
    """The best sequence of each row, int32 (B, length), with its `end` and zeros behind it.

    A sequence's score is its log probability over ((5 + n) / 6) ** alpha, n the number of its symbols. Where none
    ended within `length`, it is the likeliest of those that did not.
    """
    nothing = jnp.full((rows, beams, length + 1), 0).at[:, :, 0].set(start)
    none = jnp.full((rows, beams), -jnp.inf)
    first = _Beams(jnp.int32(0), nothing, none.at[:, 0].set(0.0), nothing, none, kept)

    def penalty(n: Any) -> Any:
        return ((5 + n) / 6) ** alpha

    def can_improve(now: _Beams) -> Array:
        hope = now.log_p[:, 0] / penalty(length)
        return (now.t < length) & ~jnp.all(now.score[:, -1] > hope)

    def extended(now: _Beams) -> _Beams:
        logits, kept = step(now.alive[:, :, now.t].reshape(-1), now.kept, now.t)
        log_p_bkv = now.log_p[..., None] + jax.nn.log_softmax(logits).reshape(rows, beams, -1)
        log_p_bc, place_bc = jax.lax.top_k(log_p_bkv.reshape(rows, -1), 2 * beams)
        from_bc, symbol_bc = jnp.divmod(place_bc, log_p_bkv.shape[-1])
        sequences = _take(now.alive, from_bc).at[:, :, now.t + 1].set(symbol_bc)
        ends_bc = symbol_bc == end

        log_p, going_on = jax.lax.top_k(jnp.where(ends_bc, -jnp.inf, log_p_bc), beams)
        source = (jnp.arange(rows)[:, None] * beams + _take(from_bc, going_on)).reshape(-1)
        scores = jnp.concatenate([now.score, jnp.where(ends_bc, log_p_bc / penalty(now.t + 1), -jnp.inf)], axis=1)
        score, best = jax.lax.top_k(scores, beams)
        return _Beams(
            t=now.t + 1,
            alive=_take(sequences, going_on),
            log_p=log_p,
            ended=_take(jnp.concatenate([now.ended, sequences], axis=1), best),
            score=score,
            kept=jax.tree.map(lambda leaf: leaf[source], kept),
        )

    last = jax.lax.while_loop(can_improve, extended, first)
    some_ended = jnp.isfinite(last.score[:, :1])
    return jnp.where(some_ended, last.ended[:, 0], last.alive[:, 0])[:, 1:]


def _take(x: Array, places_bk: Array) -> Array:
    """Of each row of (B, C, …) the entries at its places: (B, K, …)."""
    return x[jnp.arange(len(x))[:, None], places_bk]
