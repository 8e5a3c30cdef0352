"""new_submission: SGD with momentum and a cosine schedule, as a place to start from."""

from typing import Any

import jax
import optax

from timetrial import Hparams, LogUniform, Submission, Task, Uniform, from_optax

SEARCH_SPACE = {
    "learning_rate": LogUniform(1e-3, 1.0, default=0.1),
    "one_minus_momentum": LogUniform(1e-3, 0.3, default=0.1),
    "final_fraction": Uniform(0.0, 0.1, default=0.0),
}


def make(hparams: Hparams, task: Task) -> Submission:
    """The training algorithm at one point of the search space.

    Numbers in `hparams` are jax scalars and may be traced: compute with them, but do not branch on them in Python.
    """
    schedule = optax.cosine_decay_schedule(1.0, task.horizon_steps())

    def learning_rate(step: Any) -> jax.Array:
        return hparams.learning_rate * (hparams.final_fraction + (1 - hparams.final_fraction) * schedule(step))

    return from_optax(optax.sgd(learning_rate, momentum=1 - hparams.one_minus_momentum))
