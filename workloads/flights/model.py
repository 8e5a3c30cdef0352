"""A small DLRM (Naumov et al. 2019, arXiv:1906.00091): embeddings, a bottom and a top MLP, pairwise interactions.

Shapes: B rows, N numeric and C categorical columns, D features of an embedding, F = C + 1 vectors that interact.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from timetrial.workload import dropout

ACTIVATIONS = {"relu": nn.relu, "gelu": nn.gelu, "tanh": jnp.tanh}


class DLRM(nn.Module):
    """The log odds of a positive label, float32 (B,).

    The columns share one embedding table, in which each owns a range of rows; `categorical` holds row numbers.
    `dropout_rate` applies to the hidden layers of the top MLP, and may be a traced number; 0 computes no mask.
    """

    embedding_rows: int
    activation: str = "relu"
    norm: str = "none"
    """Of the hidden layers, before the nonlinearity: "none", or "layer" (AlgoPerf's `criteo1tb_layernorm`)."""
    width: int = 512
    """Of the hidden layers of both MLPs but the last, which is half as wide."""
    depth: int = 3
    """Hidden layers of the top MLP."""
    embedding_dim: int = 8
    embedding_scale: float = 1.0
    """Times D^-1/2: the deviation of the initial embeddings (AlgoPerf's `criteo1tb_embed_init`)."""

    @property
    def bottom_widths(self) -> tuple[int, ...]:
        return self.width, self.width // 2, self.embedding_dim

    @property
    def top_widths(self) -> tuple[int, ...]:
        return *(self.width,) * (self.depth - 1), self.width // 2

    @nn.compact
    def __call__(
        self, numeric_bn: jax.Array, categorical_bc: jax.Array, *, dropout_rate: Any = 0.0, key: jax.Array | None = None
    ) -> jax.Array:
        table_init = nn.initializers.normal(self.embedding_scale * self.embedding_dim**-0.5)
        table = nn.Embed(self.embedding_rows, self.embedding_dim, embedding_init=table_init, name="embedding")
        dense_bd = numeric_bn
        for i, width in enumerate(self.bottom_widths):
            dense_bd = self._layer(dense_bd, width, f"bottom_{i}")
        vectors_bfd = jnp.concatenate([dense_bd[:, None], table(categorical_bc)], axis=1)
        dots_bff = jnp.einsum("bfd,bgd->bfg", vectors_bfd, vectors_bfd)
        pairs = np.tril_indices(vectors_bfd.shape[1], k=-1)
        hidden = jnp.concatenate([dense_bd, dots_bff[:, *pairs]], axis=1)
        for i, width in enumerate(self.top_widths):
            hidden = self._layer(hidden, width, f"top_{i}")
            if key is not None:
                hidden = dropout(hidden, dropout_rate, jax.random.fold_in(key, i))
        return nn.Dense(1, name="head")(hidden)[:, 0]

    def _layer(self, x: jax.Array, width: int, name: str) -> jax.Array:
        x = nn.Dense(width, name=name)(x)
        if self.norm == "layer":
            x = nn.LayerNorm(name=f"{name}_norm")(x)
        return ACTIVATIONS[self.activation](x)
