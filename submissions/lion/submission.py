"""Lion (Chen et al. 2023): steps by the sign of an interpolated momentum, decoupled decay, warmup-cosine schedule."""

import optax

from timetrial import Hparams, LogUniform, Submission, Task, from_optax, warmup_cosine

SEARCH_SPACE = {
    "learning_rate": LogUniform(2e-5, 2e-3, default=6e-4),
    "one_minus_b1": LogUniform(2e-2, 0.2, default=0.1),
    "weight_decay": LogUniform(2e-2, 5.0, default=0.3),
}


def make(hparams: Hparams, task: Task) -> Submission:
    rate = warmup_cosine(hparams.learning_rate, task.horizon_steps())
    b1 = 1 - hparams.one_minus_b1
    return from_optax(optax.lion(rate, b1, 0.99, weight_decay=hparams.weight_decay, mask=task.decay_mask))
