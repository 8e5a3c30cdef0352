"""A graph network with states of edges, nodes and the whole graph (Battaglia et al. 2018, arXiv:1806.01261).

Sizes are AlgoPerf's. Shapes: B graphs, N nodes, K bonds, E = 2 K edges (a bond leads both ways), D features of a state,
L labels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from timetrial.full.dropping import dropping
from timetrial.full.molpcba import LABELS

HIDDEN = 256
"""Features of each layer of an update."""
ENTITIES = ("edge", "node", "graph")


class GraphNetwork(nn.Module):
    """Log odds of each label, float32 (B, L). Nodes and bonds that do not exist change nothing.

    A step updates the edges, from their ends' states among others; then the nodes, from the sums of the edges that
    leave and of those that arrive; then the whole, from the sums of both: layers with layer norm each. The whole starts
    as zeros, and the head reads its last state. `dropout_rate` applies behind each layer; it may be traced; 0 computes
    no mask.
    """

    activation: Literal["relu", "gelu", "silu"] = "relu"
    width: int = 256
    """Features of the first states of nodes and edges."""
    layers: int = 1
    """Of an update."""
    steps: int = 5

    @nn.compact
    def __call__(
        self, graph: Mapping[str, jax.Array], *, dropout_rate: Any = 0.0, key: jax.Array | None = None
    ) -> jax.Array:
        """`graph` has `atoms` (B, N, ·), `bonds` (B, K, ·), the two `ends` of each bond (B, K, 2), and masks.

        The masks, bool, tell which `atom_exists` (B, N) and which `bond_exists` (B, K).
        """
        drop = dropping(dropout_rate, key)
        node_exists_bn1 = graph["atom_exists"][..., None]
        edge_exists_be1 = jnp.tile(graph["bond_exists"], (1, 2))[..., None]
        from_be, to_be = (
            jnp.concatenate([graph["ends"][..., end], graph["ends"][..., 1 - end]], axis=1) for end in (0, 1)
        )
        rows_b1 = jnp.arange(len(from_be))[:, None]

        def updated(name: str, parts: Sequence[tuple[jax.Array, Callable[[jax.Array], jax.Array]]]) -> jax.Array:
            x = Joint(name=f"{name}_0")(parts)
            for layer in range(self.layers):
                if layer > 0:
                    x = nn.Dense(HIDDEN, name=f"{name}_{layer}")(x)
                x = drop(getattr(nn, self.activation)(nn.LayerNorm(name=f"{name}_{layer}_norm")(x)))
            return x

        def itself(x: jax.Array) -> jax.Array:
            return x

        def to_all(whole_bd: jax.Array) -> jax.Array:
            return whole_bd[:, None]

        def edges_at(place_be: jax.Array) -> jax.Array:
            """Sums over the existing edges of each node, (B, N, D)."""
            existing = jnp.where(edge_exists_be1, edges, 0.0)
            return jnp.zeros((*nodes.shape[:2], edges.shape[-1])).at[rows_b1, place_be].add(existing)

        def total(x: jax.Array, exists: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(exists, x, 0.0), axis=1)

        nodes = nn.Dense(self.width, name="atoms")(graph["atoms"].astype(jnp.float32))
        bonds = nn.Dense(self.width, name="bonds")(graph["bonds"].astype(jnp.float32))
        edges = jnp.tile(bonds, (1, 2, 1))
        whole = jnp.zeros((len(nodes), LABELS))
        for i in range(self.steps):
            ends = [(nodes, lambda x, place=place: x[rows_b1, place]) for place in (from_be, to_be)]
            edges = updated(f"edge_{i}", [(edges, itself), *ends, (whole, to_all)])
            around = [(edges_at(place), itself) for place in (from_be, to_be)]
            nodes = updated(f"node_{i}", [(nodes, itself), *around, (whole, to_all)])
            within = [(total(nodes, node_exists_bn1), itself), (total(edges, edge_exists_be1), itself)]
            whole = updated(f"graph_{i}", [*within, (whole, itself)])
        return nn.Dense(LABELS, name="head")(whole)


class Joint(nn.Module):
    """One layer of several states side by side; each state's product is brought to its places before they are added."""

    @nn.compact
    def __call__(self, parts: Sequence[tuple[jax.Array, Callable[[jax.Array], jax.Array]]]) -> jax.Array:
        widths = [x.shape[-1] for x, _ in parts]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (sum(widths), HIDDEN))
        bias = self.param("bias", nn.initializers.zeros, (HIDDEN,))
        start, result = 0, bias
        for (x, place), width in zip(parts, widths, strict=True):
            result = result + place(x @ kernel[start : start + width])
            start += width
        return result
