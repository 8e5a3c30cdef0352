"""The workload `molecules`: its graph network, loss and ranking metric, and what its graphs and labels say."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from arbitrary import arbitrary_state
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared import prepared_splits
from sklearn.metrics import average_precision_score
from timetrial.workloads.molecules import LABELS, MODEL, WORKLOAD, average_precision, build, finalize
from timetrial.workloads.molecules.data import digests_of, generate, graphs_of, labels_of, splits_of

from timetrial.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_compilation")
L, N, K, STEPS, D = 12, 9, 4, 2, 16
SMALL = build(replace(MODEL, width=D, steps=STEPS))
# Methanol, and hydrogen cyanide twice, the second time with its atoms in another order; angstroms.
ELEMENTS = [["C", "O", "H", "H", "H", "H"], ["C", "N", "H"], ["H", "N", "C"]]
PLACES = [
    [0, 0, 0, 1.42, 0, 0, 1.75, 0.9, 0, -0.36, 1.03, 0, -0.36, -0.51, 0.89, -0.36, -0.51, -0.89],
    [0, 0, 0, 1.15, 0, 0, -1.07, 0, 0],
    [-1.07, 0, 0, 1.15, 0, 0, 0, 0, 0],
]


def random_graphs(rows, seed):
    """A batch of connected graphs of 1 to 9 nodes, with neighbours that agree on their bonds, and free places."""
    rng = np.random.RandomState(seed)
    batch = {name: np.zeros((rows, *field.shape), np.uint8) for name, field in WORKLOAD.fields.items()}
    batch["neighbour"][:] = np.arange(N)[:, None]
    batch["label"] = rng.randint(0, 3, (rows, L)).astype(np.uint8)
    for row in range(rows):
        degree = np.zeros(N, int)
        nodes = rng.randint(1, N + 1)
        batch["element"][row, :nodes] = rng.randint(1, 5, nodes)
        batch["hydrogens"][row, :nodes] = rng.randint(0, 5, nodes)
        for node in range(1, nodes):
            other = rng.choice(np.flatnonzero(degree[:node] < K))
            code = rng.randint(1, 24)
            for a, b in ((node, other), (other, node)):
                batch["neighbour"][row, a, degree[a]] = b
                batch["bond"][row, a, degree[a]] = code
                degree[a] += 1
    return batch


@pytest.fixture(scope="module")
def params():
    return arbitrary_state(SMALL)[0]


@pytest.fixture(scope="module")
def splits():
    return prepared_splits(WORKLOAD)


@jax.jit
def logits_of(params, batch):
    return SMALL.apply(params, {}, batch, jax.random.key(0), train=False)[0]


def network_in_numpy(params, graph):
    """Logits (L,) of one graph, in float64, from lists of its nodes and edges without any padding."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def layer(name, inputs):
        x = sum(x @ p[f"{name[:-2]}_{source}{name[-2:]}"]["kernel"] for source, x in inputs.items())
        x = x + p[f"{name[:-2]}_graph{name[-2:]}"]["bias"]
        centred = x - x.mean()
        scale_bias = p[f"{name[:-2]}_norm{name[-2:]}"]
        normed = centred / np.sqrt((centred**2).mean() + 1e-6) * scale_bias["scale"] + scale_bias["bias"]
        return np.maximum(normed, 0)

    present = np.flatnonzero(graph["element"]).tolist()
    nodes = {i: p["element"][graph["element"][i]] + p["hydrogens"][graph["hydrogens"][i]] for i in present}
    edges = {
        (int(graph["neighbour"][i, k]), i): p["bond"][graph["bond"][i, k]]
        for i in present
        for k in range(K)
        if graph["bond"][i, k]
    }
    whole = sum(nodes.values())
    for step in range(STEPS):
        edges = {
            (a, b): layer(f"edge_{step}", {"edge": x, "source": nodes[a], "target": nodes[b], "graph": whole})
            for (a, b), x in edges.items()
        }
        incoming = {i: sum((x for (_, b), x in edges.items() if b == i), np.zeros(D // 2)) for i in present}
        nodes = {i: layer(f"node_{step}", {"node": nodes[i], "edges": incoming[i], "graph": whole}) for i in present}
        sums = {"nodes": sum(nodes.values()), "edges": sum(incoming.values())}
        whole = layer(f"graph_{step}", {**sums, "graph": whole})
    return whole @ p["head"]["kernel"] + p["head"]["bias"]


def test_the_model_agrees_with_a_network_of_nodes_and_edges_in_numpy(params):
    batch = random_graphs(4, seed=1)
    expected = [network_in_numpy(params, {name: field[i] for name, field in batch.items()}) for i in range(4)]
    np.testing.assert_allclose(logits_of(params, batch), expected, rtol=1e-3, atol=1e-3)


def test_the_order_of_nodes_and_neighbours_changes_nothing(params):
    batch = random_graphs(4, seed=2)
    order = np.random.RandomState(3).permutation(N)
    shuffled = {name: batch[name][:, order] for name in ("element", "hydrogens")}
    neighbour = np.argsort(order)[batch["neighbour"][:, order]]
    shuffled |= {"neighbour": neighbour[..., ::-1].astype(np.uint8), "bond": batch["bond"][:, order, ::-1]}
    plain = logits_of(params, batch)
    np.testing.assert_allclose(logits_of(params, {**shuffled, "label": batch["label"]}), plain, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(digests_of(shuffled), digests_of(batch))


def test_each_field_of_a_graph_shows_in_its_logits(params):
    batch = random_graphs(4, seed=4)
    plain = np.asarray(logits_of(params, batch))
    node = int(np.argmax(batch["bond"][0, :, 0] > 0))
    changes = {"element": batch["element"] % 4 + 1, "hydrogens": (batch["hydrogens"] + 1) % 5}
    changes["bond"] = np.where(batch["bond"] > 0, batch["bond"] % 23 + 1, 0).astype(np.uint8)
    changes["neighbour"] = batch["neighbour"].copy()
    changes["neighbour"][0, node, 0] = node
    for name, changed in changes.items():
        assert not np.allclose(logits_of(params, {**batch, name: changed}), plain, atol=1e-3), name


def test_param_info_tells_embeddings_norms_weights_and_head_apart():
    info = WORKLOAD.param_info
    kinds = [info["bond"].kind, info["edge_norm_0"]["bias"].kind, info["edge_graph_0"]["bias"].kind]
    assert kinds == ["embedding", "norm_bias", "bias"]
    assert (info["node_node_2"]["kernel"].kind, info["head"]["kernel"].kind) == ("weight", "output_head")
    layers = ("edge_edge_0", "node_node_0", "graph_graph_0", "edge_source_1", "node_edges_2", "graph_nodes_2", "head")
    assert [info[layer]["kernel"].depth for layer in layers] == [1, 2, 3, 4, 8, 9, 10]


def test_loss_is_the_log_loss_of_known_labels(params):
    batch = random_graphs(4, seed=6)
    logits = logits_of(params, batch)
    probability = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    for smoothing in (0.0, 0.2):
        target = np.where(batch["label"] == 1, 1 - smoothing / 2, smoothing / 2)
        nats = -target * np.log(probability) - (1 - target) * np.log1p(-probability)
        losses, terms = SMALL.loss(logits, batch, label_smoothing=smoothing)
        np.testing.assert_allclose(losses, np.where(batch["label"] < 2, nats, 0).sum(1), rtol=1e-4)
        np.testing.assert_array_equal(terms, (batch["label"] < 2).sum(1))


def test_evaluation_hands_out_sums_of_the_loss_and_each_rows_scores_and_labels(params):
    batch = random_graphs(4, seed=6)
    logits = logits_of(params, batch)
    losses, terms = SMALL.loss(logits, batch)
    added = jax.jit(SMALL.evaluate)(params, {}, batch)
    np.testing.assert_allclose((added["loss"], added["labels"]), (losses.sum(), terms.sum()), rtol=1e-5)
    np.testing.assert_allclose(added["logits"], logits, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(added["label"], batch["label"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=1, max_size=40))
def test_average_precision_agrees_with_scikit_learn_also_with_ties(rows):
    positive, score = (np.array(column) for column in zip(*rows, strict=True))
    positive[0] = True
    expected = average_precision_score(positive, score)
    assert average_precision(positive, score.astype(np.float32)) == pytest.approx(expected, rel=1e-12)


def test_metrics_average_over_labels_that_have_both_classes():
    rng = np.random.RandomState(7)
    label, logits = rng.randint(0, 3, (50, L)).astype(np.uint8), rng.standard_normal((50, L)).astype(np.float32)
    label[:, 0], label[:, 1] = 2 * (label[:, 0] > 0), 1
    expected = [
        average_precision_score(label[:, i][label[:, i] < 2], logits[:, i][label[:, i] < 2]) for i in range(2, L)
    ]
    metrics = finalize({"label": label, "logits": logits, "loss": np.float64(3), "labels": np.float64(6)})
    assert metrics == pytest.approx({"loss": 0.5, "mean_average_precision": np.mean(expected)})


def test_a_network_that_diverged_has_no_precision():
    assert np.isnan(average_precision(np.array([True, False]), np.array([np.nan, 1.0])))


def test_a_molecule_becomes_the_graph_of_its_bonds():
    graph = {name: field[0] for name, field in graphs_of(ELEMENTS, PLACES).items()}
    assert graph["element"].tolist() == [1, 3] + [0] * 7
    assert graph["hydrogens"].tolist() == [3, 1] + [0] * 7
    assert graph["neighbour"][:3].tolist() == [[1, 0, 0, 0], [0, 1, 1, 1], [2, 2, 2, 2]]
    # 1.42 exceeds 13 bounds: 1.16, 1.18, …, 1.40.
    assert graph["bond"][:3, 0].tolist() == [14, 14, 0]
    assert not graph["bond"][:, 1:].any()


def test_a_digest_tells_molecules_apart_by_their_bonds_and_not_by_the_order_of_atoms():
    digest = digests_of(graphs_of(ELEMENTS, PLACES))
    assert digest[1] == digest[2] != digest[0]


def test_labels_are_thresholds_at_shares_of_train_and_unknown_where_there_is_no_value():
    rng = np.random.RandomState(10)
    values = {label.property: rng.permutation(1000).astype(float) for label in LABELS}
    values["rotation"][:100] = np.nan
    labels = labels_of(values, np.arange(1000))
    shares = [label.percent * (9 if label.property == "rotation" else 10) for label in LABELS]
    assert (labels == 1).sum(0).tolist() == shares
    assert (labels[:, -1] == 2).sum() == 100
    assert (labels[values["gap"] < 20, 0] == 1).all()
    assert (labels[values["gap"] >= 950, 1] == 1).all()


def test_thresholds_come_from_train_alone():
    values = {label.property: np.arange(200.0) for label in LABELS}
    labels = labels_of(values, np.arange(100))
    assert (labels[:, 0] == 1).sum() == 2
    assert (labels[:, 1] == 1).sum() == 105


def test_a_32nd_of_the_digests_is_for_validation_and_for_test():
    split = splits_of(np.arange(320, dtype=np.uint64)).tolist()
    assert {name: split.count(name) for name in set(split)} == {"train": 300, "valid": 10, "test": 10}


def test_the_splits_have_their_sizes_and_each_label_its_share(splits):
    sizes = {split: len(arrays["label"]) for split, arrays in splits.items()}
    assert sizes == {"train": 122712, "valid": 4072, "test": 4047}
    for arrays in splits.values():
        np.testing.assert_allclose(np.mean(arrays["label"] == 1, 0), [x.percent / 100 for x in LABELS], atol=0.012)


def test_atoms_keep_their_valences_in_every_graph(splits):
    """A carbon has 2 to 4 neighbours (hydrogens among them), a nitrogen 1 to 4, an oxygen 1 to 3, a fluorine 1."""
    for arrays in splits.values():
        neighbours = (arrays["bond"] > 0).sum(2) + arrays["hydrogens"]
        for element, (least, most) in enumerate([(0, 0), (2, 4), (1, 4), (1, 3), (1, 1)]):
            found = neighbours[arrays["element"] == element]
            assert np.mean((found >= least) & (found <= most)) > 0.9999


def test_no_graph_is_in_two_splits(splits):
    digests = {split: digests_of(arrays) for split, arrays in splits.items()}
    for a, b in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert not np.intersect1d(digests[a], digests[b]).size


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("timetrial.workloads.molecules.data.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install qm9pack==1\.0\.3"):
        generate()
