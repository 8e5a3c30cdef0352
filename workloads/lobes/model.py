"""A plain convolutional net with batch norm, deep and narrow: the shape that learns most per second on a CPU."""

import flax.linen as nn
import jax
import jax.numpy as jnp

CLASSES = 8
ACTIVATIONS = {"relu": nn.relu, "gelu": nn.gelu, "tanh": jnp.tanh}
GROUPS = 4
"""Of channels, for group norm."""


class LobesNet(nn.Module):
    """Pixels, uint8 (B, 32, 32, 3), to logits, float32 (B, 8).

    2 x 2 pixels become one position of 12 channels, because convolutions at full resolution would take most of the
    time. Each convolution is followed by a norm and a nonlinearity; a mean over the positions and a linear head end it.
    """

    activation: str = "relu"
    norm: str = "batch"
    """"batch", or "group" (over positions and a quarter of the channels)."""
    width: int = 16
    """Channels of the first stage; each later stage has twice as many, and half the height and width."""
    depth: int = 7
    """Convolutions, 3 x 3: two in each of the first two stages, the others in the third."""
    init_scale: float = 1.0
    """Times LeCun's deviation, for the kernels of the convolutions."""
    norm_scale: float = 1.0
    """What the scales of the norms are at first (AlgoPerf's `imagenet_resnet_large_bn_init`)."""

    @nn.compact
    def __call__(self, image: jax.Array, valid: jax.Array | None, *, train: bool) -> jax.Array:
        """`valid`, bool (B,), keeps padding out of the statistics of batch norm; None means that all rows count."""
        rows = image.shape[0]
        x = image.astype(jnp.float32) / 127.5 - 1
        x = x.reshape(rows, 16, 2, 16, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(rows, 16, 16, 12)
        kernel_init = nn.initializers.variance_scaling(self.init_scale**2, "fan_in", "truncated_normal")
        layer = 0
        for stage, convolutions in enumerate((2, 2, self.depth - 4)):
            if stage > 0:
                x = nn.max_pool(x, (2, 2), strides=(2, 2))
            for _ in range(convolutions):
                width = self.width * 2**stage
                x = nn.Conv(width, (3, 3), use_bias=False, kernel_init=kernel_init, name=f"conv_{layer}")(x)
                x = ACTIVATIONS[self.activation](self._normalised(x, valid, train, f"norm_{layer}"))
                layer += 1
        return nn.Dense(CLASSES, name="head")(jnp.mean(x, axis=(1, 2)))

    def _normalised(self, x: jax.Array, valid: jax.Array | None, train: bool, name: str) -> jax.Array:
        scale_init = nn.initializers.constant(self.norm_scale)
        if self.norm == "group":
            return nn.GroupNorm(GROUPS, scale_init=scale_init, name=name)(x)
        mask = None if valid is None else valid[:, None, None, None]
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, scale_init=scale_init, name=name)
        return norm(x, mask=mask)
