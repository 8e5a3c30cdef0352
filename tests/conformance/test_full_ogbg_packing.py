"""Molecules in packs: what the network finds of each is what it finds of the molecule alone."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arbitrary import arbitrary_state
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export
from timetrial.workloads.ogbg import MODEL, build
from timetrial.workloads.ogbg.packing import PLACES, by_packs

from timetrial.isolation.inspection import inspect
from timetrial.problem import WorkloadProblem
from timetrial.rows import rows_in

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = jax.random.key(0)
ATOMS, BONDS, ROWS = 60, 70, 64
ROOM = ROWS // 2 * PLACES + BONDS // 2
"""Of a pack: there are two."""
STEPS = 2
WORKLOAD = build(replace(MODEL, steps=STEPS))
PARAMS = arbitrary_state(WORKLOAD)[0]


def molecules(atoms, bonds, seed=0):
    """A batch of molecules of those sizes, with noise on free places."""
    rng, rows = np.random.RandomState(seed), len(atoms)
    atoms, bonds = np.array(atoms), np.where(atoms, bonds, 0)
    return {
        "atoms": rng.randint(0, 5, (rows, ATOMS, 9)).astype(np.uint8),
        "atom_padding": (ATOMS - atoms).astype(np.int32),
        "bonds": rng.randint(0, 5, (rows, BONDS, 3)).astype(np.uint8),
        "bond_padding": (BONDS - bonds).astype(np.int32),
        "ends": (rng.randint(0, 10**6, (rows, BONDS, 2)) % np.maximum(atoms, 1)[:, None, None]).astype(np.uint16),
        "label": rng.randint(0, 3, (rows, 128)).astype(np.uint8),
    }


def sized(low, high, seed=0):
    atoms = np.random.RandomState(seed).randint(low, high + 1, ROWS)
    return molecules(atoms, np.minimum(atoms + 2, BONDS), seed)


BATCHES = {
    "that fit": sized(20, 30),
    "that do not fit": sized(20, ATOMS),
    "of which one group does not fit": molecules([20] * 32 + [60] * 32, [20] * 32 + [70] * 32),
    "as large as they may be": molecules([ATOMS] * ROWS, [BONDS] * ROWS),
    "that are not there": molecules([0, 1] * 32, [0] * ROWS),
}
FITS = {"that fit", "that are not there"}


def alone(params, atoms, bonds, ends):
    """The logits of one molecule by a graph network in numpy, written from the paper and AlgoPerf's sizes."""

    def dense(name, x):
        return x @ params[name]["kernel"] + params[name]["bias"]

    def update(name, *parts):
        x = dense(f"{name}_0", np.concatenate(parts, axis=-1))
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return np.maximum(x * params[f"{name}_0_norm"]["scale"] + params[f"{name}_0_norm"]["bias"], 0)

    nodes, edges, whole = dense("atoms", atoms), np.tile(dense("bonds", bonds), (2, 1)), np.zeros(128)
    source, target = np.append(ends[:, 0], ends[:, 1]), np.append(ends[:, 1], ends[:, 0])
    for i in range(STEPS):
        edges = update(f"edge_{i}", edges, nodes[source], nodes[target], np.tile(whole, (len(edges), 1)))
        leaving, arriving = np.zeros((2, len(nodes), 256))
        np.add.at(leaving, source, edges)
        np.add.at(arriving, target, edges)
        nodes = update(f"node_{i}", nodes, leaving, arriving, np.tile(whole, (len(nodes), 1)))
        whole = update(f"graph_{i}", nodes.sum(0), edges.sum(0), whole)
    return dense("head", whole)


@jax.jit
def logits(batch):
    return WORKLOAD.apply(PARAMS, {}, batch, KEY, train=False)[0]


@jax.jit
def gradient(params, batch):
    """Of the sum of the losses of the rows whose weight is 1."""

    def total(params):
        outputs, _ = WORKLOAD.apply(params, {}, batch, KEY, train=True, dropout_rate=0.0)
        return jnp.sum(WORKLOAD.loss(outputs, batch)[0] * batch["weights"])

    return jax.grad(total)(params)


@pytest.mark.parametrize("kind", BATCHES)
def test_molecules_have_the_logits_that_each_has_alone(kind):
    batch = BATCHES[kind]
    atoms, bonds = ATOMS - batch["atom_padding"], BONDS - batch["bond_padding"]
    assert np.all(np.maximum(atoms, bonds).reshape(2, -1).sum(1) <= ROOM) == (kind in FITS)
    rows = zip(atoms, bonds, batch["atoms"], batch["bonds"], batch["ends"], strict=True)
    expected = [alone(PARAMS, a[:i].astype(float), b[:j].astype(float), e[:j]) for i, j, a, b, e in rows]
    np.testing.assert_allclose(logits(batch), expected, rtol=1e-4, atol=1e-4)


def in_parts(function, batch):
    """The sum of what it finds of parts too small to be packed."""
    parts = [function(PARAMS, {name: array[i : i + 8] for name, array in batch.items()}) for i in range(0, ROWS, 8)]
    return jax.tree.map(lambda *found: sum(found), *parts)


@jax.jit
def curvature(params, batch):
    """The product of the Hessian with a vector, forwards over back."""
    keys = jax.random.split(KEY, len(jax.tree.leaves(params)))
    normal = [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, jax.tree.leaves(params), strict=True)]
    direction = jax.tree.unflatten(jax.tree.structure(params), normal)
    return jax.jvp(lambda params: gradient(params, batch), (params,), (direction,))[1]


@pytest.mark.parametrize("kind", ["that fit", "that do not fit", "that are not there"])
@pytest.mark.parametrize("derivative", [gradient, curvature], ids=["gradient", "curvature"])
def test_derivatives_are_those_of_batches_too_small_to_be_packed(kind, derivative):
    weights = np.arange(ROWS, dtype=np.float32) % 4 > 0
    batch = {**BATCHES[kind], "weights": weights.astype(np.float32)}
    expected = in_parts(derivative, batch)
    for found, wanted in zip(*map(jax.tree.leaves, (derivative(PARAMS, batch), expected)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max() + 1e-4)


@cache
def sums(rows):
    """A program that adds up first features of a molecule: of its atoms, and of its bonds with those of their ends."""

    def network(graphs, key):
        first, (a, b) = graphs["atoms"][:, 0].astype(float), graphs["ends"].T
        bond = graphs["bonds"][:, 0] + 10.0 * first[a] + 100.0 * first[b]
        values = jnp.stack([first * graphs["atom_exists"], bond * graphs["bond_exists"]], axis=1)
        return jax.ops.segment_sum(values, graphs["row"], len(graphs["rows"]))

    return jax.jit(lambda batch: by_packs(network, batch, KEY))


SIZES = st.tuples(st.sampled_from([0, 1, 5, 26, 40, ATOMS]), st.sampled_from([0, 1, 28, BONDS]))


@settings(max_examples=25)
@given(sizes=st.sampled_from([5, 32, 96]).flatmap(lambda rows: st.lists(SIZES, min_size=rows, max_size=rows)))
def test_every_atom_and_bond_goes_with_its_molecule(sizes):
    atoms, bonds = zip(*sizes, strict=True)
    batch = molecules(atoms, bonds)
    expected = []
    for i, (n, k) in enumerate(zip(ATOMS - batch["atom_padding"], BONDS - batch["bond_padding"], strict=True)):
        first, (a, b) = batch["atoms"][i, :, 0].astype(float), batch["ends"][i, :k].astype(int).T
        expected.append([first[:n].sum(), (batch["bonds"][i, :k, 0] + 10 * first[a] + 100 * first[b]).sum()])
    np.testing.assert_array_equal(sums(len(sizes))(batch), expected)


def test_a_bond_to_an_atom_that_is_not_there_is_none():
    batch = BATCHES["that fit"]
    beyond = {**batch, "ends": batch["ends"].copy(), "bond_padding": batch["bond_padding"] - 3}
    beyond["ends"][:, :, 1] = np.where(
        np.arange(BONDS) < (BONDS - batch["bond_padding"])[:, None], beyond["ends"][:, :, 1], ATOMS - 1
    )
    np.testing.assert_array_equal(sums(ROWS)(beyond), sums(ROWS)(batch))


def of_loss(batch):
    """The gradient of `problem.loss` as a function of the parameters, for a model of one step; those, and the rows."""
    workload = build(replace(MODEL, steps=1))
    problem = WorkloadProblem(workload)
    leaves = problem.anonymous(batch)

    def gradients(params, rows=leaves):
        with problem.counted():
            return jax.grad(lambda p: problem.loss(p, [], rows, KEY)[0])(params)

    return gradients, jax.tree.leaves(arbitrary_state(workload)[0]), leaves


def test_a_batch_in_packs_costs_its_rows_also_as_a_program_without_python():
    gradients, params, _ = of_loss(BATCHES["that fit"])
    assert rows_in(jax.make_jaxpr(gradients)(params).jaxpr) == ROWS
    product = jax.make_jaxpr(lambda p: jax.jvp(gradients, (p,), (p,)))(params)
    assert rows_in(product.jaxpr) == 2 * ROWS
    assert inspect(export.export(jax.jit(gradients))(params).mlir_module()).rows == ROWS


def test_gradients_of_single_rows_take_no_branches():
    gradients, params, rows = of_loss(BATCHES["that fit"])
    single = jax.vmap(lambda row: gradients(params, jax.tree.map(lambda x: x[None], row)))
    traced = jax.make_jaxpr(single)(rows)
    assert rows_in(traced.jaxpr) == ROWS
    assert "cond[" not in str(traced)
    assert "cond[" in str(jax.make_jaxpr(gradients)(params))
