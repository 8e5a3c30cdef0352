"""The process that runs one trial: reads a job from standard input, reports as JSON lines on standard output.

A trial has a process of its own, so that all start alike, none inherits another's memory or compiled programs, and one
that crashes, hangs or fills the memory takes nothing with it. What the submission prints goes to standard error.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from timetrial.errors import UserError
from timetrial.gpus import share_memory
from timetrial.instrument_log import Choice
from timetrial.isolation.policy import Isolation, Policy
from timetrial.peers import FOLLOWS, Followers, Leader
from timetrial.record import to_line
from timetrial.ruleset import Ruleset

if TYPE_CHECKING:
    from timetrial.isolation.process import Isolated
    from timetrial.loading import Source
    from timetrial.record import EndLine
    from timetrial.trial import Trial
    from timetrial.workload import Workload

BROKEN_RECORD = 74
"""Exit code when the record could not be written (EX_IOERR)."""
_FILE_BYTES, _STATES, _SECONDS = 256 << 20, 16, 86_400.0
"""Of an isolated submission: bytes of a file, beside so many times the parameters' own, and wall time at most."""
PREEMPTED = 75
"""Exit code of a trial that was told to stop (EX_TEMPFAIL): it goes on from its checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One trial, as it is sent to a worker."""

    submission: str
    path: str
    workload: str
    ruleset: Mapping[str, Any]
    seed: int
    study: int
    trial: int
    self_tuning: bool
    folder: str
    point: Mapping[str, Any] | None = None
    """The trial's hyperparameters, where the ruleset's tuning does not choose them."""
    cores: tuple[int, ...] = ()
    """The processor cores that the trial is pinned to; empty: all that the campaign may use."""
    checkpoint_seconds: float = 30.0
    """Wall seconds between checkpoints."""
    instruments: Mapping[str, Any] | None = None
    """The fields of an `instrument_log.Choice`: what looks at the trial's steps."""
    isolation: Isolation = "none"
    """What keeps the submission apart from the trial."""
    processes: int = 1
    """How many processes train together, each on devices of its own; the worker starts the others."""
    accumulate: int = 1
    remat: bool = False
    """How memory is saved (`timetrial.workload.economical`)."""


class Unready(Exception):
    """A workload's trials cannot begin: what it needs, its data as a rule, is not there."""


def main(load: Callable[[str], tuple["Workload", str]] | None = None) -> int:
    """Runs the job on standard input. Exit code 0 whatever the submission did; its record says how it ended.

    SIGTERM makes it leave a checkpoint and stop, with exit code 75.

    `load` gives the workload of a name and its SHA-256; a test's own workload comes in here. A process that another
    one started to train with it has no job of its own: it does as that one, and ends with it.
    """
    load = load or _load_workload
    if FOLLOWS in os.environ:
        _follow(load)
    job = Job(**json.load(sys.stdin))
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    told_to_leave = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told_to_leave.set())
    _offer_to_the_out_of_memory_killer()
    share_memory(os.environ, judge_alone=job.isolation != "none")
    if job.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job.cores)  # before jax starts its threads, which are as many as these
    code = _exit_code(job, load, events, told_to_leave)
    if job.processes > 1:
        os._exit(code)  # the others are gone, and jax would wait for them
    return code


def _exit_code(
    job: Job, load: Callable[[str], tuple["Workload", str]], events: IO[str], told_to_leave: threading.Event
) -> int:
    try:
        end = _run(job, load, events, told_to_leave)
    except Unready as error:
        events.write(json.dumps({"unready": str(error)}) + "\n")
        print(error, file=sys.stderr)
        return 1
    except ConnectionError as error:
        events.write(json.dumps({"failed": str(error)}) + "\n")
        return PREEMPTED
    except OSError as error:
        message = f"the record cannot be written: {error.strerror} ({error.filename or job.folder})"
        events.write(json.dumps({"failed": message}) + "\n")
        return BROKEN_RECORD
    except Exception as error:  # reported to whoever started this process; the log has the rest
        events.write(json.dumps({"failed": f"{type(error).__name__}: {error}"}) + "\n")
        traceback.print_exc()
        return 1
    return PREEMPTED if end.status == "interrupted" else 0


def _run(
    job: Job, load: Callable[[str], tuple["Workload", str]], events: IO[str], told_to_leave: threading.Event
) -> "EndLine":
    from timetrial.compilation import cache_folder, use_cache

    def report(event: Mapping[str, Any]) -> None:
        try:
            print(json.dumps(event), file=events)
        except BrokenPipeError:  # the campaign is gone: stop as on its signal, or the submission would be blamed
            raise KeyboardInterrupt from None

    def lost(why: str) -> None:
        try:
            report({"failed": why})
        finally:
            os._exit(PREEMPTED)

    use_cache(cache_folder())
    if job.processes == 1:
        return _run_trial(job, load, report, told_to_leave, None)
    with contextlib.closing(Followers(job.processes, asdict(job), lost)) as followers:
        followers.place.join()
        return _run_trial(job, load, report, told_to_leave, followers)


def _run_trial(
    job: Job,
    load: Callable[[str], tuple["Workload", str]],
    report: Callable[[Mapping[str, Any]], None],
    told_to_leave: threading.Event,
    followers: Followers | None,
) -> "EndLine":
    from timetrial.devices import Mesh
    from timetrial.trial import run_trial
    from timetrial.workload import economical

    def note(stage: str, rows: int, of: int | None) -> None:
        del of
        if rows == 0:
            report({"note": f"preparing the data of {job.workload} (once): {stage}"})

    try:
        workload, sha256 = load(job.workload)
        workload = economical(workload, accumulate=job.accumulate, remat=job.remat)
        workload.data.prepare(watch=note)
    except UserError as error:
        raise Unready(str(error)) from None
    mesh = Mesh.local() if followers is None else Mesh.of_all_processes()
    if followers is not None:
        followers.tell("begin", mesh.memory_bytes)
    return run_trial(
        workload,
        *_about(job),
        workload_sha256=sha256,
        mesh=mesh,
        followers=followers,
        watch=lambda progress: report({"progress": asdict(progress)}),
        announce=lambda header: report({"header": json.loads(to_line(header))}),
        leave=told_to_leave.is_set,
        isolated=_isolated(job.isolation, workload),
        checkpoint_seconds=job.checkpoint_seconds,
        instruments=None if job.instruments is None else Choice(**job.instruments),
    )


def _follow(load: Callable[[str], tuple["Workload", str]]) -> NoReturn:
    """Trains with the trial's leader until that ends this process."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the leader ends, and decides how
    _offer_to_the_out_of_memory_killer()
    share_memory(os.environ, judge_alone=False)
    leader = Leader()
    leader.place.join()
    from timetrial.compilation import cache_folder, use_cache
    from timetrial.devices import Mesh
    from timetrial.trial import follow_trial
    from timetrial.workload import economical

    use_cache(cache_folder())
    try:
        _, memory_bytes = leader.order()  # to begin: the data are prepared
        job = Job(**leader.job)
        workload = economical(load(job.workload)[0], accumulate=job.accumulate, remat=job.remat)
        follow_trial(workload, *_about(job), mesh=Mesh.of_all_processes(memory_bytes), leader=leader)
    except Exception as error:  # told to the leader, which ends this process; the log has the rest
        traceback.print_exc()
        leader.failed(f"{type(error).__name__}: {error}")


def _about(job: Job) -> "tuple[Source, Ruleset, Trial, Path]":
    """The arguments of `run_trial` after the workload."""
    from timetrial.loading import Source
    from timetrial.trial import Trial

    trial = Trial(seed=job.seed, study=job.study, trial=job.trial, self_tuning=job.self_tuning, point=job.point)
    return Source(job.submission, Path(job.path)), Ruleset.from_json(job.ruleset), trial, Path(job.folder)


def _isolated(isolation: Isolation, workload: "Workload") -> "Isolated | None":
    """The default limits: half of the machine's memory, files for the state of any known optimizer, a day."""
    if isolation == "none":
        return None
    import jax

    from timetrial import machine
    from timetrial.isolation.process import Isolated

    params = sum(
        leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(workload.init, jax.random.key(0)))
    )
    file_bytes = _FILE_BYTES + _STATES * params
    return Isolated(
        isolation=isolation,
        policy=Policy(memory_bytes=machine.memory_bytes() // 2, file_bytes=file_bytes, seconds=_SECONDS),
    )


def _load_workload(name: str) -> tuple["Workload", str]:
    from timetrial.lock import workload_sha256
    from timetrial.registry import load_workload

    workload = load_workload(name)
    return workload, workload_sha256(workload)


def _offer_to_the_out_of_memory_killer() -> None:
    """Asks Linux to end this process first when the machine has no memory left, rather than the campaign's."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return  # another system, or not allowed: the kernel chooses by size, which is this process too


if __name__ == "__main__":
    sys.exit(main())
