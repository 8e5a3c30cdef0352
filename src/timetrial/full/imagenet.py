"""ImageNet: fields of a row, loss and metrics, the same for every model.

Images are those that the input pipeline cropped to 224 x 224; the model's side normalises them. Training rows of mixed
images (Zhang et al. 2018, arXiv:1710.09412) have a second label: an image that is `share` of one and the rest of
another has the labels in the same proportion.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from timetrial.full.photograph_rows import CROPPED, MIXED_PAIRS, SIDE
from timetrial.full.photographs import LAYOUT
from timetrial.full.recorded import Recorded
from timetrial.workload import Array, Batch, Field, row_weights

CLASSES = 1000
FIELDS = {"image": Field((SIDE, SIDE, 3), np.uint8, below=256), "label": Field((), np.int32, below=CLASSES)}
MIXED_FIELDS = {**FIELDS, "second_label": FIELDS["label"], "share": Field((), np.float32)}
"""`share`, from 0 to 1, is that of `label`: 1 where an image is not mixed, as in every split but `train`."""
DATASET = Recorded.of(LAYOUT, CROPPED)
MIXED_DATASET = Recorded.of(LAYOUT, MIXED_PAIRS)
"""The same records, whose training rows are augmented and mixed."""
TRAIN_EVAL_ROWS = 50_176
DEFAULT_BATCH_SIZE, MAX_BATCH_SIZE = 1024, 4096
_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32) * 255


def normalised(image_bhwc: Array) -> Array:
    """Less the mean of ImageNet's pixels and over their deviation, by channel: float32 of the same shape."""
    return (image_bhwc.astype(jnp.float32) - _MEAN) / _DEVIATION


def loss(outputs: Array, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Array, Array]:
    """Cross-entropy of each row, in nats; a row is one term."""
    targets = jax.nn.one_hot(batch["label"], CLASSES)
    if "share" in batch:
        share = batch["share"][:, None]
        targets = share * targets + (1 - share) * jax.nn.one_hot(batch["second_label"], CLASSES)
    losses = optax.softmax_cross_entropy(outputs, optax.smooth_labels(targets, label_smoothing))
    return losses, jnp.ones_like(losses)


def sums(logits: Array, batch: Batch) -> dict[str, Array]:
    """What a batch adds to the metrics: sums over the rows that count."""
    losses, _ = loss(logits, batch)
    weights = row_weights(batch, len(logits))
    right = jnp.argmax(logits, axis=-1) == batch["label"]
    return {"loss": jnp.sum(losses * weights), "right": jnp.sum(right * weights), "rows": jnp.sum(weights)}


def finalize(accumulated: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means over a split: the cross-entropy in nats, and the share of rows whose likeliest class is the label."""
    rows = accumulated["rows"]
    return {"loss": float(accumulated["loss"] / rows), "accuracy": float(accumulated["right"] / rows)}
