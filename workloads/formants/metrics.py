"""From a network's classes to text, and how far that is from what was said."""

from collections.abc import Iterable, Sequence

import numpy as np


def decode(path: np.ndarray, symbols: str) -> str:
    """The text of a path of classes, one a frame: repetitions merged, then blanks (class `len(symbols)`) dropped.

    Greedy decoding (Graves et al. 2006, section 3.2). Words stand one space apart.
    """
    merged = path[np.append(True, path[1:] != path[:-1])]
    return spell(merged[merged < len(symbols)], symbols)


def spell(codes: Iterable[int], symbols: str) -> str:
    """The text of codes of symbols, its words one space apart."""
    return " ".join("".join(symbols[code] for code in codes).split())


def edit_distance(said: Sequence[str], meant: Sequence[str]) -> int:
    """The fewest insertions, deletions and substitutions that turn one into the other (Levenshtein)."""
    distances = list(range(len(meant) + 1))
    for i, heard in enumerate(said, 1):
        diagonal, distances[0] = distances[0], i
        for j, true in enumerate(meant, 1):
            diagonal, distances[j] = (
                distances[j],
                min(distances[j] + 1, distances[j - 1] + 1, diagonal + (heard != true)),
            )
    return distances[-1]


def error_rates(said: Sequence[str], meant: Sequence[str]) -> dict[str, float]:
    """Word and character error rates (`wer`, `cer`): edits in all texts, for each word or character that was meant."""
    pairs = list(zip(said, meant, strict=True))
    word_edits = sum(edit_distance(s.split(), m.split()) for s, m in pairs)
    character_edits = sum(edit_distance(s, m) for s, m in pairs)
    words, characters = sum(len(m.split()) for m in meant), sum(map(len, meant))
    return {"wer": word_edits / words, "cer": character_edits / characters}
