"""timetrial: a benchmark of neural-network training algorithms.

`import timetrial` is light: the names below are imported when they are first used, so that what only reads records
never pays for jax.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timetrial.record import RunRecord, read_record
    from timetrial.ruleset import Ruleset, load_ruleset
    from timetrial.schedules import warmup_cosine
    from timetrial.submission import Batch, Feedback, LossAux, Problem, Submission, Task, TrainState, from_optax
    from timetrial.target import Target
    from timetrial.tuning import Choice, Hparams, Integers, LogUniform, Uniform
    from timetrial.workload import ParamInfo, Workload

__version__ = "0.1.0"

_HOME = {
    "Batch": "submission",
    "Choice": "tuning",
    "Feedback": "submission",
    "Hparams": "tuning",
    "Integers": "tuning",
    "LogUniform": "tuning",
    "LossAux": "submission",
    "ParamInfo": "workload",
    "Problem": "submission",
    "Ruleset": "ruleset",
    "RunRecord": "record",
    "Submission": "submission",
    "Target": "target",
    "Task": "submission",
    "TrainState": "submission",
    "Uniform": "tuning",
    "Workload": "workload",
    "from_optax": "submission",
    "load_ruleset": "ruleset",
    "read_record": "record",
    "warmup_cosine": "schedules",
}

__all__ = [
    "Batch", "Choice", "Feedback", "Hparams", "Integers", "LogUniform", "LossAux", "ParamInfo", "Problem", "Ruleset",
    "RunRecord", "Submission", "Target", "Task", "TrainState", "Uniform", "Workload", "from_optax", "load_ruleset",
    "read_record", "warmup_cosine",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'timetrial' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"timetrial.{_HOME[name]}"), name)
    globals()[name] = value
    return value
