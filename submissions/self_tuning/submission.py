"""Prodigy (Mishchenko & Defazio 2024): AdamW that estimates its own learning rate, under a warmup-cosine schedule.

The rate is a running lower bound of the distance from the initial weights to the solution; the schedule multiplies it.
"""

from optax.contrib import prodigy

from timetrial import Hparams, Submission, Task, from_optax, warmup_cosine


def make(hparams: Hparams, task: Task) -> Submission:
    del hparams  # it tunes itself: there is no search space
    return from_optax(prodigy(warmup_cosine(1.0, task.horizon_steps()), safeguard_warmup=True, weight_decay=1e-2))
