"""The next piece of a word in books of the King James Bible: a small decoder-only transformer. See README.md."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timetrial.workloads.scripture.data import CONTEXT, DATASET, VOCABULARY
from timetrial.workloads.scripture.model import Transformer

from timetrial.workload import Array, Batch, Field, PyTree, Workload, describe_params, row_weights

FIELDS = {
    "pieces": Field((CONTEXT + 1,), np.uint16, below=VOCABULARY),
    "characters": Field((), np.uint16, below=8 * CONTEXT),
}
AXES: Mapping[str, tuple[Any, ...]] = {
    "activation": ("gelu", "relu", "swiglu"),
    "norm": ("layer", "rms", "post"),
    "width": (96, 64, 112),
    "depth": (2, 1, 3),
    "init_scale": (1.0, 0.3, 2.0),
    "attention_scale": (1.0, 0.5, 3.0),
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "scripture_post_norm": {"norm": "post"},
    "scripture_deep_relu": {"activation": "relu", "depth": 3, "init_scale": 0.3},
}
DROPOUT_RATE = 0.0
"""Where a submission asks for no other rate. No run of the track's length sees a piece often enough to need one."""


def loss(outputs: Array, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Array, Array]:
    """Cross-entropy in nats summed over a row's pieces, and their number.

    With label smoothing s the true piece has probability 1 - s + s / pieces and each other one s / pieces.
    """
    targets_bt = batch["pieces"][:, 1:].astype(jnp.int32)
    normaliser_bt = jax.nn.logsumexp(outputs, axis=-1)
    right_bt = jnp.take_along_axis(outputs, targets_bt[..., None], axis=-1)[..., 0]
    smoothed_bt = right_bt + label_smoothing * (jnp.mean(outputs, axis=-1) - right_bt)
    losses_bt = normaliser_bt - smoothed_bt
    return jnp.sum(losses_bt, axis=1), jnp.full(targets_bt.shape[:1], float(targets_bt.shape[1]), jnp.float32)


def finalize(accumulated: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean cross-entropy per piece in nats (`loss`), its exponential, and the bits that a character takes."""
    nats = float(accumulated["loss"] / accumulated["pieces"])
    bits = float(accumulated["loss"] / accumulated["characters"]) / math.log(2)
    return {"loss": nats, "perplexity": float(np.exp(nats)), "bits_per_character": bits}


def build(model: Transformer) -> Workload:
    """The workload of this model."""

    def init(key: Array) -> tuple[PyTree, PyTree]:
        return model.init(key, jnp.zeros((1, CONTEXT), jnp.uint16))["params"], {}

    def apply(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
    ) -> tuple[Array, PyTree]:
        """Logits of a row's pieces 1 to CONTEXT, each from those before it: float32 (B, CONTEXT, VOCABULARY)."""
        rate = (DROPOUT_RATE if dropout_rate is None else dropout_rate) if train else 0.0
        logits = model.apply({"params": params}, batch["pieces"][:, :-1], dropout_rate=rate, key=key)
        return logits, model_state

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        """Sums over the rows that count."""
        logits, _ = apply(params, model_state, batch, jax.random.key(0), train=False)
        losses, pieces = loss(logits, batch)
        weights = row_weights(batch, logits.shape[0])
        sums = {"loss": losses, "pieces": pieces, "characters": batch["characters"]}
        return {name: jnp.sum(row * weights) for name, row in sums.items()}

    return Workload(
        name="scripture",
        task="predict the next piece of a word in an English text",
        init=init,
        apply=apply,
        loss=loss,
        evaluate=evaluate,
        finalize=finalize,
        data=DATASET,
        train_eval_rows=64,
        fields=FIELDS,
        loss_type="softmax_cross_entropy",
        metric="perplexity",
        better="lower",
        param_info=_param_info(jax.eval_shape(init, jax.random.key(0))[0], model),
        default_batch_size=8,
        max_batch_size=512,
        eval_batch_size=32,
        has_dropout=True,
        has_label_smoothing=True,
    )


def _param_info(params: PyTree, model: Transformer) -> PyTree:
    """Depth counts the layers from the input: embeddings, then two of attention and two of the MLP in each block."""

    def dense(path: str, kind: str, depth: int) -> tuple[str, dict[str, Any]]:
        return f"{path}/kernel", {"kind": kind, "in_axes": (0,), "out_axes": (1,), "depth": depth}

    def norm(path: str, depth: int) -> list[tuple[str, dict[str, Any]]]:
        parts = ("scale",) if model.norm == "rms" else ("scale", "bias")
        return [(f"{path}/{part}", {"kind": f"norm_{part}", "out_axes": (0,), "depth": depth}) for part in parts]

    table = {"kind": "embedding", "in_axes": (0,), "out_axes": (1,)}
    rules: list[tuple[str, Mapping[str, Any]]] = [("position", table), ("embedding/embedding", table)]
    after = model.norm == "post"
    for i in range(model.depth):
        first = 1 + 4 * i
        rules += norm(f"norm_attention_{i}", first + after)
        rules += [dense(f"attention_{i}/{name}", f"attention_{name[0]}", first) for name in ("query", "key", "value")]
        rules.append(dense(f"attention_{i}/out", "attention_out", first + 1))
        rules += norm(f"norm_mlp_{i}", first + 2 + after)
        inputs = ("gate", "in") if model.activation == "swiglu" else ("in",)
        rules += [dense(f"mlp_{i}/{name}", "weight", first + 2) for name in inputs]
        rules.append(dense(f"mlp_{i}/out", "weight", first + 3))
    last = 1 + 4 * model.depth
    rules += ([] if after else norm("norm_out", last)) + [dense("head", "output_head", last)]
    return describe_params(params, rules)


MODEL = Transformer(VOCABULARY, CONTEXT)
WORKLOAD = build(MODEL)
