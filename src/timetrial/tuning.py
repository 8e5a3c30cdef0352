"""From a search space to hyperparameter points, and how a submission reads one.

A `SEARCH_SPACE` is a mapping of names to the distributions below, or a list of points (mappings of names to values).
Drawn floats and integers reach `make` as jax scalars, so that one compiled step serves every point; choices, and the
integers, strings and booleans of a list of points, reach it as Python values, and may decide shapes and branches.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from timetrial.errors import UserError, unknown
from timetrial.ruleset import Tuning

Scalar = bool | int | float | str
Point = Mapping[str, Scalar]


def _clip(value: float, low: float, high: float) -> float:
    """Rounding may carry a value past the bound it was computed from."""
    return min(max(value, low), high)


@dataclass(frozen=True)
class Uniform:
    """A float, uniform in [low, high]."""

    low: float
    high: float
    default: float | None = None

    def at(self, u: float) -> float:
        """The value at quantile `u` of [0, 1)."""
        return _clip(self.low + u * (self.high - self.low), self.low, self.high)


@dataclass(frozen=True)
class LogUniform:
    """A float whose logarithm is uniform in [log low, log high]."""

    low: float
    high: float
    default: float | None = None

    def at(self, u: float) -> float:
        """The value at quantile `u` of [0, 1)."""
        exponent = math.log(self.low) + u * (math.log(self.high) - math.log(self.low))
        return _clip(math.exp(exponent), self.low, self.high)


@dataclass(frozen=True)
class Integers:
    """An integer, uniform in low, …, high (both included)."""

    low: int
    high: int
    default: int | None = None

    def at(self, u: float) -> int:
        """The value at quantile `u` of [0, 1)."""
        return min(self.low + int(u * (self.high - self.low + 1)), self.high)


@dataclass(frozen=True)
class Choice:
    """One of a few Python values, each equally likely."""

    values: Sequence[Scalar]
    default: Scalar | None = None

    def at(self, u: float) -> Scalar:
        """The value at quantile `u` of [0, 1)."""
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]


Distribution = Uniform | LogUniform | Integers | Choice
SearchSpace = Mapping[str, Distribution] | Sequence[Point]


def check_search_space(space: Any) -> SearchSpace:
    """`space` itself, when it is a search space; otherwise a `UserError` says what is wrong with it."""
    if isinstance(space, Mapping):
        for name, distribution in cast(Mapping[Any, Any], space).items():
            _check_name(name)
            _check_distribution(name, distribution)
        return cast(SearchSpace, space)
    if isinstance(space, Sequence) and not isinstance(space, str) and space:
        points = cast(Sequence[Any], space)
        for point in points:
            if not isinstance(point, Mapping) or set(cast(Mapping[Any, Any], point)) != set(points[0]):
                raise UserError("SEARCH_SPACE: every point of a list must be a mapping, all with the same names")
            for name, value in cast(Mapping[Any, Any], point).items():
                _check_name(name)
                _check_value(f"SEARCH_SPACE: {name!r}", value)
        return cast(SearchSpace, points)
    raise UserError(
        "SEARCH_SPACE must be a mapping of names to Uniform, LogUniform, Integers or Choice, or a list of points"
    )


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
        raise UserError(f"SEARCH_SPACE: {name!r} cannot be read as an attribute; use a Python name")


def _check_value(where: str, value: Any) -> None:
    if not isinstance(value, (bool, int, float, str)) or (isinstance(value, float) and not math.isfinite(value)):
        raise UserError(f"{where} must be a finite number, a string or a boolean, not {value!r}")


def _check_distribution(name: str, distribution: Any) -> None:
    where = f"SEARCH_SPACE[{name!r}]"
    default: Any = getattr(distribution, "default", None)
    if isinstance(distribution, Choice):
        if not distribution.values:
            raise UserError(f"{where}: Choice needs at least one value")
        for value in distribution.values:
            _check_value(where, value)
        if default is not None and default not in distribution.values:
            raise UserError(f"{where}: the default {default!r} is none of the choices")
    elif isinstance(distribution, (Uniform, LogUniform, Integers)):
        low, high = distribution.low, distribution.high
        for value in (low, high) if default is None else (low, high, default):
            _check_value(where, value)
        if low > high:
            raise UserError(f"{where}: low must not be above high; got {low!r} and {high!r}")
        if isinstance(distribution, LogUniform) and low <= 0:
            raise UserError(f"{where}: a LogUniform needs low above 0, got {low!r}")
        if default is not None and not low <= default <= high:
            raise UserError(f"{where}: the default {default!r} lies outside [{low!r}, {high!r}]")
    else:
        raise UserError(f"{where} must be Uniform, LogUniform, Integers or Choice, not {distribution!r}")


def default_point(space: SearchSpace) -> Point:
    """The point to try when there is one trial: each default (else the median), or the first point of a list."""
    if not isinstance(space, Mapping):
        return space[0]
    return {name: d.at(0.5) if d.default is None else d.default for name, d in space.items()}


def halton_points(space: SearchSpace, n: int, seed: int) -> list[Point]:
    """`n` points of one scrambled Halton sequence over `space`; a list of points must have exactly `n`."""
    if not isinstance(space, Mapping):
        if len(space) != n:
            raise UserError(f"SEARCH_SPACE lists {len(space)} points, and the ruleset asks for exactly {n}")
        return list(space)
    if not space:
        return [{} for _ in range(n)]
    import numpy as np
    from scipy.stats import qmc

    sample = qmc.Halton(d=len(space), scramble=True, rng=np.random.default_rng(seed)).random(n)
    return [{name: d.at(float(u)) for (name, d), u in zip(space.items(), row, strict=True)} for row in sample]


def prescribed_point(space: SearchSpace, tuning: Tuning, *, trial: int, seed: int, longer_lists: bool = False) -> Point:
    """The point of a trial: the same for each trial number of a study, whoever runs it.

    `seed` is the study's for tuning. With `longer_lists` a list may hold more points than there are trials, of which
    the first are taken, as AlgoPerf's runner does.
    """
    if tuning.points == "default":
        return default_point(space)
    if longer_lists and not isinstance(space, Mapping):
        if len(space) < tuning.trials:
            raise UserError(f"{len(space)} points, and the ruleset asks for {tuning.trials}")
        return space[trial]
    return halton_points(space, tuning.trials, seed)[trial]


def traced_names(space: SearchSpace) -> frozenset[str]:
    """The hyperparameters that reach `make` as jax scalars."""
    if isinstance(space, Mapping):
        return frozenset(name for name, d in space.items() if not isinstance(d, Choice))
    return frozenset(name for name in space[0] if all(isinstance(point[name], float) for point in space))


class UnknownHyperparameterError(UserError, KeyError, AttributeError):
    """A name that the search space lacks: a KeyError and an AttributeError, so that `get` and `hasattr` work."""

    __str__ = Exception.__str__


class Hparams(Mapping[str, Any]):
    """The hyperparameters of one trial, as attributes (`hparams.learning_rate`) and as an immutable mapping."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_values", dict(values))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Any:
        values: dict[str, Any] = object.__getattribute__(self, "_values")
        if name not in values:
            error = unknown("hyperparameter", name, values, "SEARCH_SPACE declares what `hparams` holds.")
            raise UnknownHyperparameterError(str(error))
        return values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        raise UserError(f"hparams is immutable; hparams.{name} cannot be set")

    def __iter__(self) -> Iterator[str]:
        return iter(object.__getattribute__(self, "_values"))

    def __len__(self) -> int:
        return len(object.__getattribute__(self, "_values"))

    def __repr__(self) -> str:
        return f"Hparams({', '.join(f'{name}={value!r}' for name, value in self.items())})"
