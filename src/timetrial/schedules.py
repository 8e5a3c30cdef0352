"""Learning-rate schedules that trace: the peak may be a hyperparameter that is known only when the step runs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def warmup_cosine(peak: Any, steps: int, warmup_fraction: float = 0.05) -> Callable[[Any], jax.Array]:
    """Linear warmup to `peak`, then half a cosine to 0 (Loshchilov & Hutter 2017, without restarts).

    Args:
        peak: the largest rate; a number or a traced scalar.
        steps: steps until the rate is 0, where it stays; what `task.horizon_steps()` says.
        warmup_fraction: the part of `steps`, in [0, 1], that the warmup takes; at least one step.

    Returns:
        A schedule as optax takes it: the number of steps taken so far -> the rate of the next. The first step has rate
        peak / (steps of warmup), the last of the warmup has `peak`.
    """
    warmup = max(1, round(warmup_fraction * steps))

    def rate(count: Any) -> jax.Array:
        progress = jnp.clip((count + 1 - warmup) / (steps + 1 - warmup), 0, 1)
        return peak * jnp.minimum(1, (count + 1) / warmup) * (1 + jnp.cos(jnp.pi * progress)) / 2

    return rate
