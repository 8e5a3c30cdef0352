"""SGD with Nesterov momentum (Sutskever et al. 2013), L2 regularisation and a warmup-cosine schedule."""

import optax

from timetrial import Hparams, LogUniform, Submission, Task, from_optax, warmup_cosine

SEARCH_SPACE = {
    "learning_rate": LogUniform(1e-2, 2.0, default=0.1),
    "one_minus_momentum": LogUniform(2e-2, 0.2, default=0.1),
    "weight_decay": LogUniform(1e-7, 1e-3, default=1e-5),
}


def make(hparams: Hparams, task: Task) -> Submission:
    rate = warmup_cosine(hparams.learning_rate, task.horizon_steps())
    regularise = optax.add_decayed_weights(hparams.weight_decay, task.decay_mask)
    return from_optax(optax.chain(regularise, optax.sgd(rate, 1 - hparams.one_minus_momentum, nesterov=True)))
