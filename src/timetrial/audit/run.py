"""An audit, from folders to findings: one process for each workload and number of cores, not one for each trial."""

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from timetrial.audit import retime
from timetrial.audit.board import check_board
from timetrial.audit.compare import check_metrics, tolerance, wanted_splits
from timetrial.audit.facts import TrialFacts, WorkloadFacts
from timetrial.audit.findings import Finding
from timetrial.audit.grid import check_grid
from timetrial.audit.header import (
    check_campaign,
    check_point,
    check_rules,
    check_source,
    check_workload,
    installed_ruleset,
)
from timetrial.audit.lines import check_chain, check_clocks, check_end, check_tests
from timetrial.audit.reading import AuditedTrial, Runs, read_runs
from timetrial.audit.space import search_space
from timetrial.launchers.process import WORKER
from timetrial.ruleset import MatmulPrecision
from timetrial.seeds import seed as seed_of

Ask = Callable[[str, tuple[int, ...], Sequence[AuditedTrial]], Iterator[Mapping[str, Any]]]
"""(workload, cores, trials of one precision) -> answers of `timetrial.audit.recompute`, or {"failed": why}."""
EVALUATOR = (sys.executable, "-P", "-m", "timetrial.audit.recompute")
_LOG_TAIL = 300
"""Characters of what a process that failed said last."""


@dataclass(frozen=True, kw_only=True)
class TrialAudit:
    """One trial, and what was found there."""

    trial: AuditedTrial
    compared: str
    """How its metrics were compared with those evaluated again: "bit for bit", or the tolerance and why."""
    findings: tuple[Finding, ...]


@dataclass(kw_only=True)
class Audit:
    """What an audit looked at, and what it found."""

    trials: list[TrialAudit] = field(default_factory=list[TrialAudit])
    findings: list[Finding] = field(default_factory=list[Finding])
    """About campaigns, boards, and files that are no records."""
    notes: list[str] = field(default_factory=list[str])
    """What could not be looked at, or was by less strict a measure."""
    reruns: list[retime.Rerun] = field(default_factory=list[retime.Rerun])
    retime_seed: int | None = None

    def all_findings(self) -> list[Finding]:
        of_trials = [finding for audited in self.trials for finding in audited.findings]
        return [*self.findings, *of_trials, *(found for again in self.reruns for found in again.findings)]


def run_audit(
    folders: Sequence[Path],
    *,
    tell: Callable[[TrialAudit | retime.Rerun], None] = lambda audited: None,
    retimes: int = 0,
    retime_seed: int = 0,
    factor: float = retime.FACTOR,
    ask: Ask | None = None,
    worker: Sequence[str] = WORKER,
) -> Audit:
    """Audits all runs in the folders; nothing in them is written. `tell` is given each trial as it is done.

    Raises UserError where there is nothing to audit.
    """
    runs = read_runs(folders)
    audit = Audit(findings=list(runs.findings))
    for campaign in runs.campaigns:
        audit.findings += check_campaign(campaign)
    for trial, workload, facts in _evaluate(runs.trials, ask or process_of(EVALUATOR), audit):
        audited = _audit_trial(trial, workload, facts)
        audit.trials.append(audited)
        tell(audited)
    boards: dict[str, list[AuditedTrial]] = defaultdict(list)
    for trial in runs.trials:
        boards[trial.run.ruleset_sha256].append(trial)
    for board in boards.values():
        audit.findings += check_board(board)
    audit.notes += _notes(runs, audit)
    if retimes:
        audit.retime_seed = retime_seed
        for trial in retime.choose(runs.trials, retimes, retime_seed):
            with tempfile.TemporaryDirectory(prefix="timetrial-retime-") as scratch:
                again = retime.rerun(trial, Path(scratch), factor=factor, worker=worker)
            audit.reruns.append(again)
            tell(again)
    return audit


def _audit_trial(trial: AuditedTrial, workload: WorkloadFacts | None, facts: TrialFacts | None) -> TrialAudit:
    always = trial.campaign is not None and trial.campaign.ruleset.test_evals == "always"
    found = [
        *check_chain(trial),
        *check_rules(trial),
        *check_source(trial),
        *check_point(trial),
        *check_clocks(trial),
        *check_grid(trial, 1 if workload is None else workload.default_batch_size),
        *check_end(trial),
        *check_tests(trial, always),
    ]
    compared = "not evaluated"
    if workload is not None:
        found += check_workload(trial, workload)
        allowed = tolerance(trial.run, workload.hardware, workload.packages)
        if facts is not None:
            found += check_metrics(trial, workload, facts, allowed)
            compared = str(allowed)
    return TrialAudit(trial=trial, compared=compared, findings=tuple(found))


def _evaluate(
    trials: Sequence[AuditedTrial], ask: Ask, audit: Audit
) -> Iterator[tuple[AuditedTrial, WorkloadFacts | None, TrialFacts | None]]:
    """Each trial with what its parameters give; without that, and with a finding, where the process failed."""
    groups: dict[tuple[str, MatmulPrecision | None, tuple[int, ...]], list[AuditedTrial]] = defaultdict(list)
    for trial in trials:
        groups[trial.run.workload, trial.run.matmul_precision, _cores(trial.run.hardware.get("cores"))].append(trial)
    for (name, _, cores), group in groups.items():
        waiting = {str(trial.folder): trial for trial in group}
        workload: WorkloadFacts | None = None
        for answer in ask(name, cores, group):
            if "workload" in answer:
                workload = WorkloadFacts.from_json(answer["workload"])
                audit.findings += _lock_findings(workload, group[0])
            elif "trial" in answer:
                yield waiting.pop(answer["trial"]), workload, TrialFacts.from_json(answer)
            else:
                audit.findings.append(Finding(kind="recompute", message=answer["failed"], path=group[0].path))
        for trial in waiting.values():
            yield trial, workload, None


def _lock_findings(workload: WorkloadFacts, trial: AuditedTrial) -> list[Finding]:
    return [
        Finding(kind="workload", message=f"{workload.workload} differs from its lock: {said}", path=trial.path)
        for said in workload.lock
    ]


def process_of(evaluator: Sequence[str]) -> Ask:
    """Asks a fresh process, which imports nothing of any submission."""
    return partial(_ask, evaluator)


def _ask(
    evaluator: Sequence[str], name: str, cores: tuple[int, ...], trials: Sequence[AuditedTrial]
) -> Iterator[Mapping[str, Any]]:
    request = {
        "workload": name,
        "matmul_precision": trials[0].run.matmul_precision,
        "cores": cores,
        "trials": [question(trial) for trial in trials],
    }
    with tempfile.TemporaryFile("w+") as log, tempfile.TemporaryFile("w+") as asked:
        json.dump(request, asked)
        asked.seek(0)
        process = subprocess.Popen(evaluator, stdin=asked, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            with process.stdout:
                for line in process.stdout:
                    yield json.loads(line)
            code = process.wait()
        except BaseException:  # also where nobody asks for the next answer
            process.kill()
            process.wait()
            raise
        if code != 0:
            log.seek(0)
            said = log.read().strip()[-_LOG_TAIL:]
            yield {"failed": f"the process that evaluates {name} ended with {code}: {said}"}


def question(trial: AuditedTrial) -> dict[str, Any]:
    """What is to be evaluated of a trial."""
    run, evals = trial.run, trial.record.evals
    return {
        "folder": str(trial.folder),
        "init_seed": seed_of(run.seed, run.workload, run.study, run.trial, "init"),
        "untrained": wanted_splits(evals[0]) if evals else [],
        "evals": {i: (evals[i].step, wanted_splits(evals[i])) for i in trial.wanted()},
    }


def _cores(count: Any) -> tuple[int, ...]:
    """As many of this machine's cores as the record had; empty, for all, where there are no more than those."""
    own = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return tuple(own[:count]) if isinstance(count, int) and 0 < count < len(own) else ()


def _notes(runs: Runs, audit: Audit) -> Iterator[str]:
    if runs.imported:
        yield f"{len(runs.imported)} records were made of AlgoPerf's logs, which hold nothing to audit: left out"
    without = sum(trial.result is None for trial in runs.trials)
    if without:
        yield f"{len(runs.trials)} records, {without} of them without a result: killed, interrupted or still running"
    unchained = sum(b'"prev"' not in trial.lines[-1] for trial in runs.trials)
    if unchained:
        yield f"{unchained} records have no chain, as an older timetrial wrote them: an edit of those shows less surely"
    attempts = sum(len(list(trial.folder.glob("record.interrupted-*.jsonl"))) for trial in runs.trials)
    if attempts:
        yield f"{attempts} attempts were interrupted and begun anew; their records stand beside those that count"
    for compared in sorted({audited.compared for audited in audit.trials} - {"bit for bit"}):
        count = sum(audited.compared == compared for audited in audit.trials)
        yield f"metrics of {count} trials: compared {compared}"
    for campaign in runs.campaigns:
        installed = installed_ruleset(campaign.ruleset)
        if installed is None or installed.version != campaign.ruleset.version:
            name = f"{campaign.ruleset.name} {campaign.ruleset.version}"
            yield f"ruleset {name} is not installed: its contents are taken from {campaign.path}"
    unread = {
        trial.run.submission
        for trial in runs.trials
        if trial.source is not None and trial.run.tuning == "external" and search_space(trial.source) is None
    }
    for name in sorted(unread):
        yield f"the search space of {name} shows only when it is run: the names of its hyperparameters are compared"
