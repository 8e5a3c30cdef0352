"""How many lobes a closed curve has: a small convolutional net with batch norm on generated images. See README.md."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timetrial.workloads.lobes.data import DATASET, SIDE
from timetrial.workloads.lobes.model import CLASSES, LobesNet

from timetrial.workload import Array, Batch, Field, PyTree, Workload, describe_params, row_weights

FIELDS = {"image": Field((SIDE, SIDE, 3), np.uint8, below=256), "label": Field((), np.int32, below=CLASSES)}
AXES: Mapping[str, tuple[Any, ...]] = {
    "activation": ("relu", "gelu", "tanh"),
    "norm": ("batch", "group"),
    "width": (16, 12, 20),
    "depth": (7, 6, 9),
    "init_scale": (1.0, 3.0),
    "norm_scale": (1.0, 4.0),
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "lobes_tanh": {"activation": "tanh"},
    "lobes_large_norm_init": {"norm_scale": 4.0},
}


def loss(outputs: Array, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Array, Array]:
    """Cross-entropy of each row, in nats; a row is one term."""
    targets = optax.smooth_labels(jax.nn.one_hot(batch["label"], CLASSES), label_smoothing)
    losses = optax.softmax_cross_entropy(outputs, targets)
    return losses, jnp.ones_like(losses)


def finalize(accumulated: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means over a split: the cross-entropy in nats, and the share of rows whose likeliest class is not the label."""
    rows = accumulated["rows"]
    return {"loss": float(accumulated["loss"] / rows), "error_rate": float(accumulated["wrong"] / rows)}


def build(model: LobesNet) -> Workload:
    """The workload of this model."""

    def init(key: Array) -> tuple[PyTree, PyTree]:
        variables = model.init(key, jnp.zeros((1, *FIELDS["image"].shape), jnp.uint8), None, train=False)
        return variables["params"], variables.get("batch_stats", {})

    def apply(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
    ) -> tuple[Array, PyTree]:
        """Logits, float32 (B, 8). In training the statistics of batch norm are those of the rows of non-zero weight."""
        del key, dropout_rate  # nothing here is random
        variables = {"params": params, "batch_stats": model_state}
        if not train:
            return model.apply(variables, batch["image"], None, train=False), model_state
        valid = batch["weights"] > 0 if "weights" in batch else None
        logits, updated = model.apply(variables, batch["image"], valid, train=True, mutable=["batch_stats"])
        return logits, updated["batch_stats"]

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        """Sums over the rows that count."""
        logits, _ = apply(params, model_state, batch, jax.random.key(0), train=False)
        losses, _ = loss(logits, batch)
        weights = row_weights(batch, logits.shape[0])
        wrong = jnp.argmax(logits, axis=-1) != batch["label"]
        return {"loss": jnp.sum(losses * weights), "wrong": jnp.sum(wrong * weights), "rows": jnp.sum(weights)}

    return Workload(
        name="lobes",
        task="count the lobes of a textured closed curve on clutter, from 2 to 9",
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
        param_info=_param_info(jax.eval_shape(init, jax.random.key(0))[0], model.depth),
        default_batch_size=64,
        max_batch_size=8192,
        eval_batch_size=512,
        rows_coupled=model.norm == "batch",
        has_label_smoothing=True,
    )


def _param_info(params: PyTree, layers: int) -> PyTree:
    """Depth counts the convolutions; a norm has the depth of the convolution that it follows."""
    rules: list[tuple[str, dict[str, Any]]] = []
    for depth in range(layers):
        rules += [
            (f"conv_{depth}/kernel", {"kind": "conv", "in_axes": (0, 1, 2), "out_axes": (3,), "depth": depth}),
            (f"norm_{depth}/scale", {"kind": "norm_scale", "out_axes": (0,), "depth": depth}),
            (f"norm_{depth}/bias", {"kind": "norm_bias", "out_axes": (0,), "depth": depth}),
        ]
    rules += [
        ("head/kernel", {"kind": "output_head", "in_axes": (0,), "out_axes": (1,), "depth": layers}),
        ("head/bias", {"kind": "bias", "out_axes": (0,), "depth": layers}),
    ]
    return describe_params(params, rules)


MODEL = LobesNet()
WORKLOAD = build(MODEL)
