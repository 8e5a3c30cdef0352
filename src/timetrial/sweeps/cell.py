"""One (problem, optimizer) of a sweep: its tuning trials, and the winners of its budgets once more."""

import functools
import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from timetrial.seeds import seed as seed_of
from timetrial.sweeps.lanes import Lane, LaneTrainer, Loop, Metrics, fastest
from timetrial.sweeps.ledger import Cell, Row, Trial, rounded
from timetrial.sweeps.optimizers import OPTIMIZERS, SCHEDULE, scheduled
from timetrial.sweeps.problems import load_problem
from timetrial.sweeps.schedules import SCHEDULES
from timetrial.sweeps.spec import ProblemSpec, Sweep, points, points_of

TUNING_SEED = 0


def missing(sweep: Sweep, rows: Mapping[Trial, Row], *, better: str) -> list[Trial]:
    """The trials that can be run now: those of tuning, then those of the winners; none when the cell is done."""
    tuning = [Trial(schedule, point, TUNING_SEED) for schedule in sweep.schedules for point in sweep.tuning_points]
    left = [trial for trial in tuning if trial not in rows]
    if left:
        return left
    again = (
        Trial(schedule, point, seed)
        for schedule in sweep.schedules
        for point in sorted({winner(rows, schedule, budget, better=better) for budget in sweep.budgets})
        for seed in range(1, sweep.reruns + 1)
    )
    return [trial for trial in again if trial not in rows]


def winner(rows: Mapping[Trial, Row], schedule: str, budget: int, *, better: str) -> int:
    """The point that a budget chooses: of the best validation metric, and of equal ones the first."""
    sign = 1 if better == "lower" else -1
    return min(points_of(budget), key=lambda point: sign * rows[Trial(schedule, point, TUNING_SEED)].best)


def row_of(trial: Trial, curve: Sequence[Metrics], *, metric: str, better: str, stretch: int) -> Row:
    """A trial's row, from its metrics before the first step and after each stretch of steps."""
    values = [rounded(metrics[f"valid/{metric}"]) for metrics in curve]
    sign = 1 if better == "lower" else -1
    best = min(range(len(values)), key=lambda i: sign * values[i] if math.isfinite(values[i]) else math.inf)
    return Row(
        schedule=trial.schedule,
        point=trial.point,
        seed=trial.seed,
        status="completed" if all(map(math.isfinite, values)) else "diverged",
        initial=values[0],
        best=values[best],
        best_step=best * stretch,
        final=values[-1],
        test=rounded(curve[best][f"test/{metric}"]),
    )


class CellRunner:
    """Runs the cells of a sweep; measures once a problem how its trials are best trained."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._workload = functools.cache(load_problem)
        self._points = functools.cache(functools.partial(points, sweep))
        self._ways: dict[str, tuple[Loop, int]] = {}

    def run(self, problem: ProblemSpec, optimizer: str, cell: Cell, lost: threading.Event) -> None:
        """Trains what the cell lacks, one program's trials at a time; leaves off once its claim is lost."""
        workload = self._workload(problem.name)
        rows, trainer = cell.rows(), None
        while not lost.is_set() and (left := missing(self._sweep, rows, better=workload.better)):
            began = time.perf_counter()
            if trainer is None:
                trainer = self._trainer(problem, optimizer, [self._lane(problem, optimizer, trial) for trial in left])
            chunk = left[: trainer.lanes]
            curves = trainer.train([self._lane(problem, optimizer, trial) for trial in chunk])
            stretch = problem.steps // problem.evals
            fresh = [
                row_of(trial, curve, metric=workload.metric, better=workload.better, stretch=stretch)
                for trial, curve in zip(chunk, curves, strict=True)
            ]
            seconds = round(time.perf_counter() - began, 3)
            cell.append(fresh, loop=trainer.loop, lanes=trainer.lanes, seconds=seconds)
            rows.update({row.trial: row for row in fresh})

    def _lane(self, problem: ProblemSpec, optimizer: str, trial: Trial) -> Lane:
        point: Mapping[str, Any] = self._points(optimizer)[trial.point]
        hparams = {**point, SCHEDULE: list(SCHEDULES).index(trial.schedule)}
        return Lane(hparams, functools.partial(seed_of, self._sweep.seed, problem.name, trial.seed, 0))

    def _trainer(self, problem: ProblemSpec, optimizer: str, lanes: Sequence[Lane]) -> LaneTrainer:
        make = scheduled(OPTIMIZERS[optimizer], problem.steps)

        def trainer(loop: Loop, size: int) -> LaneTrainer:
            return LaneTrainer(
                self._workload(problem.name),
                make,
                lanes[0].hparams,
                steps=problem.steps,
                evals=problem.evals,
                lanes=size,
                loop=loop,
            )

        if problem.loop != "measure":
            return trainer(problem.loop, problem.lanes)
        if problem.name in self._ways:
            return trainer(*self._ways[problem.name])
        ways: tuple[tuple[Loop, int], ...] = (("scan", problem.lanes), ("python", problem.lanes), ("python", 1))
        best = fastest([trainer(*way) for way in ways], lanes)
        self._ways[problem.name] = best.loop, best.lanes
        return best
