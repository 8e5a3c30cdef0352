"""Puts what a board supports beside its point estimates: intervals, claimed ranks, and why there are none."""

from dataclasses import replace

from timetrial_scoring.score import Board, Standing

SEED = 0
"""The draws of a board are a function of its times alone: scoring twice gives the same intervals."""
DRAWS = 2000


def with_claims(board: Board) -> Board:
    """The board with its `assessment`, and with the lines of its leaderboard filled in. Imports scipy.

    A board in published mode stays as it is: what is assessed are exact scores.
    """
    from timetrial_scoring.uncertainty import assess

    if not board.ranked or board.mode == "published":
        return board
    names = list(board.names)
    reference = names.index(board.reference) if board.reference in names else None
    found = assess(board.times_swk, board.times.budgets, board.structure, seed=SEED, draws=DRAWS, reference=reference)

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
