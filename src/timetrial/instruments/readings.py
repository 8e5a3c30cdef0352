"""From the sums of a step to what a look writes down."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from timetrial.instruments import quantities
from timetrial.instruments.curvature import extremes


class Readings(NamedTuple):
    """What a look writes down."""

    values: dict[str, float]
    arrays: dict[str, list[float]]
    """By quantity, a number for each parameter array."""
    histograms: dict[str, list[Any]]


def readings(sums: Any, *, batch_size: int, learning_rate: float | None) -> Readings:
    """The quantities of a step, from `measure.Sums` that lie on the host, for training batches of `batch_size` rows.

    `learning_rate` is None where the optimizer's state names none.
    """
    arrays = {name: getattr(sums, name) for name in ("param_norm", "distance", "update_size")}
    total = {name: _total(row) for name, row in arrays.items()}
    values = {
        **total,
        "update_ratio": total["update_size"] / total["param_norm"] if total["param_norm"] else np.nan,
    }
    if sums.start is None:
        return Readings(values, _lists(arrays), {})
    start, end = quantities.Line(*sums.start), quantities.Line(*sums.end)
    arrays["gradient_norm"] = sums.gradient_norm
    gradient_norm = _total(sums.gradient_norm)
    loss, slope = (float(np.mean(x, dtype=np.float64)) for x in start)
    rows = len(start.losses)
    values |= {
        "probe_loss": loss,
        "alpha": quantities.alpha(start, end),
        "gradient_norm": gradient_norm,
        "cosine": quantities.cosine(slope, gradient_norm, total["update_size"]),
    }
    trace = None if sums.traces is None else float(np.mean(sums.traces, dtype=np.float64))
    if trace is not None:
        arrays["hessian_trace"] = sums.diagonal_sums
        error = float(np.std(sums.traces, ddof=1, dtype=np.float64)) / len(sums.traces) ** 0.5
        values |= {"hessian_trace": trace, "hessian_trace_error": error}
    if sums.spread is not None:
        found = quantities.moments(float(sums.spread), gradient_norm, rows)
        tests = quantities.gradient_tests(found, sums.along, gradient_norm, batch_size)
        values |= {
            "gradient_variance": found.variance,
            "gradient_square": found.square,
            "noise_scale": found.noise_scale,
            "norm_test": tests.norm,
            "inner_product_test": tests.inner_product,
            "orthogonality_test": tests.orthogonality,
        }
        if trace is not None:
            signal = float(sums.signal_to_noise)
            values |= {
                "mean_gsnr": signal,
                "early_stopping": quantities.early_stopping(signal, rows),
                "tic_trace": quantities.tic_trace(found.variance, gradient_norm, rows, trace),
                "tic_diagonal": float(sums.tic_diagonal),
            }
            if learning_rate is not None:
                values["cabs"] = quantities.cabs(learning_rate, found.variance, loss)
    for name, matrix in (("hessian", sums.plain), ("preconditioned", sums.preconditioned)):
        if matrix is not None:
            largest, error, smallest = extremes(matrix)
            values |= {
                f"{name}_max_eigenvalue": largest,
                f"{name}_max_eigenvalue_error": error,
                f"{name}_min_eigenvalue": smallest,
            }
    histograms = {
        "gradient_histogram": sums.counts,
        "gradient_histogram_2d": sums.counts_2d,
        "hessian_diagonal": sums.diagonal_counts,
    }
    return Readings(values, _lists(arrays), _lists({k: v.astype(int) for k, v in histograms.items() if v is not None}))


def _total(norms_l: np.ndarray) -> float:
    return float(np.sqrt(np.sum(np.square(norms_l, dtype=np.float64))))


def _lists(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: array.tolist() for name, array in arrays.items()}
