"""A small DLRM (Naumov et al. 2019, arXiv:1906.00091): embeddings, a bottom and a top MLP, pairwise interactions.

Shapes: B rows, N numeric and C categorical columns, D features of an embedding, F = C + 1 vectors that interact.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from timetrial.workload import dropout

EMBEDDING_DIM = 8
BOTTOM_WIDTHS = (512, 256, EMBEDDING_DIM)
TOP_WIDTHS = (512, 512, 256)


class DLRM(nn.Module):
    """The log odds of a positive label, float32 (B,).

    The columns share one embedding table, in which each owns a range of rows; `categorical` holds row numbers.
    `dropout_rate` applies to the hidden layers of the top MLP, and may be a traced number; 0 computes no mask.
    """

    embedding_rows: int

    @nn.compact
    def __call__(
        self, numeric_bn: jax.Array, categorical_bc: jax.Array, *, dropout_rate: Any = 0.0, key: jax.Array | None = None
    ) -> jax.Array:
        table_init = nn.initializers.normal(EMBEDDING_DIM**-0.5)
        table = nn.Embed(self.embedding_rows, EMBEDDING_DIM, embedding_init=table_init, name="embedding")
        dense_bd = numeric_bn
        for i, width in enumerate(BOTTOM_WIDTHS):
            dense_bd = nn.relu(nn.Dense(width, name=f"bottom_{i}")(dense_bd))
        vectors_bfd = jnp.concatenate([dense_bd[:, None], table(categorical_bc)], axis=1)
        dots_bff = jnp.einsum("bfd,bgd->bfg", vectors_bfd, vectors_bfd)
        pairs = np.tril_indices(vectors_bfd.shape[1], k=-1)
        hidden = jnp.concatenate([dense_bd, dots_bff[:, *pairs]], axis=1)
        for i, width in enumerate(TOP_WIDTHS):
            hidden = nn.relu(nn.Dense(width, name=f"top_{i}")(hidden))
            if key is not None:
                hidden = dropout(hidden, dropout_rate, jax.random.fold_in(key, i))
        return nn.Dense(1, name="head")(hidden)[:, 0]
