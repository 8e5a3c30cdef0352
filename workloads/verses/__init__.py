"""Middle English clauses into modern English: a small encoder-decoder transformer, scored by BLEU. See README.md."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sacrebleu.metrics.bleu import BLEU
from timetrial.workloads.verses.data import DATASET, LENGTH
from timetrial.workloads.verses.model import Translator, translate
from timetrial.workloads.verses.pieces import PAD, SYMBOLS, decode

from timetrial.workload import Array, Batch, Field, PyTree, Workload, describe_params, row_weights

FIELDS = {name: Field((LENGTH,), np.uint16, below=SYMBOLS) for name in ("source", "target")}
DROPOUT_RATE = 0.0
"""Where a submission asks for no other rate. No run of the track's length sees a clause more than once."""

AXES: Mapping[str, tuple[Any, ...]] = {
    "layers": (2, 1, 3),
    "width": (96, 64),
    "activation": ("relu", "gelu", "tanh"),
    "gated": (False, True),
    "norm": ("layer", "rms"),
    "norm_place": ("pre", "post"),
    "attention_scale": (1.0, 2.0),
    "init_scale": (1.0, 0.5),
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "verses_glu_tanh": {"gated": True, "activation": "tanh"},
    "verses_post_norm": {"norm_place": "post"},
}


def loss(outputs: Array, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Array, Array]:
    """Cross-entropy in nats summed over a target's symbols up to its end, and their number.

    With label smoothing s the true symbol has probability 1 - s + s / symbols and each other one s / symbols.
    """
    targets_bt = batch["target"].astype(jnp.int32)
    log_p_btv = jax.nn.log_softmax(outputs)
    right_bt = jnp.take_along_axis(log_p_btv, targets_bt[..., None], axis=-1)[..., 0]
    losses_bt = -(1 - label_smoothing) * right_bt - label_smoothing * jnp.mean(log_p_btv, axis=-1)
    written_bt = (targets_bt != PAD).astype(jnp.float32)
    return jnp.sum(losses_bt * written_bt, axis=1), jnp.sum(written_bt, axis=1)


def finalize(accumulated: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean cross-entropy per symbol in nats, and BLEU in percent of the whole corpus of lower-case words."""
    written, right = ([decode(row) for row in accumulated[name].tolist()] for name in ("translation", "target"))
    return {
        "loss": float(accumulated["loss"] / accumulated["symbols"]),
        "bleu": BLEU().corpus_score(written, [right]).score,
    }


def build(model: Translator) -> Workload:
    """The workload with this model."""

    def init(key: Array) -> tuple[PyTree, PyTree]:
        empty = jnp.zeros((1, LENGTH), jnp.uint16)
        return model.init(key, empty, empty)["params"], {}

    def apply(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
    ) -> tuple[Array, PyTree]:
        """Logits of a target's symbols, each from the source and those before it: float32 (B, LENGTH, symbols)."""
        rate = (DROPOUT_RATE if dropout_rate is None else dropout_rate) if train else 0.0
        return model.apply(
            {"params": params}, batch["source"], batch["target"], dropout_rate=rate, key=key
        ), model_state

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        """Sums over the rows that count; and every row's greedy translation and target."""
        logits, _ = apply(params, model_state, batch, jax.random.key(0), train=False)
        losses, symbols = loss(logits, batch)
        weights = row_weights(batch, logits.shape[0])
        return {
            "loss": jnp.sum(losses * weights),
            "symbols": jnp.sum(symbols * weights),
            "translation": translate(model, params, batch["source"], LENGTH),
            "target": batch["target"],
        }

    return Workload(
        name="verses",
        task="translate a clause of Middle English into modern English",
        init=init,
        apply=apply,
        loss=loss,
        evaluate=evaluate,
        finalize=finalize,
        data=DATASET,
        train_eval_rows=128,
        fields=FIELDS,
        loss_type="softmax_cross_entropy",
        metric="bleu",
        better="higher",
        param_info=_param_info(model, jax.eval_shape(lambda: init(jax.random.key(0))[0])),
        default_batch_size=32,
        max_batch_size=4096,
        eval_batch_size=128,
        has_dropout=True,
        has_label_smoothing=True,
    )


def _param_info(model: Translator, params: PyTree) -> PyTree:
    """Depth counts the layers from the source on: embedding, then two of each attention and two of each MLP."""

    def vector(path: str, kind: str, depth: int) -> tuple[str, dict[str, Any]]:
        return path, {"kind": kind, "out_axes": (0,), "depth": depth}

    def dense(path: str, kind: str, depth: int) -> tuple[str, dict[str, Any]]:
        return f"{path}/kernel", {"kind": kind, "in_axes": (0,), "out_axes": (1,), "depth": depth}

    def norm(path: str, depth: int) -> list[tuple[str, dict[str, Any]]]:
        kinds = ("scale", "bias") if model.norm == "layer" else ("scale",)
        return [vector(f"{path}/{kind}", f"norm_{kind}", depth) for kind in kinds]

    def attention(path: str, depth: int) -> list[tuple[str, dict[str, Any]]]:
        projections = [dense(f"{path}/{name}", f"attention_{name[0]}", depth) for name in ("query", "key", "value")]
        return [*norm(f"norm_{path}", depth), *projections, dense(f"{path}/out", "attention_out", depth + 1)]

    def mlp(path: str, depth: int) -> list[tuple[str, dict[str, Any]]]:
        rules = norm(f"norm_{path}", depth)
        for name, place in (("in", depth), *([("gate", depth)] if model.gated else []), ("out", depth + 1)):
            rules += [dense(f"{path}/{name}", "weight", place), vector(f"{path}/{name}/bias", "bias", place)]
        return rules

    rules: list[tuple[str, Mapping[str, Any]]] = [
        ("embedding/embedding", {"kind": "tied_embedding", "in_axes": (0,), "out_axes": (1,)})
    ]
    depth = 1
    for i in range(model.layers):
        rules += attention(f"encoder_attention_{i}", depth) + mlp(f"encoder_mlp_{i}", depth + 2)
        depth += 4
    if model.norm_place == "pre":
        rules += norm("norm_memory", depth)
    for i in range(model.layers):
        rules += attention(f"decoder_attention_{i}", depth) + attention(f"cross_attention_{i}", depth + 2)
        rules += mlp(f"decoder_mlp_{i}", depth + 4)
        depth += 6
    if model.norm_place == "pre":
        rules += norm("norm_out", depth)
    return describe_params(params, [*rules, vector("bias", "bias", depth)])


MODEL = Translator()
WORKLOAD = build(MODEL)
