"""Schedule-Free AdamW (Defazio et al. 2024, algorithm 1): averaging in the place of a learning-rate schedule.

Gradients are taken at y, between the base iterates z and their average x; x is what is evaluated. The rate of step t is
learning_rate * sqrt(1 - b2^t) * min(1, t / warmup), and x weighs the iterates by the square of their rates.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import schedule_free, schedule_free_eval_params

from timetrial import Hparams, LogUniform, Submission, Task, from_optax

SEARCH_SPACE = {
    "learning_rate": LogUniform(5e-4, 2e-2, default=5e-3),
    "one_minus_b1": LogUniform(2e-2, 0.2, default=0.1),
    "weight_decay": LogUniform(5e-3, 1.0, default=5e-2),
}
B2 = 0.999
WARMUP_FRACTION = 0.05


def make(hparams: Hparams, task: Task) -> Submission:
    warmup = max(1, round(WARMUP_FRACTION * task.horizon_steps()))

    def rate(t: Any) -> jax.Array:
        return hparams.learning_rate * jnp.sqrt(1 - B2**t) * jnp.minimum(1, t / warmup)

    base = optax.chain(
        optax.scale_by_rms(B2, eps=1e-8, eps_in_sqrt=False),
        optax.add_decayed_weights(hparams.weight_decay, task.decay_mask),
        optax.scale_by_learning_rate(lambda count: rate(count + 1)),  # this counts from 0, schedule_free from 1
    )
    tx = schedule_free(base, rate, b1=1 - hparams.one_minus_b1)
    return from_optax(tx, eval_params=schedule_free_eval_params)
