"""From eval curves to times to target."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from timetrial.ruleset import Clock
from timetrial.target import Target
from timetrial_scoring.board import Floats, Trial
from timetrial_scoring.grid import Cell, Grid
from timetrial_scoring.profiles import Structure

Mode = Literal["exact", "published"]
_INF = float("inf")
_NAN = float("nan")
_RAN_OUT = (None, "reached", "budget")
"""How a trial may end for its crossing to count: a failed trial never reached. None: the source does not say."""


class Crossing(NamedTuple):
    """When a trial reached its target; `inf` everywhere when it never did."""

    charge: float = _INF
    """In units of the charged clock."""
    charge_before: float = _INF
    """At the last eval that did not meet the target, 0 where there was none: the crossing lies between the two."""
    seconds: float = _INF
    steps: float = _INF
    examples: float = _INF
    """NaN where the source does not count examples."""
    eval_index: int = -1


NEVER = Crossing()


def find_crossing(
    trial: Trial,
    target: Target,
    clock: Clock,
    *,
    budget: float = _INF,
    confirmation: int = 0,
    values: Floats | None = None,
) -> Crossing:
    """The first eval from which the target is met, and still met by the `confirmation` evals after it.

    Evals beyond the budget, and those whose charge is not a positive number, do not count. `values` is the curve of
    the target's metric, read from the trial where it is not given.
    """
    values = target_curve(trial, target) if values is None else values
    charge = trial.charge(clock)
    if values is None or charge is None:
        return NEVER
    met = values <= target.value if target.better == "lower" else values >= target.value
    met &= (charge > 0) & (charge <= budget)
    first = met
    if confirmation:
        first = np.convolve(met, np.ones(confirmation + 1), "full")[confirmation:] > confirmation
    index = int(first.argmax()) if first.size else 0
    if not first.size or not first[index]:
        return NEVER
    return Crossing(
        charge=float(charge[index]),
        charge_before=float(charge[index - 1]) if index else 0.0,
        seconds=float(trial.seconds[index]),
        steps=float(trial.steps[index]),
        examples=_NAN if trial.examples is None else float(trial.examples[index]),
        eval_index=index,
    )


def target_curve(trial: Trial, target: Target) -> Floats | None:
    """The validation curve of the target's metric; None where the trial has none, or one that is not all numbers."""
    try:
        return trial.metrics.get(f"valid/{target.metric}")
    except ValueError:
        return None


def target_of(grid: Grid, trial: Trial) -> Target | None:
    """The target of the ruleset, else the trial's own, for a workload whose ruleset leaves it to the workload."""
    target = grid.ruleset.workloads[trial.workload].target
    return target if target is not None or trial.recorded is None else trial.recorded.target


@dataclass(frozen=True, kw_only=True, eq=False)
class Times:
    """Times to target of a board. Axes: s submissions, w workloads (bases and variants), k prescribed studies.

    Each study contributes its best trial. Arrays hold `inf` where the target was not reached, and where a study is
    missing.
    """

    submissions: tuple[str, ...]
    structure: Structure
    clock: Clock
    charge: Floats
    """(S, W, K), in units of the charged clock."""
    charge_before: Floats
    """(S, W, K): no trial of the study crossed before this charge: the least of an eval before a crossing."""
    seconds: Floats
    steps: Floats
    examples: Floats
    present: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    """(S, W, K): whether the study has any trial."""
    budgets: Floats
    """(W,)"""
    crossings: Mapping[Cell, tuple[Crossing, ...]]
    """Of every trial of each study, in the order of the grid's."""
    chosen: Mapping[Cell, Trial]
    """The trial that each study contributes; none where none reached the target."""


def times_to_target(grid: Grid, mode: Mode = "exact") -> Times:
    """Exact: the trial with the least charge within the budget. Published: the fewest evals, whatever the budget."""
    structure = Structure.of(grid.ruleset)
    shape = (len(grid.submissions), len(structure.workloads), grid.studies)
    charge, before, seconds, steps, examples = (np.full(shape, np.inf) for _ in range(5))
    present = np.zeros(shape, np.bool_)
    crossings: dict[Cell, tuple[Crossing, ...]] = {}
    chosen: dict[Cell, Trial] = {}
    for cell, trials in grid.cells.items():
        present[cell] = True
        crossings[cell] = found = tuple(_crossing(grid, trial, mode) for trial in trials)
        best = min(range(len(trials)), key=lambda i: (_eagerness(found[i], mode), i))
        if found[best].eval_index >= 0:
            chosen[cell] = trials[best]
            charge[cell], _, seconds[cell], steps[cell], examples[cell], _ = found[best]
            before[cell] = min(crossing.charge_before for crossing in found)
    return Times(
        submissions=grid.submissions,
        structure=structure,
        clock=grid.ruleset.clock,
        charge=charge,
        charge_before=before,
        seconds=seconds,
        steps=steps,
        examples=examples,
        present=present,
        budgets=np.array([grid.budget(name) for name in structure.workloads]),
        crossings=crossings,
        chosen=chosen,
    )


def _crossing(grid: Grid, trial: Trial, mode: Mode) -> Crossing:
    target = target_of(grid, trial)
    if target is None:
        return NEVER
    if mode == "published":
        return find_crossing(trial, target, grid.ruleset.clock)
    if trial.status not in _RAN_OUT:
        return NEVER
    budget = grid.budget(trial.workload)
    return find_crossing(trial, target, grid.ruleset.clock, budget=budget, confirmation=grid.ruleset.confirmation)


def _eagerness(crossing: Crossing, mode: Mode) -> float:
    if mode == "exact" or crossing.eval_index < 0:
        return crossing.charge
    return float(crossing.eval_index)
