"""Training curves of a board, thinned to what a screen can show."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from timetrial.target import Target
from timetrial_scoring.board import Floats
from timetrial_scoring.compare import median_study, representative
from timetrial_scoring.score import Board
from timetrial_scoring.times import target_curve, target_of

POINTS = 200
"""Most points of the curve that stands for a submission."""
THIN_POINTS = 48
"""Most points of any other."""
_SHOWN = 0.85
"""The share of the best curves' points that the heights of a chart take in; the others are how training began."""


def curves(board: Board, order: list[str]) -> list[dict[str, Any]]:
    """For each workload the validation curves of the target's metric over the charged clock.

    `best` marks the trial that stands for its submission: of the median study, whose time is the one on the board, the
    fastest trial or, where none reached the target, the one that came nearest. `s` is the position in `order`.
    """
    grid, times = board.grid, board.times
    middle = median_study(times)
    found: list[dict[str, Any]] = []
    for w, workload in enumerate(times.structure.workloads):
        lines: list[dict[str, Any]] = []
        target = grid.ruleset.workloads[workload].target
        for (s, at, k), trials in grid.cells.items():
            if at != w:
                continue
            best = representative(grid, times, (s, w, k)) if middle[s, w] == k else None
            for trial, crossing in zip(trials, times.crossings[s, w, k], strict=True):
                goal = target_of(grid, trial)
                values = None if goal is None else target_curve(trial, goal)
                charge = trial.charge(times.clock)
                if goal is None or values is None or charge is None:
                    continue
                target = target or goal
                reached = crossing.eval_index
                limit = POINTS if trial is best else THIN_POINTS
                kept = decimate(values[: len(charge)], limit, [reached] if reached >= 0 else [])
                lines.append(
                    {
                        "s": order.index(trial.submission),
                        "study": trial.study,
                        "trial": trial.trial,
                        "best": trial is best,
                        "x": shortened(charge[kept]),
                        "y": shortened(values[kept]),
                        "crossing": None if reached < 0 else shortened([crossing.charge, values[reached]]),
                    }
                )
        lines.sort(key=lambda line: (line["s"], line["study"], line["trial"]))
        found.append(
            {
                "workload": workload,
                "metric": None if target is None else target.metric,
                "better": None if target is None else target.better,
                "target": None if target is None else target.value,
                "budget": grid.budget(workload),
                "range": None if target is None else shortened(heights(lines, target)),
                "trials": lines,
            }
        )
    return found


def heights(lines: Sequence[Mapping[str, Any]], target: Target) -> tuple[float, float]:
    """What is worth showing of the metric: from the best value to one that the best curves rarely exceed."""
    sign = 1.0 if target.better == "lower" else -1.0
    values = sorted(sign * y for line in lines if line["best"] for y in line["y"] if y is not None)
    goal = sign * target.value
    best = min([*values[:1], goal])
    usual = values[int(_SHOWN * len(values))] if values else goal
    worst = max(usual, goal + (goal - best) / 2)
    pad = (worst - best) / 25 or abs(goal) / 25 or 1.0
    low, high = sorted((sign * (best - pad), sign * (worst + pad)))
    return low, high


def decimate(values: Floats, limit: int, keep: Iterable[int] = ()) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    """At most `limit` indices, ascending: the ends, `keep`, and the lowest and highest value of each equal stretch.

    So no spike is lost, and a stretch that is all NaN keeps one.
    """
    if values.size <= limit:
        return np.arange(values.size)
    kept = {0, values.size - 1, *keep}
    edges = np.linspace(0, values.size, (limit - len(kept)) // 2 + 1).astype(np.intp)
    for start, stop in pairwise(edges):
        stretch = values[start:stop]
        if np.isnan(stretch).all():
            kept.add(int(start))
        else:
            kept |= {int(start + np.nanargmin(stretch)), int(start + np.nanargmax(stretch))}
    return np.array(sorted(kept), np.intp)


def shortened(values: Iterable[float]) -> list[float | int | None]:
    """To four significant digits, which is finer than a screen; None for what is not finite."""
    return [shorten(value) for value in values]


def shorten(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() else rounded
