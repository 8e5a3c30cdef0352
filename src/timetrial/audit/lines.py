"""What one record says of itself: its chain, its clocks, and the end that its evals must lead to."""

import math
from collections.abc import Iterator
from datetime import datetime

from timetrial import chain
from timetrial.audit.findings import Finding
from timetrial.audit.reading import AuditedTrial
from timetrial.record import Crossing, EndLine, EvalLine, ResumeLine, RunHeader

_ROUNDING = 1e-6
"""Seconds by which a part of the charged time may be longer than the whole."""
_OVER = ("reached", "budget", "diverged")
"""Statuses that follow from the last eval, after which nothing is charged."""


def check_chain(trial: AuditedTrial) -> Iterator[Finding]:
    for broken in chain.breaks(trial.lines):
        yield Finding(
            kind="chain",
            message="the chain of the record breaks at this line",
            path=trial.path,
            line=broken.line,
            field=broken.field,
            expected=broken.expected,
            found=broken.found,
        )


def check_clocks(trial: AuditedTrial) -> Iterator[Finding]:
    """Clocks begin at 0, never go back but to a checkpoint, and hold their parts."""

    def wrong(number: int, field: str, message: str, expected: object, found: object) -> Finding:
        return Finding(
            kind="clocks", message=message, path=trial.path, line=number, field=field, expected=expected, found=found
        )

    floor: dict[str, float] = {}
    evals: list[EvalLine] = []
    created = _time(trial.run.created)
    if created is None:
        yield wrong(1, "created", "not a time", "ISO 8601", trial.run.created)
    for number, line in trial.numbered:
        if isinstance(line, ResumeLine):
            yield from _check_resume(trial, number, line, evals)
            before = evals[min(line.evals, len(evals)) - 1] if line.evals and evals else None
            floor = {"step": line.step, "examples": line.examples, "seconds": line.seconds}
            floor |= {name: getattr(before, name) for name in ("compile_seconds", "data_seconds") if before is not None}
            if evals:  # the replayed evals stay in the record, and steps and examples go on after them
                floor["step"] = max(line.step, evals[-1].step)
                floor["examples"] = max(line.examples, evals[-1].examples)
            began = _time(line.created)
            if began is None or (created is not None and began < created):
                yield wrong(number, "created", "earlier than the trial", f"after {trial.run.created}", line.created)
            continue
        if isinstance(line, EndLine) and trial.record.resumes and line.status not in _OVER:
            continue  # it may have failed before it came again to the evals that the record holds
        for name in ("step", "examples", "seconds", "compile_seconds", "data_seconds"):
            value = getattr(line, name)
            if value < floor.get(name, 0.0):
                yield wrong(number, name, "goes back", f"at least {floor[name]}", value)
            floor[name] = value
        for name in ("compile_seconds", "data_seconds"):
            if getattr(line, name) > line.seconds + _ROUNDING:
                yield wrong(number, name, "is a part of seconds", f"at most {line.seconds}", getattr(line, name))
        if isinstance(line, EvalLine):
            evals.append(line)
            if len(evals) == 1:
                for name in ("step", "examples", "seconds"):
                    if getattr(line, name) != 0:
                        yield wrong(number, name, "the untrained model is evaluated first", 0, getattr(line, name))


def _check_resume(trial: AuditedTrial, number: int, line: ResumeLine, evals: list[EvalLine]) -> Iterator[Finding]:
    def wrong(field: str, message: str, expected: object) -> Finding:
        found = getattr(line, field)
        return Finding(
            kind="clocks", message=message, path=trial.path, line=number, field=field, expected=expected, found=found
        )

    if trial.run.clock == "seconds":
        yield wrong("seconds", "under the seconds clock a trial begins anew", "no resume line")
    if line.evals > len(evals):
        yield wrong("evals", "more evals than there are before it", f"at most {len(evals)}")
        return
    before = evals[line.evals - 1] if line.evals else None
    after = evals[line.evals] if line.evals < len(evals) else None
    for field in ("step", "examples", "seconds"):
        low = 0 if before is None else getattr(before, field)
        high = math.inf if after is None or field == "seconds" else getattr(after, field)
        if not low <= getattr(line, field) <= high:
            yield wrong(field, f"the checkpoint lies after eval {line.evals - 1}", f"from {low} to {high}")
    lost = max(0.0, (evals[-1].seconds if evals else 0.0) - line.seconds)
    if not math.isclose(line.lost_seconds, lost, abs_tol=_ROUNDING):
        yield wrong("lost_seconds", "the last eval says what was lost", lost)


def crossing_of(run: RunHeader, evals: tuple[EvalLine, ...]) -> Crossing | None:
    """The crossing by rule 4: the first of `confirmation` + 1 evals in a row that meet the target within the budget."""
    in_a_row = 0
    for i, line in enumerate(evals):
        value = line.metrics[f"valid/{run.target.metric}"]
        within = line.charge(run.clock) <= run.budget
        in_a_row = in_a_row + 1 if within and run.target.met_by(value) and is_finite(run, line) else 0
        if i and in_a_row > run.confirmation:
            first = i - run.confirmation
            charge_before = evals[first - 1].charge(run.clock) if first else 0.0
            return Crossing(eval_index=first, charge=evals[first].charge(run.clock), charge_before=charge_before)
    return None


def is_finite(run: RunHeader, line: EvalLine) -> bool:
    """Whether the model still gave numbers at this eval."""
    return all(math.isfinite(line.metrics[name]) for name in ("valid/loss", f"valid/{run.target.metric}"))


def check_end(trial: AuditedTrial) -> Iterator[Finding]:
    """Status, crossing and clocks of the end follow from the evals."""
    run, evals, end = trial.run, trial.record.evals, trial.record.end
    needed = ("valid/loss", f"valid/{run.target.metric}")
    for number, line in zip(trial.eval_lines, evals, strict=True):
        for name in needed:
            if name not in line.metrics:
                message = "every eval has the validation loss and the target's metric"
                yield Finding(
                    kind="crossing",
                    message=message,
                    path=trial.path,
                    line=number,
                    field="metrics",
                    expected=name,
                    found=", ".join(line.metrics),
                )
                return
    if end is None or not evals:
        return
    last_line = trial.numbered[-1][0]

    def wrong(field: str, message: str, expected: object, found: object, number: int = last_line) -> Finding:
        return Finding(
            kind="crossing", message=message, path=trial.path, line=number, field=field, expected=expected, found=found
        )

    if run.target.met_by(evals[0].metrics[needed[1]]):
        value = evals[0].metrics[needed[1]]
        yield wrong("metrics", "the untrained model meets the target", f"not {run.target}", value, trial.eval_lines[0])
    crossing = crossing_of(run, evals)
    if crossing is not None and crossing.eval_index + run.confirmation < len(evals) - 1:
        number = trial.eval_lines[crossing.eval_index + run.confirmation + 1]
        message = "a trial ends at its confirmed target"
        yield wrong("step", message, "no eval after it", evals[crossing.eval_index + run.confirmation + 1].step, number)
    if end.status != "interrupted":
        expected = _status(trial, crossing)
        if end.status not in expected:
            yield wrong("status", "the evals say otherwise", " or ".join(expected), end.status)
        if end.crossing != crossing:
            yield wrong("crossing", "the evals say otherwise", crossing, end.crossing)
    for i, line in enumerate(evals[:-1]):
        if not is_finite(run, line):
            message = "a trial ends where its model gives no numbers"
            yield wrong("metrics", message, "no eval after it", f"{len(evals) - 1 - i} more", trial.eval_lines[i])
    if end.status in _OVER:
        for name in ("step", "examples", "seconds", "compile_seconds", "data_seconds"):
            if getattr(end, name) != getattr(evals[-1], name):
                yield wrong(name, "nothing follows the last eval", getattr(evals[-1], name), getattr(end, name))


def _status(trial: AuditedTrial, crossing: Crossing | None) -> tuple[str, ...]:
    """What the end may be called."""
    run, last = trial.run, trial.record.evals[-1]
    if not is_finite(run, last):
        return ("diverged",)
    if crossing is not None:
        return ("reached",)
    failures = ("error", "out_of_memory", "hung")
    if last.charge(run.clock) >= run.budget:
        return ("budget", *failures)
    return ("budget", *failures) if run.api == "algoperf" else failures  # which may end its training by itself


def check_tests(trial: AuditedTrial, always: bool) -> Iterator[Finding]:
    """The test split is evaluated where the target is met and at the end, and nowhere else unless the rules say so."""
    run, evals = trial.run, trial.record.evals
    over = trial.record.end is not None and trial.record.end.status == "budget"
    for i, (number, line) in enumerate(zip(trial.eval_lines, evals, strict=True)):
        met = run.target.met_by(line.metrics.get(f"valid/{run.target.metric}", math.nan))
        expected = always or met or (over and i == len(evals) - 1)
        found = any(name.startswith("test/") for name in line.metrics)
        may_be_last = i == len(evals) - 1 and not over
        if found != expected and not (found and may_be_last):
            yield Finding(
                kind="metrics",
                message="test metrics belong to the evals that meet the target, and to the last",
                path=trial.path,
                line=number,
                field="metrics",
                expected="test metrics" if expected else "no test metrics",
                found="test metrics" if found else "none",
            )


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
