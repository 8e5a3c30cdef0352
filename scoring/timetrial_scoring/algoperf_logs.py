"""Reads one trial of an AlgoPerf log tree: `SUBMISSION/study_N/WORKLOAD_jax|_pytorch/trial_N/eval_measurements.csv`.

The charged time is the column `score`, AlgoPerf's accumulated submission time. An empty field means NaN there. Fields
become numbers when a column is first asked for: scoring needs 3 of about 14 columns, of hundreds of thousands of rows.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from timetrial_scoring.board import Finding, Floats, Trial

LOG_NAME = "eval_measurements.csv"
_LAYOUT = re.compile(r".*/([^/]+)/study_(\d+)/([^/]+)_(?:jax|pytorch)/trial_(\d+)", re.DOTALL)
_HARDWARE = {"gpu_count", "gpu_model_name"}
_RENAMED = {"valid": "validation"}


def read_log(folder: Path, findings: list[Finding]) -> Trial | None:
    """The trial in `folder`; None, with a finding, where there is none to read."""
    source = folder / LOG_NAME
    place = _LAYOUT.fullmatch(folder.as_posix())
    if place is None:
        message = "measurements outside SUBMISSION/study_N/WORKLOAD_jax|_pytorch/trial_N: not scored"
        findings.append(Finding("stray", message, str(source)))
        return None
    names, rows = _read_csv(source, findings)
    missing = [name for name in ("score", "global_step") if name not in names]
    if missing:
        message = f"no column {' and no column '.join(missing)}: counts as never reached"
        findings.append(Finding("malformed", message, str(source), 1))
        return None
    seconds, steps = (_leading_numbers(name, names, rows, source, findings) for name in ("score", "global_step"))
    usable = min(len(seconds), len(steps))
    if not usable:
        findings.append(Finding("malformed", "no rows: counts as never reached", str(source), 1))
        return None
    hparams = _read_json(folder / "hparams.json", findings)
    meta = _read_json(folder / "meta_data_0.json", findings) or {}
    return Trial(
        source=source,
        submission=place[1],
        workload=place[3],
        study=int(place[2]),
        trial=int(place[4]),
        seconds=seconds[:usable],
        steps=steps[:usable],
        examples=None,
        metrics=_Metrics(names, rows[:usable], source),
        hparams=hparams,
        seed=(meta["rng_seed"],) if isinstance(meta.get("rng_seed"), int) else None,
        hardware=f"{meta['gpu_count']} x {meta['gpu_model_name']}" if set(meta) >= _HARDWARE else None,
        status=None,
        recorded=None,
    )


class _Metrics(Mapping[str, Floats]):
    """The columns `split/metric`, converted when asked for; ValueError names the line of a field that is no number."""

    def __init__(self, names: Sequence[str], rows: Sequence[str], source: Path) -> None:
        self._names, self._rows, self._source = names, rows, source

    def __getitem__(self, name: str) -> Floats:
        split, _, metric = name.partition("/")
        index = self._names.index(f"{_RENAMED.get(split, split)}/{metric}") if name in set(self) else None
        if index is None:
            raise KeyError(name)
        try:
            return _column(self._rows, index, len(self._names))
        except ValueError:
            for number, row in enumerate(self._rows):
                field = row.split(",")[index]
                if not _is_number(field):
                    raise ValueError(f"{self._source}:{number + 2}: {name} is {field!r}, not a number") from None
            raise

    def __iter__(self) -> Iterator[str]:
        for name in self._names:
            split, slash, metric = name.partition("/")
            if slash:
                yield f"{'valid' if split == 'validation' else split}/{metric}"

    def __len__(self) -> int:
        return sum("/" in name for name in self._names)


def _read_csv(source: Path, findings: list[Finding]) -> tuple[list[str], list[str]]:
    """Names of the columns, and the whole rows before the first that has too few or too many fields."""
    text = source.read_bytes().decode("utf-8", "replace").replace("\r", "")
    header, _, body = text.partition("\n")
    names, rows = header.split(","), body.split("\n")
    if rows.pop():
        findings.append(Finding("truncated", "the last line has no end and is not used", str(source), len(rows) + 2))
    commas = len(names) - 1
    for number, row in enumerate(rows):
        if row.count(",") != commas:
            message = f"{row.count(',') + 1} fields, not {len(names)}; this row and those after it are not used"
            findings.append(Finding("malformed", message, str(source), number + 2))
            return names, rows[:number]
    return names, rows


def _column(rows: Sequence[str], index: int, width: int) -> Floats:
    """One column as numbers; splits each row only as far as it must, from the nearer end."""
    if index < width - 1 - index:
        fields = [row.split(",", index + 1)[index] for row in rows]
    else:
        fields = [row.rsplit(",", width - index)[index - width] for row in rows]
    return np.array([float(field or "nan") for field in fields], np.float64)


def _leading_numbers(
    name: str, names: Sequence[str], rows: Sequence[str], source: Path, findings: list[Finding]
) -> Floats:
    """A column up to its first field that is not a number; empty fields are none."""
    index = names.index(name)
    try:
        return _column(rows, index, len(names))
    except ValueError:
        fields = [row.split(",")[index] for row in rows]
        usable = next(i for i, field in enumerate(fields) if not _is_number(field))
        message = f"{name} is {fields[usable]!r}, not a number; this row and those after it are not used"
        findings.append(Finding("malformed", message, str(source), usable + 2))
        return _column(rows[:usable], index, len(names))


def _is_number(field: str) -> bool:
    try:
        float(field or "nan")
    except ValueError:
        return False
    return True


def _read_json(path: Path, findings: list[Finding]) -> dict[str, Any] | None:
    try:
        data: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        findings.append(Finding("incomplete", f"no {path.name} beside the measurements", str(path)))
        return None
    except ValueError as error:
        findings.append(Finding("malformed", f"not JSON: {error}", str(path)))
        return None
    if not isinstance(data, dict):
        findings.append(Finding("malformed", "not a JSON object", str(path)))
        return None
    return cast(dict[str, Any], data)
