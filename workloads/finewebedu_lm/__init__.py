"""Predict the next piece of a word: a decoder transformer on FineWeb-Edu, AlgoPerf's `finewebedu_lm`. See README.md."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timetrial.workloads.finewebedu_lm.model import Decoder

from timetrial.data import AnyDataset
from timetrial.full.describe import Rule, attention, dense, embedding, vector
from timetrial.full.web_text import DATASET, LENGTH, SYMBOLS
from timetrial.workload import Array, Batch, Field, PyTree, Workload, describe_params, row_weights

TRACK = "full"
FIELDS = {"symbols": Field((LENGTH + 1,), np.uint16, below=SYMBOLS)}
"""A piece of the stream of all documents: each symbol but the last is read, each but the first is to be predicted."""
AXES: Mapping[str, tuple[Any, ...]] = {}
VARIANTS: Mapping[str, Mapping[str, Any]] = {}


def loss(outputs: Array, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Array, Array]:
    """Cross-entropy in nats summed over a row's symbols, and their number."""
    targets_bt = batch["symbols"][:, 1:].astype(jnp.int32)
    log_p_btv = jax.nn.log_softmax(outputs)
    right_bt = jnp.take_along_axis(log_p_btv, targets_bt[..., None], axis=-1)[..., 0]
    losses_bt = -(1 - label_smoothing) * right_bt - label_smoothing * jnp.mean(log_p_btv, axis=-1)
    return jnp.sum(losses_bt, axis=1), jnp.full(len(losses_bt), losses_bt.shape[1], jnp.float32)


def finalize(accumulated: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean cross-entropy per symbol in nats (`loss`), and its exponential, the perplexity (`ppl`)."""
    mean = accumulated["loss"] / accumulated["symbols"]
    return {"loss": float(mean), "ppl": float(np.exp(mean))}


def build(model: Decoder, data: AnyDataset = DATASET) -> Workload:
    """The workload with this model on these data."""

    def init(key: Array) -> tuple[PyTree, PyTree]:
        return model.init(key, jnp.zeros((1, 2), jnp.uint16))["params"], {}

    def apply(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
    ) -> tuple[Array, PyTree]:
        """Logits of each next symbol, float32 (B, LENGTH, SYMBOLS)."""
        del key, train, dropout_rate  # nothing here is random
        return model.apply({"params": params}, batch["symbols"][:, :-1]), model_state

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        """Sums over the rows that count."""
        logits, _ = apply(params, model_state, batch, jax.random.key(0), train=False)
        losses, symbols = loss(logits, batch)
        weights = row_weights(batch, len(logits))
        return {"loss": jnp.sum(losses * weights), "symbols": jnp.sum(symbols * weights)}

    return Workload(
        name="finewebedu_lm",
        track=TRACK,
        task="predict the next piece of a word in educational web pages",
        init=init,
        apply=apply,
        loss=loss,
        evaluate=evaluate,
        finalize=finalize,
        data=data,
        train_eval_rows=10_000,
        fields=FIELDS,
        loss_type="softmax_cross_entropy",
        metric="ppl",
        better="lower",
        param_info=_param_info(model, jax.eval_shape(init, jax.random.key(0))[0]),
        default_batch_size=64,
        max_batch_size=256,
        eval_batch_size=256,
        has_label_smoothing=True,
    )


def _param_info(model: Decoder, params: PyTree) -> PyTree:
    """Depth counts the layers from the input: embedding, then two of each attention and two of each MLP."""
    rules: list[Rule] = [embedding("embedding/embedding", kind="tied_embedding")]
    depth = 1
    for i in range(model.layers):
        rules.append(vector(f"attention_{i}_norm/scale", "norm_scale", depth))
        rules.append((f"attention_{i}/scale", {"kind": "norm_scale", "depth": depth}))
        rules += attention(f"attention_{i}", depth, bias=False)
        rules.append(vector(f"mlp_{i}_norm/scale", "norm_scale", depth + 2))
        rules += dense(f"mlp_{i}/in", depth + 2, bias=False) + dense(f"mlp_{i}/out", depth + 3, bias=False)
        depth += 4
    return describe_params(params, [*rules, vector("norm_out/scale", "norm_scale", depth)])


MODEL = Decoder()
WORKLOAD = build(MODEL)
