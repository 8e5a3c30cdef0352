"""How far a board's conclusions depend on one workload, on one submission, or on the spacing of the evals."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from timetrial_scoring.board import Floats
from timetrial_scoring.profiles import Structure

Scorer = Callable[[Floats, Structure], Floats]
"""From (…, S, W, K) times to (…, S) scores: `score_from_times`, or another rule."""


class Flip(NamedTuple):
    """A conclusion that turns around when one workload or submission is left out."""

    left_out: str
    kind: Literal["workload", "submission"]
    ahead: str
    """Ahead on the whole board, behind without what is left out."""
    behind: str
    first: bool
    """Whether it changes who is first."""

    def __str__(self) -> str:
        who = f"{self.behind} is ahead of {self.ahead}"
        return f"without {self.kind} {self.left_out}: {who}" + (", and first" if self.first else "")


def leave_one_out(times_swk: Floats, names: Sequence[str], structure: Structure, scorer: Scorer) -> list[Flip]:
    """All orders of two submissions that turn around, those at the top first."""
    whole = scorer(times_swk, structure)
    flips: list[Flip] = []
    for base in structure.base_names:
        rest, kept = structure.without(base)
        if rest.workloads:
            flips += _flips(base, "workload", names, whole, scorer(times_swk[:, kept], rest))
    for s, name in enumerate(names):
        others = [i for i in range(len(names)) if i != s]
        if len(others) > 1:
            without = scorer(times_swk[others], structure)
            flips += _flips(name, "submission", [names[i] for i in others], whole[others], without)
    rank = {name: position for position, name in enumerate(sorted(names, key=lambda n: -whole[list(names).index(n)]))}
    return sorted(flips, key=lambda flip: (not flip.first, rank[flip.ahead]))


def _flips(
    left_out: str, kind: Literal["workload", "submission"], names: Sequence[str], whole: Floats, without: Floats
) -> list[Flip]:
    tolerance = 1e-12
    ahead_before = whole[:, None] > whole[None, :] + tolerance
    behind_after = without[:, None] < without[None, :] - tolerance
    first = float(without.max()) - tolerance
    return [
        Flip(left_out, kind, names[a], names[b], bool(without[b] >= first and whole[a] >= whole.max() - tolerance))
        for a, b in np.argwhere(ahead_before & behind_after).tolist()
    ]


class Range(NamedTuple):
    low: float
    high: float


def eval_grid_ranges(charge_swk: Floats, before_swk: Floats, structure: Structure, scorer: Scorer) -> list[Range]:
    """How far each score can move when every crossing may lie anywhere between its eval and the one before.

    Lowest: one's own times at their latest, the others' at their earliest; highest: the reverse. (Short of the case
    that a competitor's earlier time on a variant disqualifies another, which alone could carry a score further.)
    """
    own = np.eye(len(charge_swk), dtype=np.bool_)[:, :, None, None]
    low = scorer(np.where(own, charge_swk, before_swk), structure)
    high = scorer(np.where(own, before_swk, charge_swk), structure)
    return [Range(float(low[s, s]), float(high[s, s])) for s in range(len(charge_swk))]
