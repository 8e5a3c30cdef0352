"""Pieces of words: learnt from text, from text to their numbers, and from their numbers to text."""

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from timetrial.data import AnyDataset
from timetrial.errors import UserError
from timetrial.full.extra import extra

END = 2
CONTROL = 3
"""The numbers below this spell nothing: unknown (also padding, and CTC's blank), start, end."""
FILE = "pieces.txt"
MODEL = "pieces.model"
"""What text is cut by; sentencepiece's own format."""
_SPACE = "\u2581"
_SYLLABLES = [consonant + vowel for consonant in "bcdfghjklmnpqrstvwxz" for vowel in "aeiou"]


def learn(text: Iterable[str], folder: Path, *, count: int) -> None:
    """Learns so many pieces from lines of text, and writes FILE and MODEL into the folder.

    By the unigram model of Kudo 2018, arXiv:1804.10959, with the defaults of sentencepiece, as AlgoPerf does. The same
    text and version of sentencepiece make the same pieces.
    """
    sentencepiece, model = extra("sentencepiece"), io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_writer=model,
        vocab_size=count,
        model_type="unigram",
        character_coverage=1.0,
        minloglevel=1,
    )
    (folder / MODEL).write_bytes(model.getvalue())
    learnt = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    _write(folder, map(learnt.id_to_piece, range(count)))


def invent(folder: Path, *, count: int) -> None:
    """Writes FILE with so many pieces that each are a word, made up: what a synthetic twin is spelt with."""
    control = ["<unk>", "<s>", "</s>"]
    _write(folder, control + [_SPACE + _word(number) for number in range(CONTROL, count)])


def _word(number: int) -> str:
    """Differs for each number below a million."""
    return "".join(_SYLLABLES[number // place % 100] for place in (10_000, 100, 1))


def _write(folder: Path, pieces: Iterable[str]) -> None:
    (folder / FILE).write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")


def encoder(folder: Path) -> Callable[[list[str]], list[list[int]]]:
    """By the MODEL in a folder: cuts texts into pieces, and gives the numbers of each, with the end behind them."""
    model = (folder / MODEL).read_bytes()
    return extra("sentencepiece").SentencePieceProcessor(model_proto=model, add_eos=True).encode


def read(dataset: AnyDataset) -> list[str]:
    """The pieces of a prepared data set, one a line, by their numbers; a space within a piece is written U+2581."""
    path = dataset.folder() / FILE
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except OSError:
        need = dataset.needs() or f"`timetrial data prepare` writes it with {dataset.name}"
        raise UserError(f"no pieces of words in {path}: {need}") from None


def spell(numbers: Iterable[int], pieces: Sequence[str]) -> str:
    """The text of pieces, words one space apart."""
    return " ".join("".join(pieces[n] for n in numbers if n >= CONTROL).replace(_SPACE, " ").split())
