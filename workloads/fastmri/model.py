"""fastMRI's baseline U-Net (Ronneberger et al. 2015, arXiv:1505.04597; Zbontar et al. 2018, arXiv:1811.08839).

Shapes: B rows, H x W positions, C channels.
"""

from collections.abc import Iterator
from itertools import count
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from timetrial.full.dropping import dropping

SLOPE = 0.2
"""Of the leaky ReLU below zero."""
_EPSILON = 1e-5


class UNet(nn.Module):
    """Images to images, float32 (B, H, W) both; H and W are multiples of 2**pools.

    Two 3 x 3 convolutions a level, each normalised; average pooling; twice the channels on each further level; on the
    way up transposed 2 x 2 convolutions, beside whose result stand the level's own features; at last a linear head.
    `dropout_rate` applies to whole channels after each 3 x 3 convolution; it may be traced; 0 computes no mask.
    """

    width: int = 32
    """Channels of the first level."""
    pools: int = 4
    activation: Literal["leaky_relu", "tanh"] = "leaky_relu"
    norm: Literal["instance", "layer"] = "instance"
    """Of the 3 x 3 convolutions: over the positions of a channel, without parameters; or over all features of a row,
    with a scale and a bias for each channel. Transposed convolutions always have the first."""

    @nn.compact
    def __call__(self, image_bhw: jax.Array, *, dropout_rate: Any = 0.0, key: jax.Array | None = None) -> jax.Array:
        place = count()
        drop = dropping(dropout_rate, key)

        def activate(x: jax.Array) -> jax.Array:
            return jnp.tanh(x) if self.activation == "tanh" else nn.leaky_relu(x, SLOPE)

        def block(x: jax.Array, width: int) -> jax.Array:
            for n in (next(place), next(place)):
                x = nn.Conv(width, (3, 3), use_bias=False, name=f"conv_{n}")(x)
                if self.norm == "layer":
                    x = nn.LayerNorm(reduction_axes=(1, 2, 3), name=f"norm_{n}")(x)
                else:
                    x = _instance_norm(x)
                x = activate(x) * drop(jnp.ones((len(x), 1, 1, width)))
            return x

        x = image_bhw[..., None]
        skips: list[jax.Array] = []
        for level in range(self.pools):
            skips.append(block(x, self.width << level))
            x = nn.avg_pool(skips[-1], (2, 2), (2, 2))
        x = block(x, self.width << self.pools)
        for level in reversed(range(self.pools)):
            width = self.width << level
            up = nn.ConvTranspose(width, (2, 2), (2, 2), use_bias=False, name=f"up_{next(place)}")
            x = block(jnp.concatenate([activate(_instance_norm(up(x))), skips[level]], axis=-1), width)
        return nn.Conv(1, (1, 1), name=f"head_{next(place)}")(x)[..., 0]

    def layers(self) -> Iterator[tuple[str, int]]:
        """Kinds of the layers with parameters and their places, from the input to the output."""
        kinds = ["conv"] * (2 * self.pools + 2) + ["up", "conv", "conv"] * self.pools + ["head"]
        return ((kind, place) for place, kind in enumerate(kinds))


def _instance_norm(x: jax.Array) -> jax.Array:
    mean, variance = jnp.mean(x, axis=(1, 2), keepdims=True), jnp.var(x, axis=(1, 2), keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + _EPSILON)
