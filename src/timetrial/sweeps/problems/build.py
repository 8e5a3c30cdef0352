"""From what differs between small problems to a workload: no model state, sums of rows' numbers, data in memory."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.data import Arrays, InMemory, hash_splits
from timetrial.workload import Array, Batch, Field, Kind, ParamInfo, PyTree, Workload, row_weights

EVAL_ROWS = 512


def small_workload(
    name: str,
    *,
    task: str,
    init: Callable[[Array], PyTree],
    apply: Callable[[PyTree, Batch, Array, bool], PyTree],
    loss: Callable[[PyTree, Batch], Array],
    splits: Mapping[str, Arrays],
    loss_type: Literal["softmax_cross_entropy", "sigmoid_cross_entropy", "function_value"],
    terms: float = 1.0,
    wrong: Callable[[PyTree, Batch], Array] | None = None,
    batch_size: int,
    licence: str = "CC0",
    citation: str = "",
) -> Workload:
    """The workload of a small problem.

    Args:
        name: the problem's.
        task: what is learnt, for people.
        init: key -> params.
        apply: (params, batch, key, train) -> outputs.
        loss: (outputs, batch) -> losses of the rows, (B,), each summed over its terms.
        splits: the rows of `train`, `valid` and `test`, by field.
        loss_type: what a submission is told.
        terms: the number of terms of a row.
        wrong: (outputs, batch) -> 1 where a row's answer is wrong; the metric is then `error_rate`, else `loss`.
        batch_size: rows of a step.
        licence: of the data.
        citation: of the data.
    """

    def losses(outputs: PyTree, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Array, Array]:
        del label_smoothing
        found = loss(outputs, batch)
        return found, jnp.full(found.shape, terms, jnp.float32)

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        del model_state
        outputs = apply(params, batch, jax.random.key(0), False)
        found, number = losses(outputs, batch)
        weights = row_weights(batch, found.shape[0])
        sums = {"loss": jnp.sum(found * weights), "terms": jnp.sum(number * weights)}
        return sums if wrong is None else {**sums, "wrong": jnp.sum(wrong(outputs, batch) * weights)}

    def finalize(accumulated: Mapping[str, np.ndarray]) -> dict[str, float]:
        means = {"loss": float(accumulated["loss"] / accumulated["terms"])}
        if "wrong" in accumulated:
            means["error_rate"] = float(accumulated["wrong"] / accumulated["terms"])
        return means

    def apply_stateless(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
    ) -> tuple[PyTree, PyTree]:
        del dropout_rate
        return apply(params, batch, key, train), model_state

    shapes = jax.eval_shape(init, jax.random.key(0))
    return Workload(
        name=name,
        task=task,
        init=lambda key: (init(key), {}),
        apply=apply_stateless,
        loss=losses,
        evaluate=evaluate,
        finalize=finalize,
        data=InMemory(
            name=name,
            version="1.0.0",
            generate=lambda: splits,
            sha256=hash_splits(splits),
            packages={},
            licence=licence,
            citation=citation,
        ),
        train_eval_rows=min(EVAL_ROWS, _rows(splits["train"])),
        fields={field: _field(array) for field, array in splits["train"].items()},
        loss_type=loss_type,
        metric="loss" if wrong is None else "error_rate",
        better="lower",
        param_info=jax.tree.map(_info, shapes),
        default_batch_size=batch_size,
        max_batch_size=8 * batch_size,
        eval_batch_size=min(EVAL_ROWS, max(_rows(splits["valid"]), _rows(splits["test"]))),
    )


def _rows(arrays: Arrays) -> int:
    return len(next(iter(arrays.values())))


def _field(array: np.ndarray) -> Field:
    below = int(array.max()) + 1 if np.issubdtype(array.dtype, np.integer) else None
    return Field(array.shape[1:], array.dtype, below)


def _info(leaf: jax.ShapeDtypeStruct) -> ParamInfo:
    kind: Kind = "bias" if leaf.ndim < 2 else "weight"
    ins, outs = ((), (0,)) if leaf.ndim < 2 else ((0,), (1,))
    return ParamInfo(kind=kind, shape=tuple(leaf.shape), in_axes=ins, out_axes=outs if leaf.ndim else ())


def dense_init(key: Array, widths: tuple[int, ...]) -> list[dict[str, Array]]:
    """Layers from each width to the next: kernels normal with variance 1 / inputs, biases 0."""
    keys = jax.random.split(key, len(widths) - 1)
    return [
        {"kernel": jax.random.normal(k, (i, o)) / np.sqrt(i), "bias": jnp.zeros(o)}
        for k, i, o in zip(keys, widths[:-1], widths[1:], strict=True)
    ]


def dense(layer: Mapping[str, Array], x: Array) -> Array:
    return x @ layer["kernel"] + layer["bias"]


def mlp(layers: list[dict[str, Array]], x: Array) -> Array:
    """ReLU between layers, and none after the last."""
    for layer in layers[:-1]:
        x = jax.nn.relu(dense(layer, x))
    return dense(layers[-1], x)
