"""Rule 4: an eval happens at the first step boundary at or past a point of the grid, and nowhere else."""

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from timetrial.audit.findings import Finding
from timetrial.audit.reading import AuditedTrial

_STEPS_OF_SLACK = 10.0
"""Under the seconds clock, by how many mean steps one step may be longer than the mean."""


class Interval(NamedTuple):
    """From one eval to the next, in units of the charged clock."""

    line: int
    """Number in the file of the eval at its end."""
    before: float
    at: float
    point: float
    """The first grid point after `before`, or the budget where that comes first."""
    steps: int

    @property
    def charge(self) -> float:
        return self.at - self.before


def next_point(charged: float, every: float, budget: float) -> float:
    """The first grid point past `charged`, or the budget where that comes first."""
    number = math.floor(min(charged / every, 2.0**62)) + 1
    if number * every <= charged:  # the division was rounded down
        number += 1
    return min(number * every, budget)


def check_grid(trial: AuditedTrial, default_batch: int) -> Iterator[Finding]:
    """`default_batch` is the least that a step charges in examples, so that step sizes bound where an eval may be."""
    run, evals = trial.run, trial.record.evals
    if run.eval_every <= 0:
        yield Finding(
            kind="rules", message="no grid", path=trial.path, line=1, field="eval_every", expected="> 0", found=0
        )
        return

    def wrong(line: int, message: str, expected: object, found: object, field: str = run.clock) -> Finding:
        name = {"steps": "step"}.get(field, field)
        return Finding(
            kind="grid", message=message, path=trial.path, line=line, field=name, expected=expected, found=found
        )

    intervals: list[Interval] = []
    for i, line in enumerate(evals):
        number = trial.eval_lines[i]
        if line.examples < line.step * default_batch:
            message = f"a step counts at least the default batch of {default_batch}"
            yield wrong(number, message, f"at least {line.step * default_batch}", line.examples, "examples")
        if i == 0:
            continue
        before, at = evals[i - 1].charge(run.clock), line.charge(run.clock)
        if before >= run.budget:
            yield wrong(number, "an eval after the budget was spent", f"none after {before:g}", at)
            return
        steps = line.step - evals[i - 1].step
        interval = Interval(number, before, at, next_point(before, run.eval_every, run.budget), steps)
        ends_by_itself = run.api == "algoperf" and i == len(evals) - 1
        if ends_by_itself:
            continue
        if at < interval.point:
            yield wrong(number, "an eval before the next point of the grid", f"at least {interval.point:g}", at)
        if steps < (0 if run.clock == "seconds" else 1):
            yield wrong(number, "no step since the eval before", f"above {evals[i - 1].step}", line.step, "steps")
            return
        intervals.append(interval)
    if run.clock == "seconds":
        yield from (wrong(*late) for late in _late_by_seconds(trial, intervals))
        return
    least = default_batch if run.clock == "examples" else 1
    late = [x for x in intervals if x.before + least * (x.steps - 1) >= x.point]
    for x in late:
        message = f"the step before was past the grid point {x.point:g} already"
        yield wrong(x.line, message, f"before {x.at:g}", x.at)
    if not late and run.clock == "examples" and (bad := off_constant_steps(intervals, default_batch)) is not None:
        message = "not the first step boundary at or past the grid point, as steps of one size would have it"
        yield wrong(bad.line, message, f"grid point {bad.point:g}, {bad.steps} steps after {bad.before:g}", bad.at)


def off_constant_steps(intervals: Sequence[Interval], default_batch: int) -> Interval | None:
    """The first interval that steps of a constant size, and evals of a constant charge, cannot explain.

    A step charges e >= `default_batch` examples and `eval_params` r >= 0, so each charge is e x steps + r. None where
    they explain all, and where the charges are not of that form: then steps vary, as with data selection.
    """
    if len(intervals) < 2:
        return None
    first = intervals[0]
    other = next((x for x in intervals if x.steps != first.steps), None)
    if other is None:
        if any(x.charge != first.charge for x in intervals):
            return None
        low = max(default_batch, max((first.charge - (x.at - x.point)) / first.steps for x in intervals))
        highs = [first.charge / first.steps]
        if first.steps > 1:
            highs += [math.ceil((x.point - x.before) / (first.steps - 1)) - 1 for x in intervals]
        if math.ceil(low) <= math.floor(min(highs)):
            return None
        return max(intervals, key=lambda x: x.at - x.point)
    e = (other.charge - first.charge) / (other.steps - first.steps)
    r = first.charge - e * first.steps
    fits = e >= default_batch and e == int(e) and r >= 0 and all(x.charge == e * x.steps + r for x in intervals)
    if not fits or (r > 0 and len(intervals) < 3):
        return None
    return next((x for x in intervals if not x.at - r - e < x.point <= x.at - r), None)


def _late_by_seconds(
    trial: AuditedTrial, intervals: Sequence[Interval]
) -> Iterator[tuple[int, str, object, object, str]]:
    """Evals a whole grid distance late that neither long steps, compilation, data nor a habit explain."""
    evals, every = trial.record.evals, trial.run.eval_every
    late = [x.at - x.point for x in intervals]
    for i, x in enumerate(intervals[1:], start=1):
        usual = statistics.median(late[1:i] + late[i + 1 :] or [0.0])
        compiled = evals[i + 1].compile_seconds - evals[i].compile_seconds
        waited = evals[i + 1].data_seconds - evals[i].data_seconds
        step = x.charge / max(1, x.steps)
        if late[i] >= every and late[i] > _STEPS_OF_SLACK * step + compiled + waited + 3 * max(0.0, usual):
            message = f"later than the grid point {x.point:g} by more than its steps explain"
            yield x.line, message, f"about {x.point:g}", x.at, "seconds"
