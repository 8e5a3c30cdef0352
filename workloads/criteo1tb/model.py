"""DLRM-small (Naumov et al. 2019, arXiv:1906.00091), with AlgoPerf's sizes (Dahl et al. 2023, arXiv:2306.07179).

Shapes: B rows, N numeric and C categorical columns, D features of an embedding, F = C + 1 vectors that interact.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.typing import Initializer

from timetrial.full.dropping import dropping

EMBEDDING_ROWS = 4_194_304
EMBEDDING_DIM = 128
_WIDTHS = {
    "interactions": ((512, 256, 128), (1024, 1024, 512, 256)),
    "residual": ((256, 256, 256), (256, 256, 256, 256)),
}
"""Of the hidden layers of the bottom and the top MLP."""
_BOTTOM_INIT = nn.initializers.glorot_uniform()
_TOP_INIT = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")


class DLRM(nn.Module):
    """The log odds of a click, float32 (B,).

    The columns share one embedding table: a category is the row of its number, modulo the table's rows. Either the
    vectors' dot products meet in the top MLP, or (`residual`) the vectors themselves, and each layer of the MLPs but
    their first adds to its input. `dropout_rate` is of the last hidden layer; it may be traced; 0 computes no mask.
    """

    embedding_rows: int = EMBEDDING_ROWS
    embedding_limit: float = EMBEDDING_ROWS**-0.5
    """Initial embeddings are uniform from 0 to this."""
    structure: Literal["interactions", "residual"] = "interactions"
    norm: Literal["none", "layer"] = "none"
    """Of the embeddings and of the hidden layers, behind the nonlinearity."""

    @property
    def widths(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of the hidden layers of the bottom and the top MLP."""
        return _WIDTHS[self.structure]

    @nn.compact
    def __call__(
        self, numeric_bn: jax.Array, categorical_bc: jax.Array, *, dropout_rate: Any = 0.0, key: jax.Array | None = None
    ) -> jax.Array:
        drop = dropping(dropout_rate, key)
        bottom_widths, top_widths = self.widths
        table_init = nn.initializers.uniform(self.embedding_limit)
        table = nn.Embed(self.embedding_rows, EMBEDDING_DIM, embedding_init=table_init, name="embedding")
        vectors_bcd = table(categorical_bc % self.embedding_rows)
        if self.norm == "layer":
            vectors_bcd = nn.LayerNorm(name="embedding_norm")(vectors_bcd)

        hidden = numeric_bn
        for i, width in enumerate(bottom_widths):
            hidden = self._layer(hidden, width, f"bottom_{i}", _BOTTOM_INIT, residual=i > 0)
        if self.structure == "interactions":
            vectors_bfd = jnp.concatenate([hidden[:, None], vectors_bcd], axis=1)
            dots_bff = jnp.einsum("bfd,bgd->bfg", vectors_bfd, vectors_bfd)
            meeting = dots_bff[:, *np.triu_indices(vectors_bfd.shape[1])]
        else:
            meeting = vectors_bcd.reshape(len(vectors_bcd), -1)
        hidden = jnp.concatenate([hidden, meeting], axis=1)
        for i, width in enumerate(top_widths):
            last = i == len(top_widths) - 1
            hidden = self._layer(hidden, width, f"top_{i}", _TOP_INIT, residual=i > 0, drop=drop if last else None)
        return self._dense(hidden, 1, "head", _TOP_INIT)[:, 0]

    def _layer(
        self,
        x: jax.Array,
        width: int,
        name: str,
        init: nn.initializers.Initializer,
        *,
        residual: bool,
        drop: Any = None,
    ) -> jax.Array:
        y = nn.relu(self._dense(x, width, name, init))
        if self.norm == "layer":
            y = nn.LayerNorm(name=f"{name}_norm")(y)
        if drop is not None:
            y = drop(y)
        return x + y if residual and self.structure == "residual" else y

    def _dense(self, x: jax.Array, width: int, name: str, init: Initializer) -> jax.Array:
        """Biases start with the deviation 1 / sqrt(width)."""
        return nn.Dense(width, kernel_init=init, bias_init=nn.initializers.normal(width**-0.5), name=name)(x)
