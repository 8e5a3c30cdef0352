"""A decoder transformer (Vaswani et al. 2017, arXiv:1706.03762), with AlgoPerf's sizes.

Positions are rotations of queries and keys (Su et al. 2021, arXiv:2104.09864), which are then normalised (Henry et al.
2020, arXiv:2010.04245); MLPs are gated (Dauphin et al. 2016, arXiv:1612.08083); norms divide by the root of the mean
square. Shapes: B rows, T positions, D features, H heads of K features, V symbols.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.typing import Initializer

from timetrial.full.web_text import LENGTH, SYMBOLS
from timetrial.workload import Array

HEADS = 8
MLP_EXPANSION = 4
_WAVELENGTH = 500_000.0
_EPSILON = 1e-6
_NORMAL = nn.initializers.normal(0.02)


class Decoder(nn.Module):
    """Logits of the symbol behind each position, float32 (B, T, V), from that and those before it; without dropout."""

    symbols: int = SYMBOLS
    width: int = 1024
    layers: int = 12

    @nn.compact
    def __call__(self, symbols_bt: Array) -> Array:
        embedding = nn.Embed(self.symbols, self.width, embedding_init=_NORMAL, name="embedding")
        x_btd = embedding(symbols_bt.astype(jnp.int32))
        added = nn.initializers.normal(
            0.02 / math.sqrt(2 * self.layers)
        )  # so that all that is added is as large as one
        for i in range(self.layers):
            x_btd += Attention(added, name=f"attention_{i}")(nn.RMSNorm(name=f"attention_{i}_norm")(x_btd))
            x_btd += MLP(added, name=f"mlp_{i}")(nn.RMSNorm(name=f"mlp_{i}_norm")(x_btd))
        return embedding.attend(nn.RMSNorm(name="norm_out")(x_btd))


class Attention(nn.Module):
    """Attention to the positions so far; scores are cosines times a parameter."""

    out_init: Initializer

    @nn.compact
    def __call__(self, x_btd: Array) -> Array:
        def heads(name: str) -> Array:
            return _dense(x_btd.shape[-1], name)(x_btd).reshape(*x_btd.shape[:2], HEADS, -1)

        scale = self.param("scale", nn.initializers.constant(math.log2(LENGTH**2 - LENGTH)), ())
        query_bthk, key_bthk = (_normalised(_rotated(heads(name))) for name in ("query", "key"))
        mixed = jax.nn.dot_product_attention(scale * query_bthk, key_bthk, heads("value"), is_causal=True, scale=1.0)
        return _dense(x_btd.shape[-1], "out", self.out_init)(mixed.reshape(x_btd.shape))


class MLP(nn.Module):
    """Two layers, the hidden one gated by the sigmoid of as many features."""

    out_init: Initializer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width = x.shape[-1]
        return _dense(width, "out", self.out_init)(nn.glu(_dense(2 * MLP_EXPANSION * width, "in")(x)))


def _dense(width: int, name: str, init: Initializer = _NORMAL) -> nn.Dense:
    return nn.Dense(width, use_bias=False, kernel_init=init, name=name)


def _rotated(x_bthk: Array) -> Array:
    """Each pair of features turned by its position times a frequency, from 1 down to one over 500,000."""
    features = x_bthk.shape[-1]
    angles_tp = np.outer(np.arange(x_bthk.shape[1]), _WAVELENGTH ** -(np.arange(0, features, 2) / features))
    cosine, sine = (f(angles_tp).astype(np.float32)[:, None] for f in (np.cos, np.sin))
    even, odd = x_bthk[..., ::2], x_bthk[..., 1::2]
    return jnp.stack([even * cosine - odd * sine, odd * cosine + even * sine], axis=-1).reshape(x_bthk.shape)


def _normalised(x: Array) -> Array:
    return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + _EPSILON)
