"""Which molecules are extreme in a property: a graph network on QM9's graphs of bonds. See README.md."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timetrial.workloads.molecules.data import CODES, DATASET, LABELS, NEIGHBOURS, NODES, UNKNOWN
from timetrial.workloads.molecules.model import GraphNetwork

from timetrial.workload import Array, Batch, Field, PyTree, Workload, describe_params, row_weights

FIELDS = {
    "element": Field((NODES,), np.uint8, below=CODES["element"]),
    "hydrogens": Field((NODES,), np.uint8, below=CODES["hydrogens"]),
    "neighbour": Field((NODES, NEIGHBOURS), np.uint8, below=NODES),
    "bond": Field((NODES, NEIGHBOURS), np.uint8, below=CODES["bond"]),
    "label": Field((len(LABELS),), np.uint8, below=UNKNOWN + 1),
}
DROPOUT_RATE = 0.0
"""Where a submission asks for no other rate. No run of the track's length sees a molecule often enough to need one."""

AXES: Mapping[str, tuple[Any, ...]] = {
    "activation": ("relu", "gelu", "silu", "tanh"),
    "norm": ("layer", "rms"),
    "aggregation": ("sum", "mean"),
    "residual": (False, True),
    "width": (64, 48, 80),
    "steps": (3, 2, 4),
    "init_scale": (1.0, 0.25, 4.0),
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "molecules_tanh": {"activation": "tanh", "aggregation": "mean", "init_scale": 4.0},
    "molecules_deep": {"activation": "silu", "norm": "rms", "residual": True, "steps": 4},
}


def loss(outputs: Array, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Array, Array]:
    """Log loss in nats summed over a row's known labels, and their number.

    With label smoothing s a label counts as 1 - s / 2 or s / 2.
    """
    known_bl, positive_bl = _known_and_positive(batch)
    target_bl = positive_bl * (1 - label_smoothing) + 0.5 * label_smoothing
    losses_bl = optax.sigmoid_binary_cross_entropy(outputs, target_bl)
    return jnp.sum(losses_bl * known_bl, axis=1), jnp.sum(known_bl, axis=1)


def _known_and_positive(batch: Batch) -> tuple[Array, Array]:
    label_bl = batch["label"]
    return (label_bl != UNKNOWN).astype(jnp.float32), (label_bl == 1).astype(jnp.float32)


def finalize(accumulated: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Log loss in nats per known label (`loss`), and the mean average precision of the labels.

    A label without a known positive or a known negative row counts in no mean (as in ogbg-molpcba).
    """
    loss = float(accumulated["loss"] / accumulated["labels"])
    precisions: list[float] = []
    for label, score in zip(accumulated["label"].T, accumulated["logits"].T, strict=True):
        known = label != UNKNOWN
        if 0 < np.sum(label[known]) < np.sum(known):
            precisions.append(average_precision(label[known] == 1, score[known]))
    return {"loss": loss, "mean_average_precision": float(np.mean(precisions)) if precisions else float("nan")}


def average_precision(positive: np.ndarray, score: np.ndarray) -> float:
    """Precision at each score that some row has, averaged over the positives that it adds; NaN if a score is NaN.

    Rows of equal score enter together, so their order does not matter.
    """
    if np.isnan(score).any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    found = np.cumsum(positive[order])[ends]
    return float(np.sum(np.diff(found, prepend=0) / found[-1] * (found / (ends + 1))))


def _param_info(model: GraphNetwork, params: PyTree) -> PyTree:
    """Depth counts the layers from the input: embeddings, then those of edges, nodes and graph in each step."""
    table = {"kind": "embedding", "in_axes": (0,), "out_axes": (1,)}
    rules: list[tuple[str, Mapping[str, Any]]] = [(feature, table) for feature in CODES]
    norm_leaves = {"layer": ("scale", "bias"), "rms": ("scale",)}[model.norm]
    for i in range(model.steps):
        for place, name in enumerate(("edge", "node", "graph")):
            out = {"out_axes": (0,), "depth": 1 + 3 * i + place}
            rules += [(f"{name}_norm_{i}/{leaf}", {"kind": f"norm_{leaf}", **out}) for leaf in norm_leaves]
            rules.append((f"{name}_*_{i}/kernel", {**out, "kind": "weight", "in_axes": (0,), "out_axes": (1,)}))
            rules.append((f"{name}_*_{i}/bias", {"kind": "bias", **out}))
    last = 1 + 3 * model.steps
    rules.append(("head/kernel", {"kind": "output_head", "in_axes": (0,), "out_axes": (1,), "depth": last}))
    rules.append(("head/bias", {"kind": "bias", "out_axes": (0,), "depth": last}))
    return describe_params(params, rules)


def build(model: GraphNetwork) -> Workload:
    """The workload with this model; its name and what else identifies it are the base's."""

    def init(key: Array) -> tuple[PyTree, PyTree]:
        graph = {name: jnp.zeros((1, *field.shape), field.dtype) for name, field in FIELDS.items() if name != "label"}
        return model.init(key, graph)["params"], {}

    def apply(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
    ) -> tuple[Array, PyTree]:
        """The log odds of each label, float32 (B, L)."""
        rate = (DROPOUT_RATE if dropout_rate is None else dropout_rate) if train else 0.0
        return model.apply({"params": params}, batch, dropout_rate=rate, key=key), model_state

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        """Sums over the rows that count, and what the ranking metric needs of each row."""
        logits, _ = apply(params, model_state, batch, jax.random.key(0), train=False)
        losses, known = loss(logits, batch)
        weights = row_weights(batch, len(logits))
        sums = {"loss": jnp.sum(losses * weights), "labels": jnp.sum(known * weights)}
        return {**sums, "logits": logits, "label": batch["label"]}

    return Workload(
        name="molecules",
        task="tell from a molecule's bonds and their lengths in which properties it is extreme",
        init=init,
        apply=apply,
        loss=loss,
        evaluate=evaluate,
        finalize=finalize,
        data=DATASET,
        train_eval_rows=2048,
        fields=FIELDS,
        loss_type="sigmoid_cross_entropy",
        metric="mean_average_precision",
        better="higher",
        param_info=_param_info(model, jax.eval_shape(lambda: init(jax.random.key(0))[0])),
        default_batch_size=128,
        max_batch_size=4096,
        eval_batch_size=1024,
        has_dropout=True,
        has_label_smoothing=True,
    )


MODEL = GraphNetwork(len(LABELS))
WORKLOAD = build(MODEL)
