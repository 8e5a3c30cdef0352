"""Words as sequences of pieces: byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909) over letters.

A piece that begins a word carries a mark before its letters, so that pieces join to words again. The pieces in use are
committed beside this module, in the order in which they were learnt: whoever scores a translation needs them, and may
have no data.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

MARK = "_"
PAD, START, END = 0, 1, 2
"""Codes that stand for no piece; piece i has the code FIRST + i."""
FIRST = 3
PIECES = tuple((Path(__file__).parent / "pieces.txt").read_text(encoding="utf-8").split())
CODE_OF = {piece: FIRST + i for i, piece in enumerate(PIECES)}
SYMBOLS = FIRST + len(PIECES)


def learn(counts: Mapping[str, int], size: int) -> list[str]:
    """The first `size` pieces of words that occur so often: all letters, then what neighbours form most often.

    Among equally frequent ones the last in alphabetical order is taken.
    """
    letters = sorted(set("".join(counts)))
    pieces = letters + [MARK + letter for letter in letters]
    known = set(pieces)
    words = [_letters(word) for word in counts]
    times = list(counts.values())
    frequency: Counter[str] = Counter()
    holders: defaultdict[str, set[int]] = defaultdict(set)

    def count(i: int, sign: int) -> None:
        for left, right in pairwise(words[i]):
            frequency[left + right] += sign * times[i]
            holders[left + right].add(i)

    for i in range(len(words)):
        count(i, 1)
    while len(pieces) < size and any(frequency.values()):
        piece = max(frequency.items(), key=lambda item: (item[1], item[0]))[0]
        if piece not in known:
            known.add(piece)
            pieces.append(piece)
        for i in sorted(holders.pop(piece)):
            count(i, -1)
            words[i] = _merge(words[i], piece)
            count(i, 1)
        del frequency[piece]
    return pieces


def encode(word: str) -> list[int]:
    """The codes of a word's pieces: neighbours are joined, those first that were learnt first."""
    parts = _letters(word)
    while found := [a + b for a, b in pairwise(parts) if a + b in CODE_OF]:
        parts = _merge(parts, min(found, key=CODE_OF.__getitem__))
    return [CODE_OF[part] for part in parts]


def decode(codes: Iterable[int]) -> str:
    """The text of a row of codes, up to its end."""
    parts: list[str] = []
    for code in codes:
        if code == END:
            break
        if code >= FIRST:
            parts.append(PIECES[code - FIRST])
    return "".join(parts).replace(MARK, " ").strip()


def _letters(word: str) -> list[str]:
    return [MARK + word[0], *word[1:]]


def _merge(parts: Sequence[str], piece: str) -> list[str]:
    """With neighbours that form `piece` joined, from left to right."""
    merged: list[str] = []
    for part in parts:
        if merged and merged[-1] + part == piece:
            merged[-1] = piece
        else:
            merged.append(part)
    return merged
