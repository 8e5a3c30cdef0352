"""What scoring reads, whoever wrote it: trials with their eval curves, and what was odd about them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from timetrial.record import Crossing, Status
from timetrial.ruleset import Clock, Ruleset
from timetrial.target import Target

Floats = NDArray[np.float64]
TuningKind = Literal["external", "self"]


@dataclass(frozen=True)
class Finding:
    """One oddity of the input. Nothing is left out of a score without one."""

    kind: str
    message: str
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        where = "" if self.file is None else self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{self.kind}: {self.message}" + (f" ({where})" if where else "")


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What only our own records say of a trial."""

    tuning: TuningKind
    clock: Clock
    ruleset: str
    ruleset_sha256: str
    workload_version: str
    """Version and hash of the workload."""
    target: Target
    budget: float
    """In units of `clock`."""
    crossing: Crossing | None
    examples_exact: bool
    packages: Mapping[str, str]
    """Versions of Python and of the packages that can change a result."""
    machine: str = ""
    """What decides how fast the machine is (`timetrial.fingerprint.essentials`)."""
    noise: Mapping[str, float] = field(default_factory=dict[str, float])
    """What disturbed the trial, as far as the record says."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """One training run. Eval i stands on line i + 2 of `source`."""

    source: Path
    submission: str
    workload: str
    study: int
    trial: int
    """Numbers as the source has them; AlgoPerf counts trials from 1."""
    seconds: Floats
    """Charged seconds at each eval."""
    steps: Floats
    examples: Floats | None
    """Charged examples at each eval; None where the source does not say."""
    metrics: Mapping[str, Floats]
    """By `split/metric`, the validation split being `valid`."""
    hparams: Mapping[str, Any] | None
    seed: tuple[int, ...] | None
    """What the trial's randomness derives from, as far as the source says."""
    hardware: str | None
    status: Status | None
    """How the trial ended; None where the source does not say."""
    recorded: Recorded | None

    def charge(self, clock: Clock) -> Floats | None:
        return {"seconds": self.seconds, "steps": self.steps, "examples": self.examples}[clock]

    @property
    def name(self) -> str:
        return f"{self.submission}, {self.workload}, study {self.study}, trial {self.trial}"


@dataclass(frozen=True)
class Campaign:
    """What `campaign.json` says of the runs beside it."""

    source: Path
    ruleset: Ruleset
    submissions: tuple[str, ...]


@dataclass(frozen=True)
class Runs:
    """All that was found in a folder."""

    root: Path
    trials: tuple[Trial, ...]
    """In the order of submission, workload, study, trial."""
    findings: tuple[Finding, ...]
    campaigns: tuple[Campaign, ...]
