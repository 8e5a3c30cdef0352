"""Which of ten kinds of clothes an image shows: a small vision transformer on Fashion-MNIST. See README.md."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timetrial.workloads.fashion.data import CLASSES, DATASET, SIDE
from timetrial.workloads.fashion.model import ViT

from timetrial.workload import Array, Batch, Field, PyTree, Workload, describe_params, row_weights

FIELDS = {"image": Field((SIDE, SIDE), np.uint8, below=256), "label": Field((), np.uint8, below=len(CLASSES))}
DROPOUT_RATE = 0.0
"""Where a submission asks for no other rate. No run of the track's length sees an image often enough to need one."""
AXES: Mapping[str, tuple[Any, ...]] = {
    "activation": ("gelu", "relu", "tanh"),
    "norm": ("layer", "rms", "post_layer"),
    "pooling": ("mean", "attention"),
    "width": (64, 48, 80),
    "depth": (3, 2, 4),
    "init_scale": (1.0, 0.5, 2.0),
    "temperature": (1.0, 0.25, 4.0),
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "fashion_post_norm": {"norm": "post_layer", "depth": 4},
    "fashion_tanh": {"activation": "tanh", "init_scale": 2.0, "pooling": "attention"},
}


def loss(outputs: Array, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Array, Array]:
    """Cross-entropy of each row, in nats; a row is one term."""
    targets = optax.smooth_labels(jax.nn.one_hot(batch["label"], len(CLASSES)), label_smoothing)
    losses = optax.softmax_cross_entropy(outputs, targets)
    return losses, jnp.ones_like(losses)


def finalize(accumulated: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means over a split: the cross-entropy in nats, and the share of rows whose likeliest class is not the label."""
    rows = accumulated["rows"]
    return {"loss": float(accumulated["loss"] / rows), "error_rate": float(accumulated["wrong"] / rows)}


def build(model: ViT) -> Workload:
    """The workload of this model."""

    def init(key: Array) -> tuple[PyTree, PyTree]:
        return model.init(key, jnp.zeros((1, *FIELDS["image"].shape), jnp.uint8))["params"], {}

    def apply(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
    ) -> tuple[Array, PyTree]:
        """Logits, float32 (B, 10)."""
        rate = (DROPOUT_RATE if dropout_rate is None else dropout_rate) if train else 0.0
        return model.apply({"params": params}, batch["image"], dropout_rate=rate, key=key), model_state

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        """Sums over the rows that count."""
        logits, _ = apply(params, model_state, batch, jax.random.key(0), train=False)
        losses, _ = loss(logits, batch)
        weights = row_weights(batch, logits.shape[0])
        wrong = jnp.argmax(logits, axis=-1) != batch["label"]
        return {"loss": jnp.sum(losses * weights), "wrong": jnp.sum(wrong * weights), "rows": jnp.sum(weights)}

    return Workload(
        name="fashion",
        task="tell which of ten kinds of clothes a small grey image shows",
        init=init,
        apply=apply,
        loss=loss,
        evaluate=evaluate,
        finalize=finalize,
        data=DATASET,
        train_eval_rows=1024,
        fields=FIELDS,
        loss_type="softmax_cross_entropy",
        metric="error_rate",
        better="lower",
        param_info=_param_info(jax.eval_shape(init, jax.random.key(0))[0], model),
        default_batch_size=64,
        max_batch_size=16384,
        eval_batch_size=512,
        has_dropout=True,
        has_label_smoothing=True,
    )


def _param_info(params: PyTree, model: ViT) -> PyTree:
    """Depth counts the layers from the input: the patches' embedding, then two of each attention and of each MLP."""

    def dense(path: str, kind: str, depth: int) -> tuple[str, dict[str, Any]]:
        return f"{path}/kernel", {"kind": kind, "in_axes": (0,), "out_axes": (1,), "depth": depth}

    def vector(path: str, kind: str, depth: int) -> tuple[str, dict[str, Any]]:
        return path, {"kind": kind, "out_axes": (0,), "depth": depth}

    def norm(path: str, depth: int) -> list[tuple[str, dict[str, Any]]]:
        scale, bias = vector(f"{path}/scale", "norm_scale", depth), vector(f"{path}/bias", "norm_bias", depth)
        return [scale] if model.norm == "rms" else [scale, bias]

    rules = [dense("embed", "weight", 0), vector("embed/bias", "bias", 0)]
    post = model.norm == "post_layer"
    for i in range(model.depth):
        first = 1 + 4 * i
        rules += [dense(f"attention_{i}/{name}", f"attention_{name[0]}", first) for name in ("query", "key", "value")]
        rules.append(dense(f"attention_{i}/out", "attention_out", first + 1))
        for name, depth in ((f"mlp_{i}/in", first + 2), (f"mlp_{i}/out", first + 3)):
            rules += [dense(name, "weight", depth), vector(f"{name}/bias", "bias", depth)]
        rules += [*norm(f"norm_{2 * i}", first + post), *norm(f"norm_{2 * i + 1}", first + 2 + post)]
    last = 1 + 4 * model.depth
    rules += [] if post else norm("norm_out", last)
    rules += [dense("pool", "weight", last)] if model.pooling == "attention" else []
    rules += [dense("head", "output_head", last), vector("head/bias", "bias", last)]
    return describe_params(params, rules)


MODEL = ViT()
WORKLOAD = build(MODEL)
