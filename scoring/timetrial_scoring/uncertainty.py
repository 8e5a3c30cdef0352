"""What a board of times supports: `assess` gathers order claims, intervals and bootstraps into one value."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timetrial_scoring.bootstrap import MIN_STUDIES, study_bootstrap, workload_bootstrap
from timetrial_scoring.intervals import drawn_scores, geometric_speedups, score_intervals
from timetrial_scoring.log_times import draw_medians, fit
from timetrial_scoring.profiles import Structure, score_from_times, study_median
from timetrial_scoring.separation import LEVEL, Separation, rank_intervals, separate, tied_groups

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """S submissions, in the order given. None wherever no claim is made; `reasons` says why, by field."""

    scores: Floats
    """(S,): the benchmark scores, of the median times."""
    order: NDArray[np.intp]
    """(S,): submissions from the highest score to the lowest."""
    score_ci: Floats | None
    """(S, 2): 95 % interval of the score that infinitely many studies would give; contains `scores`."""
    speedups: Floats | None
    """(S,): geometric-mean speed-up over the reference, of the median times; None without a reference."""
    speedup_ci: Floats | None
    """(S, 2): its 95 % interval."""
    p_first: Floats | None
    """(S,): probability of the highest score; ties share it."""
    p_adjacent: Floats | None
    """(S - 1,): probability that a submission in `order` scores above the next; ties count half."""
    separation: Separation | None
    """Which submission is faster than which, with p-values corrected over all pairs."""
    rank_ci: NDArray[np.intp] | None
    """(S, 2): best and worst rank that the claims leave open."""
    tied: list[tuple[int, ...]] | None
    """Groups of submissions within which no order is claimed; a submission may be in several."""
    study_bootstrap_ci: Floats | None
    """(S, 2): percentile interval over studies."""
    workload_bootstrap_ci: Floats
    """(S, 2): percentile interval over base workloads: how much the choice of workloads matters."""
    reasons: dict[str, str]


def assess(
    times_swk: Floats,
    budgets_w: Floats,
    structure: Structure,
    *,
    seed: int,
    draws: int = 2000,
    reference: int | None = None,
) -> Assessment:
    """The uncertainty of a board of times (submission, workload, study), inf where not reached within the budget.

    A function of its arguments alone: the same seed gives the same value. Speed-ups are over submission `reference`.
    """
    streams = iter(np.random.default_rng(seed).spawn(4))
    scores = score_from_times(times_swk, structure)
    order = np.argsort(-scores, kind="stable")
    reasons: dict[str, str] = {}
    score_ci = speedup_ci = p_first = p_adjacent = rank_ci = tied = None
    studies = times_swk.shape[-1]

    separation = separate(times_swk, structure, next(streams))
    if separation is None:
        reasons["separation"] = "one study supports no order claim"
    else:
        rank_ci = rank_intervals(separation.faster, scores)
        tied = tied_groups(separation.faster, scores)

    speedups = None
    if reference is not None:
        speedups = geometric_speedups(np.log(study_median(times_swk)), reference, structure)
    model = fit(times_swk, budgets_w)
    if model is None:
        reasons["score_ci"] = (
            "one study tells nothing of the variation between studies"
            if studies < 2
            else "no submission finished any workload in two studies, so the variation between studies is unknown"
        )
    else:
        median_draws = draw_medians(model, next(streams), draws)
        log_dsw = median_draws.log_dsw()
        interval = score_intervals(median_draws, structure)
        score_ci = np.stack([np.minimum(interval[:, 0], scores), np.maximum(interval[:, 1], scores)], axis=-1)
        drawn = drawn_scores(log_dsw, structure)
        first = drawn == drawn.max(axis=1, keepdims=True)
        p_first = (first / first.sum(axis=1, keepdims=True)).mean(axis=0)
        above, below = drawn[:, order[:-1]], drawn[:, order[1:]]
        p_adjacent = ((above > below) + 0.5 * (above == below)).mean(axis=0)
        if reference is not None:
            speedup_ci = np.quantile(geometric_speedups(log_dsw, reference, structure), [0.025, 0.975], axis=0).T

    study_bootstrap_ci = study_bootstrap(times_swk, structure, next(streams), draws)
    if study_bootstrap_ci is None:
        reasons["study_bootstrap_ci"] = f"a bootstrap needs {MIN_STUDIES} or more studies, not {studies}"
    return Assessment(
        scores=scores,
        order=order,
        score_ci=score_ci,
        speedups=speedups,
        speedup_ci=speedup_ci,
        p_first=p_first,
        p_adjacent=p_adjacent,
        separation=separation,
        rank_ci=rank_ci,
        tied=tied,
        study_bootstrap_ci=study_bootstrap_ci,
        workload_bootstrap_ci=workload_bootstrap(times_swk, structure, next(streams), draws),
        reasons=reasons,
    )


__all__ = ["LEVEL", "Assessment", "assess"]
