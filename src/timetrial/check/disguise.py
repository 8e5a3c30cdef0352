"""A workload in disguise: the same problem in parameters of other shapes and another order.

A method that does not know the workload trains both alike. One that recognises the workload, by its shapes, by how its
parameters stand in a row, does not recognise this one, and shows itself by training it otherwise.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.workload import Array, Batch, ParamInfo, PyTree, Workload


class Disguise(NamedTuple):
    """A workload whose parameters are stored otherwise, and the way back."""

    workload: Workload
    order: tuple[int, ...]
    """Which leaf of the original each leaf is."""

    def undo(self, leaves: list[np.ndarray]) -> list[np.ndarray]:
        """The original's leaves."""
        return _by_original(self.order, [_turned(leaf) for leaf in leaves])


def disguised(workload: Workload) -> Disguise:
    """Every array of the parameters has its axes in reverse, and the arrays come in another order under other names.

    The function that the parameters stand for, their initial values, the data and the keys stay what they are.
    """
    infos, structure = jax.tree.flatten(workload.param_info)
    order = tuple(map(int, np.random.RandomState(0).permutation(len(infos))))

    def hide(params: PyTree) -> PyTree:
        leaves = jax.tree.leaves(params)
        return {f"{i:05d}": _turned(leaves[original]) for i, original in enumerate(order)}

    def restore(hidden: PyTree) -> PyTree:
        return structure.unflatten(_by_original(order, [_turned(leaf) for leaf in jax.tree.leaves(hidden)]))

    def init(key: Array) -> tuple[PyTree, PyTree]:
        params, model_state = workload.init(key)
        return hide(params), model_state

    def apply(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
    ) -> tuple[PyTree, PyTree]:
        return workload.apply(restore(params), model_state, batch, key, train=train, dropout_rate=dropout_rate)

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> Mapping[str, Array]:
        return workload.evaluate(restore(params), model_state, batch)

    infos = {f"{i:05d}": _turned_info(infos[original]) for i, original in enumerate(order)}
    hidden = replace(workload, init=init, apply=apply, evaluate=evaluate, param_info=infos)
    return Disguise(hidden, order)


class Likeness(NamedTuple):
    """How one training run compares with another from the same start."""

    size: float
    """The norm of the second run's update, over that of the first."""
    cosine: float
    """Of the angle between the two updates."""


def likeness(initial: list[np.ndarray], first: list[np.ndarray], second: list[np.ndarray]) -> Likeness:
    """The likeness of two runs by all their parameters; two that went nowhere are alike."""
    moved = [
        np.concatenate([np.ravel(np.float64(b) - np.float64(a)) for a, b in zip(initial, end, strict=True)])
        for end in (first, second)
    ]
    sizes = [float(np.linalg.norm(update)) for update in moved]
    if not any(sizes):
        return Likeness(1.0, 1.0)
    product = sizes[0] * sizes[1]
    return Likeness(
        sizes[1] / sizes[0] if sizes[0] else np.inf, float(moved[0] @ moved[1]) / product if product else 0.0
    )


def _turned(leaf: Any) -> Any:
    return jnp.transpose(leaf) if isinstance(leaf, jax.Array) else np.transpose(leaf)


def _turned_info(info: ParamInfo) -> ParamInfo:
    def turned(axes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(len(info.shape) - 1 - axis for axis in axes))

    return replace(
        info,
        shape=info.shape[::-1],
        in_axes=turned(info.in_axes),
        out_axes=turned(info.out_axes),
        batch_axes=turned(info.batch_axes),
    )


def _by_original(order: tuple[int, ...], leaves: list[Any]) -> list[Any]:
    return [leaves[place] for place in np.argsort(order)]
