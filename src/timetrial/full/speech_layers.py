"""Layers of the networks for speech: norms that leave out padding, and the convolutions that shorten the sequence.

Scales of norms are stored less one, so that they start as zeros and decay towards one, as in lingvo and AlgoPerf.
Shapes: B rows, T frames, F bands, D features; S = T / 4 shortened frames.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from timetrial.workload import Array

SHORTENING = 4
_EPSILON = {"layer": 1e-6, "batch": 1e-3}
_MOMENTUM = 0.999
XAVIER = nn.initializers.xavier_uniform()


def shortened(heard_bt: Array) -> Array:
    """Which of the shortened frames are heard, bool (B, S)."""
    return heard_bt[:, ::SHORTENING]


class LayerNorm(nn.Module):
    """Over the last axis."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        scale, bias = (self.param(name, nn.initializers.zeros, x.shape[-1:]) for name in ("scale", "bias"))
        return centred * jax.lax.rsqrt(variance + _EPSILON["layer"]) * (1 + scale) + bias


class BatchNorm(nn.Module):
    """Over all frames that count; frames that are not heard become 0."""

    train: bool

    @nn.compact
    def __call__(self, x_bsd: Array, heard_bs: Array, counted_bs: Array) -> Array:
        width = x_bsd.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, width)
        running_variance = self.variable("batch_stats", "var", jnp.ones, width)
        scale, bias = (self.param(name, nn.initializers.zeros, width) for name in ("scale", "bias"))
        if self.train:
            counted = counted_bs[..., None]
            count = jnp.maximum(jnp.sum(counted), 1)
            mean = jnp.sum(x_bsd * counted, axis=(0, 1)) / count
            variance = jnp.sum(jnp.square(x_bsd - mean) * counted, axis=(0, 1)) / count
            running_mean.value = _MOMENTUM * running_mean.value + (1 - _MOMENTUM) * mean
            running_variance.value = _MOMENTUM * running_variance.value + (1 - _MOMENTUM) * variance
        else:
            mean, variance = running_mean.value, running_variance.value
        normed_bsd = (x_bsd - mean) * jax.lax.rsqrt(variance + _EPSILON["batch"]) * (1 + scale) + bias
        return normed_bsd * heard_bs[..., None]


class Shorten(nn.Module):
    """Two convolutions that halve frames and bands each, and a projection: (B, T, F) to (B, S, D)."""

    width: int
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, spectra_btf: Array, heard_bt: Array) -> Array:
        x_btfd = spectra_btf[..., None]
        for i in range(2):
            heard_bt = heard_bt[:, ::2]
            x_btfd = nn.Conv(self.width, (3, 3), 2, kernel_init=XAVIER, name=f"conv_{i}")(x_btfd)
            x_btfd = self.activation(x_btfd) * heard_bt[..., None, None]
        return nn.Dense(self.width, kernel_init=XAVIER, name="out")(x_btfd.reshape(*x_btfd.shape[:2], -1))
