"""Will an advertisement be clicked? DLRM-small on Criteo 1TB: AlgoPerf's `criteo1tb`. See README.md."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timetrial.workloads.criteo1tb.model import DLRM, EMBEDDING_ROWS

from timetrial.data import AnyDataset
from timetrial.full import click_logs
from timetrial.full.describe import Rule, dense, embedding, norm
from timetrial.full.recorded import Recorded
from timetrial.workload import Array, Batch, Field, PyTree, Workload, describe_params, row_weights

TRACK = "full"
FIELDS = {
    "numeric": Field((click_logs.NUMERIC,), np.float32),
    "categorical": Field((click_logs.CATEGORICAL,), np.int32, below=click_logs.TABLE_ROWS),
    "label": Field((), np.uint8, below=2),
}
DATASET = Recorded.of(click_logs.LAYOUT, click_logs.PIPELINE)
DROPOUT_RATE = 0.0
"""Of the last hidden layer, where a submission asks for no other rate."""
AXES: Mapping[str, tuple[Any, ...]] = {
    "structure": ("interactions", "residual"),
    "norm": ("none", "layer"),
    "embedding_limit": (EMBEDDING_ROWS**-0.5, 1.0),
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "criteo1tb_layernorm": {"norm": "layer"},
    "criteo1tb_embed_init": {"embedding_limit": 1.0},
    "criteo1tb_resnet": {"structure": "residual"},
    "criteo1tb_test": {"embedding_rows": 65_536, "embedding_limit": 65_536**-0.5},
}


def loss(outputs: Array, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Array, Array]:
    """Log loss of each row, in nats; a row is one term. There is no label smoothing."""
    del label_smoothing
    losses = optax.sigmoid_binary_cross_entropy(outputs, batch["label"].astype(jnp.float32))
    return losses, jnp.ones_like(losses)


def finalize(accumulated: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The log loss in nats, mean over a split."""
    return {"loss": float(accumulated["loss"] / accumulated["rows"])}


def build(model: DLRM, data: AnyDataset = DATASET) -> Workload:
    """The workload of this model on these data."""

    def init(key: Array) -> tuple[PyTree, PyTree]:
        numeric, categorical = (
            jnp.zeros((1, *FIELDS[name].shape), FIELDS[name].dtype) for name in ("numeric", "categorical")
        )
        return model.init(key, numeric, categorical)["params"], {}

    def apply(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
    ) -> tuple[Array, PyTree]:
        """The log odds of a click, float32 (B,)."""
        rate = (DROPOUT_RATE if dropout_rate is None else dropout_rate) if train else 0.0
        logits = model.apply({"params": params}, batch["numeric"], batch["categorical"], dropout_rate=rate, key=key)
        return logits, model_state

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        """Sums over the rows that count."""
        logits, _ = apply(params, model_state, batch, jax.random.key(0), train=False)
        losses, _ = loss(logits, batch)
        weights = row_weights(batch, len(logits))
        return {"loss": jnp.sum(losses * weights), "rows": jnp.sum(weights)}

    return Workload(
        name="criteo1tb",
        track=TRACK,
        task="tell from 39 features whether an advertisement will be clicked",
        init=init,
        apply=apply,
        loss=loss,
        evaluate=evaluate,
        finalize=finalize,
        data=data,
        train_eval_rows=83_361_792,
        fields=FIELDS,
        loss_type="sigmoid_cross_entropy",
        metric="loss",
        better="lower",
        param_info=_param_info(model, jax.eval_shape(init, jax.random.key(0))[0]),
        default_batch_size=262_144,
        max_batch_size=1_048_576,
        eval_batch_size=131_072,
        has_dropout=True,
    )


def _param_info(model: DLRM, params: PyTree) -> PyTree:
    """Depth counts the layers from the input: the embeddings join the bottom MLP's output, so they have its depth."""
    bottom, top = map(len, model.widths)
    rules: list[Rule] = [embedding("embedding/embedding", depth=bottom - 1)]
    layers = [f"bottom_{i}" for i in range(bottom)] + [f"top_{i}" for i in range(top)]
    for depth, layer in enumerate(layers):
        rules += dense(layer, depth)
        if model.norm == "layer":
            rules += norm(f"{layer}_norm", depth)
    if model.norm == "layer":
        rules += norm("embedding_norm", bottom - 1)
    return describe_params(params, [*rules, *dense("head", bottom + top, kind="output_head")])


MODEL = DLRM()
WORKLOAD = build(MODEL)
