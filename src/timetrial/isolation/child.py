"""The process that holds a submission nobody trusts: it hands over the submission's programs, or trains with it.

Nothing that it says is believed. What it is asked comes as lines on standard input (`timetrial.isolation.wire`); what
the submission prints goes to standard error.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from timetrial import machine
from timetrial.checkpoint import Checkpoint, to_host
from timetrial.devices import Mesh
from timetrial.failures import submission_code
from timetrial.isolation.exporting import as_arrays, export_submission
from timetrial.isolation.policy import EXCHANGE, SUBMISSION, TRAIN
from timetrial.isolation.wire import BrokenWire, ChildExchange, Pipe, Spec, space_to_json
from timetrial.judge import Counts, SubmissionFailure, TrainingComplete
from timetrial.loading import Loaded, Source, load
from timetrial.problem import WorkloadProblem, make_task
from timetrial.programs import Entry, Prepared
from timetrial.submission import Feedback, Task
from timetrial.trainers import importable, make_trainer
from timetrial.tuning import traced_names
from timetrial.workload import Workload, at_precision, economical

Load = Callable[[str], Workload]


def main(load_workload: Load | None = None) -> int:
    """Answers until it is told to end, or the harness is gone. A test's own workloads come in with `load_workload`."""
    pipe = Pipe(os.dup(0), os.dup(1))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    try:
        first = pipe.receive()
        assert first is not None
        ready = {"ready": machine.packages(), "devices": machine.devices()}
        if load_workload is None:
            from timetrial.registry import load_workload
        workload = at_precision(load_workload(first["workload"]), first["matmul_precision"])
        workload = economical(workload, accumulate=first["accumulate"], remat=first["remat"])
        child = _Child(first, workload, pipe)
        with importable(child.source):
            child.answer(ready)
    except BrokenWire:
        return 0  # the harness has all that it wanted, or is gone
    return 0


class _Child:
    """One submission on one workload."""

    def __init__(self, first: Mapping[str, Any], workload: Workload, pipe: Pipe) -> None:
        self._pipe = pipe
        self._exchange = ChildExchange(EXCHANGE)
        self.source = Source(first["name"], Path(SUBMISSION) / first["file"])
        self._workload = replace(workload, data=workload.data.train_alone(Path(TRAIN)))
        self._task: Task = make_task(workload, **first["task"])
        self._platform: str = first["platform"]
        self._trainer: Any = None

    def answer(self, ready: Mapping[str, Any]) -> None:
        self._pipe.send(ready)
        while True:
            asked = self._pipe.receive()
            assert asked is not None
            what = asked.pop("do")
            try:
                answer = getattr(self, f"_{what}")(**asked)
            except SubmissionFailure as failure:
                answer = {"failure": [failure.status, str(failure)]}
            self._pipe.send(answer)

    # For a submission that is handed over as programs.

    def _space(self) -> dict[str, Any]:
        """The search space."""
        self._loaded = self._load()
        return {"space": space_to_json(self._loaded.search_space)}

    def _hooks(self, point: Mapping[str, Any], told: str | None) -> dict[str, Any]:
        """Whether the submission has hooks on the host at this point, and what AlgoPerf's asks for as its batch."""
        if self.source.api == "algoperf":
            with submission_code("get_batch_size", self.source.folder):
                asked = None if told is None else int(self._loaded.module.get_batch_size(told))
            return {"hooks": True, "batch_size": asked}
        prepared = self._prepared(self._loaded, point)
        return {"hooks": prepared.select is not None or prepared.on_eval is not None, "batch_size": None}

    def _export(self, point: Mapping[str, Any], devices: int) -> dict[str, Any]:
        problem = WorkloadProblem(self._workload)
        prepared = self._prepared(self._load(), point, problem)
        size = prepared.batch_size or self._workload.default_batch_size
        rows = -(-size // devices) * devices
        with submission_code("step", self.source.folder):
            programs = export_submission(
                prepared, self._workload, problem, rows=rows, weighted=rows != size, platform=self._platform
            )
        sizes = self._exchange.write(as_arrays(programs))
        return {
            "programs": {name: size for name, ((size,), _) in zip(sorted(programs), sizes, strict=True)},
            "batch_size": prepared.batch_size,
            "ignored": sorted(problem.ignored),
        }

    def _prepared(self, loaded: Loaded, point: Mapping[str, Any], problem: WorkloadProblem | None = None) -> Prepared:
        traced = traced_names(loaded.search_space)
        entry = Entry(make=loaded.make, folder=self.source.folder, hparams=point, traced=traced)
        with submission_code("make", self.source.folder):
            return entry.prepare(problem or WorkloadProblem(self._workload), self._task)

    def _load(self) -> Loaded:
        with submission_code("import", self.source.folder):
            return load(self.source)

    # For a submission that is trained in this process.

    def _build(self, point: Mapping[str, Any], seeds: Mapping[str, int], exact: bool, batch_size: int | None) -> Any:
        """All that needs no code of the submission's: the data, the initial model."""
        self._trainer = make_trainer(
            self.source,
            self._load,
            point,
            self._workload,
            self._task,
            seed=seeds.__getitem__,
            mesh=Mesh.local(),
            now=time.perf_counter,
            exact_examples=exact,
            batch_size=batch_size,
        )
        return self._state()

    def _start(self) -> dict[str, Any]:
        self._trainer.start()
        return self._state()

    def _run(self, clock: str, boundary: float | None) -> dict[str, Any]:
        def stop(counts: Counts) -> bool:
            self._exchange.count(*counts)
            charge = counts.examples if clock == "examples" else counts.step
            return (boundary is not None and charge >= boundary) or self._exchange.told_to_stop()

        try:
            self._trainer.run(stop)
        except TrainingComplete:
            return {**self._state(), "complete": True}
        return self._state()

    def _evaluated(self) -> dict[str, Any]:
        self._exchange.write(to_host(self._trainer.evaluated()))
        return self._state()

    def _feedback(self, metrics: Mapping[str, float], charge: float, budget: float) -> dict[str, Any]:
        self._trainer.feedback(Feedback(metrics, charge, budget))
        return self._state()

    def _save(self) -> dict[str, Any]:
        saved = self._trainer.save()
        if saved is None:
            return {"saved": None}
        return {"saved": saved.numbers, "arrays": self._exchange.write(saved.arrays)}

    def _like(self) -> dict[str, Any]:
        """Shapes and dtypes of what a checkpoint holds."""
        found: list[Any] = []

        def find(like: Any) -> None:
            found.extend(Spec.of(array) for array in like)

        self._trainer.resume(find)
        return {"arrays": found}

    def _resume(self, numbers: Mapping[str, Any], arrays: list[Any]) -> dict[str, Any]:
        read = self._exchange.read([Spec.read(spec) for spec in arrays])
        self._trainer.resume(lambda like: Checkpoint(read, numbers))
        return self._state()

    def _state(self) -> dict[str, Any]:
        return {
            "counts": list(self._trainer.counts()),
            "meters": list(self._trainer.meters()),
            "repeated": self._trainer.repeated_seconds(),
            "exact": self._trainer.examples_exact(),
            "ignored": list(self._trainer.ignored()),
        }


if __name__ == "__main__":
    sys.exit(main())
