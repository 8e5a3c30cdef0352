"""Arbitrary parameters and model states: initialisers take seconds to compile, and make zeros that hide mistakes."""

import math
from typing import Any

import jax
import numpy as np

from timetrial.workload import ParamInfo, Workload


def arbitrary_state(workload: Workload, seed: int = 0) -> tuple[Any, Any]:
    """(params, model_state) of numpy arrays, of sizes that keep activations and their variances about one."""
    rng = np.random.RandomState(seed)

    def draw(info: ParamInfo) -> np.ndarray:
        noise = rng.standard_normal(info.shape).astype(np.float32)
        if "embedding" in info.kind:
            return noise * info.shape[-1] ** -0.5
        if info.in_axes:
            return noise * math.prod(info.shape[axis] for axis in info.in_axes) ** -0.5
        return (info.kind == "norm_scale") + 0.3 * noise

    params = jax.tree.map(draw, workload.param_info)
    _, model_state = jax.eval_shape(workload.init, jax.random.key(0))
    return params, jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype), model_state)
