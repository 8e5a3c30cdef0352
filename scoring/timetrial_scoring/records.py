"""Reads one of our own run records into a trial; `timetrial.record` is the authority on the format."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from sys import intern

import numpy as np

from timetrial.fingerprint import essentials
from timetrial.record import RECORD_NAME, RecordError, RunRecord, read_record
from timetrial_scoring.board import Finding, Floats, Recorded, Trial


def read_run(folder: Path, findings: list[Finding]) -> Trial | None:
    """The trial in `folder`; None, with a finding, where its record cannot be read."""
    source = folder / RECORD_NAME
    try:
        record = read_record(source)
    except RecordError as error:
        findings.append(Finding("malformed", f"{error}; counts as never reached", str(source)))
        return None
    run = record.run
    expected = (run.submission, run.workload, f"study_{run.study}", f"trial_{run.trial}")
    if folder.parts[-4:] != expected:
        message = f"the record says it belongs in {'/'.join(expected)}, where it is counted"
        findings.append(Finding("misplaced", message, str(source), 1))
    hardware, machine = _described(json.dumps(run.hardware, sort_keys=True))
    return Trial(
        source=source,
        submission=intern(run.submission),
        workload=intern(run.workload),
        study=run.study,
        trial=run.trial,
        seconds=np.array([line.seconds for line in record.evals], np.float64),
        steps=np.array([line.step for line in record.evals], np.float64),
        examples=np.array([line.examples for line in record.evals], np.float64),
        metrics=_curves(record),
        hparams=run.hparams,
        seed=(run.seed, run.study, run.trial),
        hardware=hardware,
        status="interrupted" if record.end is None else record.end.status,
        recorded=Recorded(
            tuning=run.tuning,
            clock=run.clock,
            ruleset=intern(run.ruleset),
            ruleset_sha256=intern(run.ruleset_sha256),
            workload_version=intern(f"version {run.workload_version}, sha256 {run.workload_sha256[:12]}"),
            target=run.target,
            budget=run.budget,
            crossing=None if record.end is None else record.end.crossing,
            examples_exact=record.end is None or record.end.examples_exact,
            packages=_packages(tuple(sorted(run.packages.items()))),
            machine=machine,
            noise={} if record.end is None else record.end.noise,
        ),
    )


@cache
def _described(hardware: str) -> tuple[str, str]:
    """A record's hardware, and its essentials: of many records they are the same, and kept once."""
    return hardware, essentials(json.loads(hardware))


@cache
def _packages(versions: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return dict(versions)


def _curves(record: RunRecord) -> dict[str, Floats]:
    """Every metric at every eval; NaN where an eval lacks it."""
    names = dict.fromkeys(name for line in record.evals for name in line.metrics)
    values = np.array([[line.metrics.get(name, np.nan) for line in record.evals] for name in names], np.float64)
    return {intern(name): curve for name, curve in zip(names, values, strict=True)}
