"""The workload `fashion`: its vision transformer and all variants, its loss and metrics, and how images are split."""

import gzip
import hashlib
import json
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss, zero_one_loss
from timetrial.workloads.fashion import AXES, MODEL, VARIANTS, WORKLOAD, build
from timetrial.workloads.fashion import data as fashion_data

from timetrial.errors import UserError

KEY = jax.random.key(0)
D, DEPTH, P, PIXELS, CLASSES = 64, 3, 16, 49, 10
QUICK = {"xla_backend_optimization_level": 0}
"""These programs run once: what is compiled sooner is done sooner."""
EVALUATE = jax.jit(WORKLOAD.evaluate, compiler_options=QUICK)
MODELS = (
    {},
    {"norm": "post_layer", "activation": "tanh", "depth": 2, "temperature": 4.0},
    {"norm": "rms", "activation": "relu", "pooling": "attention", "width": 48, "depth": 2},
)


def noise(workload):
    """Parameters of the right shapes, in which every part of the model shows in its output."""
    rng = np.random.RandomState(1)
    params, _ = jax.eval_shape(workload.init, KEY)
    return jax.tree.map(lambda leaf: 0.25 * rng.standard_normal(leaf.shape).astype(leaf.dtype), params)


@pytest.fixture(scope="module")
def params():
    return noise(WORKLOAD)


@pytest.fixture(scope="module")
def splits():
    try:
        return {
            split: {k: np.asarray(v) for k, v in WORKLOAD.split(split).items()} for split in ("train", "valid", "test")
        }
    except UserError as error:
        pytest.skip(str(error))


@partial(jax.jit, compiler_options=QUICK)
def forward(params, batch):
    return WORKLOAD.apply(params, {}, batch, KEY, train=False)[0]


def evaluate(params, batch):
    return {name: np.asarray(value, np.float64) for name, value in EVALUATE(params, {}, batch).items()}


def vit_in_numpy(params, image, model):
    """Logits of one image in float64, one patch, one head at a time; from the papers, not from our model's code."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    d = p["embed"]["bias"].size

    def norm(x, name):
        centred = x if model.norm == "rms" else x - x.mean(-1, keepdims=True)
        y = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * p[name]["scale"]
        return y if model.norm == "rms" else y + p[name]["bias"]

    def dense(x, layer):
        return x @ layer["kernel"] + layer.get("bias", 0.0)

    activation = {
        "relu": lambda x: np.maximum(x, 0),
        "tanh": np.tanh,
        "gelu": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    }[model.activation]

    x = []
    for row in range(4):
        for column in range(4):
            pixels = image[7 * row : 7 * row + 7, 7 * column : 7 * column + 7].reshape(PIXELS) / 127.5 - 1
            frequencies = [0.01 ** (i / (d / 4 - 1)) for i in range(d // 4)]
            position = [wave(at * f) for at in (column, row) for wave in (np.sin, np.cos) for f in frequencies]
            x.append(dense(pixels, p["embed"]) + position)
    x = np.array(x)

    def attention(x, weights):
        query, key, value = (dense(x, weights[name]) for name in ("query", "key", "value"))
        mixed = np.zeros_like(x)
        for first in range(0, d, 16):
            head = slice(first, first + 16)
            for patch in range(P):
                scores = key[:, head] @ query[patch, head] / np.sqrt(16) / model.temperature
                mixed[patch, head] = softmax(scores) @ value[:, head]
        return dense(mixed, weights["out"])

    def mlp(x, weights):
        return dense(activation(dense(x, weights["in"])), weights["out"])

    for i in range(model.depth):
        for j, (sublayer, name) in enumerate(((attention, f"attention_{i}"), (mlp, f"mlp_{i}"))):
            if model.norm == "post_layer":
                x = norm(x + sublayer(x, p[name]), f"norm_{2 * i + j}")
            else:
                x = x + sublayer(norm(x, f"norm_{2 * i + j}"), p[name])
    if model.norm != "post_layer":
        x = norm(x, "norm_out")
    weights = softmax(x @ p["pool"]["kernel"], axis=0) if model.pooling == "attention" else np.full((P, 1), 1 / P)
    return dense((weights * x).sum(0), p["head"])


@pytest.mark.parametrize("changes", MODELS, ids=str)
def test_the_model_agrees_with_a_vision_transformer_in_numpy(changes):
    model = replace(MODEL, **changes)
    workload = build(model)
    params = noise(workload)
    batch = workload.random_batch(3, seed=1)
    apply = jax.jit(lambda params: workload.apply(params, {}, batch, KEY, train=False)[0], compiler_options=QUICK)
    logits = apply(params)
    assert (logits.shape, logits.dtype) == ((3, CLASSES), jnp.float32)
    expected = [vit_in_numpy(params, image, model) for image in batch["image"]]
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)


def test_the_model_has_the_parameters_of_its_widths(params):
    block = 4 * D * D + 2 * 2 * D * D + 2 * D + D + 2 * 2 * D
    expected = PIXELS * D + D + DEPTH * block + 2 * D + CLASSES * D + CLASSES
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected == 103_626


def test_param_info_tells_attention_norms_and_head_apart():
    info = WORKLOAD.param_info
    kinds = {name: info["attention_0"][name]["kernel"].kind for name in ("query", "key", "value", "out")}
    assert kinds == {"query": "attention_q", "key": "attention_k", "value": "attention_v", "out": "attention_out"}
    assert (info["norm_out"]["scale"].kind, info["norm_out"]["bias"].kind) == ("norm_scale", "norm_bias")
    assert (info["embed"]["kernel"].kind, info["head"]["kernel"].kind) == ("weight", "output_head")
    order = [info["mlp_0"]["in"], info["mlp_0"]["out"], info["mlp_1"]["in"], info["head"]]
    depths = [layer["kernel"].depth for layer in order]
    assert depths == sorted(set(depths))


@pytest.mark.parametrize(
    "changes",
    [{axis: value} for axis, values in AXES.items() for value in values[1:]] + list(VARIANTS.values()),
    ids=str,
)
def test_every_variant_has_a_finite_loss_and_gradient_and_describes_its_parameters(changes):
    workload = build(replace(MODEL, **{"depth": 1, **changes}))  # fewer layers than the base compile sooner
    batch = workload.random_batch(4, seed=2)

    def mean_loss(params):
        return jnp.mean(workload.loss(workload.apply(params, {}, batch, KEY, train=True)[0], batch)[0])

    loss, gradient = jax.jit(jax.value_and_grad(mean_loss), compiler_options=QUICK)(noise(workload))
    assert np.isfinite(loss)
    assert all(np.isfinite(leaf).all() and np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(lambda info: info.shape, workload.param_info)
    for info in jax.tree.leaves(workload.param_info):
        assert sorted(info.in_axes + info.out_axes) == list(range(len(info.shape)))


def test_the_initial_scale_multiplies_the_kernels_and_nothing_else():
    once, twice = (
        jax.jit(build(replace(MODEL, depth=1, init_scale=scale)).init, compiler_options=QUICK)(KEY)[0]
        for scale in (1, 2)
    )
    kernels = jax.tree.map(lambda leaf: 1 + (leaf.ndim == 2), once)
    jax.tree.map(lambda a, b, factor: np.testing.assert_allclose(b, factor * a, rtol=1e-5), once, twice, kernels)
    assert np.std(once["embed"]["kernel"]) == pytest.approx(PIXELS**-0.5, rel=0.05)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_cross_entropy_of_smoothed_labels(smoothing):
    rng = np.random.RandomState(0)
    logits, labels = 3 * rng.standard_normal((20, CLASSES)), rng.randint(0, CLASSES, 20).astype(np.uint8)
    losses, terms = WORKLOAD.loss(jnp.asarray(logits, jnp.float32), {"label": labels}, label_smoothing=smoothing)
    targets = (1 - smoothing) * np.eye(CLASSES)[labels] + smoothing / CLASSES
    np.testing.assert_allclose(losses, -(targets * log_softmax(logits, axis=1)).sum(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(terms, np.ones(20))


def test_metrics_agree_with_scikit_learn(params):
    batch = WORKLOAD.random_batch(32, seed=3)
    probabilities = softmax(np.asarray(forward(params, batch), np.float64), axis=1)
    metrics = WORKLOAD.finalize(evaluate(params, batch))
    assert set(metrics) == {"loss", WORKLOAD.metric}
    assert metrics["loss"] == pytest.approx(log_loss(batch["label"], probabilities, labels=range(CLASSES)), rel=1e-4)
    assert metrics["error_rate"] == pytest.approx(zero_one_loss(batch["label"], probabilities.argmax(axis=1)))


def test_padding_changes_no_sum(params):
    batch = WORKLOAD.random_batch(32, seed=4)
    padded = {**batch, "weights": (np.arange(32) < 16).astype(np.float32)}
    short = {name: field[:16] for name, field in batch.items()}
    for name, value in evaluate(params, short).items():
        np.testing.assert_allclose(evaluate(params, padded)[name], value, rtol=1e-5)


def test_metrics_do_not_depend_on_the_batch_size_of_the_evaluation(params):
    batch = WORKLOAD.random_batch(32, seed=5)
    parts = [evaluate(params, {name: field[i : i + 16] for name, field in batch.items()}) for i in (0, 16)]
    summed = {name: sum(part[name] for part in parts) for name in parts[0]}
    assert WORKLOAD.finalize(summed) == pytest.approx(WORKLOAD.finalize(evaluate(params, batch)), rel=1e-5)


def test_dropout_acts_in_training_alone_and_takes_a_traced_rate(params):
    batch = WORKLOAD.random_batch(16, seed=6)

    @partial(jax.jit, compiler_options=QUICK)
    def train(rate):
        return WORKLOAD.apply(params, {}, batch, jax.random.key(1), train=True, dropout_rate=rate)[0]

    plain = forward(params, batch)
    np.testing.assert_allclose(train(0.0), plain, rtol=1e-3, atol=1e-3)
    assert not np.allclose(train(0.5), plain, atol=1e-2)
    for training in (True, False):
        program = jax.make_jaxpr(partial(WORKLOAD.apply, train=training, dropout_rate=0.5))(params, {}, batch, KEY)
        assert ("random_bits" in str(program)) == training


def test_the_splits_have_the_declared_fields_and_sizes(splits):
    assert {split: len(rows["label"]) for split, rows in splits.items()} == {
        "train": 55026,
        "valid": 4974,
        "test": 4988,
    }
    for rows in splits.values():
        for name, field in WORKLOAD.fields.items():
            assert (rows[name].shape[1:], rows[name].dtype) == (field.shape, field.dtype)
        assert np.abs(np.bincount(rows["label"], minlength=CLASSES) / len(rows["label"]) - 0.1).max() < 0.015


def test_no_image_is_there_twice(splits):
    images = [image.tobytes() for rows in splits.values() for image in rows["image"]]
    assert len(set(images)) == len(images)


def test_labels_belong_to_their_images(splits):
    """The image nearest in train, by the distance of its pixels, has the same label for 85 of 100 images."""
    train, valid = (splits[split]["image"].reshape(-1, 784).astype(np.float32) for split in ("train", "valid"))
    train, valid = train[:10000], valid[:500]
    nearest = np.argmax(valid @ train.T - (train**2).sum(1) / 2, axis=1)
    assert np.mean(splits["train"]["label"][nearest] == splits["valid"]["label"][:500]) > 0.75


def test_preparing_wrote_the_bytes_that_the_workload_names(splits):
    digest = hashlib.sha256()
    for split, rows in sorted(splits.items()):
        for name, array in sorted(rows.items()):
            digest.update(json.dumps([split, name, array.dtype.str, array.shape]).encode() + array.tobytes())
    assert digest.hexdigest() == WORKLOAD.data.sha256


@pytest.fixture
def no_package(monkeypatch, tmp_path):
    """A machine without the Debian package, and its data folder."""
    monkeypatch.setattr(fashion_data, "PACKAGED", tmp_path / "none")
    monkeypatch.setenv("TIMETRIAL_DATA", str(tmp_path))
    return tmp_path


def test_absent_files_are_asked_for_with_the_command_that_gets_them(no_package):
    with pytest.raises(UserError, match="apt-get download dataset-fashion-mnist && dpkg -x") as error:
        fashion_data.generate()
    assert str(no_package / "sources" / "fashion-mnist") in str(error.value)


def test_a_file_that_is_not_the_authors_is_refused(no_package):
    folder = no_package / "sources" / "fashion-mnist"
    folder.mkdir(parents=True)
    for name in fashion_data.SHA256:
        (folder / name).write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\0"))
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz is not the authors' file"):
        fashion_data.generate()
