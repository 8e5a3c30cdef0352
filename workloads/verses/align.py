"""Which clauses of a verse translate which: by their lengths (Gale & Church 1993, "A program for aligning sentences").

Long clauses become long ones. A verse's clauses are matched in order, in groups of at most three to one or two to two;
of all ways to do so the cheapest is taken. Costs are whole numbers, so that every machine finds the same one.
"""

from collections.abc import Sequence

Clause = Sequence[str]
"""A clause's words."""

GROUPS = {(1, 1): 0, (1, 2): 60, (2, 1): 60, (2, 2): 120, (1, 3): 140, (3, 1): 140, (1, 0): 200, (0, 1): 200}
"""How many clauses of each side may form a pair, and what that costs."""


def align(source: Sequence[Clause], target: Sequence[Clause]) -> list[tuple[list[str], list[str]]]:
    """The pairs of a verse in order, each the words of its source and of its target; a side may be empty.

    Every clause is in exactly one pair, and none changes its place.
    """
    best: dict[tuple[int, int], tuple[int, tuple[int, int]]] = {(0, 0): (0, (0, 0))}
    for i in range(len(source) + 1):
        for j in range(len(target) + 1):
            if (i, j) not in best:
                continue
            for (m, n), penalty in GROUPS.items():
                end = (i + m, j + n)
                if end[0] > len(source) or end[1] > len(target):
                    continue
                cost = best[i, j][0] + penalty
                if m and n:
                    cost += _difference(source[i : end[0]], target[j : end[1]])
                if end not in best or cost < best[end][0]:
                    best[end] = (cost, (i, j))
    pairs: list[tuple[list[str], list[str]]] = []
    end = (len(source), len(target))
    while end != (0, 0):
        begin = best[end][1]
        pairs.append((_join(source[begin[0] : end[0]]), _join(target[begin[1] : end[1]])))
        end = begin
    return pairs[::-1]


def _difference(source: Sequence[Clause], target: Sequence[Clause]) -> int:
    """The cost of lengths s and t in letters: their difference squared, over their sum (its variance grows with it)."""
    s, t = (sum(len(word) + 1 for clause in side for word in clause) for side in (source, target))
    return 50 * (s - t) ** 2 // (3 * (s + t))


def _join(clauses: Sequence[Clause]) -> list[str]:
    return [word for clause in clauses for word in clause]
