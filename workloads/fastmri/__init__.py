"""Reconstruct a knee from a quarter of its k-space: fastMRI's U-Net, AlgoPerf's `fastmri`. See README.md."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timetrial.workloads.fastmri.model import UNet

from timetrial.data import AnyDataset
from timetrial.full import knees
from timetrial.full.describe import Rule, conv, norm
from timetrial.full.recorded import Recorded
from timetrial.full.undersampling import SIDE
from timetrial.metrics.ssim import ssim
from timetrial.workload import Array, Batch, Field, PyTree, Workload, describe_params, row_weights

TRACK = "full"
FIELDS = {
    "image": Field((SIDE, SIDE), np.float32),
    "target": Field((SIDE, SIDE), np.float32),
    "mean": Field((), np.float32),
    "deviation": Field((), np.float32),
    "volume_max": Field((), np.float32),
}
"""The zero-filled image and the full one, both less the former's mean and over its deviation, clipped to [-6, 6];
these two numbers; and the largest value in the volume that the slice is from."""
DATASET = Recorded.of(knees.LAYOUT, knees.PIPELINE)
DROPOUT_RATE = 0.0
"""Where a submission asks for no other rate."""
AXES: Mapping[str, tuple[Any, ...]] = {
    "activation": ("leaky_relu", "tanh"),
    "norm": ("instance", "layer"),
    "width": (32, 64),
    "pools": (4, 3),
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "fastmri_model_size": {"width": 64, "pools": 3},
    "fastmri_tanh": {"activation": "tanh"},
    "fastmri_layernorm": {"norm": "layer"},
}


def loss(outputs: Array, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Array, Array]:
    """Mean absolute error of each row's pixels; a row is one term. There is no label smoothing."""
    del label_smoothing
    losses = jnp.mean(jnp.abs(outputs - batch["target"]), axis=(1, 2))
    return losses, jnp.ones_like(losses)


def finalize(accumulated: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means over a split: the absolute error (`loss`) and the structural similarity (`ssim`)."""
    return {name: float(accumulated[name] / accumulated["rows"]) for name in ("loss", "ssim")}


def build(model: UNet, data: AnyDataset = DATASET) -> Workload:
    """The workload of this model on these data."""

    def init(key: Array) -> tuple[PyTree, PyTree]:
        side = 2 << model.pools
        return model.init(key, jnp.zeros((1, side, side)))["params"], {}

    def apply(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
    ) -> tuple[Array, PyTree]:
        """The reconstruction, in the units of `target`, float32 (B, H, W)."""
        rate = (DROPOUT_RATE if dropout_rate is None else dropout_rate) if train else 0.0
        return model.apply({"params": params}, batch["image"], dropout_rate=rate, key=key), model_state

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        """Sums over the rows that count."""
        images, _ = apply(params, model_state, batch, jax.random.key(0), train=False)
        losses, _ = loss(images, batch)
        weights = row_weights(batch, len(images))
        mean, deviation = (batch[name][:, None, None] for name in ("mean", "deviation"))
        found, true = images * deviation + mean, batch["target"] * deviation + mean
        return {
            "loss": jnp.sum(losses * weights),
            "ssim": jnp.sum(ssim(found, true, batch["volume_max"]) * weights),
            "rows": jnp.sum(weights),
        }

    return Workload(
        name="fastmri",
        track=TRACK,
        task="reconstruct a magnetic resonance image of a knee from a quarter of its k-space",
        init=init,
        apply=apply,
        loss=loss,
        evaluate=evaluate,
        finalize=finalize,
        data=data,
        train_eval_rows=3_584,
        fields=FIELDS,
        loss_type="mean_absolute_error",
        metric="ssim",
        better="higher",
        param_info=_param_info(model, jax.eval_shape(init, jax.random.key(0))[0]),
        default_batch_size=32,
        max_batch_size=128,
        eval_batch_size=256,
        has_dropout=True,
    )


def _param_info(model: UNet, params: PyTree) -> PyTree:
    """Depth counts the layers from the input."""
    rules: list[Rule] = []
    for kind, depth in model.layers():
        name = f"{kind}_{depth}"
        head = kind == "head"
        rules += conv(name, depth, bias=head, kind="output_head" if head else "conv")
        if kind == "conv" and model.norm == "layer":
            rules += norm(f"norm_{depth}", depth)
    return describe_params(params, rules)


MODEL = UNet()
WORKLOAD = build(MODEL)
