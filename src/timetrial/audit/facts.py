"""What the process that holds the workload says: of the workload, and of each trial's parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from timetrial.target import Target


@dataclass(frozen=True, kw_only=True)
class WorkloadFacts:
    """A workload as this installation has it."""

    workload: str
    version: int
    sha256: str
    target: Target | None
    test_target: Target | None
    default_batch_size: int
    rows: Mapping[str, int]
    """Of each split that is evaluated."""
    lock: tuple[str, ...]
    """How it differs from its lock, in words."""
    hardware: Mapping[str, Any]
    """Of the process that evaluates."""
    packages: Mapping[str, str]

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "WorkloadFacts":
        given: dict[str, Any] = {
            name: None if data[name] is None else Target.from_json(data[name]) for name in ("target", "test_target")
        }
        given["lock"] = tuple(data["lock"])
        return WorkloadFacts(**{**data, **given})


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """One set of parameters, evaluated again."""

    sha256: str | None
    """None where there are none that are whole."""
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class TrialFacts:
    """What the parameters of a trial give."""

    untrained: Mapping[str, float]
    """Metrics of the untrained model of the trial's seed."""
    evaluated: Mapping[int, Evaluated]
    """By the eval's position in the record."""

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "TrialFacts":
        evaluated = {int(i): Evaluated(**found) for i, found in data["evaluated"].items()}
        return TrialFacts(untrained=data["untrained"], evaluated=evaluated)
