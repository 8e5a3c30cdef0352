"""DeepOBS's quadratic_deep (Schneider et al. 2019): a noisy quadratic whose spectrum is like a network's.

A row x_n is a draw from N(0, 0.6² I) in 100 dimensions, its loss (θ - x_n)' Q (θ - x_n) / 2; θ begins at 1. Of Q's
eigenvalues 90 lie in (0, 1) and 10 in (30, 60) (Chaudhari et al. 2017): the published ones, of numpy's generator with
seed 42. The rotation is another draw than DeepOBS's, and rows are kept in Q's eigenbasis, in which the noise, being
isotropic, is the same.
"""

import functools
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from timetrial.data import Arrays
from timetrial.sweeps.problems.build import small_workload
from timetrial.workload import Array, Batch, PyTree, Workload

DIMENSIONS, NOISE, ROWS = 100, 0.6, 1000


def spectrum() -> np.ndarray:
    """The 100 eigenvalues of the Hessian, float64."""
    rng = np.random.RandomState(42)
    return np.concatenate([rng.uniform(0.0, 1.0, 90), rng.uniform(30.0, 60.0, 10)])


def rotation() -> np.ndarray:
    """An orthogonal matrix from the uniform distribution (Stewart 1980): θ in the eigenbasis is rotation @ θ."""
    q, r = np.linalg.qr(np.random.RandomState(41).standard_normal((DIMENSIONS, DIMENSIONS)))
    return q * np.sign(np.diag(r))


@functools.cache
def _splits() -> Mapping[str, Arrays]:
    def rows(seed: int) -> Arrays:
        draws = np.random.RandomState(seed).normal(0.0, NOISE, (ROWS, DIMENSIONS))
        return {"x": draws.astype(np.float32)}

    return {"train": rows(42), "valid": rows(44), "test": rows(43)}


def workload(name: str) -> Workload:
    eigenvalues = jnp.asarray(spectrum(), jnp.float32)
    turn = jnp.asarray(rotation(), jnp.float32)

    def init(key: Array) -> PyTree:
        del key
        return {"theta": jnp.ones(DIMENSIONS)}

    def apply(params: PyTree, batch: Batch, key: Array, train: bool) -> Array:
        del key, train
        return jnp.sum(eigenvalues * (turn @ params["theta"] - batch["x"]) ** 2, axis=1) / 2

    return small_workload(
        name,
        task="find the minimum of a noisy quadratic",
        init=init,
        apply=apply,
        loss=lambda outputs, batch: outputs,
        splits=_splits(),
        loss_type="function_value",
        batch_size=128,
        citation="Schneider, Balles and Hennig 2019, quadratic_deep",
    )
