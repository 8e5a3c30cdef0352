"""What a sweep has done: the folder is the ledger, one file of lines for each (problem, optimizer).

A line holds the rows of one program's trials and is written at once: a process that is killed loses the trials that it
was training, and nothing else. Standard library only.
"""

import csv
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from timetrial.claims import locked
from timetrial.errors import UserError
from timetrial.sweeps.spec import Sweep, from_json
from timetrial.tuning import Point

SWEEP_NAME, TRIALS_NAME, POINTS_NAME, LINES_NAME = "sweep.json", "trials.csv", "points.csv", "lines.jsonl"
SCHEMA = 1
_DIGITS = 7
"""Of every number in the results, in the ledger and in the tables alike."""


@dataclass(frozen=True, order=True)
class Trial:
    """One trial of a (problem, optimizer)."""

    schedule: str
    point: int
    seed: int


@dataclass(frozen=True)
class Row:
    """How a trial went. Metrics are the problem's; those of the test split are not looked at by tuning."""

    schedule: str
    point: int
    seed: int
    status: Literal["completed", "diverged"]
    """Diverged: a validation metric was no finite number."""
    initial: float
    """The validation metric before the first step."""
    best: float
    """The best validation metric of all evals, the one before the first step among them."""
    best_step: int
    final: float
    """The last validation metric; not a number where it was none."""
    test: float
    """The test metric at `best_step`."""

    @property
    def trial(self) -> Trial:
        return Trial(self.schedule, self.point, self.seed)


class Cell:
    """The trials of one problem and optimizer that are done."""

    def __init__(self, out: Path, problem: str, optimizer: str) -> None:
        self.folder = out / "cells" / problem / optimizer
        self._path = self.folder / LINES_NAME

    def lines(self) -> list[Mapping[str, Any]]:
        """What is written; half a line at the end, of a process that was killed, is no part of it."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def rows(self) -> dict[Trial, Row]:
        found = (_row(row) for line in self.lines() for row in line["rows"])
        return {row.trial: row for row in found}

    def append(self, rows: Sequence[Row], **about: Any) -> None:
        """Adds the rows of one program, with what there is to say of it. The caller holds the cell's claim."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps({**about, "rows": [{k: _plain(v) for k, v in asdict(row).items()} for row in rows]})
        with self._path.open("a+b") as file:
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def open_folder(sweep: Sweep, out: Path) -> None:
    """Makes the folder of a sweep, or takes up the one that is there; `UserError` where it is of another."""
    path = out / SWEEP_NAME
    try:
        out.mkdir(parents=True, exist_ok=True)
        with locked(out):
            if path.exists():
                if read_folder(out) != sweep:
                    raise UserError(f"{out} was begun with another specification; name another folder with --out")
            elif any(found for found in out.iterdir() if not found.name.startswith(".")):
                raise UserError(f"{out} holds something else; name another folder with --out")
            else:
                _write_json(path, {"schema": SCHEMA, "kind": "sweep", "spec": sweep.to_json()})
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}") from None


def read_folder(out: Path) -> Sweep:
    """The sweep of a folder."""
    try:
        data = json.loads((out / SWEEP_NAME).read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA or data["kind"] != "sweep":
            raise UserError(f"{out / SWEEP_NAME} is of another version of timetrial")
        spec = data["spec"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{out} is no sweep: it has no readable {SWEEP_NAME}") from None
    return from_json(spec, where=str(out / SWEEP_NAME))


def write_results(
    sweep: Sweep,
    out: Path,
    *,
    points: Mapping[str, Sequence[Point]],
    problems: Mapping[str, Mapping[str, Any]],
    **about: Any,
) -> None:
    """Writes the results in their compact form: `sweep.json`, `trials.csv` and `points.csv` (docs/sweeps.md).

    `points` are those of each optimizer, `problems` what is known of each problem.
    """
    facts = {name: dict(known) for name, known in problems.items()}
    trials: list[dict[str, Any]] = []
    seconds = 0.0
    for problem, optimizer in sweep.cells:
        cell = Cell(out, problem.name, optimizer)
        rows = sorted(cell.rows().values(), key=lambda row: row.trial)
        seconds += sum(line["seconds"] for line in cell.lines())
        if rows:
            facts[problem.name].setdefault("initial", {}).update({str(row.seed): row.initial for row in rows})
        trials += [
            {"problem": problem.name, "optimizer": optimizer, **_fields(row, without=("initial",))} for row in rows
        ]
    _write_csv(out / TRIALS_NAME, trials)
    listed = ({"optimizer": o, "point": i, **p} for o, held in points.items() for i, p in enumerate(held))
    _write_csv(out / POINTS_NAME, list(listed))
    _write_json(
        out / SWEEP_NAME,
        {
            "schema": SCHEMA,
            "kind": "sweep",
            "spec": sweep.to_json(),
            "configurations": sweep.configurations,
            "trials": len(trials),
            "training_seconds": round(seconds, 1),
            **about,
            "problems": facts,
        },
    )


def _row(data: Mapping[str, Any]) -> Row:
    numbers = {name: float(data[name]) for name in ("initial", "best", "final", "test")}
    values: dict[str, Any] = {**data, **numbers}
    return Row(**values)


def _fields(row: Row, *, without: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in asdict(row).items() if key not in without}


def _plain(value: Any) -> Any:
    """A value as JSON has it: what is no finite number as the string that `float` reads."""
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _text(value: Any) -> str:
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value)


def rounded(value: float) -> float:
    """A metric with the digits that results have, so that whoever reads them chooses the winners that tuning chose."""
    return float(_text(value))


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Columns in the order in which they first appear; a field that a row lacks is empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    with scratch.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _text(value) for key, value in row.items()} for row in rows)
    scratch.replace(path)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    scratch.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    scratch.replace(path)
