"""Whether the seconds of a board may be compared: one kind of machine, and nothing that disturbed a trial."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from timetrial_scoring.board import Finding, Trial
from timetrial_scoring.grid import Grid

NOISY = {"steal": 0.05, "others": 0.1, "throttled": 0.05}
"""What a trial's noise may come to at most: shares, as in docs/results-format.md."""
_WORDS = {
    "steal": "of the cores' time was taken by the hypervisor",
    "others": "of the cores' time was used by other processes",
    "throttled": "of the time a core was slowed down for its heat",
}
_TIMED = ("reached", "budget")
"""Trials that ended otherwise have no time that noise could have changed."""


def obstacles(grid: Grid) -> list[Finding]:
    """Why the seconds of this board should not be compared; nothing where another clock is charged.

    Of records alone: AlgoPerf's logs do not say enough.
    """
    if grid.ruleset.clock != "seconds":
        return []
    recorded = [trial for trial in grid.trials() if trial.recorded is not None]
    return [*_machines(recorded), *_noise(recorded)]


def _machines(trials: list[Trial]) -> Iterator[Finding]:
    """One finding for each workload that ran on several kinds of machine."""
    by_workload: dict[str, dict[str, list[Trial]]] = defaultdict(lambda: defaultdict(list))
    for trial in trials:
        assert trial.recorded is not None
        by_workload[trial.workload][trial.recorded.machine].append(trial)
    for workload, machines in by_workload.items():
        if len(machines) > 1:
            most = sorted(machines.items(), key=lambda item: -len(item[1]))
            common = set.intersection(*(set(machine.split(", ")) for machine in machines))
            listed = "; ".join(
                f"{len(found)} trials of {_names(found)} on {_without(machine, common)}" for machine, found in most
            )
            yield Finding("mixed hardware", f"{workload}: {listed}", str(most[1][1][0].source), 1)


def _without(machine: str, common: set[str]) -> str:
    """What sets a machine apart from the others."""
    return ", ".join(part for part in machine.split(", ") if part not in common) or "a machine that says less of itself"


def _noise(trials: list[Trial]) -> Iterator[Finding]:
    """One finding for each kind of noise."""
    for kind, most in NOISY.items():
        found = [
            (trial.recorded.noise[kind], trial)
            for trial in trials
            if trial.recorded is not None and trial.status in _TIMED and trial.recorded.noise.get(kind, 0.0) > most
        ]
        if found:
            worst, where = max(found, key=lambda item: item[0])
            noisy = [trial for _, trial in found]
            message = f"{len(found)} of {len(trials)} trials ({_names(noisy)}): up to {worst:.0%} {_WORDS[kind]}"
            yield Finding("noisy trials", message, str(where.source))


def _names(trials: list[Trial]) -> str:
    counts = Counter(trial.submission for trial in trials)
    return ", ".join(f"{name} {n}" if len(counts) > 1 else name for name, n in sorted(counts.items()))
