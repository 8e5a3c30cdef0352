"""Looks for what would make a score untrustworthy: every oddity of a board's trials becomes a finding."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from timetrial_scoring.board import Finding, Floats, Trial
from timetrial_scoring.grid import Grid
from timetrial_scoring.times import NEVER, Crossing, Times, find_crossing, target_of


def audit(grid: Grid, times: Times) -> list[Finding]:
    """What is odd about the trials that count on this board."""
    findings: list[Finding] = []
    for cell, trials in grid.cells.items():
        for trial, crossing in zip(trials, times.crossings[cell], strict=True):
            findings += _clocks(trial)
            findings += _target(grid, trial, crossing)
    trials = list(grid.trials())
    findings += _duplicates(trials)
    if grid.ruleset.clock == "seconds":
        findings += _mixed("mixed hardware", trials, lambda t: t.hardware if t.recorded is None else None)
    findings += _mixed("mixed workload versions", trials, lambda t: t.recorded and t.recorded.workload_version)
    findings += _mixed("mixed targets", trials, lambda t: t.recorded and str(t.recorded.target))
    findings += _rulesets(grid, trials)
    return findings


def _clocks(trial: Trial) -> Iterator[Finding]:
    source = str(trial.source)
    for name, values in (("seconds", trial.seconds), ("steps", trial.steps), ("examples", trial.examples)):
        if values is None or not values.size:
            continue
        if not values.min() >= 0.0:
            at = int(np.argmin(values >= 0.0))
            yield Finding("negative time", f"{trial.name}: {name} is {values[at]:g}; it cannot count", source, at + 2)
        if values.size > 1 and (values[1:] < values[:-1]).any():
            at = 1 + int(np.argmax(values[1:] < values[:-1]))
            message = f"{trial.name}: {name} falls from {values[at - 1]:g} to {values[at]:g}"
            yield Finding("non-monotone time", message, source, at + 2)


def _target(grid: Grid, trial: Trial, crossing: Crossing) -> Iterator[Finding]:
    """The curve of the target metric, the budget, and what the record says of its crossing."""
    source = str(trial.source)
    target, clock, budget = target_of(grid, trial), grid.ruleset.clock, grid.budget(trial.workload)
    charge = trial.charge(clock)
    if target is None:
        yield Finding("no target", f"{trial.name}: neither ruleset nor record gives one; never reached", source)
        return
    try:
        values = trial.metrics.get(f"valid/{target.metric}")
    except ValueError as error:
        yield Finding("malformed", f"{error}; counts as never reached", source)
        return
    if charge is None:
        return
    if values is None:
        if charge.size:
            yield Finding("no metric", f"{trial.name}: no valid/{target.metric}; never reached", source)
        return
    yield from _not_numbers(trial, target.metric, values)
    if values.size and trial.steps[0] == 0 and target.met_by(float(values[0])):
        yield Finding("target met at step 0", f"{trial.name}: the untrained model meets {target}", source, 2)
    if crossing.eval_index < 0:
        late = find_crossing(trial, target, clock, confirmation=grid.ruleset.confirmation, values=values)
        if late.charge > budget and late != NEVER:
            message = f"{trial.name}: reached {target} at {late.charge:g} {clock}, beyond the budget of {budget:g}"
            yield Finding("over budget", f"{message}; counts as never reached", source, late.eval_index + 2)
    # The last eval may lie beyond the budget, which runs out between two evals; not the one before, and not by far.
    far = budget + (grid.ruleset.workloads[trial.workload].eval_every or np.inf)
    if charge.size and (charge[-1] > far or (charge.size > 1 and charge[-2] > budget)):
        at = int(np.argmax(charge > budget))
        message = f"{trial.name}: went on to {charge[-1]:g} {clock}, beyond the budget of {budget:g}"
        yield Finding("over budget", message, source, at + 2)
    if trial.recorded is not None and trial.status != "interrupted":
        recorded = trial.recorded.crossing
        said = _name(None if recorded is None else recorded.eval_index)
        found = _name(None if crossing.eval_index < 0 else crossing.eval_index)
        if said != found:
            message = f"{trial.name}: the record says {said}, its evals under this ruleset say {found}, which counts"
            yield Finding("crossing", message, source, trial.seconds.size + 2)


def _name(eval_index: int | None) -> str:
    return "never reached" if eval_index is None else f"reached at eval {eval_index}"


def _not_numbers(trial: Trial, metric: str, values: Floats) -> Iterator[Finding]:
    bad = np.flatnonzero(np.isnan(values))
    if bad.size:
        message = f"{trial.name}: valid/{metric} is NaN at {bad.size} of {values.size} evals"
        yield Finding("NaN metric", message, str(trial.source), int(bad[0]) + 2)


def _duplicates(trials: Iterable[Trial]) -> Iterator[Finding]:
    """Two trials of a submission and workload with one seed and point, or with the same measurements to the bit."""
    seeds: dict[object, Trial] = {}
    curves: dict[object, Trial] = {}
    for trial in trials:
        who = (trial.submission, trial.workload)
        first = curves.setdefault((*who, trial.seconds.tobytes(), trial.steps.tobytes()), trial)
        if first is not trial and trial.seconds.size > 1:  # trials that fail at once have one eval, at zero, in common
            message = f"{trial.name} has the same measurements as study {first.study}, trial {first.trial}"
            yield Finding("duplicate", message, str(trial.source))
        if trial.seed is None or trial.hparams is None:
            continue
        first = seeds.setdefault((*who, trial.seed, json.dumps(trial.hparams, sort_keys=True)), trial)
        if first is not trial:
            message = f"{trial.name} has the seed and hyperparameters of study {first.study}, trial {first.trial}"
            yield Finding("duplicate seed", message, str(trial.source))


def _mixed(kind: str, trials: Iterable[Trial], of: Callable[[Trial], str | None]) -> Iterator[Finding]:
    """A finding for each value that differs from the commonest of its workload."""
    by_workload: dict[str, dict[str, list[Trial]]] = defaultdict(lambda: defaultdict(list))
    for trial in trials:
        value = of(trial)
        if value is not None:
            by_workload[trial.workload][value].append(trial)
    for workload, values in by_workload.items():
        common = max(values, key=lambda value: len(values[value]))
        for value, found in values.items():
            if value != common:
                message = (
                    f"{workload}: {len(found)} trials of {_names(found)} on {value}, {len(values[common])} on {common}"
                )
                yield Finding(kind, message, str(found[0].source), 1 if found[0].recorded else None)


def _rulesets(grid: Grid, trials: Iterable[Trial]) -> Iterator[Finding]:
    """A finding for each other ruleset under which trials of this board were run."""
    others: dict[tuple[str, str], list[Trial]] = defaultdict(list)
    for trial in trials:
        if trial.recorded is not None and trial.recorded.ruleset_sha256 != grid.ruleset.sha256:
            others[trial.recorded.ruleset, trial.recorded.ruleset_sha256].append(trial)
    for (name, sha256), found in others.items():
        message = (
            f"{len(found)} trials of {_names(found)} ran under {name} ({sha256[:12]}), "
            f"not {grid.ruleset.name} ({grid.ruleset.sha256[:12]})"
        )
        yield Finding("other ruleset", message, str(found[0].source), 1)


def _names(trials: Iterable[Trial]) -> str:
    return ", ".join(sorted({trial.submission for trial in trials}))
