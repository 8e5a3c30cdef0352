"""DeepOBS's two-dimensional problems (Schneider et al. 2019): a function of u and v, with noise u x_n + v y_n.

x and y are standard normal. Losses are above the function's minimum; valid and test rows have no noise, so that their
metric is the true distance from it. Starting points are DeepOBS's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import pi

import jax.numpy as jnp
import numpy as np

from timetrial.sweeps.problems.build import small_workload
from timetrial.workload import Array, Batch, PyTree, Workload

ROWS = 4096


@dataclass(frozen=True)
class Function:
    value: Callable[[Array, Array], Array]
    start: tuple[float, float]
    minimum: float


def rosenbrock(u: Array, v: Array) -> Array:
    return (1 - u) ** 2 + 100 * (v - u**2) ** 2


def beale(u: Array, v: Array) -> Array:
    return (1.5 - u + u * v) ** 2 + (2.25 - u + u * v**2) ** 2 + (2.625 - u + u * v**3) ** 2


def branin(u: Array, v: Array) -> Array:
    return (v - 5.1 / (4 * pi**2) * u**2 + 5 / pi * u - 6) ** 2 + 10 * (1 - 1 / (8 * pi)) * jnp.cos(u) + 10


FUNCTIONS: Mapping[str, Function] = {
    "rosenbrock": Function(rosenbrock, (-0.5, 1.5), 0.0),
    "beale": Function(beale, (-4.5, 4.5), 0.0),
    "branin": Function(branin, (2.5, 12.5), 5 / (4 * pi)),
}


def workload(name: str) -> Workload:
    function = FUNCTIONS[name]
    noise = np.random.RandomState(42).standard_normal((ROWS, 2)).astype(np.float32)
    still = {"noise": np.zeros((1, 2), np.float32)}

    def init(key: Array) -> PyTree:
        del key
        return {"uv": jnp.asarray(function.start, jnp.float32)}

    def apply(params: PyTree, batch: Batch, key: Array, train: bool) -> Array:
        del key, train
        u, v = params["uv"]
        return function.value(u, v) - function.minimum + batch["noise"] @ params["uv"]

    return small_workload(
        name,
        task="find the minimum of a noisy function of two variables",
        init=init,
        apply=apply,
        loss=lambda outputs, batch: outputs,
        splits={"train": {"noise": noise}, "valid": still, "test": still},
        loss_type="function_value",
        batch_size=128,
        citation="Schneider, Balles and Hennig 2019, two_d",
    )
