"""The run record: one JSONL file a trial, appended, flushed and synced line by line. Standard library only.

`docs/results-format.md` is the authority on the format. A killed run leaves a readable prefix; whatever else is wrong
with a file is an error with file and line.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, TypeVar, cast, get_args

from timetrial import chain, fields
from timetrial.errors import UserError
from timetrial.ruleset import MATMUL_PRECISIONS, MatmulPrecision
from timetrial.target import Target

SCHEMA = 1
RECORD_NAME = "record.jsonl"

Status = Literal["reached", "budget", "diverged", "out_of_memory", "error", "hung", "interrupted"]
STATUSES: tuple[Status, ...] = get_args(Status)
"""How a trial ended. All are results but `interrupted`, which says that the trial is to be run again."""


class RecordError(UserError):
    """A record that cannot be read: the message names file, line and what is wrong there."""


@dataclass(frozen=True, kw_only=True)
class RunHeader:
    """Line 1: all that identifies the run. Scoring needs no workload to understand it."""

    workload: str
    workload_version: int
    workload_sha256: str
    submission: str
    submission_sha256: str
    ruleset: str
    ruleset_version: int
    ruleset_sha256: str
    clock: Literal["seconds", "steps", "examples"]
    tuning: Literal["external", "self"]
    seed: int
    """The campaign's seed; study and trial complete it."""
    study: int
    trial: int
    hparams: Mapping[str, bool | int | float | str]
    target: Target
    test_target: Target | None
    budget: float
    """In units of `clock`."""
    eval_every: float
    confirmation: int
    isolation: Literal["none", "sandbox", "docker"]
    created: str
    """When the trial began: ISO 8601, UTC."""
    hardware: Mapping[str, Any]
    """Devices, processor, cores, memory: what `timetrial.fingerprint` compares."""
    packages: Mapping[str, str]
    """Versions of Python and of the packages that can change a result."""
    api: Literal["timetrial", "algoperf"] = "timetrial"
    """What the submission is written for."""
    restored: tuple[str, ...] = ()
    """Names that jax has removed and that were put back for the submission."""
    told: tuple[str, ...] = ()
    """What the submission was told although submissions are not: "workload name", with AlgoPerf's API at full size."""
    trainer: Literal["python", "program", "process"] = "python"
    """How its code ran: here, as programs without Python, or in an isolated process, whose counts are unverified."""
    accumulate: int = 1
    """How many parts a batch went through the loss in, one after the other, to save memory."""
    matmul_precision: MatmulPrecision | None = None
    """To what the model's products could at most be rounded; None for jax's default."""
    remat: bool = False
    """Whether the pass back computed again what it could, to save memory."""


@dataclass(frozen=True, kw_only=True)
class EvalLine:
    """One evaluation. The clocks hold what has been charged up to it, `eval_params` included."""

    step: int
    examples: int
    seconds: float
    compile_seconds: float
    """The part of `seconds` that XLA spent compiling."""
    data_seconds: float
    """The part of `seconds` that the submission waited for data."""
    eval_seconds: float
    """Wall seconds that this evaluation took; not charged."""
    metrics: Mapping[str, float]
    """By `split/metric`, for example `valid/error_rate`."""
    parameters_sha256: str | None = None
    """Of the parameters and model state that were evaluated, where they are kept beside the record."""

    def charge(self, clock: Literal["seconds", "steps", "examples"]) -> float:
        return {"seconds": self.seconds, "steps": float(self.step), "examples": float(self.examples)}[clock]


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """Where the target was crossed: between two evals, in units of the charged clock."""

    eval_index: int
    """Position among the record's evals; the untrained model is 0."""
    charge: float
    charge_before: float
    """The charge at the eval before, which did not meet the target."""


@dataclass(frozen=True, kw_only=True)
class ResumeLine:
    """The trial was interrupted, and goes on from a checkpoint. Evals after that are replayed, not written again."""

    step: int
    """Of the checkpoint; likewise the clocks."""
    examples: int
    seconds: float
    evals: int
    """Evals before the checkpoint."""
    lost_seconds: float
    """Charged seconds since the checkpoint, as far as the record knew of them: given back."""
    created: str
    """When: ISO 8601, UTC."""


@dataclass(frozen=True, kw_only=True)
class EndLine:
    """The last line: how the trial ended, and what it charged in all."""

    status: Status
    message: str
    step: int
    examples: int
    seconds: float
    compile_seconds: float
    data_seconds: float
    crossing: Crossing | None
    examples_exact: bool
    """False where the rows that a step passes through the loss could not be derived: not to be ranked by examples."""
    ignored: tuple[str, ...] = ()
    """Settings of the loss that the submission asked for and the workload does not have."""
    checkpoint_seconds: float = 0.0
    """Wall seconds spent on checkpoints since the trial began or was resumed; not charged."""
    repeated_seconds: float = 0.0
    """Seconds of tracing and compiling again what an interruption had lost; not charged."""
    noise: Mapping[str, float] = field(default_factory=dict[str, float])
    """What disturbed the trial since it began or was resumed (`timetrial.noise`)."""


Line = RunHeader | EvalLine | ResumeLine | EndLine


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    path: Path
    run: RunHeader
    evals: tuple[EvalLine, ...]
    end: EndLine | None
    """None when the run was killed before it could say how it ended."""
    resumes: tuple[ResumeLine, ...] = ()


def to_line(value: Line) -> str:
    """One line of the file, newline included. Non-finite numbers become the strings "nan", "inf" and "-inf"."""
    data = {"schema": SCHEMA, "kind": _KINDS[type(value)], **asdict(value)}
    return json.dumps(_plain(data), allow_nan=False, separators=(",", ":")) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in cast(Mapping[str, Any], value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast(list[Any], value)]
    return value


def end_after(last: EvalLine | None, status: Status, message: str) -> EndLine:
    """The end of a trial whose judge could not write one: the clocks stand where the last eval left them."""
    return EndLine(
        status=status,
        message=message,
        step=last.step if last else 0,
        examples=last.examples if last else 0,
        seconds=last.seconds if last else 0.0,
        compile_seconds=last.compile_seconds if last else 0.0,
        data_seconds=last.data_seconds if last else 0.0,
        crossing=None,
        examples_exact=True,
    )


class ReplayError(UserError):
    """A trial that was resumed did not come to the evals that its record holds."""


class RecordWriter:
    """Appends lines to a record; every line is on disk before the call returns."""

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        """Begins a record, or takes up that of an interrupted trial, less its end line.

        Raises FileExistsError where a record stands already and is not to be resumed: nothing is ever overwritten.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.replayed: tuple[EvalLine, ...] = ()
        """Evals that the record holds already, and that a resumed trial comes to again."""
        self._position = 0
        self._before: str | None = ""
        """The line that the next one is linked to; None in a record without a chain."""
        if resume:
            self.replayed, self._before = _without_end(path)
        self._file: IO[str] = path.open("a" if resume else "x", encoding="utf-8")

    def go_to(self, evals: int) -> tuple[EvalLine, ...]:
        """The first `evals` evals of the record; the next that is written is taken for the one after them."""
        self._position = evals
        return self.replayed[:evals]

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def run(self, header: RunHeader) -> None:
        self._append(header)

    def eval(self, line: EvalLine) -> None:
        """Appends an eval; one that the record holds already is compared with that instead.

        Raises `ReplayError` where the two differ in what does not depend on time.
        """
        number, self._position = self._position, self._position + 1
        if number >= len(self.replayed):
            self._append(line)
            return
        old = self.replayed[number]
        if (line.step, line.examples, _plain(line.metrics)) != (old.step, old.examples, _plain(old.metrics)):
            raise ReplayError(
                f"eval {number} came out differently when the trial was resumed: step {old.step}, {dict(old.metrics)} "
                f"became step {line.step}, {dict(line.metrics)}; the trial has to be run anew"
            )

    def resume(self, line: ResumeLine) -> None:
        self._append(line)

    def end(self, line: EndLine) -> None:
        self._append(line)

    def _append(self, value: Line) -> None:
        line = to_line(value)
        if self._before is not None:
            line = self._before = chain.linked(line, self._before, last=isinstance(value, EndLine))
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())


def _without_end(path: Path) -> tuple[tuple[EvalLine, ...], str | None]:
    """Cuts a torn last line and the end line off a record; one rename, so that a crash loses nothing.

    Returns the evals that are left, and the line that the next one is linked to, None in a record without a chain.
    """
    record = read_record(path)
    lines = path.read_bytes().rpartition(b"\n")[0].decode().split("\n")
    kept = lines[:-1] if record.end is not None else lines
    scratch = path.with_suffix(".tmp")
    with scratch.open("wb") as file:
        file.write(("\n".join(kept) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
    return record.evals, chain.end_of_chain(kept)


def append_end(path: Path, header: RunHeader | None, end: Callable[[EvalLine | None], EndLine]) -> EndLine:
    """Ends a record whose writer died: cuts off a torn last line and appends `end(last eval)`.

    A record without a whole first line gets `header`. A record that has its end line keeps it, and it is returned.
    Raises RecordError where there is neither, or where the record is malformed.
    """
    whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    if not whole:
        if header is None:
            raise RecordError(f"{path}: the run died before it began")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_line(header))
    elif path.stat().st_size > len(whole) + 1:
        os.truncate(path, len(whole) + 1)
    record = read_record(path)
    if record.end is not None:
        return record.end
    line = end(record.evals[-1] if record.evals else None)
    before = chain.end_of_chain(path.read_text(encoding="utf-8").rstrip("\n").split("\n"))
    with open(path, "a", encoding="utf-8") as file:
        file.write(to_line(line) if before is None else chain.linked(to_line(line), before, last=True))
        file.flush()
        os.fsync(file.fileno())
    return line


def read_header(data: Mapping[str, Any]) -> RunHeader:
    """The header in a parsed "run" line; raises RecordError."""
    return _build(RunHeader, data, "run line")


def read_record(path: Path) -> RunRecord:
    """The record in `path`. A last line cut short by a crash is left out; all else malformed raises RecordError."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from None
    whole, _, _cut = text.rpartition(b"\n")
    run: RunHeader | None = None
    evals: list[EvalLine] = []
    resumes: list[ResumeLine] = []
    end: EndLine | None = None
    for number, raw in enumerate(whole.split(b"\n") if whole else [], start=1):
        where = f"{path}:{number}"
        data = _parse_line(raw, where)
        kind = data.pop("kind", None)
        if data.pop("schema", None) != SCHEMA:
            raise RecordError(f'{where}: no "schema": {SCHEMA}; this timetrial reads no other')
        if end is not None:
            raise RecordError(f"{where}: a line after the end line")
        if (kind == "run") != (number == 1):
            raise RecordError(f'{where}: the "run" line must be the first, and only the first')
        if kind == "run":
            run = _build(RunHeader, data, where)
        elif kind == "eval":
            evals.append(_build(EvalLine, data, where))
        elif kind == "resume":
            resumes.append(_build(ResumeLine, data, where))
        elif kind == "end":
            end = _build(EndLine, data, where)
        else:
            raise RecordError(f"{where}: unknown kind of line {kind!r}")
    if run is None:
        raise RecordError(f"{path}:1: no complete first line; the run was killed before it began")
    return RunRecord(path=path, run=run, evals=tuple(evals), end=end, resumes=tuple(resumes))


def _parse_line(raw: bytes, where: str) -> dict[str, Any]:
    try:
        data = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{where}: not JSON: {error}") from None
    if not isinstance(data, dict):
        raise RecordError(f"{where}: not a JSON object")
    return cast(dict[str, Any], data)


def _refuse_constant(name: str) -> float:
    raise ValueError(f'bare {name}; non-finite numbers are written as strings ("nan")')


def _target(value: Any) -> Target:
    try:
        return Target.from_json(dict(fields.mapping(value)))
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"a target (metric, value, better): {error}") from None


def _crossing(value: Any) -> Crossing:
    return Crossing(**_fields(Crossing, dict(fields.mapping(value))))


_CLOCK = fields.one_of(("seconds", "steps", "examples"))
_CONVERTERS: dict[type, dict[str, Callable[[Any], Any]]] = {
    RunHeader: {
        "workload": fields.text,
        "workload_version": fields.count,
        "workload_sha256": fields.text,
        "submission": fields.text,
        "submission_sha256": fields.text,
        "ruleset": fields.text,
        "ruleset_version": fields.count,
        "ruleset_sha256": fields.text,
        "clock": _CLOCK,
        "tuning": fields.one_of(("external", "self")),
        "seed": fields.whole,
        "study": fields.count,
        "trial": fields.count,
        "hparams": fields.scalars,
        "target": _target,
        "test_target": fields.or_null(_target),
        "budget": fields.duration,
        "eval_every": fields.duration,
        "confirmation": fields.count,
        "isolation": fields.one_of(("none", "sandbox", "docker")),
        "created": fields.text,
        "hardware": fields.mapping,
        "packages": fields.mapping,
        "api": fields.one_of(("timetrial", "algoperf")),
        "restored": fields.texts,
        "told": fields.texts,
        "trainer": fields.one_of(("python", "program", "process")),
        "accumulate": fields.count,
        "matmul_precision": fields.or_null(fields.one_of(MATMUL_PRECISIONS)),
        "remat": fields.flag,
    },
    EvalLine: {
        "step": fields.count,
        "examples": fields.count,
        "seconds": fields.duration,
        "compile_seconds": fields.duration,
        "data_seconds": fields.duration,
        "eval_seconds": fields.duration,
        "metrics": fields.numbers,
        "parameters_sha256": fields.or_null(fields.text),
    },
    ResumeLine: {
        "step": fields.count,
        "examples": fields.count,
        "seconds": fields.duration,
        "evals": fields.count,
        "lost_seconds": fields.duration,
        "created": fields.text,
    },
    Crossing: {"eval_index": fields.count, "charge": fields.duration, "charge_before": fields.duration},
    EndLine: {
        "status": fields.one_of(STATUSES),
        "message": fields.text,
        "step": fields.count,
        "examples": fields.count,
        "seconds": fields.duration,
        "compile_seconds": fields.duration,
        "data_seconds": fields.duration,
        "crossing": fields.or_null(_crossing),
        "examples_exact": fields.flag,
        "ignored": fields.texts,
        "checkpoint_seconds": fields.duration,
        "repeated_seconds": fields.duration,
        "noise": fields.numbers,
    },
}
_ADDED = (
    "checkpoint_seconds",
    "repeated_seconds",
    "noise",
    "api",
    "restored",
    "told",
    "trainer",
    "accumulate",
    "matmul_precision",
    "remat",
    "parameters_sha256",
)
"""Fields that came to schema 1 after its golden record: where a file lacks them they have their defaults."""
_KINDS: dict[type, str] = {RunHeader: "run", EvalLine: "eval", ResumeLine: "resume", EndLine: "end"}


def _fields(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `kind` in `data`, converted. Keys that this version does not know are left aside."""
    values: dict[str, Any] = {}
    for name, convert in _CONVERTERS[kind].items():
        if name not in data:
            if name in _ADDED:
                continue
            raise ValueError(f"{name!r} is missing")
        try:
            values[name] = convert(data[name])
        except ValueError as error:
            raise ValueError(f"{name!r} must be {error}, not {data[name]!r}") from None
    return values


_Line = TypeVar("_Line", RunHeader, EvalLine, ResumeLine, EndLine)


def _build(kind: type[_Line], data: Mapping[str, Any], where: str) -> _Line:
    try:
        return kind(**_fields(kind, data))
    except ValueError as error:
        raise RecordError(f"{where}: {error}") from None
