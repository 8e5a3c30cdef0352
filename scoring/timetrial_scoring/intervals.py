"""Intervals of scores and speed-ups, from draws of the true median times.

What an interval covers is the score of the true medians: the score that infinitely many studies would give.
"""

import numpy as np
from numpy.typing import NDArray

from timetrial_scoring.log_times import MedianDraws
from timetrial_scoring.profiles import TAU_MAX, Structure, credits, performance_ratios, qualified_times

Floats = NDArray[np.float64]
CONTENDER = 0.02
"""A submission contends for a workload's best time where at least this share of the draws puts it before the leader."""
GRACE = 0.75
"""By how many standard errors the ends of an interval read the budget shorter and longer."""


def drawn_scores(log_dsw: Floats, structure: Structure) -> Floats:
    """(D, S): the benchmark score of every draw, its denominators, 4 x rule and held-out rule worked out anew."""
    return credits(performance_ratios(qualified_times(np.exp(log_dsw), structure))).mean(axis=-1)


def score_intervals(draws: MedianDraws, structure: Structure, coverage: float = 0.95) -> Floats:
    """(S, 2): intervals of the benchmark score.

    Draws about noisy estimates are noisy twice, which matters where the score has an edge, so edges are read twice. The
    fastest observed is partly the luckiest: the best time of a workload is that of the observed leader for the lower
    end, and for the upper end that of a leader with the luck that chance gives if all its contenders are equally fast.
    A median near the budget may lie on either side: the budget is `GRACE` standard errors shorter for the lower end,
    and longer for the upper. Draws before the best earn more than 1, so that means over workloads stay centred; the
    interval is then clipped to [0, 1].
    """
    tail = (1 - coverage) / 2
    low = np.quantile(_open_scores(draws.log_dsw(-GRACE), structure, lucky=False), tail, axis=0)
    high = np.quantile(_open_scores(draws.log_dsw(GRACE), structure, lucky=True), 1 - tail, axis=0)
    return np.clip(np.stack([low, high], axis=-1), 0.0, 1.0)


def _open_scores(log_dsw: Floats, structure: Structure, *, lucky: bool) -> Floats:
    """(D, S): scores against the best times of the observed leaders, less their luck; not limited to 1 before them."""
    times_dsb = qualified_times(np.exp(log_dsw), structure)
    leader_b = np.quantile(times_dsb, 0.5, axis=0, method="lower").argmin(axis=0)
    leader_d1b = np.take_along_axis(times_dsb, leader_b[None, None, :], axis=1)
    best_d1b = np.where(np.isinf(leader_d1b), times_dsb.min(axis=1, keepdims=True), leader_d1b)
    if lucky:
        log_dsb = log_dsw[..., structure.bases]
        centre_sb = np.quantile(log_dsb, 0.5, axis=0, method="lower")
        contends_sb = ((times_dsb <= leader_d1b) & np.isfinite(times_dsb)).mean(axis=0) >= CONTENDER
        with np.errstate(invalid="ignore"):
            ahead_db = np.where(contends_sb & np.isfinite(log_dsb), centre_sb - log_dsb, -np.inf).max(axis=1)
        best_d1b = best_d1b * np.exp(np.where(np.isfinite(ahead_db), ahead_db, 0.0).mean(axis=0))
    with np.errstate(invalid="ignore"):
        ratio = np.where(np.isinf(times_dsb), np.inf, times_dsb / best_d1b)
    return np.maximum(0.0, (TAU_MAX - ratio) / (TAU_MAX - 1)).mean(axis=-1)


def geometric_speedups(log_sw: Floats, reference: int, structure: Structure) -> Floats:
    """(…, S): by what factor each submission is faster than the reference, as geometric mean over the base workloads.

    A factor is limited to `TAU_MAX` and its inverse, also where one of the two never finishes; 1 where neither does.
    """
    log_sb = log_sw[..., structure.bases]
    reference_sb = log_sb[..., reference, None, :]
    with np.errstate(invalid="ignore"):
        ratio = np.where(log_sb == reference_sb, 0.0, reference_sb - log_sb)
    return np.exp(np.clip(ratio, -np.log(TAU_MAX), np.log(TAU_MAX)).mean(axis=-1))
