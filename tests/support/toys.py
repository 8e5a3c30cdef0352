"""A workload that trains in milliseconds and needs no files: softmax regression on Gaussian rows."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from timetrial.data import Arrays, InMemory, hash_splits
from timetrial.target import Target
from timetrial.workload import Batch, Field, Workload, describe_params, row_weights

FEATURES, CLASSES = 8, 4
ROWS = {"train": 256, "valid": 100, "test": 100}
DROPOUT_RATE = 0.1
BATCH_NORM_MOMENTUM = 0.9


@functools.cache
def toy_splits(seed: int = 0) -> Mapping[str, Arrays]:
    """Rows `x` and labels of a linear teacher, with enough noise that no model gets them all right."""
    rng = np.random.RandomState(seed)
    teacher = rng.standard_normal((FEATURES, CLASSES))

    def rows(n: int) -> dict[str, np.ndarray]:
        x = rng.standard_normal((n, FEATURES)).astype(np.float32)
        noise = 0.3 * rng.standard_normal((n, CLASSES))
        return {"x": x, "label": np.argmax(x @ teacher + noise, axis=1).astype(np.int32)}

    return {split: rows(n) for split, n in ROWS.items()}


def toy_dataset(seed: int = 0) -> InMemory:
    return InMemory(
        name="toy",
        version="1.0.0",
        generate=lambda: toy_splits(seed),
        sha256=hash_splits(toy_splits(seed)),
        packages={},
        licence="CC0",
        citation="",
    )


def toy_workload(*, dropout: bool = False, batch_norm: bool = False, **changes: Any) -> Workload:
    """Softmax regression, with dropout on its input or batch norm where asked; `changes` replace any field."""

    def init(key: Any) -> tuple[Any, Any]:
        kernel = 0.1 * jax.random.normal(key, (FEATURES, CLASSES))
        params = {"dense": {"kernel": kernel, "bias": jnp.zeros(CLASSES)}}
        state = {"mean": jnp.zeros(FEATURES), "variance": jnp.ones(FEATURES)} if batch_norm else {}
        return params, state

    def apply(
        params: Any, model_state: Any, batch: Batch, key: Any, *, train: bool, dropout_rate: Any = None
    ) -> tuple[Any, Any]:
        x = batch["x"]
        if batch_norm:
            used = model_state
            if train:
                weights = row_weights(batch, x.shape[0])
                mean = jnp.average(x, axis=0, weights=weights)
                used = {"mean": mean, "variance": jnp.average((x - mean) ** 2, axis=0, weights=weights)}
                model_state = jax.tree.map(
                    lambda old, new: BATCH_NORM_MOMENTUM * old + (1 - BATCH_NORM_MOMENTUM) * new, model_state, used
                )
            x = (x - used["mean"]) / jnp.sqrt(used["variance"] + 1e-5)
        if dropout and train:
            rate = DROPOUT_RATE if dropout_rate is None else dropout_rate
            x = jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)
        return x @ params["dense"]["kernel"] + params["dense"]["bias"], model_state

    def loss(outputs: Any, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Any, Any]:
        labels = optax.smooth_labels(jax.nn.one_hot(batch["label"], CLASSES), label_smoothing)
        losses = optax.softmax_cross_entropy(outputs, labels)
        return losses, jnp.ones_like(losses)

    def evaluate(params: Any, model_state: Any, batch: Batch) -> Mapping[str, Any]:
        logits, _ = apply(params, model_state, batch, jax.random.key(0), train=False)
        losses, _ = loss(logits, batch)
        weights = row_weights(batch, losses.shape[0])
        wrong = jnp.argmax(logits, axis=1) != batch["label"]
        return {"loss": jnp.sum(losses * weights), "wrong": jnp.sum(wrong * weights), "rows": jnp.sum(weights)}

    def finalize(accumulated: Mapping[str, np.ndarray]) -> Mapping[str, float]:
        rows = accumulated["rows"]
        return {"loss": float(accumulated["loss"] / rows), "error_rate": float(accumulated["wrong"] / rows)}

    rules = [
        ("dense/kernel", {"kind": "output_head", "in_axes": (0,), "out_axes": (1,)}),
        ("dense/bias", {"kind": "bias", "out_axes": (0,)}),
    ]
    workload = Workload(
        name="toy",
        task="classify Gaussian rows",
        init=init,
        apply=apply,
        loss=loss,
        evaluate=evaluate,
        finalize=finalize,
        data=toy_dataset(),
        train_eval_rows=64,
        fields={"x": Field((FEATURES,), np.float32), "label": Field((), np.int32, below=CLASSES)},
        loss_type="softmax_cross_entropy",
        metric="error_rate",
        better="lower",
        target=Target("error_rate", 0.2, "lower"),
        test_target=Target("error_rate", 0.25, "lower"),
        param_info=describe_params(jax.eval_shape(init, jax.random.key(0))[0], rules),
        default_batch_size=16,
        max_batch_size=64,
        eval_batch_size=32,
        rows_coupled=batch_norm,
        has_dropout=dropout,
        has_label_smoothing=True,
    )
    return dataclasses.replace(workload, **changes)
