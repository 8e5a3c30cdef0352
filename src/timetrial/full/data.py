"""Data sets of the full track, which timetrial cannot prepare yet."""

from collections.abc import Mapping

from timetrial.data import Arrays, Dataset
from timetrial.errors import UserError

UNKNOWN_SHA256 = "0" * 64


def not_yet(name: str, *, licence: str, citation: str, source: str) -> Dataset:
    """A data set that can be named and cannot be prepared; `source` says where its files come from."""
    need = (
        f"timetrial does not prepare it yet ({source}); until it does, workloads on it can be listed, built and "
        "tried on noise, not run"
    )

    def generate() -> Mapping[str, Arrays]:
        raise UserError(f"data set {name}: {need}")

    return Dataset(
        name=name,
        version="0.0.0",
        generate=generate,
        sha256=UNKNOWN_SHA256,
        packages={},
        licence=licence,
        citation=citation,
        needs=lambda: need,
    )
