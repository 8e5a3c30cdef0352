"""What holds for every workload: what padding changes, when dropout acts, which rows meet, what prepared data are.

Of each workload the smallest model of its axes is built, and two programs of it are compiled: a step of training and
one of evaluation. Tests that need no program look at the base, or at what jax traces of it.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arbitrary import arbitrary_state
from prepared import prepared_splits

from timetrial import registry
from timetrial.data import hash_splits
from timetrial.evaluate import accumulate
from timetrial.problem import WorkloadProblem
from timetrial.workload import Workload

NAMES = registry.workload_names("mini")
KEY = jax.random.key(0, impl="rbg")  # compiles faster than the default
ROWS = 3


class Step(NamedTuple):
    """What a step of training sees."""

    loss: jax.Array
    gradient: Any
    model_state: Any
    losses: jax.Array
    """Of each row."""


class Programs(NamedTuple):
    workload: Workload
    train: Callable[..., Step]
    """Of (batch, key, dropout rate), at arbitrary parameters."""
    evaluate: Callable[[Mapping[str, Any]], Mapping[str, jax.Array]]


@pytest.fixture(scope="module", params=NAMES)
def programs(request, quick_compilation):
    module = import_module(f"timetrial.workloads.{request.param}")
    smallest = {axis: min(values) for axis, values in module.AXES.items() if type(values[0]) is int}
    workload = module.build(replace(module.MODEL, **smallest))
    params, model_state = arbitrary_state(workload)
    problem = WorkloadProblem(workload)

    @jax.jit
    def train(params, batch, key, dropout_rate):
        def mean_loss(leaves):
            with problem.counted():
                return problem.loss(
                    leaves, jax.tree.leaves(model_state), problem.anonymous(batch), key, dropout_rate=dropout_rate
                )

        (loss, aux), gradient = jax.value_and_grad(mean_loss, has_aux=True)(jax.tree.leaves(params))
        return Step(loss, gradient, aux.model_state, aux.losses)

    return Programs(workload, partial(train, params), partial(jax.jit(workload.evaluate), params, model_state))


def batch_of(first, second, weights):
    """The rows of two batches behind each other, weighed."""
    rows = {name: np.concatenate([first[name], second[name]]) for name in first}
    return {**rows, "weights": np.array(weights, np.float32)}


def assert_close(got, expected):
    """To a thousandth of each leaf's largest number; of a bias before a norm the gradient is a rounding error."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-3 * np.abs(b).max() + 1e-6)


def test_rows_of_weight_0_change_neither_loss_nor_gradient_nor_model_state(programs):
    """Padded with garbage, rows train as they do when each of them is there twice."""
    rows, garbage = (programs.workload.random_batch(ROWS, seed) for seed in (1, 2))
    padded = programs.train(batch_of(rows, garbage, [1] * ROWS + [0] * ROWS), KEY, 0.0)
    twice = programs.train(batch_of(rows, rows, [1] * 2 * ROWS), KEY, 0.0)
    assert np.isfinite(padded.loss)
    assert all(np.any(leaf) for leaf in padded.gradient)
    assert_close(padded[:3], twice[:3])


def test_rows_are_coupled_where_a_rows_loss_in_training_depends_on_the_others(programs):
    rows, others = (programs.workload.random_batch(ROWS, seed) for seed in (1, 2))
    alone, mixed = (
        programs.train(batch_of(rows, more, [1] * 2 * ROWS), KEY, 0.0).losses[:ROWS] for more in (rows, others)
    )
    assert np.allclose(alone, mixed, rtol=1e-4) == (not programs.workload.rows_coupled)


def test_dropout_of_a_traced_rate_acts_where_a_workload_has_it(programs):
    rows, more = (programs.workload.random_batch(ROWS, seed) for seed in (1, 2))
    batch = batch_of(rows, more, [1] * 2 * ROWS)
    keys = jax.random.split(KEY)
    kept, dropped = ([float(programs.train(batch, key, rate).loss) for key in keys] for rate in (0.0, 0.5))
    assert kept[0] == kept[1]
    assert (len({kept[0], *dropped}) == 3) == programs.workload.has_dropout


def test_metrics_depend_neither_on_padding_nor_on_the_batch_size_of_the_evaluation(programs):
    """Five rows in batches of four and one, and each in a batch of its own; garbage fills what is free."""
    workload = programs.workload
    rows, garbage = workload.random_batch(5, seed=3), workload.random_batch(20, seed=4)

    def metrics(*slices):
        batches = []
        for place, part in enumerate(slices):
            taken = {name: array[part] for name, array in rows.items()}
            valid = part.stop - part.start
            free = {name: array[4 * place : 4 * place + 4 - valid] for name, array in garbage.items()}
            batches.append(batch_of(taken, free, [1] * valid + [0] * (4 - valid)))
        added = jax.device_get([programs.evaluate(batch) for batch in batches])
        return workload.finalize(accumulate(added, [batch["weights"] for batch in batches]))

    together = metrics(slice(0, 4), slice(4, 5))
    assert {"loss", workload.metric} <= set(together)
    assert all(math.isfinite(value) for value in together.values())
    assert metrics(*(slice(i, i + 1) for i in range(5))) == pytest.approx(together, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_without_training_no_noise_is_drawn_and_the_model_state_comes_back(name):
    workload = registry.load_workload(name)
    params, model_state = jax.eval_shape(workload.init, KEY)
    apply = partial(workload.apply, train=False)
    traced = jax.make_jaxpr(lambda *inputs, rate: apply(*inputs, dropout_rate=rate))(
        params, model_state, workload.abstract_batch(2), KEY, rate=jnp.float32(0.5)
    )
    assert "random_bits" not in str(traced)
    first, count = len(jax.tree.leaves(params)), len(jax.tree.leaves(model_state))
    kept = [variable in traced.jaxpr.outvars for variable in traced.jaxpr.invars[first : first + count]]
    assert kept == [True] * count


@pytest.mark.parametrize("name", NAMES)
def test_initial_parameters_are_a_function_of_the_key_alone(name):
    workload = registry.load_workload(name)
    programs = [jax.make_jaxpr(lambda key: workload.init(key))(KEY) for _ in range(2)]
    assert str(programs[0]) == str(programs[1])
    for a, b in zip(*(program.consts for program in programs), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "random_bits" in str(programs[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_random_batch_has_the_declared_fields(name):
    workload = registry.load_workload(name)
    batch = workload.random_batch(4, seed=0)
    assert {field: (array.shape, array.dtype) for field, array in batch.items()} == {
        field: (abstract.shape, abstract.dtype) for field, abstract in workload.abstract_batch(4).items()
    }
    assert_in_range(workload, batch)


@pytest.fixture(scope="module", params=NAMES)
def prepared(request):
    workload = registry.load_workload(request.param)
    return workload, prepared_splits(workload)


def test_prepared_rows_have_the_declared_fields(prepared):
    workload, splits = prepared
    for arrays in splits.values():
        assert {field: (array.shape[1:], array.dtype) for field, array in arrays.items()} == {
            name: (field.shape, field.dtype) for name, field in workload.fields.items()
        }
        assert len({len(array) for array in arrays.values()}) == 1
        assert_in_range(workload, arrays)
    assert workload.train_eval_rows <= len(next(iter(splits["train"].values())))


def assert_in_range(workload, arrays):
    for name, field in workload.fields.items():
        if np.issubdtype(field.dtype, np.integer):
            assert arrays[name].min() >= 0
            assert arrays[name].max() < field.below
        else:
            assert np.isfinite(arrays[name]).all()


def test_no_row_is_in_two_splits(prepared):
    """By all fields but single numbers: an image under another label would be the same image."""
    workload, splits = prepared
    digests = {split: row_digests(workload, arrays) for split, arrays in splits.items()}
    assert not digests["valid"] & digests["test"]
    assert not digests["train"] & (digests["valid"] | digests["test"])


def row_digests(workload, arrays):
    fields = [np.ascontiguousarray(arrays[name]) for name, field in workload.fields.items() if field.shape]
    rows = np.concatenate([field.reshape(len(field), -1).view(np.uint8) for field in fields], axis=1)
    return {hashlib.blake2b(row, digest_size=16).digest() for row in rows}


def test_preparing_wrote_the_bytes_that_the_workload_names(prepared):
    workload, splits = prepared
    assert hash_splits(splits) == workload.data.sha256
