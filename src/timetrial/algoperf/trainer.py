"""The trainer of AlgoPerf submissions: the host calls `update_params` step by step, as AlgoPerf's own runner does."""

import contextlib
import inspect
import math
import time
from collections import namedtuple
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import jax_utils

from timetrial.algoperf import spec
from timetrial.algoperf.view import AlgoPerfWorkload
from timetrial.batches import EpochStream
from timetrial.checkpoint import Checkpoint
from timetrial.devices import Mesh, put_replicated
from timetrial.judge import Counts, Meters, Observed, TrainingComplete
from timetrial.metering import Metering
from timetrial.problem import ContractError, check_same_shapes
from timetrial.stream import from_host, on_device, pad_indices
from timetrial.submission import Feedback, Task
from timetrial.workload import Array, PyTree, Workload

_WAIT_SECONDS = 0.002
"""How often, at most, the loop waits for the steps in flight."""
_AHEAD = 64
"""Batches whose rows are chosen at a time."""
_AT_ONCE = 8
"""Batches, and keys of steps, that one call makes: they are there when they are wanted, and share what a call costs."""


@dataclass(frozen=True, kw_only=True)
class AlgoPerfEntry:
    """A submission's functions, and the point at which it is tried."""

    load: Callable[[], ModuleType]
    """Called as the trainer starts."""
    folder: Path
    hparams: Mapping[str, Any] | None
    """None for a submission that tunes itself."""
    per_device: bool
    """Whether it uses pmap: arrays then have a leading axis of devices, and parameters are replicated along it."""
    batch_size: int | None = None
    """None for the workload's default."""


class AlgoPerfTrainer:
    """Trains one workload with one AlgoPerf submission, once; a `timetrial.judge.Trainer`."""

    def __init__(
        self,
        workload: Workload,
        entry: AlgoPerfEntry,
        task: Task,
        *,
        seed: Callable[[str], int],
        mesh: Mesh,
        now: Callable[[], float],
        before_start: Callable[[], None] | None = None,
    ) -> None:
        """Loads the data and the initial model; the arguments are those of `timetrial.trainer.PureTrainer`."""
        self._workload = workload
        self._entry = entry
        self._mesh = mesh
        self._now = now
        self._before_start = before_start
        self._hparams = None if entry.hparams is None else _named_tuple(entry.hparams)
        self._batch_size = workload.default_batch_size if entry.batch_size is None else entry.batch_size
        self._view = AlgoPerfWorkload(
            workload,
            step_hint=task.horizon_steps(self._batch_size),
            # AlgoPerf's runner built the models of that time with this hyperparameter.
            dropout_rate=getattr(self._hparams, "dropout_rate", None) if entry.per_device else None,
        )
        self._train = workload.rows("train")
        self._stream = EpochStream(len(self._train), seed("data"), block=self._train.block)
        self._data = on_device(self._train, mesh)
        # On no device in particular, since pmap takes keys that lie elsewhere for a mistake.
        self._keys = {purpose: jnp.asarray(_words(seed(purpose))) for purpose in ("init", "opt_state", "step")}
        key = jax.random.wrap_key_data(self._keys["init"], impl="threefry2x32")
        self._initial = jax.jit(workload.init, out_shardings=mesh.replicated)(key)
        self._gather = jax.jit(self._gathered)
        self._lay_out = jax.jit(self._laid_out)
        self._draw_rngs = jax.jit(_step_rngs)
        self._rngs: list[tuple[Array, Array]] = []
        self._prepare_rng_of = jax.jit(_prepare_rng)
        self._one_of_each = jax.jit(_one_of_each)
        self._probe = jax.jit(jnp.ravel)
        self._smallest = int(np.argmin([leaf.size for leaf in jax.tree.leaves(self._initial[0])]))
        self._counts = Counts(0, 0)
        self._eval_results: list[tuple[int, dict[str, float]]] = []
        self._complete = False
        self._charged_seconds = 0.0
        self._train_state: dict[str, Any] = {
            "validation_goal_reached": False,
            "test_goal_reached": False,
            "is_time_remaining": True,
            "last_eval_time": 0,
            "training_complete": False,
            "accumulated_submission_time": 0.0,
            "accumulated_eval_time": 0.0,
            "accumulated_logging_time": 0.0,
            "last_step_end_time": None,
        }
        self._meter = Metering(entry.folder, now)
        # What makes batches and keys is the harness's own: it is compiled before anything is charged.
        self._draw_rngs(self._keys["step"], np.int32(0))
        self._draw_from(0)
        if self._data is not None:
            next(self._batches)
            self._draw_from(0)
            self._meter.data_seconds = 0.0

    # What the judge asks for.

    def initial(self) -> tuple[PyTree, PyTree]:
        return self._initial

    def start(self) -> None:
        if self._before_start is not None:
            self._before_start()
        with self._meter.charged("init_optimizer_state"):
            self._module = self._entry.load()
            self._select = getattr(self._module, "data_selection", None)
            told = "train_state" in inspect.signature(self._module.update_params).parameters
            self._extra = {"train_state": MappingProxyType(self._train_state)} if told else {}
            params, model_state = self._initial
            # Copies, since submissions may overwrite their input.
            copies = jax.tree.map(lambda x: jnp.array(x, copy=True), (params, model_state))
            self._params, self._model_state = self._view.params(copies[0]), self._view.model_state(copies[1])
            if self._entry.per_device:
                self._params, self._model_state = jax_utils.replicate((self._params, self._model_state))
            self._optimizer_state = self._module.init_optimizer_state(
                self._view, self._params, self._model_state, self._hparams, self._keys["opt_state"]
            )
            self._unsaved = _split(self._optimizer_state)[1]

    def run(self, stop: Callable[[Counts], bool], boundary: float = math.inf) -> None:
        del boundary  # `stop` is asked before every step
        began = self._now()
        with self._meter.charged("update_params"):
            in_flight = min(1, self._mesh.steps_in_flight)  # besides those between two looks
            probes: list[Array] = []
            wait_seconds = _WAIT_SECONDS if in_flight else 0.0
            wait_at = 0.0
            while not (stop(self._counts) or self._complete):
                if self._extra:
                    spent = self._charged_seconds + self._now() - began
                    self._train_state["accumulated_submission_time"] = spent
                self._take_step()
                if (now := time.perf_counter()) >= wait_at:
                    # A copy of the smallest parameter: the next step may overwrite the parameters themselves.
                    probes.append(self._probe(jax.tree.leaves(self._params)[self._smallest]))
                    if len(probes) > in_flight:
                        probes.pop(0).block_until_ready()
                    wait_at = now + wait_seconds  # of before the wait: where steps are long, each is waited for
        self._charged_seconds += self._now() - began
        if self._complete:
            raise TrainingComplete

    def evaluated(self) -> tuple[PyTree, PyTree]:
        prepare = getattr(self._module, "prepare_for_eval", None)
        began = self._now()
        with self._meter.charged("prepare_for_eval"):
            if prepare is not None:
                returned = prepare(
                    workload=self._view,
                    current_param_container=self._params,
                    current_params_types=self._view.model_params_types,
                    model_state=self._model_state,
                    hyperparameters=self._hparams,
                    loss_type=self._view.loss_type,
                    optimizer_state=self._optimizer_state,
                    eval_results=self._eval_results,
                    global_step=self._counts.step,
                    rng=self._prepare_rng_of(self._keys["step"], np.int32(self._counts.step - 1)),
                )
                self._take("prepare_for_eval", returned)
            params, model_state = self._params, self._model_state
            if self._entry.per_device:
                params, model_state = self._one_of_each(params, model_state)
            trees = self._view.own_trees(params, model_state)
            check_same_shapes("the (params, model_state) to evaluate", trees, self._initial)
        self._charged_seconds += self._now() - began
        return trees

    def observed(self) -> Observed:
        """What instruments may see of it, at a step boundary: the parameters."""
        params, model_state = self._params, self._model_state
        if self._entry.per_device:
            params, model_state = self._one_of_each(params, model_state)
        params, model_state = self._view.own_trees(params, model_state)
        return Observed(jax.tree.leaves(params), jax.tree.leaves(model_state), (), None, self._batch_size, whole=False)

    def feedback(self, feedback: Feedback) -> None:
        metrics = {f"validation/{name.removeprefix('valid/')}": value for name, value in feedback.metrics.items()}
        self._eval_results.append((self._counts.step, metrics))

    def counts(self) -> Counts:
        return self._counts

    def meters(self) -> Meters:
        return Meters(self._meter.compile_seconds, self._meter.data_seconds)

    def examples_exact(self) -> bool:
        """False: how often `update_params` passes its batch through the loss cannot be told from outside."""
        return False

    def ignored(self) -> tuple[str, ...]:
        return tuple(sorted(self._view.ignored))

    def repeated_seconds(self) -> float:
        return self._meter.repeated_seconds

    # What a checkpoint and a check ask for.

    @property
    def state(self) -> list[Any]:
        """The arrays and numbers of the optimizer state, the parameters and the model state."""
        return _split(self._whole_state())[0]

    def save(self) -> Checkpoint | None:
        """All it takes to go on from here; None where the state holds things that no checkpoint can hold.

        Functions in the optimizer state need none where they are still those that `init_optimizer_state` returned.
        """
        unsaved = _split(self._optimizer_state)[1]
        if len(unsaved) != len(self._unsaved) or any(
            new is not old for new, old in zip(unsaved, self._unsaved, strict=True)
        ):
            logging.log_first_n(
                logging.WARNING, "no checkpoints: the optimizer state holds what is neither array nor number", 1
            )
            return None
        numbers = {
            "step": self._counts.step,
            "examples": self._counts.examples,
            "drawn": self._drawn,
            "complete": self._complete,
            "eval_results": self._eval_results,
            "charged_seconds": self._charged_seconds,
            "compile_seconds": self._meter.compile_seconds,
            "data_seconds": self._meter.data_seconds,
            "ignored": sorted(self._view.ignored),
            "ran": self._meter.ran(),
        }
        return Checkpoint([np.asarray(jax.device_get(leaf)) for leaf in self.state], numbers)

    def resume(self, find: Callable[[Sequence[np.ndarray]], Checkpoint | None]) -> Checkpoint | None:
        """Once started, goes back to the checkpoint that `find` has for arrays like the state's; or says None."""
        found = find([np.asarray(jax.device_get(leaf)) for leaf in self.state])
        if found is None:
            return None
        saved = iter(found.arrays)
        whole = jax.tree.map(lambda leaf: _like(leaf, next(saved)) if _is_value(leaf) else leaf, self._whole_state())
        self._optimizer_state, self._params, self._model_state = whole
        numbers = found.numbers
        self._counts = Counts(numbers["step"], numbers["examples"])
        self._complete = numbers["complete"]
        self._draw_from(numbers["drawn"])
        self._rngs = []
        self._eval_results[:] = [(step, dict(metrics)) for step, metrics in numbers["eval_results"]]
        self._charged_seconds = numbers["charged_seconds"]
        self._meter.compile_seconds, self._meter.data_seconds = numbers["compile_seconds"], numbers["data_seconds"]
        self._view.ignored.update(numbers["ignored"])
        self._meter.repeat(numbers["ran"])
        return found

    def close(self) -> None:
        """Stops listening to the compiler, and making batches."""
        self._meter.close()
        self._batches.close()

    # A step.

    def _take_step(self) -> None:
        module, step = self._module, self._counts.step
        if step % _AT_ONCE == 0 or not self._rngs:
            self._rngs = self._draw_rngs(self._keys["step"], np.int32(step - step % _AT_ONCE))
        select_rng, update_rng = self._rngs[step % _AT_ONCE]
        drawn = self._drawn
        if self._select is None:
            batch = next(self._batches)
        else:
            batch = self._select(
                self._view,
                self._batches,
                self._optimizer_state,
                self._params,
                self._model_state,
                self._hparams,
                step,
                select_rng,
            )
        try:
            returned = module.update_params(
                workload=self._view,
                current_param_container=self._params,
                current_params_types=self._view.model_params_types,
                model_state=self._model_state,
                hyperparameters=self._hparams,
                batch=batch,
                loss_type=self._view.loss_type,
                optimizer_state=self._optimizer_state,
                eval_results=self._eval_results,
                global_step=step,
                rng=update_rng,
                **self._extra,
            )
            self._take("update_params", returned)
        except spec.TrainingCompleteError:
            self._complete = True
        rows = max(self._workload.default_batch_size, (self._drawn - drawn) * self._batch_size)
        self._counts = Counts(step + 1, self._counts.examples + rows)

    def _take(self, function: str, returned: Any) -> None:
        if not (isinstance(returned, tuple) and len(returned) == 3):
            raise ContractError(f"{function} must return (optimizer_state, params, model_state)")
        self._optimizer_state, self._params, self._model_state = returned
        self._meter.has_run(function)

    def _draw_from(self, drawn: int) -> None:
        """The next batch is that of this number."""
        self._drawn = drawn
        self._batches = self._queue()

    # Batches.

    def _queue(self) -> Generator[Mapping[str, Any]]:
        """The batches from number `_drawn` on, for ever."""
        if self._data is None:
            batches = from_host(self._train, self._stream, self._mesh, self._batch_size, first=self._drawn)
            with contextlib.closing(batches):
                while True:
                    with self._meter.waiting_for_data():
                        batch = self._lay_out(next(batches))
                    self._drawn += 1
                    yield batch
        while True:
            with self._meter.waiting_for_data():
                flat = self._stream.indices(self._drawn * self._batch_size, _AHEAD * self._batch_size)
                indices = pad_indices(flat.reshape(_AHEAD, self._batch_size), self._mesh)
                plan = put_replicated(indices, self._mesh)
            for row in np.arange(0, _AHEAD, _AT_ONCE, dtype=np.int32):
                for batch in self._gather(self._data, plan, row):
                    self._drawn += 1
                    yield batch

    def _gathered(self, data: Mapping[str, Array], plan: Array, row: Array) -> list[dict[str, Any]]:
        """The batches of the indices in `_AT_ONCE` rows of `plan`, from `row` on."""
        return [self._one_gathered(data, jnp.take(plan, row + i, axis=0)) for i in range(_AT_ONCE)]

    def _one_gathered(self, data: Mapping[str, Array], indices: Array) -> dict[str, Any]:
        named: dict[str, Any] = {name: jnp.take(array, indices, axis=0) for name, array in data.items()}
        if indices.shape[0] > self._batch_size:
            named["weights"] = (jnp.arange(indices.shape[0]) < self._batch_size).astype(jnp.float32)
        return self._laid_out(named)

    def _laid_out(self, named: Mapping[str, Any]) -> dict[str, Any]:
        """A batch as the submission gets it: (B, …), or for pmap (devices, B / devices, …)."""
        batch = self._view.batch(named)
        if self._entry.per_device:
            batch = jax.tree.map(lambda x: x.reshape(self._mesh.size, -1, *x.shape[1:]), batch)
        return jax.lax.with_sharding_constraint(batch, self._mesh.by_row)

    def _whole_state(self) -> tuple[Any, PyTree, PyTree]:
        return self._optimizer_state, self._params, self._model_state


def _named_tuple(point: Mapping[str, Any]) -> Any:
    """Hyperparameters as AlgoPerf hands them over: immutable, hashable, read as attributes."""
    make = cast(Any, namedtuple)("Hyperparameters", point)
    return make(**point)


def _words(seed: int) -> np.ndarray:
    """A seed of 64 bits as a key of AlgoPerf's time: two plain words."""
    return np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)


def _step_rngs(words: Array, first: Array) -> list[tuple[Array, Array]]:
    """The keys of `_AT_ONCE` steps from `first` on, for data selection and for the update."""
    keys = jax.vmap(_three_keys, (None, 0))(words, first + jnp.arange(_AT_ONCE))
    return [(keys[i, 0], keys[i, 1]) for i in range(_AT_ONCE)]


def _prepare_rng(words: Array, step: Array) -> Array:
    """The key to prepare an evaluation after a step."""
    return _three_keys(words, step)[2]


def _three_keys(words: Array, step: Array) -> Array:
    key = jax.random.fold_in(jax.random.wrap_key_data(words, impl="threefry2x32"), step)
    return jax.random.key_data(jax.random.split(key, 3))


def _one_of_each(params: PyTree, model_state: PyTree) -> tuple[PyTree, PyTree]:
    """Replicated parameters once, and the mean of the devices' model states."""

    def mean(x: Array) -> Array:
        return jnp.mean(x, axis=0) if jnp.issubdtype(x.dtype, jnp.floating) else x[0]

    return jax.tree.map(lambda x: x[0], params), jax.tree.map(mean, model_state)


def _is_value(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, bool, int, float))


def _split(tree: Any) -> tuple[list[Any], list[Any]]:
    """The leaves that are arrays or numbers, and the others."""
    leaves = jax.tree.leaves(tree)
    return [leaf for leaf in leaves if _is_value(leaf)], [leaf for leaf in leaves if not _is_value(leaf)]


def _like(leaf: Any, array: np.ndarray) -> Any:
    """A saved array as what it was: on its devices, in numpy, or a plain number."""
    if isinstance(leaf, jax.Array):
        return jax.device_put(jnp.array(array, copy=True), leaf.sharding)
    return array if isinstance(leaf, np.ndarray) else type(leaf)(array.item())
