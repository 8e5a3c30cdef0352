"""ResNet-50 (He et al. 2015, arXiv:1512.03385), its stride in the 3 x 3 convolutions (Goyal et al. 2017, section 5.1).

Shapes: B rows, H x W positions, C channels.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from timetrial.full.imagenet import CLASSES, normalised

WIDTH = 64
"""Channels of the first convolution, and within the blocks of the first stage."""
EXPANSION = 4
"""Channels of a block's output, for each within."""
_AROUND = ((0, 0), (1, 1), (1, 1), (0, 0))
"""Padding of height and width by one on each side."""


class ResNet(nn.Module):
    """Logits, float32 (B, 1000), of images, uint8 (B, H, W, 3)."""

    activation: Literal["relu", "silu", "gelu"] = "relu"
    norm_scale: float = 0.0
    """What the scales of each block's last norm start with: of 0, every block starts as the identity."""
    stages: tuple[int, ...] = (3, 4, 6, 3)
    """Blocks of each; all but the first stage halve height and width, and double the channels."""

    @nn.compact
    def __call__(self, image_bhwc: jax.Array, valid_b: jax.Array | None, *, train: bool) -> jax.Array:
        """`valid_b`, bool, keeps rows out of the statistics of batch norm; None means that all count."""
        mask = None if valid_b is None else valid_b[:, None, None, None]
        activate = getattr(nn, self.activation)

        def conv(x: jax.Array, width: int, side: int, name: str, stride: int = 1) -> jax.Array:
            padding = "SAME" if side < 7 else [(3, 3), (3, 3)]
            return nn.Conv(width, (side, side), stride, padding=padding, use_bias=False, name=f"{name}_conv")(x)

        def normed(x: jax.Array, name: str, scale: float = 1.0) -> jax.Array:
            init = nn.initializers.constant(scale)
            norm = partial(nn.BatchNorm, momentum=0.9, use_running_average=not train, scale_init=init)
            return norm(name=f"{name}_norm")(x, mask=mask)

        x = activate(normed(conv(normalised(image_bhwc), WIDTH, 7, "first", 2), "first"))
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), _AROUND)
        for stage, blocks in enumerate(self.stages):
            width = WIDTH << stage
            for block in range(blocks):
                name, stride = f"block_{stage}_{block}", 2 if stage > 0 and block == 0 else 1
                y = activate(normed(conv(x, width, 1, f"{name}_in"), f"{name}_in"))
                y = activate(normed(conv(y, width, 3, f"{name}_mid", stride), f"{name}_mid"))
                y = normed(conv(y, EXPANSION * width, 1, f"{name}_out"), f"{name}_out", self.norm_scale)
                if block == 0:
                    x = normed(conv(x, EXPANSION * width, 1, f"{name}_skip", stride), f"{name}_skip")
                x = activate(x + y)
        return nn.Dense(CLASSES, kernel_init=nn.initializers.normal(0.01), name="head")(jnp.mean(x, axis=(1, 2)))
