"""The rules of a benchmark: which workloads, which clock, how much budget, how many studies. Standard library only.

A ruleset is a TOML file in `timetrial/rulesets/`. It is read into the frozen values below; nothing else in the code
knows a budget, an eval grid or a number of studies.
"""

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from timetrial.errors import UserError, unknown
from timetrial.target import Target

Clock = Literal["seconds", "steps", "examples"]
CLOCKS: tuple[Clock, ...] = ("seconds", "steps", "examples")
MatmulPrecision = Literal["float32", "tensorfloat32", "bfloat16"]
MATMUL_PRECISIONS: tuple[MatmulPrecision, ...] = ("float32", "tensorfloat32", "bfloat16")
RULESETS = Path(__file__).parent / "rulesets"


@dataclass(frozen=True, kw_only=True)
class WorkloadRules:
    """What a ruleset says of one workload. `budget` and `eval_every` are in units of the ruleset's clock."""

    budget: float
    eval_every: float | None = None
    """Distance of the eval grid's points; None where the ruleset only scores imported logs."""
    horizon_examples: int | None = None
    """Examples a submission should plan its schedule for: what a good run sees within the budget."""
    target: Target | None = None
    """None: the workload's own, derived target."""
    test_target: Target | None = None
    variant_of: str | None = None
    """The base workload of a held-out variant; None for a base workload."""
    anchor: float | None = None
    """Time to target of the frozen reference (units of the clock), for the anchored score."""
    milestones: tuple[float, ...] = ()
    """Values of the target's metric, none harder than the target, for run-time distributions over many targets."""
    accumulate: int = 1
    """In how many parts a batch goes through the loss, to save memory (`timetrial.workload.economical`)."""
    remat: bool = False
    """Whether the pass back computes again all but products and convolutions, to save memory."""

    def economy(self, accumulate: int, remat: bool) -> tuple[int, bool]:
        """`accumulate` and `remat` of a campaign that has those for all workloads; 1 and False are the ruleset's."""
        return accumulate if accumulate > 1 else self.accumulate, remat or self.remat


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a submission is tuned: `studies` independent repetitions of `trials` points each."""

    studies: int
    trials: int
    points: Literal["default", "halton"] = "halton"
    """`default`: the search space's own default point, in each trial. `halton`: a quasi-random sequence."""
    budget_factor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Ruleset:
    name: str
    version: int
    description: str
    clock: Clock
    external: Tuning | None
    """For submissions with a search space; None where the ruleset has no such board."""
    self_tuning: Tuning | None
    """For submissions without hyperparameters: a board of its own."""
    workloads: Mapping[str, WorkloadRules]
    confirmation: int = 0
    """Evals after the crossing that must meet the target too."""
    test_evals: Literal["at_target", "always"] = "at_target"
    """When the test split is evaluated: where the target is met and at the end, or at every eval."""
    hang_seconds: float = 300.0
    """Wall seconds without a finished step after which a trial is given up as hung."""
    matmul_precision: MatmulPrecision | None = None
    """To what a model's products and convolutions may at most be rounded; None for jax's default."""
    modified: tuple[str, ...] = field(default=())
    """How this differs from the file it was read from, in words ("studies 3 -> 1")."""

    @property
    def base_workloads(self) -> tuple[str, ...]:
        return tuple(name for name, rules in self.workloads.items() if rules.variant_of is None)

    def variants(self, base: str) -> tuple[str, ...]:
        """The held-out variants of a base workload."""
        return tuple(name for name, rules in self.workloads.items() if rules.variant_of == base)

    def tuning(self, *, self_tuning: bool) -> Tuning:
        chosen = self.self_tuning if self_tuning else self.external
        if chosen is None:
            kind = "self-tuning" if self_tuning else "externally tuned"
            raise UserError(f"ruleset {self.name!r} has no board for {kind} submissions")
        return chosen

    def budget(self, workload: str, *, self_tuning: bool) -> float:
        """What a trial may charge, in units of the clock. A count of steps or examples stays whole."""
        budget = self.workloads[workload].budget * self.tuning(self_tuning=self_tuning).budget_factor
        return budget if self.clock == "seconds" else float(math.floor(budget))

    @cached_property
    def sha256(self) -> str:
        """Identifies all that the ruleset says; two rulesets with the same hash mean the same."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        data["modified"] = list(self.modified)
        # As before there were such fields: the hash stays.
        if self.matmul_precision is None:
            del data["matmul_precision"]
        for rules in data["workloads"].values():
            for name in ("accumulate", "remat"):
                if rules[name] == getattr(WorkloadRules, name):
                    del rules[name]
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any], *, where: str = "ruleset") -> "Ruleset":
        """The ruleset a mapping (TOML or JSON) describes; `UserError` names what is missing, unknown, out of range."""
        try:
            return _parse(data)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        except KeyError as error:
            raise UserError(f"{where}: {error} is missing; see docs/rulesets.md for the fields") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{where}: {type(error).__name__}: {error}; see docs/rulesets.md for the fields") from error


def _parse(data: Mapping[str, Any]) -> Ruleset:
    data = dict(data)
    workloads = {name: _parse_workload(name, rules) for name, rules in dict(data.pop("workloads")).items()}
    external, self_tuning = data.pop("external", None), data.pop("self_tuning", None)
    ruleset = Ruleset(
        workloads=workloads,
        external=None if external is None else Tuning(**external),
        self_tuning=None if self_tuning is None else Tuning(**self_tuning),
        modified=tuple(data.pop("modified", ())),
        **data,
    )
    if ruleset.clock not in CLOCKS:
        raise UserError(f"clock must be one of {', '.join(CLOCKS)}, not {ruleset.clock!r}")
    for tuning in (ruleset.external, ruleset.self_tuning):
        if tuning is None:
            continue
        _check_count("studies", tuning.studies, least=1)
        _check_count("trials", tuning.trials, least=1)
        _check_positive("budget_factor", tuning.budget_factor)
        if tuning.points not in ("default", "halton"):
            raise UserError(f'points must be "default" or "halton", not {tuning.points!r}')
    if ruleset.external is None and ruleset.self_tuning is None:
        raise UserError("needs a table [external] or [self_tuning]")
    _check_count("confirmation", ruleset.confirmation, least=0)
    _check_positive("hang_seconds", ruleset.hang_seconds)
    if ruleset.test_evals not in ("at_target", "always"):
        raise UserError(f'test_evals must be "at_target" or "always", not {ruleset.test_evals!r}')
    if ruleset.matmul_precision not in (None, *MATMUL_PRECISIONS):
        names = ", ".join(MATMUL_PRECISIONS)
        raise UserError(f"matmul_precision must be one of {names}, not {ruleset.matmul_precision!r}")
    for name, rules in workloads.items():
        if rules.variant_of is not None and rules.variant_of not in workloads:
            raise UserError(f"workload {name!r} is a variant of {rules.variant_of!r}, which the ruleset does not list")
    return ruleset


def _parse_workload(name: str, data: Mapping[str, Any]) -> WorkloadRules:
    data = dict(data)
    for key in ("target", "test_target"):
        if data.get(key) is not None:
            data[key] = Target.from_json(data[key])
    data["milestones"] = tuple(float(value) for value in data.get("milestones", ()))
    rules = WorkloadRules(**data)
    _check_positive(f"workload {name!r}: budget", rules.budget)
    for optional in ("eval_every", "horizon_examples", "anchor"):
        if getattr(rules, optional) is not None:
            _check_positive(f"workload {name!r}: {optional}", getattr(rules, optional))
    _check_count(f"workload {name!r}: accumulate", rules.accumulate, least=1)
    if not isinstance(rules.remat, bool):
        raise UserError(f"workload {name!r}: remat must be true or false, not {rules.remat!r}")
    for value in rules.milestones:
        if rules.target is None or (value != rules.target.value and rules.target.met_by(value)):
            raise UserError(f"workload {name!r}: milestone {value:g} needs a target that is at least as hard")
    return rules


def _check_count(what: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{what} must be a whole number, at least {least}, not {value!r}")


def _check_positive(what: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise UserError(f"{what} must be a finite number above 0, not {value!r}")


def ruleset_names() -> list[str]:
    return sorted(path.stem for path in RULESETS.glob("*.toml"))


def load_ruleset(name_or_path: str) -> Ruleset:
    """The ruleset of that name, or in that TOML file (a name with a suffix or a slash is a path)."""
    path = Path(name_or_path)
    if path.suffix != ".toml" and "/" not in name_or_path:
        path = RULESETS / f"{name_or_path}.toml"
        if not path.is_file():
            raise unknown("ruleset", name_or_path, ruleset_names(), "`timetrial list` shows all.")
    try:
        data = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"cannot read ruleset {path}: {error}") from None
    return Ruleset.from_json({"name": path.stem, **data}, where=str(path))
