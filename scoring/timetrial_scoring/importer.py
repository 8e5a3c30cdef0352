"""Writes an AlgoPerf log tree as run records, the way back from `export`.

A record needs more than such logs say. Targets, budgets and eval periods come from the ruleset, whether and when the
target was reached is found by its rules, and what nobody wrote down (hashes, versions, examples) is empty or 0.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from timetrial.errors import UserError
from timetrial.record import RECORD_NAME, Crossing, EndLine, EvalLine, Line, RunHeader, to_line
from timetrial.ruleset import Ruleset
from timetrial.target import Target
from timetrial_scoring.board import Finding, Trial, TuningKind
from timetrial_scoring.load import load
from timetrial_scoring.times import find_crossing


def import_algoperf(logs: Path, out: Path, *, ruleset: Ruleset) -> list[Finding]:
    """Writes `out`/SUBMISSION/WORKLOAD/study_N/trial_N/record.jsonl, and returns what could not be carried over.

    Trials are counted from 0 here, from 1 in AlgoPerf's logs. Raises UserError where `out` is not empty, or where the
    ruleset does not charge seconds, as AlgoPerf does.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{str(out)!r} exists and is not an empty folder; name a new one")
    if ruleset.clock != "seconds":
        raise UserError(f"AlgoPerf's logs are charged in seconds, and ruleset {ruleset.name!r} in {ruleset.clock}")
    found = load(logs)
    findings = list(found.findings)
    tuning: TuningKind = "self" if ruleset.external is None else "external"
    for trial in found.trials:
        rules = ruleset.workloads.get(trial.workload)
        if trial.recorded is not None:
            findings.append(Finding("not a log", "a run record already: not imported", str(trial.source)))
        elif rules is None or rules.target is None:
            message = f"{ruleset.name} has no target for {trial.workload}: not imported"
            findings.append(Finding("unknown workload", message, str(trial.source)))
        else:
            number = max(0, trial.trial - 1)
            folder = out / trial.submission / trial.workload / f"study_{trial.study}" / f"trial_{number}"
            try:
                lines = list(_lines(trial, number, rules.target, ruleset, tuning, findings))
            except ValueError as error:
                findings.append(Finding("malformed", f"{error}: not imported", str(trial.source)))
                continue
            folder.mkdir(parents=True)
            (folder / RECORD_NAME).write_text("".join(map(to_line, lines)))
    return findings


def _lines(
    trial: Trial, number: int, target: Target, ruleset: Ruleset, tuning: TuningKind, findings: list[Finding]
) -> Iterable[Line]:
    rules = ruleset.workloads[trial.workload]
    usable = np.isfinite(trial.seconds) & (trial.seconds >= 0) & np.isfinite(trial.steps) & (trial.steps >= 0)
    if not usable.all():
        message = f"{np.count_nonzero(~usable)} evals without a time or a step: left out"
        findings.append(Finding("malformed", message, str(trial.source)))
    kept = replace(
        trial,
        seconds=trial.seconds[usable],
        steps=trial.steps[usable],
        metrics={name: values[usable] for name, values in trial.metrics.items()},
    )
    budget = ruleset.budget(trial.workload, self_tuning=tuning == "self")
    yield RunHeader(
        workload=trial.workload,
        workload_version=0,
        workload_sha256="",
        submission=trial.submission,
        submission_sha256="",
        ruleset=ruleset.name,
        ruleset_version=ruleset.version,
        ruleset_sha256=ruleset.sha256,
        clock="seconds",
        tuning=tuning,
        seed=trial.seed[0] if trial.seed else 0,
        study=trial.study,
        trial=number,
        hparams={k: v for k, v in (trial.hparams or {}).items() if isinstance(v, (bool, int, float, str))},
        target=target,
        test_target=rules.test_target,
        budget=budget,
        eval_every=rules.eval_every or 0.0,
        confirmation=ruleset.confirmation,
        isolation="none",
        created="",
        hardware={} if trial.hardware is None else {"description": trial.hardware},
        packages={},
        api="algoperf",
    )
    for i, (seconds, step) in enumerate(zip(kept.seconds, kept.steps, strict=True)):
        yield EvalLine(
            step=int(step),
            examples=0,
            seconds=float(seconds),
            compile_seconds=0.0,
            data_seconds=0.0,
            eval_seconds=0.0,
            metrics={name: float(values[i]) for name, values in kept.metrics.items()},
        )
    crossing = find_crossing(kept, target, "seconds", budget=budget, confirmation=ruleset.confirmation)
    reached = crossing.eval_index >= 0
    yield EndLine(
        status="reached" if reached else "budget",
        message="imported from AlgoPerf's logs",
        step=int(kept.steps[-1]) if kept.steps.size else 0,
        examples=0,
        seconds=float(kept.seconds[-1]) if kept.seconds.size else 0.0,
        compile_seconds=0.0,
        data_seconds=0.0,
        crossing=Crossing(eval_index=crossing.eval_index, charge=crossing.charge, charge_before=crossing.charge_before)
        if reached
        else None,
        examples_exact=False,
    )
