"""MRI reconstruction: a small U-Net takes the aliasing out of images made from a quarter of k-space. See README.md."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timetrial.workloads.phantoms.data import DATASET, SIDE
from timetrial.workloads.phantoms.model import UNet
from timetrial.workloads.phantoms.ssim import ssim

from timetrial.workload import Array, Batch, Field, PyTree, Workload, describe_params, row_weights

FIELDS = {name: Field((SIDE, SIDE), np.uint8, below=256) for name in ("zero_filled", "image")}
DROPOUT_RATE = 0.0
"""Where a submission asks for no other rate, as in fastMRI's U-Net."""
AXES: Mapping[str, tuple[Any, ...]] = {
    "activation": ("leaky_relu", "tanh", "silu"),
    "norm": ("instance", "layer", "none"),
    "width": (16, 12, 18),
    "pools": (2, 1, 3),
    "init_scale": (1.0, 0.5, 2.0),
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "phantoms_tanh": {"activation": "tanh"},
    "phantoms_layernorm": {"norm": "layer"},
}


def build(model: UNet) -> Workload:
    """The workload with this model."""

    def init(key: Array) -> tuple[PyTree, PyTree]:
        return model.init(key, jnp.zeros((1, SIDE, SIDE)))["params"], {}

    def apply(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
    ) -> tuple[Array, PyTree]:
        """The reconstructed image in units of `_scale`, float32 (B, 64, 64)."""
        mean, deviation = _scale(batch)
        rate = (DROPOUT_RATE if dropout_rate is None else dropout_rate) if train else 0.0
        normalised = (batch["zero_filled"] - mean) / deviation
        return model.apply({"params": params}, normalised, dropout_rate=rate, key=key), model_state

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        """Sums over the rows that count."""
        outputs, _ = apply(params, model_state, batch, jax.random.key(0), train=False)
        losses, _ = loss(outputs, batch)
        weights = row_weights(batch, outputs.shape[0])
        mean, deviation = _scale(batch)
        similar = ssim(outputs * deviation + mean, batch["image"].astype(jnp.float32))
        return {"loss": jnp.sum(losses * weights), "ssim": jnp.sum(similar * weights), "rows": jnp.sum(weights)}

    return Workload(
        name="phantoms",
        task="reconstruct an image from a quarter of its k-space",
        init=init,
        apply=apply,
        loss=loss,
        evaluate=evaluate,
        finalize=finalize,
        data=DATASET,
        train_eval_rows=128,
        fields=FIELDS,
        loss_type="mean_absolute_error",
        metric="ssim",
        better="higher",
        param_info=_param_info(model, init),
        default_batch_size=16,
        max_batch_size=4096,
        eval_batch_size=128,
        has_dropout=True,
    )


def loss(outputs: Array, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Array, Array]:
    """Mean absolute error of a row's pixels, in units of `_scale`; a row is one term."""
    del label_smoothing  # there are no labels
    mean, deviation = _scale(batch)
    losses = jnp.mean(jnp.abs(outputs - (batch["image"] - mean) / deviation), axis=(1, 2))
    return losses, jnp.ones_like(losses)


def finalize(accumulated: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means over a split: the absolute error, and the structural similarity of reconstruction and image."""
    return {name: float(accumulated[name] / accumulated["rows"]) for name in ("loss", "ssim")}


def _scale(batch: Batch) -> tuple[Array, Array]:
    """Mean and standard deviation of each zero-filled image, float32 (B, 1, 1): both its and the target's unit."""
    pixels = batch["zero_filled"].astype(jnp.float32)
    return jnp.mean(pixels, axis=(1, 2), keepdims=True), jnp.std(pixels, axis=(1, 2), keepdims=True) + 1e-6


def _param_info(model: UNet, init: Any) -> PyTree:
    """Depth counts the layers from the input."""
    kinds = {
        "conv": {"kind": "conv", "in_axes": (0, 1, 2), "out_axes": (3,)},
        "up": {"kind": "weight", "in_axes": (0,), "out_axes": (1,)},
        "head": {"kind": "output_head", "in_axes": (0,), "out_axes": (1,)},
    }
    rules: list[tuple[str, Mapping[str, Any]]] = []
    for name, depth in model.layers():
        rules.append((f"{name}/kernel", {**kinds[name.partition("_")[0]], "depth": depth}))
    rules.append(("*/bias", {"kind": "bias", "out_axes": (0,), "depth": len(rules) - 1}))
    return describe_params(jax.eval_shape(init, jax.random.key(0))[0], rules)


MODEL = UNet()
WORKLOAD = build(MODEL)
