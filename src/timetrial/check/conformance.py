"""Dynamic rules: does a submission do what it may, on noise, on a canary and on every workload?

Each run is a few legs (`rehearsal.leg`): two steps, an evaluation, its feedback. docs/rules.md says what for.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from timetrial import variants
from timetrial.check.canary import canary
from timetrial.check.disguise import disguised, likeness
from timetrial.check.given import Given
from timetrial.check.report import Verdict
from timetrial.check.steps import (
    STEPS,
    Census,
    Leg,
    Trainer,
    census,
    host,
    leg,
    on_noise,
    only_new_objects,
    rehearsing,
    same,
)
from timetrial.devices import Mesh
from timetrial.failures import submission_code
from timetrial.judge import SubmissionFailure
from timetrial.loading import Loaded, Source, load
from timetrial.registry import workload_names
from timetrial.trainer import PureTrainer
from timetrial.trainers import importable
from timetrial.tuning import Point, default_point, halton_points, traced_names
from timetrial.workload import Workload

__all__ = ["check", "on_noise"]

_REPLAYS = 3
_OBJECTS = 500
"""New Python objects a leg that are no growth: jax keeps notes of its own."""
_ALIKE_COSINE, _ALIKE_SIZE, _KIN_SIZE = 0.9, 1.5, 3.0
"""In disguise: updates are alike where they point the same way and are of a size, and kin where the size is near."""


def check(source: Source, workloads: Iterable[Workload]) -> Iterator[Verdict]:
    """The verdicts, as they are reached: on the import and the search space, on the canary, then on each workload."""
    with importable(source):
        yield from _check(source, workloads)


def _check(source: Source, workloads: Iterable[Workload]) -> Iterator[Verdict]:
    try:
        with submission_code("import", source.folder):
            loaded, again = load(source), load(source)
    except SubmissionFailure as failure:
        yield Verdict(rule="import", status="fail", message=str(failure), todo="make the file importable")
        return
    exports = "make" if source.api == "timetrial" else "update_params: AlgoPerf's API"
    yield Verdict(rule="import", status="pass", message=f"{source.path.name} exports {exports}")
    if source.api == "algoperf" and (asked := sorted(source.folder.glob("requirements*.txt"))):
        noted = f"{', '.join(path.name for path in asked)}: noted, not installed"
        yield Verdict(rule="requirements", status="warn", message=noted, todo="install what is missing by hand")
    if loaded.search_space:
        listed = ", ".join(f"{name}={value!r}" for name, value in default_point(loaded.search_space).items())
        yield Verdict(rule="search space", status="pass", message=f"default point {listed}")
    else:
        yield Verdict(rule="search space", status="pass", message="none: the submission tunes itself")
    yield from _Checked(source, loaded, canary()).on_canary(again)
    for workload in workloads:
        yield from _Checked(source, loaded, workload).on_workload()


class _Second(NamedTuple):
    """A second leg, and the examples a step."""

    leg: Leg
    rows: int


class _Checked:
    """A submission on one workload."""

    def __init__(self, source: Source, loaded: Loaded, workload: Workload) -> None:
        self._source = source
        self._loaded = loaded
        self._workload = workload
        self._point: Point = default_point(loaded.search_space) if loaded.search_space else {}
        self._first: Leg | None = None
        """The second leg at the default point; exists once the contract is kept."""

    def on_canary(self, again: Loaded) -> Iterator[Verdict]:
        """What holds anywhere if it holds here: fresh starts agree, and every point of the search space is taken."""
        yield from self._contract()
        if self._first is None:
            return
        yield self._determinism({"started anew": self._loaded, "imported anew": again}, self._first)
        yield from self._points()
        if self._source.api == "timetrial":  # AlgoPerf's API hands batches to the model itself
            yield self._unaltered()
        yield self._in_disguise(self._first)

    def on_workload(self) -> Iterator[Verdict]:
        yield from self._contract()
        if self._first is None:
            return
        if self._loaded.search_space and set(self._point) - traced_names(self._loaded.search_space):
            yield from self._points()  # other choices are other programs; other numbers are not
        yield self._in_disguise(self._first)
        yield from self._variant()

    def _contract(self) -> Iterator[Verdict]:
        """Trains at the default point, and asks all that one trainer can answer."""
        try:
            with rehearsing(self._source, self._loaded, self._workload, self._point) as trainer:
                trainer.start()
                verdicts = list(self._replays(trainer))
                counts, exact, ignored = trainer.counts(), trainer.examples_exact(), trainer.ignored()
        except SubmissionFailure as failure:
            self._first = None
            todo = "`timetrial check --traceback` shows where; docs/submissions.md is the contract"
            yield self._failed("contract", str(failure), todo)
            return
        self._rows = counts.examples // counts.step
        yield self._passed("contract", f"{counts.step} steps and every hook; {self._rows:,} examples a step")
        if not exact:
            message = "the rows through the loss are unknown: not ranked by examples"
            todo = "boards in seconds rank it; those in examples ask for loops of a fixed number of turns"
            yield self._warned("counting", message, todo)
        if ignored:
            message = f"the workload has no {' and no '.join(ignored)}: ignored"
            yield self._warned("ignored", message, "nothing, unless the method depends on it")
        yield from verdicts

    def _replays(self, trainer: Trainer) -> Iterator[Verdict]:
        """Goes the same leg several times from one saved state, as a resumed trial would."""
        metric = self._workload.metric
        self._initial = host(trainer.initial()[0])
        leg(trainer, metric)
        saved = trainer.save()
        if saved is None:
            self._first = leg(trainer, metric)
            yield self._finite("finite", self._first)
            message = "the state holds what cannot be saved: not tried, and trials cannot be resumed"
            yield self._warned("purity", message, "keep arrays and numbers in the optimizer state")
            return
        legs: list[Leg] = []
        evaluated: list[list[np.ndarray]] = []
        alive: list[Census] = []
        with only_new_objects():
            for _ in range(_REPLAYS):
                trainer.resume(lambda like: saved)
                evaluated.append(host(trainer.evaluated()))
                trainer.resume(lambda like: saved)
                legs.append(leg(trainer, metric))
                alive.append(census())
        self._first = first = legs[0]
        yield self._finite("finite", first)
        todo = "keep nothing outside the state that `step` and the hooks are given"
        if all(other.same_as(first) for other in legs):
            yield self._passed("purity", "from the same state the same steps give the same bits, whatever came between")
        else:
            yield self._failed("purity", "from the same state, the same steps gave other results later on", todo)
        if all(same(other, evaluated[0]) for other in evaluated):
            yield self._passed("evaluation", "from the same state the same parameters are evaluated")
        else:
            yield self._failed("evaluation", "from the same state, other parameters were evaluated later on", todo)
        yield self._growth(alive)
        yield self._memory(trainer, first)

    def _determinism(self, fresh: Mapping[str, Loaded], first: Leg) -> Verdict:
        for what, loaded in fresh.items():
            try:
                found = self._second_leg(self._workload, self._point, loaded=loaded)
            except SubmissionFailure as failure:
                return self._failed("contract", f"{what}: {failure}", "keep nothing between trials")
            if not found.leg.same_as(first):
                message = f"two runs with the same seeds differ when the submission is {what}"
                return self._failed(
                    "determinism", message, "draw all randomness from `key`; keep nothing between trials"
                )
        return self._passed("determinism", f"the same bits when it is {' and when it is '.join(fresh)}")

    def _growth(self, alive: list[Census]) -> Verdict:
        arrays, objects = (min(later[i] - earlier[i] for earlier, later in pairwise(alive)) for i in (0, 1))
        if arrays > 0 or objects > _OBJECTS:
            more = f"{arrays} more arrays and {objects} more Python objects are kept after every {STEPS} steps"
            return self._failed("growth", more, "let go of what the state does not hold")
        return self._passed("growth", "nothing piles up from step to step")

    def _memory(self, trainer: Trainer, first: Leg) -> Verdict:
        def mib(arrays: Iterable[Any]) -> float:
            return sum(array.nbytes for array in arrays) / 2**20

        params, state = mib(self._initial), mib(first.state)
        message = f"the state is {state / params:.1f} x the parameters ({params:.1f} MiB)"
        if not isinstance(trainer, PureTrainer):
            return self._passed("memory", message)
        step, there = trainer.step_bytes() / 2**20, Mesh.local().memory_bytes / 2**20
        message += f"; a step needs {step:,.0f} of the device's {there:,.0f} MiB"
        if step > there:
            return self._failed("memory", message, "take smaller batches, or keep less")
        return self._passed("memory", message)

    def _points(self) -> Iterator[Verdict]:
        space = self._loaded.search_space
        others = [] if not space else halton_points(space, 1, seed=0) if isinstance(space, Mapping) else space[1:]
        for other in others:
            try:
                self._second_leg(self._workload, other)
            except SubmissionFailure as failure:
                yield self._failed("search space", f"at the point {dict(other)}: {failure}", "narrow the search space")

    def _unaltered(self) -> Verdict:
        """Every row that passes through the loss is one of those that were drawn."""
        given = Given(self._workload)
        try:
            self._second_leg(given.workload, self._point)
        except SubmissionFailure as failure:  # a transformation that takes no callback
            return self._warned("rows", f"not looked at: {failure}", "nothing, if it leaves rows as they are drawn")
        if altered := given.altered(on_noise(self._workload).split("train")):
            todo = "choose, repeat or reweight rows (Batch.take, Batch.reweight); do not mix, change or make them"
            return self._failed("rows", f"{altered:,} rows through the loss are none that were drawn", todo)
        return self._passed("rows", "every row through the loss is one that was drawn")

    def _in_disguise(self, first: Leg) -> Verdict:
        """Trains the same problem under other shapes, another order and other hints, and compares the updates."""
        disguise = disguised(self._workload)
        try:
            hidden = self._second_leg(disguise.workload, self._point, hints_off=True)
        except SubmissionFailure as failure:
            message = f"the same problem in other shapes, another order and with other hints: {failure}"
            return self._failed("disguise", message, "take what `task` says as it comes")
        return self._alike(first, disguise.undo(hidden.leg.params), same_batch=hidden.rows == self._rows)

    def _alike(self, first: Leg, hidden: list[np.ndarray], *, same_batch: bool) -> Verdict:
        """In disguise, a method may differ in as much as it depends on order, layout and hints, and no more."""
        size, cosine = likeness(self._initial, first.params, hidden)
        measured = f"updates in disguise: {size:.2f} x the size, cosine {cosine:.3f}"
        if not 1 / _KIN_SIZE <= size <= _KIN_SIZE:  # NaN too
            return self._failed("disguise", measured, "do not let the method depend on which workload it trains")
        if not same_batch:
            return self._passed("disguise", f"{measured}, on batches of another size")
        if cosine < _ALIKE_COSINE or not 1 / _ALIKE_SIZE <= size <= _ALIKE_SIZE:
            todo = "say in the README why the method depends on the order or layout of parameters, or on exact hints"
            return self._warned("disguise", measured, todo)
        return self._passed("disguise", measured)

    def _variant(self) -> Iterator[Verdict]:
        """Tries the variant of the workload that takes the last value on every axis."""
        base = self._workload.variant_of or self._workload.name
        axes = variants.axes(base) if base in workload_names() else {}
        if not axes:
            return
        name = variants.composed_name(base, {axis: values[-1] for axis, values in axes.items()})
        try:
            found = self._second_leg(variants.build(base, name), self._point)
        except SubmissionFailure as failure:
            yield self._failed("held-out variant", f"{name}: {failure}", "take what `task` says as it comes")
            return
        yield self._finite("held-out variant", found.leg, f"runs on {name}")

    def _second_leg(
        self, workload: Workload, point: Point, *, loaded: Loaded | None = None, hints_off: bool = False
    ) -> "_Second":
        with rehearsing(self._source, loaded or self._loaded, workload, point, hints_off=hints_off) as trainer:
            trainer.start()
            leg(trainer, workload.metric)
            second, counts = leg(trainer, workload.metric), trainer.counts()
            return _Second(second, counts.examples // counts.step)

    def _finite(self, rule: str, found: Leg, message: str = "parameters, model state and optimizer state") -> Verdict:
        if broken := found.not_finite():
            message = f"not finite after {2 * STEPS} steps: {', '.join(broken)}"
            todo = "take smaller steps at first, clip the gradients, or mend what overflows"
            return self._failed(rule, message, todo)
        return self._passed(rule, message)

    def _passed(self, rule: str, message: str) -> Verdict:
        return Verdict(rule=rule, status="pass", message=message, workload=self._workload.name)

    def _warned(self, rule: str, message: str, todo: str) -> Verdict:
        return Verdict(rule=rule, status="warn", message=message, workload=self._workload.name, todo=todo)

    def _failed(self, rule: str, message: str, todo: str) -> Verdict:
        return Verdict(rule=rule, status="fail", message=message, workload=self._workload.name, todo=todo)
