"""What a workload is: a frozen model, data set, loss and target, as one value made of pure functions.

Shapes in names and docstrings: B rows of a batch. `params` and `model_state` are pytrees of arrays. A batch is a
mapping of names to arrays with B rows each; its field `weights` (float32, B) is reserved for the harness: absent means
that all rows count alike, 0 marks padding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.data import AnyDataset
from timetrial.errors import UserError
from timetrial.ruleset import MatmulPrecision
from timetrial.splits import Split
from timetrial.target import Target

Array = jax.Array
PyTree = Any
Batch = Mapping[str, Any]

Kind = Literal[
    "weight",
    "bias",
    "conv",
    "norm_scale",
    "norm_bias",
    "embedding",
    "tied_embedding",
    "attention_q",
    "attention_k",
    "attention_v",
    "attention_qkv",
    "attention_out",
    "output_head",
]


@dataclass(frozen=True, kw_only=True)
class ParamInfo:
    """What a submission may know of one parameter array: enough for Muon- or Shampoo-like methods, and no name."""

    kind: Kind
    shape: tuple[int, ...]
    in_axes: tuple[int, ...] = ()
    """Axes that the layer sums over: the fan-in. All others that are neither out nor batch axes do not exist."""
    out_axes: tuple[int, ...] = ()
    batch_axes: tuple[int, ...] = ()
    """Axes along which independent arrays are stacked (heads, experts)."""
    depth: int = 0
    """Distance from the input, in layers; the same for all arrays of a layer."""


@dataclass(frozen=True)
class Field:
    """One field of a row: its shape without the batch axis, its dtype, and for integers the values it may take."""

    shape: tuple[int, ...]
    dtype: Any
    below: int | None = None
    """Integers lie in [0, below)."""


class Init(Protocol):
    def __call__(self, key: Array) -> tuple[PyTree, PyTree]:
        """Initial (params, model_state)."""
        ...


class Apply(Protocol):
    def __call__(
        self,
        params: PyTree,
        model_state: PyTree,
        batch: Batch,
        key: Array,
        *,
        train: bool,
        dropout_rate: Any = None,
    ) -> tuple[PyTree, PyTree]:
        """The outputs and the new model state. With train=False the state is used as it is, and returned unchanged."""
        ...


class Loss(Protocol):
    def __call__(self, outputs: PyTree, batch: Batch, *, label_smoothing: Any = 0.0) -> tuple[Array, Array]:
        """Per-row losses, summed over a row's terms (tokens, say), and the numbers of terms: float32 (B,) each.

        The harness applies the batch's `weights`. No regularisation inside: that is the submission's.
        """
        ...


class Evaluate(Protocol):
    def __call__(self, params: PyTree, model_state: PyTree, batch: Batch) -> Mapping[str, Array]:
        """What a batch adds to the metrics, padding masked: scalars are summed, arrays with B rows are gathered."""
        ...


class Finalize(Protocol):
    def __call__(self, accumulated: Mapping[str, np.ndarray]) -> Mapping[str, float]:
        """The metrics of a split (among them `loss`), from the float64 sums and gathered rows over all its batches."""
        ...


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A frozen training problem, a value; there is no inheritance. `timetrial.variants` makes variants of a base."""

    name: str
    version: int = 1
    task: str
    """What is learnt, in a few words, for people."""
    track: Literal["mini", "full"] = "mini"
    variant_of: str | None = None
    init: Init
    apply: Apply
    loss: Loss
    evaluate: Evaluate
    finalize: Finalize
    data: AnyDataset
    train_eval_rows: int
    """The split `train_eval` is this many rows of `train`: the first ones, or of records some at equal distances."""
    fields: Mapping[str, Field]
    """The fields of a batch, so that every workload can be tried without its data."""
    loss_type: Literal["softmax_cross_entropy", "sigmoid_cross_entropy", "mean_absolute_error", "ctc", "function_value"]
    metric: str
    """The metric of the target, one of those that `finalize` returns."""
    better: Literal["lower", "higher"]
    target: Target | None = None
    """The validation target; None until one is derived (`timetrial target`). `registry.load_workload` sets it."""
    test_target: Target | None = None
    param_info: PyTree
    """A tree like `params` with a `ParamInfo` at each leaf."""
    default_batch_size: int
    max_batch_size: int
    """The largest power-of-two multiple of the default that fits AdamW's state on the track's reference machine."""
    eval_batch_size: int
    rows_coupled: bool = False
    """True where a row's loss depends on the other rows of its batch (batch norm)."""
    has_dropout: bool = False
    has_label_smoothing: bool = False
    accumulate: int = 1
    """How many parts a batch goes through the loss in, one after the other; the harness's choice (`economical`)."""
    matmul_precision: MatmulPrecision | None = None
    """To what products and convolutions may at most be rounded; None for jax's default (`at_precision`)."""
    remat: bool = False
    """Whether only products and convolutions are kept for the pass back; the harness's choice (`economical`)."""

    def rows(self, split: str) -> Split:
        """The rows of `train`, `train_eval`, `valid` or `test`."""
        if split == "train_eval":
            return self.data.rows("train").sample(self.train_eval_rows)
        return self.data.rows(split)

    def split(self, name: str) -> Mapping[str, np.ndarray]:
        """All rows of `train`, `train_eval`, `valid` or `test` by field, for data that fit into memory."""
        rows = self.rows(name)
        return rows.take(np.arange(len(rows)), None) if rows.arrays is None else rows.arrays

    def abstract_batch(self, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of a batch of `rows` rows."""
        return {name: jax.ShapeDtypeStruct((rows, *f.shape), f.dtype) for name, f in self.fields.items()}

    def random_batch(self, rows: int, seed: int) -> dict[str, np.ndarray]:
        """A batch of noise that has the right shapes, dtypes and ranges, and needs no data."""
        rng = np.random.RandomState(seed)

        def draw(field: Field) -> np.ndarray:
            shape = (rows, *field.shape)
            if np.issubdtype(field.dtype, np.floating):
                return rng.standard_normal(shape).astype(field.dtype)
            return rng.randint(0, 2 if field.below is None else field.below, shape).astype(field.dtype)

        return {name: draw(field) for name, field in self.fields.items()}


def economical(workload: Workload, *, accumulate: int = 1, remat: bool = False, where: str = "accumulate") -> Workload:
    """The workload with less memory and more time a step: the same losses, whatever the submission.

    Raises `UserError` where batch norm makes the loss of a batch another one than that of its parts; `where` says in
    it who asks for them.
    """
    if accumulate < 1:
        raise UserError(f"{where} must be at least 1, not {accumulate}")
    if accumulate > 1 and workload.rows_coupled:
        raise UserError(
            f"{where}: batch norm couples the rows of a batch of {workload.name!r}, so its loss is not that of "
            "its parts; use remat, more devices, or leave this workload out"
        )
    return replace(workload, accumulate=accumulate, remat=remat)


def describe_params(params: PyTree, rules: Sequence[tuple[str, Mapping[str, Any]]]) -> PyTree:
    """A tree of `ParamInfo` for `params`: the first rule whose path suffix matches a leaf describes it.

    A path is the leaf's keys joined by slashes ("block_0/dense/kernel"); a rule is (glob pattern, fields of ParamInfo
    without the shape). A leaf that no rule matches, and a rule that matches no leaf, raise `UserError`.
    """
    from fnmatch import fnmatchcase

    used: set[str] = set()

    def info(path: Any, leaf: Any) -> ParamInfo:
        name = "/".join(str(getattr(key, "key", key)) for key in path)
        for pattern, described in rules:
            if fnmatchcase(name, pattern):
                used.add(pattern)
                return ParamInfo(shape=tuple(leaf.shape), **described)
        raise UserError(f"no rule describes the parameter {name!r} of shape {tuple(leaf.shape)}")

    tree = jax.tree_util.tree_map_with_path(info, params)
    if unused := [pattern for pattern, _ in rules if pattern not in used]:
        raise UserError(f"no parameter matches {', '.join(unused)}")
    return tree


def row_weights(batch: Batch, rows: int) -> Array:
    """The batch's weights, float32 (rows,); ones where it has none."""
    weights = batch.get("weights")
    return jnp.ones((rows,), jnp.float32) if weights is None else weights


def dropout(x: Array, rate: Any, key: Array) -> Array:
    """Zeroes each feature with probability `rate` and scales the others, so that the expectation stays.

    `rate` may be a traced number; where it is the number 0, no mask is computed.
    """
    if isinstance(rate, int | float) and rate == 0:
        return x
    keep = 1.0 - rate
    return jnp.where(jax.random.bernoulli(key, keep, x.shape), x / keep, 0.0)


def at_precision(workload: Workload, precision: MatmulPrecision | None) -> Workload:
    """The workload with products and convolutions of its model rounded to no less than that; None for jax's default.

    What a device makes of it is the device's: `tensorfloat32` and `bfloat16` are TF32 on NVIDIA GPUs that have it,
    `bfloat16` is that on TPUs, and a processor computes in float32 whatever is allowed. Products of the submission's
    own are not touched.
    """
    if precision is None:
        return workload

    def within(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with jax.default_matmul_precision(precision):
                return function(*args, **kwargs)

        return wrapped

    apply, evaluate = within(workload.apply), within(workload.evaluate)
    return replace(workload, apply=apply, evaluate=evaluate, matmul_precision=precision)
