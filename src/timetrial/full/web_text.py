"""The sample of 10 billion tokens of FineWeb-Edu (Penedo et al. 2024), its records, and the rows of records.

The documents of a split, each with an end behind it, are one stream of GPT-2's symbols (Radford et al. 2019), cut into
rows that do not overlap. Which split a document is in depends on its identifier alone: nine tenths train, as in
AlgoPerf, and about as many of the rest validate as make the 100,000 rows that it evaluates; as many more test.
"""

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from timetrial.errors import UserError
from timetrial.full.extra import extra
from timetrial.full.recorded import Example, Layout, Pipeline, RawFile, Recorded, Row

SYMBOLS = 50_257
LENGTH = 1024
END = SYMBOLS - 1
_SHARE = {"train": (0.0, 0.9), "valid": (0.9, 0.9106), "test": (0.9106, 0.9212)}
"""Of all documents; those of `valid` and of `test` make 3 % more rows than are taken."""
_EVALUATED_ROWS = 100_000
_MERGES = "vocab.bpe"
_DOCUMENTS = "*.parquet"
_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
"""What GPT-2 cuts text by before it merges bytes."""
_BATCH = 1024
"""Documents that are cut into symbols together."""
_TWIN_SYMBOLS = 97
"""Of the synthetic twin; few, so that they are learnt soon."""


def _features() -> Mapping[str, Any]:
    from tensorflow_datasets import features

    return {"symbols": features.Tensor(shape=(LENGTH + 1,), dtype=np.uint16, encoding="bytes")}


def encoder(merges: Path) -> Callable[[list[str]], list[list[int]]]:
    """By GPT-2's list of merges: the symbols of each text, on all cores.

    The first 256 symbols are the bytes, in the order that the list's header implies; then comes one for each merge.
    """
    ranks = _ranks(merges.read_text(encoding="utf-8").split("\n")[1:-1])
    tokenizer = extra("tiktoken").Encoding(
        name="gpt2", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": len(ranks)}
    )
    return partial(tokenizer.encode_ordinary_batch, num_threads=os.cpu_count() or 1)


def _ranks(merges: Iterable[str]) -> dict[bytes, int]:
    """The number of each symbol, by its bytes."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unprinted = [byte for byte in range(256) if byte not in printed]
    byte_of = {chr(byte): byte for byte in printed} | {chr(256 + i): byte for i, byte in enumerate(unprinted)}
    ranks = {bytes([byte]): rank for rank, byte in enumerate(printed + unprinted)}
    for merge in merges:
        ranks[bytes(byte_of[character] for character in merge if character != " ")] = len(ranks)
    return ranks


def split_of(identifier: str) -> str | None:
    """The split of a document, by the SHA-256 of its identifier; None where it is in none."""
    place = int.from_bytes(hashlib.sha256(identifier.encode()).digest()[:8], "big") / 2**64
    return next((split for split, (first, behind) in _SHARE.items() if first <= place < behind), None)


def examples(files: Sequence[Path], merges: Path, split: str) -> Iterator[Example]:
    """The rows of the documents of a split in some files; what is left behind the last whole row is dropped."""
    encode = encoder(merges)
    left = np.empty(0, np.uint16)
    for texts in _texts(files, split):
        symbols = itertools.chain.from_iterable((*document, END) for document in encode(texts))
        stream = np.concatenate([left, np.fromiter(symbols, np.uint16)])
        rows = len(stream) // (LENGTH + 1)
        for row in stream[: rows * (LENGTH + 1)].reshape(rows, -1):
            yield {"symbols": row}
        left = stream[rows * (LENGTH + 1) :]


def _texts(files: Sequence[Path], split: str) -> Iterator[list[str]]:
    """Of the documents of a split that are not empty, some at a time."""
    for file in files:
        try:
            for batch in extra("pyarrow.parquet").ParquetFile(file).iter_batches(_BATCH, columns=["id", "text"]):
                documents = batch.to_pylist()
                yield [found["text"] for found in documents if found["text"] and split_of(found["id"]) == split]
        except (extra("pyarrow").ArrowException, OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file}, as a Parquet file: {str(error).splitlines()[0]}; get it anew") from None


def _parts(raw: Path, folder: Path, split: str) -> Sequence[Callable[[], Iterator[Example]]]:
    del folder
    files, merges = sorted(raw.glob(_DOCUMENTS)), raw / _MERGES
    if split == "train":
        return [partial(examples, [file], merges, split) for file in files]
    return [lambda: itertools.islice(examples(files, merges, split), _EVALUATED_ROWS)]


def _twin(split: str, random: np.random.RandomState, rows: int) -> Iterator[Example]:
    """Each symbol follows from the one before it, nine times in ten."""
    del split
    for _ in range(rows):
        symbols = random.randint(_TWIN_SYMBOLS, size=LENGTH + 1)
        for t in np.flatnonzero(random.random_sample(LENGTH) < 0.9) + 1:
            symbols[t] = (5 * symbols[t - 1] + 1) % _TWIN_SYMBOLS
        yield {"symbols": symbols.astype(np.uint16)}


def row(example: Example, random: np.random.RandomState | None) -> Row:
    """The symbols, as they are. Nothing is random."""
    del random
    return {"symbols": example["symbols"]}


LAYOUT = Layout(
    name="fineweb_edu_10b",
    version="1.0.0",
    licence="ODC-By 1.0",
    citation="Penedo et al., The FineWeb Datasets (2024), arXiv:2406.17557",
    access="Nothing is asked before the download.",
    raw=[
        RawFile(
            path=_DOCUMENTS,
            source="the folder sample/10BT of https://huggingface.co/datasets/HuggingFaceFW/fineweb-edu",
            count=14,
            bytes=28_518_193_415,
        ),
        RawFile(
            path=_MERGES,
            source="https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe",
            bytes=456_318,
            sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        ),
    ],
    space_bytes=19 * 10**9,
    hours=2.0,
    sizes={"train": None, "valid": _EVALUATED_ROWS, "test": _EVALUATED_ROWS},
    features=_features,
    parts=_parts,
    twin=_twin,
    packages={"tiktoken": "0.14.0"},
)
DATASET = Recorded.of(LAYOUT, Pipeline(row=row))
