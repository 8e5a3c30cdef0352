"""How far texts are from those that were meant."""

from collections.abc import Sequence


def edit_distance(said: Sequence[str], meant: Sequence[str]) -> int:
    """The fewest insertions, deletions and substitutions that turn one into the other (Levenshtein)."""
    distances = list(range(len(meant) + 1))
    for i, heard in enumerate(said, 1):
        diagonal, distances[0] = distances[0], i
        for j, true in enumerate(meant, 1):
            substituted = diagonal + (heard != true)
            diagonal, distances[j] = distances[j], min(distances[j] + 1, distances[j - 1] + 1, substituted)
    return distances[-1]


def word_error_rate(said: Sequence[str], meant: Sequence[str]) -> float:
    """Edits of words in all texts, for each word that was meant; NaN where none was."""
    pairs = [(s.split(), m.split()) for s, m in zip(said, meant, strict=True)]
    words = sum(len(m) for _, m in pairs)
    return sum(edit_distance(s, m) for s, m in pairs) / words if words else float("nan")
