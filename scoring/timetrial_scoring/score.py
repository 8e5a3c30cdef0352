"""From the runs in a folder to scored boards: one for externally tuned submissions, one for self-tuning ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from timetrial.errors import UserError, unknown
from timetrial.ruleset import Ruleset, load_ruleset
from timetrial_scoring import compare, profiles, robustness
from timetrial_scoring.audit import audit
from timetrial_scoring.board import Finding, Floats, Runs
from timetrial_scoring.comparable import obstacles
from timetrial_scoring.grid import Grid, lay_out
from timetrial_scoring.load import load
from timetrial_scoring.profiles import Structure
from timetrial_scoring.times import Mode, Times, times_to_target

if TYPE_CHECKING:
    from timetrial_scoring.uncertainty import Assessment

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One line of a leaderboard. None: not ranked, not asked for, or no claim is made."""

    submission: str
    rank: int | None = None
    """1 is first; equal scores share a rank."""
    score: float | None = None
    score_ci: Interval | None = None
    """95 % confidence."""
    rank_ci: tuple[int, int] | None = None
    p_first: float | None = None
    """Probability of being first."""
    eval_grid: robustness.Range | None = None
    """How far the score can move within the spacing of the evals."""
    anchored: float | None = None
    speedup: compare.Speedup | None = None
    """Against the reference submission."""
    speedup_ci: Interval | None = None
    unranked: str | None = None
    """Why the submission is not ranked."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Board:
    """One kind of tuning, scored. Axes of the arrays: the ranked submissions, and workloads as in `structure`."""

    grid: Grid
    times: Times
    """Of all submissions, ranked or not."""
    mode: Mode
    structure: Structure
    ranked: tuple[int, ...]
    """Positions, among the grid's submissions, of those that are ranked: the s axis below."""
    medians_sw: Floats
    """Time to target over studies, in units of the charged clock."""
    ratios_sb: Floats
    """Time over the best, on base workloads; `inf` where it earns nothing: the steps of the performance profiles."""
    standings: tuple[Standing, ...]
    """Best first, the unranked last."""
    flips: tuple[robustness.Flip, ...]
    reference: str | None
    caveats: tuple[str, ...] = ()
    """Why its seconds should not be compared, though somebody asked for that."""
    assessment: "Assessment | None" = None
    """What the board supports, of the ranked submissions; None where nobody asked (`claims.with_claims`)."""

    @property
    def names(self) -> tuple[str, ...]:
        """The ranked submissions, in the order of the s axis."""
        return tuple(self.grid.submissions[i] for i in self.ranked)

    @property
    def times_swk(self) -> Floats:
        """Times of the ranked submissions, for the uncertainty of their scores."""
        return self.times.charge[list(self.ranked)]

    def with_standings(self, change: Callable[[Standing], Standing]) -> "Board":
        """The board with each line of its leaderboard changed, for whoever knows more than the point estimates."""
        return replace(self, standings=tuple(change(standing) for standing in self.standings))


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    runs: Runs
    ruleset: Ruleset
    mode: Mode
    boards: tuple[Board, ...]
    findings: tuple[Finding, ...]


def score_folder(
    folder: Path,
    *,
    ruleset: str | None = None,
    mode: Mode = "exact",
    reference: str | None = None,
    allow_mixed: bool = False,
) -> Result:
    """Scores all runs below `folder`. A `UserError` says what was wrong with what was asked."""
    return score_runs(load(folder), ruleset=ruleset, mode=mode, reference=reference, allow_mixed=allow_mixed)


def score_runs(
    runs: Runs,
    *,
    ruleset: str | None = None,
    mode: Mode = "exact",
    reference: str | None = None,
    allow_mixed: bool = False,
) -> Result:
    """Scores runs that were read. Seconds that are not comparable (`comparable.obstacles`) raise `UserError`.

    With `allow_mixed` they are scored, and the board says what is wrong with them.
    """
    rules = ruleset_of(runs) if ruleset is None else load_ruleset(ruleset)
    findings = list(runs.findings)
    grids = lay_out(runs, rules, findings, prescribed_only=mode == "exact")
    if not grids:
        raise UserError(f"none of the runs in {runs.root} belongs to ruleset {rules.name!r}; pass another --ruleset")
    known = [name for grid in grids for name in grid.submissions]
    if reference is not None and reference not in known:
        raise unknown("submission", reference, known, "--reference takes one that has runs here.")
    boards: list[Board] = []
    for grid in grids:
        found = obstacles(grid)
        if found and not allow_mixed:
            listed = "".join(f"\n  {finding.kind}: {finding.message}" for finding in found)
            raise UserError(
                f"seconds that are not comparable:{listed}\n"
                "run these trials again, alone on machines of one kind, or compare all the same with --allow-mixed, "
                "which the board then says"
            )
        findings += found
        board = score_grid(grid, mode=mode, reference=reference if reference in grid.submissions else None)
        board = replace(board, caveats=tuple(f"{finding.kind}: {finding.message}" for finding in found))
        findings += audit(grid, board.times)
        boards.append(board)
    return Result(runs=runs, ruleset=rules, mode=mode, boards=tuple(boards), findings=tuple(findings))


def ruleset_of(runs: Runs) -> Ruleset:
    """The one ruleset that the campaigns, or the records, name."""
    campaigns = {campaign.ruleset.sha256: campaign for campaign in runs.campaigns}
    recorded = {
        trial.recorded.ruleset_sha256: trial.recorded.ruleset for trial in runs.trials if trial.recorded is not None
    }
    if len(campaigns) > 1:
        listed = ", ".join(f"{c.ruleset.name} ({c.source.parent})" for c in campaigns.values())
        raise UserError(f"runs of {len(campaigns)} different rulesets: {listed}; score one folder, or pass --ruleset")
    if campaigns:
        return next(iter(campaigns.values())).ruleset
    if not recorded:
        raise UserError("AlgoPerf logs do not name their rules; pass --ruleset, for example algoperf-v05-external")
    if len(recorded) > 1:
        listed = ", ".join(sorted({f"{name} ({sha256[:12]})" for sha256, name in recorded.items()}))
        raise UserError(f"runs of {len(recorded)} different rulesets: {listed}; score one folder, or pass --ruleset")
    ((sha256, name),) = recorded.items()
    rules = load_ruleset(name)
    if rules.sha256 != sha256:
        raise UserError(
            f"the runs followed a changed {name!r} ({sha256[:12]}, not {rules.sha256[:12]}) and their campaign.json is "
            f"missing; pass --ruleset"
        )
    return rules


def score_grid(grid: Grid, *, mode: Mode = "exact", reference: str | None = None) -> Board:
    times = times_to_target(grid, mode)
    structure = times.structure
    ranked = [i for i, name in enumerate(grid.submissions) if name not in grid.unranked]
    charge, before = (_absent_as_nan(x, times, mode)[ranked] for x in (times.charge, times.charge_before))
    scorer = partial(scores, mode=mode)
    score_s = scorer(charge, structure) if ranked else np.zeros(0)
    medians_sw = medians(charge, mode)
    ranges = robustness.eval_grid_ranges(charge, before, structure, scorer) if ranked else []
    names = [grid.submissions[i] for i in ranked]
    anchors_b = compare.anchors(grid.ruleset)
    anchored = None if anchors_b is None else compare.anchored_scores(medians_sw, structure, anchors_b)
    speedups = None if reference not in names else compare.speedups(medians_sw, structure, names.index(reference))
    ratios_sb = np.zeros((0, len(structure.bases)))
    if ranked:
        ratios_sb = profiles.performance_ratios(profiles.qualified_times(medians_sw, structure))
    rounded = np.round(score_s, 12)
    lines = [
        Standing(
            submission=name,
            rank=1 + int((rounded > rounded[s]).sum()),
            score=float(score_s[s]),
            eval_grid=ranges[s],
            anchored=None if anchored is None else float(anchored[s]),
            speedup=None if speedups is None else speedups[s],
        )
        for s, name in enumerate(names)
    ]
    lines.sort(key=lambda line: (line.rank, line.submission))
    lines += [Standing(submission=name, unranked=reason) for name, reason in sorted(grid.unranked.items())]
    return Board(
        grid=grid,
        times=times,
        mode=mode,
        structure=structure,
        ranked=tuple(ranked),
        medians_sw=medians_sw,
        ratios_sb=ratios_sb,
        standings=tuple(lines),
        flips=tuple(robustness.leave_one_out(charge, names, structure, scorer)) if ranked else (),
        reference=reference,
    )


def _absent_as_nan(values_swk: Floats, times: Times, mode: Mode) -> Floats:
    """The published procedure passes over studies that are not there; otherwise they were never reached."""
    return np.where(times.present, values_swk, np.nan) if mode == "published" else values_swk


def medians(times_swk: Floats, mode: Mode) -> Floats:
    """(…, S, W): the median over studies. Published: of those not absent (NaN), the mean of the middle two."""
    if mode == "exact":
        return profiles.study_median(times_swk)
    ordered = np.sort(times_swk, axis=-1)
    present = (~np.isnan(times_swk)).sum(axis=-1)[..., None]
    low, high = (
        np.take_along_axis(ordered, np.maximum(middle, 0), axis=-1)[..., 0]
        for middle in ((present - 1) // 2, present // 2 * (present > 0))
    )
    return np.where(present[..., 0] > 0, np.where(low == high, low, (low + high) / 2.0), np.inf)


def scores(times_swk: Floats, structure: Structure, mode: Mode) -> Floats:
    """(…, S) benchmark scores, in closed form or by the published trapezoids."""
    if mode == "exact":
        return profiles.score_from_times(times_swk, structure)
    ratios = profiles.performance_ratios(profiles.qualified_times(medians(times_swk, mode), structure))
    return profiles.trapezoid_scores(ratios)


def mode_differences(grid: Grid) -> Mapping[str, Mapping[str, float]]:
    """From the published to the exact scores: the score of each submission after one more rule is changed."""
    published, exact = times_to_target(grid, "published"), times_to_target(grid, "exact")
    structure = published.structure

    def closed(times: Times, *, absent: bool) -> Floats:
        times_sw = medians(_absent_as_nan(times.charge, times, "published") if absent else times.charge, "published")
        return profiles.score_from_medians(times_sw, structure)

    steps = {
        "published": scores(_absent_as_nan(published.charge, published, "published"), structure, "published"),
        "area in closed form": closed(published, absent=True),
        "fastest trial, within budget": closed(exact, absent=True),
        "absent studies never reached": closed(exact, absent=False),
        "lower median (exact)": profiles.score_from_times(exact.charge, structure),
    }
    return {label: dict(zip(grid.submissions, values.tolist(), strict=True)) for label, values in steps.items()}
