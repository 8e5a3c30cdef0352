"""A small vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929), as plain as Beyer et al. 2022 make it.

From "Better plain ViT baselines for ImageNet-1k" (arXiv:2205.01580): fixed two-dimensional sine and cosine positions, a
mean over the patches instead of a class token, one linear layer as head.

Shapes: B rows, P patches of a row (S where they are attended to), D features, H heads of K features.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from timetrial.workloads.fashion.data import CLASSES, SIDE

from timetrial.workload import dropout

PATCH = 7
"""Pixels along a patch's side."""
ACROSS = SIDE // PATCH
HEAD_WIDTH = 16
MLP_RATIO = 2
ACTIVATIONS = {"gelu": nn.gelu, "relu": nn.relu, "tanh": jnp.tanh}
NORMS = {"layer": nn.LayerNorm, "rms": nn.RMSNorm, "post_layer": nn.LayerNorm}


class ViT(nn.Module):
    """Pixels, uint8 (B, 28, 28), to logits, float32 (B, 10).

    `dropout_rate` applies to the embedded patches and to what each sublayer adds to the residual stream. It may be a
    traced number; the number 0 computes no mask.
    """

    activation: str = "gelu"
    """Of the MLPs: "gelu", "relu" or "tanh"."""
    norm: str = "layer"
    """"layer" or "rms" before each sublayer and the pooling, or "post_layer": layer norm of each residual sum."""
    pooling: str = "mean"
    """Over the patches: "mean", or "attention", weighted by the softmax of a learnt linear score."""
    width: int = 64
    """D; a head has 16 features of it, an MLP's hidden layer twice as many."""
    depth: int = 3
    """Pairs of sublayers: attention, then MLP."""
    init_scale: float = 1.0
    """Times LeCun's deviation, for all kernels."""
    temperature: float = 1.0
    """Divides the scores of attention."""

    @nn.compact
    def __call__(self, image: jax.Array, *, dropout_rate: Any = 0.0, key: jax.Array | None = None) -> jax.Array:
        def drop(x: jax.Array, place: int) -> jax.Array:
            return x if key is None else dropout(x, dropout_rate, jax.random.fold_in(key, place))

        init = nn.initializers.variance_scaling(self.init_scale**2, "fan_in", "truncated_normal")
        norm = NORMS[self.norm]
        sublayers: list[nn.Module] = []
        for i in range(self.depth):
            sublayers.append(Attention(self.temperature, init, name=f"attention_{i}"))
            sublayers.append(MLP(self.activation, init, name=f"mlp_{i}"))

        x_bpd = nn.Dense(self.width, kernel_init=init, name="embed")(patches(image))
        x_bpd = drop(x_bpd + positions(self.width), 0)
        for place, sublayer in enumerate(sublayers):
            normalise = norm(name=f"norm_{place}")
            if self.norm == "post_layer":
                x_bpd = normalise(x_bpd + drop(sublayer(x_bpd), place + 1))
            else:
                x_bpd += drop(sublayer(normalise(x_bpd)), place + 1)
        if self.norm != "post_layer":
            x_bpd = norm(name="norm_out")(x_bpd)
        if self.pooling == "attention":
            scores_bp1 = nn.Dense(1, use_bias=False, kernel_init=init, name="pool")(x_bpd)
            x_bd = jnp.sum(jax.nn.softmax(scores_bp1, axis=1) * x_bpd, axis=1)
        else:
            x_bd = jnp.mean(x_bpd, axis=1)
        return nn.Dense(len(CLASSES), kernel_init=init, name="head")(x_bd)


class Attention(nn.Module):
    """Self-attention over the P axis; all heads share a kernel of shape (D, H * K)."""

    temperature: float
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x_bpd: jax.Array) -> jax.Array:
        width = x_bpd.shape[-1]

        def project(name: str) -> jax.Array:
            y_bpd = nn.Dense(width, use_bias=False, kernel_init=self.kernel_init, name=name)(x_bpd)
            return y_bpd.reshape(*y_bpd.shape[:2], width // HEAD_WIDTH, HEAD_WIDTH)

        query_bphk, key_bshk, value_bshk = project("query"), project("key"), project("value")
        scores_bhps = jnp.einsum("bphk,bshk->bhps", query_bphk, key_bshk) * (HEAD_WIDTH**-0.5 / self.temperature)
        mixed_bphk = jnp.einsum("bhps,bshk->bphk", jax.nn.softmax(scores_bhps), value_bshk)
        out = nn.Dense(width, use_bias=False, kernel_init=self.kernel_init, name="out")
        return out(mixed_bphk.reshape(x_bpd.shape))


class MLP(nn.Module):
    """Two layers, patch by patch."""

    activation: str
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x_bpd: jax.Array) -> jax.Array:
        width = x_bpd.shape[-1]
        hidden = nn.Dense(MLP_RATIO * width, kernel_init=self.kernel_init, name="in")(x_bpd)
        return nn.Dense(width, kernel_init=self.kernel_init, name="out")(ACTIVATIONS[self.activation](hidden))


def patches(image: jax.Array) -> jax.Array:
    """The pixels of each patch, row by row, in [-1, 1]: (B, 28, 28) to float32 (B, P, 49)."""
    pixels = image.astype(jnp.float32) / 127.5 - 1
    tiles = pixels.reshape(-1, ACROSS, PATCH, ACROSS, PATCH).transpose(0, 1, 3, 2, 4)
    return tiles.reshape(-1, ACROSS * ACROSS, PATCH * PATCH)


def positions(width: int) -> np.ndarray:
    """Sines and cosines of each patch's column and row at width / 4 frequencies from 1 to .01: float32 (P, D)."""
    row, column = np.divmod(np.arange(ACROSS * ACROSS), ACROSS)
    frequencies = 0.01 ** np.linspace(0, 1, width // 4)
    angles = [place[:, None] * frequencies for place in (column, row)]
    return np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=1).astype(np.float32)
