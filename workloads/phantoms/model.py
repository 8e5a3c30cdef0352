"""A small U-Net (Ronneberger et al. 2015, arXiv:1505.04597), as fastMRI's baseline has it (Zbontar et al. 2018).

fastMRI's (arXiv:1811.08839): two 3 x 3 convolutions a level, each with instance norm without parameters and a leaky
ReLU of slope 0.2, average pooling, twice the channels on each further level, transposed 2 x 2 convolutions on the way
up, the level's own features beside theirs, a linear head at each pixel. Shapes: B rows, H x W positions, C channels.
"""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from timetrial.workload import dropout

Activation = Literal["leaky_relu", "tanh", "silu"]
Norm = Literal["instance", "layer", "none"]

PATCH = 2
"""PATCH x PATCH pixels become one position: convolutions at full resolution would take most of the time."""
SLOPE = 0.2
_EPSILON = 1e-5
_MEAN_OVER: dict[Norm, tuple[int, ...]] = {"instance": (1, 2), "layer": (1, 2, 3), "none": ()}
_ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "leaky_relu": lambda x: nn.leaky_relu(x, SLOPE),
    "tanh": jnp.tanh,
    "silu": nn.silu,
}


class UNet(nn.Module):
    """Images to images, float32 (B, H, W) both; H and W are multiples of PATCH * 2**pools.

    `dropout_rate` applies to whole channels after each activation of a 3 x 3 convolution. It may be a traced number.
    """

    activation: Activation = "leaky_relu"
    norm: Norm = "instance"
    width: int = 16
    """Channels of the first level."""
    pools: int = 2
    init_scale: float = 1.0
    """Factor on the initial weights, whose variance is 1 / fan-in without it."""

    @nn.compact
    def __call__(self, image: jax.Array, *, dropout_rate: Any = 0.0, key: jax.Array | None = None) -> jax.Array:
        layer = count()
        init = nn.initializers.variance_scaling(self.init_scale**2, "fan_in", "truncated_normal")

        def normed(x: jax.Array) -> jax.Array:
            return _ACTIVATIONS[self.activation](_normalise(x, _MEAN_OVER[self.norm]))

        def block(x: jax.Array, width: int) -> jax.Array:
            for n in (next(layer), next(layer)):
                x = normed(nn.Conv(width, (3, 3), use_bias=False, kernel_init=init, name=f"conv_{n}")(x))
                if key is not None:
                    ones = jnp.ones((x.shape[0], 1, 1, width))
                    x = x * dropout(ones, dropout_rate, jax.random.fold_in(key, n))
            return x

        x = _gather(image[..., None], PATCH).reshape(image.shape[0], image.shape[1] // PATCH, -1, PATCH * PATCH)
        skips: list[jax.Array] = []
        for level in range(self.pools):
            skips.append(block(x, self.width << level))
            x = jnp.mean(_gather(skips[-1], 2), axis=3)
        x = block(x, self.width << self.pools)
        for level in reversed(range(self.pools)):
            width = self.width << level
            up = nn.Dense(4 * width, use_bias=False, kernel_init=init, name=f"up_{next(layer)}")
            x = jnp.concatenate([normed(_spread(up(x), 2)), skips[level]], axis=-1)
            x = block(x, width)
        return _spread(nn.Dense(PATCH * PATCH, kernel_init=init, name=f"head_{next(layer)}")(x), PATCH)[..., 0]

    def layers(self) -> Iterator[tuple[str, int]]:
        """Names of the layers with parameters and their places, from the input to the output."""
        names = ["conv"] * (2 * self.pools + 2) + ["up", "conv", "conv"] * self.pools + ["head"]
        return ((f"{name}_{place}", place) for place, name in enumerate(names))


def _normalise(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    if not axes:
        return x
    mean = jnp.mean(x, axis=axes, keepdims=True)
    variance = jnp.mean(jnp.square(x - mean), axis=axes, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + _EPSILON)


def _gather(x: jax.Array, side: int) -> jax.Array:
    """Squares of side x side positions as one axis: (B, H, W, C) to (B, H / side, W / side, side * side, C)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // side, side, w // side, side, c).swapaxes(2, 3)
    return x.reshape(b, h // side, w // side, side * side, c)


def _spread(x: jax.Array, side: int) -> jax.Array:
    """Channels as squares of side x side positions: (B, H, W, side * side * C) to (B, side * H, side * W, C)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, side, side, c // side**2).swapaxes(2, 3)
    return x.reshape(b, h * side, w * side, c // side**2)
