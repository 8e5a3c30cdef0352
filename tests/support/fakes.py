"""A clock that only moves when told, a trainer that trains nothing, and a recorder that keeps lines in a list."""

from collections.abc import Callable, Mapping
from typing import Any

from timetrial.judge import Counts, Meters, SubmissionFailure
from timetrial.record import EndLine, EvalLine, RunHeader
from timetrial.submission import Feedback
from timetrial.target import Target


class FakeClock:
    """`now()` of a machine on which nothing takes time but what `spend` says."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time

    def spend(self, seconds: float) -> None:
        self.time += seconds


class FakeTrainer:
    """Takes steps of a fixed length; its parameters are the step's number, of which an evaluator makes metrics."""

    def __init__(
        self,
        clock: FakeClock,
        *,
        init: float = 0.0,
        step: float = 1.0,
        eval_params: float = 0.0,
        on_eval: float = 0.0,
        examples_per_step: int = 10,
        fail_at: int | None = None,
        failure: BaseException | None = None,
    ) -> None:
        self.clock = clock
        self.costs = {"init": init, "step": step, "eval_params": eval_params, "on_eval": on_eval}
        self.examples_per_step = examples_per_step
        self.fail_at = fail_at
        self.failure = failure or SubmissionFailure("error", "step raised ValueError: no")
        self.feedbacks: list[Feedback] = []
        self.done = Counts(0, 0)

    def initial(self) -> tuple[Any, Any]:
        return 0, None

    def start(self) -> None:
        self.clock.spend(self.costs["init"])

    def run(self, stop: Callable[[Counts], bool], boundary: float) -> None:
        while not stop(self.done):
            if self.done.step == self.fail_at:
                raise self.failure
            self.clock.spend(self.costs["step"])
            self.done = Counts(self.done.step + 1, self.done.examples + self.examples_per_step)

    def evaluated(self) -> tuple[Any, Any]:
        self.clock.spend(self.costs["eval_params"])
        return self.done.step, None

    def feedback(self, feedback: Feedback) -> None:
        self.clock.spend(self.costs["on_eval"])
        self.feedbacks.append(feedback)

    def counts(self) -> Counts:
        return self.done

    def meters(self) -> Meters:
        return Meters(0.0, 0.0)

    def examples_exact(self) -> bool:
        return True

    def ignored(self) -> tuple[str, ...]:
        return ()

    def repeated_seconds(self) -> float:
        return 0.0


class ListRecorder:
    """Keeps what the judge writes."""

    def __init__(self) -> None:
        self.evals: list[EvalLine] = []
        self.ends: list[EndLine] = []
        self.asked: list[tuple[int, tuple[str, ...]]] = []
        """What a test's evaluator was asked for: steps and splits."""

    def go_to(self, evals: int) -> list[EvalLine]:
        return self.evals[:evals]

    def eval(self, line: EvalLine) -> None:
        self.evals.append(line)

    def end(self, line: EndLine) -> None:
        self.ends.append(line)


def header(**changes: Any) -> RunHeader:
    """A header with a lower-is-better target of 0.5 and a budget of 100 seconds, evaluated every 10."""
    values: Mapping[str, Any] = {
        "workload": "toy",
        "workload_version": 1,
        "workload_sha256": "0" * 64,
        "submission": "sgd",
        "submission_sha256": "1" * 64,
        "ruleset": "test",
        "ruleset_version": 1,
        "ruleset_sha256": "2" * 64,
        "clock": "seconds",
        "tuning": "external",
        "seed": 0,
        "study": 0,
        "trial": 0,
        "hparams": {},
        "target": Target("error_rate", 0.5, "lower"),
        "test_target": None,
        "budget": 100.0,
        "eval_every": 10.0,
        "confirmation": 0,
        "isolation": "none",
        "created": "2026-01-01T00:00:00+00:00",
        "hardware": {},
        "packages": {},
    }
    return RunHeader(**{**values, **changes})
