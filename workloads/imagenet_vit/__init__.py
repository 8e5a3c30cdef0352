"""Which of 1000 things a photograph shows: ViT-S/16 on ImageNet, AlgoPerf's `imagenet_vit`. See README.md."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from timetrial.workloads.imagenet_vit.model import PATCH, ViT

from timetrial.data import AnyDataset
from timetrial.full import imagenet
from timetrial.full.describe import Rule, attention, conv, dense, norm
from timetrial.workload import Array, Batch, PyTree, Workload, describe_params

TRACK = "full"
DROPOUT_RATE = 0.0
"""Where a submission asks for no other rate."""
AXES: Mapping[str, tuple[Any, ...]] = {
    "gated": (False, True),
    "norm_place": ("pre", "post"),
    "pooling": ("mean", "attention"),
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "imagenet_vit_glu": {"gated": True},
    "imagenet_vit_post_ln": {"norm_place": "post"},
    "imagenet_vit_map": {"pooling": "attention"},
}


def build(model: ViT, data: AnyDataset = imagenet.MIXED_DATASET) -> Workload:
    """The workload of this model on these data."""

    def init(key: Array) -> tuple[PyTree, PyTree]:
        return model.init(key, jnp.zeros((1, PATCH, PATCH, 3), jnp.uint8))["params"], {}

    def apply(
        params: PyTree, model_state: PyTree, batch: Batch, key: Array, *, train: bool, dropout_rate: Any = None
    ) -> tuple[Array, PyTree]:
        """Logits (B, 1000)."""
        rate = (DROPOUT_RATE if dropout_rate is None else dropout_rate) if train else 0.0
        return model.apply({"params": params}, batch["image"], dropout_rate=rate, key=key), model_state

    def evaluate(params: PyTree, model_state: PyTree, batch: Batch) -> dict[str, Array]:
        """Sums over the rows that count."""
        return imagenet.sums(apply(params, model_state, batch, jax.random.key(0), train=False)[0], batch)

    return Workload(
        name="imagenet_vit",
        track=TRACK,
        task="tell which of 1000 things a photograph, or a mix of two, shows",
        init=init,
        apply=apply,
        loss=imagenet.loss,
        evaluate=evaluate,
        finalize=imagenet.finalize,
        data=data,
        fields=imagenet.MIXED_FIELDS,
        loss_type="softmax_cross_entropy",
        metric="accuracy",
        better="higher",
        param_info=_param_info(model, jax.eval_shape(init, jax.random.key(0))[0]),
        train_eval_rows=imagenet.TRAIN_EVAL_ROWS,
        default_batch_size=imagenet.DEFAULT_BATCH_SIZE,
        max_batch_size=imagenet.MAX_BATCH_SIZE,
        eval_batch_size=2048,
        has_dropout=True,
        has_label_smoothing=True,
    )


def _param_info(model: ViT, params: PyTree) -> PyTree:
    """Depth counts the layers from the input: patches, then two of each attention and of each MLP, or three."""

    def mlp(path: str, depth: int, *, gated: bool) -> list[Rule]:
        names = ["in", "gate", "out"] if gated else ["in", "out"]
        return [rule for place, name in enumerate(names) for rule in dense(f"{path}/{name}", depth + place)]

    rules = conv("patches", 0, bias=True)
    depth = 1
    for i in range(model.layers):
        rules += norm(f"attention_{i}_norm", depth) + attention(f"attention_{i}", depth, bias=True)
        rules += norm(f"mlp_{i}_norm", depth + 2) + mlp(f"mlp_{i}", depth + 2, gated=model.gated)
        depth += 5 if model.gated else 4
    if model.norm_place == "pre":
        rules += norm("norm_out", depth)
    if model.pooling == "attention":
        rules.append(("pooling_query", {"kind": "embedding", "in_axes": (0, 1), "out_axes": (2,), "depth": depth}))
        rules += attention("pooling_attention", depth, bias=True)
        rules += norm("pooling_norm", depth + 2) + mlp("pooling_mlp", depth + 2, gated=False)
        depth += 4
    rules += dense("hidden", depth)
    return describe_params(params, [*rules, *dense("head", depth + 1, kind="output_head")])


MODEL = ViT()
WORKLOAD = build(MODEL)
