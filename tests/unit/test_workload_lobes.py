import hashlib
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import log_loss, zero_one_loss
from timetrial.workloads.lobes import FIELDS, MODEL, WORKLOAD, build
from timetrial.workloads.lobes.data import CLASSES, SEEDS, make_rows

KEY = jax.random.key(0)
INIT = jax.jit(WORKLOAD.init)
APPLY = jax.jit(WORKLOAD.apply, static_argnames="train")
EVALUATE = jax.jit(WORKLOAD.evaluate)
# Of the first 64 rows of each split, image bytes then int32 labels; seen alike under numpy 2.1 on Python 3.13, under
# numpy 2.4 on Python 3.11, and with the vector instructions beyond SSE4 switched off (NPY_DISABLE_CPU_FEATURES).
PREFIX_SHA256 = {
    "train": "0e9a4843c2d1f562cead93de3491040e3e0f1ea2fe3c18dff82fdc17920202ac",
    "valid": "37ae0b0524f4af783e8bc92da606ae3fff311a92285f4eb1b83411c71b66154f",
    "test": "b32a183cbaacec711717c491d903c2df5ac5e7eae01ce04e52c5a59c3fedcce5",
}


@pytest.fixture(scope="module")
def trained_state():
    """Parameters and statistics that differ from the initial ones everywhere."""
    params, state = INIT(KEY)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [p + 0.05 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(tree, noisy)
    return params, APPLY(params, state, WORKLOAD.random_batch(12, seed=9), KEY, train=True)[1]


def padded(batch, rows, seed):
    """The batch with `rows` rows of garbage behind it, which weigh nothing."""
    garbage = WORKLOAD.random_batch(rows, seed)
    weights = np.repeat(np.array([1, 0], np.float32), [len(batch["label"]), rows])
    return {name: np.concatenate([batch[name], garbage[name]]) for name in batch} | {"weights": weights}


def split_metrics(params, state, rows, batch_size):
    """The metrics of a split that is evaluated in batches, the last one padded."""
    sums = {"loss": 0.0, "wrong": 0.0, "rows": 0.0}
    for first in range(0, len(rows["label"]), batch_size):
        batch = {name: array[first : first + batch_size] for name, array in rows.items()}
        batch = padded(batch, batch_size - len(batch["label"]), seed=first)
        for name, value in EVALUATE(params, state, batch).items():
            sums[name] += float(value)
    return WORKLOAD.finalize({name: np.float64(value) for name, value in sums.items()})


@pytest.mark.parametrize("split", SEEDS)
def test_the_generator_makes_the_frozen_bytes(split):
    rows = make_rows(64, SEEDS[split])
    assert (
        hashlib.sha256(rows["image"].tobytes() + rows["label"].astype("<i4").tobytes()).hexdigest()
        == (PREFIX_SHA256[split])
    )


def test_the_first_rows_of_a_split_do_not_depend_on_how_many_are_made():
    few, many = make_rows(130, seed=5), make_rows(300, seed=5)
    for name in FIELDS:
        np.testing.assert_array_equal(few[name], many[name][:130])


def test_rows_fit_the_declared_fields():
    rows = make_rows(40, seed=5)
    assert {name: (array.shape[1:], array.dtype) for name, array in rows.items()} == {
        name: (field.shape, np.dtype(field.dtype)) for name, field in FIELDS.items()
    }
    assert rows["image"].min() == 0
    assert rows["image"].max() == 255


def test_every_class_is_equally_frequent():
    counts = np.bincount(make_rows(1600, seed=5)["label"], minlength=CLASSES)
    assert counts.shape == (CLASSES,)
    assert np.abs(counts - 200).max() < 5 * np.sqrt(200)


def test_no_image_is_made_twice():
    images = np.concatenate([make_rows(400, seed)["image"] for seed in SEEDS.values()])
    assert len({image.tobytes() for image in images}) == 1200


def test_a_linear_model_fails():
    train, valid = make_rows(1000, SEEDS["train"]), make_rows(400, SEEDS["valid"])
    train_x, valid_x = (rows["image"].reshape(len(rows["label"]), -1) / 255 for rows in (train, valid))
    linear = RidgeClassifier(alpha=1e3).fit(train_x, train["label"])
    assert 1 - linear.score(valid_x, valid["label"]) > 0.6


def test_the_label_is_the_number_of_lobes():
    """A reference of its own: the strongest frequency in the outline of what differs in colour from the border."""
    rows = make_rows(600, seed=5)
    y, x = np.mgrid[:32, :32] - 15.5
    border = np.maximum(np.abs(x), np.abs(y)) > 14
    centre = np.hypot(x, y) < 4
    sector = ((np.arctan2(y, x) / (2 * np.pi) % 1) * 48).astype(int)
    right = []
    for image, label in zip(rows["image"].astype(float), rows["label"], strict=True):
        inner, outer = np.median(image[centre], axis=0), np.median(image[border], axis=0)
        if label == 0 or np.linalg.norm(inner - outer) < 120:
            continue  # two lobes look like the stretching of the plane; a figure may have the colour of the ground
        figure = np.linalg.norm(image - inner, axis=-1) < np.linalg.norm(image - outer, axis=-1)
        radius = np.sqrt(np.bincount(sector[figure], minlength=48) / np.bincount(sector.ravel(), minlength=48))
        strength = np.abs(np.fft.rfft(radius))[3:10] * np.sqrt(np.arange(3, 10))  # pixels blur the high ones
        right.append(np.argmax(strength) == label - 1)
    assert len(right) > 200
    assert np.mean(right) > 3 / 7  # by chance 1 / 7


def test_the_model_has_the_documented_size_and_shapes():
    params, state = INIT(KEY)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 111_112
    logits, new_state = APPLY(params, state, WORKLOAD.random_batch(12, 0), KEY, train=True)
    assert (logits.shape, logits.dtype) == ((12, CLASSES), jnp.float32)
    assert jax.tree.map(jnp.shape, new_state) == jax.tree.map(jnp.shape, state)


def test_every_parameter_is_described_with_its_own_shape():
    params, _ = INIT(KEY)
    described = jax.tree.map(lambda leaf, info: leaf.shape == info.shape, params, WORKLOAD.param_info)
    assert all(jax.tree.leaves(described))
    infos = jax.tree.leaves(WORKLOAD.param_info)
    assert sorted({info.kind for info in infos}) == ["bias", "conv", "norm_bias", "norm_scale", "output_head"]
    for info in infos:
        assert sorted(info.in_axes + info.out_axes) == list(range(len(info.shape)))
    assert {info.depth for info in infos} == set(range(8))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_cross_entropy_of_smoothed_labels(smoothing):
    rng = np.random.RandomState(0)
    logits, labels = 3 * rng.standard_normal((20, CLASSES)), rng.randint(0, CLASSES, 20)
    losses, terms = WORKLOAD.loss(jnp.asarray(logits, jnp.float32), {"label": labels}, label_smoothing=smoothing)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = (1 - smoothing) * np.eye(CLASSES)[labels] + smoothing / CLASSES
    np.testing.assert_allclose(losses, -(targets * log_probabilities).sum(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(terms, np.ones(20))


def test_metrics_agree_with_scikit_learn(trained_state):
    params, state = trained_state
    rows = WORKLOAD.random_batch(37, seed=2)
    logits = np.asarray(APPLY(params, state, rows, KEY, train=False)[0], np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    metrics = split_metrics(params, state, rows, batch_size=37)
    assert set(metrics) == {"loss", WORKLOAD.metric}
    assert metrics["loss"] == pytest.approx(log_loss(rows["label"], probabilities, labels=range(CLASSES)), rel=1e-4)
    assert metrics["error_rate"] == pytest.approx(zero_one_loss(rows["label"], probabilities.argmax(axis=1)))


@pytest.mark.parametrize("batch_size", [1, 16])
def test_metrics_do_not_depend_on_the_evaluation_batch(trained_state, batch_size):
    rows = WORKLOAD.random_batch(37, seed=3)
    params, state = trained_state
    whole = split_metrics(params, state, rows, batch_size=37)
    assert split_metrics(params, state, rows, batch_size=batch_size) == pytest.approx(whole, rel=1e-5)


def test_padding_enters_neither_the_loss_nor_the_statistics_nor_the_gradient(trained_state):
    params, state = trained_state
    batch = WORKLOAD.random_batch(12, seed=4)

    def train(params, batch):
        logits, new_state = WORKLOAD.apply(params, state, batch, KEY, train=True)
        losses, _ = WORKLOAD.loss(logits, batch)
        return jnp.mean(losses[:12]), (losses[:12], new_state)

    results = [jax.jit(jax.grad(train, has_aux=True))(params, rows) for rows in (batch, padded(batch, rows=5, seed=0))]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), *results)


def test_rows_are_coupled_by_batch_norm_alone():
    workload = build(replace(MODEL, norm="group", width=4, depth=5))
    assert (WORKLOAD.rows_coupled, workload.rows_coupled) == (True, False)
    batch = workload.random_batch(6, seed=1)
    params, state = jax.jit(workload.init)(KEY)
    apply = jax.jit(workload.apply, static_argnames="train")
    whole, _ = apply(params, state, batch, KEY, train=True)
    half, _ = apply(params, state, {name: array[:3] for name, array in batch.items()}, KEY, train=True)
    np.testing.assert_allclose(half, whole[:3], rtol=1e-4, atol=1e-5)


def test_training_moves_the_statistics_and_evaluation_does_not(trained_state):
    params, state = trained_state
    batch = WORKLOAD.random_batch(12, seed=4)
    after_evaluation = APPLY(params, state, batch, KEY, train=False)[1]
    jax.tree.map(np.testing.assert_array_equal, after_evaluation, state)
    after_training = APPLY(params, state, batch, KEY, train=True)[1]
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state, after_training)
    assert all(jax.tree.leaves(moved))


def test_statistics_are_the_moving_averages_of_the_first_convolution(trained_state):
    params, state = trained_state
    batch = WORKLOAD.random_batch(12, seed=6)
    _, new_state = APPLY(params, state, batch, KEY, train=True)
    pixels = batch["image"].astype(np.float64) / 127.5 - 1
    patches = np.concatenate([pixels[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=-1)
    around = np.pad(patches, ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = np.asarray(params["conv_0"]["kernel"], np.float64)
    shifted = [around[:, i : i + 16, j : j + 16] @ kernel[i, j] for i in range(3) for j in range(3)]
    expected = 0.9 * state["norm_0"]["mean"] + 0.1 * np.sum(shifted, axis=0).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(new_state["norm_0"]["mean"], expected, rtol=1e-4, atol=1e-5)


def test_a_few_steps_learn_a_few_images():
    params, state = INIT(KEY)
    batch = make_rows(16, seed=5)

    @jax.jit
    def step(params, state):
        def mean_loss(params):
            logits, new_state = WORKLOAD.apply(params, state, batch, KEY, train=True)
            return jnp.mean(WORKLOAD.loss(logits, batch)[0]), new_state

        (loss, state_), gradient = jax.value_and_grad(mean_loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), state_, loss

    losses = []
    for _ in range(25):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    assert losses[0] == pytest.approx(np.log(CLASSES), rel=0.4)
    assert losses[-1] < 0.3 * losses[0]
