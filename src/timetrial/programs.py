"""A pure submission's functions: checked as they are traced, and compiled by the harness."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.devices import Mesh
from timetrial.problem import ContractError, WorkloadProblem, check_same_shapes
from timetrial.submission import Batch, Leaves, OnEval, Select, Submission, Task, TrainState
from timetrial.tuning import Hparams
from timetrial.workload import Array, PyTree

Make = Callable[[Hparams, Task], Submission]
Scalars = Mapping[str, Array]
"""The traced hyperparameters: arguments of the compiled functions, so that one program serves every point."""


class Functions(NamedTuple):
    """What a submission does, on what the harness hands it."""

    begin: Callable[[Leaves, Leaves, Array, Scalars], TrainState]
    """(params, model_state, key, scalars) -> the state at step 0."""
    step: Callable[[TrainState, Batch, Array, Scalars], tuple[TrainState, Array]]
    """(state, batch, key, scalars) -> (the next state, the loss), where the key is the trial's, not the step's."""
    eval_params: Callable[[TrainState, Batch, Array, Scalars], tuple[Leaves, Leaves]] | None
    """(state, batch, key, scalars) -> the (params, model_state) to evaluate; None: those of the state."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A submission at one point of its search space, ready to be compiled."""

    functions: Functions
    scalars: Scalars
    batch_size: int | None
    """Rows a step; None for the workload's default."""
    select: Select | None = None
    on_eval: OnEval | None = None


class Origin(Protocol):
    """Where a trainer has its submission from."""

    @property
    def folder(self) -> Path | None:
        """Where its source lies, so that messages can name its lines; None for code that has no folder."""
        ...

    def prepare(self, problem: WorkloadProblem, task: Task) -> Prepared:
        """Runs the submission's code as far as it goes without data. Charged."""
        ...


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A submission's code, in this process, and the point at which it is tried."""

    make: Make
    folder: Path | None
    hparams: Mapping[str, Any]
    traced: frozenset[str]
    """The hyperparameters that are passed to the compiled functions as scalars."""

    def prepare(self, problem: WorkloadProblem, task: Task) -> Prepared:
        static = {k: v for k, v in self.hparams.items() if k not in self.traced}
        scalars = {k: jnp.asarray(v) for k, v in self.hparams.items() if k in self.traced}

        def build(traced: Scalars) -> Submission:
            return check_submission(self.make(Hparams({**static, **traced}), task))

        submission = build(scalars)
        return Prepared(
            functions=checked_functions(problem, build, evaluates=submission.eval_params is not None),
            scalars=scalars,
            batch_size=submission.batch_size,
            select=submission.select,
            on_eval=submission.on_eval,
        )


def checked_functions(
    problem: WorkloadProblem, build: Callable[[Scalars], Submission], *, evaluates: bool
) -> Functions:
    """The functions of what `build` makes; whatever breaks the contract raises `ContractError` as it is traced."""

    def begin(params: Leaves, model_state: Leaves, key: Array, scalars: Scalars) -> TrainState:
        opt_state = build(scalars).init(params, model_state, key)
        return _strong(TrainState(params, model_state, opt_state, jnp.zeros((), jnp.int32)))

    def step(state: TrainState, batch: Batch, key: Array, scalars: Scalars) -> tuple[TrainState, Array]:
        key = jax.random.fold_in(key, state.step)
        with problem.counted():
            returned = build(scalars).step(problem, state, batch, key)
        if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[0], TrainState)):
            raise ContractError('step must return (TrainState, {"loss": scalar})')
        new, report = returned
        if not isinstance(report, dict) or "loss" not in report or np.shape(report["loss"]) != ():
            raise ContractError('step must return {"loss": a scalar} beside the state')
        new = _strong(new._replace(step=state.step))
        check_same_shapes("the state that step returned", new, state)
        return new._replace(step=state.step + 1), jnp.asarray(report["loss"], jnp.float32)

    def eval_params(state: TrainState, batch: Batch, key: Array, scalars: Scalars) -> tuple[Leaves, Leaves]:
        hook = build(scalars).eval_params
        if hook is None:
            raise ContractError("make must return an eval_params hook always, or never")
        with problem.counted():
            returned = _strong(hook(problem, state, batch, jax.random.fold_in(key, state.step)))
        check_same_shapes("what eval_params returned", returned, (state.params, state.model_state))
        return returned

    return Functions(begin, step, eval_params if evaluates else None)


class Programs:
    """`begin`, `step`, `gathering_step` and `eval_params` of a submission, jitted."""

    def __init__(self, functions: Functions, problem: WorkloadProblem, mesh: Mesh, batch_size: int) -> None:
        self._functions = functions
        self._problem = problem
        self._mesh = mesh
        self._batch_size = batch_size
        self.begin = jax.jit(self._begin, out_shardings=mesh.replicated)
        self.step = jax.jit(self._step, donate_argnums=0, out_shardings=mesh.replicated)
        self.gathering_step = jax.jit(self._gathering_step, donate_argnums=0, out_shardings=mesh.replicated)
        self.eval_params = (
            None if functions.eval_params is None else jax.jit(functions.eval_params, out_shardings=mesh.replicated)
        )

    def _begin(self, params: Leaves, model_state: Leaves, key: Array, scalars: Scalars) -> TrainState:
        state = self._functions.begin(params, model_state, key, scalars)
        # Copies, since a state may hold its parameters twice, and steps overwrite their input.
        return jax.tree.map(lambda x: jnp.array(x, copy=True), state)

    def _step(self, state: TrainState, batch: Batch, key: Array, scalars: Scalars) -> tuple[TrainState, Array]:
        return self._functions.step(state, batch, key, scalars)

    def _gathering_step(
        self, state: TrainState, data: Mapping[str, Array], plan: tuple[Array, Array], key: Array, scalars: Scalars
    ) -> tuple[TrainState, Array]:
        """A step on row `state.step - first` of `indices` (steps, B), where plan = (first, indices)."""
        first, indices = plan
        rows = jnp.take(indices, state.step - first, axis=0)
        named: dict[str, Any] = {name: jnp.take(array, rows, axis=0) for name, array in data.items()}
        if rows.shape[0] > self._batch_size:
            named["weights"] = (jnp.arange(rows.shape[0]) < self._batch_size).astype(jnp.float32)
        batch = jax.lax.with_sharding_constraint(self._problem.anonymous(named), self._mesh.by_row)
        return self._functions.step(state, batch, key, scalars)


def check_submission(submission: Any) -> Submission:
    """`submission` itself if `make` may return it; otherwise a ContractError says why not."""
    if not isinstance(submission, Submission):
        raise ContractError(f"make must return a timetrial.Submission, not {type(submission).__name__}")
    size = submission.batch_size
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ContractError(
            f"batch_size must be a whole number above 0, or None for the default; got {size!r} "
            "(a batch size that is tuned must be a Choice, because Integers are traced)"
        )
    return submission


def _strong(tree: PyTree) -> PyTree:
    """The tree with no weakly typed scalar, which would compile the next step a second time."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.result_type(x)), tree)
