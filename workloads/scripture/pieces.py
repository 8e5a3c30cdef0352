"""Byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909) over characters: learnt from counts of words, exactly.

A word is a run of letters with the space or line break before it, or any other single symbol; no piece crosses words.
"""

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise

_WORD = re.compile(r"[ \n]?[^\W\d_]+|.", re.DOTALL)
Pair = tuple[str, str]


def words(text: str) -> list[str]:
    """The words whose concatenation is the text."""
    return _WORD.findall(text)


def learn(counts: Mapping[str, int], symbols: Iterable[str], size: int) -> tuple[list[Pair], list[str]]:
    """The merges in their order, and the vocabulary of `size` pieces: the symbols, then each new piece.

    Each merge joins the pair of adjacent pieces that is most frequent, of equal ones the first in the order of code
    points.
    """
    spelled = [list(word) for word in counts]
    times = list(counts.values())
    frequency: Counter[Pair] = Counter()
    holders: defaultdict[Pair, set[int]] = defaultdict(set)
    for i, pieces in enumerate(spelled):
        for pair in pairwise(pieces):
            frequency[pair] += times[i]
            holders[pair].add(i)
    heap = [(-count, pair) for pair, count in frequency.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    vocabulary = dict.fromkeys(symbols)  # as a set that keeps its order
    while len(vocabulary) < size:
        count, best = heapq.heappop(heap)
        if -count != frequency[best]:  # out of date: counts fall silently, and are pushed when they rise
            if frequency[best] > 0:
                heapq.heappush(heap, (-frequency[best], best))
            continue
        merges.append(best)
        vocabulary["".join(best)] = None
        for i in holders.pop(best):
            for pair in pairwise(spelled[i]):
                frequency[pair] -= times[i]
            spelled[i] = join(spelled[i], best)
            for pair in pairwise(spelled[i]):
                frequency[pair] += times[i]
                holders[pair].add(i)
                heapq.heappush(heap, (-frequency[pair], pair))
    return merges, list(vocabulary)


def encoder(merges: Sequence[Pair]) -> Callable[[str], list[str]]:
    """A function from a word to its pieces: of the pairs in it, the one that was learnt first is joined, and so on."""
    rank = {pair: i for i, pair in enumerate(merges)}

    @cache
    def encode(word: str) -> list[str]:
        pieces = list(word)
        while known := [pair for pair in pairwise(pieces) if pair in rank]:
            pieces = join(pieces, min(known, key=rank.__getitem__))
        return pieces

    return encode


def join(pieces: list[str], pair: Pair) -> list[str]:
    """The pieces with each occurrence of the pair, from the left, made one."""
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined
