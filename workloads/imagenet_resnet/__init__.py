"""Which of 1000 things a photograph shows: ResNet-50 on ImageNet, AlgoPerf's `imagenet_resnet`. See README.md."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from timetrial.workloads.imagenet_resnet.model import ResNet

from timetrial.data import AnyDataset
from timetrial.full import imagenet
from timetrial.full.describe import Rule, conv, dense, norm
from timetrial.workload import Array, Batch, PyTree, Workload, describe_params

TRACK = "full"
AXES: Mapping[str, tuple[Any, ...]] = {"activation": ("relu", "silu", "gelu"), "norm_scale": (0.0, 8.0)}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "imagenet_resnet_silu": {"activation": "silu"},
    "imagenet_resnet_gelu": {"activation": "gelu"},
    "imagenet_resnet_large_bn_init": {"norm_scale": 8.0},
}


def build(model: ResNet, data: AnyDataset = imagenet.DATASET) -> Workload:
    """The workload of this model on these data."""

    def init(key: Array) -> tuple[PyTree, PyTree]:
        variables = model.init(key, jnp.zeros((1, 32, 32, 3), jnp.uint8), None, train=False)
        return variables["params"], variables["batch_stats"]

    def apply(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
    ) -> tuple[Array, PyTree]:
        """Logits (B, 1000). In training the statistics of batch norm are those of the rows of non-zero weight."""
        del key, dropout_rate  # nothing here is random
        variables = {"params": params, "batch_stats": model_state}
        if not train:
            return model.apply(variables, batch["image"], None, train=False), model_state
        valid = batch["weights"] > 0 if "weights" in batch else None
        logits, updated = model.apply(variables, batch["image"], valid, train=True, mutable=["batch_stats"])
        return logits, updated["batch_stats"]

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        """Sums over the rows that count."""
        return imagenet.sums(apply(params, model_state, batch, jax.random.key(0), train=False)[0], batch)

    return Workload(
        name="imagenet_resnet",
        track=TRACK,
        task="tell which of 1000 things a photograph shows",
        init=init,
        apply=apply,
        loss=imagenet.loss,
        evaluate=evaluate,
        finalize=imagenet.finalize,
        data=data,
        fields=imagenet.FIELDS,
        loss_type="softmax_cross_entropy",
        metric="accuracy",
        better="higher",
        param_info=_param_info(model, jax.eval_shape(init, jax.random.key(0))[0]),
        train_eval_rows=imagenet.TRAIN_EVAL_ROWS,
        default_batch_size=imagenet.DEFAULT_BATCH_SIZE,
        max_batch_size=imagenet.MAX_BATCH_SIZE,
        eval_batch_size=1024,
        rows_coupled=True,
        has_label_smoothing=True,
    )


def _param_info(model: ResNet, params: PyTree) -> PyTree:
    """Depth counts the convolutions from the input; one beside a block has the depth of the block's first."""
    rules: list[Rule] = [*conv("first_conv", 0), *norm("first_norm", 0)]
    depth = 1
    for stage, blocks in enumerate(model.stages):
        for block in range(blocks):
            places = {"in": 0, "mid": 1, "out": 2} | ({"skip": 0} if block == 0 else {})
            for name, place in places.items():
                path = f"block_{stage}_{block}_{name}"
                rules += conv(f"{path}_conv", depth + place) + norm(f"{path}_norm", depth + place)
            depth += 3
    return describe_params(params, [*rules, *dense("head", depth, kind="output_head")])


MODEL = ResNet()
WORKLOAD = build(MODEL)
