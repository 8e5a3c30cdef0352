"""A graph network with states of edges, nodes and the whole graph (Battaglia et al. 2018, arXiv:1806.01261).

Shapes: B graphs, N nodes, K places for neighbours of a node, D features of a state, L labels. The edge (n, k) leads to
node n from its k-th neighbour, so sums over incoming edges are sums over the K axis, and only reading the neighbours'
states needs an index; that is a product with a one-hot matrix, whose gradient is another product and no scatter.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from timetrial.workloads.molecules.data import CODES

from timetrial.workload import dropout

ACTIVATIONS = {"relu": nn.relu, "gelu": nn.gelu, "silu": nn.silu, "tanh": nn.tanh}
NORMS = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}


class GraphNetwork(nn.Module):
    """Log odds of each label, float32 (B, L). Nodes of element 0 and edges of bond 0 do not exist, and change nothing.

    A step updates the edges, then the nodes, then the whole: one layer each, of all states that it sees, normalised.
    `init_scale` multiplies the variance of all initial kernels; `residual` adds what is updated to what was there.
    `dropout_rate` applies to all updated states. It may be a traced number; the number 0 computes no mask.
    """

    labels: int
    width: int = 64
    """Of the states of nodes and of the whole graph; those of edges have half of it."""
    steps: int = 3
    activation: str = "relu"
    norm: str = "layer"
    aggregation: str = "sum"
    residual: bool = False
    init_scale: float = 1.0

    @nn.compact
    def __call__(
        self, graph: Mapping[str, jax.Array], *, dropout_rate: Any = 0.0, key: jax.Array | None = None
    ) -> jax.Array:
        node_mask = (graph["element"] > 0)[..., None].astype(jnp.float32)
        edge_mask = (graph["bond"] > 0)[..., None].astype(jnp.float32)
        b, n, k = graph["bond"].shape
        source_b_nk_n = jax.nn.one_hot(graph["neighbour"].reshape(b, n * k), n)

        def at_neighbours(x_bnd: jax.Array) -> jax.Array:
            return (source_b_nk_n @ x_bnd).reshape(b, n, k, -1)

        def embed(feature: str, width: int) -> jax.Array:
            table = self.param(feature, nn.initializers.normal(1.0), (CODES[feature], width))
            return jax.nn.one_hot(graph[feature], len(table)) @ table

        def total(x: jax.Array, mask: jax.Array) -> jax.Array:
            """The sum over the axis before the last, or the mean over what exists."""
            count = 1.0 if self.aggregation == "sum" else jnp.maximum(jnp.sum(mask, axis=-2), 1.0)
            return jnp.sum(x * mask, axis=-2) / count

        def updated(state: jax.Array, name: str, x: jax.Array, place: int) -> jax.Array:
            x = ACTIVATIONS[self.activation](NORMS[self.norm](name=name)(x))
            if key is not None:
                x = dropout(x, dropout_rate, jax.random.fold_in(key, place))
            return state + x if self.residual else x

        edge_width = self.width // 2
        nodes = embed("element", self.width) + embed("hydrogens", self.width)
        edges = embed("bond", edge_width)
        whole = total(nodes, node_mask)
        for i in range(self.steps):
            to_edges = partial(self._dense, width=edge_width, inputs=4)
            to_nodes = to_whole = partial(self._dense, width=self.width, inputs=3)
            sums = (
                to_edges(f"edge_edge_{i}", edges)
                + at_neighbours(to_edges(f"edge_source_{i}", nodes))
                + to_edges(f"edge_target_{i}", nodes)[:, :, None]
                + to_edges(f"edge_graph_{i}", whole, use_bias=True)[:, None, None]
            )
            edges = updated(edges, f"edge_norm_{i}", sums, 3 * i)
            incoming = total(edges, edge_mask)
            sums = (
                to_nodes(f"node_node_{i}", nodes)
                + to_nodes(f"node_edges_{i}", incoming)
                + to_nodes(f"node_graph_{i}", whole, use_bias=True)[:, None]
            )
            nodes = updated(nodes, f"node_norm_{i}", sums, 3 * i + 1)
            sums = (
                to_whole(f"graph_nodes_{i}", total(nodes, node_mask))
                + to_whole(f"graph_edges_{i}", total(incoming, node_mask))
                + to_whole(f"graph_graph_{i}", whole, use_bias=True)
            )
            whole = updated(whole, f"graph_norm_{i}", sums, 3 * i + 2)
        return self._dense("head", whole, width=self.labels, use_bias=True)

    def _dense(self, name: str, x: jax.Array, *, width: int, inputs: int = 1, use_bias: bool = False) -> jax.Array:
        """One of the `inputs` products whose sum is a layer's: together they start as one product would."""
        init = nn.initializers.variance_scaling(self.init_scale / inputs, "fan_in", "truncated_normal")
        return nn.Dense(width, use_bias=use_bias, kernel_init=init, name=name)(x)
