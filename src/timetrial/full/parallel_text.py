"""The German and English texts of WMT 2017 (Bojar et al. 2017), their records, and the rows of records.

A record of `train` has as many pairs of sentences behind each other as fit; one of another split, a single pair. As in
AlgoPerf, pairs of which a sentence has more pieces than a row are left out, and the pieces are learnt from about 10
million characters of both languages of the training pairs.
"""

import itertools
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from timetrial.errors import UserError
from timetrial.full import pieces
from timetrial.full.recorded import Example, Layout, Pipeline, RawFile, Recorded, Row

SYMBOLS = 32_000
LENGTH = 256
Pair = tuple[np.ndarray, np.ndarray]
"""The pieces of a sentence and of its translation, uint16, each with its end."""


class Corpus(NamedTuple):
    """Two files of an archive, with a sentence on each line of one and its translation on the same of the other."""

    archive: str
    german: str
    english: str


def _corpus(archive: str, stem: str) -> Corpus:
    return Corpus(archive, f"{stem}.de", f"{stem}.en")


CORPORA: Mapping[str, Sequence[Corpus]] = {
    "train": [
        _corpus("training-parallel-europarl-v7.tgz", "training/europarl-v7.de-en"),
        _corpus("training-parallel-commoncrawl.tgz", "commoncrawl.de-en"),
        _corpus("training-parallel-nc-v12.tgz", "training/news-commentary-v12.de-en"),
        _corpus("rapid2016.tgz", "rapid2016.de-en"),
    ],
    "valid": [_corpus("dev.tgz", "dev/newstest2013")],
    "test": [Corpus("dev.tgz", "dev/newstest2014-deen-src.de.sgm", "dev/newstest2014-deen-ref.en.sgm")],
}
_EVERY = 150
"""Pieces are learnt from one training pair in so many: about 10 million characters."""
_BATCH = 8192
"""Pairs that are cut into pieces together."""
_SEGMENT = re.compile(r'<seg id="\d+">(.*)</seg>')
_TWIN_WORDS = 50
"""Of each language of the synthetic twin; few, so that they are learnt soon."""


def _features() -> Mapping[str, Any]:
    from tensorflow_datasets import features

    symbols = features.Tensor(shape=(None,), dtype=np.uint16, encoding="bytes")
    return {"source": symbols, "target": symbols}


def pairs(raw: Path, corpus: Corpus) -> Iterator[tuple[str, str]]:
    """Sentences in German and in English; where one is empty, neither."""
    for pair in zip(*_lines(raw / corpus.archive, corpus[1:]), strict=True):
        if all(pair):
            yield pair


def _lines(archive: Path, names: Sequence[str]) -> list[list[str]]:
    """Of the files of those names in an archive; of an SGML file, its segments as they are written there."""
    found: dict[str, list[str]] = {}
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                name = str(PurePosixPath(member.name))
                if name in names and (opened := tar.extractfile(member)) is not None:
                    # Bytes are split, because in text more characters than this one end a line.
                    lines = [line.decode() for line in opened.read().split(b"\n")]
                    found[name] = _SEGMENT.findall("\n".join(lines)) if name.endswith(".sgm") else lines
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{archive}, as a tar.gz file: {error}; is it whole?") from None
    if missing := [name for name in names if name not in found]:
        raise UserError(f"{archive} has no file {' or '.join(missing)}; get it anew")
    if len({len(lines) for lines in found.values()}) > 1:
        said = ", ".join(f"{name} {len(lines):,}" for name, lines in found.items())
        raise UserError(f"{archive}: a file and its translation differ in their sentences ({said}); get it anew")
    return [found[name] for name in names]


def _companions(raw: Path | None, folder: Path) -> None:
    if raw is None:
        pieces.invent(folder, count=SYMBOLS)
    else:
        training = itertools.chain.from_iterable(pairs(raw, corpus) for corpus in CORPORA["train"])
        text = itertools.chain.from_iterable(itertools.islice(training, 0, None, _EVERY))
        pieces.learn(text, folder, count=SYMBOLS)


def _parts(raw: Path, folder: Path, split: str) -> Sequence[Callable[[], Iterator[Example]]]:
    return [partial(examples, raw, folder, split)]


def examples(raw: Path, folder: Path, split: str) -> Iterator[Example]:
    """Of the pairs of a split that are not too long; `folder` has the pieces.

    Those of `train` are packed in a random order that never changes, for which all are held: about 3 GB.
    """
    texts = itertools.chain.from_iterable(pairs(raw, corpus) for corpus in CORPORA[split])
    fitting = (pair for pair in _cut(texts, folder) if max(map(len, pair)) <= LENGTH)
    if split != "train":
        return map(_joined, ([pair] for pair in fitting))
    held = list(fitting)
    return packed(held[i] for i in np.random.RandomState(0).permutation(len(held)))


def _cut(texts: Iterator[tuple[str, str]], folder: Path) -> Iterator[Pair]:
    encode = pieces.encoder(folder)
    while batch := list(itertools.islice(texts, _BATCH)):
        cut = (np.array(sentence, np.uint16) for sentence in encode([*itertools.chain.from_iterable(batch)]))
        yield from zip(cut, cut, strict=True)


def packed(pairs: Iterable[Pair]) -> Iterator[Example]:
    """As many pairs behind each other, in their order, as have room in a row on both sides."""
    held: list[Pair] = []
    for pair in pairs:
        if any(sum(map(len, sentences)) > LENGTH for sentences in zip(*held, pair, strict=True)):
            yield _joined(held)
            held = []
        held.append(pair)
    if held:
        yield _joined(held)


def _joined(pairs: Sequence[Pair]) -> Example:
    source, target = map(np.concatenate, zip(*pairs, strict=True))
    return {"source": source, "target": target}


def _twin(split: str, random: np.random.RandomState, rows: int) -> Iterator[Example]:
    """Sentences of three to twelve words, each translated by itself and where it stands."""

    def noise() -> Iterator[Pair]:
        while True:
            source = pieces.CONTROL + random.randint(_TWIN_WORDS, size=random.randint(3, 13))
            sentences = (np.append(words, pieces.END).astype(np.uint16) for words in (source, source + _TWIN_WORDS))
            yield next(sentences), next(sentences)

    made = packed(noise()) if split == "train" else map(_joined, ([pair] for pair in noise()))
    return itertools.islice(made, rows)


def row(example: Example, random: np.random.RandomState | None) -> Row:
    """Source and target, uint16, with 0 behind them. Nothing is random."""
    del random
    return {name: np.pad(example[name], (0, LENGTH - len(example[name]))) for name in ("source", "target")}


LAYOUT = Layout(
    name="wmt17_de_en",
    version="1.0.0",
    licence="as statmt.org gives it: research",
    citation="Bojar et al., Findings of the 2017 Conference on Machine Translation (WMT17)",
    access="Nothing is asked before the download.",
    raw=[
        RawFile(
            path="training-parallel-europarl-v7.tgz",
            source="https://www.statmt.org/wmt13/training-parallel-europarl-v7.tgz",
            bytes=657_632_379,
            sha256="0224c7c710c8a063dfd893b0cc0830202d61f4c75c17eb8e31836103d27d96e7",
        ),
        RawFile(
            path="training-parallel-commoncrawl.tgz",
            source="https://www.statmt.org/wmt13/training-parallel-commoncrawl.tgz",
            bytes=918_311_367,
            sha256="c7a74e2ea01ac6c920123108627e35278d4ccb5701e15428ffa34de86fa3a9e5",
        ),
        RawFile(
            path="training-parallel-nc-v12.tgz",
            source="https://data.statmt.org/wmt17/translation-task/training-parallel-nc-v12.tgz",
            bytes=168_591_139,
            sha256="2b45f30ef1d550d302fd17dd3a5cbe19134ccc4c2cf50c2dae534aee600101a2",
        ),
        RawFile(
            path="rapid2016.tgz",
            source="https://data.statmt.org/wmt18/translation-task/rapid2016.tgz",
            bytes=161_050_516,
            sha256="41557dd5d8f0ed3a6d98bce3b798b1a9d3b68361eb99d902329ddbb943a6b55a",
        ),
        RawFile(
            path="dev.tgz",
            source="https://data.statmt.org/wmt19/translation-task/dev.tgz",
            bytes=38_654_961,
            sha256="7a7deccf82ebb05ba508dba5eb21356492224e8f630ec4f992132b029b4b25e7",
        ),
    ],
    space_bytes=10**9,
    hours=0.5,
    sizes={"train": None, "valid": 3_000, "test": 3_003},
    features=_features,
    parts=_parts,
    twin=_twin,
    companions=_companions,
    packages={"sentencepiece": "0.2.3"},
)
DATASET = Recorded.of(LAYOUT, Pipeline(row=row))
