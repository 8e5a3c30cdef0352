"""Which trainer a submission has: by what it is written for, and by whether its code may run in this process."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from timetrial.algoperf.names import algoperf_names
from timetrial.algoperf.trainer import AlgoPerfEntry, AlgoPerfTrainer
from timetrial.compilation import forget_cache
from timetrial.devices import Mesh
from timetrial.errors import UserError
from timetrial.failures import submission_code
from timetrial.isolation.exported import ExportedEntry
from timetrial.isolation.process import Isolated
from timetrial.isolation.remote import Apart, RemoteTrainer, Tracer
from timetrial.loading import Loaded, Source, load
from timetrial.problem import WorkloadProblem, make_task
from timetrial.programs import Entry, Prepared
from timetrial.ruleset import Clock
from timetrial.submission import Task
from timetrial.trainer import PureTrainer
from timetrial.tuning import Point, SearchSpace, traced_names
from timetrial.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a trial is about, whoever runs the submission's code."""

    workload: Workload
    source: Source
    clock: Clock
    mesh: Mesh
    horizon_examples: int
    told: bool
    """Whether the submission is told the workload's name."""
    seed: Callable[[str], int]
    """The trial's seed for a purpose."""
    choose: Callable[[SearchSpace], Point]
    """The trial's hyperparameters."""
    now: Callable[[], float]

    @property
    def about(self) -> dict[str, int]:
        """What a task says beside the workload."""
        return {
            "horizon_examples": self.horizon_examples,
            "device_count": self.mesh.size,
            "device_memory_bytes": self.mesh.memory_bytes,
        }

    @property
    def task(self) -> Task:
        return make_task(self.workload, **self.about)

    @property
    def exact_examples(self) -> bool:
        return self.clock == "examples"

    @property
    def before_start(self) -> Callable[[], None] | None:
        return forget_cache if self.clock == "seconds" else None


class Ready(NamedTuple):
    """A submission that is about to be tried."""

    hparams: Point
    how: Literal["python", "program", "process"]
    build: Callable[[], PureTrainer | AlgoPerfTrainer | RemoteTrainer]


def here(setting: Setting) -> Ready:
    """The submission's code is loaded and run in this process; raises `SubmissionFailure`."""
    source = setting.source
    with submission_code("import", source.folder):
        loaded = load(source)
        hparams = setting.choose(loaded.search_space)
        batch_size = loaded.module.get_batch_size(setting.workload.name) if setting.told else None
    build = partial(
        make_trainer,
        source,
        lambda: loaded,
        hparams,
        setting.workload,
        setting.task,
        batch_size=batch_size,
        seed=setting.seed,
        mesh=setting.mesh,
        now=setting.now,
        exact_examples=setting.exact_examples,
        before_start=setting.before_start,
    )
    return Ready(hparams, "python", build)


def apart(setting: Setting, isolated: Isolated, stack: contextlib.ExitStack) -> Ready:
    """The submission's code runs in processes of its own, which `stack` ends; raises `SubmissionFailure`."""
    workload, mesh = setting.workload, setting.mesh
    parted = Apart(isolated, setting.source, workload, setting.about)

    def choose(space: SearchSpace) -> Point:
        with submission_code("import", None):
            return setting.choose(space)

    described = parted.describe(choose, told=workload.name if setting.told else None)
    if described.hooks and parted.platform not in ("cpu", "cuda"):
        raise UserError(
            f"{setting.source.name!r} has hooks on the host and would train in an isolated process, which can have "
            f"processors and NVIDIA's GPUs, and this trial is one of {parted.platform}; leave out "
            f"--{isolated.isolation}, or set JAX_PLATFORMS=cpu"
        )
    process = parted.start(trains=described.hooks)
    stack.callback(process.close)
    if described.hooks:
        build = partial(
            RemoteTrainer,
            process,
            workload,
            described,
            seed=setting.seed,
            mesh=mesh,
            clock=setting.clock,
            file_bytes=isolated.policy.file_bytes,
        )
        return Ready(described.point, "process", build)
    scalars = {name: described.point[name] for name in traced_names(described.space)}
    tracer = Tracer(process, described.point, mesh.size)
    entry = ExportedEntry(tracer.trace, workload, scalars, platform=parted.platform)
    build = partial(
        PureTrainer,
        workload,
        entry,
        setting.task,
        seed=setting.seed,
        mesh=mesh,
        now=setting.now,
        exact_examples=setting.exact_examples,
        before_start=setting.before_start,
    )
    return Ready(described.point, "program", build)


def importable(source: Source) -> AbstractContextManager[None]:
    """Within it the submission may be loaded and run."""
    return algoperf_names(source) if source.api == "algoperf" else nullcontext()


def make_trainer(
    source: Source,
    load: Callable[[], Loaded],
    hparams: Point,
    workload: Workload,
    task: Task,
    *,
    seed: Callable[[str], int],
    mesh: Mesh,
    now: Callable[[], float],
    exact_examples: bool,
    before_start: Callable[[], None] | None = None,
    batch_size: int | None = None,
) -> PureTrainer | AlgoPerfTrainer:
    """The trainer for what the submission is written for; `batch_size` is for AlgoPerf's, None for the default.

    `load` is called as the trainer starts, within what is charged.
    """
    if source.api == "algoperf":
        own = AlgoPerfEntry(
            load=lambda: load().module,
            folder=source.folder,
            hparams=None if source.self_tuning else hparams,
            per_device=source.uses_pmap,
            batch_size=batch_size,
        )
        return AlgoPerfTrainer(workload, own, task, seed=seed, mesh=mesh, now=now, before_start=before_start)
    return PureTrainer(
        workload,
        _LoadedEntry(source.folder, load, hparams),
        task,
        seed=seed,
        mesh=mesh,
        now=now,
        exact_examples=exact_examples,
        before_start=before_start,
    )


@dataclass(frozen=True)
class _LoadedEntry:
    """A submission that is loaded as it starts; a `timetrial.programs.Origin`."""

    folder: Path
    load: Callable[[], Loaded]
    hparams: Point

    def prepare(self, problem: WorkloadProblem, task: Task) -> Prepared:
        loaded = self.load()
        return Entry(
            make=loaded.make, folder=self.folder, hparams=self.hparams, traced=traced_names(loaded.search_space)
        ).prepare(problem, task)
