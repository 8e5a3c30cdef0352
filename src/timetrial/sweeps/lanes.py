"""The vectorized trainer: many trials of one workload and one submission in one program, a lane each.

A lane is a whole trial: its initial weights, its order of the data, its keys and its hyperparameters are its own, and
they are those that `timetrial.trainer.PureTrainer` gives an ordinary trial with the same seeds. What the lanes share is
the compiled program, so that a hundred short trials pay for one compilation and one dispatch a step.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from timetrial import machine
from timetrial.batches import EpochStream, padded_batch
from timetrial.devices import Mesh, key_on
from timetrial.errors import UserError
from timetrial.evaluate import accumulate
from timetrial.problem import WorkloadProblem, make_task
from timetrial.programs import Entry, Make
from timetrial.submission import TrainState
from timetrial.workload import Array, PyTree, Workload

SPLITS = ("valid", "test")
Metrics = Mapping[str, float]
"""By `split/metric`."""
Loop = Literal["scan", "python"]
"""Whether the steps between two evals are one program, or each is dispatched by Python."""


@dataclass(frozen=True)
class Lane:
    """One trial to train."""

    hparams: Mapping[str, float]
    seed: Callable[[str], int]
    """The trial's seed for a purpose of `timetrial.seeds`."""


class _Running(NamedTuple):
    """The lanes of one program, between two calls; L of them."""

    state: TrainState
    keys: Array
    scalars: Mapping[str, Array]
    streams: list[EpochStream]


class LaneTrainer:
    """Trains trials of one workload with one pure submission, `lanes` at a time; all hyperparameters are traced."""

    def __init__(
        self, workload: Workload, make: Make, hparams: Iterable[str], *, steps: int, evals: int, lanes: int, loop: Loop
    ) -> None:
        """Loads the data.

        Args:
            workload: what is trained.
            make: what trains it, without hooks on the host, at the workload's batch size.
            hparams: the names of the hyperparameters.
            steps: steps of each trial.
            evals: how often it is evaluated, after equal numbers of steps, beside the evaluation before the first.
            lanes: trials in one program. Fewer are filled up with copies of the last.
            loop: how the steps between two evals are taken.
        """
        if steps % evals:
            raise UserError(f"{steps} steps cannot be split into {evals} stretches of equal length; change one of them")
        self.workload, self.lanes, self.steps, self.evals = workload, lanes, steps, evals
        self.loop: Loop = loop
        self._stretch = steps // evals
        self._mesh = Mesh.local()
        self._problem = WorkloadProblem(workload)
        rows = workload.default_batch_size
        task = make_task(
            workload, horizon_examples=steps * rows, device_count=1, device_memory_bytes=machine.memory_bytes()
        )
        names = frozenset(hparams)
        prepared = Entry(make=make, folder=None, hparams=dict.fromkeys(names, 0.5), traced=names).prepare(
            self._problem, task
        )
        if prepared.batch_size is not None or prepared.functions.eval_params or prepared.select or prepared.on_eval:
            raise UserError("a sweep trains submissions at the workload's batch size that have no hooks")
        self._functions = prepared.functions
        train = workload.split("train")
        self._rows = len(next(iter(train.values())))
        self._data = {name: jnp.asarray(np.asarray(array)) for name, array in train.items()}
        self._splits = {split: self._batches(split) for split in SPLITS}
        self._begin = jax.jit(jax.vmap(self._begin_one))
        self._advance = jax.jit(
            self._scan if loop == "scan" else jax.vmap(self._step_one, (0, None, 0, 0, 0)), donate_argnums=0
        )
        self._evaluate = jax.jit(jax.vmap(workload.evaluate, (0, 0, None)))

    def train(self, lanes: Sequence[Lane]) -> list[list[Metrics]]:
        """The metrics of each trial, at its start and at each eval."""
        found: list[list[Metrics]] = []
        for first in range(0, len(lanes), self.lanes):
            chunk = list(lanes[first : first + self.lanes])
            found += self._train_chunk(chunk)
        return found

    def pace(self, lanes: Sequence[Lane], now: Callable[[], float] = time.perf_counter) -> float:
        """Steps of single trials that are taken in a second, compiled: of the second stretch of a full program."""
        running = self._start(self._filled(lanes[: self.lanes]))
        running = self._run(running, 0)
        jax.block_until_ready(running.state)
        began = now()
        jax.block_until_ready(self._run(running, self._stretch).state)
        return min(len(lanes), self.lanes) * self._stretch / (now() - began)

    def _train_chunk(self, chunk: Sequence[Lane]) -> list[list[Metrics]]:
        running = self._start(self._filled(chunk))
        found = [[metrics] for metrics in self._evaluated(running.state, len(chunk))]
        for number in range(self.evals):
            running = self._run(running, number * self._stretch)
            for curve, metrics in zip(found, self._evaluated(running.state, len(chunk)), strict=True):
                curve.append(metrics)
        return found

    def _filled(self, chunk: Sequence[Lane]) -> list[Lane]:
        return [*chunk, *[chunk[-1]] * (self.lanes - len(chunk))]

    def _start(self, lanes: Sequence[Lane]) -> _Running:
        def keys(purpose: str) -> Array:
            return jnp.stack([key_on(lane.seed(purpose), self._mesh) for lane in lanes])

        scalars = {name: jnp.asarray([lane.hparams[name] for lane in lanes]) for name in lanes[0].hparams}
        state = self._begin(keys("init"), keys("opt_state"), scalars)
        streams = {seed: EpochStream(self._rows, seed) for seed in {lane.seed("data") for lane in lanes}}
        return _Running(state, keys("step"), scalars, [streams[lane.seed("data")] for lane in lanes])

    def _run(self, running: _Running, step: int) -> _Running:
        """The lanes after one stretch more, from step `step` on."""
        rows, length = self.workload.default_batch_size, self._stretch
        drawn = {
            id(stream): stream.indices(step * rows, length * rows).reshape(length, rows) for stream in running.streams
        }
        plan_slb = jnp.asarray(np.stack([drawn[id(stream)] for stream in running.streams], axis=1))
        state = running.state
        for taken in [plan_slb] if self.loop == "scan" else plan_slb:
            state = self._advance(state, self._data, taken, running.keys, running.scalars)
        return running._replace(state=state)

    # What is compiled. L lanes, S steps of a stretch, B rows of a batch.

    def _begin_one(self, init_key: Array, key: Array, scalars: Mapping[str, Array]) -> TrainState:
        params, model_state = map(jax.tree.leaves, self.workload.init(init_key))
        return self._functions.begin(params, model_state, key, scalars)

    def _step_one(
        self, state: TrainState, data: Mapping[str, Array], rows_b: Array, key: Array, scalars: Mapping[str, Array]
    ) -> TrainState:
        batch = self._problem.anonymous({name: jnp.take(array, rows_b, axis=0) for name, array in data.items()})
        return self._functions.step(state, batch, key, scalars)[0]

    def _scan(
        self, state: TrainState, data: Mapping[str, Array], plan_slb: Array, keys: Array, scalars: Mapping[str, Array]
    ) -> TrainState:
        step = jax.vmap(self._step_one, (0, None, 0, 0, 0))
        return jax.lax.scan(lambda s, rows_lb: (step(s, data, rows_lb, keys, scalars), None), state, plan_slb)[0]

    # Evaluation.

    def _batches(self, split: str) -> list[dict[str, np.ndarray]]:
        rows, size = self.workload.rows(split), self.workload.eval_batch_size
        return [padded_batch(rows, size, number) for number in range(-(-len(rows) // size))]

    def _evaluated(self, state: TrainState, lanes: int) -> list[Metrics]:
        """The metrics of the first `lanes` lanes; the others are filling."""
        params, model_state = self._problem.trees(state.params, state.model_state)
        pending = {s: [self._evaluate(params, model_state, b) for b in batches] for s, batches in self._splits.items()}
        found: list[Metrics] = []
        held = jax.device_get(pending)
        for lane in range(lanes):
            metrics: dict[str, float] = {}
            for split, batches in self._splits.items():
                own: list[PyTree] = [{name: value[lane] for name, value in added.items()} for added in held[split]]
                means = self.workload.finalize(accumulate(own, [batch["weights"] for batch in batches]))
                metrics.update({f"{split}/{name}": float(value) for name, value in means.items()})
            found.append(metrics)
        return found


def fastest(trainers: Sequence[LaneTrainer], lanes: Sequence[Lane]) -> LaneTrainer:
    """The trainer that takes most steps a second here. Compiles them all."""
    return max(trainers, key=lambda trainer: trainer.pace(lanes))
