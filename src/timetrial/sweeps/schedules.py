"""The study's four learning-rate schedules, step by step: factors on the learning rate.

Read off the `lr_sched_factors` in its published result files (github.com/SirRob1997/Crowded-Valley---Results), which
hold one factor an epoch; here every step has its own, and the first epoch is no exception.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from timetrial.workload import Array

Schedule = Callable[[Any, int], Array]
"""(steps taken so far, steps of the run) -> the factor on the learning rate of the next step."""


def constant(count: Any, steps: int) -> Array:
    del steps
    return jnp.ones_like(count, jnp.float32)


def cosine(count: Any, steps: int) -> Array:
    """Half a cosine from 1 down to 0 (Loshchilov & Hutter 2017, without restarts)."""
    return (1 + jnp.cos(jnp.pi * count / steps)) / 2


def cosine_restarts(count: Any, steps: int) -> Array:
    """Cosines of 10, 20, 40, … % of the run, each from 1 down to 0; the fourth is cut off (the same, with restarts)."""
    first = steps / 10
    cycle = jnp.floor(jnp.log2(count / first + 1) + 1e-6)  # a cycle begins where the logarithm is whole
    length = first * 2**cycle
    begun = length - first
    return (1 + jnp.cos(jnp.pi * jnp.maximum(0.0, count - begun) / length)) / 2


def trapezoidal(count: Any, steps: int) -> Array:
    """Up in a tenth of the steps, level, down in the last tenth (Xing et al. 2018)."""
    ramp = max(1, round(steps / 10))
    return jnp.minimum(1.0, jnp.minimum((count + 1) / ramp, (steps - count) / (ramp + 1)))


SCHEDULES: Mapping[str, Schedule] = {
    "constant": constant,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
    "trapezoidal": trapezoidal,
}


def factor(schedule: Any, count: Any, steps: int) -> Array:
    """The factor of the schedule with number `schedule` in SCHEDULES, which may be traced."""
    return jnp.stack([each(count, steps) for each in SCHEDULES.values()])[schedule]
