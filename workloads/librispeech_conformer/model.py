"""A Conformer (Gulati et al. 2020, arXiv:2005.08100), with AlgoPerf's sizes.

Shapes: B rows, N samples, S shortened frames (R where they are attended to), D features, H heads of K features, V
classes.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from timetrial.full.audio import log_mel, masked
from timetrial.full.dropping import dropping
from timetrial.full.speech_layers import XAVIER, BatchNorm, LayerNorm, Shorten, shortened
from timetrial.full.utterances import CLASSES

HEADS = 8
EXPANSION = 4
REACH = 5
"""Frames under the kernel of a convolution over time."""
PARTS = ("mlp_first", "attention", "convolution", "mlp_last")
"""Of a layer, in order; MLPs add half of what they make."""


class Conformer(nn.Module):
    """Logits of a class for each shortened frame, float32 (B, S, V).

    Spectra are masked in training; two convolutions shorten them fourfold; sines and cosines of the place are added; in
    each layer MLP, attention, convolution and MLP add what they make, each behind a layer norm of its own.
    `dropout_rate` applies to the shortened frames, to the hidden layer of each MLP and to what each part adds; it may
    be traced; 0 computes no mask.
    """

    activation: Literal["swish", "gelu"] = "swish"
    norm_out: bool = True
    """Whether a layer ends with a norm."""
    attention_temperature: float = 1.0
    """A factor on the values that attention mixes."""
    width: int = 512
    layers: int = 4

    @nn.compact
    def __call__(
        self,
        audio_bn: jax.Array,
        heard_bn: jax.Array,
        counted_b: jax.Array | None = None,
        *,
        train: bool,
        dropout_rate: Any = 0.0,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """`heard_bn`, bool, tells an utterance from its padding.

        `counted_b`, bool, keeps rows out of the statistics of batch norm; None means that all count.
        """
        spectra_btf, heard_bt = log_mel(audio_bn, heard_bn)
        if train and key is not None:
            key, mask_key = jax.random.split(key)
            spectra_btf = masked(spectra_btf, heard_bt, mask_key, frequency_masks=2, time_masks=10)
        drop = dropping(dropout_rate, key)
        heard_bs = shortened(heard_bt)
        counted_bs = heard_bs if counted_b is None else heard_bs & counted_b[:, None]
        heard_bs1 = heard_bs[..., None]
        activate = getattr(nn, self.activation)

        def dense(name: str, width: int = self.width) -> nn.Dense:
            return nn.Dense(width, kernel_init=XAVIER, name=name)

        def mlp(x: jax.Array, name: str) -> jax.Array:
            hidden = drop(activate(dense(f"{name}_in", EXPANSION * self.width)(x))) * heard_bs1
            return 0.5 * drop(dense(f"{name}_out")(hidden) * heard_bs1)

        def attention(x: jax.Array, name: str) -> jax.Array:
            return drop(Attention(self.attention_temperature, name=name)(x, heard_bs))

        def convolution(x: jax.Array, name: str) -> jax.Array:
            gated = dense(f"{name}_in")(x) * nn.sigmoid(dense(f"{name}_gate")(x)) * heard_bs1
            depthwise = nn.Conv(
                self.width,
                (REACH,),
                feature_group_count=self.width,
                use_bias=False,
                kernel_init=XAVIER,
                name=f"{name}_depthwise",
            )
            normed = BatchNorm(train, name=f"{name}_batch_norm")(depthwise(gated), heard_bs, counted_bs)
            return drop(dense(f"{name}_out")(activate(normed)))

        parts = dict(zip(PARTS, (mlp, attention, convolution, mlp), strict=True))
        x_bsd = Shorten(self.width, nn.relu, name="shorten")(spectra_btf, heard_bt)
        x_bsd = drop(x_bsd + _places(*x_bsd.shape[1:]))
        for i in range(self.layers):
            for part, layer in parts.items():
                x_bsd += layer(LayerNorm(name=f"{part}_{i}_norm")(x_bsd), f"{part}_{i}")
            if self.norm_out:
                x_bsd = LayerNorm(name=f"layer_{i}_norm")(x_bsd)
        return dense("head", CLASSES)(LayerNorm(name="norm_out")(x_bsd))


class Attention(nn.Module):
    """Self-attention to the heard frames, its queries scaled by softplus of a parameter for each feature of a head."""

    temperature: float

    @nn.compact
    def __call__(self, x_bsd: jax.Array, heard_br: jax.Array) -> jax.Array:
        def dense(name: str, x: jax.Array) -> jax.Array:
            return nn.Dense(x.shape[-1], kernel_init=XAVIER, name=name)(x)

        query, key, value = (
            dense(name, x_bsd).reshape(*x_bsd.shape[:2], HEADS, -1) for name in ("query", "key", "value")
        )
        scale = nn.softplus(self.param("scale", nn.initializers.zeros, query.shape[-1:])) / nn.softplus(0.0)
        mixed_bshk = jax.nn.dot_product_attention(query * scale, key, value, mask=heard_br[:, None, None])
        return dense("out", self.temperature * mixed_bshk.reshape(x_bsd.shape))


def _places(frames: int, width: int) -> jax.Array:
    """Sines and cosines of each frame's place at wavelengths from 2 pi to 2 pi x 10,000: (S, D)."""
    frequencies = 10_000.0 ** -jnp.linspace(0, 1, width // 2)
    angles_sk = jnp.arange(frames)[:, None] * frequencies
    return jnp.concatenate([jnp.sin(angles_sk), jnp.cos(angles_sk)], axis=1)
