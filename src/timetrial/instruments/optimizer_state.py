"""What an optimizer's state says of itself: injected hyperparameters, and running means of squared gradients."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from timetrial.submission import Leaves
from timetrial.workload import Array, PyTree

SECOND_MOMENTS = ("nu", "sum_of_squares")
"""What optax calls them, in the states of Adam, RMSProp, AdaGrad and their kin."""
_INJECTED = "hyperparams"
"""What `optax.inject_hyperparams` calls the mapping in its state."""
_EPSILON = 1e-8


class StateReader:
    """Finds things in states that all have the structure of `like`, by their names."""

    def __init__(self, like: PyTree, params: Leaves) -> None:
        self._injected: dict[str, int] = {}
        moments: dict[tuple[Any, ...], list[int]] = {}
        leaves = jax.tree_util.tree_leaves_with_path(like)
        for i, (path, leaf) in enumerate(leaves):
            names = [str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", "")))) for key in path]
            if len(names) > 1 and names[-2] == _INJECTED and leaf.shape == ():
                self._injected[names[-1]] = i
            for depth, name in enumerate(names):
                if name in SECOND_MOMENTS:
                    moments.setdefault(tuple(path[: depth + 1]), []).append(i)
        shapes = [p.shape for p in params]
        fitting = [found for found in moments.values() if [leaves[i][1].shape for i in found] == shapes]
        self._second_moments: Sequence[int] | None = fitting[0] if len(fitting) == 1 else None

    @property
    def has_second_moments(self) -> bool:
        """Whether exactly one list of arrays like the parameters is named as one of `SECOND_MOMENTS`."""
        return self._second_moments is not None

    def second_moments(self, state: PyTree) -> Leaves:
        assert self._second_moments is not None
        leaves = jax.tree.leaves(state)
        return [leaves[i] for i in self._second_moments]

    def hyperparameters(self, state: PyTree) -> Mapping[str, Array]:
        leaves = jax.tree.leaves(state)
        return {name: leaves[i] for name, i in self._injected.items()}


def inverse_root(before: Leaves, after: Leaves, step: Array) -> Leaves:
    """P^(-1/2) for the preconditioner P = sqrt(v) + 1e-8 of the step that led from one second moment to the other.

    v is `after`, debiased as Adam's (Kingma and Ba 2015, section 3) for `step` steps. The decay that this takes, which
    no state names, is the least ratio of the new value to the old: an element whose gradient is 0, or small, shows it.
    A sum, whose ratios are 1 or more, is not debiased. All NaN at the first step, where there is no ratio.
    """
    ratios = [jnp.min(jnp.where(b > 0, a / b, jnp.inf)) for b, a in zip(before, after, strict=True) if b.size]
    decay = jnp.min(jnp.stack(ratios))
    debias = jnp.where(decay < 1 - 1e-6, 1 - decay**step, 1.0)
    debias = jnp.where(jnp.isfinite(decay), debias, jnp.nan)
    return [1 / jnp.sqrt(jnp.sqrt(v / debias) + _EPSILON) for v in after]
