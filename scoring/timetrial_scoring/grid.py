"""Lays trials out on the grid a ruleset prescribes: submissions x workloads x studies x trials.

What is missing counts as never reached, what is too much is left out; both are findings.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from timetrial.ruleset import Ruleset
from timetrial_scoring.board import Finding, Runs, Trial, TuningKind

Cell = tuple[int, int, int]
"""Indices of submission, workload and study."""


@dataclass(frozen=True)
class Grid:
    """One board: submissions of one kind of tuning, under one ruleset."""

    ruleset: Ruleset
    tuning: TuningKind
    submissions: tuple[str, ...]
    cells: Mapping[Cell, tuple[Trial, ...]]
    """The trials of each study of each submission and workload; a study without trials has no entry."""
    unranked: Mapping[str, str]
    """Submissions that cannot be ranked, and why."""

    @property
    def studies(self) -> int:
        return self.ruleset.tuning(self_tuning=self.tuning == "self").studies

    def budget(self, workload: str) -> float:
        return self.ruleset.budget(workload, self_tuning=self.tuning == "self")

    def trials(self) -> Iterable[Trial]:
        return (trial for trials in self.cells.values() for trial in trials)


def lay_out(runs: Runs, ruleset: Ruleset, findings: list[Finding], *, prescribed_only: bool = True) -> list[Grid]:
    """A grid for each kind of tuning that has submissions, external first.

    Args:
        runs: what was found in a folder.
        ruleset: its workloads, studies and trials make the grid.
        findings: gets what does not fit the grid.
        prescribed_only: leave out trials beyond the prescribed number of a study.
    """
    only: TuningKind = "self" if ruleset.external is None else "external"
    by_tuning: dict[TuningKind, dict[str, list[Trial]]] = {"external": defaultdict(list), "self": defaultdict(list)}
    for trial in runs.trials:
        by_tuning[only if trial.recorded is None else trial.recorded.tuning][trial.submission].append(trial)
    seen = {name for submissions in by_tuning.values() for name in submissions}
    for campaign in runs.campaigns:
        for name in campaign.submissions:
            if name not in seen:
                by_tuning[only][name] = []
    grids: list[Grid] = []
    for tuning, submissions in by_tuning.items():
        if submissions and (ruleset.external if tuning == "external" else ruleset.self_tuning) is None:
            message = f"ruleset {ruleset.name} has no {tuning} board: {', '.join(sorted(submissions))} not scored"
            findings.append(Finding("ruleset", message))
        elif submissions:
            grids.append(_lay_out_board(submissions, ruleset, tuning, findings, prescribed_only))
    return grids


def _lay_out_board(
    submissions: Mapping[str, Sequence[Trial]],
    ruleset: Ruleset,
    tuning: TuningKind,
    findings: list[Finding],
    prescribed_only: bool,
) -> Grid:
    rules = ruleset.tuning(self_tuning=tuning == "self")
    workloads = list(ruleset.workloads)
    names = tuple(sorted(submissions))
    cells: dict[Cell, tuple[Trial, ...]] = {}
    for s, name in enumerate(names):
        placed = _known_workloads(submissions[name], ruleset, findings)
        index = _study_index(placed, name, rules.studies, findings)
        by_cell: dict[Cell, list[Trial]] = defaultdict(list)
        for trial in placed:
            if trial.study in index:
                by_cell[s, workloads.index(trial.workload), index[trial.study]].append(trial)
        for w, workload in enumerate(workloads):
            for k in range(rules.studies):
                label = f"{name}, {workload}, study {k}"
                kept = _unique(by_cell.get((s, w, k), []), label, findings)
                kept = _prescribed(kept, rules.trials, label, findings, prescribed_only)
                if kept:
                    cells[s, w, k] = kept
    return Grid(ruleset, tuning, names, cells, _unranked(cells, names, ruleset, findings))


def _known_workloads(trials: Sequence[Trial], ruleset: Ruleset, findings: list[Finding]) -> list[Trial]:
    unknown: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        if trial.workload not in ruleset.workloads:
            unknown[trial.workload].append(trial)
    for workload, found in unknown.items():
        message = (
            f"{found[0].submission}: {len(found)} trials of {workload}, which {ruleset.name} does not list: not scored"
        )
        findings.append(Finding("unknown workload", message, str(found[0].source)))
    return [trial for trial in trials if trial.workload in ruleset.workloads]


def _study_index(trials: Sequence[Trial], name: str, studies: int, findings: list[Finding]) -> dict[int, int]:
    """Positions of the study numbers: the numbers themselves where they fit, else their order."""
    numbers = sorted({trial.study for trial in trials})
    if not numbers or numbers[-1] < studies:
        return {number: number for number in numbers}
    if len(numbers) > studies:
        extra = next(trial for trial in trials if trial.study == numbers[studies])
        message = f"{name}: {len(numbers)} studies, the ruleset prescribes {studies}: only the first {studies} count"
        findings.append(Finding("wrong count", message, str(extra.source)))
    return {number: position for position, number in enumerate(numbers[:studies])}


def _unique(trials: Sequence[Trial], label: str, findings: list[Finding]) -> list[Trial]:
    """One trial a number: the first by path."""
    by_number: dict[int, Trial] = {}
    for trial in trials:
        first = by_number.setdefault(trial.trial, trial)
        if first is not trial:
            message = f"{label}: a second trial {trial.trial}, beside {first.source}: only that one counts"
            findings.append(Finding("duplicate", message, str(trial.source)))
    return list(by_number.values())


def _prescribed(
    trials: Sequence[Trial], prescribed: int, label: str, findings: list[Finding], prescribed_only: bool
) -> tuple[Trial, ...]:
    if not trials:
        findings.append(Finding("missing", f"{label}: no trial; counts as never reached"))
    elif len(trials) < prescribed:
        message = f"{label}: {len(trials)} of {prescribed} trials; the others count as never reached"
        findings.append(Finding("missing", message, str(trials[0].source.parent.parent)))
    elif len(trials) > prescribed:
        use = f"only the first {prescribed} count" if prescribed_only else "all count"
        message = f"{label}: {len(trials)} trials, the ruleset prescribes {prescribed}: {use}"
        findings.append(Finding("wrong count", message, str(trials[prescribed].source)))
    return tuple(trials[:prescribed] if prescribed_only else trials)


def _unranked(
    cells: Mapping[Cell, tuple[Trial, ...]], names: Sequence[str], ruleset: Ruleset, findings: list[Finding]
) -> dict[str, str]:
    """Submissions with an interrupted trial, or whose charged examples are not exact where examples are the clock."""
    unranked: dict[str, str] = {}
    for (s, _, _), trials in cells.items():
        for trial in trials:
            if trial.status == "interrupted":
                unranked.setdefault(names[s], "has interrupted trials: run them again")
                message = f"{trial.name} was interrupted: {names[s]} is not ranked until it is run again"
                findings.append(Finding("interrupted", message, str(trial.source)))
            elif ruleset.clock == "examples" and (
                trial.examples is None or (trial.recorded is not None and not trial.recorded.examples_exact)
            ):
                unranked.setdefault(names[s], "its examples are not exact")
                message = f"{trial.name}: examples are not exact: {names[s]} is not ranked by examples"
                findings.append(Finding("inexact examples", message, str(trial.source)))
    return unranked
