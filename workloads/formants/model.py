"""A small Conformer (Gulati et al. 2020, arXiv:2005.08100): feed-forward, self-attention and convolution over time.

Shapes: B rows, T frames of F bands, S = T / 2 subsampled frames (R where they are attended to), D features, H heads of
K features, V classes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from timetrial.workload import dropout

STRIDE = 2
HEADS = 4
REACH = 5
"""Frames under the kernel of a convolution."""
MLP_EXPANSION = 4
ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "swish": nn.swish,
    "gelu": nn.gelu,
    "relu": nn.relu,
    "tanh": jnp.tanh,
}


class Net(nn.Module):
    """Logits of a class for each subsampled frame, float32 (B, S, V), from the levels of spectra, uint8 (B, T, F).

    Each of `depth` blocks adds to the frames what an MLP, a self-attention and a convolution make of them, each behind
    a layer norm. `norm` (batch, layer or none) stands within the convolutions, before their `activation`. Kernels have
    the variance `init_scale` / fan-in at first; attention's scores are divided by `attention_temperature`.
    """

    classes: int
    activation: str = "swish"
    norm: str = "batch"
    width: int = 64
    depth: int = 2
    init_scale: float = 1.0
    attention_temperature: float = 1.0

    @nn.compact
    def __call__(
        self,
        levels_btf: jax.Array,
        heard_bt: jax.Array,
        counted_b: jax.Array | None = None,
        *,
        train: bool,
        dropout_rate: Any = 0.0,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """`heard_bt` tells an utterance from its padding, which changes none of its logits.

        `counted_b`, bool, keeps rows out of the statistics of batch norm; None means that all count. `dropout_rate`
        applies to what each part of a block adds. It may be a traced number; the number 0 computes no mask.
        """
        activation = ACTIVATIONS[self.activation]
        init = nn.initializers.variance_scaling(self.init_scale, "fan_in", "truncated_normal")
        heard_bs = heard_bt[:, ::STRIDE]
        counted_bs = heard_bs if counted_b is None else heard_bs & counted_b[:, None]

        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(features, kernel_init=init, name=name)

        def convolution(x_btd: jax.Array, heard: jax.Array, features: int, stride: int, name: str) -> jax.Array:
            silenced = jnp.where(heard[..., None], x_btd, 0.0)
            return Convolution(features, stride, init, name=name)(silenced)

        def normalised(x_bsd: jax.Array, name: str) -> jax.Array:
            if self.norm == "batch":
                norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, name=name)
                return norm(x_bsd, mask=counted_bs[..., None])
            return nn.LayerNorm(name=name)(x_bsd) if self.norm == "layer" else x_bsd

        def drop(x: jax.Array, place: int) -> jax.Array:
            return x if key is None else dropout(x, dropout_rate, jax.random.fold_in(key, place))

        x_btf = (levels_btf.astype(jnp.float32) - 110) / 40
        x = convolution(x_btf, heard_bt, self.width, STRIDE, "conv_in")
        x = activation(normalised(x, "norm_in"))
        for i in range(self.depth):
            y = dense(MLP_EXPANSION * self.width, f"mlp_in_{i}")(nn.LayerNorm(name=f"norm_mlp_{i}")(x))
            x += drop(dense(self.width, f"mlp_out_{i}")(activation(y)), 3 * i)
            y = nn.LayerNorm(name=f"norm_attention_{i}")(x)
            x += drop(Attention(self.attention_temperature, init, name=f"attention_{i}")(y, heard_bs), 3 * i + 1)
            y = nn.LayerNorm(name=f"norm_conv_{i}")(x)
            y = nn.glu(convolution(y, heard_bs, 2 * self.width, 1, f"conv_{i}"))
            y = activation(normalised(y, f"norm_inner_{i}"))
            x += drop(dense(self.width, f"conv_out_{i}")(y), 3 * i + 2)
        return dense(self.classes, "head")(nn.LayerNorm(name="norm_out")(x))


class Convolution(nn.Module):
    """Over time, beyond whose ends lie zeros: one product of matrices, because CPUs are slow at small convolutions."""

    features: int
    stride: int
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x_btd: jax.Array) -> jax.Array:
        steps, width = x_btd.shape[1:]
        kernel = self.param("kernel", self.kernel_init, (REACH, width, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        padded = jnp.pad(x_btd, ((0, 0), (REACH // 2, REACH // 2), (0, 0)))
        windows = jnp.concatenate([padded[:, i : i + steps : self.stride] for i in range(REACH)], axis=-1)
        return windows @ kernel.reshape(-1, self.features) + bias


class Attention(nn.Module):
    """Self-attention over the heard frames; all heads share a kernel of shape (D, H * K)."""

    temperature: float
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x_bsd: jax.Array, heard_bs: jax.Array) -> jax.Array:
        width = x_bsd.shape[-1]

        def dense(name: str) -> nn.Dense:
            return nn.Dense(width, use_bias=False, kernel_init=self.kernel_init, name=name)

        heads = (*x_bsd.shape[:2], HEADS, width // HEADS)
        query_bshk, key_brhk, value_brhk = (dense(name)(x_bsd).reshape(heads) for name in ("query", "key", "value"))
        scores_bhsr = jnp.einsum("bshk,brhk->bhsr", query_bshk, key_brhk) * heads[-1] ** -0.5 / self.temperature
        attention_bhsr = jax.nn.softmax(jnp.where(heard_bs[:, None, None], scores_bhsr, -1e9))
        mixed_bshk = jnp.einsum("bhsr,brhk->bshk", attention_bhsr, value_brhk)
        return dense("out")(mixed_bshk.reshape(x_bsd.shape))
