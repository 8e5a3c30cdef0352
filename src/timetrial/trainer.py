"""The trainer of pure submissions: it holds the submission, its state and the training data, and takes the steps.

The loop lets two steps be in flight, or as many short ones as fit in two milliseconds, so that the device never waits
for Python and the clock is never far behind the device. Where the training data fit on the device, nothing is sent
from step to step: a step gathers its own batch and derives its own key.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.batches import EpochStream, stretch
from timetrial.checkpoint import Checkpoint, like_tree, to_host
from timetrial.devices import Mesh, key_on, put_batch, put_replicated
from timetrial.judge import Counts, Meters, Observed
from timetrial.metering import Metering
from timetrial.problem import ContractError, WorkloadProblem, check_same_shapes
from timetrial.programs import Origin, Programs
from timetrial.rows import RowsUnknownError, rows_in
from timetrial.splits import Split
from timetrial.stream import from_host, on_device, pad_indices
from timetrial.submission import Batch, Feedback, Task, TrainState
from timetrial.workload import Array, PyTree, Workload

_WAIT_SECONDS = 0.002
"""How often, at most, the loop waits for the steps in flight: to wake up after each short step would cost too much."""
_INDICES_AHEAD = 1 << 18
"""Row indices sent to the device at a time, at most."""


class PureTrainer:
    """Trains one workload with one pure submission, once; a `timetrial.judge.Trainer`."""

    state: TrainState
    """The submission's state after the last step; exists from `start` on."""

    def __init__(
        self,
        workload: Workload,
        entry: Origin,
        task: Task,
        *,
        seed: Callable[[str], int],
        mesh: Mesh,
        now: Callable[[], float],
        exact_examples: bool,
        before_start: Callable[[], None] | None = None,
    ) -> None:
        """Loads the data and the initial model.

        Args:
            workload: what is trained.
            entry: what trains it.
            task: what the submission is told of the workload.
            seed: gives the trial's seed for a purpose.
            mesh: the devices.
            now: monotonic seconds, for the time waited for data.
            exact_examples: refuses a step whose rows cannot be counted.
            before_start: called once when the untrained model has been evaluated, before the submission runs.
        """
        self._workload = workload
        self._entry = entry
        self._task = task
        self._mesh = mesh
        self._exact_examples = exact_examples
        self._before_start = before_start
        self._problem = WorkloadProblem(workload)
        self._keys = {
            purpose: key_on(seed(purpose), mesh) for purpose in ("init", "opt_state", "step", "eval_params", "select")
        }
        self._train: Split = workload.rows("train")
        self._stream = EpochStream(len(self._train), seed("data"), block=self._train.block)
        self._eval_stream = EpochStream(len(self._train), seed("eval_data"), block=self._train.block)
        self._data = on_device(self._train, mesh)
        self._initial = jax.jit(workload.init, out_shardings=mesh.replicated)(self._keys["init"])
        self._counts = Counts(0, 0)
        self._loss: Array | None = None
        self._evals = 0
        self._drawn = 0
        self._plan: tuple[Array, Array] | None = None
        self._plan_end = 0
        self._host_batches: Generator[Mapping[str, Array]] | None = None
        self._rows: dict[Any, int] = {}
        self._traced: list[Any] = []
        self._rows_exact = True
        self._meter = Metering(entry.folder, now)

    # What the judge asks for.

    def initial(self) -> tuple[PyTree, PyTree]:
        return self._initial

    def start(self) -> None:
        if self._before_start is not None:
            self._before_start()
        with self._meter.charged("make"):
            self._prepared = self._entry.prepare(self._problem, self._task)
            self._hparams = put_replicated(self._prepared.scalars, self._mesh)
            self._batch_size = self._prepared.batch_size or self._workload.default_batch_size
            self._programs = Programs(self._prepared.functions, self._problem, self._mesh, self._batch_size)
        with self._meter.charged("init"):
            params, model_state = map(jax.tree.leaves, self._initial)
            self.state = self._programs.begin(params, model_state, self._keys["opt_state"], self._hparams)

    def run(self, stop: Callable[[Counts], bool], boundary: float = math.inf) -> None:
        del boundary  # `stop` is asked before every step
        if self._prepared.select is not None:
            take = self._step_on_selected
        elif self._data is not None:
            take = self._step_on_device
        else:
            take = self._step_from_host
        in_flight = self._mesh.steps_in_flight
        with self._meter.charged("step"):
            losses: list[Array] = []
            wait_at = 0.0
            while not stop(self._counts):
                losses.append(take())
                if len(losses) > in_flight and (not in_flight or time.perf_counter() >= wait_at):
                    now = time.perf_counter()
                    losses[-1 - in_flight].block_until_ready()
                    del losses[: len(losses) - in_flight]
                    wait_at = now + _WAIT_SECONDS  # of before the wait: where steps are long, each is waited for
            self._loss = losses[-1] if losses else self._loss

    def evaluated(self) -> tuple[PyTree, PyTree]:
        if self._programs.eval_params is None:
            return self._problem.trees(self.state.params, self.state.model_state)
        with self._meter.charged("eval_params"):
            batch = self._batch_of(self._eval_stream, self._evals)
            arguments = (self.state, batch, self._keys["eval_params"], self._hparams)
            rows = self._rows_through("eval_params", self._programs.eval_params, arguments)
            params, model_state = self._programs.eval_params(*arguments)
            self._meter.has_run("eval_params")
            self._evals += 1
            self._counts = self._counts._replace(examples=self._counts.examples + rows)
        return self._problem.trees(params, model_state)

    def feedback(self, feedback: Feedback) -> None:
        if self._prepared.on_eval is None:
            return
        with self._meter.charged("on_eval"):
            state = self._prepared.on_eval(self.state, feedback)
            if not isinstance(state, TrainState):
                raise ContractError(f"on_eval must return a TrainState, not {type(state).__name__}")
            state = state._replace(step=self.state.step)
            check_same_shapes("the state that on_eval returned", state, self.state)
            # Copies, so that the next step may overwrite them whatever the submission keeps.
            copies = jax.tree.map(lambda x, old: jnp.array(x, dtype=old.dtype, copy=True), state, self.state)
            self.state = put_replicated(copies, self._mesh)

    def counts(self) -> Counts:
        return self._counts

    def meters(self) -> Meters:
        return Meters(self._meter.compile_seconds, self._meter.data_seconds)

    def examples_exact(self) -> bool:
        return self._rows_exact

    def ignored(self) -> tuple[str, ...]:
        return tuple(sorted(self._problem.ignored))

    def repeated_seconds(self) -> float:
        return self._meter.repeated_seconds

    def observed(self) -> Observed:
        """What instruments may see of it, at a step boundary."""
        state = self.state
        return Observed(state.params, state.model_state, state.opt_state, self._loss, self._batch_size)

    # What a checkpoint asks for.

    def save(self) -> Checkpoint:
        """All it takes to go on from here, between two calls."""
        numbers = {
            "step": self._counts.step,
            "examples": self._counts.examples,
            "evals": self._evals,
            "drawn": self._drawn,
            "compile_seconds": self._meter.compile_seconds,
            "data_seconds": self._meter.data_seconds,
            "rows_exact": self._rows_exact,
            "ignored": sorted(self._problem.ignored),
            "ran": self._meter.ran(),
        }
        return Checkpoint(to_host(self.state), numbers)

    def resume(self, find: Callable[[Sequence[np.ndarray]], Checkpoint | None]) -> Checkpoint | None:
        """Once started, goes back to the checkpoint that `find` has for arrays like the state's; or says None."""
        found = find(to_host(self.state))
        if found is None:
            return None
        numbers = found.numbers
        # Copies, since steps overwrite their input and numpy's memory is not jax's to overwrite.
        arrays = jax.tree.map(lambda x: jnp.array(x, copy=True), like_tree(self.state, found.arrays))
        self.state = put_replicated(arrays, self._mesh)
        self._counts = Counts(numbers["step"], numbers["examples"])
        self._evals, self._drawn = numbers["evals"], numbers["drawn"]
        self._meter.compile_seconds, self._meter.data_seconds = numbers["compile_seconds"], numbers["data_seconds"]
        self._rows_exact = numbers["rows_exact"]
        self._problem.ignored.update(numbers["ignored"])
        self._plan, self._host_batches = None, None
        self._meter.repeat(numbers["ran"])
        return found

    def close(self) -> None:
        """Stops listening to the compiler, and making batches."""
        self._meter.close()
        if self._host_batches is not None:
            self._host_batches.close()

    # What a check asks for.

    def step_bytes(self) -> int:
        """Device memory of the largest program so far, of `step` or `eval_params`: arguments, outputs, temporaries."""
        found = (traced.lower().compile().memory_analysis() for traced in self._traced)  # compiled before, not again
        return max(
            m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes + m.temp_size_in_bytes
            for m in found
        )

    # The three ways to take a step. Each returns the loss, which may still be computing.

    def _step_on_device(self) -> Array:
        assert self._data is not None
        step = self._counts.step
        if self._plan is None or step >= self._plan_end:
            with self._meter.waiting_for_data():
                ahead = max(1, min(256, _INDICES_AHEAD // self._batch_size))
                flat = self._stream.indices(step * self._batch_size, ahead * self._batch_size)
                indices = pad_indices(flat.reshape(ahead, self._batch_size), self._mesh)
                self._plan = put_replicated((np.int32(step), indices), self._mesh)
                self._plan_end = step + ahead
        arguments = (self.state, self._data, self._plan, self._keys["step"], self._hparams)
        rows = self._rows_through("gathering", self._programs.gathering_step, arguments)
        self.state, loss = self._programs.gathering_step(*arguments)
        self._meter.has_run("gathering")
        self._count(self._batch_size, rows)
        return loss

    def _step_from_host(self) -> Array:
        with self._meter.waiting_for_data():
            if self._host_batches is None:
                step = self._counts.step
                self._host_batches = from_host(self._train, self._stream, self._mesh, self._batch_size, first=step)
            batch = self._problem.anonymous(next(self._host_batches))
        return self._step_on(batch, drawn=self._batch_size)

    def _step_on_selected(self) -> Array:
        assert self._prepared.select is not None
        before = self._drawn
        key = jax.random.fold_in(self._keys["select"], self._counts.step)
        batch = self._prepared.select(self._drawn_batches(), self.state, key)
        if not isinstance(batch, Batch):
            raise ContractError(f"select must return a Batch, not {type(batch).__name__}")
        return self._step_on(self._padded(batch), drawn=(self._drawn - before) * self._batch_size)

    def _step_on(self, batch: Batch, *, drawn: int) -> Array:
        arguments = (self.state, batch, self._keys["step"], self._hparams)
        program = (batch.size, batch.weights is None)
        rows = self._rows_through(program, self._programs.step, arguments)
        self.state, loss = self._programs.step(*arguments)
        self._meter.has_run(program)
        self._count(drawn, rows)
        return loss

    def _drawn_batches(self) -> Iterator[Batch]:
        while True:
            with self._meter.waiting_for_data():
                batch = self._batch_of(self._stream, self._drawn)
                self._drawn += 1
            yield batch

    def _batch_of(self, stream: EpochStream, number: int) -> Batch:
        """The batch of that number of a stream, on the devices."""
        start, size = number * self._batch_size, self._batch_size
        return self._problem.anonymous(
            put_batch(stretch(self._train, stream, start, size, self._mesh.share), self._mesh)
        )

    def _padded(self, batch: Batch) -> Batch:
        """A selected batch, filled up with rows of weight 0 so that the devices divide it."""
        if missing := self._mesh.round_up(batch.size) - batch.size:
            weights = jnp.ones(batch.size) if batch.weights is None else batch.weights
            rows = batch._replace(weights=None).take(jnp.minimum(jnp.arange(batch.size + missing), batch.size - 1))
            batch = rows._replace(weights=jnp.pad(weights, (0, missing)))
        return jax.device_put(batch, self._mesh.by_row, may_alias=False)  # the step overwrites the state's arrays

    # Counting.

    def _count(self, drawn: int, rows: int) -> None:
        """Rule 3: a step costs the default batch, the rows drawn or the rows through the loss, whichever is most."""
        step, examples = self._counts
        self._counts = Counts(step + 1, examples + max(self._workload.default_batch_size, drawn, rows))

    def _rows_through(self, program: Any, jitted: Any, arguments: tuple[Any, ...]) -> int:
        """The rows that one call passes through the loss, traced the first time; compiling reuses that trace."""
        if program not in self._rows:
            traced = jitted.trace(*arguments)
            self._traced.append(traced)
            try:
                self._rows[program] = rows_in(traced.jaxpr.jaxpr)
            except RowsUnknownError as error:
                if self._exact_examples:
                    raise ContractError(str(error)) from None
                self._rows[program], self._rows_exact = 0, False
        return self._rows[program]
