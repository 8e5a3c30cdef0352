"""A few steps of a submission on noise: what the dynamic rules look at."""

import gc
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.algoperf.trainer import AlgoPerfTrainer
from timetrial.data import SPLITS, InMemory
from timetrial.devices import Mesh
from timetrial.loading import Loaded, Source
from timetrial.problem import make_task
from timetrial.submission import Feedback
from timetrial.trainer import PureTrainer
from timetrial.trainers import make_trainer
from timetrial.tuning import Point
from timetrial.workload import Workload

STEPS = 2
"""Of a leg."""
_HORIZON_STEPS = 1000
Trainer = PureTrainer | AlgoPerfTrainer


class Leg(NamedTuple):
    """What there is after two steps, an evaluation and its feedback, on the host."""

    state: list[np.ndarray]
    params: list[np.ndarray]
    """Those evaluated, as the model state beside them."""
    model_state: list[np.ndarray]

    def same_as(self, other: "Leg") -> bool:
        """Whether all bits are the same."""
        return all(map(same, self, other))

    def not_finite(self) -> list[str]:
        """Which of them hold NaN or infinity."""
        parts = {"the state": self.state, "the evaluated parameters": self.params + self.model_state}
        return [name for name, arrays in parts.items() if not all(map(_finite, arrays))]


class Census(NamedTuple):
    """What is alive: all arrays, and the Python objects made since `only_new_objects`."""

    arrays: int
    objects: int


@contextmanager
def rehearsing(
    source: Source, loaded: Loaded, workload: Workload, point: Point, *, hints_off: bool = False
) -> Generator[Trainer]:
    """A trainer of the submission on noise; its calls raise SubmissionFailure.

    With `hints_off` the task tells of 10 % fewer steps, of batches 10 % larger, and of a largest batch 10 % smaller.
    """
    mesh = Mesh.local()
    task = make_task(
        workload,
        horizon_examples=_HORIZON_STEPS * workload.default_batch_size,
        device_count=mesh.size,
        device_memory_bytes=mesh.memory_bytes,
    )
    if hints_off:
        batch_size = round(1.1 * task.default_batch_size)
        task = replace(
            task,
            default_batch_size=batch_size,
            max_batch_size=round(0.9 * task.max_batch_size),
            horizon_examples=round(0.9 * _HORIZON_STEPS) * batch_size,
        )
    noisy = on_noise(workload)
    trainer = make_trainer(
        source, lambda: loaded, point, noisy, task, seed=len, mesh=mesh, now=lambda: 0.0, exact_examples=False
    )
    try:
        yield trainer
    finally:
        trainer.close()


def on_noise(workload: Workload) -> Workload:
    """The workload with two batches of noise for data, so that it can be tried without its own."""
    rows = 2 * workload.default_batch_size
    splits = {split: workload.random_batch(rows, seed) for seed, split in enumerate(SPLITS)}
    return replace(workload, data=InMemory.holding(splits, like=workload.data))


def leg(trainer: Trainer, metric: str) -> Leg:
    """Two more steps, an evaluation, and its feedback."""
    until = trainer.counts().step + STEPS
    trainer.run(lambda counts: counts.step >= until)
    params, model_state = map(host, trainer.evaluated())
    trainer.feedback(Feedback(metrics={"valid/loss": 1.0, f"valid/{metric}": 1.0}, charge=1.0, budget=2.0))
    return Leg(host(trainer.state), params, model_state)


@contextmanager
def only_new_objects() -> Generator[None]:
    """Within it the garbage collector knows only objects made within it, and so is quick."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def census() -> Census:
    gc.collect()
    return Census(len(jax.live_arrays()), len(gc.get_objects()))


def host(tree: Any) -> list[np.ndarray]:
    """Copies of all arrays but keys, on the host."""
    leaves = (leaf for leaf in jax.tree.leaves(tree) if not jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.extended))
    return [np.array(leaf, copy=True) for leaf in leaves]


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    """Whether two lists of arrays have the same shapes and bits."""
    return len(first) == len(second) and all(
        np.array_equal(a, b, equal_nan=_is_float(a)) for a, b in zip(first, second, strict=True)
    )


def _finite(array: np.ndarray) -> bool:
    return not _is_float(array) or bool(np.all(np.isfinite(array)))


def _is_float(array: np.ndarray) -> bool:
    return jnp.issubdtype(array.dtype, jnp.inexact)  # numpy alone does not know bfloat16
