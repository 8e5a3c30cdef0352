"""A pure submission's functions as the harness compiles them: checked, strongly typed, gathering their own batch."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.devices import Mesh
from timetrial.problem import ContractError, WorkloadProblem, check_same_shapes
from timetrial.submission import Batch, Leaves, Submission, TrainState
from timetrial.workload import Array, PyTree

Scalars = Mapping[str, Array]
"""The traced hyperparameters: arguments of the compiled functions, so that one program serves every point."""


class Programs:
    """`begin`, `step`, `gathering_step` and `eval_params`, jitted; `make` turns scalars into a submission."""

    def __init__(
        self, problem: WorkloadProblem, make: Callable[[Scalars], Submission], mesh: Mesh, batch_size: int
    ) -> None:
        self._problem = problem
        self._make = make
        self._mesh = mesh
        self._batch_size = batch_size
        self.begin = jax.jit(self._begin, out_shardings=mesh.replicated)
        self.step = jax.jit(self._step, donate_argnums=0, out_shardings=mesh.replicated)
        self.gathering_step = jax.jit(self._gathering_step, donate_argnums=0, out_shardings=mesh.replicated)
        self.eval_params = jax.jit(self._eval_params)

    def _begin(self, params: Leaves, model_state: Leaves, key: Array, hparams: Scalars) -> TrainState:
        opt_state = self._make(hparams).init(params, model_state, key)
        state = TrainState(params, model_state, opt_state, jnp.zeros((), jnp.int32))
        # Copies, since a state may hold its parameters twice, and steps overwrite their input.
        return jax.tree.map(lambda x: jnp.array(x, copy=True), _strong(state))

    def _step(self, state: TrainState, batch: Batch, key: Array, hparams: Scalars) -> tuple[TrainState, Array]:
        key = jax.random.fold_in(key, state.step)
        with self._problem.counted():
            returned = self._make(hparams).step(self._problem, state, batch, key)
        if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[0], TrainState)):
            raise ContractError('step must return (TrainState, {"loss": scalar})')
        new, report = returned
        if not isinstance(report, dict) or "loss" not in report or np.shape(report["loss"]) != ():
            raise ContractError('step must return {"loss": a scalar} beside the state')
        new = _strong(new._replace(step=state.step))
        check_same_shapes("the state that step returned", new, state)
        return new._replace(step=state.step + 1), jnp.asarray(report["loss"], jnp.float32)

    def _gathering_step(
        self, state: TrainState, data: Mapping[str, Array], plan: tuple[Array, Array], key: Array, hparams: Scalars
    ) -> tuple[TrainState, Array]:
        """A step on row `state.step - first` of `indices` (steps, B), where plan = (first, indices)."""
        first, indices = plan
        rows = jnp.take(indices, state.step - first, axis=0)
        named: dict[str, Any] = {name: jnp.take(array, rows, axis=0) for name, array in data.items()}
        if rows.shape[0] > self._batch_size:
            named["weights"] = (jnp.arange(rows.shape[0]) < self._batch_size).astype(jnp.float32)
        batch = jax.lax.with_sharding_constraint(self._problem.anonymous(named), self._mesh.by_row)
        return self._step(state, batch, key, hparams)

    def _eval_params(self, state: TrainState, batch: Batch, key: Array, hparams: Scalars) -> tuple[Leaves, Leaves]:
        hook = self._make(hparams).eval_params
        if hook is None:
            raise ContractError("make must return an eval_params hook always, or never")
        with self._problem.counted():
            returned = _strong(hook(self._problem, state, batch, jax.random.fold_in(key, state.step)))
        check_same_shapes("what eval_params returned", returned, (state.params, state.model_state))
        return returned


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
