"""The next character of the King James Bible: a small decoder-only transformer. See README.md."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timetrial.workloads.characters.data import ALPHABET, CONTEXT, DATASET
from timetrial.workloads.characters.model import LAYERS, Transformer

from timetrial.workload import Array, Batch, Field, PyTree, Workload, describe_params, row_weights

FIELDS = {"text": Field((CONTEXT + 1,), np.uint8, below=len(ALPHABET))}
DROPOUT_RATE = 0.0
"""Where a submission asks for no other rate. No run of the track's length sees a character often enough to need one."""
_MODEL = Transformer(len(ALPHABET), CONTEXT)


def init(key: Array) -> tuple[PyTree, PyTree]:
    return _MODEL.init(key, jnp.zeros((1, CONTEXT), jnp.uint8))["params"], {}


def apply(
    params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
) -> tuple[Array, PyTree]:
    """Logits of a row's characters 1 to CONTEXT, each from those before it: float32 (B, CONTEXT, symbols)."""
    rate = (DROPOUT_RATE if dropout_rate is None else dropout_rate) if train else 0.0
    logits = _MODEL.apply({"params": params}, batch["text"][:, :-1], dropout_rate=rate, key=key)
    return logits, model_state


def loss(outputs: Array, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Array, Array]:
    """Cross-entropy in nats summed over a row's characters, and their number.

    With label smoothing s the true symbol has probability 1 - s + s / symbols and each other one s / symbols.
    """
    targets_bt = batch["text"][:, 1:].astype(jnp.int32)
    log_p_btv = jax.nn.log_softmax(outputs)
    right_bt = jnp.take_along_axis(log_p_btv, targets_bt[..., None], axis=-1)[..., 0]
    losses_bt = -(1 - label_smoothing) * right_bt - label_smoothing * jnp.mean(log_p_btv, axis=-1)
    return jnp.sum(losses_bt, axis=1), jnp.full(targets_bt.shape[:1], float(targets_bt.shape[1]), jnp.float32)


def evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
    """Sums over the rows that count."""
    logits, _ = apply(params, model_state, batch, jax.random.key(0), train=False)
    losses, characters = loss(logits, batch)
    weights = row_weights(batch, logits.shape[0])
    return {"loss": jnp.sum(losses * weights), "characters": jnp.sum(characters * weights)}


def finalize(accumulated: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Of the mean cross-entropy per character: nats (`loss`), bits, and its exponential, the perplexity."""
    nats = float(accumulated["loss"] / accumulated["characters"])
    return {"loss": nats, "bits_per_character": nats / math.log(2), "perplexity": float(np.exp(nats))}


def _param_info() -> PyTree:
    """Depth counts the layers from the input: embeddings, then two of attention and two of the MLP in each block."""

    def dense(path: str, kind: str, depth: int) -> tuple[str, dict[str, Any]]:
        return f"{path}/kernel", {"kind": kind, "in_axes": (0,), "out_axes": (1,), "depth": depth}

    def vector(path: str, kind: str, depth: int) -> tuple[str, dict[str, Any]]:
        return path, {"kind": kind, "out_axes": (0,), "depth": depth}

    def norm(path: str, depth: int) -> list[tuple[str, dict[str, Any]]]:
        return [vector(f"{path}/scale", "norm_scale", depth), vector(f"{path}/bias", "norm_bias", depth)]

    table = {"kind": "embedding", "in_axes": (0,), "out_axes": (1,)}
    rules: list[tuple[str, Mapping[str, Any]]] = [("position", table), ("embedding/embedding", table)]
    for i in range(LAYERS):
        first = 1 + 4 * i
        rules += norm(f"norm_attention_{i}", first)
        rules += [dense(f"attention_{i}/{name}", f"attention_{name[0]}", first) for name in ("query", "key", "value")]
        rules.append(dense(f"attention_{i}/out", "attention_out", first + 1))
        rules += norm(f"norm_mlp_{i}", first + 2)
        for name, depth in ((f"mlp_in_{i}", first + 2), (f"mlp_out_{i}", first + 3)):
            rules += [dense(name, "weight", depth), vector(f"{name}/bias", "bias", depth)]
    last = 1 + 4 * LAYERS
    rules += [*norm("norm_out", last), dense("head", "output_head", last)]
    return describe_params(jax.eval_shape(lambda: init(jax.random.key(0))[0]), rules)


WORKLOAD = Workload(
    name="characters",
    task="predict the next character of an English text",
    init=init,
    apply=apply,
    loss=loss,
    evaluate=evaluate,
    finalize=finalize,
    data=DATASET,
    train_eval_rows=256,
    fields=FIELDS,
    loss_type="softmax_cross_entropy",
    metric="bits_per_character",
    better="lower",
    param_info=_param_info(),
    default_batch_size=16,
    max_batch_size=4096,
    eval_batch_size=128,
    has_dropout=True,
    has_label_smoothing=True,
)
