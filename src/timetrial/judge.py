"""The judge of a trial: clock, budget, targets, evaluation and record. It never calls submission code itself.

The other side is a `Trainer`, which holds all that the submission touches. The two exchange plain arrays and numbers
only, so that the trainer may live in this process or in another.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
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


class Trainer(Protocol):
    """Drives one submission on one workload. Each call returns after all device work of the submission is done."""

    def initial(self) -> tuple[Any, Any]:
        """The untrained (params, model_state), which do not depend on the submission. Not charged."""
        ...

    def start(self) -> None:
        """Loads the submission and initialises its state. Charged."""
        ...

    def run(self, stop: Callable[[Counts], bool]) -> None:
        """Takes steps until `stop(counts)`, asked before every step, says so. Charged."""
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


class Recorder(Protocol):
    """Where the judge writes: `record.RecordWriter`, or a list in a test."""

    def eval(self, line: EvalLine) -> None: ...

    def end(self, line: EndLine) -> None: ...


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
    ) -> None:
        self._trainer = trainer
        self._evaluate = evaluate
        self._recorder = recorder
        self._rules = header
        self._now = now
        self._watch = watch
        self._always_test = always_test
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
        except KeyboardInterrupt:
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
        with self._stopwatch.charging():
            self._trainer.start()
        rules = self._rules
        while True:
            with self._stopwatch.charging():
                self._trainer.run(self._stop_at_next_grid_point())
                params, model_state = self._trainer.evaluated()
            final = self._charge(self._trainer.counts()) >= rules.budget
            line = self._eval(params, model_state, final=final)
            if not self._finite(line):
                loss = line.metrics["valid/loss"]
                return "diverged", f"the loss is {loss}, {rules.target.metric} {self._target_metric(line)}"
            if self._confirmed():
                return "reached", f"{rules.target} reached"
            if final:
                return "budget", f"{rules.target} not reached; best {self._best():g}"
            if not self._met[-1]:
                charged = self._charge(self._trainer.counts())
                metrics = {k: v for k, v in line.metrics.items() if k.startswith("valid/")}
                with self._stopwatch.charging():
                    self._trainer.feedback(Feedback(metrics=metrics, charge=charged, budget=rules.budget))

    def _charge(self, counts: Counts) -> float:
        if self._rules.clock == "seconds":
            return self._stopwatch.seconds
        return float(counts.step if self._rules.clock == "steps" else counts.examples)

    def _stop_at_next_grid_point(self) -> Callable[[Counts], bool]:
        rules = self._rules
        charged = self._charge(self._trainer.counts())
        point = math.floor(charged / rules.eval_every) + 1
        if point * rules.eval_every <= charged:  # the division was rounded down
            point += 1
        boundary = min(point * rules.eval_every, rules.budget)
        metric = self._target_metric(self._evals[-1]) if self._evals else None
        next_look = self._now() + _WATCH_SECONDS

        def stop(counts: Counts) -> bool:
            nonlocal next_look
            charge = self._charge(counts)
            if (now := self._now()) >= next_look:
                next_look = now + _WATCH_SECONDS
                seconds = self._stopwatch.seconds
                self._watch(Progress(counts.step, counts.examples, seconds, charge, len(self._evals), metric))
            return charge >= boundary

        return stop

    def _eval(self, params: Any, model_state: Any, *, final: bool) -> EvalLine:
        counts, meters, began = self._trainer.counts(), self._trainer.meters(), self._now()
        metrics = dict(self._evaluate(params, model_state, EVERY_EVAL))
        met = self._rules.target.met_by(metrics[f"valid/{self._rules.target.metric}"])
        if met or final or self._always_test:
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
        self._evals.append(line)
        charge = line.charge(self._rules.clock)
        self._met.append(met and self._finite(line) and charge <= self._rules.budget)
        self._recorder.eval(line)
        self._watch(
            Progress(line.step, line.examples, line.seconds, charge, len(self._evals), self._target_metric(line))
        )
        return line

    def _target_metric(self, line: EvalLine) -> float:
        return line.metrics[f"valid/{self._rules.target.metric}"]

    def _finite(self, line: EvalLine) -> bool:
        """Whether the model still gives numbers: an error rate can look fine where every output is NaN."""
        return math.isfinite(line.metrics["valid/loss"]) and math.isfinite(self._target_metric(line))

    def _best(self) -> float:
        best = min if self._rules.target.better == "lower" else max
        return best(self._target_metric(line) for line in self._evals)

    def _confirmed(self) -> bool:
        needed = 1 + self._rules.confirmation
        return len(self._met) >= needed and all(self._met[-needed:])

    def _crossing(self) -> Crossing:
        index = len(self._evals) - 1 - self._rules.confirmation
        at, before = self._evals[index], self._evals[index - 1]
        return Crossing(
            eval_index=index, charge=at.charge(self._rules.clock), charge_before=before.charge(self._rules.clock)
        )
