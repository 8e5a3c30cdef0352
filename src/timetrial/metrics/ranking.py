"""How well scores put positives before negatives."""

import numpy as np


def average_precision(positive: np.ndarray, score: np.ndarray) -> float:
    """Precision at each score that some row has, averaged over the positives that it adds; NaN if a score is NaN.

    Rows of equal score enter together, so their order does not matter.
    """
    if np.isnan(score).any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    found = np.cumsum(positive[order])[ends]
    return float(np.sum(np.diff(found, prepend=0) / found[-1] * (found / (ends + 1))))


def mean_average_precision(label: np.ndarray, score: np.ndarray, known: np.ndarray) -> float:
    """Mean over the columns of (rows, labels), each from its known rows, as ogbg-molpcba's evaluator has it.

    A column without a known positive or a known negative row counts in no mean; NaN where none counts.
    """
    precisions: list[float] = []
    for positive, value, is_known in zip((label > 0).T, score.T, known.T, strict=True):
        if 0 < np.sum(positive[is_known]) < np.sum(is_known):
            precisions.append(average_precision(positive[is_known], value[is_known]))
    return float(np.mean(precisions)) if precisions else float("nan")
