"""Measures beside the benchmark score: anchored score, speed-ups, run-time distributions, spread over trials.

Axes as in `profiles`: s submissions, w workloads, b base workloads, k studies.
"""

from typing import NamedTuple

import numpy as np

from timetrial.ruleset import Ruleset
from timetrial.target import Target
from timetrial_scoring.board import Floats, Trial
from timetrial_scoring.grid import Cell, Grid
from timetrial_scoring.intervals import geometric_speedups
from timetrial_scoring.profiles import Structure, study_median
from timetrial_scoring.times import Times, find_crossing, target_curve, target_of


def reached_times(times_sw: Floats, structure: Structure) -> Floats:
    """(…, S, B): the times on base workloads, `inf` where the base or one of its held-out variants is not reached."""
    times = times_sw[..., structure.bases].copy()
    for position, base in enumerate(structure.base_names):
        family = times_sw[..., structure.family(base)]
        times[..., position][np.isinf(family).any(axis=-1)] = np.inf
    return times


def anchors(ruleset: Ruleset) -> Floats | None:
    """(B,): the anchor of every base workload; None unless the ruleset gives them all."""
    found = [anchor for name in ruleset.base_workloads if (anchor := ruleset.workloads[name].anchor) is not None]
    return np.array(found, np.float64) if len(found) == len(ruleset.base_workloads) else None


def anchored_scores(times_sw: Floats, structure: Structure, anchors_b: Floats) -> Floats:
    """(…, S): mean credit against fixed anchors, so that no submission's score depends on another's.

    Credit: 1 when 4 x faster than the anchor, 1/2 at parity, 0 when 4 x slower, linear in the logarithm.
    """
    with np.errstate(divide="ignore"):
        decades = np.log(reached_times(times_sw, structure) / anchors_b) / np.log(4.0)
    return np.clip((1.0 - decades) / 2.0, 0.0, 1.0).mean(axis=-1)


class Speedup(NamedTuple):
    """How many times faster than the reference, in the geometric mean over the base workloads."""

    factor: float
    """No workload counts for more than 4 x either way, which it does where only one of the two reached it."""
    workloads: int
    """How many base workloads both reached."""
    only: int
    """Base workloads that this submission alone reached."""
    only_reference: int
    """Base workloads that the reference alone reached."""


def speedups(times_sw: Floats, structure: Structure, reference: int) -> list[Speedup]:
    """One for each submission; how many workloads either of the two missed stands beside it."""
    reached = np.isfinite(reached_times(times_sw, structure))
    with np.errstate(divide="ignore"):
        factors = geometric_speedups(np.log(times_sw), reference, structure)
    return [
        Speedup(
            factor=float(factors[s]),
            workloads=int((reached[s] & reached[reference]).sum()),
            only=int((reached[s] & ~reached[reference]).sum()),
            only_reference=int((reached[reference] & ~reached[s]).sum()),
        )
        for s in range(len(times_sw))
    ]


class Spread(NamedTuple):
    """Sensitivity to hyperparameters: all trials of all studies of a submission on a workload."""

    trials: int
    reached: int
    fastest: float
    """In units of the charged clock; `inf` when no trial reached the target, as are the others."""
    median: float
    """Lower median over the trials that reached the target."""
    slowest: float


def spread(times: Times, s: int, w: int) -> Spread:
    charges = [
        crossing.charge
        for k in range(times.charge.shape[-1])
        for crossing in times.crossings.get((s, w, k), ())
    ]  # fmt: skip
    reached = sorted(charge for charge in charges if np.isfinite(charge))
    if not reached:
        return Spread(len(charges), 0, np.inf, np.inf, np.inf)
    return Spread(len(charges), len(reached), reached[0], reached[(len(reached) - 1) // 2], reached[-1])


def runtime_distribution(grid: Grid, times: Times) -> dict[str, Floats] | None:
    """For each submission the sorted charges, as shares of the budget, at which it met each milestone; `inf` for never.

    Plotted against their rank over their number these are run-time ECDFs over all milestones, targets and studies
    (Hansen et al. 2021, COCO). Each study contributes one trial: the one chosen by the main target or, where none
    reached that, the one that came nearest. None where the ruleset has no milestones.
    """
    if not any(rules.milestones for rules in grid.ruleset.workloads.values()):
        return None
    shares: dict[str, list[float]] = {name: [] for name in grid.submissions}
    for s, name in enumerate(grid.submissions):
        for w, workload in enumerate(times.structure.workloads):
            rules = grid.ruleset.workloads[workload]
            for k in range(grid.studies):
                values = [] if rules.target is None else sorted({*rules.milestones, rules.target.value})
                shares[name] += _milestone_charges(grid, times, (s, w, k), values, float(times.budgets[w]))
    return {name: np.sort(np.array(values)) for name, values in shares.items()}


def _milestone_charges(
    grid: Grid, times: Times, cell: tuple[int, int, int], values: list[float], budget: float
) -> list[float]:
    trial = representative(grid, times, cell)
    target = None if trial is None else target_of(grid, trial)
    if trial is None or target is None:
        return [float("inf")] * len(values)
    return [
        find_crossing(
            trial,
            Target(target.metric, value, target.better),
            times.clock,
            budget=budget,
            confirmation=grid.ruleset.confirmation,
        ).charge
        / budget
        for value in values
    ]


def representative(grid: Grid, times: Times, cell: Cell) -> Trial | None:
    """The trial that a study contributes or, where none reached the target, the one that came nearest."""
    trials = grid.cells.get(cell, ())
    target = target_of(grid, trials[0]) if trials else None
    if target is None:
        return None
    return times.chosen.get(cell) or min(trials, key=lambda trial: _distance(trial, target))


def best_value(trial: Trial, target: Target) -> float:
    """The value of the target's metric that came nearest to it, or went furthest beyond; NaN where there is none."""
    curve = target_curve(trial, target)
    if curve is None or np.isnan(curve).all():
        return float("nan")
    return float(np.nanmin(curve) if target.better == "lower" else np.nanmax(curve))


def _distance(trial: Trial, target: Target) -> float:
    """How far the best value of a trial stays from the target."""
    best = best_value(trial, target)
    if np.isnan(best):
        return float("inf")
    return best - target.value if target.better == "lower" else target.value - best


def median_study(times: Times) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    """(S, W): the study whose charge is the lower median over studies; its other clocks belong to the same trial."""
    order = np.argsort(times.charge, axis=-1, kind="stable")
    return order[..., (times.charge.shape[-1] - 1) // 2]


def medians(times: Times) -> dict[str, Floats]:
    """(S, W) each: seconds, steps and examples of the median study, side by side; NaN examples are not known."""
    study = median_study(times)[..., None]
    clocks = {"seconds": times.seconds, "steps": times.steps, "examples": times.examples}
    result = {name: np.take_along_axis(values, study, axis=-1)[..., 0] for name, values in clocks.items()}
    result[times.clock] = study_median(times.charge)
    return result
