"""Translate German into English: a transformer on WMT 2017, AlgoPerf's `wmt`. See README.md."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sacrebleu.metrics.bleu import BLEU
from timetrial.workloads.wmt.model import HEADS, PAD, START, Translator

from timetrial.data import AnyDataset
from timetrial.full import pieces
from timetrial.full.beam_search import beam_search
from timetrial.full.describe import Rule, attention, dense, embedding, norm
from timetrial.full.parallel_text import DATASET, LENGTH, SYMBOLS
from timetrial.workload import Array, Batch, Field, PyTree, Workload, describe_params, row_weights

TRACK = "full"
FIELDS = {name: Field((LENGTH,), np.uint16, below=SYMBOLS) for name in ("source", "target")}
"""Sentences behind each other, as many as fit in `train` and one in other splits, each with its end; then padding."""
DROPOUT_RATE = 0.1
"""Where a submission asks for no other rate."""
BEAMS, ALPHA = 4, 0.6
AXES: Mapping[str, tuple[Any, ...]] = {
    "activation": ("relu", "tanh"),
    "gated": (False, True),
    "norm_place": ("pre", "post"),
    "attention_temperature": (1.0, 4.0),
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "wmt_post_ln": {"norm_place": "post"},
    "wmt_attention_temp": {"attention_temperature": 4.0},
    "wmt_glu_tanh": {"activation": "tanh", "gated": True},
}


def loss(outputs: Array, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Array, Array]:
    """Cross-entropy in nats summed over the symbols of a row's target, and their number; padding counts in neither."""
    targets_bt = batch["target"].astype(jnp.int32)
    log_p_btv = jax.nn.log_softmax(outputs)
    right_bt = jnp.take_along_axis(log_p_btv, targets_bt[..., None], axis=-1)[..., 0]
    losses_bt = -(1 - label_smoothing) * right_bt - label_smoothing * jnp.mean(log_p_btv, axis=-1)
    written_bt = (targets_bt != PAD).astype(jnp.float32)
    return jnp.sum(losses_bt * written_bt, axis=1), jnp.sum(written_bt, axis=1)


def finalize(accumulated: Mapping[str, np.ndarray], data: AnyDataset = DATASET) -> dict[str, float]:
    """Mean cross-entropy per symbol in nats (`loss`), and BLEU in percent of the whole corpus, by sacrebleu.

    The texts are spelt with the pieces of `data`.
    """
    vocabulary = pieces.read(data)
    written, right = (
        [spell_sentence(row, vocabulary) for row in accumulated[name]] for name in ("translation", "target")
    )
    return {
        "loss": float(accumulated["loss"] / accumulated["symbols"]),
        "bleu": BLEU().corpus_score(written, [right]).score,
    }


def spell_sentence(symbols: np.ndarray, vocabulary: Sequence[str]) -> str:
    """The text of the symbols before the first end."""
    ends = np.flatnonzero(symbols == pieces.END)
    return pieces.spell(symbols[: ends[0] if len(ends) else None].tolist(), vocabulary)


def translate(model: Translator, params: PyTree, source_bs: Array) -> Array:
    """The best translation of each row's sentence, int32 (B, S), by beam search."""
    variables, (rows, length) = {"params": params}, source_bs.shape
    memory: Any = model.apply(variables, source_bs, method="encode")
    memory = jax.tree.map(lambda leaf: jnp.repeat(leaf, BEAMS, axis=0), memory)

    def step(before: Array, past: PyTree, t: Array) -> Any:
        return model.apply(variables, before, memory, past, t, method="decode_one")

    empty = jnp.zeros((rows * BEAMS, length, HEADS, model.width // HEADS))
    past = [(empty, empty)] * model.layers
    return beam_search(step, past, rows=rows, beams=BEAMS, length=length, start=START, end=pieces.END, alpha=ALPHA)


def build(model: Translator, data: AnyDataset = DATASET) -> Workload:
    """The workload with this model on these data."""

    def init(key: Array) -> tuple[PyTree, PyTree]:
        empty = jnp.zeros((1, 2), jnp.uint16)
        return model.init(key, empty, empty)["params"], {}

    def apply(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
    ) -> tuple[Array, PyTree]:
        """Logits of a target's symbols, each from the source and those before it: float32 (B, LENGTH, SYMBOLS)."""
        rate = (DROPOUT_RATE if dropout_rate is None else dropout_rate) if train else 0.0
        logits = model.apply({"params": params}, batch["source"], batch["target"], dropout_rate=rate, key=key)
        return logits, model_state

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        """Sums over the rows that count; and every row's translation and target."""
        logits, _ = apply(params, model_state, batch, jax.random.key(0), train=False)
        losses, symbols = loss(logits, batch)
        weights = row_weights(batch, len(logits))
        return {
            "loss": jnp.sum(losses * weights),
            "symbols": jnp.sum(symbols * weights),
            "translation": translate(model, params, batch["source"]).astype(jnp.uint16),
            "target": batch["target"],
        }

    return Workload(
        name="wmt",
        track=TRACK,
        task="translate news from German into English",
        init=init,
        apply=apply,
        loss=loss,
        evaluate=evaluate,
        finalize=partial(finalize, data=data),
        data=data,
        train_eval_rows=3_072,
        fields=FIELDS,
        loss_type="softmax_cross_entropy",
        metric="bleu",
        better="higher",
        param_info=_param_info(model, jax.eval_shape(init, jax.random.key(0))[0]),
        default_batch_size=128,
        max_batch_size=512,
        eval_batch_size=128,
        has_dropout=True,
        has_label_smoothing=True,
    )


def _param_info(model: Translator, params: PyTree) -> PyTree:
    """Depth counts the layers from the source on: embedding, then two of each attention and two of each MLP."""

    def mlp(path: str, depth: int) -> list[Rule]:
        gate = dense(f"{path}/gate", depth) if model.gated else []
        return dense(f"{path}/in", depth) + gate + dense(f"{path}/out", depth + 1)

    rules: list[Rule] = [embedding("embedding/embedding", kind="tied_embedding")]
    depth = 1
    for side, parts in (("encoder", ("encoder_attention",)), ("decoder", ("decoder_attention", "cross_attention"))):
        for i in range(model.layers):
            for part in (f"{name}_{i}" for name in parts):
                rules += norm(f"norm_{part}", depth) + attention(part, depth, bias=False)
                depth += 2
            rules += norm(f"norm_{side}_mlp_{i}", depth) + mlp(f"{side}_mlp_{i}", depth)
            depth += 2
        if model.norm_place == "pre":
            rules += norm("norm_memory" if side == "encoder" else "norm_out", depth)
    return describe_params(params, rules)


MODEL = Translator()
WORKLOAD = build(MODEL)
