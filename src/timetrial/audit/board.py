"""What must be alike across the trials of a board, and what must not."""

import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

from timetrial.audit.compare import HARDWARE
from timetrial.audit.findings import Finding
from timetrial.audit.reading import AuditedTrial
from timetrial.audit.space import search_space

RATE_OF_SUBMISSION = 4.0
"""By how much a trial's examples a second may differ from the median of its submission on the workload."""
RATE_OF_WORKLOAD = 20.0
"""Likewise from the median of all submissions on the same machine."""
_SHORTEST = 1.0
"""Seconds without compilation below which a rate says nothing."""
_FEWEST = 3


def check_board(trials: Sequence[AuditedTrial]) -> Iterator[Finding]:
    """All findings about trials that ran under one ruleset, each at the trial that stands out."""
    for name in sorted({name for trial in trials for name in trial.run.packages}):
        yield from _mixed(trials, "environment", f"packages.{name}", lambda t, n=name: t.run.packages.get(n))
    yield from _mixed(trials, "environment", "isolation", lambda t: t.run.isolation)
    for group in _grouped(trials, lambda t: t.run.workload):  # a ruleset may say it by workload
        for name in ("accumulate", "remat"):
            yield from _mixed(group, "environment", name, lambda t, n=name: getattr(t.run, n))
    for name in HARDWARE:
        timed = [trial for trial in trials if trial.run.clock == "seconds"]
        yield from _mixed(timed, "hardware", f"hardware.{name}", lambda t, n=name: t.run.hardware.get(n))
    yield from _mixed_points(trials)
    yield from _copies(trials)
    by_submission = _grouped(trials, lambda t: (t.run.submission, t.run.workload))
    by_workload = _grouped(trials, lambda t: (t.run.workload, *(str(t.run.hardware.get(n)) for n in HARDWARE)))
    for groups, factor, whose in (
        (by_submission, RATE_OF_SUBMISSION, "the submission's other trials"),
        (by_workload, RATE_OF_WORKLOAD, "all trials on this workload and machine"),
    ):
        for group in groups:
            yield from _rates(group, factor, whose)


def _grouped(trials: Iterable[AuditedTrial], of: Callable[[AuditedTrial], Hashable]) -> Iterable[list[AuditedTrial]]:
    groups: dict[Hashable, list[AuditedTrial]] = defaultdict(list)
    for trial in trials:
        groups[of(trial)].append(trial)
    return groups.values()


def _mixed(
    trials: Sequence[AuditedTrial], kind: str, field: str, of: Callable[[AuditedTrial], object]
) -> Iterator[Finding]:
    """A finding for each value but the commonest, at the first trial that has it."""
    groups = sorted(_grouped(trials, lambda trial: json.dumps(of(trial))), key=len, reverse=True)
    for group in groups[1:]:
        message = f"not alike across the board: so in {len(group)} of {len(trials)} trials"
        yield _at(group[0], kind, field, message, of(groups[0][0]), of(group[0]))


def _mixed_points(trials: Sequence[AuditedTrial]) -> Iterator[Finding]:
    """Where a search space cannot be read, at least the names are alike, and the default points."""
    for group in _grouped(trials, lambda t: t.run.submission):
        begun = [trial for trial in group if trial.record.evals]
        if not begun or begun[0].source is None or search_space(begun[0].source) is not None:
            continue
        yield from _mixed(begun, "hyperparameters", "hparams", lambda t: sorted(t.run.hparams))
        campaign = begun[0].campaign
        tuning = None if campaign is None else campaign.ruleset.external
        if tuning is not None and tuning.points == "default":
            yield from _mixed(begun, "hyperparameters", "hparams", lambda t: dict(t.run.hparams))


def _copies(trials: Sequence[AuditedTrial]) -> Iterator[Finding]:
    """Trials of other seeds never come to the same parameters, to the bit: their data come in another order."""
    first: dict[tuple[str, str], AuditedTrial] = {}
    for trial in trials:
        for sha256 in [line.parameters_sha256 for line in trial.record.evals if line.parameters_sha256]:
            other = first.setdefault((trial.run.workload, sha256), trial)
            if _place(other) != _place(trial):
                message = f"the same parameters as in {other.path}"
                yield _at(trial, "duplicate", "parameters_sha256", message, "its own", sha256)
                break


def _place(trial: AuditedTrial) -> tuple[int, int, int]:
    return trial.run.seed, trial.run.study, trial.run.trial


def rate(trial: AuditedTrial) -> float | None:
    """Examples a second (steps, where none are counted) without compilation; None where the trial was too short."""
    end = trial.result
    if end is None or end.seconds - end.compile_seconds < _SHORTEST or not end.step:
        return None
    return (end.examples or end.step) / (end.seconds - end.compile_seconds)


def _rates(group: Sequence[AuditedTrial], factor: float, whose: str) -> Iterator[Finding]:
    timed = [(trial, found) for trial in group if (found := rate(trial)) is not None]
    if len(timed) < _FEWEST:
        return
    usual = statistics.median(found for _, found in timed)
    for trial, found in timed:
        if not usual / factor <= found <= usual * factor:
            message = f"not within a factor of {factor:g} of {whose}"
            yield Finding(
                kind="rate",
                message=message,
                path=trial.path,
                line=trial.numbered[-1][0],
                field="seconds",
                expected=f"about {usual:.4g} examples a second",
                found=f"{found:.4g}",
            )


def _at(trial: AuditedTrial, kind: str, field: str, message: str, expected: object, found: object) -> Finding:
    return Finding(kind=kind, message=message, path=trial.path, line=1, field=field, expected=expected, found=found)
