"""What an audit has found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

ADVICE = {
    "chain": "the line was changed after it was written, or lines beside it were; ask for the file as it was written",
    "clocks": "no judge writes such a line; run the trial again",
    "crossing": "scores follow the evals; run the trial again, or audit --retime it",
    "duplicate": "one of the two is a copy; run it again",
    "environment": "run all trials of a board with the same packages",
    "grid": "evals were taken out, added or moved; run the trial again",
    "hardware": "under the seconds clock all trials of a board run on the same machine; run the others again",
    "hyperparameters": "the points of a study are prescribed; run the trial again",
    "malformed": "restore the file, or run the trial again",
    "metrics": "the record does not say what the kept parameters reach; run the trial again",
    "parameters": "without them nothing shows that the metrics were reached; restore them, or run the trial again",
    "place": "put the folder back where its record says it belongs, or run the trial again",
    "rate": "compare with audit --retime on the same machine",
    "recompute": "mend what is said there, and audit again",
    "rerun": "the trial does not come out again as recorded; do not trust it before you know why",
    "rules": "score under the rules that the campaign was begun with, or run the trial again",
    "seeds": "the untrained model is prescribed by the seed; run the trial again",
    "source": "restore source/ as it was run; if that cannot be done, run the trial again",
    "target": "targets come from the ruleset, else from the workload; restore it, or run the trial again",
    "workload": "audit with the version of timetrial that ran it, or run the trial again with this one",
}
"""The kinds of findings, each with what to do about it."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is not as it must be: where, what, and what to do."""

    kind: str
    """A key of `ADVICE`."""
    message: str
    path: Path
    line: int | None = None
    """Counted from 1."""
    field: str | None = None
    expected: Any = None
    found: Any = None

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line is not None else str(self.path)
        field = f"{self.field}: " if self.field else ""
        compared = "" if self.field is None else f" (expected {_short(self.expected)}, found {_short(self.found)})"
        return f"{where}: {field}{self.message}{compared}; {ADVICE[self.kind]}"

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "path": str(self.path),
            "line": self.line,
            "field": self.field,
            "message": self.message,
            "expected": _plain(self.expected),
            "found": _plain(self.found),
            "advice": ADVICE[self.kind],
        }


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, float) else str(value)
    return text if len(text) <= 100 else f"{text[:97]}…"


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, str)) else _short(value)
