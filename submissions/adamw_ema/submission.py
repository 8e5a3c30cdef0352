"""AdamW whose evaluated weights are an exponential moving average of the trained ones (Polyak & Juditsky 1992).

The average stands in for the decay of the learning rate (Sandler et al. 2023): the rate is constant after its warmup.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from timetrial import Hparams, LogUniform, Submission, Task, from_optax

SEARCH_SPACE = {
    "learning_rate": LogUniform(1e-4, 1e-2, default=2e-3),
    "one_minus_b1": LogUniform(2e-2, 0.2, default=0.1),
    "weight_decay": LogUniform(5e-3, 1.0, default=5e-2),
    "window": LogUniform(5e-3, 0.1, default=2e-2),
}
"""`window` is the average's memory, 1 / (1 - decay), as a part of the steps that the run is planned for."""
WARMUP_FRACTION = 0.05


def make(hparams: Hparams, task: Task) -> Submission:
    steps = task.horizon_steps()
    warmup = max(1, round(WARMUP_FRACTION * steps))

    def rate(count: Any) -> jax.Array:
        return hparams.learning_rate * jnp.minimum(1, (count + 1) / warmup)

    b1 = 1 - hparams.one_minus_b1
    tx = optax.adamw(rate, b1, 0.999, weight_decay=hparams.weight_decay, mask=task.decay_mask)
    return from_optax(tx, weight_average=1 - 1 / jnp.maximum(1, hparams.window * steps))
