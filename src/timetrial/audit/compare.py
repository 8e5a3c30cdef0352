"""Whether parameters that were evaluated again give what a record says."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from timetrial.audit.facts import Evaluated, TrialFacts, WorkloadFacts
from timetrial.audit.findings import Finding
from timetrial.audit.reading import AuditedTrial
from timetrial.record import EvalLine, RunHeader

HARDWARE = ("platform", "device_kind", "device_count", "processor", "cores", "xla_flags")
"""What of a machine can change a bit of a result, or a time."""


class Tolerance(NamedTuple):
    """How far two evaluations of the same parameters may lie apart."""

    differ: tuple[str, ...]
    """What differs between the record and this process."""
    relative: float
    rows: int
    """Rows of a split on which rounding may turn a decision."""

    @property
    def exact(self) -> bool:
        return self.relative == 0

    @property
    def same_machine(self) -> bool:
        return not set(self.differ) & set(HARDWARE)

    def __str__(self) -> str:
        if self.exact:
            return "bit for bit"
        why = f"other {', '.join(self.differ)}" if self.differ else "not deterministic on this device"
        return f"to {self.relative:g} or {self.rows} rows ({why})"


def tolerance(run: RunHeader, hardware: Mapping[str, Any], packages: Mapping[str, str]) -> Tolerance:
    """Bit for bit on the same CPU, with as many cores and the same packages; wider where something differs.

    1e-3 or 2 rows on the same platform, 2e-2 or 5 rows on another (matrix units round to fewer bits).
    """
    differ = [name for name in HARDWARE if run.hardware.get(name) != hardware.get(name)]
    differ += [name for name in sorted({*run.packages, *packages}) if run.packages.get(name) != packages.get(name)]
    if "platform" in differ:
        return Tolerance(tuple(differ), 2e-2, 5)
    if differ or hardware.get("platform") != "cpu":
        return Tolerance(tuple(differ), 1e-3, 2)
    return Tolerance((), 0.0, 0)


def check_metrics(
    trial: AuditedTrial, workload: WorkloadFacts, facts: TrialFacts, allowed: Tolerance
) -> Iterator[Finding]:
    """The untrained model is the seed's, and what is kept beside the record reaches what the record says."""
    evals = trial.record.evals
    if evals:
        found = Evaluated(sha256=None, metrics=facts.untrained)
        message = "the untrained model of this seed evaluates to something else"
        yield from _differences(trial, 0, found, workload, allowed, "seeds", message)
    for position in trial.wanted():
        found, line = facts.evaluated[position], evals[position]
        if found.sha256 is None:
            message = "the parameters of this eval are missing, or damaged"
            yield _wrong(trial, position, "parameters", "parameters_sha256", message, line.parameters_sha256, "none")
            continue
        if line.parameters_sha256 is not None and line.parameters_sha256 != found.sha256:
            message = "these are not the parameters that were evaluated"
            expected = line.parameters_sha256
            yield _wrong(trial, position, "parameters", "parameters_sha256", message, expected, found.sha256)
        message = "the kept parameters evaluate to something else"
        yield from _differences(trial, position, found, workload, allowed, "metrics", message)


def _differences(
    trial: AuditedTrial,
    position: int,
    found: Evaluated,
    workload: WorkloadFacts,
    allowed: Tolerance,
    kind: str,
    message: str,
) -> Iterator[Finding]:
    recorded = trial.record.evals[position].metrics
    for name in sorted({*recorded, *found.metrics}):
        old, new = recorded.get(name), found.metrics.get(name)
        if old is None or new is None or not agree(old, new, allowed, workload.rows.get(name.partition("/")[0], 1)):
            yield _wrong(trial, position, kind, f"metrics.{name}", f"{message}, compared {allowed}", new, old)


def agree(old: float, new: float, allowed: Tolerance, rows: int) -> bool:
    """Whether two values of a metric over that many rows are as close as they must be. NaN agrees with NaN."""
    if old == new or (math.isnan(old) and math.isnan(new)):
        return True
    if allowed.exact:
        return False
    return math.isclose(old, new, rel_tol=allowed.relative, abs_tol=allowed.rows / rows)


def wanted_splits(line: EvalLine) -> list[str]:
    """The splits of which an eval holds metrics, in the order in which the judge evaluates them."""
    splits = {name.partition("/")[0] for name in line.metrics}
    return [split for split in ("valid", "train_eval", "test") if split in splits]


def _wrong(
    trial: AuditedTrial, position: int, kind: str, field: str, message: str, expected: object, found: object
) -> Finding:
    return Finding(
        kind=kind,
        message=message,
        path=trial.path,
        line=trial.eval_lines[position],
        field=field,
        expected=expected,
        found=found,
    )
