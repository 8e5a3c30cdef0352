"""When a trial's checkpoints are made, and how it goes on from one; a `timetrial.judge.Keeper`."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from timetrial.checkpoint import FOLDER, Checkpoint, Checkpoints, discard, to_host
from timetrial.judge import Counts, Restored
from timetrial.record import EvalLine, RecordWriter, ResumeLine

EVALUATED_FOLDER = "evaluated"
"""Beside a record: the parameters and model state that were evaluated at the crossing and at the end."""


class Saved(Protocol):
    """What a keeper asks of a trainer."""

    def save(self) -> Checkpoint | None:
        """All it takes to go on from here; None where its state cannot be saved."""
        ...

    def resume(self, find: Callable[[Sequence[np.ndarray]], Checkpoint | None]) -> Checkpoint | None:
        """Goes back to the checkpoint that `find` has for arrays like the state's; or says None."""
        ...

    def counts(self) -> Counts: ...


class TrialKeeper:
    """Keeps the checkpoints of one trial in its folder. orbax is imported when the first one is made or looked for."""

    def __init__(
        self,
        trainer: Saved,
        writer: RecordWriter,
        folder: Path,
        now: Callable[[], float],
        *,
        every_seconds: float,
    ) -> None:
        self._trainer = trainer
        self._writer = writer
        self._folder = folder
        self._now = now
        self._every_seconds = every_seconds
        self._last = now()
        self._spent = 0.0
        self._checkpoints: Checkpoints | None = None

    def restore(self) -> Restored | None:
        if not (self._folder / FOLDER).is_dir():
            return None
        found = self._trainer.resume(self._opened().newest)
        if found is None:
            return None
        restored = Restored(found.numbers["seconds"], found.numbers["recorded_evals"])
        counts = self._trainer.counts()
        self._writer.resume(
            ResumeLine(
                step=counts.step,
                examples=counts.examples,
                seconds=restored.seconds,
                evals=restored.evals,
                lost_seconds=max(0.0, _seconds(self._writer.replayed) - restored.seconds),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )
        self._last = self._now()
        return restored

    def due(self) -> bool:
        return self._now() - self._last >= self._every_seconds

    def save(self, seconds: float, evals: int) -> None:
        began = self._now()
        saved = self._trainer.save()
        if saved is not None:
            numbers = {**saved.numbers, "seconds": seconds, "recorded_evals": evals}
            self._opened().save(self._trainer.counts().step, Checkpoint(saved.arrays, numbers))
        self._last = self._now()
        self._spent += self._last - began

    def keep_evaluated(self, step: int, params: Any, model_state: Any) -> str:
        began = self._now()
        kept = Checkpoints(self._folder / EVALUATED_FOLDER)
        sha256 = kept.save(step, Checkpoint(to_host((params, model_state)), {"step": step}))
        kept.close()
        self._spent += self._now() - began
        return sha256

    def seconds_spent(self) -> float:
        return self._spent

    def close(self, *, over: bool) -> None:
        """Removes the checkpoints of a trial that is over."""
        if self._checkpoints is not None:
            self._checkpoints.close()
        if over:
            discard(self._folder / FOLDER)

    def _opened(self) -> Checkpoints:
        if self._checkpoints is None:
            self._checkpoints = Checkpoints(self._folder / FOLDER)
        return self._checkpoints


def _seconds(evals: tuple[EvalLine, ...]) -> float:
    return evals[-1].seconds if evals else 0.0
