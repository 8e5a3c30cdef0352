"""new_submission: SGD with momentum, a warmup and a cosine schedule, as a place to start from."""

import optax

from timetrial import Hparams, LogUniform, Submission, Task, from_optax, warmup_cosine

SEARCH_SPACE = {
    "learning_rate": LogUniform(1e-3, 1.0, default=0.1),
    "one_minus_momentum": LogUniform(1e-3, 0.3, default=0.1),
}


def make(hparams: Hparams, task: Task) -> Submission:
    """The training algorithm at one point of the search space.

    Numbers in `hparams` are jax scalars and may be traced: compute with them, but do not branch on them in Python.
    """
    rate = warmup_cosine(hparams.learning_rate, task.horizon_steps())
    return from_optax(optax.sgd(rate, momentum=1 - hparams.one_minus_momentum))
