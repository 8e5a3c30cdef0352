"""A graph network with states of edges, nodes and the whole graph (Battaglia et al. 2018, arXiv:1806.01261).

Sizes are AlgoPerf's. Shapes: a pack of G graphs in P places, for a node and a bond each; E = 2 P edges (a bond leads
both ways), D features of a state, L labels.
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
    """Log odds of each label, float32 (G, L). Nodes and bonds that do not exist change nothing.

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
        self, graphs: Mapping[str, jax.Array], *, dropout_rate: Any = 0.0, key: jax.Array | None = None
    ) -> jax.Array:
        """`graphs` is a pack (`packing.pack`)."""
        drop = dropping(dropout_rate, key)
        row_p, rows = graphs["row"], len(graphs["rows"])
        node_exists_p1 = graphs["atom_exists"][:, None]
        edge_exists_e1 = jnp.tile(graphs["bond_exists"], 2)[:, None]
        from_e, to_e = (jnp.concatenate([graphs["ends"][:, end], graphs["ends"][:, 1 - end]]) for end in (0, 1))

        def updated(name: str, parts: Sequence[tuple[jax.Array, Callable[[jax.Array], jax.Array]]]) -> jax.Array:
            x = Joint(name=f"{name}_0")(parts)
            for layer in range(self.layers):
                if layer > 0:
                    x = nn.Dense(HIDDEN, name=f"{name}_{layer}")(x)
                x = drop(getattr(nn, self.activation)(nn.LayerNorm(name=f"{name}_{layer}_norm")(x)))
            return x

        def itself(x: jax.Array) -> jax.Array:
            return x

        def to_nodes(whole_gd: jax.Array) -> jax.Array:
            return whole_gd[row_p]

        def to_edges(whole_gd: jax.Array) -> jax.Array:
            return jnp.tile(whole_gd[row_p], (2, 1))

        def edges_at(place_e: jax.Array) -> jax.Array:
            """Sums over the edges of each node, (P, D)."""
            return jnp.zeros((len(row_p), edges.shape[1])).at[place_e].add(edges)

        def total(x_pd: jax.Array) -> jax.Array:
            """Sums over the places of each graph, (G, D)."""
            return jax.ops.segment_sum(x_pd, row_p, rows, indices_are_sorted=True)

        nodes = nn.Dense(self.width, name="atoms")(graphs["atoms"].astype(jnp.float32))
        bonds = nn.Dense(self.width, name="bonds")(graphs["bonds"].astype(jnp.float32))
        edges = jnp.tile(bonds, (2, 1))
        whole = jnp.zeros((rows, LABELS))
        for i in range(self.steps):
            ends = [(nodes, lambda x, place=place: x[place]) for place in (from_e, to_e)]
            edges = updated(f"edge_{i}", [(edges, itself), *ends, (whole, to_edges)])
            edges = jnp.where(edge_exists_e1, edges, 0.0)
            around = [(edges_at(place), itself) for place in (from_e, to_e)]
            nodes = updated(f"node_{i}", [(nodes, itself), *around, (whole, to_nodes)])
            nodes = jnp.where(node_exists_p1, nodes, 0.0)
            there, back = jnp.split(edges, 2)
            within = [(total(nodes), itself), (total(there + back), itself)]
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
