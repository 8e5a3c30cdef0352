"""One of our workloads as an AlgoPerf submission sees it.

Parameters, model state and batches are nested dicts, as AlgoPerf's are, under names that tell what a parameter is and
nothing else: AlgoPerf's own rule for names gives them the types that `model_params_types` gives. A batch holds
`inputs` (the fields that the model reads: an array, or a tuple of several), `targets` (the fields that the loss reads)
and, where rows are weighted, `weights`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.algoperf.spec import ForwardPassMode, LossType, ParameterType, ShapeTuple
from timetrial.algoperf.spec import Workload as PeerWorkload
from timetrial.problem import ContractError
from timetrial.workload import Array, ParamInfo, PyTree, Workload

_LOSS_TYPES = {
    "softmax_cross_entropy": LossType.SOFTMAX_CROSS_ENTROPY,
    "sigmoid_cross_entropy": LossType.SIGMOID_CROSS_ENTROPY,
    "mean_absolute_error": LossType.MEAN_ABSOLUTE_ERROR,
    "ctc": LossType.CTC_LOSS,
}
_KINDS = {
    "weight": (ParameterType.WEIGHT, "dense/kernel"),
    "bias": (ParameterType.BIAS, "dense/bias"),
    "conv": (ParameterType.CONV_WEIGHT, "conv/kernel"),
    "embedding": (ParameterType.EMBEDDING, "embed/embedding"),
    "tied_embedding": (ParameterType.EMBEDDING, "embed/embedding"),
    "attention_q": (ParameterType.ATTENTION_Q, "attention_query/kernel"),
    "attention_k": (ParameterType.ATTENTION_K, "attention_key/kernel"),
    "attention_v": (ParameterType.ATTENTION_V, "attention_value/kernel"),
    "attention_qkv": (ParameterType.ATTENTION_QKV, "attention/in_proj_weight"),
    "attention_out": (ParameterType.ATTENTION_OUT, "attention_out/kernel"),
    "output_head": (ParameterType.WEIGHT, "head/kernel"),
}
"""By our kind: AlgoPerf's type, and a name to which AlgoPerf's rule gives that type."""
_BATCH_NORM = {
    "norm_scale": (ParameterType.BATCH_NORM_SCALE, "batchnorm/scale"),
    "norm_bias": (ParameterType.BATCH_NORM_BIAS, "batchnorm/bias"),
}
_LAYER_NORM = {
    "norm_scale": (ParameterType.LAYER_NORM_SCALE, "layernorm/scale"),
    "norm_bias": (ParameterType.LAYER_NORM_BIAS, "layernorm/bias"),
}


class AlgoPerfWorkload(PeerWorkload):
    """The argument `workload` of AlgoPerf's functions."""

    metrics_logger = None

    def __init__(self, workload: Workload, *, step_hint: int, dropout_rate: Any = None) -> None:
        """`dropout_rate` is what `model_fn` uses where it is given none; None stands for the workload's own."""
        self._workload = workload
        self._dropout_rate = dropout_rate
        params, model_state = jax.eval_shape(workload.init, jax.random.key(0))
        self._params = jax.tree.structure(params)
        self._model_state = jax.tree.structure(model_state)
        infos = jax.tree.leaves(workload.param_info)
        kinds = _KINDS | (_BATCH_NORM if workload.rows_coupled else _LAYER_NORM)
        named = [kinds[info.kind] for info in infos]
        width = len(str(len(named)))
        self._names = [f"{i:0{width}}_{name}".split("/") for i, (_, name) in enumerate(named)]
        self.step_hint = step_hint
        self.loss_type = _LOSS_TYPES[workload.loss_type]
        self.param_shapes: PyTree = self._tree([ShapeTuple(info.shape) for info in infos])
        self.model_params_types: PyTree = self._tree([kind for kind, _ in named])
        self._heads = {top for (top, _), info in zip(self._names, infos, strict=True) if _is_head(info)}
        self._inputs, self._targets = _fields_read(workload, params, model_state)
        self.ignored: set[str] = set()
        """Settings asked for, at any time, that the workload does not have."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"workload.{name} is not known to submissions here: they learn step_hint, loss_type, param_shapes, "
            "model_params_types, is_output_params, init_model_fn, model_fn and loss_fn"
        )

    # What a submission calls.

    def is_output_params(self, param_key: str) -> bool:
        """Whether the parameters under this key of the tree are those of the output layer."""
        return param_key in self._heads

    def init_model_fn(self, rng: Array) -> tuple[PyTree, PyTree]:
        """Untrained parameters and model state, drawn by `rng`."""
        params, model_state = self._workload.init(_typed(rng))
        return self.params(params), self.model_state(model_state)

    def model_fn(
        self,
        params: PyTree,
        augmented_and_preprocessed_input_batch: Mapping[str, Any],
        model_state: PyTree,
        mode: ForwardPassMode,
        rng: Array,
        update_batch_norm: bool,
        use_running_average_bn: bool | None = None,
        dropout_rate: Any = None,
    ) -> tuple[PyTree, PyTree]:
        """The model's outputs and its new state.

        As in AlgoPerf, batch norm uses its running averages, and leaves them as they are, where `update_batch_norm` is
        false; `use_running_average_bn` decides the first of these by itself. Its speech models take `update_batch_norm`
        for true wherever they train, and train wherever it is true.
        """
        workload = self._workload
        train = mode == ForwardPassMode.TRAIN
        if dropout_rate is not None and not workload.has_dropout:
            self.ignored.add("dropout_rate")
            dropout_rate = None
        if dropout_rate is None and workload.has_dropout:
            dropout_rate = self._dropout_rate
        if workload.rows_coupled:
            if self.loss_type == LossType.CTC_LOSS:
                train = update_batch_norm = train or update_batch_norm
            running = not update_batch_norm if use_running_average_bn is None else use_running_average_bn
            if not running and not train and workload.has_dropout:
                dropout_rate = 0.0
            train = not running
        outputs, new_state = workload.apply(
            self._params.unflatten(jax.tree.leaves(params)),
            self._model_state.unflatten(jax.tree.leaves(model_state)),
            self._named(augmented_and_preprocessed_input_batch),
            _typed(rng),
            train=train,
            dropout_rate=dropout_rate,
        )
        return outputs, self.model_state(new_state) if update_batch_norm else model_state

    def loss_fn(
        self,
        label_batch: Any,
        logits_batch: PyTree,
        mask_batch: Array | None = None,
        label_smoothing: Any = 0.0,
    ) -> dict[str, Array]:
        """`summed` and `n_valid_examples` (terms: tokens, say), whose ratio is the mean loss; `per_example` (B,)."""
        workload = self._workload
        if not workload.has_label_smoothing:
            if not (isinstance(label_smoothing, int | float) and label_smoothing == 0):
                self.ignored.add("label_smoothing")
            label_smoothing = 0.0
        losses, terms = workload.loss(
            logits_batch, dict(zip(self._targets, _listed(label_batch), strict=True)), label_smoothing=label_smoothing
        )
        if mask_batch is not None:
            losses, terms = losses * mask_batch, terms * mask_batch
        return {"summed": jnp.sum(losses), "n_valid_examples": jnp.sum(terms), "per_example": losses}

    # Between our trees and AlgoPerf's.

    def params(self, params: PyTree) -> PyTree:
        """The workload's parameters as a submission sees them."""
        return self._tree(jax.tree.leaves(params))

    def model_state(self, model_state: PyTree) -> PyTree:
        """The workload's model state as a submission sees it: no entries at all without batch norm."""
        leaves = jax.tree.leaves(model_state)
        return {"batch_stats": {f"{i:03}": leaf for i, leaf in enumerate(leaves)}} if leaves else {}

    def own_trees(self, params: PyTree, model_state: PyTree) -> tuple[PyTree, PyTree]:
        """The workload's own trees of what a submission returned; checks how many arrays there are."""
        leaves = jax.tree.leaves(params), jax.tree.leaves(model_state)
        for what, got, own in zip(("params", "model_state"), leaves, (self._params, self._model_state), strict=True):
            if len(got) != own.num_leaves:
                raise ContractError(f"the {what} returned hold {len(got)} arrays, where {own.num_leaves} were given")
        return self._params.unflatten(leaves[0]), self._model_state.unflatten(leaves[1])

    def batch(self, named: Mapping[str, Any]) -> dict[str, Any]:
        """A batch of the workload as a submission sees it."""
        batch = {
            "inputs": _together([named[name] for name in self._inputs]),
            "targets": _together([named[name] for name in self._targets]),
        }
        return batch | {"weights": named["weights"]} if "weights" in named else batch

    def _named(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        named = dict(zip(self._inputs, _listed(batch["inputs"]), strict=True))
        weights = batch.get("weights")
        return named if weights is None else named | {"weights": weights}

    def _tree(self, leaves: list[Any]) -> PyTree:
        return {top: {name: leaf} for (top, name), leaf in zip(self._names, leaves, strict=True)}


class _Noting(Mapping[str, Any]):
    """A batch that notes which of its fields are read."""

    def __init__(self, batch: Mapping[str, Any]) -> None:
        self._batch = batch
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        value = self._batch[name]
        self.read.add(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._batch)

    def __len__(self) -> int:
        return len(self._batch)


def _fields_read(workload: Workload, params: PyTree, model_state: PyTree) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The fields of a batch that the model reads, and those that the loss reads."""
    noted: list[_Noting] = []

    def trace(params: PyTree, model_state: PyTree, batch: Mapping[str, Any]) -> Any:
        noted[:] = _Noting(batch), _Noting(batch)
        outputs, _ = workload.apply(params, model_state, noted[0], jax.random.key(0), train=True)
        return workload.loss(outputs, noted[1])

    jax.eval_shape(trace, params, model_state, workload.abstract_batch(workload.default_batch_size))
    inputs, targets = (tuple(sorted(one.read & set(workload.fields))) for one in noted)
    return inputs, targets


def _is_head(info: ParamInfo) -> bool:
    return info.kind == "output_head"


def _together(arrays: list[Any]) -> Any:
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def _listed(arrays: Any) -> list[Any]:
    return list(arrays) if isinstance(arrays, tuple) else [arrays]


def _typed(rng: Any) -> Array:
    """A key of jax: AlgoPerf's are two plain words."""
    if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key):
        return rng
    return jax.random.wrap_key_data(jnp.asarray(rng, np.uint32), impl="threefry2x32")
