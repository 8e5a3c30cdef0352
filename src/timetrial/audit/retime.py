"""Trials run again from their copied source, and compared with their records. Here alone submission code runs."""

import contextlib
import math
import os
import random
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from timetrial.audit.compare import Tolerance, agree, tolerance
from timetrial.audit.findings import Finding
from timetrial.audit.reading import AuditedTrial
from timetrial.launchers.local import run_jobs
from timetrial.launchers.process import WORKER
from timetrial.record import RECORD_NAME, EndLine, EvalLine, RecordError, RunRecord, read_record
from timetrial.worker import Job

FACTOR = 1.5
"""By how much times may differ, and on another machine charges to the target."""
_CURVE = 0.1
"""By how much, relative to the larger, the target's metric may differ at a step where bits cannot agree."""


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """A trial that was run again."""

    trial: AuditedTrial
    allowed: Tolerance | None
    """None where it could not be run."""
    findings: tuple[Finding, ...]


def choose(trials: Sequence[AuditedTrial], count: int, seed: int) -> list[AuditedTrial]:
    """`count` of the trials that have a result and evals, drawn by `seed`; all of them where there are no more."""
    ran = sorted((t for t in trials if t.result and t.record.evals and t.campaign and t.source), key=lambda t: t.path)
    return random.Random(seed).sample(ran, min(count, len(ran)))


def rerun(trial: AuditedTrial, scratch: Path, *, factor: float = FACTOR, worker: Sequence[str] = WORKER) -> Rerun:
    """Runs the trial again in `scratch`, as isolated and on as many cores as it was, and compares."""
    assert trial.campaign is not None
    assert trial.source is not None
    trial.source.copy_to(scratch / "source")
    run, ruleset = trial.run, trial.campaign.ruleset
    job = Job(
        submission=run.submission,
        path=str(scratch / "source" / trial.source.path.name),
        workload=run.workload,
        ruleset=ruleset.to_json(),
        seed=run.seed,
        study=run.study,
        trial=run.trial,
        self_tuning=run.tuning == "self",
        folder=str(scratch / "trial"),
        checkpoint_seconds=3600.0,
        isolation=run.isolation,
        accumulate=run.accumulate,
        remat=run.remat,
        processes=run.hardware.get("processes", 1),
    )
    with on_cores(run.hardware.get("cores")):
        run_jobs([job], ruleset.hang_seconds, Nobody(), worker=worker)
    try:
        fresh = read_record(scratch / "trial" / RECORD_NAME)
    except RecordError as error:
        found = Finding(kind="rerun", message=f"could not be run again: {error}", path=trial.path)
        return Rerun(trial=trial, allowed=None, findings=(found,))
    allowed = tolerance(run, fresh.run.hardware, fresh.run.packages)
    return Rerun(trial=trial, allowed=allowed, findings=tuple(compare(trial, fresh, allowed, factor)))


def compare(trial: AuditedTrial, fresh: RunRecord, allowed: Tolerance, factor: float) -> Iterator[Finding]:
    """What of a trial did not come out again.

    On the same machine everything but time agrees bit for bit: evals of the same step under every clock, the whole
    course of the trial under the clocks that do not depend on time. Elsewhere rounding grows with every step: the
    untrained model agrees as `allowed` says, the curve of the target's metric by 10 % at each step, and charges to
    the target by `factor`. Times are compared, by `factor`, under the seconds clock on the same machine.
    """
    old_evals, new_evals = trial.record.evals, fresh.evals
    old_end, new_end = trial.record.end, fresh.end
    assert old_end is not None
    timed = trial.run.clock == "seconds"

    def wrong(line: int, field: str, expected: object, found: object, message: str) -> Finding:
        return Finding(
            kind="rerun", message=message, path=trial.path, line=line, field=field, expected=expected, found=found
        )

    differs = "came out differently when the trial was run again"
    last = trial.numbered[-1][0]
    if fresh.run.hparams != trial.run.hparams:
        yield wrong(1, "hparams", fresh.run.hparams, trial.run.hparams, differs)
    if new_end is None or new_end.status == "interrupted":
        message = "could not be run again: " + ("it was killed" if new_end is None else new_end.message)
        yield Finding(kind="rerun", message=message, path=trial.path)
        return
    if not timed:
        for number, old, new in zip(trial.eval_lines, old_evals, new_evals, strict=False):
            if (old.step, old.examples) != (new.step, new.examples):
                yield wrong(number, "step", (new.step, new.examples), (old.step, old.examples), differs)
                return
    by_step = {line.step: line for line in new_evals}
    for i, (number, old) in enumerate(zip(trial.eval_lines, old_evals, strict=True)):
        bad = _bad_metric(trial, i, old, by_step.get(old.step), new_evals, allowed)
        if bad is not None:
            yield wrong(number, f"metrics.{bad[0]}", bad[1], bad[2], differs)
            return
    if timed and not allowed.same_machine:
        return
    if old_end.status != new_end.status:
        yield wrong(last, "status", new_end.status, old_end.status, differs)
    elif allowed.exact and not timed:
        for field in ("step", "examples", "crossing", "examples_exact", "ignored"):
            if getattr(old_end, field) != getattr(new_end, field):
                yield wrong(last, field, getattr(new_end, field), getattr(old_end, field), differs)
        return
    for field, (old, new) in _charges(old_end, new_end, timed=timed).items():
        if not 1 / factor <= old / new <= factor:
            message = f"not within a factor of {factor:g} of what it took again"
            yield wrong(last, field, f"about {new:.4g}", f"{old:.4g}", message)


def _bad_metric(
    trial: AuditedTrial,
    position: int,
    old: EvalLine,
    same_step: EvalLine | None,
    fresh: Sequence[EvalLine],
    allowed: Tolerance,
) -> tuple[str, float, float] | None:
    """The first metric of an eval that did not come out again: its name, what it is, and what was recorded."""
    if same_step is not None and (allowed.exact or position == 0):
        for name, value in old.metrics.items():
            new = same_step.metrics.get(name)
            if new is not None and not agree(value, new, allowed, rows=100):
                return name, new, value
        return None
    name = f"valid/{trial.run.target.metric}"
    new, value = _interpolated(fresh, old.step, name), old.metrics.get(name)
    if new is None or value is None or not (math.isfinite(new) and math.isfinite(value)):
        return None
    if math.isclose(value, new, rel_tol=_CURVE, abs_tol=_CURVE * abs(trial.run.target.value)):
        return None
    return name, new, value


def _interpolated(evals: Sequence[EvalLine], step: int, name: str) -> float | None:
    """The curve at a step, linear between evals; None beyond them."""
    for before, after in pairwise(evals):
        if before.step <= step <= after.step and after.step > before.step:
            share = (step - before.step) / (after.step - before.step)
            return before.metrics[name] + share * (after.metrics[name] - before.metrics[name])
    return None


def _charges(old: EndLine, new: EndLine, *, timed: bool) -> dict[str, tuple[float, float]]:
    """Pairs of positive numbers that must lie within a factor: seconds a step, and the charge to the target."""
    pairs = {}
    if timed and old.step and new.step:
        pairs["seconds"] = tuple((end.seconds - end.compile_seconds) / end.step for end in (old, new))
    if old.crossing and new.crossing:
        pairs["crossing"] = (old.crossing.charge, new.crossing.charge)
    return {name: (a, b) for name, (a, b) in pairs.items() if a > 0 and b > 0}


@contextlib.contextmanager
def on_cores(count: Any) -> Generator[None]:
    """This process and those that it starts have that many cores, where there are so many."""
    own = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if not isinstance(count, int) or not 0 < count < len(own):
        yield
        return
    os.sched_setaffinity(0, own[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


class Nobody:
    """Watches no trial."""

    def began(self, job: Job, number: int, total: int) -> None: ...

    def progressed(self, job: Job, progress: Mapping[str, Any]) -> None: ...

    def noted(self, job: Job, text: str) -> None: ...

    def ended(self, job: Job, end: EndLine) -> None: ...
