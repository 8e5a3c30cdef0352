"""A small decoder-only transformer: pre-norm (Xiong et al. 2020, arXiv:2002.04745), learned positions, an untied head.

Shapes: B rows, T pieces of a row (S where they are attended to), D features, H heads of K features, V pieces in all.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from timetrial.workload import dropout

HEADS = 4
MLP_FACTOR = 4
EMBEDDING_STD = 0.2
"""Of the pieces and the positions; with .02 and a tied head AdamW ended .17 bits per character higher."""


class Transformer(nn.Module):
    """Logits of the piece after each of a row's, float32 (B, T, V); those at t depend on pieces 0..t alone.

    `dropout_rate` applies to the embeddings and to what each sublayer adds to the residual stream. It may be a traced
    number; the number 0 computes no mask.
    """

    vocabulary: int
    context: int
    activation: str = "gelu"
    """`gelu`, `relu`, or `swiglu`: SiLU times a second linear map (Shazeer 2020, arXiv:2002.05202), 2/3 as wide."""
    norm: str = "layer"
    """`layer`; `rms`, which neither centres nor shifts; or `post`: layer norm, but after each sublayer's addition."""
    width: int = 96
    depth: int = 2
    init_scale: float = 1.0
    """Multiplies the standard deviations of all weights but the embeddings."""
    attention_scale: float = 1.0
    """Multiplies the attention scores: an inverse temperature."""

    @nn.compact
    def __call__(self, pieces_bt: jax.Array, *, dropout_rate: Any = 0.0, key: jax.Array | None = None) -> jax.Array:
        def drop(x: jax.Array, place: int) -> jax.Array:
            return x if key is None else dropout(x, dropout_rate, jax.random.fold_in(key, place))

        def norm(x: jax.Array, name: str) -> jax.Array:
            return (nn.RMSNorm if self.norm == "rms" else nn.LayerNorm)(name=name)(x)

        def sublayer(x: jax.Array, layer: nn.Module, name: str, place: int) -> jax.Array:
            if self.norm == "post":
                return norm(x + drop(layer(x), place), name)
            return x + drop(layer(norm(x, name)), place)

        embed_init = nn.initializers.normal(EMBEDDING_STD)
        position_td = self.param("position", embed_init, (self.context, self.width))
        embed = nn.Embed(self.vocabulary, self.width, embedding_init=embed_init, name="embedding")
        x_btd = drop(embed(pieces_bt.astype(jnp.int32)) + position_td, 0)
        out_scale = self.init_scale * (2 * self.depth) ** -0.5
        for i in range(self.depth):
            attention = Attention(self.attention_scale, self.init_scale, out_scale, name=f"attention_{i}")
            x_btd = sublayer(x_btd, attention, f"norm_attention_{i}", 2 * i + 1)
            mlp = MLP(self.activation, self.init_scale, out_scale, name=f"mlp_{i}")
            x_btd = sublayer(x_btd, mlp, f"norm_mlp_{i}", 2 * i + 2)
        if self.norm != "post":
            x_btd = norm(x_btd, "norm_out")
        head_init = nn.initializers.normal(0.02 * self.init_scale)
        return nn.Dense(self.vocabulary, use_bias=False, kernel_init=head_init, name="head")(x_btd)


class Attention(nn.Module):
    """Causal self-attention over the T axis; all heads share a kernel of shape (D, H * K)."""

    scale: float
    init_scale: float
    out_scale: float

    @nn.compact
    def __call__(self, x_btd: jax.Array) -> jax.Array:
        width = x_btd.shape[-1]

        def project(name: str) -> jax.Array:
            y_btd = nn.Dense(width, use_bias=False, kernel_init=_fan_in(self.init_scale), name=name)(x_btd)
            return y_btd.reshape(*y_btd.shape[:2], HEADS, -1)

        query_bthk, key_bshk, value_bshk = project("query"), project("key"), project("value")
        scores_bhts = jnp.einsum("bthk,bshk->bhts", query_bthk, key_bshk) * (self.scale * (width // HEADS) ** -0.5)
        causal_ts = jnp.tri(x_btd.shape[1], dtype=bool)
        attention_bhts = jax.nn.softmax(jnp.where(causal_ts[None, None], scores_bhts, -jnp.inf))
        mixed_bthk = jnp.einsum("bhts,bshk->bthk", attention_bhts, value_bshk)
        out = nn.Dense(width, use_bias=False, kernel_init=_fan_in(self.out_scale), name="out")
        return out(mixed_bthk.reshape(x_btd.shape))


class MLP(nn.Module):
    """Two linear layers with a nonlinearity between them, without biases."""

    activation: str
    init_scale: float
    out_scale: float

    @nn.compact
    def __call__(self, x_btd: jax.Array) -> jax.Array:
        width = x_btd.shape[-1]
        hidden = MLP_FACTOR * width

        def linear(features: int, scale: float, name: str) -> nn.Dense:
            return nn.Dense(features, use_bias=False, kernel_init=_fan_in(scale), name=name)

        if self.activation == "swiglu":
            hidden = 2 * hidden // 3
            gate = linear(hidden, self.init_scale, "gate")(x_btd)
            h_btm = nn.silu(gate) * linear(hidden, self.init_scale, "in")(x_btd)
        else:
            h_btm = getattr(nn, self.activation)(linear(hidden, self.init_scale, "in")(x_btd))
        return linear(width, self.out_scale, "out")(h_btm)


def _fan_in(scale: float) -> nn.initializers.Initializer:
    """Normal, with the variance scale**2 / fan-in; smaller scales where a layer adds to the residual stream (GPT-2)."""
    return nn.initializers.variance_scaling(scale**2, "fan_in", "normal")
