"""What a result says, as tables and as JSON. How they look is `render`'s business."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeGuard

import numpy as np

from timetrial_scoring import compare, profiles
from timetrial_scoring.board import Finding
from timetrial_scoring.score import Board, Result, Standing, mode_differences
from timetrial_scoring.times import Times

SCHEMA = 1
UNITS = {"seconds": "s", "steps": "steps", "examples": "examples"}
_TITLES = {"seconds": "Time to target", "steps": "Steps to target", "examples": "Data efficiency: examples to target"}
_TUNING = {"external": "external tuning", "self": "self-tuning"}


@dataclass(frozen=True)
class Table:
    title: str
    columns: Sequence[str]
    """Headings; a part in square brackets at the end is the unit."""
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def leaderboard(board: Board) -> Table:
    """Ranked by score; columns that no submission has a value for are left out."""
    columns = ["rank", "submission", "score", "95 % interval", "ranks", "P(first)", "eval grid", "anchored score"]
    columns += [f"speed-up on {board.reference}"]
    rows = [_standing(line) for line in board.standings]
    kept = [i for i in range(len(columns)) if i < 3 or any(row[i] for row in rows)]
    notes = [
        f"{line.submission} is not ranked: {line.unranked}" for line in board.standings if line.unranked is not None
    ]
    notes += [f"its seconds are not comparable (--allow-mixed): {caveat}" for caveat in board.caveats]
    if any(row[6] for row in rows):
        notes.append("eval grid: how far the score can move, as a target is crossed somewhere between two evals")
    if any(row[8] for row in rows):
        notes.append("speed-up: geometric mean over base workloads, each at most 4 x; (n) is how many both reached")
    notes += _claims(board)
    title = f"Leaderboard: {_heading(board)}, {board.mode} mode"
    return Table(title, [columns[i] for i in kept], [[row[i] for i in kept] for row in rows], notes)


def _claims(board: Board) -> list[str]:
    """What the data support beyond the order of the scores, in words."""
    found = board.assessment
    if found is None:
        return []
    notes: list[str] = []
    if found.score_ci is not None:
        given = ", given the tuning points" if any(t.recorded is None for t in board.grid.trials()) else ""
        notes.append(f"95 % interval: of the score that infinitely many studies would give{given}; ranks: as claimed")
    if found.separation is not None:
        names = board.names
        faster = [
            f"{names[i]} over {', '.join(names[j] for j in np.flatnonzero(found.separation.faster[i]))}"
            for i in found.order
            if found.separation.faster[i].any()
        ]
        claimed = f"faster, at 5 % over all pairs: {'; '.join(faster)}" if faster else "no order is claimed: tied"
        notes.append(claimed)
    notes += [f"no {_REASONED[field]}: {reason}" for field, reason in found.reasons.items()]
    return notes


_REASONED = {
    "separation": "order claims",
    "score_ci": "intervals of the score",
    "study_bootstrap_ci": "bootstrap over studies",
}


def _heading(board: Board) -> str:
    charged = "" if board.times.clock == "seconds" else f", charged in {board.times.clock}"
    return f"{board.grid.ruleset.name}, {_TUNING[board.grid.tuning]}{charged}"


def _standing(line: Standing) -> list[str]:
    speedup = line.speedup
    faster = "" if speedup is None else f"{speedup.factor:.2f} x ({speedup.workloads})"
    if line.speedup_ci is not None:
        faster += f" [{line.speedup_ci[0]:.2f}, {line.speedup_ci[1]:.2f}]"
    return [
        "-" if line.rank is None else str(line.rank),
        line.submission,
        "-" if line.score is None else f"{line.score:.4f}",
        "" if line.score_ci is None else f"{line.score_ci[0]:.3f} - {line.score_ci[1]:.3f}",
        "" if line.rank_ci is None else f"{line.rank_ci[0]} - {line.rank_ci[1]}",
        "" if line.p_first is None else f"{line.p_first:.2f}",
        "" if line.eval_grid is None else f"{line.eval_grid.low:.3f} - {line.eval_grid.high:.3f}",
        "" if line.anchored is None else f"{line.anchored:.4f}",
        faster,
    ]


def times_to_target(board: Board) -> list[Table]:
    """Submissions x workloads by the charged clock; on a board not charged in seconds, the seconds as well."""
    clock = board.times.clock
    studies = board.grid.studies
    over = "one study" if studies == 1 else f"median over {studies} studies"
    title = f"{_TITLES[clock]} [{UNITS[clock]}]: {_heading(board)}, {over}"
    notes = ["* the best; (…) reached, but earns nothing (over 4 x the best, or base or variant not reached)"]
    tables = [_clock_table(board, clock, title, notes)]
    if clock != "seconds":
        tables.append(_clock_table(board, "seconds", "Charged seconds of the same trials [s]; they do not rank", []))
    return tables


def _clock_table(board: Board, clock: str, title: str, notes: Sequence[str]) -> Table:
    values = compare.medians(board.times)[clock]
    if clock == board.times.clock:
        values[list(board.ranked)] = board.medians_sw
    best = values[list(board.ranked)].min(axis=0, initial=np.inf)
    earns = counted(board)
    rows: list[list[str]] = []
    for s in _best_first(board):
        cells: list[str] = []
        for w, value in enumerate(values[s]):
            text = "never" if math.isinf(value) else number(value)
            if clock == board.times.clock:
                text += "*" if value == best[w] < np.inf else ""
                text = f"({text})" if math.isfinite(value) and not earns[s, w] else text
                text += "" if text[-1] in "*)" else " "
            cells.append(text)
        rows.append([board.grid.submissions[s], *cells])
    names = board.structure.workloads
    return Table(title, ["submission", *(f"{name} [{UNITS[clock]}]" for name in names)], rows, notes)


def _best_first(board: Board) -> list[int]:
    """The grid's positions of all submissions, in the order of the leaderboard."""
    return [board.grid.submissions.index(line.submission) for line in board.standings]


def clocks_table(board: Board) -> Table:
    """What the median study spent by each of the three clocks; one row for each workload and submission."""
    middle = compare.medians(board.times)
    rows: list[list[str]] = []
    for w, workload in enumerate(board.structure.workloads):
        for s in _best_first(board):
            spent = [float(middle[clock][s, w]) for clock in UNITS]
            cells = ("never" if math.isinf(value) else number(value) for value in spent)
            rows.append([board.grid.submissions[s], workload, *cells])
    title = f"Three clocks side by side, of the median study: {_heading(board)}"
    return Table(title, ["submission", "workload", *UNITS], rows)


def counted(board: Board) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """(S, W): whether a time earns anything, for a variant: lets its base earn something."""
    base_position = {int(w): b for b, w in enumerate(board.structure.bases)}
    columns = [base_position[base] for base in board.structure.base_of]
    counted = np.zeros(board.times.charge.shape[:2], np.bool_)
    if board.ranked:
        counted[list(board.ranked)] = np.isfinite(board.ratios_sb)[:, columns]
    return counted


def number(value: float) -> str:
    return "?" if math.isnan(value) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def has_spread(board: Board) -> bool:
    """Whether some study has more than one trial, so that its hyperparameters matter."""
    return any(len(trials) > 1 for trials in board.grid.cells.values())


def spread_table(board: Board) -> Table:
    """Hyperparameter sensitivity: how many trials reached the target, and how much slower the slowest of them was."""
    rows: list[list[str]] = []
    for s in _best_first(board):
        cells: list[str] = []
        for w in range(len(board.structure.workloads)):
            spread = compare.spread(board.times, s, w)
            wide = f", {spread.slowest / spread.fastest:.2f} x" if spread.reached > 1 and spread.fastest > 0 else ""
            cells.append(f"{spread.reached}/{spread.trials}{wide}")
        rows.append([board.grid.submissions[s], *cells])
    title = f"Sensitivity to hyperparameters: {_heading(board)}"
    notes = ["n/m: n of the m trials of all studies reached the target; x: the slowest of those n over the fastest"]
    return Table(title, ["submission", *board.structure.workloads], rows, notes)


def differences(board: Board) -> Table:
    """From the published score to the exact one, a rule at a time."""
    steps = mode_differences(board.grid)
    columns = ["submission", *steps]
    rows = [[n, *(f"{steps[label][n]:.4f}" for label in steps)] for n in (line.submission for line in board.standings)]
    notes = ["each column changes one more rule; docs/scoring.md says why"]
    return Table("What differs between the published and the exact mode", columns, rows, notes)


def to_json(result: Result) -> dict[str, Any]:
    """All of it, as docs/scoring.md describes: schema 1. Null stands for never reached, not known, or no claim made."""
    rules = result.ruleset
    return {
        "schema": SCHEMA,
        "kind": "scores",
        "ruleset": {
            "name": rules.name,
            "version": rules.version,
            "sha256": rules.sha256,
            "modified": rules.modified,
        },
        "clock": rules.clock,
        "mode": result.mode,
        "leaderboard": [standing_json(board, line) for board in result.boards for line in board.standings],
        "times": [row for board in result.boards for row in times_json(board)],
        "runtime_distributions": [
            {"tuning": board.grid.tuning, "shares": shares}
            for board in result.boards
            if (shares := runtime_shares(board)) is not None
        ],
        "claims": [_claims_json(board) for board in result.boards if board.assessment is not None],
        "flips": [{"tuning": b.grid.tuning, **flip._asdict()} for b in result.boards for flip in b.flips],
        "findings": [finding_json(finding) for finding in result.findings],
    }


def standing_json(board: Board, line: Standing) -> dict[str, Any]:
    return {
        "tuning": board.grid.tuning,
        "submission": line.submission,
        "rank": line.rank,
        "score": line.score,
        "score_ci": line.score_ci,
        "rank_ci": line.rank_ci,
        "p_first": line.p_first,
        "eval_grid": line.eval_grid,
        "anchored": line.anchored,
        "speedup": None if line.speedup is None else line.speedup._asdict(),
        "speedup_ci": line.speedup_ci,
        "unranked": line.unranked,
    }


def _claims_json(board: Board) -> dict[str, Any]:
    found = board.assessment
    assert found is not None
    names = board.names

    def by_name(values: Any) -> dict[str, Any] | None:
        return None if values is None else dict(zip(names, values.tolist(), strict=True))

    pairs = None
    if found.separation is not None:
        pairs = [
            {"faster": names[i], "slower": names[j], "p_value": float(found.separation.p_value[i, j])}
            for i, j in zip(*np.nonzero(found.separation.faster), strict=True)
        ]
    adjacent = None
    if found.p_adjacent is not None:
        adjacent = [
            {"ahead": names[i], "behind": names[j], "probability": float(p)}
            for (i, j), p in zip(pairwise(found.order.tolist()), found.p_adjacent, strict=True)
        ]
    return {
        "tuning": board.grid.tuning,
        "separated": pairs,
        "tied": None if found.tied is None else [[names[s] for s in group] for group in found.tied],
        "p_adjacent": adjacent,
        "study_bootstrap_ci": by_name(found.study_bootstrap_ci),
        "workload_bootstrap_ci": by_name(found.workload_bootstrap_ci),
        "reasons": found.reasons,
    }


def finding_json(finding: Finding) -> dict[str, Any]:
    return {"kind": finding.kind, "message": finding.message, "file": finding.file, "line": finding.line}


def times_json(board: Board) -> list[dict[str, Any]]:
    """One row for each submission and workload."""
    times, structure = board.times, board.structure
    middle = compare.medians(times)
    position = {s: i for i, s in enumerate(board.ranked)}
    credit_sb = profiles.credits(board.ratios_sb)
    best = board.medians_sw.min(axis=0, initial=np.inf)
    base_position = {int(w): b for b, w in enumerate(structure.bases)}
    rows: list[dict[str, Any]] = []
    for s, name in enumerate(board.grid.submissions):
        for w, workload in enumerate(structure.workloads):
            i, b = position.get(s), base_position.get(w)
            reached = 0 < best[w] < np.inf
            row: dict[str, Any] = {
                "tuning": board.grid.tuning,
                "submission": name,
                "workload": workload,
                "variant_of": None if b is not None else structure.workloads[structure.base_of[w]],
                **{clock: _plain(values[s, w]) for clock, values in middle.items()},
                "ratio": None if i is None else _plain(board.medians_sw[i, w] / best[w]) if reached else None,
                "credit": None if i is None or b is None else float(credit_sb[i, b]),
                "spread": {key: _plain(value) for key, value in compare.spread(times, s, w)._asdict().items()},
                "studies": [_study_json(times, s, w, k) for k in range(times.charge.shape[-1])],
            }
            rows.append(row)
    return rows


def runtime_shares(board: Board) -> dict[str, list[float | None]] | None:
    """For each submission, best first, the sorted shares of the budget at which milestones were met; None for never."""
    shares = compare.runtime_distribution(board.grid, board.times)
    if shares is None:
        return None
    return {line.submission: [_plain(share) for share in shares[line.submission]] for line in board.standings}


def _study_json(times: Times, s: int, w: int, k: int) -> dict[str, Any]:
    chosen = times.chosen.get((s, w, k))
    clocks = ("charge", "charge_before", "seconds", "steps", "examples")
    return {
        "study": k,
        "present": bool(times.present[s, w, k]),
        "trial": None if chosen is None else chosen.trial,
        "source": None if chosen is None else str(chosen.source),
        **{name: _plain(getattr(times, name)[s, w, k]) for name in clocks},
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, int) else float(value) if _is_finite(value) else None


def _is_finite(value: Any) -> TypeGuard[float]:
    return math.isfinite(value)
