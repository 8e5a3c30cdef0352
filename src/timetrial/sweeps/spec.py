"""What a sweep tries, as its TOML file says. jax is imported by `points` alone.

Tuning follows "Descending through a Crowded Valley": the points of an optimizer are its defaults (number 0) and one
sequence of random draws (1, 2, …), the same for every problem and schedule. A budget of one trial is the defaults, one
of n the first n draws, so that a trial serves every budget that contains it. Points are compared on seed 0; the best of
each budget is run again on seeds 1, 2, …, which decided nothing.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from timetrial import fields
from timetrial.errors import UserError, unknown
from timetrial.seeds import seed as seed_of
from timetrial.tuning import Point

Loop = Literal["scan", "python", "measure"]


@dataclass(frozen=True, kw_only=True)
class ProblemSpec:
    """A problem, and how long and in what way its trials are trained."""

    name: str
    steps: int
    evals: int
    lanes: int
    """Trials that one program trains."""
    loop: Loop
    """`measure` tries what is fastest here: a scan or a Python loop over so many lanes, or over one."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Optimizers x problems x budgets x schedules, with the seeds of tuning (0) and of reruns (1 to `reruns`)."""

    name: str
    description: str
    seed: int
    optimizers: tuple[str, ...]
    problems: tuple[ProblemSpec, ...]
    schedules: tuple[str, ...]
    budgets: tuple[int, ...]
    reruns: int

    @property
    def cells(self) -> list[tuple[ProblemSpec, str]]:
        """What is run by one process: every (problem, optimizer)."""
        return [(problem, optimizer) for problem in self.problems for optimizer in self.optimizers]

    @property
    def configurations(self) -> int:
        return len(self.cells) * len(self.budgets) * len(self.schedules)

    @property
    def tuning_points(self) -> list[int]:
        """The numbers of all points that some budget holds."""
        return sorted({point for budget in self.budgets for point in points_of(budget)})

    @property
    def most_trials(self) -> int:
        """The number of trials where no two budgets have the same winner."""
        each = len(self.tuning_points) + len(self.budgets) * self.reruns
        return len(self.cells) * len(self.schedules) * each

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def points_of(budget: int) -> range:
    """The numbers of the points that a budget of so many trials tries."""
    return range(1) if budget == 1 else range(1, budget + 1)


def points(sweep: Sweep, optimizer: str) -> list[Point]:
    """Every point of an optimizer, by number: the defaults, then draws that are independent of each other."""
    import numpy as np

    from timetrial.sweeps.optimizers import OPTIMIZERS
    from timetrial.tuning import default_point

    space = OPTIMIZERS[optimizer].space
    source = seed_of(sweep.seed, optimizer, 0, None, "tuning")
    rng = np.random.RandomState([source & 0xFFFFFFFF, source >> 32])  # numpy keeps its stream fixed (NEP 19)
    draws = rng.random_sample((max(sweep.budgets), len(space)))
    drawn: list[Point] = [
        {name: d.at(float(u)) for (name, d), u in zip(space.items(), row, strict=True)} for row in draws
    ]
    return [default_point(space), *drawn]


_COMMON = ("steps", "evals", "lanes", "loop")
"""What the file may say for all problems, and again for one."""
_KEYS = ("description", "seed", "optimizers", "problems", "schedules", "budgets", "reruns", *_COMMON)


def load_spec(path: Path) -> Sweep:
    """The sweep that a TOML file describes; `UserError` where it describes none. Imports jax."""
    from timetrial.sweeps.optimizers import OPTIMIZERS
    from timetrial.sweeps.problems import check_problem
    from timetrial.sweeps.schedules import SCHEDULES

    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no TOML file: {error}") from None
    sweep = from_json({"name": path.stem, **_with_problems(path, data)}, where=str(path))
    optimizers = tuple(OPTIMIZERS) if sweep.optimizers == ("all",) else sweep.optimizers
    schedules = tuple(SCHEDULES) if sweep.schedules == ("all",) else sweep.schedules
    for kind, asked, known in (
        ("optimizer", optimizers, list(OPTIMIZERS)),
        ("schedule", schedules, list(SCHEDULES)),
    ):
        for name in asked:
            if name not in known:
                raise unknown(kind, name, known, f"{path} names it; docs/sweeps.md lists all.")
    for problem in sweep.problems:
        check_problem(problem.name)
    return replace(sweep, optimizers=optimizers, schedules=schedules)


def _with_problems(path: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """The file's content with what it says of all problems written into each."""
    for key in data:
        if key not in _KEYS:
            raise unknown("key", key, _KEYS, f"{path} has it; docs/sweeps.md explains them.")
    common = {"loop": "measure", "lanes": 64, **{k: data[k] for k in _COMMON if k in data}}
    own: Any = data.get("problems", {})
    if isinstance(own, list):
        own = {str(name): {} for name in cast(list[Any], own)}
    if not isinstance(own, dict) or not all(
        isinstance(changes, dict) for changes in cast(dict[str, Any], own).values()
    ):
        raise UserError(f"{path}: problems must be a list of names, or a table with a table for each")
    listed = [{**common, "name": name, **changes} for name, changes in cast(dict[str, Any], own).items()]
    rest = {key: value for key, value in data.items() if key not in _COMMON}
    return {"description": "", "seed": 0, "reruns": 0, **rest, "problems": listed}


def from_json(data: Mapping[str, Any], *, where: str) -> Sweep:
    """The sweep in `data`, as `Sweep.to_json` writes it; `UserError` names what is wrong, and `where`."""

    def checked(what: str, found: Any, convert: Any) -> Any:
        try:
            return convert(found)
        except ValueError as error:
            raise UserError(f"{where}: {what} must be {error}, not {found!r}") from None

    def take(what: str, source: Mapping[str, Any], convert: Any) -> Any:
        if what not in source:
            raise UserError(f"{where}: {what} is missing; docs/sweeps.md explains it")
        return checked(what, source[what], convert)

    def problem(entry: Mapping[str, Any]) -> ProblemSpec:
        loops = ("scan", "python", "measure")
        found = ProblemSpec(
            name=take("name", entry, fields.text),
            steps=take("steps", entry, _positive),
            evals=take("evals", entry, _positive),
            lanes=take("lanes", entry, _positive),
            loop=cast(Loop, take("loop", entry, fields.one_of(loops))),
        )
        if extra := set(entry) - set(asdict(found)):
            raise UserError(f"{where}: problem {found.name!r} has {min(extra)!r}, which means nothing")
        if found.steps % found.evals:
            raise UserError(
                f"{where}: problem {found.name!r} has {found.steps} steps, which {found.evals} evals do not divide"
            )
        return found

    sweep = Sweep(
        name=take("name", data, fields.text),
        description=take("description", data, fields.text),
        seed=take("seed", data, fields.count),
        optimizers=take("optimizers", data, _names),
        problems=tuple(problem(entry) for entry in take("problems", data, _some)),
        schedules=take("schedules", data, _names),
        budgets=tuple(checked("budgets", budget, _positive) for budget in take("budgets", data, _some)),
        reruns=take("reruns", data, fields.count),
    )
    for what, listed in (
        ("optimizers", sweep.optimizers),
        ("schedules", sweep.schedules),
        ("problems", [each.name for each in sweep.problems]),
        ("budgets", sweep.budgets),
    ):
        if len(set(listed)) < len(listed):
            raise UserError(f"{where}: {what} has something twice")
    return sweep


def _positive(value: Any) -> int:
    if fields.count(value) < 1:
        raise ValueError("at least 1")
    return value


def _some(value: Any) -> list[Any]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("a list of at least one")
    return list(cast(list[Any], value))


def _names(value: Any) -> tuple[str, ...]:
    return fields.texts(_some(value))
