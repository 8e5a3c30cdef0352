"""The numbers of a sweep, in shares of the way from the untrained model to the best that any configuration reached.

Axes in names: o optimizers, p problems, b budgets, s schedules, r seeds of the reruns. The point that a configuration
uses was chosen by validation metrics on seed 0; its result is the test metric on other seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timetrial.errors import UserError
from timetrial_scoring.separation import holm, rank_intervals
from timetrial_scoring.sweeps.load import Problem, Results, Trial

Floats = NDArray[np.float64]
FLOOR = 1e-7
"""Of metrics on a log scale: what is closer to 0 counts as this, about what float32 can tell."""
_LEVEL = 0.05


@dataclass(frozen=True)
class Progress:
    """Test results as shares of the way: 0 is the untrained model, 1 the best configuration's mean, on each problem."""

    shares_opbsr: Floats
    winners_opbs: NDArray[np.intp]
    best_p: Floats
    """The metric at share 1 of each problem, in its own units (on a log scale, the geometric mean)."""

    def untuned_opr(self) -> Floats:
        """With the smallest budget and the first schedule."""
        return self.shares_opbsr[:, :, 0, 0]

    def tuned_opr(self) -> Floats:
        """With the largest budget and the first schedule."""
        return self.shares_opbsr[:, :, -1, 0]


def progress(results: Results) -> Progress:
    """Where every configuration came; what is no number, or worse than the untrained model, is a share of 0."""
    shape = (len(results.optimizers), len(results.problems), len(results.budgets), len(results.schedules))
    heights = np.empty((*shape, len(results.seeds)))
    winners = np.empty(shape, np.intp)
    for o, p, b, s in np.ndindex(*shape):
        problem, optimizer, schedule = results.problems[p], results.optimizers[o], results.schedules[s]
        point = winners[o, p, b, s] = results.winner(problem, optimizer, schedule, results.budgets[b])
        for r, seed in enumerate(results.seeds):
            outcome = results.trials[Trial(problem.name, optimizer, schedule, int(point), seed)]
            heights[o, p, b, s, r] = height(outcome.test, problem)
    start_p = np.array([height(problem.initial, problem) for problem in results.problems])
    means_opbs = np.where(np.isfinite(heights), heights, start_p[:, None, None, None]).mean(axis=-1)
    best_p = means_opbs.min(axis=(0, 2, 3))
    way_p = start_p - best_p
    if np.any(way_p <= 0):
        lazy = [problem.name for problem, way in zip(results.problems, way_p, strict=True) if way <= 0]
        raise UserError(f"no configuration improves on the untrained model on {', '.join(lazy)}")
    shares = (start_p[:, None, None, None] - heights) / way_p[:, None, None, None]
    shares = np.where(np.isfinite(shares), np.maximum(0.0, shares), 0.0)
    return Progress(shares, winners, np.array([_metric(h, p) for h, p in zip(best_p, results.problems, strict=True)]))


def height(value: float, problem: Problem) -> float:
    """A metric on the scale on which its problem's progress is even; lower is better."""
    if not math.isfinite(value):
        return math.nan
    if problem.scale == "log":
        return (1 if problem.better == "lower" else -1) * math.log(max(value, FLOOR))
    return value if problem.better == "lower" else -value


def _metric(height_: float, problem: Problem) -> float:
    signed = height_ if problem.better == "lower" else -height_
    return math.exp(signed) if problem.scale == "log" else signed


def improvement(found: Progress) -> Floats:
    """(O, O, P): what is gained by going from an untuned optimizer (row) to a tuned one (column)."""
    untuned_op, tuned_op = found.untuned_opr().mean(axis=-1), found.tuned_opr().mean(axis=-1)
    return tuned_op[None, :, :] - untuned_op[:, None, :]


def gain_by_budget(found: Progress) -> Floats:
    """(O, P, B): mean shares over those of the smallest budget, with the first schedule."""
    shares_opb = found.shares_opbsr[:, :, :, 0].mean(axis=-1)
    return shares_opb - shares_opb[:, :, :1]


def gain_by_schedule(found: Progress, budget: int) -> Floats:
    """(O, P, S): mean shares over those of the first schedule, with the budget of this index."""
    shares_ops = found.shares_opbsr[:, :, budget].mean(axis=-1)
    return shares_ops - shares_ops[:, :, :1]


@dataclass(frozen=True)
class Ranks:
    """The optimizers on one problem, or over all: their mean shares, and ranks (1 is best) as far as they are sure."""

    mean_o: Floats
    rank_o2: NDArray[np.intp]
    """The lowest and highest rank that the differences between optimizers allow, at 95 % for all together."""


def ranks(shares_on: Floats) -> Ranks:
    """Ranks from paired differences: (O, N) shares in N blocks that all optimizers share (seeds, or problems).

    Each two optimizers are told apart by a paired t test over the blocks; p values are Holm's over all pairs, so that
    among optimizers that are all alike any false order is seen at most one time in twenty. One block tells nothing.
    """
    from scipy.stats import t as student

    optimizers, blocks = shares_on.shape
    mean_o = shares_on.mean(axis=1)
    better = np.zeros((optimizers, optimizers), np.bool_)
    pairs = [(i, j) for i in range(optimizers) for j in range(i)]
    if blocks > 1 and pairs:
        difference_qn = np.array([shares_on[i] - shares_on[j] for i, j in pairs])
        mean_q = difference_qn.mean(axis=1)
        error_q = difference_qn.std(axis=1, ddof=1) / math.sqrt(blocks)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio_q = np.where(mean_q == 0, 0.0, np.abs(mean_q) / error_q)  # an error of 0: the same in every block
        apart_q = holm(2 * student.sf(ratio_q, blocks - 1)) <= _LEVEL
        for (i, j), apart, mean in zip(pairs, apart_q, mean_q, strict=True):
            if apart:
                better[(i, j) if mean > 0 else (j, i)] = True
    return Ranks(mean_o, rank_intervals(better, mean_o))


@dataclass(frozen=True)
class Instead:
    """The study's question: is it as good to try many optimizers untuned as to tune one?"""

    of_untuned: float
    """Mean share over problems, of the untuned optimizer that is best by validation on seed 0."""
    tuned_o: Floats
    """Mean shares over problems of each optimizer, tuned with the largest budget, with the first schedule."""


def many_or_one(results: Results, found: Progress) -> Instead:
    chosen = [_best_untuned(results, problem) for problem in results.problems]
    untuned_op = found.untuned_opr().mean(axis=-1)
    return Instead(
        float(np.mean([untuned_op[o, p] for p, o in enumerate(chosen)])), found.tuned_opr().mean(axis=(1, 2))
    )


def _best_untuned(results: Results, problem: Problem) -> int:
    sign, schedule = (1 if problem.better == "lower" else -1), results.schedules[0]

    def validation(o: int) -> float:
        name = results.optimizers[o]
        point = results.winner(problem, name, schedule, results.budgets[0])
        return sign * results.trials[Trial(problem.name, name, schedule, point, 0)].best

    return min(range(len(results.optimizers)), key=validation)


@dataclass(frozen=True)
class Sensitivity:
    """The tuning trials of one optimizer with the first schedule, on seed 0."""

    rate_n: Floats
    share_pn: Floats
    """Shares by the validation metric, that the same metric's best over all trials of the problem makes 1."""
    diverged_pn: NDArray[np.bool_]


def sensitivity(results: Results) -> dict[str, Sensitivity]:
    """How an optimizer's trials depend on its learning rate, by optimizer."""
    schedule, found = results.schedules[0], dict[str, Sensitivity]()
    start = {problem.name: height(problem.initial, problem) for problem in results.problems}
    best = {problem.name: _lowest(results, problem) for problem in results.problems}
    for optimizer in results.optimizers:
        numbers = sorted(point for name, point in results.points if name == optimizer)
        numbers = [n for n in numbers if Trial(results.problems[0].name, optimizer, schedule, n, 0) in results.trials]
        held = [
            [results.trials[Trial(problem.name, optimizer, schedule, n, 0)] for n in numbers]
            for problem in results.problems
        ]
        shares = [
            [_share(height(trial.best, problem), start[problem.name], best[problem.name]) for trial in row]
            for problem, row in zip(results.problems, held, strict=True)
        ]
        found[optimizer] = Sensitivity(
            np.array([results.points[optimizer, n]["learning_rate"] for n in numbers]),
            np.array(shares),
            np.array([[trial.diverged for trial in row] for row in held]),
        )
    return found


def _lowest(results: Results, problem: Problem) -> float:
    return min(height(o.best, problem) for t, o in results.trials.items() if t.problem == problem.name and t.seed == 0)


def _share(value: float, start: float, best: float) -> float:
    return 0.0 if start <= best else max(0.0, (start - value) / (start - best))


def quartiles(values: Floats | Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = np.quantile(np.asarray(values, np.float64).ravel(), (0.25, 0.5, 0.75))
    return float(low), float(middle), float(high)
