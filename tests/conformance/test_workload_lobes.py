"""The workload `lobes`: its images, its convolutional net with batch norm, its loss and metrics."""

import hashlib
import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arbitrary import arbitrary_state
from scipy.special import softmax
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import log_loss, zero_one_loss
from timetrial.workloads.lobes import FIELDS, MODEL, WORKLOAD, build
from timetrial.workloads.lobes.data import CLASSES, SEEDS, make_rows

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = jax.random.key(0, impl="rbg")  # compiles faster than the default
SMALL = replace(MODEL, width=4, depth=5)
# Of the first 64 rows of each split, image bytes then int32 labels; seen alike under numpy 2.1 on Python 3.13, under
# numpy 2.4 on Python 3.11, and with the vector instructions beyond SSE4 switched off (NPY_DISABLE_CPU_FEATURES).
PREFIX_SHA256 = {
    "train": "0e9a4843c2d1f562cead93de3491040e3e0f1ea2fe3c18dff82fdc17920202ac",
    "valid": "37ae0b0524f4af783e8bc92da606ae3fff311a92285f4eb1b83411c71b66154f",
    "test": "b32a183cbaacec711717c491d903c2df5ac5e7eae01ce04e52c5a59c3fedcce5",
}


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


def test_the_model_has_the_documented_size_and_a_depth_for_each_layer():
    infos = jax.tree.leaves(WORKLOAD.param_info)
    assert sum(math.prod(info.shape) for info in infos) == 111_112
    assert sorted({info.kind for info in infos}) == ["bias", "conv", "norm_bias", "norm_scale", "output_head"]
    assert {info.depth for info in infos} == set(range(8))


def net_in_numpy(params, image):
    """Logits of a batch in training, float64, and the means and variances in each norm, by its name."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = image.astype(np.float64) / 127.5 - 1
    x = np.concatenate([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=-1)
    statistics = {}
    for layer in range(5):
        if layer in (2, 4):
            x = np.max([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=0)
        side = x.shape[1]
        around = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        kernel, norm = p[f"conv_{layer}"]["kernel"], p[f"norm_{layer}"]
        x = np.sum([around[:, i : i + side, j : j + side] @ kernel[i, j] for i in range(3) for j in range(3)], axis=0)
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        statistics[f"norm_{layer}"] = {"mean": mean, "var": variance}
        x = np.maximum((x - mean) / np.sqrt(variance + 1e-5) * norm["scale"] + norm["bias"], 0)
    return x.mean((1, 2)) @ p["head"]["kernel"] + p["head"]["bias"], statistics


def test_the_model_and_its_moving_averages_agree_with_a_net_in_numpy():
    workload = build(SMALL)
    params, state = arbitrary_state(workload)
    batch = workload.random_batch(6, seed=1)
    logits, new_state = jax.jit(partial(workload.apply, train=True))(params, state, batch, KEY)
    expected, statistics = net_in_numpy(params, batch["image"])
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    moved = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, state, statistics)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), dict(new_state), moved)


def test_rows_are_not_coupled_by_group_norm():
    workload = build(replace(SMALL, norm="group"))
    assert not workload.rows_coupled
    params, state = arbitrary_state(workload)
    batch, other = (workload.random_batch(6, seed) for seed in (1, 2))
    mixed = {name: np.concatenate([batch[name][:3], other[name][3:]]) for name in batch}
    apply = jax.jit(partial(workload.apply, train=True))
    alone, after = (apply(params, state, rows, KEY)[0] for rows in (batch, mixed))
    np.testing.assert_allclose(after[:3], alone[:3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_cross_entropy_of_smoothed_labels(smoothing):
    rng = np.random.RandomState(0)
    logits, labels = 3 * rng.standard_normal((20, CLASSES)), rng.randint(0, CLASSES, 20)
    losses, terms = WORKLOAD.loss(jnp.asarray(logits, jnp.float32), {"label": labels}, label_smoothing=smoothing)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = (1 - smoothing) * np.eye(CLASSES)[labels] + smoothing / CLASSES
    np.testing.assert_allclose(losses, -(targets * log_probabilities).sum(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(terms, np.ones(20))


def test_metrics_agree_with_scikit_learn():
    workload = build(SMALL)
    params, state = arbitrary_state(workload)
    rows = workload.random_batch(37, seed=2)
    logits, _ = jax.jit(partial(workload.apply, train=False))(params, state, rows, KEY)
    probabilities = softmax(np.asarray(logits, np.float64), axis=1)
    metrics = workload.finalize(jax.jit(workload.evaluate)(params, state, rows))
    assert set(metrics) == {"loss", WORKLOAD.metric}
    assert metrics["loss"] == pytest.approx(log_loss(rows["label"], probabilities, labels=range(CLASSES)), rel=1e-4)
    assert metrics["error_rate"] == pytest.approx(zero_one_loss(rows["label"], probabilities.argmax(axis=1)))


@pytest.mark.slow
def test_a_few_steps_learn_a_few_images():
    params, state = jax.jit(WORKLOAD.init)(KEY)
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
