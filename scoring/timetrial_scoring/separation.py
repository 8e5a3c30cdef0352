"""Which submission is faster than which: paired tests over independent blocks, corrected over all pairs.

A study of a workload is a block: all submissions meet the same seeds in it, and what they share cancels between two of
them. A workload and its held-out variants form one block, since imported logs share their tuning points.
docs/statistics.md says what a claim claims, and how often it is wrong.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from timetrial_scoring.profiles import TAU_MAX, Structure

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
LEVEL = 0.05
"""Chance of one or more false claims on a board."""
FLIPS = 4999
"""Random sign flips: the smallest p-value is 1 / (FLIPS + 1)."""


class Separation(NamedTuple):
    faster: Bools
    """(S, S): whether the data show that the row is faster than the column over these workloads."""
    p_value: Floats
    """(S, S), symmetric, 1 on the diagonal: two-sided, corrected over all pairs."""


def separate(times_swk: Floats, structure: Structure, rng: np.random.Generator) -> Separation | None:
    """The order claims that (S, W, K) times support; None with one study, which never supports any.

    Max-T over sign flips of whole blocks, common to all pairs, stepping down (Westfall and Young 1993, algorithm 2.8;
    Romano and Wolf 2005). The statistic of a pair is that of Wilcoxon's signed-rank test of its `block_differences`.
    """
    from scipy.stats import rankdata

    submissions, _, studies = times_swk.shape
    if studies < 2:
        return None
    first, second = np.triu_indices(submissions, 1)
    p_value, faster = np.ones((submissions, submissions)), np.zeros((submissions, submissions), np.bool_)
    if first.size:
        differences_pn = block_differences(times_swk[first], times_swk[second], structure)
        ranks_pn = np.sign(differences_pn) * rankdata(np.abs(differences_pn), axis=1)
        statistic_p, p = max_t(ranks_pn, rng)
        p_value[first, second] = p_value[second, first] = p
        faster[first, second] = (p <= LEVEL) & (statistic_p > 0)
        faster[second, first] = (p <= LEVEL) & (statistic_p < 0)
    return Separation(faster, p_value)


def block_differences(one_pwk: Floats, other_pwk: Floats, structure: Structure) -> Floats:
    """(P, N): by how much `one` was faster than `other` in each block, as a logarithm; 0 where they tie.

    A time beyond `TAU_MAX` x the other counts as `TAU_MAX` x: where one alone finished it is the faster by that much.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        log_ratio = np.where(one_pwk == other_pwk, 0.0, np.log(other_pwk) - np.log(one_pwk))
    log_ratio = np.clip(log_ratio, -np.log(TAU_MAX), np.log(TAU_MAX))
    base_of = np.asarray(structure.base_of)
    blocks = [log_ratio[:, base_of == base].mean(axis=1) for base in structure.bases]
    return np.concatenate(blocks, axis=-1)


def max_t(signed_pn: Floats, rng: np.random.Generator, flips: int = FLIPS) -> tuple[Floats, Floats]:
    """The statistics (P,) of signed numbers (P, N) of P pairs in N blocks, and their corrected p-values (P,).

    A pair's statistic is the sum of its numbers over their root sum of squares.
    """
    norm = np.sqrt((signed_pn**2).sum(axis=1, keepdims=True))
    unit_pn = np.divide(signed_pn, norm, out=np.zeros_like(signed_pn), where=norm > 0)
    statistic = unit_pn.sum(axis=1)
    signs = rng.integers(0, 2, (flips, unit_pn.shape[1])) * 2.0 - 1.0
    order = np.argsort(-np.abs(statistic), kind="stable")
    flipped = np.abs(signs @ unit_pn[order].T)
    largest_left = np.maximum.accumulate(flipped[:, ::-1], axis=1)[:, ::-1]
    # Flips that give the statistic itself must count as ties, whatever the order of summation.
    exceed = (largest_left >= np.abs(statistic[order]) * (1 - 1e-12)).sum(axis=0)
    p_value = np.empty_like(statistic)
    p_value[order] = np.maximum.accumulate((1 + exceed) / (1 + flips))
    return statistic, p_value


def rank_intervals(faster: Bools, scores: Floats) -> NDArray[np.intp]:
    """(S, 2): the best and the worst rank of each submission that the claims leave open, 1 being first.

    A claim against the order of the scores (faster in most blocks, yet behind by the score) bounds no rank.
    """
    ahead = faster & (scores[:, None] > scores[None, :])
    return np.stack([1 + ahead.sum(axis=0), len(scores) - ahead.sum(axis=1)], axis=-1)


def tied_groups(faster: Bools, scores: Floats) -> list[tuple[int, ...]]:
    """The maximal runs of submissions, in the order of the scores, within which no order is claimed (Demšar 2006)."""
    order = np.argsort(-scores, kind="stable")
    separated = (faster | faster.T)[np.ix_(order, order)]
    groups: list[tuple[int, ...]] = []
    reach = 0
    for start in range(len(order)):
        end = start + 1
        while end < len(order) and not separated[start : end + 1, start : end + 1].any():
            end += 1
        if end > reach and end - start > 1:
            groups.append(tuple(int(s) for s in order[start:end]))
        reach = max(reach, end)
    return groups
