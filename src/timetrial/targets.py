"""What a target follows from: runs of one configuration with fresh seeds, and how sure they make it. No jax.

docs/targets.md describes the procedure; `timetrial.derivation` makes the runs.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from timetrial.errors import UserError
from timetrial.evidence import MOST_LOG_TIME_PER_SD
from timetrial.record import RECORD_NAME, read_record
from timetrial.target import Target
from timetrial.tuning import Point

Better = Literal["lower", "higher"]
_FEWEST = 3
"""Fresh seeds that must come to the horizon."""


@dataclass(frozen=True)
class Run:
    """What one run to the horizon reached."""

    submission: str
    hparams: Point
    study: int
    trial: int
    status: str
    workload_sha256: str
    best: float
    """The best value of the metric; the worst possible, an infinity, where the run did not come to its horizon."""
    best_examples: int
    curve: tuple[tuple[int, float], ...]
    """(examples, validation metric) at each eval but that of the untrained model."""
    test: Mapping[int, float]
    """The test metric by examples, where it was evaluated."""

    def to_json(self) -> dict[str, Any]:
        return {
            "submission": self.submission,
            "hparams": dict(self.hparams),
            "study": self.study,
            "trial": self.trial,
            "status": self.status,
            "best": self.best if math.isfinite(self.best) else None,
            "best_examples": self.best_examples,
        }


def read_run(folder: Path, metric: str, better: Better) -> Run:
    """The run whose record lies in `folder`; raises `UserError` where it was interrupted."""
    record = read_record(folder / RECORD_NAME)
    if record.end is None or record.end.status == "interrupted":
        why = "it has no end" if record.end is None else record.end.message
        raise UserError(f"the run in {folder} was interrupted ({why}); the same command goes on")
    evals = [line for line in record.evals if line.step > 0]
    curve = tuple((line.examples, line.metrics[f"valid/{metric}"]) for line in evals)
    best_examples, best = 0, math.inf if better == "lower" else -math.inf
    if record.end.status == "budget":
        best_examples, best = min(curve, key=lambda point: smaller_first(point[1], better))
    return Run(
        submission=record.run.submission,
        hparams=record.run.hparams,
        study=record.run.study,
        trial=record.run.trial,
        status=record.end.status,
        workload_sha256=record.run.workload_sha256,
        best=best,
        best_examples=best_examples,
        curve=curve,
        test={line.examples: line.metrics[f"test/{metric}"] for line in evals if f"test/{metric}" in line.metrics},
    )


def smaller_first(value: float, better: Better) -> float:
    """A key that sorts the better value first."""
    return value if better == "lower" else -value


def conclusions(metric: str, better: Better, fresh: Sequence[Run]) -> dict[str, Any]:
    """The targets that runs with fresh seeds give, and how sure they are.

    The validation target is the median of the runs' best values (of an even number, the worse of the middle two), the
    test target the worst test value among those that meet it, each at its first eval that does. Both are rounded to
    four significant digits, towards what is easier. Raises `UserError` where fewer than three runs ended well.
    """
    done = [run for run in fresh if math.isfinite(run.best)]
    if len(done) < _FEWEST:
        raise UserError(f"{len(done)} of {len(fresh)} fresh seeds came to the horizon; a target needs {_FEWEST}")
    bests = sorted((run.best for run in fresh), key=lambda value: smaller_first(value, better))
    target = Target(metric, _easier(bests[len(bests) // 2], better), better)
    met = [run for run in done if target.met_by(run.best)]
    tests = [run.test[next(n for n, value in run.curve if target.met_by(value))] for run in met]
    test = Target(metric, _easier(max(tests, key=lambda value: smaller_first(value, better)), better), better)
    deviation = statistics.stdev(run.best for run in done)
    moved = log_time_moved(target, deviation, [run.curve for run in met])
    return {
        "usable": moved <= MOST_LOG_TIME_PER_SD,
        "target": target.to_json(),
        "test_target": test.to_json(),
        "median_interval": order_statistic_interval(bests),
        "reach_probability": proportion(len(met), len(fresh)),
        "standard_deviation": deviation,
        "log_time_per_standard_deviation": moved,
    }


def order_statistic_interval(values: Sequence[float]) -> dict[str, float]:
    """Of the median, from the order statistics: the narrowest symmetric interval that covers 95 %, else the widest."""
    ordered, n = sorted(values), len(values)

    def coverage(k: int) -> float:
        """Of the interval from the k-th smallest to the k-th largest, k from 0."""
        return 1 - 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n

    k = max((k for k in range((n + 1) // 2) if coverage(k) >= 0.95), default=0)
    return {"low": ordered[k], "high": ordered[n - 1 - k], "coverage": coverage(k)}


def proportion(hits: int, n: int) -> dict[str, float]:
    """A share of `n` runs and its exact 95 % interval (Clopper & Pearson 1934)."""
    from scipy.stats import binomtest

    interval: Any = binomtest(hits, n).proportion_ci(0.95, "exact")
    return {"share": hits / n, "runs": n, "low": float(interval.low), "high": float(interval.high)}


def log_time_moved(target: Target, by: float, curves: Sequence[Sequence[tuple[int, float]]]) -> float:
    """How much later, in log time, the target is met than one that is easier by `by`: the mean over `curves`."""
    easier = Target(target.metric, target.value + (by if target.better == "lower" else -by), target.better)
    return statistics.fmean(math.log(time_to(target, curve) / time_to(easier, curve)) for curve in curves)


def time_to(target: Target, curve: Sequence[tuple[int, float]]) -> float:
    """Examples at which the best value so far meets the target: between two evals, interpolated in log time.

    At the first eval where that meets it, and infinite where none does.
    """
    before: tuple[int, float] | None = None
    for examples, value in curve:
        if target.met_by(value):
            if before is None:
                return float(examples)
            share = (target.value - before[1]) / (value - before[1])
            return before[0] * (examples / before[0]) ** share
        best = value if before is None else min(value, before[1], key=lambda v: smaller_first(v, target.better))
        before = examples, best
    return math.inf


def _easier(value: float, better: Better) -> float:
    """`value` to four significant digits, rounded towards what is easier to reach."""
    if value == 0:
        return 0.0
    digits = 3 - math.floor(math.log10(abs(value)))
    return round((math.ceil if better == "lower" else math.floor)(value * 10.0**digits) / 10.0**digits, max(digits, 0))
