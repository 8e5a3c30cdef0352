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
"""Random sign flips, or more where there are many pairs, so that p-values as small as the correction asks exist."""


AT_ONCE = 2**21
"""Numbers that are held for sign flips: their product with the pairs grows with the fourth power of submissions."""


class Separation(NamedTuple):
    faster: Bools
    """(S, S): whether the data show that the row is faster than the column over these workloads."""
    p_value: Floats
    """(S, S), symmetric, 1 on the diagonal: two-sided, corrected over all pairs."""


def separate(times_swk: Floats, structure: Structure, rng: np.random.Generator) -> Separation | None:
    """The order claims that (S, W, K) times support; None with one study, which never supports any.

    Each pair is tested by Wilcoxon's signed-rank test of its `block_differences`, its p-value taken from random sign
    flips, so that ties do no harm; Holm's (1979) step-down correction holds however the pairs depend on one another.
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
        statistic_p = ranks_pn.sum(axis=1)
        p = holm(sign_flip_p_values(ranks_pn, rng))
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


def sign_flip_p_values(signed_pn: Floats, rng: np.random.Generator) -> Floats:
    """(P,): for each pair, how often random signs give a sum as far from 0 as that of its numbers (P, N)."""
    pairs, blocks = signed_pn.shape
    flips = max(FLIPS, 100 * pairs)
    # A flip that gives the same sum counts, whatever the order of summation.
    least_p = np.abs(signed_pn.sum(axis=1)) * (1 - 1e-12)
    as_far_p = np.zeros(pairs)
    at_once = max(1, AT_ONCE // (pairs + blocks))
    for done in range(0, flips, at_once):
        signs = rng.integers(0, 2, (min(at_once, flips - done), blocks)) * 2.0 - 1.0
        as_far_p += (np.abs(signs @ signed_pn.T) >= least_p).sum(axis=0)
    return (1 + as_far_p) / (1 + flips)


def holm(p_value: Floats) -> Floats:
    """(P,): p-values corrected so that the chance of one or more false claims is at most the level."""
    order = np.argsort(p_value, kind="stable")
    corrected = np.empty_like(p_value)
    corrected[order] = np.maximum.accumulate(p_value[order] * np.arange(len(order), 0, -1))
    return np.minimum(1.0, corrected)


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
