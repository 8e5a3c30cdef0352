"""Looks at a trial with a set of instruments, between its steps; a `timetrial.judge.Instruments`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from timetrial.batches import EpochStream, stretch
from timetrial.devices import Mesh, put_replicated
from timetrial.errors import UserError
from timetrial.failures import is_out_of_memory
from timetrial.instrument_log import LOG_NAME, Choice, LogHeader, LogWriter, Look
from timetrial.instruments.measure import Measure, Seen
from timetrial.instruments.optimizer_state import StateReader
from timetrial.instruments.per_row import chunk_rows
from timetrial.instruments.probe import ProbeLoss
from timetrial.instruments.readings import readings
from timetrial.instruments.sets import absences, has
from timetrial.judge import Counts, Observed
from timetrial.problem import WorkloadProblem
from timetrial.submission import Batch, Leaves
from timetrial.workload import PyTree, Workload


class Observable(Protocol):
    """What instruments ask of a trainer."""

    def initial(self) -> tuple[PyTree, PyTree]: ...

    def observed(self) -> Observed: ...


class _Begun(NamedTuple):
    """The start of a step that is being looked at, in copies of our own."""

    counts: Counts
    seconds: float
    wall_seconds: float
    params: Leaves
    model_state: Leaves
    second_moments: Leaves


class Observer:
    """Writes `folder/instruments.jsonl`."""

    def __init__(
        self,
        trainer: Observable,
        workload: Workload,
        choice: Choice,
        folder: Path,
        *,
        seed: int,
        mesh: Mesh,
        now: Callable[[], float],
        resume: bool,
    ) -> None:
        """`seed` chooses the probe batches: rows of the training split, other ones for each look."""
        self._trainer = trainer
        self._workload = workload
        self._choice = choice
        self._mesh = mesh
        self._now = now
        self._writer = LogWriter(folder / LOG_NAME, resume=resume)
        self._problem = WorkloadProblem(workload)
        self._train = workload.rows("train")
        self._stream = EpochStream(len(self._train), seed, block=self._train.block)
        self._key = put_replicated(jax.random.key(seed & 0xFFFFFFFF), mesh)
        self._copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
        self._begun: _Begun | None = None
        self._ready = False

    def due(self, step: int) -> bool:
        if self._begun is not None:
            return step > self._begun.counts.step
        return self._looks_at(step)

    def before(self, counts: Counts, seconds: float) -> None:
        if self._begun is not None or not self._looks_at(counts.step):
            return
        began = self._now()
        observed = self._trainer.observed()
        if not self._ready:
            self._prepare(observed)
        moments = self._reader.second_moments(observed.opt_state) if self._preconditions else []
        copies = self._copy((observed.params, observed.model_state if self._rows else [], moments))
        jax.block_until_ready(copies)
        self._begun = _Begun(counts, seconds, self._now() - began, *copies)

    def after(self, step: int) -> None:
        if self._begun is None or step <= self._begun.counts.step:
            return
        began = self._now()
        begun, self._begun = self._begun, None
        observed = self._trainer.observed()
        moments = None
        if self._preconditions:
            moments = begun.second_moments, self._reader.second_moments(observed.opt_state)
        seen = Seen(
            self._initial,
            begun.params,
            observed.params,
            begun.model_state,
            moments,
            jnp.asarray(begun.counts.step + 1, jnp.float32),
        )
        batch = self._probe_batch(begun.counts.step) if self._rows else None
        try:
            sums = jax.device_get(self._measure(seen, batch, jax.random.fold_in(self._key, begun.counts.step)))
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"the {self._choice.set} instruments need more memory than there is, with {self._rows} probe "
                "rows; take fewer (--probe-rows) or another set"
            ) from error
        injected, loss = jax.device_get((self._reader.hyperparameters(observed.opt_state), observed.loss))
        hyperparameters = {name: float(value) for name, value in injected.items()}
        found = readings(sums, batch_size=observed.batch_size, learning_rate=hyperparameters.get("learning_rate"))
        self._writer.write(
            Look(
                step=begun.counts.step,
                examples=begun.counts.examples,
                seconds=begun.seconds,
                wall_seconds=begun.wall_seconds + self._now() - began,
                values=({} if loss is None else {"step_loss": float(loss)}) | found.values,
                arrays=found.arrays,
                histograms=found.histograms,
                hyperparameters=hyperparameters,
            )
        )

    def close(self) -> None:
        self._writer.close()

    def _looks_at(self, step: int) -> bool:
        return step > self._writer.last_step and self._choice.looks_at(step)

    def _prepare(self, observed: Observed) -> None:
        """At the first look: what depends on the submission's batch size and state."""
        choice, workload = self._choice, self._workload
        rows = choice.probe_rows or max(8, observed.batch_size // 8)
        rows = self._mesh.round_up(rows) if observed.whole and has(choice.set, "economy") else 0
        self._rows = min(rows, len(self._train))
        self._initial: Leaves = self._copy(jax.tree.leaves(self._trainer.initial()[0]))
        self._reader = StateReader(observed.opt_state, observed.params)
        self._preconditions = bool(self._rows) and has(choice.set, "full") and self._reader.has_second_moments
        parameters = sum(x.size for x in observed.params)
        self._measure = Measure(
            choice.set,
            ProbeLoss(self._problem, workload.rows_coupled, workload.has_dropout) if self._rows else None,
            chunk=chunk_rows(self._rows, parameters, jax.default_backend()) if self._rows else 1,
        )
        absent = absences(
            choice.set,
            sees_loss=observed.whole,
            coupled=workload.rows_coupled,
            second_moments=self._reader.has_second_moments,
            learning_rate="learning_rate" in self._reader.hyperparameters(observed.opt_state),
        )
        self._writer.write(
            LogHeader(
                set=choice.set,
                every=choice.every,
                batch_size=observed.batch_size,
                probe_rows=self._rows,
                params=_described(workload),
                absent=absent,
            )
        )
        self._ready = True

    def _probe_batch(self, step: int) -> Batch:
        """Rows for the look at `step`, on every device."""
        number = step // self._choice.every if self._choice.every != "log" else step
        named = stretch(self._train, self._stream, number * self._rows, self._rows, devices=1)
        return put_replicated(self._problem.anonymous(named), self._mesh)


def _described(workload: Workload) -> tuple[dict[str, Any], ...]:
    """Name, kind and shape of each parameter array."""
    described = jax.tree_util.tree_leaves_with_path(workload.param_info)
    return tuple(
        {
            "name": "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path),
            "kind": info.kind,
            "shape": list(info.shape),
        }
        for path, info in described
    )
