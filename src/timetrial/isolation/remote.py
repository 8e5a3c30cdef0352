"""Submissions that nobody trusts, as trainers: programs where they are pure, else a process of their own."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax import export

from timetrial.checkpoint import Checkpoint
from timetrial.devices import Mesh, key_on, put_replicated
from timetrial.isolation.exported import Handed
from timetrial.isolation.process import Isolated, Process
from timetrial.isolation.wire import BrokenWire, Spec, space_from_json
from timetrial.judge import Counts, Meters, SubmissionFailure, TrainingComplete
from timetrial.loading import Source
from timetrial.submission import Feedback
from timetrial.tuning import Point, SearchSpace
from timetrial.workload import PyTree, Workload

SETTINGS = ("dropout_rate", "label_smoothing")
_MOST = 1 << 62
"""Above what anybody counts."""
_LARGEST_BATCH = 1 << 24
_LARGEST_POINT = 4096
"""Characters of JSON; more could carry what was learnt before anything is charged."""


class Described(NamedTuple):
    """What a submission is, before a trial begins."""

    point: Point
    space: SearchSpace
    hooks: bool
    """Whether it has hooks on the host, so that it cannot be handed over as programs."""
    batch_size: int | None
    """What AlgoPerf's asks for; None for the workload's default."""


class Apart:
    """One submission on one workload, kept apart: starts the processes that hold it."""

    def __init__(self, isolated: Isolated, source: Source, workload: Workload, task: Mapping[str, Any]) -> None:
        """`task` holds the arguments of `make_task`, beside the workload."""
        self._isolated = isolated
        self._source = source
        self._workload = workload
        self._task = task
        self.platform = export.default_export_platform()

    def start(self, *, trains: bool) -> Process:
        return Process(self._isolated, self._source, self._workload, self._task, platform=self.platform, trains=trains)

    def describe(self, choose: Callable[[SearchSpace], Point], *, told: str | None) -> Described:
        """Asks a process that sees no data and is ended at once; `choose` gives the trial's point.

        Raises `SubmissionFailure`. `told` is the workload's name, where the submission may know it.
        """
        with self.start(trains=False) as process:
            try:
                space = space_from_json(process.ask({"do": "space"}).get("space"))
                point = choose(space)
                if len(json.dumps(dict(point))) > _LARGEST_POINT:
                    raise BrokenWire(f"a point of the search space takes more than {_LARGEST_POINT:,} characters")
                answer = process.ask({"do": "hooks", "point": dict(point), "told": told})
                return Described(point, space, bool(answer.get("hooks")), _size(answer.get("batch_size")))
            except BrokenWire as error:
                raise _nonsense(error) from None


class Tracer:
    """A process that has nothing but the submission's code, started, and asked once for the programs."""

    def __init__(self, process: Process, point: Point, devices: int) -> None:
        self._process = process
        self._point = point
        self._devices = devices

    def trace(self) -> Handed:
        """Raises `SubmissionFailure`. The process is ended, and nothing of it is left."""
        try:
            answer = self._process.ask({"do": "export", "point": dict(self._point), "devices": self._devices})
            names, sizes = _programs(answer.get("programs"))
            arrays = self._process.exchange.read([Spec((size,), "uint8") for size in sizes])
            ignored = _strings(answer.get("ignored"))
            programs = {name: array.tobytes() for name, array in zip(names, arrays, strict=True)}
            return Handed(programs, _size(answer.get("batch_size")), ignored)
        except BrokenWire as error:
            raise _nonsense(error) from None
        finally:
            self._process.close()


class RemoteTrainer:
    """A submission that trains in a process of its own; a `timetrial.judge.Trainer`.

    Between two calls the process is suspended: what it does counts, and all that it does is within a call.
    """

    def __init__(
        self,
        process: Process,
        workload: Workload,
        described: Described,
        *,
        seed: Callable[[str], int],
        mesh: Mesh,
        clock: Literal["seconds", "steps", "examples"],
        file_bytes: int,
    ) -> None:
        self._process = process
        self._mesh = mesh
        self._clock = clock
        self._file_bytes = file_bytes
        self._default_batch_size = workload.default_batch_size
        self._initial = jax.jit(workload.init, out_shardings=mesh.replicated)(key_on(seed("init"), mesh))
        self._specs = [Spec.of(leaf) for leaf in jax.tree.leaves(self._initial)]
        self._counts = Counts(0, 0)
        self._meters = Meters(0.0, 0.0)
        self._repeated = 0.0
        self._resumed = False
        self._suspended = False
        self._asked_seconds = 0.0
        self._exact = False
        self._ignored: tuple[str, ...] = ()
        purposes = ("init", "opt_state", "step", "eval_params", "select", "data", "eval_data")
        self._ask(
            {
                "do": "build",
                "point": dict(described.point),
                "seeds": {purpose: seed(purpose) for purpose in purposes},
                "exact": clock == "examples",
                "batch_size": described.batch_size,
            }
        )

    # What the judge asks for.

    def initial(self) -> tuple[PyTree, PyTree]:
        return self._initial

    def start(self) -> None:
        self._ask({"do": "start"})

    def run(self, stop: Callable[[Counts], bool], boundary: float = math.inf) -> None:
        exchange = self._process.exchange
        if stop(self._counts):
            return
        exchange.tell_to_stop(False)
        told, seen = False, self._counts

        def look() -> None:
            nonlocal told, seen
            counts = Counts(*exchange.counts())
            # Where nothing moves, nobody is told, so that whoever waits for this trial sees that it hangs.
            if not told and (counts != seen or self._clock == "seconds"):
                seen = counts
                if told := stop(counts):
                    exchange.tell_to_stop(True)

        limit = boundary if math.isfinite(boundary) and self._clock != "seconds" else None
        every = 0.005 if self._clock == "seconds" else 0.25
        answer = self._ask({"do": "run", "clock": self._clock, "boundary": limit}, look, every)
        if answer.get("complete") is True:
            raise TrainingComplete

    def evaluated(self) -> tuple[PyTree, PyTree]:
        self._ask({"do": "evaluated"})
        try:
            arrays = self._process.exchange.read(self._specs)
        except BrokenWire as error:
            raise _nonsense(error) from None
        return put_replicated(jax.tree.unflatten(jax.tree.structure(self._initial), arrays), self._mesh)

    def settle(self) -> None:
        """Waits for what still runs on the devices. Not charged, and so a failure where it takes long."""
        self._process.settle()

    def feedback(self, feedback: Feedback) -> None:
        metrics = {name: float(value) for name, value in feedback.metrics.items()}
        self._ask({"do": "feedback", "metrics": metrics, "charge": feedback.charge, "budget": feedback.budget})

    def counts(self) -> Counts:
        return self._counts

    def meters(self) -> Meters:
        return self._meters

    def examples_exact(self) -> bool:
        return self._exact

    def ignored(self) -> tuple[str, ...]:
        return self._ignored

    def repeated_seconds(self) -> float:
        return self._repeated if self._resumed else 0.0

    # What a checkpoint asks for.

    def save(self) -> Checkpoint | None:
        if self._clock == "seconds":
            return None  # it would begin anew in any case, and this would give its process time that is not charged
        answer = self._ask({"do": "save"})
        try:
            numbers = answer.get("saved")
            if numbers is None:
                return None
            if not isinstance(numbers, dict):
                raise BrokenWire("a checkpoint without numbers")
            numbers = {**numbers, **self._counts._asdict()}
            return Checkpoint(self._process.exchange.read(self._sent(answer.get("arrays"))), numbers)
        except BrokenWire as error:
            raise _nonsense(error) from None

    def resume(self, find: Callable[[Sequence[np.ndarray]], Checkpoint | None]) -> Checkpoint | None:
        try:
            specs = self._sent(self._ask({"do": "like"}).get("arrays"))
        except BrokenWire as error:
            raise _nonsense(error) from None
        found = find([np.zeros(spec.shape, spec.dtype) for spec in specs])
        if found is None:
            return None
        self._counts = Counts(found.numbers["step"], found.numbers["examples"])
        sent = self._process.exchange.write(found.arrays)
        self._ask({"do": "resume", "numbers": dict(found.numbers), "arrays": sent})
        self._resumed = True
        return found

    def close(self) -> None:
        self._process.close()

    # What goes over the wire.

    def _ask(
        self, message: Mapping[str, Any], look: Callable[[], None] | None = None, every: float = 0.25
    ) -> dict[str, Any]:
        began = time.monotonic()
        if self._suspended:
            self._process.resume()
        answer = self._process.ask(message, look=look, every=every)
        self._process.suspend()
        self._suspended = True
        self._asked_seconds += time.monotonic() - began
        try:
            if "counts" in answer:
                self._take(answer)
        except (BrokenWire, KeyError, OverflowError, TypeError, ValueError) as error:
            raise _nonsense(error) from None
        return answer

    def _take(self, state: Mapping[str, Any]) -> None:
        """What the process says of itself; what cannot be true is refused."""
        step, examples = map(int, state["counts"])
        more = step - self._counts.step
        used = examples - self._counts.examples
        if more < 0 or used < more * self._default_batch_size or examples >= _MOST:
            raise BrokenWire(f"{step} steps cannot have used {examples} examples")
        self._counts = Counts(step, examples)
        compile_seconds, data_seconds, repeated = (
            float(x) if math.isfinite(x) and x >= 0 else 0.0 for x in (*state["meters"], state["repeated"])
        )
        self._repeated = min(repeated, self._asked_seconds)
        self._meters = Meters(compile_seconds, data_seconds)
        self._exact = state["exact"] is True
        self._ignored = _strings(state["ignored"])

    def _sent(self, data: Any) -> list[Spec]:
        if not isinstance(data, list):
            raise BrokenWire("no arrays")
        specs = [Spec.read(item) for item in data]
        if sum(spec.nbytes for spec in specs) > self._file_bytes:
            raise BrokenWire("the state is larger than the file that it is sent in")
        return specs


def _programs(data: Any) -> tuple[list[str], list[int]]:
    """Names in sorted order, and the bytes of each."""
    if not isinstance(data, dict) or not all(isinstance(n, int) and 0 < n < 1 << 30 for n in data.values()):
        raise BrokenWire("no programs")
    names = sorted(data)
    return names, [data[name] for name in names]


def _size(data: Any) -> int | None:
    if data is None:
        return None
    if isinstance(data, bool) or not isinstance(data, int) or not 1 <= data <= _LARGEST_BATCH:
        raise BrokenWire("no batch size")
    return data


def _strings(data: Any) -> tuple[str, ...]:
    if not isinstance(data, list) or not all(name in SETTINGS for name in data):
        raise BrokenWire("no names of settings")
    return tuple(data)


def _nonsense(error: Exception) -> SubmissionFailure:
    return SubmissionFailure("error", f"the submission's process broke the protocol: {error}")
