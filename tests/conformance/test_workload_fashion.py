"""The workload `fashion`: its vision transformer, loss and metrics, and how images are split."""

import gzip
import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arbitrary import arbitrary_state
from prepared import prepared_splits
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss, zero_one_loss
from timetrial.workloads.fashion import MODEL, WORKLOAD, build
from timetrial.workloads.fashion import data as fashion_data

from timetrial.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = jax.random.key(0, impl="rbg")  # compiles faster than the default
D, DEPTH, P, PIXELS, CLASSES = 64, 3, 16, 49, 10
SMALL = replace(MODEL, width=32, depth=1)
MODELS = (
    {},
    {"norm": "post_layer", "activation": "tanh", "depth": 2, "temperature": 4.0},
    {"norm": "rms", "activation": "relu", "pooling": "attention", "width": 48},
)


@pytest.fixture(scope="module")
def splits():
    return prepared_splits(WORKLOAD)


def forward(workload, params, batch):
    return jax.jit(partial(workload.apply, train=False))(params, {}, batch, KEY)


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
    model = replace(SMALL, **changes)
    workload = build(model)
    params, _ = arbitrary_state(workload)
    batch = workload.random_batch(3, seed=1)
    logits, _ = forward(workload, params, batch)
    assert (logits.shape, logits.dtype) == ((3, CLASSES), jnp.float32)
    expected = [vit_in_numpy(params, image, model) for image in batch["image"]]
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)


def test_the_model_has_the_parameters_of_its_widths():
    block = 4 * D * D + 2 * 2 * D * D + 2 * D + D + 2 * 2 * D
    expected = PIXELS * D + D + DEPTH * block + 2 * D + CLASSES * D + CLASSES
    found = sum(math.prod(info.shape) for info in jax.tree.leaves(WORKLOAD.param_info))
    assert found == expected == 103_626


def test_param_info_tells_attention_norms_and_head_apart():
    info = WORKLOAD.param_info
    kinds = {name: info["attention_0"][name]["kernel"].kind for name in ("query", "key", "value", "out")}
    assert kinds == {"query": "attention_q", "key": "attention_k", "value": "attention_v", "out": "attention_out"}
    assert (info["norm_out"]["scale"].kind, info["norm_out"]["bias"].kind) == ("norm_scale", "norm_bias")
    assert (info["embed"]["kernel"].kind, info["head"]["kernel"].kind) == ("weight", "output_head")
    order = [info["mlp_0"]["in"], info["mlp_0"]["out"], info["mlp_1"]["in"], info["head"]]
    depths = [layer["kernel"].depth for layer in order]
    assert depths == sorted(set(depths))


def test_the_initial_scale_multiplies_the_kernels_and_nothing_else():
    workloads = [build(replace(MODEL, depth=1, init_scale=scale)) for scale in (1, 2)]
    once, twice = jax.jit(lambda key: [workload.init(key)[0] for workload in workloads])(KEY)
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


def test_metrics_agree_with_scikit_learn():
    workload = build(SMALL)
    params, _ = arbitrary_state(workload)
    batch = workload.random_batch(32, seed=3)
    logits, _ = forward(workload, params, batch)
    probabilities = softmax(np.asarray(logits, np.float64), axis=1)
    metrics = workload.finalize(jax.jit(workload.evaluate)(params, {}, batch))
    assert set(metrics) == {"loss", WORKLOAD.metric}
    assert metrics["loss"] == pytest.approx(log_loss(batch["label"], probabilities, labels=range(CLASSES)), rel=1e-4)
    assert metrics["error_rate"] == pytest.approx(zero_one_loss(batch["label"], probabilities.argmax(axis=1)))


def test_the_splits_have_their_sizes_and_all_classes_alike(splits):
    assert {split: len(rows["label"]) for split, rows in splits.items()} == {
        "train": 55026,
        "valid": 4974,
        "test": 4988,
    }
    for rows in splits.values():
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
