"""A small workload for checks alone, made in code: it has every setting that a submission can ask for.

Tokens are embedded, joined with numbers, and classified by a net with batch norm and dropout.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from timetrial.data import InMemory
from timetrial.workload import Array, Batch, Field, PyTree, Workload, describe_params, dropout, row_weights

_TOKENS, _DIM, _NUMBERS, _WIDTH, _CLASSES = 11, 6, 9, 24, 5
_DROPOUT = 0.1


def canary() -> Workload:
    """The workload; its data are noise."""
    return Workload(
        name="canary",
        task="classify noise",
        init=_init,
        apply=_apply,
        loss=_loss,
        evaluate=_evaluate,
        finalize=_finalize,
        data=InMemory(
            name="canary", version="1.0.0", generate=dict, sha256="", packages={}, licence="CC0-1.0", citation=""
        ),
        train_eval_rows=16,
        fields={
            "token": Field((), np.int32, below=_TOKENS),
            "x": Field((_NUMBERS,), np.float32),
            "label": Field((), np.int32, below=_CLASSES),
        },
        loss_type="softmax_cross_entropy",
        metric="error_rate",
        better="lower",
        param_info=describe_params(jax.eval_shape(_init, jax.random.key(0))[0], _RULES),
        default_batch_size=32,
        max_batch_size=256,
        eval_batch_size=64,
        rows_coupled=True,
        has_dropout=True,
        has_label_smoothing=True,
    )


_RULES: list[tuple[str, dict[str, Any]]] = [
    ("embedding", {"kind": "embedding", "out_axes": (1,)}),
    ("hidden/kernel", {"kind": "weight", "in_axes": (0,), "out_axes": (1,), "depth": 1}),
    ("hidden/bias", {"kind": "bias", "out_axes": (0,), "depth": 1}),
    ("norm/scale", {"kind": "norm_scale", "out_axes": (0,), "depth": 1}),
    ("norm/bias", {"kind": "norm_bias", "out_axes": (0,), "depth": 1}),
    ("head/kernel", {"kind": "output_head", "in_axes": (0,), "out_axes": (1,), "depth": 2}),
    ("head/bias", {"kind": "bias", "out_axes": (0,), "depth": 2}),
]


def _init(key: Array) -> tuple[PyTree, PyTree]:
    embedding, hidden, head = jax.random.split(key, 3)
    inputs = _DIM + _NUMBERS
    params = {
        "embedding": jax.random.normal(embedding, (_TOKENS, _DIM)),
        "hidden": {"kernel": jax.random.normal(hidden, (inputs, _WIDTH)) / inputs**0.5, "bias": jnp.zeros(_WIDTH)},
        "norm": {"scale": jnp.ones(_WIDTH), "bias": jnp.zeros(_WIDTH)},
        "head": {"kernel": jax.random.normal(head, (_WIDTH, _CLASSES)) / _WIDTH**0.5, "bias": jnp.zeros(_CLASSES)},
    }
    return params, {"mean": jnp.zeros(_WIDTH), "variance": jnp.ones(_WIDTH)}


def _apply(
    params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
) -> tuple[Array, PyTree]:
    """Logits, float32 (B, 5). In training the statistics of batch norm are those of the rows of non-zero weight."""
    x = jnp.concatenate([params["embedding"][batch["token"]], batch["x"]], axis=1)
    x = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    used = model_state
    if train:
        weights = row_weights(batch, x.shape[0])
        mean = jnp.average(x, axis=0, weights=weights)
        used = {"mean": mean, "variance": jnp.average((x - mean) ** 2, axis=0, weights=weights)}
        model_state = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, model_state, used)
    x = (x - used["mean"]) / jnp.sqrt(used["variance"] + 1e-3)
    x = x * params["norm"]["scale"] + params["norm"]["bias"]
    if train:
        x = dropout(x, _DROPOUT if dropout_rate is None else dropout_rate, key)
    return x @ params["head"]["kernel"] + params["head"]["bias"], model_state


def _loss(outputs: Array, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Array, Array]:
    targets = optax.smooth_labels(jax.nn.one_hot(batch["label"], _CLASSES), label_smoothing)
    losses = optax.softmax_cross_entropy(outputs, targets)
    return losses, jnp.ones_like(losses)


def _evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
    logits, _ = _apply(params, model_state, batch, jax.random.key(0), train=False)
    losses, _ = _loss(logits, batch)
    weights = row_weights(batch, losses.shape[0])
    wrong = jnp.argmax(logits, axis=1) != batch["label"]
    return {"loss": jnp.sum(losses * weights), "wrong": jnp.sum(wrong * weights), "rows": jnp.sum(weights)}


def _finalize(accumulated: Mapping[str, np.ndarray]) -> dict[str, float]:
    rows = accumulated["rows"]
    return {"loss": float(accumulated["loss"] / rows), "error_rate": float(accumulated["wrong"] / rows)}
