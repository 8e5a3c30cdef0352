"""Does a submission keep the contract? Two steps on noise, on every workload, twice."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.data import SPLITS, InMemory
from timetrial.devices import Mesh
from timetrial.failures import submission_code
from timetrial.judge import SubmissionFailure
from timetrial.loading import Loaded, Source, load
from timetrial.problem import make_task
from timetrial.submission import Feedback
from timetrial.trial import importable, make_trainer
from timetrial.tuning import Point, default_point, halton_points
from timetrial.workload import Workload

_STEPS = 2
_HORIZON_STEPS = 1000


@dataclass(frozen=True)
class Verdict:
    """What one rule says of the submission."""

    rule: str
    workload: str | None
    """None for a rule that concerns no single workload."""
    status: Literal["pass", "warn", "fail"]
    message: str


class _Outcome(NamedTuple):
    arrays: dict[str, list[np.ndarray]]
    """By what they are: every array that the submission is answerable for."""
    examples_a_step: int
    examples_exact: bool
    ignored: tuple[str, ...]


def check(source: Source, workloads: Iterable[Workload]) -> Iterator[Verdict]:
    """The verdicts, as they are reached: on the import and the search space, then on each workload."""
    with importable(source):
        yield from _check(source, workloads)


def _check(source: Source, workloads: Iterable[Workload]) -> Iterator[Verdict]:
    try:
        with submission_code("import", source.folder):
            loaded = load(source)
    except SubmissionFailure as failure:
        yield Verdict("import", None, "fail", str(failure))
        return
    exports = "make" if source.api == "timetrial" else "update_params: AlgoPerf's API"
    yield Verdict("import", None, "pass", f"{source.path.name} exports {exports}")
    if source.api == "algoperf" and (asked := sorted(source.folder.glob("requirements*.txt"))):
        yield Verdict("requirements", None, "warn", f"{', '.join(path.name for path in asked)}: noted, not installed")
    if loaded.search_space:
        listed = ", ".join(f"{name}={value!r}" for name, value in default_point(loaded.search_space).items())
        yield Verdict("search space", None, "pass", f"default point {listed}")
    else:
        yield Verdict("search space", None, "pass", "none: the submission tunes itself")
    for workload in workloads:
        yield from _check_on(workload, loaded, source)


def _check_on(workload: Workload, loaded: Loaded, source: Source) -> Iterator[Verdict]:
    space = loaded.search_space
    point = default_point(space) if space else {}
    others = [] if not space else halton_points(space, 1, seed=0) if isinstance(space, Mapping) else space[1:]
    noise = on_noise(workload)

    def verdict(rule: str, status: Literal["pass", "warn", "fail"], message: str) -> Verdict:
        return Verdict(rule, workload.name, status, message)

    try:
        first, again = (_two_steps(noise, loaded, source, point) for _ in range(2))
    except SubmissionFailure as failure:
        yield verdict("contract", "fail", str(failure))
        return
    yield verdict("contract", "pass", f"{_STEPS} steps and every hook; {first.examples_a_step:,} examples a step")
    if not first.examples_exact:
        yield verdict("counting", "warn", "the rows through the loss are unknown: not ranked by examples")
    if first.ignored:
        yield verdict("settings", "warn", f"the workload has no {' and no '.join(first.ignored)}: ignored")
    broken = [name for name, arrays in first.arrays.items() if not all(_finite(array) for array in arrays)]
    if broken:
        yield verdict("finite", "fail", f"not finite after {_STEPS} steps: {', '.join(broken)}")
    else:
        yield verdict("finite", "pass", "parameters, model state and optimizer state")
    if all(map(_same, first.arrays.values(), again.arrays.values())):
        yield verdict("determinism", "pass", "the same bits twice")
    else:
        yield verdict("determinism", "fail", "two runs with the same seeds differ; draw all randomness from `key`")
    for other in others:
        try:
            _two_steps(noise, loaded, source, other)
        except SubmissionFailure as failure:
            yield verdict("search space", "fail", f"at the point {dict(other)}: {failure}")


def on_noise(workload: Workload) -> Workload:
    """The workload with two batches of noise for data, so that it can be tried without its own."""
    rows = 2 * workload.default_batch_size
    splits = {split: workload.random_batch(rows, seed) for seed, split in enumerate(SPLITS)}
    return replace(workload, data=InMemory.holding(splits, like=workload.data))


def _two_steps(workload: Workload, loaded: Loaded, source: Source, point: Point) -> _Outcome:
    """Calls every hook of the submission; raises SubmissionFailure."""
    mesh = Mesh.local()
    task = make_task(
        workload,
        horizon_examples=_HORIZON_STEPS * workload.default_batch_size,
        device_count=mesh.size,
        device_memory_bytes=mesh.memory_bytes,
    )
    trainer = make_trainer(
        source, lambda: loaded, point, workload, task, seed=len, mesh=mesh, now=lambda: 0.0, exact_examples=False
    )
    try:
        trainer.start()
        trainer.run(lambda counts: counts.step >= 1)
        metrics = {"valid/loss": 1.0, f"valid/{workload.metric}": 1.0}
        trainer.feedback(Feedback(metrics=metrics, charge=1.0, budget=2.0))
        trainer.run(lambda counts: counts.step >= _STEPS)
        examples = trainer.counts().examples // _STEPS
        arrays = {"the state": _host(trainer.state), "the evaluated parameters": _host(trainer.evaluated())}
    finally:
        trainer.close()
    return _Outcome(arrays, examples, trainer.examples_exact(), trainer.ignored())


def _host(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree) if not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)]


def _finite(array: np.ndarray) -> bool:
    return not _is_float(array) or bool(np.all(np.isfinite(array)))


def _is_float(array: np.ndarray) -> bool:
    return jnp.issubdtype(array.dtype, jnp.inexact)  # numpy alone does not know bfloat16


def _same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b, equal_nan=_is_float(a)) for a, b in zip(first, second, strict=True))
