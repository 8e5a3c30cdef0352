"""What the instruments saw of a trial: one JSONL file beside its record. Standard library only.

`docs/instruments.md` is the authority on the format. A line is flushed as it is written, so a killed trial leaves a
readable prefix; a resumed one goes on after it, and writes no step twice.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from timetrial import fields
from timetrial.errors import UserError

SCHEMA = 1
LOG_NAME = "instruments.jsonl"
"""Beside a record."""

SetName = Literal["basic", "economy", "business", "full"]
SETS: tuple[SetName, ...] = get_args(SetName)
"""Sets of instruments, each with all those of the sets before it."""

_PER_DECADE = 20
"""Looks for each tenfold of steps, with `every="log"`."""


class LogError(UserError):
    """A log that cannot be read: the message names file, line and what is wrong there."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which instruments look, and when."""

    set: SetName
    every: int | Literal["log"] = 16
    """Steps from one look to the next; `log`: 20 looks for each tenfold of steps, and each of the first."""
    probe_rows: int | None = None
    """Rows of a probe batch; None for an eighth of the training batch, at least 8."""

    def looks_at(self, step: int) -> bool:
        """Whether the step that is taken after `step` steps is looked at."""
        if self.every != "log":
            return step % self.every == 0
        return step < 2 or _notch(step) > _notch(step - 1)

    @staticmethod
    def of(set_name: str, every: str, probe_rows: int | None = None) -> "Choice":
        """As a user writes it; raises UserError."""
        if set_name not in SETS:
            raise UserError(f"no set of instruments {set_name!r}; there are {', '.join(SETS)}")
        if every != "log" and not (every.isascii() and every.isdigit() and int(every)):
            raise UserError(f"--every takes a number of steps from 1 on, or log; got {every!r}")
        if probe_rows is not None and probe_rows < 2:
            raise UserError(f"--probe-rows must be at least 2, as one row has no variance; got {probe_rows}")
        return Choice(set=set_name, every="log" if every == "log" else int(every), probe_rows=probe_rows)


def _notch(step: int) -> int:
    return math.floor(_PER_DECADE * math.log10(step) + 1e-9)


@dataclass(frozen=True, kw_only=True)
class LogHeader:
    """What the lines below it hold."""

    set: SetName
    every: int | str
    batch_size: int
    """Rows of a training batch."""
    probe_rows: int
    """Rows of a probe batch; 0 where the set needs none."""
    params: tuple[Mapping[str, Any], ...]
    """`name`, `kind` and `shape` of each parameter array, in the order of `Look.arrays`."""
    absent: Mapping[str, str]
    """Quantities of the set that are not there, and why."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """One step, seen from outside: the state that it started from and the step that it took."""

    step: int
    """Steps taken before it; likewise the clocks."""
    examples: int
    seconds: float
    wall_seconds: float
    """What the look cost, copies and compilation included; not charged."""
    values: Mapping[str, float]
    arrays: Mapping[str, Sequence[float]] = field(default_factory=dict[str, Sequence[float]])
    """By quantity, one number for each parameter array."""
    histograms: Mapping[str, Sequence[Any]] = field(default_factory=dict[str, Sequence[Any]])
    """By quantity, counts in the bins that docs/instruments.md gives."""
    hyperparameters: Mapping[str, float] = field(default_factory=dict[str, float])
    """What the optimizer's state names, as `optax.inject_hyperparams` does."""


@dataclass(frozen=True, kw_only=True)
class Log:
    """The looks at one trial."""

    path: Path
    headers: tuple[LogHeader, ...]
    """One for each time the trial was begun or resumed with instruments."""
    looks: tuple[Look, ...]


def to_line(value: LogHeader | Look) -> str:
    """One line of the file, newline included; numbers to 9 digits, all that 32 bits hold."""
    kind = "instruments" if isinstance(value, LogHeader) else "look"
    data = {"schema": SCHEMA, "kind": kind, **_plain(asdict(value))}
    return json.dumps(data, allow_nan=False, separators=(",", ":")) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in cast(Mapping[str, Any], value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast(list[Any], value)]
    return value


class LogWriter:
    """Appends to a log. `last_step` is the newest step that it holds, -1 where it holds none."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Begins a log, or takes up that of the same trial; one of a trial that was set aside is written over."""
        self.last_step = -1
        if resume and path.exists():
            whole = path.read_bytes().rpartition(b"\n")[0]
            os.truncate(path, len(whole) + 1 if whole else 0)
            if whole and (looks := read_log(path).looks):
                self.last_step = looks[-1].step
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a" if resume else "w", encoding="utf-8")

    def write(self, value: LogHeader | Look) -> None:
        self._file.write(to_line(value))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_log(path: Path) -> Log:
    """The log in `path`. A last line cut short by a crash is left out; all else malformed raises LogError."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror}") from None
    headers: list[LogHeader] = []
    looks: list[Look] = []
    for where, data in _lines(path, text.rpartition(b"\n")[0]):
        kind = data.get("kind")
        if data.get("schema") != SCHEMA:
            raise LogError(f'{where}: no "schema": {SCHEMA}; this timetrial reads no other')
        if kind not in ("instruments", "look") or (kind == "look" and not headers):
            raise LogError(
                f"{where}: a line of kind {kind!r}, where the first is `instruments` and others may be `look`"
            )
        try:
            if kind == "look":
                looks.append(_look(data))
            else:
                headers.append(_header(data))
        except KeyError as error:
            raise LogError(f"{where}: {error.args[0]!r} is missing") from None
        except ValueError as error:
            raise LogError(f"{where}: {error}") from None
    if not headers:
        raise LogError(f"{path}:1: no complete first line; the trial was killed before it began")
    return Log(path=path, headers=tuple(headers), looks=tuple(looks))


def _lines(path: Path, whole: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, raw in enumerate(whole.split(b"\n") if whole else [], start=1):
        where = f"{path}:{number}"
        try:
            yield where, fields.mapping(json.loads(raw))
        except ValueError as error:
            raise LogError(f"{where}: not a JSON object: {error}") from None


def _header(data: Mapping[str, Any]) -> LogHeader:
    return LogHeader(
        set=cast(SetName, fields.one_of(SETS)(data["set"])),
        every="log" if data["every"] == "log" else fields.count(data["every"]),
        batch_size=fields.count(data["batch_size"]),
        probe_rows=fields.count(data["probe_rows"]),
        params=tuple(fields.mapping(array) for array in data["params"]),
        absent={name: fields.text(why) for name, why in fields.mapping(data["absent"]).items()},
    )


def _look(data: Mapping[str, Any]) -> Look:
    return Look(
        step=fields.count(data["step"]),
        examples=fields.count(data["examples"]),
        seconds=fields.duration(data["seconds"]),
        wall_seconds=fields.duration(data["wall_seconds"]),
        values=fields.numbers(data["values"]),
        arrays={name: [fields.number(x) for x in row] for name, row in fields.mapping(data["arrays"]).items()},
        histograms=fields.mapping(data["histograms"]),
        hyperparameters=fields.numbers(data["hyperparameters"]),
    )
