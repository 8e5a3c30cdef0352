"""`problem.loss`: a workload as a submission sees it, anonymous and counted (rules 3, 8 and 9)."""

from collections.abc import Callable, Generator, Mapping
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


OfRows = Callable[[Leaves, Batch, Array], tuple[Leaves, tuple[Array, Array]]]
"""(model_state, batch, key) -> the new model state, and the rows' weighted losses and terms."""


def in_parts(of_rows: OfRows, parts: int) -> OfRows:
    """`of_rows` on `parts` parts of the batch, one after the other; what it keeps for the pass back is that of one.

    Every `parts`-th row is of the same part, so that each device has its share of every part. Parts have keys of their
    own: dropout differs from that of the whole batch.
    """

    def accumulated(model_state: Leaves, batch: Batch, key: Array) -> tuple[Leaves, tuple[Array, Array]]:
        rows = batch.size
        whole = -(-rows // parts) * parts
        if whole > rows:
            weights = jnp.ones(rows) if batch.weights is None else batch.weights
            filled = batch._replace(weights=None).take(jnp.minimum(jnp.arange(whole), rows - 1))
            batch = filled._replace(weights=jnp.pad(weights, (0, whole - rows)))
        split = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1), batch)

        def one(state: Leaves, part: tuple[Batch, Array]) -> tuple[Leaves, tuple[Array, Array]]:
            return of_rows(state, part[0], jax.random.fold_in(key, part[1]))

        model_state, found = jax.lax.scan(
            jax.checkpoint(one, prevent_cse=False), model_state, (split, jnp.arange(parts))
        )
        return model_state, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(whole)[:rows], found)

    return accumulated


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
        smoothing = 0.0 if label_smoothing is None else label_smoothing

        def of_rows(model_state: Leaves, batch: Batch, key: Array) -> tuple[Leaves, tuple[Array, Array]]:
            named = self.named(batch)
            outputs, new_state = workload.apply(
                self._params.unflatten(params),
                self._model_state.unflatten(model_state),
                named,
                key,
                train=train,
                dropout_rate=dropout_rate,
            )
            losses, terms = workload.loss(outputs, named, label_smoothing=smoothing)
            weights = row_weights(named, batch.size)
            return jax.tree.leaves(new_state), (losses * weights, terms * weights)

        if workload.remat:
            of_rows = jax.checkpoint(of_rows, policy=jax.checkpoint_policies.dots_saveable)
        parts = min(workload.accumulate, batch.size)
        new_state, (losses, terms) = (of_rows if parts == 1 else in_parts(of_rows, parts))(model_state, batch, key)
        mean = jnp.sum(losses) / jnp.maximum(jnp.sum(terms), jnp.finfo(jnp.float32).tiny)
        kept = new_state if update_batch_norm else model_state
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
