"""A small decoder-only transformer: pre-norm (Xiong et al. 2020, arXiv:2002.04745), learned positions, GELU.

Shapes: B rows, T characters of a row (S where they are attended to), D features, H heads of K features, V symbols.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from timetrial.workload import dropout

LAYERS = 2
WIDTH = 96
HEADS = 4
MLP_WIDTH = 4 * WIDTH


class Transformer(nn.Module):
    """Logits of the character after each of a row's, float32 (B, T, V); those at t depend on characters 0..t alone.

    `dropout_rate` applies to the embeddings and to what each sublayer adds to the residual stream. It may be a traced
    number; the number 0 computes no mask.
    """

    symbols: int
    context: int

    @nn.compact
    def __call__(self, text_bt: jax.Array, *, dropout_rate: Any = 0.0, key: jax.Array | None = None) -> jax.Array:
        def drop(x: jax.Array, place: int) -> jax.Array:
            return x if key is None else dropout(x, dropout_rate, jax.random.fold_in(key, place))

        init = nn.initializers.normal(0.02)
        position_td = self.param("position", init, (self.context, WIDTH))
        x_btd = nn.Embed(self.symbols, WIDTH, embedding_init=init, name="embedding")(text_bt.astype(jnp.int32))
        x_btd = drop(x_btd + position_td, 0)
        for i in range(LAYERS):
            normed_btd = nn.LayerNorm(name=f"norm_attention_{i}")(x_btd)
            x_btd += drop(Attention(name=f"attention_{i}")(normed_btd), 2 * i + 1)
            normed_btd = nn.LayerNorm(name=f"norm_mlp_{i}")(x_btd)
            hidden = nn.gelu(nn.Dense(MLP_WIDTH, kernel_init=init, name=f"mlp_in_{i}")(normed_btd))
            x_btd += drop(nn.Dense(WIDTH, kernel_init=_residual_init, name=f"mlp_out_{i}")(hidden), 2 * i + 2)
        x_btd = nn.LayerNorm(name="norm_out")(x_btd)
        return nn.Dense(self.symbols, use_bias=False, kernel_init=init, name="head")(x_btd)


class Attention(nn.Module):
    """Causal self-attention over the T axis; all heads share a kernel of shape (D, H * K)."""

    @nn.compact
    def __call__(self, x_btd: jax.Array) -> jax.Array:
        def project(name: str) -> jax.Array:
            y_btd = nn.Dense(WIDTH, use_bias=False, kernel_init=nn.initializers.normal(0.02), name=name)(x_btd)
            return y_btd.reshape(*y_btd.shape[:2], HEADS, -1)

        query_bthk, key_bshk, value_bshk = project("query"), project("key"), project("value")
        scores_bhts = jnp.einsum("bthk,bshk->bhts", query_bthk, key_bshk) * (WIDTH // HEADS) ** -0.5
        causal_ts = jnp.tri(x_btd.shape[1], dtype=bool)
        attention_bhts = jax.nn.softmax(jnp.where(causal_ts[None, None], scores_bhts, -jnp.inf))
        mixed_bthk = jnp.einsum("bhts,bshk->bthk", attention_bhts, value_bshk)
        return nn.Dense(WIDTH, use_bias=False, kernel_init=_residual_init, name="out")(mixed_bthk.reshape(x_btd.shape))


_residual_init = nn.initializers.normal(0.02 * (2 * LAYERS) ** -0.5)
"""Smaller where a layer adds to the residual stream, so that its variance does not grow with depth (GPT-2)."""
