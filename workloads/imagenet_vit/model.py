"""ViT-S/16 (Dosovitskiy et al. 2021, arXiv:2010.11929; Beyer et al. 2022, arXiv:2205.01580): no class token.

Shapes: B rows, H x W patches, T positions, D features.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from timetrial.full.dropping import dropping
from timetrial.full.imagenet import CLASSES, normalised

PATCH = 16
WIDTH = 384
HEADS = 6
MLP_WIDTH = 1536
_XAVIER = nn.initializers.xavier_uniform()


class ViT(nn.Module):
    """Logits, float32 (B, 1000), of images, uint8 (B, side, side, 3).

    Patches with sines and cosines of their place; layers of attention and MLP; the mean of all positions, a layer with
    tanh, and a head that starts with zeros. `dropout_rate` applies to the patches, to the hidden layer of each MLP and
    to what each sublayer adds; it may be traced; 0 computes no mask.
    """

    gated: bool = False
    """Whether the hidden layer of an MLP is multiplied by a projection of itself."""
    norm_place: Literal["pre", "post"] = "pre"
    """Before a sublayer, or after its output was added."""
    pooling: Literal["mean", "attention"] = "mean"
    """The mean of all positions, or one query's attention to them, and an MLP (Zhai et al. 2021, arXiv:2106.04560)."""
    layers: int = 12

    @nn.compact
    def __call__(self, image_bhwc: jax.Array, *, dropout_rate: Any = 0.0, key: jax.Array | None = None) -> jax.Array:
        drop = dropping(dropout_rate, key)

        def add(x: jax.Array, name: str, sublayer: Callable[[jax.Array], jax.Array]) -> jax.Array:
            norm = nn.LayerNorm(name=f"{name}_norm")
            return x + drop(sublayer(norm(x))) if self.norm_place == "pre" else norm(x + drop(sublayer(x)))

        patches_bhwd = nn.Conv(WIDTH, (PATCH, PATCH), PATCH, padding="VALID", name="patches")(normalised(image_bhwc))
        x_btd = patches_bhwd.reshape(len(patches_bhwd), -1, WIDTH)
        x_btd = drop(x_btd + _places(*patches_bhwd.shape[1:3]))
        for i in range(self.layers):
            attention, mlp = Attention(name=f"attention_{i}"), MLP(self.gated, name=f"mlp_{i}")
            x_btd = add(x_btd, f"attention_{i}", lambda y, layer=attention: layer(y, y))
            x_btd = add(x_btd, f"mlp_{i}", lambda y, layer=mlp: layer(y, drop))
        if self.norm_place == "pre":
            x_btd = nn.LayerNorm(name="norm_out")(x_btd)

        if self.pooling == "mean":
            pooled_bd = jnp.mean(x_btd, axis=1)
        else:
            query_11d = self.param("pooling_query", _XAVIER, (1, 1, WIDTH))
            query_b1d = jnp.broadcast_to(query_11d, (len(x_btd), 1, WIDTH))
            y_b1d = Attention(name="pooling_attention")(query_b1d, x_btd)
            y_b1d += MLP(gated=False, name="pooling_mlp")(nn.LayerNorm(name="pooling_norm")(y_b1d), lambda y: y)
            pooled_bd = y_b1d[:, 0]
        hidden_bd = jnp.tanh(nn.Dense(WIDTH, name="hidden")(pooled_bd))
        return nn.Dense(CLASSES, kernel_init=nn.initializers.zeros, name="head")(hidden_bd)


def _places(height: int, width: int) -> np.ndarray:
    """Sines and cosines of a patch's column and row at 96 wavelengths from 2 pi to 2 pi x 10,000: (H * W, D)."""
    y, x = np.mgrid[:height, :width]
    frequencies = 10_000.0 ** -np.linspace(0, 1, WIDTH // 4)
    angles = [np.outer(along.ravel(), frequencies) for along in (x, y)]
    return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1).astype(np.float32)


class Attention(nn.Module):
    """Attention of some positions to others, scores over the root of a head's features."""

    @nn.compact
    def __call__(self, x_btd: jax.Array, seen_bsd: jax.Array) -> jax.Array:
        def heads(name: str, y: jax.Array) -> jax.Array:
            return nn.Dense(WIDTH, kernel_init=_XAVIER, name=name)(y).reshape(*y.shape[:2], HEADS, -1)

        mixed = jax.nn.dot_product_attention(heads("query", x_btd), heads("key", seen_bsd), heads("value", seen_bsd))
        return nn.Dense(WIDTH, kernel_init=_XAVIER, name="out")(mixed.reshape(x_btd.shape))


class MLP(nn.Module):
    """Two layers, or three with the projection of the hidden layer by which it is multiplied."""

    gated: bool

    @nn.compact
    def __call__(self, x: jax.Array, drop: Callable[[jax.Array], jax.Array]) -> jax.Array:
        hidden = nn.gelu(self._dense("in", MLP_WIDTH)(x))
        if self.gated:
            hidden *= self._dense("gate", MLP_WIDTH)(hidden)
        return self._dense("out", WIDTH)(drop(hidden))

    def _dense(self, name: str, width: int) -> nn.Dense:
        return nn.Dense(width, kernel_init=_XAVIER, bias_init=nn.initializers.normal(1e-6), name=name)
