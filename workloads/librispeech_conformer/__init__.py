"""Write down what was said: a Conformer with CTC on LibriSpeech, AlgoPerf's `librispeech_conformer`. See README.md."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from timetrial.workloads.librispeech_conformer.model import PARTS, Conformer

from timetrial.data import AnyDataset
from timetrial.full import librispeech
from timetrial.full.describe import Rule, attention, conv, dense, norm, vector
from timetrial.workload import PyTree, Workload, describe_params

TRACK = "full"
AXES: Mapping[str, tuple[Any, ...]] = {
    "activation": ("swish", "gelu"),
    "norm_out": (True, False),
    "attention_temperature": (1.0, 1.6),
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "librispeech_conformer_attention_temperature": {"attention_temperature": 1.6},
    "librispeech_conformer_layernorm": {"norm_out": False},
    "librispeech_conformer_gelu": {"activation": "gelu"},
}
_DEPTHWISE: Mapping[str, Any] = {"kind": "conv", "in_axes": (0, 1), "batch_axes": (2,)}
"""Of a kernel (window, 1, features): every feature has a window of its own."""


def build(model: Conformer, data: AnyDataset = librispeech.DATASET) -> Workload:
    """The workload of that model on these data."""
    return librispeech.build(
        model, data, name="librispeech_conformer", rows_coupled=True, param_info=partial(_param_info, model)
    )


def _param_info(model: Conformer, params: PyTree) -> PyTree:
    """Depth counts the layers from the input: three that shorten, then nine in each layer; norms go with the next."""
    rules: list[Rule] = [*conv("shorten/conv_0", 0, bias=True), *conv("shorten/conv_1", 1, bias=True)]
    rules += dense("shorten/out", 2)
    depth = 3
    for i in range(model.layers):
        for part in PARTS:
            name = f"{part}_{i}"
            rules += norm(f"{name}_norm", depth)
            if part == "attention":
                rules += [*attention(name, depth, bias=True), vector(f"{name}/scale", "norm_scale", depth)]
                depth += 2
            elif part == "convolution":
                rules += dense(f"{name}_in", depth) + dense(f"{name}_gate", depth)
                rules.append((f"{name}_depthwise/kernel", {**_DEPTHWISE, "depth": depth + 1}))
                rules += norm(f"{name}_batch_norm", depth + 1) + dense(f"{name}_out", depth + 2)
                depth += 3
            else:
                rules += dense(f"{name}_in", depth) + dense(f"{name}_out", depth + 1)
                depth += 2
        if model.norm_out:
            rules += norm(f"layer_{i}_norm", depth)
    return describe_params(params, [*rules, *norm("norm_out", depth), *dense("head", depth, kind="output_head")])


MODEL = Conformer()
WORKLOAD = build(MODEL)
