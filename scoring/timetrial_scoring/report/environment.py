"""Under what the runs were made: rules, machines, package versions, seeds."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import timetrial
from timetrial_scoring.board import Trial
from timetrial_scoring.report.markup import counted
from timetrial_scoring.score import Result
from timetrial_scoring.tables import UNITS
from timetrial_scoring.times import target_of


def environment(result: Result) -> dict[str, Any]:
    """Tables of text by title: each a list of rows whose first cell names the row."""
    rules = result.ruleset
    trials = [trial for board in result.boards for trial in board.grid.trials()]
    tunings = [board.grid.tuning for board in result.boards]
    kinds = [(tuning, rules.tuning(self_tuning=tuning == "self")) for tuning in tunings]
    facts = [
        ["ruleset", f"{rules.name}, version {rules.version}, sha256 {rules.sha256[:12]}"],
        ["description", rules.description],
        *([["changed from its file", "; ".join(rules.modified)]] if rules.modified else []),
        ["charged clock", rules.clock],
        *(
            [f"{tuning} tuning", f"{counted(kind.studies, 'study')} of {counted(kind.trials, 'trial')}"]
            for tuning, kind in kinds
        ),
        ["mode", result.mode],
        ["trials read", f"{len(result.runs.trials):,}, of which {len(trials):,} count"],
        ["scored by", f"timetrial {timetrial.__version__}"],
    ]
    return {
        "Rules": facts,
        "Workloads": _workloads(result, trials),
        "Hardware": _tally(_hardware(trial) for trial in trials),
        "Packages": _packages(trials),
        "Seeds": _seeds(trials),
    }


def _workloads(result: Result, trials: Iterable[Trial]) -> list[list[str]]:
    versions: dict[str, set[str]] = defaultdict(set)
    targets: dict[str, set[str]] = defaultdict(set)
    grid = result.boards[0].grid
    for trial in trials:
        if trial.recorded is not None:
            versions[trial.workload].add(trial.recorded.workload_version)
        target = target_of(grid, trial)
        targets[trial.workload] |= set() if target is None else {str(target)}
    unit = UNITS[result.ruleset.clock]
    rows: list[list[str]] = []
    for name, rules in result.ruleset.workloads.items():
        budgets = " / ".join(f"{board.grid.budget(name):,.6g} {unit}" for board in result.boards)
        known = sorted(targets[name]) or ([] if rules.target is None else [str(rules.target)])
        parts = [*known, f"budget {budgets}", *sorted(versions[name])]
        rows.append(
            [name, "; ".join(parts if rules.variant_of is None else [f"variant of {rules.variant_of}", *parts])]
        )
    return rows


def _hardware(trial: Trial) -> str:
    if trial.hardware is None:
        return "not recorded"
    if trial.recorded is None:
        return trial.hardware
    return ", ".join(f"{key} {value}" for key, value in json.loads(trial.hardware).items() if value not in (None, ""))


def _tally(values: Iterable[str]) -> list[list[str]]:
    return [[counted(count, "trial"), value] for value, count in Counter(values).most_common()]


def _packages(trials: Iterable[Trial]) -> list[list[str]]:
    """Each package with its versions; the number of trials where there are several."""
    versions: dict[str, Counter[str]] = defaultdict(Counter)
    for trial in trials:
        for name, version in ({} if trial.recorded is None else trial.recorded.packages).items():
            versions[name][version] += 1
    return [
        [
            name,
            next(iter(counts))
            if len(counts) == 1
            else ", ".join(f"{version} ({counted(count, 'trial')})" for version, count in counts.most_common()),
        ]
        for name, counts in sorted(versions.items())
    ] or [["versions", "not recorded"]]


def _seeds(trials: Iterable[Trial]) -> list[list[str]]:
    """Our campaign seeds; of imported logs, whose trials each have a seed of their own, how many."""
    campaigns: Counter[int] = Counter()
    own: Counter[int] = Counter()
    unknown = 0
    for trial in trials:
        if trial.seed is None:
            unknown += 1
        else:
            (own if trial.recorded is None else campaigns)[trial.seed[0]] += 1
    rows = [[f"campaign seed {seed}", counted(count, "trial")] for seed, count in sorted(campaigns.items())]
    rows += [["own seeds", f"{len(own):,} different ones in {own.total():,} trials"]] if own else []
    return rows + ([["not recorded", counted(unknown, "trial")]] if unknown else [])
