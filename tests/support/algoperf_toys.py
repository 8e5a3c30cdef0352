"""Submissions of AlgoPerf's API, written as text: momentum, with jit over shardings and with pmap."""

import json
import textwrap
from pathlib import Path

from timetrial.loading import Source

_SHARED = """
    def loss_of(workload, params, batch, model_state, rng, smoothing):
        logits, state = workload.model_fn(
            params, batch, model_state, spec.ForwardPassMode.TRAIN, rng, update_batch_norm=True)
        found = workload.loss_fn(
            label_batch=batch["targets"], logits_batch=logits, mask_batch=batch.get("weights"),
            label_smoothing=smoothing)
        return found["summed"], (found["n_valid_examples"], state)

    def move(rate, params, trace, grads):
        trace = TREE_MAP(lambda t, g: 0.9 * t + g, trace, grads)
        return TREE_MAP(lambda p, t: p - rate * t, params, trace), trace

    def data_selection(workload, input_queue, optimizer_state, current_param_container, model_state, hyperparameters,
                       global_step, rng):
        return next(input_queue)

    def get_batch_size(workload_name):
        raise ValueError(f"asked for {workload_name}")
"""

JIT = """
    import functools, jax, jax.numpy as jnp
    from algoperf import jax_sharding_utils, spec

    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape_tuple), workload.param_shapes)
        return zeros, move

    def step(workload, update, rate, trace, params, model_state, batch, rng):
        (summed, (n, state)), grads = jax.value_and_grad(
            lambda p: loss_of(workload, p, batch, model_state, rng, 0.0), has_aux=True)(params)
        params, trace = update(rate, params, trace, jax.tree.map(lambda g: g / n, grads))
        return trace, params, state

    @functools.cache
    def jitted():
        one, rows = jax_sharding_utils.get_replicate_sharding(), jax_sharding_utils.get_batch_dim_sharding()
        return jax.jit(step, static_argnums=(0, 1, 2), donate_argnums=(3, 4, 5),
                       in_shardings=(one, one, one, rows, one), out_shardings=one)

    def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters, batch,
                      loss_type, optimizer_state, eval_results, global_step, rng, train_state=None):
        trace, update = optimizer_state
        rate = 0.1 if hyperparameters is None else hyperparameters.learning_rate
        trace, params, state = jitted()(
            workload, update, rate, trace, current_param_container, model_state, batch, rng)
        return (trace, update), params, state
""" + _SHARED.replace("TREE_MAP", "jax.tree.map")

PMAP = """
    import functools, jax, jax.numpy as jnp
    from flax import jax_utils
    from jax import lax
    from algorithmic_efficiency import spec

    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
        zeros = jax.tree_map(lambda s: jnp.zeros(s.shape_tuple), workload.param_shapes)
        return jax_utils.replicate(zeros), move

    @functools.partial(jax.pmap, axis_name="batch", in_axes=(None, None, None, 0, 0, 0, 0, 0),
                       static_broadcasted_argnums=(0, 1, 2), donate_argnums=(3, 4, 5))
    def step(workload, update, rate, trace, params, model_state, batch, rng):
        (summed, (n, state)), grads = jax.value_and_grad(
            lambda p: loss_of(workload, p, batch, model_state, rng, 0.0), has_aux=True)(params)
        n, grads = lax.psum((n, grads), "batch")
        params, trace = update(rate, params, trace, jax.tree_map(lambda g: g / n, grads))
        return trace, params, state

    def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters, batch,
                      loss_type, optimizer_state, eval_results, global_step, rng):
        trace, update = optimizer_state
        rate = 0.1 if hyperparameters is None else hyperparameters.learning_rate
        rngs = jax.random.split(rng, jax.local_device_count())
        trace, params, state = step(
            workload, update, rate, trace, current_param_container, model_state, batch, rngs)
        return (trace, update), params, state
""" + _SHARED.replace("TREE_MAP", "jax.tree_map")


def write(folder: Path, text: str, *, space: object = None, name: str = "theirs", **others: str) -> Source:
    """A submission folder; `space` is its tuning_search_space.json, `others` are modules beside it."""
    path = folder / name / "submission.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(textwrap.dedent(part) for part in text.split("\0")))
    for module, source in others.items():
        (path.parent / f"{module}.py").write_text(textwrap.dedent(source))
    if space is not None:
        (path.parent / "tuning_search_space.json").write_text(json.dumps(space))
    return Source(name, path)
