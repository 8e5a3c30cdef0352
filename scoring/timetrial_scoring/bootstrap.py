"""Intervals that resample what was measured. They ask for no model, and for many studies."""

import numpy as np
from numpy.typing import NDArray

from timetrial_scoring.profiles import (
    Structure,
    credits,
    performance_ratios,
    qualified_times,
    score_from_times,
    study_median,
)

Floats = NDArray[np.float64]
MIN_STUDIES = 5


def study_bootstrap(
    times_swk: Floats, structure: Structure, rng: np.random.Generator, draws: int, coverage: float = 0.95
) -> Floats | None:
    """(S, 2): percentile intervals of the scores over resampled studies; None with fewer than five.

    Studies are resampled per base workload, with its variants and for all submissions alike; the medians,
    denominators and rules are worked out anew in every draw.
    """
    submissions, workloads, studies = times_swk.shape
    if studies < MIN_STUDIES:
        return None
    chosen_dbk = rng.integers(studies, size=(draws, len(structure.bases), studies))
    chosen_dwk = chosen_dbk[:, np.searchsorted(structure.bases, structure.base_of)]
    resampled = times_swk.transpose(1, 2, 0)[np.arange(workloads)[:, None], chosen_dwk]
    scores = score_from_times(resampled.transpose(0, 3, 1, 2), structure)
    return _interval(scores, coverage).reshape(submissions, 2)


def workload_bootstrap(
    times_swk: Floats, structure: Structure, rng: np.random.Generator, draws: int, coverage: float = 0.95
) -> Floats:
    """(S, 2): percentile intervals of the scores over resampled base workloads, each with its variants."""
    credit_sb = credits(performance_ratios(qualified_times(study_median(times_swk), structure)))
    bases = credit_sb.shape[-1]
    weight_db = rng.multinomial(bases, np.full(bases, 1 / bases), size=draws) / bases
    return _interval(weight_db @ credit_sb.T, coverage)


def _interval(scores_ds: Floats, coverage: float) -> Floats:
    tail = (1 - coverage) / 2
    return np.quantile(scores_ds, [tail, 1 - tail], axis=0).T
