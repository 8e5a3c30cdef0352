"""One trial: ties a trainer to a judge, in this process, and leaves a record."""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from timetrial import machine
from timetrial.algoperf.names import restored_names
from timetrial.checkpoint import FOLDER, discard
from timetrial.devices import Mesh
from timetrial.errors import UserError
from timetrial.evaluate import Evaluator
from timetrial.fingerprint import fingerprint
from timetrial.instrument_log import Choice
from timetrial.instruments.observer import Observer
from timetrial.isolation.process import Isolated
from timetrial.isolation.remote import RemoteTrainer
from timetrial.judge import Evaluator as Evaluate
from timetrial.judge import Judge, Progress, SubmissionFailure
from timetrial.keeper import EVALUATED_FOLDER, TrialKeeper
from timetrial.loading import SOURCE_FOLDER, Source
from timetrial.mirror import LeadingTrainer, follow, leading_evaluator
from timetrial.noise import NoiseMeter
from timetrial.peers import Followers, Leader
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
from timetrial.trainers import Setting, apart, here, importable
from timetrial.tuning import Point, SearchSpace, prescribed_point
from timetrial.workload import Workload, at_precision


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
    instruments: Choice | None = None,
    isolated: Isolated | None = None,
    followers: Followers | None = None,
) -> EndLine:
    """Runs one trial and writes `folder/record.jsonl` and a copy of the source.

    With `isolated` no code of the submission runs in this process. `followers` are the other processes of the trial,
    whose devices `mesh` holds as well; each of them runs `follow_trial`.

    Whatever the submission does is a result in the record. `watch` is told of progress a few times a second; `announce`
    is given the header, still without hyperparameters, before any code of the submission runs, so that a crash on
    import can be put on record by whoever watches.

    A record of the same trial that was interrupted is taken up, from its newest checkpoint where there is one: evals
    after that are replayed, compared, and not written again. Once `leave()` is true the trial makes a checkpoint and
    ends as interrupted; otherwise it makes one every `checkpoint_seconds` of wall time, uncharged. `instruments` look
    at its steps, uncharged too, and write `folder/instruments.jsonl`.

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
    workload = at_precision(workload, ruleset.matmul_precision)
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
        accumulate=workload.accumulate,
        matmul_precision=workload.matmul_precision,
        remat=workload.remat,
    )
    announce(header)
    resume = _take_up(folder, header)
    setting = _setting(workload, source, ruleset, trial, mesh, now)
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(RecordWriter(folder / RECORD_NAME, resume=resume))
        source.copy_to(folder / SOURCE_FOLDER)
        try:
            if isolated is None:
                stack.enter_context(importable(source))
                ready = here(setting)
            else:
                ready = apart(setting, isolated, stack)
        except SubmissionFailure as failure:
            if not resume:
                writer.run(header)
            end = end_after(None, failure.status, str(failure))
            writer.end(end)
            return end
        if ready.how == "process" and instruments is not None:
            raise UserError(
                f"instruments cannot see into the process that {source.name!r} has of its own; "
                f"leave out --instruments or --{header.isolation}"
            )
        header = replace(header, hparams=ready.hparams, trainer=ready.how)
        if not resume:
            writer.run(header)
        trainer = ready.build()
        observer = None
        if instruments is not None and not isinstance(trainer, RemoteTrainer):
            observer = Observer(
                trainer,
                workload,
                instruments,
                folder,
                seed=setting.seed("instruments"),
                mesh=mesh,
                now=now,
                resume=resume,
            )
        led, evaluate = trainer, Evaluator(workload, mesh)
        if isinstance(trainer, RemoteTrainer):
            evaluate = _settled(trainer, evaluate)
        if followers is not None:
            led, evaluate = LeadingTrainer(led, followers), leading_evaluator(evaluate, followers)
        keeper = TrialKeeper(led, writer, folder, now, every_seconds=checkpoint_seconds)
        judge = Judge(
            led,
            evaluate,
            writer,
            header,
            now=now,
            watch=watch,
            always_test=ruleset.test_evals == "always",
            keeper=keeper,
            leave=leave,
            noise=NoiseMeter(sees_all=header.isolation != "docker").read,
            instruments=observer,
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
            if observer is not None:
                observer.close()
            trainer.close()


def _settled(trainer: RemoteTrainer, evaluate: Evaluate) -> Evaluate:
    """`evaluate`, once the process that trains has left nothing on the devices."""

    def settled(params: Any, model_state: Any, splits: Iterable[str]) -> Mapping[str, float]:
        trainer.settle()
        return evaluate(params, model_state, splits)

    return settled


def follow_trial(
    workload: Workload, source: Source, ruleset: Ruleset, trial: Trial, folder: Path, *, mesh: Mesh, leader: Leader
) -> NoReturn:
    """What `run_trial` does, in a process that the leader of the trial has started; ends with the process."""
    workload = at_precision(workload, ruleset.matmul_precision)
    setting = _setting(workload, source, ruleset, trial, mesh, time.perf_counter)
    follow(here(setting).build(), Evaluator(workload, mesh), folder, leader)


def _setting(
    workload: Workload, source: Source, ruleset: Ruleset, trial: Trial, mesh: Mesh, now: Callable[[], float]
) -> Setting:
    horizon_examples = ruleset.workloads[workload.name].horizon_examples
    assert horizon_examples is not None
    return Setting(
        workload=workload,
        source=source,
        clock=ruleset.clock,
        mesh=mesh,
        horizon_examples=horizon_examples,
        told=_told_the_name(source, workload),
        seed=lambda purpose: _seed(trial, workload.name, purpose),
        choose=lambda space: _point(source, space, ruleset, workload.name, trial),
        now=now,
    )


def _told_the_name(source: Source, workload: Workload) -> bool:
    """Whether the submission is asked for its batch size by the workload's name, the one exception to rule 8."""
    return source.api == "algoperf" and workload.track == "full"


def _take_up(folder: Path, header: RunHeader) -> bool:
    """Whether the trial goes on with the record in `folder`: its own, interrupted, from the same kind of machine.

    An interrupted one of anything else is set aside: renamed, with what it kept removed. Under the seconds clock
    that is so always, since what was charged could not be charged again alike.
    """
    path = folder / RECORD_NAME
    try:
        old = read_record(path)
    except RecordError:
        old = None
    if old is not None and (old.end is None or old.end.status == "interrupted"):
        free = {"created": header.created, "hparams": header.hparams, "trainer": header.trainer}
        same = replace(old.run, **free, hardware=header.hardware) == header
        if header.clock != "seconds" and same and fingerprint(old.run.hardware) == fingerprint(header.hardware):
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


def _seed(trial: Trial, workload: str, purpose: str) -> int:
    return seed_of(trial.seed, workload, trial.study, trial.trial, purpose)


def _point(source: Source, space: SearchSpace, ruleset: Ruleset, workload: str, trial: Trial) -> Point:
    """The trial's hyperparameters: the same points for each trial number of a study, whoever runs it."""
    if trial.point is not None:
        return trial.point
    if trial.self_tuning:
        if space:
            raise UserError("SEARCH_SPACE must be assigned at the top level of the file, not inside a block")
        return {}
    seed = seed_of(trial.seed, workload, trial.study, None, "tuning")
    tuning = ruleset.tuning(self_tuning=False)
    return prescribed_point(space, tuning, trial=trial.trial, seed=seed, longer_lists=source.api == "algoperf")
