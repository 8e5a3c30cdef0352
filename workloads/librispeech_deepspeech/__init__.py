"""Write down what was said: Deep Speech with CTC on LibriSpeech, AlgoPerf's `librispeech_deepspeech`. See README.md."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from timetrial.workloads.librispeech_deepspeech.model import DIRECTIONS, GATES, DeepSpeech

from timetrial.data import AnyDataset
from timetrial.full import librispeech
from timetrial.full.describe import Rule, conv, dense, norm, vector
from timetrial.workload import PyTree, Workload, describe_params

TRACK = "full"
AXES: Mapping[str, tuple[Any, ...]] = {
    "activation": ("relu", "tanh"),
    "residual": (True, False),
    "norm": ("batch", "layer"),
    "norm_out": (True, False),
    "frequency_masks": (2, 4),
    "time_masks": (10, 15),
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "librispeech_deepspeech_tanh": {"activation": "tanh"},
    "librispeech_deepspeech_no_resnet": {"residual": False},
    "librispeech_deepspeech_norm_and_spec_aug": {
        "norm": "layer",
        "norm_out": False,
        "frequency_masks": 4,
        "time_masks": 15,
    },
}


def build(model: DeepSpeech, data: AnyDataset = librispeech.DATASET) -> Workload:
    """The workload of that model on these data."""
    return librispeech.build(
        model,
        data,
        name="librispeech_deepspeech",
        rows_coupled=model.norm == "batch",
        param_info=partial(_param_info, model),
    )


def _param_info(model: DeepSpeech, params: PyTree) -> PyTree:
    """Depth counts the layers from the input: three that shorten, LSTMs, fully connected; norms go with the next."""
    rules: list[Rule] = [*conv("shorten/conv_0", 0, bias=True), *conv("shorten/conv_1", 1, bias=True)]
    rules += dense("shorten/out", 2)
    depth = 3
    for i in range(model.lstms):
        rules += norm(f"lstm_{i}_norm", depth)
        for gate in (f"lstm_{i}/{direction}_{gate}" for direction in DIRECTIONS for gate in GATES):
            for part in ("input", "hidden"):
                matrix = {"kind": "weight", "in_axes": (0,), "out_axes": (1,), "depth": depth}
                rules.append((f"{gate}_{part}", matrix))
            rules.append(vector(f"{gate}_bias", "bias", depth))
        depth += 1
    for i in range(model.mlps):
        rules += norm(f"mlp_{i}_norm", depth) + dense(f"mlp_{i}", depth)
        depth += 1
    if model.norm_out:
        rules += norm("norm_out", depth)
    return describe_params(params, [*rules, *dense("head", depth, kind="output_head")])


MODEL = DeepSpeech()
WORKLOAD = build(MODEL)
