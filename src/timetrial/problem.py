"""`problem.loss`: a workload as a submission sees it, anonymous and counted (rules 3, 8 and 9)."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.rows import mark
from timetrial.submission import Batch, Leaves, LossAux, Task
from timetrial.workload import Array, PyTree, Workload, row_weights


class ContractError(Exception):
    """The submission broke the contract; the message says where and how."""


class WorkloadProblem:
    """The `Problem` of one workload: lists of leaves outside, the workload's own trees inside."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        params, model_state = jax.eval_shape(workload.init, jax.random.key(0))
        self._params = jax.tree.structure(params)
        self._model_state = jax.tree.structure(model_state)
        self._fields = tuple(sorted(workload.fields))
        self.ignored: set[str] = set()
        """Settings asked for, at any time, that the workload does not have."""
        self._counted = False

    @contextmanager
    def counted(self) -> Generator[None]:
        """Where `loss` may be called: in what the harness traces, and so can count the rows of."""
        self._counted = True
        try:
            yield
        finally:
            self._counted = False

    def loss(
        self,
        params: Leaves,
        model_state: Leaves,
        batch: Batch,
        key: Array,
        *,
        train: bool = True,
        update_batch_norm: bool = True,
        dropout_rate: Any = None,
        label_smoothing: Any = None,
    ) -> tuple[Array, LossAux]:
        """See `timetrial.submission.Problem.loss`."""
        workload = self._workload
        if not self._counted:
            raise ContractError("problem.loss may be called in step and eval_params alone, where its rows are counted")
        if workload.rows_coupled and train and batch.size == 1:
            raise ContractError(
                "problem.loss was given a single row, and batch norm couples the rows of this workload's batches: "
                "per-example gradients do not exist here (task.rows_coupled is true)"
            )
        if dropout_rate is not None and not workload.has_dropout:
            self.ignored.add("dropout_rate")
            dropout_rate = None
        if label_smoothing is not None and not workload.has_label_smoothing:
            self.ignored.add("label_smoothing")
            label_smoothing = None
        inputs = (params, model_state, batch, dropout_rate, label_smoothing)
        params, model_state, batch, dropout_rate, label_smoothing = mark(inputs, key, batch.size)
        named = self.named(batch)
        outputs, new_state = workload.apply(
            self._params.unflatten(params),
            self._model_state.unflatten(model_state),
            named,
            key,
            train=train,
            dropout_rate=dropout_rate,
        )
        smoothing = 0.0 if label_smoothing is None else label_smoothing
        losses, terms = workload.loss(outputs, named, label_smoothing=smoothing)
        weights = row_weights(named, batch.size)
        losses, terms = losses * weights, terms * weights
        mean = jnp.sum(losses) / jnp.maximum(jnp.sum(terms), jnp.finfo(jnp.float32).tiny)
        kept = jax.tree.leaves(new_state) if update_batch_norm else model_state
        return mean, LossAux(model_state=kept, losses=losses, weights=terms)

    def named(self, batch: Batch) -> dict[str, Any]:
        """The batch as the workload knows it."""
        named: dict[str, Any] = dict(zip(self._fields, batch.rows, strict=True))
        if batch.weights is not None:
            named["weights"] = batch.weights
        return named

    def anonymous(self, named: Mapping[str, Any]) -> Batch:
        """The batch as the submission sees it."""
        return Batch(tuple(named[name] for name in self._fields), named.get("weights"))

    def trees(self, params: Leaves, model_state: Leaves) -> tuple[PyTree, PyTree]:
        """The workload's own trees of lists of leaves."""
        return self._params.unflatten(params), self._model_state.unflatten(model_state)


def make_task(workload: Workload, *, horizon_examples: int, device_count: int, device_memory_bytes: int) -> Task:
    """What a submission may know of `workload`."""
    return Task(
        loss_type=workload.loss_type,
        default_batch_size=workload.default_batch_size,
        max_batch_size=workload.max_batch_size,
        horizon_examples=horizon_examples,
        rows_coupled=workload.rows_coupled,
        device_count=device_count,
        device_memory_bytes=device_memory_bytes,
        params=tuple(jax.tree.leaves(workload.param_info)),
    )


def check_same_shapes(what: str, got: PyTree, expected: PyTree) -> None:
    """Raises ContractError unless two trees have the same structure, shapes and dtypes. Works on tracers."""
    if jax.tree.structure(got) != jax.tree.structure(expected):
        raise ContractError(
            f"{what} has the structure {_short(jax.tree.structure(got))}, "
            f"where {_short(jax.tree.structure(expected))} was given"
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True)
    for (path, a), b in pairs:
        found, wanted = (np.shape(a), jnp.result_type(a)), (np.shape(b), jnp.result_type(b))
        if found != wanted:
            where = jax.tree_util.keystr(path)
            raise ContractError(
                f"{what}{where} has shape {found[0]} and dtype {found[1]}; it must stay {wanted[0]} and {wanted[1]}"
            )


def _short(structure: Any) -> str:
    text = str(structure).removeprefix("PyTreeDef(").removesuffix(")")
    return text if len(text) <= 200 else text[:197] + "..."
