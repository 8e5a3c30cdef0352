"""What every workload's axes and fixed variants keep: each value makes a model that can be described and trained."""

import math
from collections import Counter
from dataclasses import replace
from functools import cache, partial
from importlib import import_module

import jax
import jax.numpy as jnp
import optax
import pytest

from timetrial import registry, variants

pytestmark = pytest.mark.parametrize("base", registry.workload_names("mini"))


@cache
def module_of(base):
    return import_module(f"timetrial.workloads.{base}")


def single_changes(module):
    """Each value of each axis but the base's, alone."""
    return [{axis: value} for axis, values in module.AXES.items() for value in values[1:]]


def varied(module, changes):
    return module.build(replace(module.MODEL, **changes))


def mean_loss(params, workload, model_state, batch, key):
    """In training, and the new model state."""
    outputs, new_state = workload.apply(params, model_state, batch, key, train=True)
    losses, terms = workload.loss(outputs, batch)
    return jnp.sum(losses) / jnp.sum(terms), new_state


def initial_loss(workload, batch, key):
    """Of the initial weights, and the trees it comes from; one function, so that it is traced once."""
    params, model_state = workload.init(key)
    loss, new_state = mean_loss(params, workload, model_state, batch, key)
    return loss, params, model_state, new_state


def initial_loss_and_gradient_norm(workload, batch, key):
    params, model_state = workload.init(key)
    loss_and_gradient = jax.value_and_grad(mean_loss, has_aux=True)
    (loss, _), gradient = loss_and_gradient(params, workload, model_state, batch, key)
    return loss, optax.tree.norm(gradient)


def test_there_are_four_axes_whose_first_values_are_the_bases(base):
    module = module_of(base)
    assert len(module.AXES) >= 4
    for axis, values in module.AXES.items():
        assert values[0] == getattr(module.MODEL, axis), axis
        assert len(values) >= 2, axis
        assert max(Counter(map(str, values)).values()) == 1, axis  # a variant's name shows the value as a string
        assert {type(value) for value in values} == {type(values[0])}, axis


def test_two_variants_are_fixed_and_compose_values_of_the_axes(base):
    module = module_of(base)
    assert len(module.VARIANTS) == 2
    compositions = [dict(changes) for changes in module.VARIANTS.values()]
    assert compositions[0] != compositions[1]
    for name, changes in module.VARIANTS.items():
        assert name.startswith(f"{base}_")
        assert changes
        for axis, value in changes.items():
            assert value in module.AXES[axis][1:], (name, axis)
        workload = variants.build(base, name)
        assert (workload.name, workload.variant_of) == (name, base)


def test_every_value_of_an_axis_gives_another_program_and_described_parameters(base):
    """Traced, not run. An axis whose values all mean the same would be no axis."""
    module = module_of(base)
    programs: set[str] = set()
    for changes in [{}, *single_changes(module)]:
        workload = varied(module, changes)
        trace = jax.make_jaxpr(partial(initial_loss, workload), return_shape=True)
        program, (loss, params, model_state, new_state) = trace(workload.abstract_batch(4), jax.random.key(0))
        assert str(program) not in programs, changes
        programs.add(str(program))
        assert loss.shape == (), changes
        described = jax.tree.map(lambda leaf, info: leaf.shape == info.shape, params, workload.param_info)
        assert all(jax.tree.leaves(described)), changes
        for info in jax.tree.leaves(workload.param_info):
            named = (*info.in_axes, *info.out_axes, *info.batch_axes)
            assert len(set(named)) == len(named), changes
            assert set(named) <= set(range(len(info.shape))), changes
        before, after = (
            jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) for state in (model_state, new_state)
        )
        assert before == after, changes


@pytest.mark.slow
def test_every_value_of_an_axis_and_every_fixed_variant_starts_with_a_finite_loss_and_gradient(base):
    module = module_of(base)
    for changes in [*single_changes(module), *module.VARIANTS.values()]:
        workload = varied(module, changes)
        step = jax.jit(lambda batch, key, workload=workload: initial_loss_and_gradient_norm(workload, batch, key))
        loss, norm = map(float, step(workload.random_batch(4, seed=1), jax.random.key(0)))
        assert math.isfinite(loss), changes
        assert 0 < norm < math.inf, changes
