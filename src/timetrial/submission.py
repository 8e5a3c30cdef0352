"""What a submission is: a training algorithm as a few pure functions. This module is a submission's whole interface.

A `submission.py` exports `make(hparams, task) -> Submission` and, unless it tunes itself, `SEARCH_SPACE`. The harness
owns jit, donation and sharding. Parameters, model state and batches are anonymous: lists of arrays whose meaning is in
`task.params`, and whose order is the same in each call.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import optax

from timetrial.workload import ParamInfo

Array = jax.Array
PyTree = Any
Leaves = list[Array]


class Batch(NamedTuple):
    """A batch of B rows. Rows may be chosen, repeated and reweighted, never altered."""

    rows: tuple[Array, ...]
    """The fields of the rows, each of shape (B, …)."""
    weights: Array | None = None
    """Weights of the rows, (B,); None means that all count alike. Padding has weight 0."""

    @property
    def size(self) -> int:
        return self.rows[0].shape[0]

    def take(self, indices: Array) -> "Batch":
        """The rows at `indices`, in that order, with their weights."""
        return jax.tree.map(lambda x: jnp.take(x, indices, axis=0), self)

    def reweight(self, weights: Array) -> "Batch":
        """The same rows with their weights multiplied by `weights`, (B,)."""
        return self._replace(weights=weights if self.weights is None else self.weights * weights)


class TrainState(NamedTuple):
    """What a step takes and returns. The harness counts `step` itself, from 0."""

    params: Leaves
    model_state: Leaves
    opt_state: PyTree
    step: Array


class LossAux(NamedTuple):
    """What `problem.loss` returns beside the mean."""

    model_state: Leaves
    losses: Array
    """Per-row losses, float32 (B,): each summed over the row's terms and times the row's weight."""
    weights: Array
    """Per-row numbers of terms times the row's weight, float32 (B,); the mean is sum(losses) / sum(weights)."""


class Problem(Protocol):
    """The only access a submission has to the workload."""

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
        """The mean loss over the valid rows of `batch`, and `LossAux`; as often as a step likes, every row charged.

        None means the workload's default. Settings that a workload lacks are ignored, and recorded.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a submission may know of the workload it trains. It never learns which one it is."""

    loss_type: str
    default_batch_size: int
    max_batch_size: int
    horizon_examples: int
    """Examples that a run is planned for: what a schedule should span."""
    rows_coupled: bool
    """True with batch norm: per-example gradients are then refused."""
    device_count: int
    device_memory_bytes: int
    params: tuple[ParamInfo, ...]
    """One for each array of `params`, in their order."""

    @property
    def decay_mask(self) -> list[bool]:
        """For each array of `params`, whether weight decay is customary: on all but biases and normalisation."""
        return [info.kind not in ("bias", "norm_scale", "norm_bias") for info in self.params]

    def horizon_steps(self, batch_size: int | None = None, loss_evaluations_per_step: int = 1) -> int:
        """Steps in the planned horizon, when each step passes `loss_evaluations_per_step` batches through the loss."""
        rows = (self.default_batch_size if batch_size is None else batch_size) * loss_evaluations_per_step
        return max(1, self.horizon_examples // max(self.default_batch_size, rows))


class Feedback(NamedTuple):
    """What `on_eval` learns: the validation metrics and the charged clock, and nothing else."""

    metrics: Mapping[str, float]
    charge: float
    """In units of the ruleset's clock."""
    budget: float


class Init(Protocol):
    def __call__(self, params: Leaves, model_state: Leaves, key: Array, /) -> PyTree:
        """The optimizer's initial state."""
        ...


class Step(Protocol):
    def __call__(
        self, problem: Problem, state: TrainState, batch: Batch, key: Array, /
    ) -> tuple[TrainState, dict[str, Array]]:
        """The next state, of the same shapes and dtypes, and {"loss": a scalar}. Jitted by the harness."""
        ...


class EvalParams(Protocol):
    def __call__(self, problem: Problem, state: TrainState, batch: Batch, key: Array, /) -> tuple[Leaves, Leaves]:
        """The (params, model_state) to evaluate; charged. Jitted by the harness, without donation."""
        ...


class OnEval(Protocol):
    def __call__(self, state: TrainState, feedback: Feedback, /) -> TrainState:
        """The state to go on with after an eval, of the same shapes; runs on the host; charged."""
        ...


class Select(Protocol):
    def __call__(self, batches: Iterator[Batch], state: TrainState, key: Array, /) -> Batch:
        """The batch of the next step, from as many drawn batches as it likes; runs on the host; every row charged."""
        ...


@dataclass(frozen=True)
class Submission:
    """A training algorithm. `init` and `step` are required; a `batch_size` of None is the workload's default."""

    init: Init
    step: Step
    batch_size: int | None = None
    eval_params: EvalParams | None = None
    on_eval: OnEval | None = None
    select: Select | None = None


def from_optax(
    tx: optax.GradientTransformation,
    *,
    batch_size: int | None = None,
    grad_clip: float | None = None,
    weight_average: Any = None,
    eval_params: Callable[[PyTree, Leaves], Leaves] | None = None,
    dropout_rate: Any = None,
    label_smoothing: Any = None,
) -> Submission:
    """A submission that takes one gradient a step and follows `tx`.

    Args:
        tx: any optax transformation.
        batch_size: rows a step; None for the workload's default.
        grad_clip: the largest global norm of the gradient; None leaves it alone.
        weight_average: decay of an exponential moving average of the parameters and of the model state (averaged
            weights need averaged statistics), which is evaluated in their stead. It is debiased as Adam's moments are
            (Kingma & Ba 2015, section 3).
        eval_params: (tx's state, params) -> the parameters to evaluate, for methods that keep two sequences.
        dropout_rate: passed to `problem.loss`.
        label_smoothing: passed to `problem.loss`.
    """
    if grad_clip is not None:
        tx = optax.chain(optax.clip_by_global_norm(grad_clip), tx)
    if weight_average is not None and eval_params is not None:
        raise ValueError("from_optax: give weight_average or eval_params, not both")
    average = optax.ema(weight_average, debias=True) if weight_average is not None else None

    def init(params: Leaves, model_state: Leaves, key: Array) -> PyTree:
        del key
        return tx.init(params), None if average is None else average.init((params, model_state))

    def step(problem: Problem, state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, dict[str, Array]]:
        def loss(params: Leaves) -> tuple[Array, LossAux]:
            return problem.loss(
                params, state.model_state, batch, key, dropout_rate=dropout_rate, label_smoothing=label_smoothing
            )

        (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        tx_state, averaged = state.opt_state
        updates, tx_state = tx.update(grads, tx_state, state.params)
        params = cast(Leaves, optax.apply_updates(state.params, updates))
        if average is not None:
            _, averaged = average.update((params, aux.model_state), averaged)
        state = TrainState(params, aux.model_state, (tx_state, averaged), state.step)
        return state, {"loss": value}

    def average_or_given(problem: Problem, state: TrainState, batch: Batch, key: Array) -> tuple[Leaves, Leaves]:
        del problem, batch, key
        tx_state, averaged = state.opt_state
        if eval_params is not None:
            return eval_params(tx_state, state.params), state.model_state
        unbias = 1 - jnp.asarray(weight_average, jnp.float32) ** averaged.count
        return jax.tree.map(lambda x: (x / unbias).astype(x.dtype), averaged.ema)

    hook = average_or_given if average is not None or eval_params is not None else None
    return Submission(init=init, step=step, batch_size=batch_size, eval_params=hook)
