"""Is the uncertainty honest? Simulates boards of known truth and counts how often a claim or an interval is wrong.

    python benchmarks/calibration.py --boards 1000

prints the tables of docs/statistics.md (20 minutes on one core). Residuals have the spread of AlgoPerf's, where the
best-of-5 times of 5 studies range over a median factor of 1.20. A board has 8 workloads; a study effect, where there is
one, is as large as a residual and shared by all submissions.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from timetrial_scoring.intervals import score_intervals
from timetrial_scoring.log_times import draw_medians, fit
from timetrial_scoring.profiles import Structure, score_from_medians
from timetrial_scoring.separation import separate

Floats = NDArray[np.float64]
WORKLOADS = 8
STRUCTURE = Structure(tuple(f"workload {w}" for w in range(WORKLOADS)), tuple(range(WORKLOADS)))
RESIDUAL_SD = 0.0806
"""The range of five normal draws has a median of 2.26 standard deviations, and log(1.20) / 2.26 = 0.0806."""
NO_BUDGET = np.inf


@dataclass(frozen=True, kw_only=True)
class Setting:
    name: str
    studies: int
    log_medians: Callable[[np.random.Generator], Floats]
    """The true logarithms (S, W) of a board's median times."""
    study_sd: float = 0.0
    budget: float = NO_BUDGET
    """As a multiple of time 1, the median of identical submissions."""


def simulate(setting: Setting, boards: int, seed: int) -> Iterator[tuple[Floats, Floats, Floats, np.random.Generator]]:
    """Times (S, W, K), budgets (W,) and true scores (S,) of independent boards, and the generator for what follows."""
    for stream in np.random.default_rng(seed).spawn(boards):
        median_sw = setting.log_medians(stream)
        effect_wk = setting.study_sd * stream.standard_normal((WORKLOADS, setting.studies))
        residual_swk = RESIDUAL_SD * stream.standard_normal((*median_sw.shape, setting.studies))
        times = np.exp(median_sw[..., None] + effect_wk + residual_swk)
        medians = np.exp(median_sw)
        times[times > setting.budget] = np.inf
        medians[medians > setting.budget] = np.inf
        yield times, np.full(WORKLOADS, setting.budget), score_from_medians(medians, STRUCTURE), stream


def false_separation(setting: Setting, boards: int, seed: int) -> float:
    """The share of boards of identical submissions with one or more order claims."""
    wrong = 0
    for times, _, _, rng in simulate(setting, boards, seed):
        separation = separate(times, STRUCTURE, rng)
        wrong += separation is not None and bool(separation.faster.any())
    return wrong / boards


def power(setting: Setting, boards: int, seed: int) -> float:
    """How often the first submission is rightly separated from the second."""
    claimed = 0
    for times, _, _, rng in simulate(setting, boards, seed):
        separation = separate(times, STRUCTURE, rng)
        claimed += separation is not None and bool(separation.faster[0, 1])
    return claimed / boards


def coverage(setting: Setting, boards: int, *, seed: int, draws: int = 1000) -> tuple[float, float]:
    """The share of score intervals that hold the true score, and the mean width of an interval."""
    held: list[float] = []
    width: list[float] = []
    for times, budgets, truth, rng in simulate(setting, boards, seed):
        model = fit(times, budgets)
        if model is None:
            continue
        low, high = score_intervals(draw_medians(model, rng, draws), STRUCTURE).T
        held.append(float(((low <= truth + 1e-9) & (truth - 1e-9 <= high)).mean()))
        width.append(float((high - low).mean()))
    return float(np.mean(held)), float(np.mean(width))


def identical(submissions: int) -> Callable[[np.random.Generator], Floats]:
    return lambda _: np.zeros((submissions, WORKLOADS))


def spread(submissions: int, sd: float) -> Callable[[np.random.Generator], Floats]:
    return lambda rng: rng.normal(0.0, sd, (submissions, WORKLOADS))


def ladder(submissions: int, factor: float) -> Callable[[np.random.Generator], Floats]:
    """Each submission slower than the one before by the same factor on every workload."""
    return lambda _: np.repeat(np.arange(submissions)[:, None] * np.log(factor), WORKLOADS, axis=1)


def one_ahead(submissions: int, factor: float, heterogeneity: float) -> Callable[[np.random.Generator], Floats]:
    """The first faster by a factor in the mean; its advantage varies over workloads by `heterogeneity` (log sd)."""

    def medians(rng: np.random.Generator) -> Floats:
        ahead = rng.normal(0.0, 1.0, WORKLOADS) * heterogeneity
        log_medians = np.zeros((submissions, WORKLOADS))
        log_medians[0] = -np.log(factor) + ahead - ahead.mean()
        return log_medians

    return medians


def grid(name: str, medians: Callable[[np.random.Generator], Floats], budget: float) -> Iterator[Setting]:
    for studies in (3, 5):
        for study_sd in (0.0, RESIDUAL_SD):
            yield Setting(name=name, studies=studies, log_medians=medians, study_sd=study_sd, budget=budget)


def describe(setting: Setting) -> str:
    budget = "none" if setting.budget == NO_BUDGET else f"{setting.budget:.2f}"
    return f"| {setting.name} | {setting.studies} | {'yes' if setting.study_sd else 'no'} | {budget} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boards", type=int, default=1000, help="boards per line (default: %(default)s)")
    parser.add_argument("--only", choices=["claims", "coverage", "power"], help="print one table")
    args = parser.parse_args()
    boards: int = args.boards
    seeds = itertools.count()
    start = time.monotonic()

    if args.only in (None, "claims"):
        print("\n| submissions | studies | study effects | budget | boards with a false claim | Monte-Carlo error |")
        print("|---|---|---|---|---|---|")
        for submissions in (5, 11):
            for budget in (NO_BUDGET, 1.1):
                for setting in grid(f"{submissions} identical", identical(submissions), budget):
                    rate = false_separation(setting, boards, next(seeds))
                    print(describe(setting), f"{rate:.3f} | {np.sqrt(0.05 * 0.95 / boards):.3f} |", flush=True)

    if args.only in (None, "coverage"):
        print("\n| submissions | studies | study effects | budget | coverage | mean width |")
        print("|---|---|---|---|---|---|")
        for name, medians, budget in (
            ("5 identical", identical(5), NO_BUDGET),
            ("11 identical", identical(11), NO_BUDGET),
            ("5, each 5 % slower than the last", ladder(5, 1.05), NO_BUDGET),
            ("5, cells spread by 5 %", spread(5, 0.05), NO_BUDGET),
            ("11, cells spread by 10 %", spread(11, 0.1), NO_BUDGET),
            ("5, cells spread by 50 %", spread(5, 0.5), NO_BUDGET),
            ("5 identical", identical(5), 1.25),
            ("5 identical", identical(5), 1.1),
            ("5, cells spread by 30 %", spread(5, 0.3), 1.25),
            ("11, cells spread by 30 %", spread(11, 0.3), 1.25),
        ):
            for setting in grid(name, medians, budget):
                held, width = coverage(setting, boards, seed=next(seeds))
                print(describe(setting), f"{held:.3f} | {width:.3f} |", flush=True)

    if args.only in (None, "power"):
        factors = (1.02, 1.04, 1.06, 1.08, 1.10, 1.15, 1.20, 1.30)
        print("\n| submissions | studies | advantage varies by | " + " | ".join(f"{f:.2f} x" for f in factors) + " |")
        print("|---" * (3 + len(factors)) + "|")
        for submissions in (2, 5, 11):
            for studies in (3, 5):
                for heterogeneity in (0.0, 0.1):
                    rates = (
                        power(
                            Setting(
                                name="", studies=studies, log_medians=one_ahead(submissions, factor, heterogeneity)
                            ),
                            boards,
                            next(seeds),
                        )
                        for factor in factors
                    )
                    row = " | ".join(f"{rate:.2f}" for rate in rates)
                    print(f"| {submissions} | {studies} | {heterogeneity:.0%} | {row} |", flush=True)
    print(f"\n{boards} boards a line, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
