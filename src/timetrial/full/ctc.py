"""CTC's loss, arranged for a GPU (Graves et al. 2006, section 4.1).

On a GPU a loop over frames is bound by the kernels that it launches, so few are left in it: all that does not depend on
the frame before is computed ahead, paths are summed from their start and from their end at once until they meet
halfway, a turn takes several steps, and the pass back gets one array a step. All is plain XLA, and has derivatives of
any order.

Shapes: B rows, S frames, V classes, N labels, P = 2 N + 1 places (a path's labels, with blanks before, between and
behind them), Z = 2 directions.
"""

from functools import partial, reduce

import jax
import jax.numpy as jnp

from timetrial.workload import Array

BLANK = 0
"""The class of a frame that says nothing, such as between a label and the same label again."""
_NEVER = -1e5
"""The logarithm of 0, as optax has it: rows whose labels do not fit have a finite loss and gradient."""
_STEPS_A_TURN = 4


def ctc_loss(logits_bsv: Array, heard_bs: Array, labels_bn: Array, said_bn: Array) -> Array:
    """The negative log-likelihood of each row's labels, in nats (B,).

    `heard_bs` and `said_bn` (bool) tell which frames and labels count; a row's labels come before their padding.
    Labels that do not fit into the frames cost about 1e5, and no labels in no frames cost 0.
    """
    frames = heard_bs.shape[1]
    steps = -(-frames // (2 * _STEPS_A_TURN)) * _STEPS_A_TURN

    def from_both_ends(x_sbp: Array) -> Array:
        """To the middle: (steps, Z, B, P), in the order of the steps and of the places that they come to."""
        padded_sbp = jnp.pad(x_sbp, [(0, 2 * steps - frames), (0, 0), (0, 0)])
        return jnp.stack([padded_sbp[:steps], jnp.flip(padded_sbp[steps:], axis=(0, 2))], axis=1)

    # no blank is needed between labels, unless they are the same; nothing lies behind the places that a roll wraps
    skips_bn = jnp.where(labels_bn == jnp.roll(labels_bn, 1, axis=1), _NEVER, 0.0)
    skips_bp = jax.lax.pad(skips_bn, _NEVER, [(0, 0, 0), (1, 1, 1)])
    skips_zbp = jnp.stack([skips_bp, jnp.roll(skips_bp[:, ::-1], 2, axis=1)])

    @partial(jax.checkpoint, prevent_cse=False)
    def step(paths_zbp: Array, frame: tuple[Array, Array]) -> tuple[Array, None]:
        log_p_zbp, heard_zbx = frame
        return jnp.where(heard_zbx, _moved(paths_zbp, skips_zbp) + log_p_zbp, paths_zbp), None

    place, last_b = jnp.arange(skips_bp.shape[1]), 2 * jnp.sum(said_bn, axis=1)
    first_zbp = jnp.stack([jnp.broadcast_to(place == 0, skips_bp.shape), place[::-1] == last_b[:, None]])
    frames_szb = from_both_ends(_log_p_of_places(logits_bsv, labels_bn)), from_both_ends(heard_bs.T[..., None])
    paths_zbp = jnp.where(first_zbp, jnp.zeros(()), _NEVER)
    paths_zbp, _ = jax.lax.scan(step, paths_zbp, frames_szb, unroll=_STEPS_A_TURN)
    met_bp = paths_zbp[0] + _moved(paths_zbp[1], skips_zbp[1])[:, ::-1]
    return -jax.nn.logsumexp(met_bp, axis=1)


def _log_p_of_places(logits_bsv: Array, labels_bn: Array) -> Array:
    """Log-probabilities of the places' classes (S, B, P), gathered by a product: so is their derivative, no scatter."""
    classes_bnv = jax.nn.one_hot(labels_bn, logits_bsv.shape[2])
    labels_sbn = jnp.einsum("bsv,bnv->sbn", logits_bsv, classes_bnv, precision="highest")
    labels_sbp = jax.lax.pad(labels_sbn, 0.0, [(0, 0, 0), (0, 0, 0), (1, 1, 1)])
    blanks_sbx = logits_bsv[:, :, BLANK, None].swapaxes(0, 1)
    sums_sbx = jax.nn.logsumexp(logits_bsv, axis=2, keepdims=True).swapaxes(0, 1)
    return jnp.where(jnp.arange(labels_sbp.shape[2]) % 2 == 1, labels_sbp, blanks_sbx) - sums_sbx


def _moved(paths: Array, skips: Array) -> Array:
    """Log-probabilities (..., P) after staying, going on by a place, or by two at the cost of `skips`."""

    def behind(places: int) -> Array:
        return jnp.pad(paths[..., :-places], [*[(0, 0)] * (paths.ndim - 1), (places, 0)], constant_values=_NEVER)

    ways = paths, behind(1), behind(2) + skips
    most = jax.lax.stop_gradient(reduce(jnp.maximum, ways))
    return most + jnp.log(sum(jnp.exp(way - most) for way in ways))
