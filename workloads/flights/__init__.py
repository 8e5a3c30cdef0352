"""Which flights come late: a small DLRM on a joined table of 2013's flights from New York City. See README.md."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timetrial.workloads.flights.data import CATEGORICAL, DATASET, NUMERIC, VOCABULARY_SIZES
from timetrial.workloads.flights.model import DLRM

from timetrial.workload import Array, Batch, Field, PyTree, Workload, describe_params, row_weights

EMBEDDING_ROWS = sum(VOCABULARY_SIZES)
FIELDS = {
    "numeric": Field((len(NUMERIC),), np.float32),
    "categorical": Field((len(CATEGORICAL),), np.int32, below=EMBEDDING_ROWS),
    "label": Field((), np.uint8, below=2),
}
DROPOUT_RATE = 0.0
"""Of the hidden layers of the top MLP, where a submission asks for no other rate."""
AXES: Mapping[str, tuple[Any, ...]] = {
    "activation": ("relu", "gelu", "tanh"),
    "norm": ("none", "layer"),
    "width": (512, 384, 640),
    "depth": (3, 2, 4),
    "embedding_dim": (8, 4, 12),
    "embedding_scale": (1.0, 0.1, 3.0),
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "flights_layer_norm": {"norm": "layer"},
    "flights_embed_init": {"embedding_scale": 3.0},
}


def loss(outputs: Array, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Array, Array]:
    """Log loss of each row, in nats; a row is one term. There is no label smoothing."""
    del label_smoothing
    losses = optax.sigmoid_binary_cross_entropy(outputs, batch["label"].astype(jnp.float32))
    return losses, jnp.ones_like(losses)


def finalize(accumulated: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means over a split: log loss in nats (also as `loss`), and the share of rows called wrongly at even odds."""
    log_loss = float(accumulated["loss"] / accumulated["rows"])
    return {"loss": log_loss, "log_loss": log_loss, "error_rate": float(accumulated["wrong"] / accumulated["rows"])}


def build(model: DLRM) -> Workload:
    """The workload of this model."""

    def init(key: Array) -> tuple[PyTree, PyTree]:
        numeric, categorical = (
            jnp.zeros((1, *FIELDS[name].shape), FIELDS[name].dtype) for name in ("numeric", "categorical")
        )
        return model.init(key, numeric, categorical)["params"], {}

    def apply(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
    ) -> tuple[Array, PyTree]:
        """The log odds of being late, float32 (B,)."""
        rate = (DROPOUT_RATE if dropout_rate is None else dropout_rate) if train else 0.0
        logits = model.apply({"params": params}, batch["numeric"], batch["categorical"], dropout_rate=rate, key=key)
        return logits, model_state

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        """Sums over the rows that count."""
        logits, _ = apply(params, model_state, batch, jax.random.key(0), train=False)
        losses, _ = loss(logits, batch)
        weights = row_weights(batch, logits.shape[0])
        wrong = (logits > 0) != (batch["label"] > 0)
        return {"loss": jnp.sum(losses * weights), "wrong": jnp.sum(wrong * weights), "rows": jnp.sum(weights)}

    return Workload(
        name="flights",
        task="tell from what is known at departure whether a flight arrives more than 15 minutes late",
        init=init,
        apply=apply,
        loss=loss,
        evaluate=evaluate,
        finalize=finalize,
        data=DATASET,
        train_eval_rows=8192,
        fields=FIELDS,
        loss_type="sigmoid_cross_entropy",
        metric="log_loss",
        better="lower",
        param_info=_param_info(model, jax.eval_shape(init, jax.random.key(0))[0]),
        default_batch_size=512,
        max_batch_size=131072,
        eval_batch_size=8192,
        has_dropout=True,
    )


def _param_info(model: DLRM, params: PyTree) -> PyTree:
    """Depth counts the layers from the input: the embeddings join the bottom MLP's output, so they have its depth."""
    bottom, top = len(model.bottom_widths), len(model.top_widths)
    depths = {f"bottom_{i}": i for i in range(bottom)} | {f"top_{i}": bottom + i for i in range(top)}
    rules = [("embedding/embedding", {"kind": "embedding", "in_axes": (0,), "out_axes": (1,), "depth": bottom - 1})]
    for layer, depth in depths.items():
        vector = {"out_axes": (0,), "depth": depth}
        rules.append((f"{layer}/kernel", {"kind": "weight", "in_axes": (0,), "out_axes": (1,), "depth": depth}))
        rules.append((f"{layer}/bias", {"kind": "bias", **vector}))
        if model.norm == "layer":
            rules.append((f"{layer}_norm/scale", {"kind": "norm_scale", **vector}))
            rules.append((f"{layer}_norm/bias", {"kind": "norm_bias", **vector}))
    head = bottom + top
    rules.append(("head/kernel", {"kind": "output_head", "in_axes": (0,), "out_axes": (1,), "depth": head}))
    rules.append(("head/bias", {"kind": "bias", "out_axes": (0,), "depth": head}))
    return describe_params(params, rules)


MODEL = DLRM(EMBEDDING_ROWS)
WORKLOAD = build(MODEL)
