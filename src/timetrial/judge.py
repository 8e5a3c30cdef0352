"""The judge of a trial: clock, budget, targets, evaluation and record. It never calls submission code itself.

The other side is a `Trainer`, which holds all that the submission touches. The two exchange plain arrays and numbers
only, so that the trainer may live in this process or in another.
"""

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from timetrial.clock import Stopwatch
from timetrial.record import Crossing, EndLine, EvalLine, RunHeader, Status
from timetrial.submission import Feedback

Evaluator = Callable[[Any, Any, Iterable[str]], Mapping[str, float]]
"""(params, model_state, splits) -> metrics by `split/metric`."""

EVERY_EVAL = ("valid", "train_eval")
"""Splits evaluated on the grid. `test` is evaluated where the target is met, and at the end, or always."""

_WATCH_SECONDS = 0.25
"""How often, at most, a watcher is told of steps."""


class Counts(NamedTuple):
    """What the trainer has done so far, as the clocks count it."""

    step: int
    examples: int


class Meters(NamedTuple):
    """Seconds within the charged time, cumulative."""

    compile_seconds: float
    data_seconds: float


class SubmissionFailure(Exception):
    """The submission ended the trial: how, and one line that says why. The traceback goes to the log."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status: Status = status


class TrainingComplete(Exception):
    """The submission has ended its training by itself: one more evaluation follows."""


class _Left(Exception):
    """The trial was told to stop, and did so at a step boundary."""


class Trainer(Protocol):
    """Drives one submission on one workload. Each call returns after all device work of the submission is done."""

    def initial(self) -> tuple[Any, Any]:
        """The untrained (params, model_state), which do not depend on the submission. Not charged."""
        ...

    def start(self) -> None:
        """Loads the submission and initialises its state. Charged."""
        ...

    def run(self, stop: Callable[[Counts], bool], boundary: float) -> None:
        """Takes steps until `stop(counts)` says so. Charged. Raises TrainingComplete.

        `stop` is asked before every step, or, where the steps are taken in another process, now and then; it says so at
        the charge `boundary` at the latest, by which such a process stops itself.
        """
        ...

    def evaluated(self) -> tuple[Any, Any]:
        """The (params, model_state) that the submission wants evaluated. Charged."""
        ...

    def feedback(self, feedback: Feedback) -> None:
        """Tells the submission how an eval went. Charged."""
        ...

    def counts(self) -> Counts: ...

    def meters(self) -> Meters: ...

    def examples_exact(self) -> bool:
        """Whether `Counts.examples` holds all the rows that went through the loss."""
        ...

    def ignored(self) -> tuple[str, ...]:
        """Settings that the submission asked for and the workload lacks."""
        ...

    def repeated_seconds(self) -> float:
        """Seconds within the charged time that only repeated what was compiled before the trial was interrupted."""
        ...


class Recorder(Protocol):
    """Where the judge writes: `record.RecordWriter`, or a list in a test."""

    def go_to(self, evals: int) -> Sequence[EvalLine]:
        """The first `evals` evals written so far; the next is taken for the one after them."""
        ...

    def eval(self, line: EvalLine) -> None: ...

    def end(self, line: EndLine) -> None: ...


class Keeper(Protocol):
    """Keeps a trial's checkpoints. None of this is charged."""

    def restore(self) -> "Restored | None":
        """Takes the trainer back to its newest checkpoint; None where there is none."""
        ...

    def due(self) -> bool:
        """Whether it is time for a checkpoint: cheap, asked a few times a second."""
        ...

    def save(self, seconds: float, evals: int) -> None:
        """Makes a checkpoint of the trainer, at a step boundary, with the clock and the number of evals so far."""
        ...

    def keep_evaluated(self, step: int, params: Any, model_state: Any) -> str:
        """Keeps what was evaluated at the crossing or at the end, for an audit; returns its SHA-256."""
        ...

    def seconds_spent(self) -> float: ...


class Restored(NamedTuple):
    """The judge's part of a checkpoint."""

    seconds: float
    evals: int


@dataclass(frozen=True)
class Progress:
    """What a watcher is told, a few times a second, and once an eval."""

    step: int
    examples: int
    seconds: float
    charge: float
    evals: int
    metric: float | None
    """The newest value of the target metric."""


class Judge:
    """Runs one trial by the rules in `header` (clock, budget, grid, target, confirmation)."""

    def __init__(
        self,
        trainer: Trainer,
        evaluate: Evaluator,
        recorder: Recorder,
        header: RunHeader,
        *,
        now: Callable[[], float],
        watch: Callable[[Progress], None] = lambda progress: None,
        always_test: bool = False,
        keeper: Keeper | None = None,
        leave: Callable[[], bool] = lambda: False,
    ) -> None:
        """`leave()` is asked a few times a second; once it says so, the trial is interrupted at a step boundary."""
        self._trainer = trainer
        self._evaluate = evaluate
        self._recorder = recorder
        self._rules = header
        self._now = now
        self._watch = watch
        self._always_test = always_test
        self._keeper = keeper
        self._leave = leave
        self._repeated_seconds = 0.0
        self._next_look = -math.inf
        self._stopwatch = Stopwatch(now)
        self._evals: list[EvalLine] = []
        self._met: list[bool] = []

    def run(self) -> EndLine:
        """Trains to the target, to the end of the budget, or to a failure; writes every eval and the end line.

        Raises only for what is not the submission's doing: a workload that starts at its target, a record that cannot
        be written.
        """
        try:
            self._evaluate_untrained()
            status, message = self._train()
        except SubmissionFailure as failure:
            status, message = failure.status, str(failure)
        except (KeyboardInterrupt, _Left):
            status, message = "interrupted", "stopped by a signal; run it again with --resume"
        counts, meters = self._trainer.counts(), self._trainer.meters()
        end = EndLine(
            status=status,
            message=message,
            step=counts.step,
            examples=counts.examples,
            seconds=self._stopwatch.seconds,
            compile_seconds=meters.compile_seconds,
            data_seconds=meters.data_seconds,
            crossing=self._crossing() if status == "reached" else None,
            examples_exact=self._trainer.examples_exact(),
            ignored=self._trainer.ignored(),
            checkpoint_seconds=0.0 if self._keeper is None else self._keeper.seconds_spent(),
            repeated_seconds=self._repeated_seconds,
        )
        self._recorder.end(end)
        return end

    def _evaluate_untrained(self) -> None:
        params, model_state = self._trainer.initial()
        line = self._eval(params, model_state, final=False)
        if self._met[-1]:
            raise RuntimeError(
                f"workload {self._rules.workload}: the untrained model meets the target {self._rules.target} "
                f"({self._target_metric(line):g}); the target is wrong"
            )

    def _train(self) -> tuple[Status, str]:
        with self._charging():
            self._trainer.start()
        self._restore()
        rules = self._rules
        while True:
            boundary = self._next_grid_point()
            complete = False
            with self._charging():
                try:
                    self._trainer.run(self._stop_at(boundary), boundary)
                except TrainingComplete:
                    complete = True
                arrived = complete or self._charge(self._trainer.counts()) >= boundary
                evaluated = self._trainer.evaluated() if arrived else None
            if evaluated is None:
                self._save()
                continue
            params, model_state = evaluated
            final = complete or self._charge(self._trainer.counts()) >= rules.budget
            line = self._eval(params, model_state, final=final)
            if not self._finite(line):
                loss = line.metrics["valid/loss"]
                return "diverged", f"the loss is {loss}, {rules.target.metric} {self._target_metric(line)}"
            if self._confirmed():
                return "reached", f"{rules.target} reached"
            if final:
                why = "; the submission ended its training" if complete else ""
                return "budget", f"{rules.target} not reached; best {self._best():g}{why}"
            if not self._met[-1]:
                charged = self._charge(self._trainer.counts())
                metrics = {k: v for k, v in line.metrics.items() if k.startswith("valid/")}
                with self._charging():
                    self._trainer.feedback(Feedback(metrics=metrics, charge=charged, budget=rules.budget))

    @contextmanager
    def _charging(self) -> Generator[None]:
        """Charges what happens inside, less what it only repeats after an interruption."""
        before = self._trainer.repeated_seconds()
        try:
            with self._stopwatch.charging():
                yield
        finally:
            repeated = self._trainer.repeated_seconds() - before
            self._repeated_seconds += repeated
            self._stopwatch.return_to(self._stopwatch.seconds - repeated)

    def _restore(self) -> None:
        """Goes back to the newest checkpoint, where there is one."""
        restored = None if self._keeper is None else self._keeper.restore()
        if restored is not None:
            self._repeated_seconds += self._stopwatch.seconds
            self._stopwatch.return_to(restored.seconds)
            self._evals = list(self._recorder.go_to(restored.evals))
            self._met = [self._meets(line) for line in self._evals]

    def _save(self) -> None:
        """Makes a checkpoint; raises `_Left` where the trial is to stop here."""
        if self._keeper is not None:
            self._keeper.save(self._stopwatch.seconds, len(self._evals))
        if self._leave():
            raise _Left

    def _charge(self, counts: Counts) -> float:
        if self._rules.clock == "seconds":
            return self._stopwatch.seconds
        return float(counts.step if self._rules.clock == "steps" else counts.examples)

    def _next_grid_point(self) -> float:
        """The first grid point past what is charged, or the budget where that comes first."""
        rules = self._rules
        charged = self._charge(self._trainer.counts())
        point = math.floor(charged / rules.eval_every) + 1
        if point * rules.eval_every <= charged:  # the division was rounded down
            point += 1
        return min(point * rules.eval_every, rules.budget)

    def _stop_at(self, boundary: float) -> Callable[[Counts], bool]:
        """Says when to stop stepping: at the boundary, or before it where a checkpoint is due."""
        metric = self._target_metric(self._evals[-1]) if self._evals else None

        def stop(counts: Counts) -> bool:
            charge = self._charge(counts)
            if (now := self._now()) >= self._next_look:
                self._next_look = now + _WATCH_SECONDS
                seconds = self._stopwatch.seconds
                self._watch(Progress(counts.step, counts.examples, seconds, charge, len(self._evals), metric))
                if self._leave() or (self._keeper is not None and self._keeper.due()):
                    return True
            return charge >= boundary

        return stop

    def _eval(self, params: Any, model_state: Any, *, final: bool) -> EvalLine:
        counts, meters, began = self._trainer.counts(), self._trainer.meters(), self._now()
        metrics = dict(self._evaluate(params, model_state, EVERY_EVAL))
        reached = self._rules.target.met_by(metrics[f"valid/{self._rules.target.metric}"])
        if reached or final or self._always_test:
            metrics.update(self._evaluate(params, model_state, ("test",)))
        line = EvalLine(
            step=counts.step,
            examples=counts.examples,
            seconds=self._stopwatch.seconds,
            compile_seconds=meters.compile_seconds,
            data_seconds=meters.data_seconds,
            eval_seconds=self._now() - began,
            metrics=metrics,
        )
        self._met.append(self._meets(line))
        audited = self._finite(line) and (self._crosses() or self._confirmed() or final)
        if self._keeper is not None and audited:
            line = replace(line, parameters_sha256=self._keeper.keep_evaluated(line.step, params, model_state))
        self._evals.append(line)
        self._recorder.eval(line)
        charge = line.charge(self._rules.clock)
        self._watch(
            Progress(line.step, line.examples, line.seconds, charge, len(self._evals), self._target_metric(line))
        )
        return line

    def _target_metric(self, line: EvalLine) -> float:
        return line.metrics[f"valid/{self._rules.target.metric}"]

    def _meets(self, line: EvalLine) -> bool:
        """Whether an eval meets the target within the budget, by a model that still gives numbers."""
        within = line.charge(self._rules.clock) <= self._rules.budget
        return within and self._rules.target.met_by(self._target_metric(line)) and self._finite(line)

    def _finite(self, line: EvalLine) -> bool:
        """Whether the model still gives numbers: an error rate can look fine where every output is NaN."""
        return math.isfinite(line.metrics["valid/loss"]) and math.isfinite(self._target_metric(line))

    def _best(self) -> float:
        best = min if self._rules.target.better == "lower" else max
        return best(self._target_metric(line) for line in self._evals)

    def _confirmed(self) -> bool:
        needed = 1 + self._rules.confirmation
        return len(self._met) >= needed and all(self._met[-needed:])

    def _crosses(self) -> bool:
        """Whether the newest eval may turn out to be the crossing."""
        return self._met[-1] and not any(self._met[-2:-1])

    def _crossing(self) -> Crossing:
        index = len(self._evals) - 1 - self._rules.confirmation
        at, before = self._evals[index], self._evals[index - 1]
        return Crossing(
            eval_index=index, charge=at.charge(self._rules.clock), charge_before=before.charge(self._rules.clock)
        )
