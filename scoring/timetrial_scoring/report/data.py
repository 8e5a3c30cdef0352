"""What a report shows, as plain values that JSON can hold. Every number comes from the functions behind `score`."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from timetrial_scoring import compare, profiles, render, tables
from timetrial_scoring.report.curves import curves, shorten, shortened
from timetrial_scoring.report.environment import environment
from timetrial_scoring.score import Board, Result
from timetrial_scoring.times import target_of
from timetrial_scoring.uncertainty import LEVEL

WIDE = 10.0
"""A hyperparameter whose positive values span this factor gets a logarithmic axis: records hold no search space."""


def report_data(result: Result) -> dict[str, Any]:
    """All that page and figures show. Null: never reached, not known, or no claim made."""
    scores = tables.to_json(result)
    return {
        **{key: scores[key] for key in ("ruleset", "clock", "mode")},
        "unit": tables.UNITS[result.ruleset.clock],
        "tau_max": profiles.TAU_MAX,
        "level": LEVEL,
        "boards": [_board(board) for board in result.boards],
        "findings": [tables.finding_json(render.relative(finding, result.runs.root)) for finding in result.findings],
        "environment": environment(result),
    }


def _board(board: Board) -> dict[str, Any]:
    order = [line.submission for line in board.standings]
    times = [{key: value for key, value in row.items() if key != "studies"} for row in tables.times_json(board)]
    times.sort(key=lambda row: order.index(row["submission"]))
    earns = tables.counted(board)
    names = board.structure.workloads
    for row in times:
        row["earns"] = bool(earns[board.grid.submissions.index(row["submission"]), names.index(row["workload"])])
    return {
        "tuning": board.grid.tuning,
        "studies": board.grid.studies,
        "reference": board.reference,
        "submissions": order,
        "workloads": [{"name": name, "base": names[board.structure.base_of[w]]} for w, name in enumerate(names)],
        "leaderboard": [tables.standing_json(board, line) for line in board.standings],
        "notes": tables.leaderboard(board).notes,
        "reasons": {} if board.assessment is None else board.assessment.reasons,
        "profiles": _profiles(board),
        "ecdf": _runtime_distributions(board),
        "times": times,
        "has_spread": tables.has_spread(board),
        "curves": curves(board, order),
        "tuning_points": _tuning_points(board, order),
        "separation": _separation(board, order),
        "flips": [str(flip) for flip in board.flips],
    }


def _profiles(board: Board) -> list[dict[str, Any]]:
    """The steps of each ranked submission's profile: from each tau on, its share of the base workloads."""
    lines: list[dict[str, Any]] = []
    for line in board.standings:
        if line.score is not None:
            s = board.names.index(line.submission)
            ratios = board.ratios_sb[s]
            tau = np.unique([1.0, *ratios[ratios <= profiles.TAU_MAX]])
            share = profiles.profile(board.ratios_sb[s : s + 1], tau)[0]
            lines.append({"submission": line.submission, "tau": tau.tolist(), "share": share.tolist()})
    return lines


def _runtime_distributions(board: Board) -> list[dict[str, Any]]:
    """The steps of each submission's run-time ECDF: from each share of the budget on, its share of what is to be met.

    Empty where the ruleset has no milestones.
    """
    lines: list[dict[str, Any]] = []
    for submission, shares in (tables.runtime_shares(board) or {}).items():
        met = np.array([share for share in shares if share is not None], np.float64)
        budget, counts = np.unique(met, return_counts=True)
        share = np.cumsum(counts) / len(shares)
        lines.append({"submission": submission, "budget": [0, *shortened(budget)], "share": [0, *shortened(share)]})
    return lines


def _separation(board: Board, order: list[str]) -> dict[str, Any] | None:
    """Which row is faster than which column, and the p-values; the ranked submissions in the order of the board."""
    separation = None if board.assessment is None else board.assessment.separation
    if separation is None:
        return None
    ranked = [name for name in order if name in board.names]
    index = np.ix_(*[[board.names.index(name) for name in ranked]] * 2)
    return {
        "submissions": ranked,
        "faster": separation.faster[index].tolist(),
        "p_value": separation.p_value[index].tolist(),
    }


def _tuning_points(board: Board, order: list[str]) -> dict[str, Any]:
    """Each trial's charge at the target, best value, and values of the hyperparameters that some submission varied."""
    times = board.times
    trials = [
        (trial, crossing, {name: _scalar(value) for name, value in trial.hparams.items()})
        for cell, found in board.grid.cells.items()
        for trial, crossing in zip(found, times.crossings[cell], strict=True)
        if trial.hparams is not None
    ]
    values: dict[str, dict[str, set[Any]]] = {}
    for trial, _, hparams in trials:
        for name, value in hparams.items():
            values.setdefault(name, {}).setdefault(trial.submission, set()).add(value)
    varied = {name: by for name, by in values.items() if any(len(seen) > 1 for seen in by.values())}
    names = sorted(varied, key=lambda name: (-len(varied[name]), name))
    points: list[dict[str, Any]] = []
    for trial, crossing, hparams in trials:
        target = target_of(board.grid, trial)
        points.append(
            {
                "s": order.index(trial.submission),
                "w": times.structure.workloads.index(trial.workload),
                "study": trial.study,
                "trial": trial.trial,
                "charge": shorten(crossing.charge),
                "metric": None if target is None else shorten(compare.best_value(trial, target)),
                "values": [hparams.get(name) for name in names],
            }
        )
    points.sort(key=lambda point: (point["s"], point["w"], point["study"], point["trial"]))
    return {
        "names": names,
        "log": [_spans_decades(set[Any]().union(*varied[name].values())) for name in names],
        "points": points if names else [],
    }


def _scalar(value: Any) -> str | bool | float | None:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return shorten(value)
    return json.dumps(value, sort_keys=True)


def _spans_decades(values: set[Any]) -> bool:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return bool(numbers) and min(numbers) > 0 and max(numbers) / min(numbers) >= WIDE


def flat_rows(board: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The same numbers, one table for each figure, as its CSV holds them."""
    names, workloads = board["submissions"], [workload["name"] for workload in board["workloads"]]
    separation = board["separation"]
    tuning = board["tuning_points"]
    return {
        "leaderboard": [render.flat_standing(line) for line in board["leaderboard"]],
        "profiles": [
            {"submission": line["submission"], "tau": tau, "share": share}
            for line in board["profiles"]
            for tau, share in zip(line["tau"], line["share"], strict=True)
        ],
        "ecdf": [
            {"submission": line["submission"], "budget": budget, "share": share}
            for line in board["ecdf"]
            for budget, share in zip(line["budget"], line["share"], strict=True)
        ],
        "times": [
            {**{k: v for k, v in row.items() if k != "spread"}, **{f"spread_{k}": v for k, v in row["spread"].items()}}
            for row in board["times"]
        ],
        "curves": [
            {
                "workload": chart["workload"],
                "submission": names[line["s"]],
                **{key: line[key] for key in ("study", "trial", "best")},
                "charge": x,
                "metric": chart["metric"],
                "value": y,
            }
            for chart in board["curves"]
            for line in chart["trials"]
            for x, y in zip(line["x"], line["y"], strict=True)
        ],
        "tuning": [
            {
                "submission": names[point["s"]],
                "workload": workloads[point["w"]],
                **{key: point[key] for key in ("study", "trial", "charge", "metric")},
                **{f"hparam_{name}": value for name, value in zip(tuning["names"], point["values"], strict=True)},
            }
            for point in tuning["points"]
        ],
        "separation": []
        if separation is None
        else [
            {"submission": one, "other": other, "faster": faster, "p_value": p}
            for one, row, ps in zip(separation["submissions"], separation["faster"], separation["p_value"], strict=True)
            for other, faster, p in zip(separation["submissions"], row, ps, strict=True)
            if one != other
        ],
    }
