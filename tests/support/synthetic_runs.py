"""Run records of training that never was: curves that fall or rise towards their end, for reports to draw."""

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timetrial.record import Crossing, EndLine, EvalLine, RunHeader, to_line
from timetrial.ruleset import Ruleset
from timetrial.target import Target

EVALS = 40


def rules(studies: int, trials: int, clock: str = "seconds") -> dict[str, Any]:
    tuning = {"studies": studies, "trials": trials}
    return {
        "name": "synthetic",
        "version": 1,
        "description": "Four workloads, one held-out variant.",
        "clock": clock,
        "external": tuning,
        "self_tuning": tuning | {"trials": 1},
        "workloads": {
            "digits": _workload("error_rate", 0.1, "lower", 100.0),
            "digits_noisy": _workload("error_rate", 0.2, "lower", 100.0) | {"variant_of": "digits"},
            "translation": _workload("bleu", 30.0, "higher", 4000.0),
            "graphs": _workload("mean_average_precision", 0.28, "higher", 900.0),
            "speech": _workload("wer", 0.09, "lower", 20000.0),
        },
    }


def _workload(metric: str, value: float, better: str, budget: float) -> dict[str, Any]:
    target = {"metric": metric, "value": value, "better": better}
    easier = (2.0, 1.4) if better == "lower" else (0.5, 0.8)
    milestones = [factor * value for factor in easier]
    return {"budget": budget, "eval_every": budget / EVALS, "target": target, "milestones": milestones}


def write_campaign(
    folder: Path,
    external: Mapping[str, float],
    self_tuned: Mapping[str, float] | None = None,
    *,
    studies: int = 3,
    trials: int = 4,
    clock: str = "seconds",
) -> Path:
    """Trials of submissions by name, each with the share of the budget that it needs to a target (over 1: never)."""
    self_tuned = self_tuned or {}
    ruleset = Ruleset.from_json(rules(studies, trials, clock))
    folder.mkdir(parents=True, exist_ok=True)
    campaign = {
        "schema": 1,
        "kind": "campaign",
        "ruleset": ruleset.to_json(),
        "submissions": [*external, *self_tuned],
    }
    (folder / "campaign.json").write_text(json.dumps(campaign))
    for tuning, pace in (("external", external), ("self", self_tuned)):
        for name, share in pace.items():
            for workload in ruleset.workloads:
                for study in range(studies):
                    for trial in range(trials if tuning == "external" else 1):
                        _write_trial(folder, ruleset, tuning, name, workload, study, trial, share)
    return folder


def _write_trial(
    folder: Path, ruleset: Ruleset, tuning: Any, name: str, workload: str, study: int, trial: int, share: float
) -> None:
    chance = random.Random(f"{name} {workload} {study} {trial}")
    target, budget = ruleset.workloads[workload].target, ruleset.workloads[workload].budget
    assert target is not None
    rate = 10 ** chance.uniform(-4, -1)
    share *= chance.uniform(0.9, 1.1) * (1 + 0.3 * abs(math.log10(rate) + 2.5)) * chance.choice([1, 1, 1, 1.3])
    evals: list[EvalLine] = []
    crossing = None
    for i in range(EVALS + 1):
        at = budget * i / EVALS
        value = _value(target, at / budget / share, chance)
        evals.append(
            EvalLine(
                step=10 * i,
                examples=round(at) if ruleset.clock == "examples" else 640 * i,
                seconds=at,
                compile_seconds=0.0,
                data_seconds=0.0,
                eval_seconds=0.1,
                metrics={f"valid/{target.metric}": value},
            )
        )
        if i and target.met_by(value):
            crossing = Crossing(eval_index=i, charge=at, charge_before=budget * (i - 1) / EVALS)
            break
    header = RunHeader(
        workload=workload,
        workload_version=1,
        workload_sha256="ab" * 32,
        submission=name,
        submission_sha256="cd" * 32,
        ruleset=ruleset.name,
        ruleset_version=1,
        ruleset_sha256=ruleset.sha256,
        clock=ruleset.clock,
        tuning=tuning,
        seed=7,
        study=study,
        trial=trial,
        hparams={"learning_rate": rate, "nesterov": trial % 2 == 0} if tuning == "external" else {},
        target=target,
        test_target=None,
        budget=budget,
        eval_every=budget / EVALS,
        confirmation=0,
        isolation="none",
        created="2026-11-23T00:00:00+00:00",
        hardware={"platform": "cpu", "device_count": 1, "processor": "a processor"},
        packages={"python": "3.11.2", "jax": "0.10.2", "numpy": "2.3.1"},
    )
    last = evals[-1]
    end = EndLine(
        status="budget" if crossing is None else "reached",
        message="",
        step=last.step,
        examples=last.examples,
        seconds=last.seconds,
        compile_seconds=0.0,
        data_seconds=0.0,
        crossing=crossing,
        examples_exact=True,
    )
    path = folder / name.replace("/", "_") / workload / f"study_{study}" / f"trial_{trial}" / "record.jsonl"
    path.parent.mkdir(parents=True)
    lines = [to_line(header), *(to_line(line) for line in evals), to_line(end)]
    path.write_text("".join(lines))


def _value(target: Target, progress: float, chance: random.Random) -> float:
    """Meets the target about when `progress` passes 1."""
    left = math.exp(-3 * progress) - math.exp(-3) + chance.gauss(0, 0.004)
    span = 0.9 if target.better == "lower" else -target.value / (1 - math.exp(-3))
    return target.value + span * left
