"""A plain convolutional net with batch norm, deep and narrow: the shape that learns most per second on a CPU."""

import flax.linen as nn
import jax
import jax.numpy as jnp

CLASSES = 8
STAGES = ((16, 16), (32, 32), (64, 64, 64))
"""Widths of the 3 x 3 convolutions; between the stages height and width are halved by the maximum."""
LAYERS = sum(map(len, STAGES))


class LobesNet(nn.Module):
    """Pixels, uint8 (B, 32, 32, 3), to logits, float32 (B, 8).

    2 x 2 pixels become one position of 12 channels, because convolutions at full resolution would take most of the
    time. Each convolution is followed by batch norm and a ReLU; a mean over the positions and a linear head end it.
    """

    @nn.compact
    def __call__(self, image: jax.Array, valid: jax.Array | None, *, train: bool) -> jax.Array:
        """`valid`, bool (B,), keeps padding out of the statistics of batch norm; None means that all rows count."""
        rows = image.shape[0]
        x = image.astype(jnp.float32) / 127.5 - 1
        x = x.reshape(rows, 16, 2, 16, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(rows, 16, 16, 12)
        mask = None if valid is None else valid[:, None, None, None]
        layer = 0
        for stage, widths in enumerate(STAGES):
            if stage > 0:
                x = nn.max_pool(x, (2, 2), strides=(2, 2))
            for width in widths:
                x = nn.Conv(width, (3, 3), use_bias=False, name=f"conv_{layer}")(x)
                norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, name=f"norm_{layer}")
                x = nn.relu(norm(x, mask=mask))
                layer += 1
        return nn.Dense(CLASSES, name="head")(jnp.mean(x, axis=(1, 2)))
