"""One trial over several processes: what the leader's trainer and evaluator do, those of the followers do as well.

All devices form one mesh, so every process has to hand the same programs to its devices in the same order. What that
order is, the leader's judge decides, by its clock and by what it measures; the leader names each call to its followers
before it makes it. What needs no other devices (record, checkpoints, metrics of the record) it does alone.
"""

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Protocol

import jax
import numpy as np

from timetrial.checkpoint import FOLDER, Checkpoint, Checkpoints
from timetrial.judge import Counts, Evaluator, SubmissionFailure, Trainer
from timetrial.keeper import Saved
from timetrial.peers import Followers, Leader
from timetrial.submission import Feedback


class Led(Trainer, Saved, Protocol):
    """A trainer that a keeper can save; see `timetrial.trainer.PureTrainer`."""


class LeadingTrainer:
    """The leader's trainer; a `timetrial.judge.Trainer`."""

    def __init__(self, trainer: Led, followers: Followers) -> None:
        self._trainer = trainer
        self._followers = followers
        self.initial = trainer.initial
        self.counts = trainer.counts
        self.meters = trainer.meters
        self.examples_exact = trainer.examples_exact
        self.ignored = trainer.ignored
        self.repeated_seconds = trainer.repeated_seconds
        self.save = trainer.save

    def start(self) -> None:
        with self._leading("start"):
            self._trainer.start()

    def run(self, stop: Callable[[Counts], bool], boundary: float) -> None:
        def decide(counts: Counts) -> bool:
            over = stop(counts)
            self._followers.tell("stop" if over else "step")
            return over

        with self._leading("run"):
            self._trainer.run(decide, boundary)

    def evaluated(self) -> tuple[Any, Any]:
        with self._leading("evaluated"):
            return self._trainer.evaluated()

    def feedback(self, feedback: Feedback) -> None:
        with self._leading("feedback", feedback._asdict()):
            self._trainer.feedback(feedback)

    def resume(self, find: Callable[[Sequence[np.ndarray]], Checkpoint | None]) -> Checkpoint | None:
        found = self._trainer.resume(find)
        if found is not None:
            self._followers.tell("resume", self._trainer.counts().step)
        return found

    @contextmanager
    def _leading(self, *order: Any) -> Generator[None]:
        """What devices report is not the submission's doing here: without one of them the work of all fails."""
        self._followers.tell(*order)
        try:
            yield
        except SubmissionFailure as failure:
            if isinstance(failure.__cause__, jax.errors.JaxRuntimeError) and failure.status != "out_of_memory":
                raise ConnectionError(f"the processes of the trial lost each other: {failure}") from failure
            raise


def leading_evaluator(evaluate: Evaluator, followers: Followers) -> Evaluator:
    """`evaluate`, on the devices of all."""

    def told(params: Any, model_state: Any, splits: Iterable[str]) -> Mapping[str, float]:
        followers.tell("evaluate", *splits)
        return evaluate(params, model_state, splits)

    return told


def follow(trainer: Led, evaluate: Evaluator, folder: Path, leader: Leader) -> NoReturn:
    """Does what the leader does, until the process ends with it; `folder` is the trial's."""
    evaluated = trainer.initial()
    while True:
        match leader.order():
            case ["start"]:
                trainer.start()
            case ["run"]:
                trainer.run(lambda counts: leader.order() == ["stop"], math.inf)
            case ["evaluated"]:
                evaluated = trainer.evaluated()
            case ["evaluate", *splits]:
                evaluate(*evaluated, splits)
            case ["feedback", feedback]:
                trainer.feedback(Feedback(**feedback))
            case ["resume", step]:
                _restore(trainer, folder / FOLDER, step)
            case order:
                raise RuntimeError(f"an order that is none: {order}")


def _restore(trainer: Led, folder: Path, step: int) -> None:
    checkpoints = Checkpoints(folder, read_only=True)
    found = trainer.resume(lambda like: checkpoints.at(step, like))
    checkpoints.close()
    if found is None:
        raise RuntimeError(f"the checkpoint of step {step} in {folder} cannot be read here; is the folder shared?")
