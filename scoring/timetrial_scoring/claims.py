<<<<<<< HEAD
"""A scored board with what its data support: fills the intervals and probabilities of the leaderboard's lines."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from timetrial_scoring.score import Board, Standing
from timetrial_scoring.uncertainty import Assessment, assess

SEED = 0
"""Of the draws and sign flips, so that the same runs always give the same intervals."""


def with_claims(board: Board) -> tuple[Board, Assessment | None]:
    """The board, its standings completed, and all that was assessed; None where nothing is ranked.

    AlgoPerf's procedure has no uncertainty: a board in published mode makes no claim either.
    """
    if not board.ranked or board.mode == "published":
        return board, None
    reference = None if board.reference is None else board.names.index(board.reference)
    assessment = assess(board.times_swk, board.times.budgets, board.structure, seed=SEED, reference=reference)

    def complete(line: Standing) -> Standing:
        if line.score is None:
            return line
        s = board.names.index(line.submission)
        return replace(
            line,
            score_ci=_pair(assessment.score_ci, s, float),
            rank_ci=_pair(assessment.rank_ci, s, int),
            p_first=None if assessment.p_first is None else float(assessment.p_first[s]),
            speedup_ci=_pair(assessment.speedup_ci, s, float),
        )

    return board.with_standings(complete), assessment


def _pair(intervals: Any, s: int, kind: Callable[[Any], Any]) -> Any:
    return None if intervals is None else (kind(intervals[s][0]), kind(intervals[s][1]))
=======
"""Puts what a board supports beside its point estimates: intervals, claimed ranks, and why there are none."""

from dataclasses import replace

from timetrial_scoring.score import Board, Standing

SEED = 0
"""The draws of a board are a function of its times alone: scoring twice gives the same intervals."""
DRAWS = 2000


def with_claims(board: Board) -> Board:
    """The board with its `assessment`, and with the lines of its leaderboard filled in. Imports scipy."""
    from timetrial_scoring.uncertainty import assess

    if not board.ranked:
        return board
    names = list(board.names)
    reference = names.index(board.reference) if board.reference in names else None
    found = assess(
        board.times_swk, board.times.budgets, board.structure, seed=SEED, draws=DRAWS, reference=reference
    )

    def filled(line: Standing) -> Standing:
        if line.submission not in names:
            return line
        s = names.index(line.submission)
        return replace(
            line,
            score_ci=None if found.score_ci is None else (float(found.score_ci[s, 0]), float(found.score_ci[s, 1])),
            rank_ci=None if found.rank_ci is None else (int(found.rank_ci[s, 0]), int(found.rank_ci[s, 1])),
            p_first=None if found.p_first is None else float(found.p_first[s]),
            speedup_ci=(
                None if found.speedup_ci is None else (float(found.speedup_ci[s, 0]), float(found.speedup_ci[s, 1]))
            ),
        )

    return replace(board.with_standings(filled), assessment=found)
>>>>>>> main
