"""Every row of a split is evaluated exactly once, whatever the batch size, and padding is never counted."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import ROWS, toy_workload

from timetrial.data import InMemory
from timetrial.devices import Mesh
from timetrial.evaluate import Evaluator, accumulate, padded_rows

SPLITS = ("train_eval", "valid", "test")


def numbered():
    """The toy with the row's number for a feature; its metric hands the gathered numbers out."""
    seen = {}
    workload = toy_workload(train_eval_rows=70)
    splits = {
        split: {"x": np.arange(rows, dtype=np.float32)[:, None] * np.ones(8, np.float32), "label": np.zeros(rows, int)}
        for split, rows in ROWS.items()
    }

    def evaluate(params, model_state, batch):
        del params, model_state
        return {"number": batch["x"][:, 0], "rows": jnp.sum(batch["weights"])}

    def finalize(accumulated):
        seen[len(seen)] = accumulated
        return {"rows": float(accumulated["rows"])}

    changed = dataclasses.replace(
        workload, data=InMemory.holding(splits, like=workload.data), evaluate=evaluate, finalize=finalize
    )
    return changed, seen


@pytest.mark.parametrize("batch_size", [1, 7, 32, 70, 1000])
def test_every_row_of_every_split_is_visited_exactly_once(batch_size):
    workload, seen = numbered()
    metrics = Evaluator(workload, Mesh.local(), batch_size=batch_size)(None, None, SPLITS)
    assert metrics == {"train_eval/rows": 70, "valid/rows": ROWS["valid"], "test/rows": ROWS["test"]}
    for split, accumulated in zip(SPLITS, seen.values(), strict=True):
        assert accumulated["number"].tolist() == list(range(int(metrics[f"{split}/rows"])))


def test_metrics_do_not_depend_on_the_batch_size():
    workload = toy_workload(batch_norm=True)
    params, model_state = workload.init(jax.random.key(0))
    whole = Evaluator(workload, Mesh.local(), batch_size=100)(params, model_state, SPLITS)
    for batch_size in (1, 3, 64, 999):
        split = Evaluator(workload, Mesh.local(), batch_size=batch_size)(params, model_state, SPLITS)
        assert split == pytest.approx(whole, rel=1e-6)


@given(available=st.integers(1, 40), rows=st.integers(1, 50), data=st.data())
def test_padding_repeats_a_row_with_weight_zero(available, rows, data):
    first = data.draw(st.integers(0, available - 1))
    indices, weights = padded_rows(available, first, rows)
    assert indices.shape == weights.shape == (rows,)
    counted = indices[weights > 0]
    assert counted.tolist() == list(range(first, min(first + rows, available)))


def test_sums_are_kept_in_double_precision():
    batches = [{"loss": np.array(loss, np.float32)} for loss in (1e8, 1.0, -1e8)]
    assert accumulate(batches, [np.ones(1)] * 3)["loss"] == 1.0
