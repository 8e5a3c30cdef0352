"""From numbers of pieces of words to text."""

from collections.abc import Iterable, Sequence

from timetrial.data import AnyDataset
from timetrial.errors import UserError

END = 2
CONTROL = 3
"""The numbers below this spell nothing: unknown (also padding, and CTC's blank), start, end."""
FILE = "pieces.txt"
_SPACE = "\u2581"


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
