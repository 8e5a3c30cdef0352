"""The small problems of sweeps, as workloads: like DeepOBS's, and small enough that thousands of trials take an hour.

`PROBLEMS` lists them. They are no part of any track: nothing locks them, and they have no targets.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from timetrial.errors import UserError, unknown
from timetrial.registry import base_of, load_workload, workload_names

if TYPE_CHECKING:
    from timetrial.workload import Workload


class Entry(NamedTuple):
    module: str
    """Has `workload(name)`."""
    scale: Literal["linear", "log"] = "linear"
    """How progress in its metric is measured: by differences, or by ratios where values go down to 0."""


PROBLEMS: Mapping[str, Entry] = {
    "quadratic_deep": Entry("quadratic"),
    "rosenbrock": Entry("functions", "log"),
    "beale": Entry("functions", "log"),
    "branin": Entry("functions", "log"),
    "digits_logreg": Entry("digits"),
    "digits_mlp": Entry("digits"),
    "digits_vae": Entry("digits"),
    "char_rnn": Entry("text"),
}


def load_problem(name: str) -> "Workload":
    """The problem of that name, or the workload or variant. Imports jax."""
    check_problem(name)
    if name in PROBLEMS:
        return importlib.import_module(f"{__name__}.{PROBLEMS[name].module}").workload(name)
    return load_workload(name)


def check_problem(name: str) -> None:
    """Raises `UserError` where no problem and no workload can be meant by `name`. Imports none of them."""
    if name in PROBLEMS:
        return
    try:
        base_of(name)
    except UserError:
        hint = "docs/sweeps.md lists the problems; workloads can be swept, too."
        raise unknown("problem", name, [*PROBLEMS, *workload_names()], hint) from None


def scale(name: str) -> Literal["linear", "log"]:
    return PROBLEMS[name].scale if name in PROBLEMS else "linear"
