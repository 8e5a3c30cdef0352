"""Sharpness-aware minimisation (Foret et al. 2021) on top of SGD with momentum: two gradients of each batch a step.

The gradient is taken at w + radius * g / |g|, where g is the gradient at w, and applied at w.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from timetrial import Batch, Hparams, LogUniform, LossAux, Problem, Submission, Task, TrainState, warmup_cosine

SEARCH_SPACE = {
    "learning_rate": LogUniform(1e-2, 2.0, default=0.1),
    "one_minus_momentum": LogUniform(2e-2, 0.2, default=0.1),
    "weight_decay": LogUniform(1e-7, 1e-3, default=1e-5),
    "radius": LogUniform(1e-2, 0.2, default=5e-2),
}


def make(hparams: Hparams, task: Task) -> Submission:
    rate = warmup_cosine(hparams.learning_rate, task.horizon_steps(loss_evaluations_per_step=2))
    regularise = optax.add_decayed_weights(hparams.weight_decay, task.decay_mask)
    sgd = optax.chain(regularise, optax.sgd(rate, 1 - hparams.one_minus_momentum))

    def init(params: list[jax.Array], model_state: list[jax.Array], key: jax.Array) -> optax.OptState:
        del model_state, key
        return sgd.init(params)

    def step(
        problem: Problem, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        def loss(params: list[jax.Array], at_iterate: bool) -> tuple[jax.Array, LossAux]:
            return problem.loss(params, state.model_state, batch, key, update_batch_norm=at_iterate)

        (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(state.params, True)
        scale = hparams.radius / jnp.maximum(optax.tree.norm(grads), 1e-12)
        nearby = jax.tree.map(lambda w, g: w + scale * g, state.params, grads)
        grads, _ = jax.grad(loss, has_aux=True)(nearby, False)
        updates, opt_state = sgd.update(grads, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        return TrainState(params, aux.model_state, opt_state, state.step), {"loss": value}

    return Submission(init=init, step=step)
