"""One trial: ties a trainer to a judge, in this process, and leaves a record."""

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from timetrial import machine
from timetrial.algoperf.names import algoperf_names, restored_names
from timetrial.algoperf.trainer import AlgoPerfEntry, AlgoPerfTrainer
from timetrial.checkpoint import FOLDER, discard
from timetrial.compilation import forget_cache
from timetrial.devices import Mesh
from timetrial.errors import UserError
from timetrial.evaluate import Evaluator
from timetrial.failures import submission_code
from timetrial.isolation.exported import ExportedEntry
from timetrial.isolation.process import Isolated
from timetrial.isolation.remote import Apart, RemoteTrainer, Tracer
from timetrial.judge import Judge, Progress, SubmissionFailure
from timetrial.keeper import EVALUATED_FOLDER, TrialKeeper
from timetrial.loading import SOURCE_FOLDER, Loaded, Source, load
from timetrial.problem import WorkloadProblem, make_task
from timetrial.programs import Entry, Prepared
from timetrial.record import (
    RECORD_NAME,
    EndLine,
    RecordError,
    RecordWriter,
    ReplayError,
    RunHeader,
    end_after,
    read_record,
)
from timetrial.ruleset import Ruleset
from timetrial.seeds import seed as seed_of
from timetrial.submission import Task
from timetrial.trainer import PureTrainer
from timetrial.tuning import Point, SearchSpace, prescribed_point, traced_names
from timetrial.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Which trial this is, within a campaign."""

    seed: int
    """The campaign's seed."""
    study: int
    trial: int
    self_tuning: bool
    point: Point | None = None
    """Its hyperparameters, where the ruleset's tuning does not choose them."""


def run_trial(
    workload: Workload,
    source: Source,
    ruleset: Ruleset,
    trial: Trial,
    folder: Path,
    *,
    workload_sha256: str,
    mesh: Mesh | None = None,
    now: Callable[[], float] = time.perf_counter,
    watch: Callable[[Progress], None] = lambda progress: None,
    announce: Callable[[RunHeader], None] = lambda header: None,
    leave: Callable[[], bool] = lambda: False,
    checkpoint_seconds: float = 30.0,
    isolated: Isolated | None = None,
) -> EndLine:
    """Runs one trial and writes `folder/record.jsonl` and a copy of the source.

    With `isolated` no code of the submission runs in this process.

    Whatever the submission does is a result in the record. `watch` is told of progress a few times a second; `announce`
    is given the header, still without hyperparameters, before any code of the submission runs, so that a crash on
    import can be put on record by whoever watches.

    A record of the same trial that was interrupted is taken up, from its newest checkpoint where there is one: evals
    after that are replayed, compared, and not written again. Once `leave()` is true the trial makes a checkpoint and
    ends as interrupted; otherwise it makes one every `checkpoint_seconds` of wall time, uncharged.

    Raises FileExistsError where the trial has a result already, UserError where the ruleset cannot run the workload,
    ReplayError where a resumed trial does not come to the evals of its record, OSError where that cannot be written.
    """
    rules = ruleset.workloads.get(workload.name)
    if rules is None or rules.eval_every is None or rules.horizon_examples is None:
        raise UserError(
            f"ruleset {ruleset.name!r} cannot run workload {workload.name!r}: it gives it no budget and grid"
        )
    target = rules.target or workload.target
    if target is None:
        raise UserError(
            f"workload {workload.name!r} has no target yet, and ruleset {ruleset.name!r} gives it none; "
            f"`timetrial target {workload.name}` derives one"
        )
    mesh = Mesh.local() if mesh is None else mesh
    header = RunHeader(
        workload=workload.name,
        workload_version=workload.version,
        workload_sha256=workload_sha256,
        submission=source.name,
        submission_sha256=source.sha256,
        ruleset=ruleset.name,
        ruleset_version=ruleset.version,
        ruleset_sha256=ruleset.sha256,
        clock=ruleset.clock,
        tuning="self" if trial.self_tuning else "external",
        seed=trial.seed,
        study=trial.study,
        trial=trial.trial,
        hparams={},
        target=target,
        test_target=rules.test_target or workload.test_target,
        budget=ruleset.budget(workload.name, self_tuning=trial.self_tuning),
        eval_every=rules.eval_every,
        confirmation=ruleset.confirmation,
        isolation="none" if isolated is None else isolated.isolation,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        hardware=machine.hardware(),
        packages=machine.packages(),
        api=source.api,
        restored=restored_names(source) if source.api == "algoperf" else (),
        told=("workload name",) if _told_the_name(source, workload) else (),
    )
    announce(header)
    resume = _take_up(folder, header)
    setting = _Setting(
        workload=workload,
        source=source,
        ruleset=ruleset,
        trial=trial,
        mesh=mesh,
        horizon_examples=rules.horizon_examples,
        told=bool(header.told),
        now=now,
    )
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(RecordWriter(folder / RECORD_NAME, resume=resume))
        source.copy_to(folder / SOURCE_FOLDER)
        try:
            if isolated is None:
                stack.enter_context(importable(source))
                ready = _here(setting)
            else:
                ready = _apart(setting, isolated, stack)
        except SubmissionFailure as failure:
            if not resume:
                writer.run(header)
            end = end_after(None, failure.status, str(failure))
            writer.end(end)
            return end
        header = replace(header, hparams=ready.hparams, trainer=ready.how)
        if not resume:
            writer.run(header)
        trainer = ready.build()
        keeper = TrialKeeper(trainer, writer, folder, now, every_seconds=checkpoint_seconds)
        judge = Judge(
            trainer,
            Evaluator(workload, mesh),
            writer,
            header,
            now=now,
            watch=watch,
            always_test=ruleset.test_evals == "always",
            keeper=keeper,
            leave=leave,
        )
        over = False
        try:
            end = judge.run()
            over = end.status != "interrupted"
            return end
        except ReplayError:
            over = True  # the checkpoints are worth nothing
            raise
        finally:
            keeper.close(over=over)
            trainer.close()


@dataclass(frozen=True, kw_only=True)
class _Setting:
    """What a trial is about, whoever runs the submission's code."""

    workload: Workload
    source: Source
    ruleset: Ruleset
    trial: Trial
    mesh: Mesh
    horizon_examples: int
    told: bool
    """Whether the submission is told the workload's name."""
    now: Callable[[], float]

    def seed(self, purpose: str) -> int:
        return seed_of(self.trial.seed, self.workload.name, self.trial.study, self.trial.trial, purpose)

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
        return self.ruleset.clock == "examples"

    @property
    def before_start(self) -> Callable[[], None] | None:
        return forget_cache if self.ruleset.clock == "seconds" else None


class _Ready(NamedTuple):
    """A submission that is about to be tried."""

    hparams: Point
    how: Literal["python", "program", "process"]
    build: Callable[[], PureTrainer | AlgoPerfTrainer | RemoteTrainer]


def _here(setting: _Setting) -> _Ready:
    """The submission's code is loaded and run in this process; raises `SubmissionFailure`."""
    source = setting.source
    with submission_code("import", source.folder):
        loaded = load(source)
        hparams = _point(setting, loaded.search_space)
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
    return _Ready(hparams, "python", build)


def _apart(setting: _Setting, isolated: Isolated, stack: contextlib.ExitStack) -> _Ready:
    """The submission's code runs in processes of its own, which `stack` ends; raises `SubmissionFailure`."""
    workload, mesh = setting.workload, setting.mesh
    apart = Apart(isolated, setting.source, workload, setting.about)

    def choose(space: SearchSpace) -> Point:
        with submission_code("import", None):
            return _point(setting, space)

    described = apart.describe(choose, told=workload.name if setting.told else None)
    process = apart.start(needs_data=described.hooks)
    stack.callback(process.close)
    if described.hooks:
        build = partial(
            RemoteTrainer,
            process,
            workload,
            described,
            seed=setting.seed,
            mesh=mesh,
            clock=setting.ruleset.clock,
            file_bytes=isolated.policy.file_bytes,
        )
        return _Ready(described.point, "process", build)
    scalars = {name: described.point[name] for name in traced_names(described.space)}
    tracer = Tracer(process, described.point, mesh.size)
    entry = ExportedEntry(tracer.trace, workload, scalars, platform=apart.platform)
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
    return _Ready(described.point, "program", build)


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


def _told_the_name(source: Source, workload: Workload) -> bool:
    """Whether the submission is asked for its batch size by the workload's name, the one exception to rule 8."""
    return source.api == "algoperf" and workload.track == "full"


def _take_up(folder: Path, header: RunHeader) -> bool:
    """Whether the trial goes on with the record in `folder`: that of the same trial on the same machine, interrupted.

    An interrupted one of anything else is set aside: renamed, with what it kept removed. Under the seconds clock
    that is so always, since what was charged could not be charged again alike.
    """
    path = folder / RECORD_NAME
    try:
        old = read_record(path)
    except RecordError:
        old = None
    if old is not None and (old.end is None or old.end.status == "interrupted"):
        if (
            header.clock != "seconds"
            and replace(old.run, created=header.created, hparams=header.hparams, trainer=header.trainer) == header
        ):
            return True  # all is the same, and the rest follows from it
    elif old is not None or not path.exists():
        return False
    number = 1
    while (kept := folder / f"record.interrupted-{number}.jsonl").exists():
        number += 1
    path.rename(kept)
    discard(folder / FOLDER)
    discard(folder / EVALUATED_FOLDER)
    return False


def _point(setting: _Setting, space: SearchSpace) -> Point:
    """The trial's hyperparameters: the same points for each trial number of a study, whoever runs it."""
    trial, source = setting.trial, setting.source
    if trial.point is not None:
        return trial.point
    if trial.self_tuning:
        if space:
            raise UserError("SEARCH_SPACE must be assigned at the top level of the file, not inside a block")
        return {}
    seed = seed_of(trial.seed, setting.workload.name, trial.study, None, "tuning")
    tuning = setting.ruleset.tuning(self_tuning=False)
    return prescribed_point(space, tuning, trial=trial.trial, seed=seed, longer_lists=source.api == "algoperf")
