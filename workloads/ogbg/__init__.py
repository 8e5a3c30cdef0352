"""What a molecule is active against: a graph network on ogbg-molpcba, AlgoPerf's `ogbg`. See README.md."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timetrial.workloads.ogbg.model import ENTITIES, GraphNetwork
from timetrial.workloads.ogbg.packing import by_packs, pack

from timetrial.data import AnyDataset
from timetrial.full.describe import Rule, dense, norm
from timetrial.full.molpcba import BONDS, DATASET, LABELS, NODES, UNKNOWN
from timetrial.metrics.ranking import mean_average_precision
from timetrial.workload import Array, Batch, Field, PyTree, Workload, describe_params, row_weights

TRACK = "full"
FIELDS = {
    "atoms": Field((NODES, 9), np.uint8, below=119),
    "atom_padding": Field((), np.int32, below=NODES),
    "bonds": Field((BONDS, 3), np.uint8, below=6),
    "ends": Field((BONDS, 2), np.uint16, below=NODES),
    "bond_padding": Field((), np.int32, below=BONDS + 1),
    "label": Field((LABELS,), np.uint8, below=UNKNOWN + 1),
}
"""The features of atoms and bonds that OGB gives, as numbers; the paddings are how many of the places are free."""
DROPOUT_RATE = 0.1
"""Where a submission asks for no other rate."""
AXES: Mapping[str, tuple[Any, ...]] = {
    "activation": ("relu", "gelu", "silu"),
    "width": (256, 128),
    "layers": (1, 2),
    "steps": (5, 3),
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "ogbg_gelu": {"activation": "gelu"},
    "ogbg_silu": {"activation": "silu"},
    "ogbg_model_size": {"width": 128, "layers": 2, "steps": 3},
}


def loss(outputs: Array, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Array, Array]:
    """Log loss in nats summed over a row's known labels, and their number.

    With label smoothing s a label y counts as (1 - s) y + s / 128: AlgoPerf's takes the labels for classes.
    """
    known_bl = (batch["label"] != UNKNOWN).astype(jnp.float32)
    target_bl = (batch["label"] == 1) * (1 - label_smoothing) + label_smoothing / LABELS
    losses_bl = optax.sigmoid_binary_cross_entropy(outputs, target_bl)
    return jnp.sum(losses_bl * known_bl, axis=1), jnp.sum(known_bl, axis=1)


def finalize(accumulated: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Log loss in nats per known label (`loss`), and the mean average precision of the labels."""
    label = accumulated["label"]
    return {
        "loss": float(accumulated["loss"] / accumulated["labels"]),
        "mean_average_precision": mean_average_precision(label == 1, accumulated["logits"], label != UNKNOWN),
    }


def build(model: GraphNetwork, data: AnyDataset = DATASET) -> Workload:
    """The workload of this model on these data."""

    def init(key: Array) -> tuple[PyTree, PyTree]:
        empty = {name: jnp.zeros((1, *field.shape), field.dtype) for name, field in FIELDS.items()}
        return model.init(key, pack(empty, jnp.ones(1, bool), max(NODES, BONDS)))["params"], {}

    def apply(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
    ) -> tuple[Array, PyTree]:
        """The log odds of each label, float32 (B, L)."""
        rate = (DROPOUT_RATE if dropout_rate is None else dropout_rate) if train else 0.0

        def network(graphs: Mapping[str, Array], key: Array) -> Array:
            return model.apply({"params": params}, graphs, dropout_rate=rate, key=key)

        return by_packs(network, batch, key), model_state

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        """Sums over the rows that count, and what the ranking metric needs of each row."""
        logits, _ = apply(params, model_state, batch, jax.random.key(0), train=False)
        losses, known = loss(logits, batch)
        weights = row_weights(batch, len(logits))
        sums = {"loss": jnp.sum(losses * weights), "labels": jnp.sum(known * weights)}
        return {**sums, "logits": logits, "label": batch["label"]}

    return Workload(
        name="ogbg",
        track=TRACK,
        task="tell against which of 128 biological targets a molecule is active",
        init=init,
        apply=apply,
        loss=loss,
        evaluate=evaluate,
        finalize=finalize,
        data=data,
        train_eval_rows=43_793,
        fields=FIELDS,
        loss_type="softmax_cross_entropy",
        metric="mean_average_precision",
        better="higher",
        param_info=_param_info(model, jax.eval_shape(init, jax.random.key(0))[0]),
        default_batch_size=512,
        max_batch_size=2048,
        eval_batch_size=2048,
        has_dropout=True,
        has_label_smoothing=True,
    )


def _param_info(model: GraphNetwork, params: PyTree) -> PyTree:
    """Depth counts the layers from the input: the first states, then those of edges, nodes and graph in each step."""
    rules: list[Rule] = dense("atoms", 0) + dense("bonds", 0)
    depth = 1
    for i in range(model.steps):
        for entity in ENTITIES:
            for layer in range(model.layers):
                name = f"{entity}_{i}_{layer}"
                rules += dense(name, depth) + norm(f"{name}_norm", depth)
                depth += 1
    return describe_params(params, [*rules, *dense("head", depth, kind="output_head")])


MODEL = GraphNetwork()
WORKLOAD = build(MODEL)
