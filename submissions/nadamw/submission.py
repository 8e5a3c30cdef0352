"""NAdamW: AdamW with Nesterov momentum in the first moment (Dozat 2016), under a warmup-cosine schedule."""

import optax

from timetrial import Hparams, LogUniform, Submission, Task, from_optax, warmup_cosine

SEARCH_SPACE = {
    "learning_rate": LogUniform(1e-4, 1e-2, default=3e-3),
    "one_minus_b1": LogUniform(2e-2, 0.2, default=0.1),
    "weight_decay": LogUniform(5e-3, 1.0, default=5e-2),
}


def make(hparams: Hparams, task: Task) -> Submission:
    rate = warmup_cosine(hparams.learning_rate, task.horizon_steps())
    b1 = 1 - hparams.one_minus_b1
    return from_optax(optax.nadamw(rate, b1, 0.999, weight_decay=hparams.weight_decay, mask=task.decay_mask))
