"""What a submission imports as `algoperf.spec` or `algorithmic_efficiency.spec`: the names of AlgoPerf's public API."""

import enum
from typing import Any


class LossType(enum.Enum):
    """The kinds of loss, with AlgoPerf's numbers."""

    SOFTMAX_CROSS_ENTROPY = 0
    SIGMOID_CROSS_ENTROPY = 1
    MEAN_SQUARED_ERROR = 2
    CTC_LOSS = 3
    MEAN_ABSOLUTE_ERROR = 4


class ForwardPassMode(enum.Enum):
    TRAIN = 0
    EVAL = 1


class ParameterType(enum.Enum):
    """The kinds of parameters, with AlgoPerf's numbers."""

    WEIGHT = 0
    BIAS = 1
    CONV_WEIGHT = 2
    BATCH_NORM_SCALE = 3
    BATCH_NORM_BIAS = 4
    LAYER_NORM_SCALE = 5
    LAYER_NORM_BIAS = 6
    EMBEDDING = 7
    ATTENTION_Q = 8
    ATTENTION_K = 9
    ATTENTION_V = 10
    ATTENTION_OUT = 11
    ATTENTION_QKV = 12
    ATTENTION_KV = 13
    ATTENTION_BIAS = 14


class ShapeTuple:
    """The shape of one parameter, as a leaf: a tuple would be a node of the tree."""

    def __init__(self, shape_tuple: tuple[int, ...]) -> None:
        self.shape_tuple = shape_tuple

    def __repr__(self) -> str:
        return f"ShapeTuple({self.shape_tuple})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShapeTuple) and self.shape_tuple == other.shape_tuple

    def __hash__(self) -> int:
        return hash(self.shape_tuple)


class TrainingCompleteError(Exception):
    """Raised by `update_params` to end the run: one more evaluation follows, and that is all."""


class Workload:
    """What a submission is shown of the workload; see `timetrial.algoperf.view`."""


# Names that submissions use in annotations alone.
Hyperparameters = Any
ModelAuxiliaryState = Any
ModelInitState = Any
OptimizerState = Any
ParameterContainer = Any
ParameterKey = str
ParameterShapeTree = Any
ParameterTypeTree = Any
RandomState = Any
Shape = Any
Steps = int
Tensor = Any
Timing = int
UpdateReturn = Any
