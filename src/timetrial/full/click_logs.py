"""Criteo's click logs: their lines as numbers, and the rows of an embedding table for their categories.

A line has 40 fields with tabs between them: a label, 13 integers, 26 categories of eight hexadecimal digits; of the
integers and categories some are empty. Lines become blocks of rows, because rows are too many to be records of their
own. Shapes: R rows, F fields of a line, N integers, C categories.
"""

import gzip
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from timetrial.errors import UserError

NUMERIC, CATEGORICAL = 13, 26
_FIELDS = 1 + NUMERIC + CATEGORICAL
_DIGITS = 8
BLOCK_ROWS = 16_384
_CHUNK = 1 << 25
"""Bytes of text that are parsed at once."""
BUCKETS = np.array(
    [39_884_406, 39_043, 17_289, 7_420, 20_263, 3, 7_120, 1_543, 63, 38_532_951, 2_953_546, 403_346, 10, 2_208, 11_938]
    + [155, 4, 976, 14, 39_979_771, 25_641_295, 39_664_984, 585_935, 12_972, 108, 36],
    np.uint64,
)
"""Into how many buckets AlgoPerf hashes each categorical column: the numbers of values of Google's DLRM recipe."""
_TAB, _NEWLINE, _MINUS, _ZERO = b"\t\n-0"
Block = Mapping[str, np.ndarray]
"""`label` uint8 (R,), `numeric` int32 (R, N), `categorical` int32 (R, C)."""


def parsed(text: bytes, table_rows: int) -> dict[str, np.ndarray]:
    """The rows of whole lines, with the categories' rows in a table of so many. What is empty counts as 0.

    Raises `ValueError` for text that is not such lines.
    """
    bytes_ = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero((bytes_ == _TAB) | (bytes_ == _NEWLINE))
    if len(ends) % _FIELDS or np.any((bytes_[ends] == _NEWLINE) != (np.arange(1, len(ends) + 1) % _FIELDS == 0)):
        raise ValueError(f"a line has not {_FIELDS} fields with tabs between them")
    starts_rf = np.append(0, ends + 1)[:-1].reshape(-1, _FIELDS)
    lengths_rf = ends.reshape(-1, _FIELDS) - starts_rf
    integers = _integers(bytes_, starts_rf[:, : 1 + NUMERIC], lengths_rf[:, : 1 + NUMERIC])
    return {
        "label": integers[:, 0].astype(np.uint8),
        "numeric": integers[:, 1:].astype(np.int32),
        "categorical": table_row(_words(bytes_, starts_rf[:, 1 + NUMERIC :], lengths_rf[:, 1 + NUMERIC :]), table_rows),
    }


def _integers(bytes_: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Int64, 0 where there is nothing."""
    value = np.zeros(starts.shape, np.int64)
    negative = (bytes_[starts] == _MINUS) & (lengths > 0)
    for place in range(lengths.max(initial=0)):
        inside = (place >= negative) & (place < lengths)
        digit = bytes_[np.where(inside, starts + place, 0)].astype(np.int64) - _ZERO
        if np.any(inside & ((digit < 0) | (digit > 9))):
            raise ValueError("a number is not made of digits")
        value = np.where(inside, 10 * value + digit, value)
    return np.where(negative, -value, value)


def _words(bytes_: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The eight characters of each category, the first lowest, as uint64; "00000000" where there is nothing."""
    there = lengths > 0
    if np.any(lengths[there] != _DIGITS):
        raise ValueError(f"a category has not {_DIGITS} digits")
    characters = bytes_[np.where(there, starts, 0)[..., None] + np.arange(_DIGITS)]
    characters = np.where(there[..., None], characters, np.uint8(_ZERO))
    return np.ascontiguousarray(characters).view("<u8")[..., 0]


def table_row(words_rc: np.ndarray, table_rows: int) -> np.ndarray:
    """The table's row of each category, int32 (R, C), from its eight characters.

    As AlgoPerf has it: the characters with the column's number behind them are hashed into the column's buckets, and
    the columns share one table, modulo its rows.
    """
    column = np.arange(CATEGORICAL, dtype=np.uint64)
    ten, one = np.divmod(column, np.uint64(10)) + np.uint64(_ZERO)
    behind = np.where(column < 10, one << np.uint64(56), ten << np.uint64(48) | one << np.uint64(56))
    digits = np.where(column < 10, np.uint64(1), np.uint64(2))
    last_words_rc = words_rc >> np.uint64(8) * digits | behind
    hashed_rc = fingerprint(words_rc, last_words_rc, _DIGITS + digits)
    return (hashed_rc % BUCKETS % np.uint64(table_rows)).astype(np.int32)


def fingerprint(first: np.ndarray, last: np.ndarray, length: np.ndarray) -> np.ndarray:
    """FarmHash's 64-bit fingerprint (Pike 2014) of texts of 8 to 16 bytes, from their first and their last 8 bytes.

    All uint64; a text's earlier bytes are a number's lower ones.
    """
    odd = np.uint64(0x9AE16A3B2F90404F)
    factor = odd + np.uint64(2) * length
    start = first + odd
    low = _turned(last, 37) * factor + start
    high = (_turned(start, 25) + last) * factor
    mixed = _folded((low ^ high) * factor)
    return _folded((high ^ mixed) * factor) * factor


def _turned(x: np.ndarray, places: int) -> np.ndarray:
    return x >> np.uint64(places) | x << np.uint64(64 - places)


def _folded(x: np.ndarray) -> np.ndarray:
    return x ^ x >> np.uint64(47)


def blocks(files: Iterable[Path], table_rows: int, *, first: int = 0, stop: int | None = None) -> Iterator[Block]:
    """Rows first, …, stop-1 of some files, one after the other, in blocks of `BLOCK_ROWS`, the last one shorter."""
    held: list[Block] = []
    count = 0
    for rows in _between(_parsed_chunks(files, table_rows), first, stop):
        held.append(rows)
        count += len(rows["label"])
        if count >= BLOCK_ROWS:
            joined = _joined(held)
            whole = count - count % BLOCK_ROWS
            for at in range(0, whole, BLOCK_ROWS):
                yield _part(joined, at, at + BLOCK_ROWS)
            held, count = [_part(joined, whole, count)], count - whole
    if count:
        yield _joined(held)


def _parsed_chunks(files: Iterable[Path], table_rows: int) -> Iterator[Block]:
    for path in files:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            left, lines = b"", 0
            while True:
                chunk = file.read(_CHUNK)
                text = left + chunk if chunk else left + b"\n" if left else b""
                if not text:
                    break
                cut = text.rfind(b"\n") + 1
                try:
                    rows = parsed(text[:cut], table_rows)
                except ValueError as error:
                    at = f"{path}, among the lines from {lines + 1:,} on"
                    raise UserError(f"{at}: {error}; is this a file of the Criteo 1TB click logs, and whole?") from None
                lines += len(rows["label"])
                yield rows
                left = text[cut:]


def _between(parts: Iterable[Block], first: int, stop: int | None) -> Iterator[Block]:
    at = 0
    for part in parts:
        rows = len(part["label"])
        yield _part(part, max(0, first - at), rows if stop is None else max(0, min(rows, stop - at)))
        at += rows
        if stop is not None and at >= stop:
            return


def _part(block: Block, first: int, stop: int) -> Block:
    return {name: array[first:stop] for name, array in block.items()}


def _joined(blocks: list[Block]) -> Block:
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
