"""Scores out of times: the performance profile of Dolan and Moré (2002), in closed form.

Arrays carry their axes in their names: s submissions, w workloads (bases and held-out variants), b base workloads,
k studies. Every function takes leading axes too (bootstrap draws), and treats them independently. Times are positive,
in any one unit; `inf` says that the target was not reached.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from timetrial.ruleset import Ruleset

Floats = NDArray[np.float64]
TAU_MAX = 4.0
"""Times beyond this multiple of the best time of a workload earn nothing."""


@dataclass(frozen=True)
class Structure:
    """Which workloads a board has, and which of them are held-out variants of which."""

    workloads: tuple[str, ...]
    """All workloads of the ruleset, bases and variants, in the order of the w axis."""
    base_of: tuple[int, ...]
    """For each workload the index of its base workload: its own index, where it is a base."""

    @staticmethod
    def of(ruleset: Ruleset) -> "Structure":
        names = tuple(ruleset.workloads)
        bases = (rules.variant_of or name for name, rules in ruleset.workloads.items())
        return Structure(names, tuple(names.index(base) for base in bases))

    @cached_property
    def bases(self) -> NDArray[np.intp]:
        """Indices of the base workloads: the b axis."""
        return np.array([w for w, base in enumerate(self.base_of) if w == base], np.intp)

    @cached_property
    def variants(self) -> NDArray[np.intp]:
        """Indices of the held-out variants."""
        return np.array([w for w, base in enumerate(self.base_of) if w != base], np.intp)

    @property
    def base_names(self) -> tuple[str, ...]:
        return tuple(name for w, name in enumerate(self.workloads) if self.base_of[w] == w)

    def family(self, base: str) -> NDArray[np.intp]:
        """Indices of a base workload and of its variants."""
        index = self.workloads.index(base)
        return np.array([w for w, other in enumerate(self.base_of) if other == index], np.intp)

    def without(self, base: str) -> tuple["Structure", NDArray[np.intp]]:
        """The structure less one base workload and its variants, and the indices of the workloads it keeps."""
        index = self.workloads.index(base)
        kept = [w for w, other in enumerate(self.base_of) if other != index]
        rest = Structure(tuple(self.workloads[w] for w in kept), tuple(kept.index(self.base_of[w]) for w in kept))
        return rest, np.array(kept, np.intp)


def study_median(times_swk: Floats) -> Floats:
    """(…, S, W): the lower median over studies, so that it is always a time that was measured."""
    middle = (times_swk.shape[-1] - 1) // 2
    return np.partition(times_swk, middle, axis=-1)[..., middle]


def qualified_times(times_sw: Floats, structure: Structure, tau_max: float = TAU_MAX) -> Floats:
    """(…, S, B): the times that count on the base workloads, `inf` where one does not.

    A held-out variant is not reached where its base is not; a time above `tau_max` x the best of its workload does not
    count; a base whose variant is not reached does not count.
    """
    times = times_sw.copy()
    base_of = np.asarray(structure.base_of, np.intp)
    times[np.isinf(times[..., base_of])] = np.inf
    times[times > tau_max * times.min(axis=-2, keepdims=True)] = np.inf
    for variant in structure.variants:
        base = base_of[variant]
        times[..., base] = np.where(np.isinf(times[..., variant]), np.inf, times[..., base])
    return times[..., structure.bases]


def performance_ratios(times_sb: Floats) -> Floats:
    """(…, S, B): each time over the best of its workload; `inf` where it does not count, also when none does."""
    best = times_sb.min(axis=-2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(times_sb == best, 1.0, times_sb / best)
    return np.where(np.isinf(times_sb), np.inf, ratios)


def credits(ratios: Floats, tau_max: float = TAU_MAX) -> Floats:
    """The area under one entry's profile, a step at its ratio, over [1, tau_max], as a share of the whole."""
    return np.clip((tau_max - ratios) / (tau_max - 1.0), 0.0, 1.0)


def score_from_times(times_swk: Floats, structure: Structure, tau_max: float = TAU_MAX) -> Floats:
    """(…, S): the benchmark scores in [0, 1] of (…, S, W, K) times: the mean credit over all base workloads.

    This is the area under the performance profile, exactly, because the profile is a step function.
    """
    return score_from_medians(study_median(times_swk), structure, tau_max)


def score_from_medians(times_sw: Floats, structure: Structure, tau_max: float = TAU_MAX) -> Floats:
    """(…, S): the benchmark scores of (…, S, W) times, one a workload."""
    return credits(performance_ratios(qualified_times(times_sw, structure, tau_max)), tau_max).mean(axis=-1)


def profile(ratios_sb: Floats, tau: Floats) -> Floats:
    """(…, S, T): the share of base workloads on which a submission's ratio is at most tau."""
    return (ratios_sb[..., None, :] <= tau[:, None]).mean(axis=-1)


def trapezoid_scores(ratios_sb: Floats, tau_max: float = TAU_MAX, points: int = 100) -> Floats:
    """(…, S): the published way: the area under the profile by trapezoids over `points` values of tau."""
    tau = np.linspace(1.0, tau_max, points)
    return np.asarray(np.trapezoid(profile(ratios_sb, tau), tau, axis=-1) / (tau_max - 1.0))
