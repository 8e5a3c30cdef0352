"""Criteo's click logs: their lines as numbers, and the rows of an embedding table for their categories.

A line has 40 fields with tabs between them: a label, 13 integers, 26 categories of eight hexadecimal digits; of the
integers and categories some are empty. A record is a block of rows, of which there are too many for records of their
own. Shapes: R rows, F fields of a line, N integers, C categories.
"""

import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from timetrial.errors import UserError
from timetrial.full.recorded import Example, Layout, Pipeline, RawFile, Row

NUMERIC, CATEGORICAL = 13, 26
TABLE_ROWS = 4_194_304
"""Of the embedding table of the benchmark's model."""
_FIELDS = 1 + NUMERIC + CATEGORICAL
_DIGITS = 8
_DAYS = 24
_TEST_ROWS = 95_000_000
"""The first of the last day; the others of it validate."""
_CHUNK = 1 << 25
"""Bytes of text that are parsed at once."""
BUCKETS = np.fromstring(
    """
    39884406 39043 17289 7420 20263 3 7120 1543 63 38532951 2953546 403346 10
    2208 11938 155 4 976 14 39979771 25641295 39664984 585935 12972 108 36""",
    np.uint64,
    sep=" ",
)
"""Into how many buckets AlgoPerf hashes each categorical column: the numbers of values of Google's DLRM recipe."""
_TAB, _NEWLINE, _MINUS, _ZERO = b"\t\n-0"


def parts(folder: Path, companions: Path, split: str) -> Sequence[Callable[[], Iterator[Example]]]:
    """Days, the last one divided between `test` and `valid`."""
    del companions
    days = [folder / f"day_{day}.gz" for day in range(_DAYS)]
    if split == "train":
        return [partial(_rows, day, 0, None) for day in days[:-1]]
    return [partial(_rows, days[-1], *((0, _TEST_ROWS) if split == "test" else (_TEST_ROWS, None)))]


def _rows(path: Path, first: int, stop: int | None) -> Iterator[Example]:
    """Rows first, …, stop-1 of a file, in their order, some thousands at a time."""
    at = 0
    for rows in _parsed_file(path):
        end = len(rows["label"]) if stop is None else min(len(rows["label"]), stop - at)
        if first - at < end:
            yield {name: array[max(0, first - at) : end] for name, array in rows.items()}
        at += len(rows["label"])
        if stop is not None and at >= stop:
            return


def _parsed_file(path: Path) -> Iterator[Row]:
    lines, left = 0, b""
    try:
        with gzip.open(path) as file:
            while chunk := file.read(_CHUNK):
                text = left + chunk
                cut = text.rfind(b"\n") + 1
                rows = parsed(text[:cut])
                yield rows
                lines, left = lines + len(rows["label"]), text[cut:]
            if left:
                raise ValueError("the last line has no end")
    except (ValueError, EOFError, OSError, zlib.error) as error:
        at = f"{path}, among the lines from {lines + 1:,} on"
        raise UserError(f"{at}: {error}; is this a file of the Criteo 1TB click logs, and whole?") from None


def parsed(text: bytes) -> Row:
    """The rows of whole lines: `label`, uint8 (R,), `numeric`, int32 (R, N), and `categorical`, int32 (R, C).

    Categories are rows of the embedding table; a number that is empty is 0. Raises `ValueError` for other text.
    """
    bytes_ = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero((bytes_ == _TAB) | (bytes_ == _NEWLINE))
    if len(ends) % _FIELDS or np.any((bytes_[ends] == _NEWLINE) != (np.arange(1, len(ends) + 1) % _FIELDS == 0)):
        raise ValueError(f"a line has not {_FIELDS} fields with tabs between them")
    starts_rf = np.append(0, ends + 1)[:-1].reshape(-1, _FIELDS)
    lengths_rf = ends.reshape(-1, _FIELDS) - starts_rf
    integers = _integers(bytes_, starts_rf[:, : 1 + NUMERIC], lengths_rf[:, : 1 + NUMERIC])
    label, numeric = integers[:, 0], integers[:, 1:]
    if np.any((label < 0) | (label > 1)) or np.any(numeric != numeric.astype(np.int32)):
        raise ValueError("a label is not 0 or 1, or an integer takes more than 32 bits")
    return {
        "label": label.astype(np.uint8),
        "numeric": numeric.astype(np.int32),
        "categorical": table_row(_words(bytes_, starts_rf[:, 1 + NUMERIC :], lengths_rf[:, 1 + NUMERIC :])),
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


def table_row(words_rc: np.ndarray) -> np.ndarray:
    """The table's row of each category, int32 (R, C), from its eight characters.

    As AlgoPerf has it: the characters with the column's number behind them are hashed into the column's buckets, and
    the columns share one table, modulo its rows.
    """
    column = np.arange(CATEGORICAL, dtype=np.uint64)
    ten, one = column // np.uint64(10) + np.uint64(_ZERO), column % np.uint64(10) + np.uint64(_ZERO)
    behind = np.where(column < 10, one << np.uint64(56), ten << np.uint64(48) | one << np.uint64(56))
    digits = np.where(column < 10, np.uint64(1), np.uint64(2))
    last_words_rc = words_rc >> np.uint64(8) * digits | behind
    hashed_rc = fingerprint(words_rc, last_words_rc, _DIGITS + digits)
    return (hashed_rc % BUCKETS % np.uint64(TABLE_ROWS)).astype(np.int32)


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


def twin(split: str, rng: np.random.RandomState, rows: int) -> Iterator[Example]:
    """Lines whose first category and integers tell of their label, parsed; all in one example."""
    del split
    label_r = rng.randint(2, size=rows)
    lines: list[bytes] = []
    for label in label_r:
        numeric = rng.geometric(0.2 if label else 0.02, NUMERIC)
        categorical = rng.randint(50, size=CATEGORICAL)
        categorical[0] = label
        fields = [str(label), *map(str, numeric), *(f"{category:08x}" for category in categorical)]
        lines.append("\t".join(fields).encode() + b"\n")
    yield parsed(b"".join(lines))


def row(example: Example, rng: np.random.RandomState | None) -> Row:
    """Rows of a record: logarithms of the integers, each 1 more and none below 0."""
    del rng  # nothing is augmented
    numeric = np.log1p(np.maximum(example["numeric"], 0).astype(np.float32))
    return {"numeric": numeric, "categorical": example["categorical"], "label": example["label"]}


def features() -> dict[str, Any]:
    import tensorflow_datasets as tfds

    def tensor(dtype: Any, *shape: int) -> Any:
        return tfds.features.Tensor(shape=(None, *shape), dtype=dtype, encoding="bytes")

    return {
        "label": tensor(np.uint8),
        "numeric": tensor(np.int32, NUMERIC),
        "categorical": tensor(np.int32, CATEGORICAL),
    }


LAYOUT = Layout(
    name="criteo1tb",
    version="1.0.0",
    licence="Criteo's terms of use: research",
    citation="Criteo AI Lab, Criteo 1TB Click Logs dataset (2013)",
    access="Accept the terms at https://ailab.criteo.com/download-criteo-1tb-click-logs-dataset.",
    raw=[RawFile(path="day_*.gz", count=_DAYS, source="all 24 days, as they are")],
    space_bytes=690_000_000_000,
    hours=9.0,
    sizes={"train": 4_195_197_692, "valid": 83_274_637, "test": _TEST_ROWS},
    features=features,
    parts=parts,
    twin=twin,
    block=16_384,
)
PIPELINE = Pipeline(row=row)
