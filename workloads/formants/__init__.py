"""Spell what was said: a small Conformer with CTC on synthetic speech. See README.md."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timetrial.workloads.formants.data import BANDS, DATASET, FEWEST_FRAMES, FEWEST_LABELS, FRAMES, MOST_LABELS, SYMBOLS
from timetrial.workloads.formants.metrics import decode, error_rates, spell
from timetrial.workloads.formants.model import STRIDE, Net

from timetrial.workload import Array, Batch, Field, PyTree, Workload, describe_params, row_weights

BLANK = len(SYMBOLS)
"""The class of CTC's blank, behind those of the symbols."""
FIELDS = {
    "levels": Field((FRAMES, BANDS), np.uint8, below=256),
    "level_padding": Field((), np.int32, below=FRAMES - FEWEST_FRAMES + 1),
    "labels": Field((MOST_LABELS,), np.uint8, below=len(SYMBOLS)),
    "label_padding": Field((), np.int32, below=MOST_LABELS - FEWEST_LABELS + 1),
}
DROPOUT_RATE = 0.0
"""Where a submission asks for no other rate: a run of the track's length hears an utterance once or twice."""

AXES: Mapping[str, tuple[Any, ...]] = {
    "activation": ("swish", "gelu", "relu", "tanh"),
    "norm": ("batch", "layer", "none"),
    "width": (64, 48, 80),
    "depth": (2, 1, 3),
    "init_scale": (1.0, 0.3, 2.0),
    "attention_temperature": (1.0, 0.6, 1.6),
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "formants_layernorm": {"norm": "layer", "attention_temperature": 1.6},
    "formants_tanh": {"activation": "tanh", "init_scale": 0.3},
}


def loss(outputs: Array, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Array, Array]:
    """The negative log-likelihood of a row's labels under CTC, in nats, and their number. There is no label smoothing.

    Labels that do not fit into the frames cost about 1e5; the data hold none.
    """
    del label_smoothing
    unheard_bs, unsaid_bl = ~_heard(batch)[:, ::STRIDE], ~_said(batch)
    labels_bl = batch["labels"].astype(jnp.int32)
    losses = optax.ctc_loss(
        outputs, unheard_bs.astype(jnp.float32), labels_bl, unsaid_bl.astype(jnp.float32), blank_id=BLANK
    )
    return losses, jnp.sum(_said(batch), axis=1, dtype=jnp.float32)


def finalize(accumulated: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Nats a label (`loss`), and the word and character error rates of the likeliest path (`wer`, `cer`)."""
    said = [decode(path, SYMBOLS) for path in accumulated["path"]]
    meant = [spell(labels[labels < BLANK], SYMBOLS) for labels in accumulated["labels"]]
    return {"loss": float(accumulated["loss"] / accumulated["terms"]), **error_rates(said, meant)}


def build(model: Net) -> Workload:
    """The workload of that model."""

    def init(key: Array) -> tuple[PyTree, PyTree]:
        levels, heard = jnp.zeros((1, FRAMES, BANDS), jnp.uint8), jnp.ones((1, FRAMES), bool)
        variables = model.init(key, levels, heard, train=False)
        return variables["params"], variables.get("batch_stats", {})

    def apply(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
    ) -> tuple[Array, PyTree]:
        """Logits (B, S, classes). In training batch norm's statistics are of the heard frames of rows that count."""
        variables = {"params": params, "batch_stats": model_state}
        levels, heard = batch["levels"], _heard(batch)
        if not train:
            return model.apply(variables, levels, heard, train=False), model_state
        logits, updated = model.apply(
            variables,
            levels,
            heard,
            batch["weights"] > 0 if "weights" in batch else None,
            train=True,
            dropout_rate=DROPOUT_RATE if dropout_rate is None else dropout_rate,
            key=key,
            mutable=["batch_stats"],
        )
        return logits, updated.get("batch_stats", {})

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        """Sums over the rows that count; each row's likeliest path and its labels, uint8, blanks where they end."""
        logits, _ = apply(params, model_state, batch, jax.random.key(0), train=False)
        losses, terms = loss(logits, batch)
        weights = row_weights(batch, logits.shape[0])
        return {
            "loss": jnp.sum(losses * weights),
            "terms": jnp.sum(terms * weights),
            "path": jnp.where(_heard(batch)[:, ::STRIDE], jnp.argmax(logits, axis=-1), BLANK).astype(jnp.uint8),
            "labels": jnp.where(_said(batch), batch["labels"], BLANK).astype(jnp.uint8),
        }

    return Workload(
        name="formants",
        task="spell short sentences of synthetic speech in noise, by speakers never heard before",
        init=init,
        apply=apply,
        loss=loss,
        evaluate=evaluate,
        finalize=finalize,
        data=DATASET,
        train_eval_rows=256,
        fields=FIELDS,
        loss_type="ctc",
        metric="wer",
        better="lower",
        param_info=_param_info(model, jax.eval_shape(lambda: init(jax.random.key(0))[0])),
        default_batch_size=16,
        max_batch_size=1024,
        eval_batch_size=128,
        rows_coupled=model.norm == "batch",
        has_dropout=True,
    )


def _heard(batch: Batch) -> Array:
    """Which frames an utterance takes, bool (B, T)."""
    return jnp.arange(FRAMES) < (FRAMES - batch["level_padding"])[:, None]


def _said(batch: Batch) -> Array:
    """Which labels a row has, bool (B, L)."""
    return jnp.arange(MOST_LABELS) < (MOST_LABELS - batch["label_padding"])[:, None]


def _param_info(model: Net, params: PyTree) -> PyTree:
    """Depth counts the layers from the input: the first convolution, then six in each block; norms go with the next."""

    def layer(
        name: str, kind: str, depth: int, *, axes: int = 2, bias: bool = True
    ) -> list[tuple[str, dict[str, Any]]]:
        kernel = {"kind": kind, "in_axes": tuple(range(axes - 1)), "out_axes": (axes - 1,), "depth": depth}
        biases = [(f"{name}/bias", {"kind": "bias", "out_axes": (0,), "depth": depth})] if bias else []
        return [(f"{name}/kernel", kernel), *biases]

    def norm(name: str, depth: int) -> list[tuple[str, dict[str, Any]]]:
        return [
            (f"{name}/{leaf}", {"kind": f"norm_{leaf}", "out_axes": (0,), "depth": depth}) for leaf in ("scale", "bias")
        ]

    def inner_norm(name: str, depth: int) -> list[tuple[str, dict[str, Any]]]:
        return [] if model.norm == "none" else norm(name, depth)

    rules = [*layer("conv_in", "conv", 0, axes=3), *inner_norm("norm_in", 0)]
    for i in range(model.depth):
        first = 1 + 6 * i
        rules += norm(f"norm_mlp_{i}", first)
        rules += layer(f"mlp_in_{i}", "weight", first) + layer(f"mlp_out_{i}", "weight", first + 1)
        rules += norm(f"norm_attention_{i}", first + 2)
        for name in ("query", "key", "value"):
            rules += layer(f"attention_{i}/{name}", f"attention_{name[0]}", first + 2, bias=False)
        rules += layer(f"attention_{i}/out", "attention_out", first + 3, bias=False)
        rules += norm(f"norm_conv_{i}", first + 4) + layer(f"conv_{i}", "conv", first + 4, axes=3)
        rules += inner_norm(f"norm_inner_{i}", first + 4) + layer(f"conv_out_{i}", "weight", first + 5)
    last = 1 + 6 * model.depth
    return describe_params(params, rules + norm("norm_out", last) + layer("head", "output_head", last))


MODEL = Net(classes=len(SYMBOLS) + 1)
WORKLOAD = build(MODEL)
