"""Reads a sweep's results: `sweep.json`, `trials.csv` and `points.csv`, as docs/sweeps.md describes them."""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from timetrial.errors import UserError


class Trial(NamedTuple):
    """Which trial: names, the number of its point, its seed."""

    problem: str
    optimizer: str
    schedule: str
    point: int
    seed: int


class Outcome(NamedTuple):
    diverged: bool
    best: float
    """The best validation metric."""
    test: float
    """The test metric at that time; not a number where it was none."""


@dataclass(frozen=True)
class Problem:
    name: str
    metric: str
    better: Literal["lower", "higher"]
    scale: Literal["linear", "log"]
    initial: float
    """The validation metric before the first step, the mean over seeds."""


@dataclass(frozen=True)
class Results:
    """A sweep whose every configuration has its result."""

    name: str
    description: str
    problems: tuple[Problem, ...]
    optimizers: tuple[str, ...]
    schedules: tuple[str, ...]
    budgets: tuple[int, ...]
    reruns: int
    trials: Mapping[Trial, Outcome]
    points: Mapping[tuple[str, int], Mapping[str, float]]
    """Hyperparameters by optimizer and number."""
    about: Mapping[str, Any]
    """All that `sweep.json` holds."""

    @property
    def least(self) -> str:
        """What the smallest budget is."""
        return "the defaults" if self.budgets[0] == 1 else f"{self.budgets[0]} trials"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds by which winners are judged: those of the reruns, or where there are none the one of tuning."""
        return tuple(range(1, self.reruns + 1)) if self.reruns else (0,)

    def winner(self, problem: Problem, optimizer: str, schedule: str, budget: int) -> int:
        """The point that a budget chooses on seed 0: the best by validation, of equal ones the first."""
        sign = 1 if problem.better == "lower" else -1
        numbers = range(1) if budget == 1 else range(1, budget + 1)
        return min(
            numbers, key=lambda point: sign * self.trials[Trial(problem.name, optimizer, schedule, point, 0)].best
        )


def load_results(folder: Path) -> Results:
    """The results in `folder`; `UserError` where there are none, or where some are missing."""
    try:
        about = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
        if "problems" not in about:
            raise UserError(f"the sweep in {folder} is not complete; `timetrial sweep` with the same --out goes on")
        trials = dict(_trial(row) for row in _rows(folder / "trials.csv"))
        points = {(row["optimizer"], int(row["point"])): _hparams(row) for row in _rows(folder / "points.csv")}
        if len(trials) != about["trials"]:
            raise UserError(
                f"{folder / 'trials.csv'} has {len(trials)} trials, and {about['trials']} are said to be there"
            )
        spec = about["spec"]
        return Results(
            name=spec["name"],
            description=spec["description"],
            problems=tuple(_problem(name, known) for name, known in about["problems"].items()),
            optimizers=tuple(spec["optimizers"]),
            schedules=tuple(spec["schedules"]),
            budgets=tuple(sorted(spec["budgets"])),
            reruns=spec["reruns"],
            trials=trials,
            points=points,
            about=about,
        )
    except OSError as error:
        raise UserError(f"{folder} holds no results of a sweep: {error.strerror}: {error.filename}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} holds no readable results of a sweep: {error!r}") from None


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _trial(row: Mapping[str, str]) -> tuple[Trial, Outcome]:
    trial = Trial(row["problem"], row["optimizer"], row["schedule"], int(row["point"]), int(row["seed"]))
    return trial, Outcome(row["status"] == "diverged", float(row["best"]), float(row["test"]))


def _hparams(row: Mapping[str, str]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name not in ("optimizer", "point") and value}


def _problem(name: str, known: Mapping[str, Any]) -> Problem:
    initial = list(known["initial"].values())
    return Problem(name, known["metric"], known["better"], known["scale"], math.fsum(initial) / len(initial))
