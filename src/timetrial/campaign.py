"""A campaign: the grid submissions x workloads x studies x trials, each trial in a process of its own.

Its folder is its ledger: a trial is done when its record has a result, and being run while a process claims it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Any, Literal, Protocol

from timetrial import machine
from timetrial.claims import LOCK_NAME, Heart, locked, take
from timetrial.errors import UserError, unknown
from timetrial.isolation.policy import Isolation
from timetrial.loading import Source
from timetrial.record import (
    RECORD_NAME,
    EndLine,
    RecordError,
    RunHeader,
    append_end,
    end_after,
    read_header,
    read_record,
)
from timetrial.registry import SUBMISSION_FILE, base_of
from timetrial.ruleset import Ruleset, WorkloadRules
from timetrial.worker import Job

CAMPAIGN_NAME = "campaign.json"
LOG_NAME = "trial.log"
SCHEMA = 1
WORKER = (sys.executable, "-P", "-m", "timetrial.worker")  # -P: a file of the folder one stands in is no module
_PATIENCE_SECONDS = 10.0
"""How long a worker that was told to stop may take to finish its record."""


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """All that decides which trials are run, and where they are kept."""

    out: Path
    ruleset: Ruleset
    sources: tuple[Source, ...]
    seed: int
    checkpoint_seconds: float = 30.0
    """Wall seconds between a trial's checkpoints."""
    isolation: Isolation = "none"
    """What keeps a submission apart from its trials."""

    def __post_init__(self) -> None:
        repeated = [name for name, n in Counter(source.name for source in self.sources).items() if n > 1]
        if repeated:
            raise UserError(f"two submissions are called {repeated[0]!r}; rename the folder of one")
        for source in self.sources:
            if source.path.name == SUBMISSION_FILE and self.out.resolve().is_relative_to(source.folder.resolve()):
                raise UserError(f"{self.out} would be a part of submission {source.name!r}; name a folder outside it")

    def jobs(self) -> list[Job]:
        """Every trial, in the order they are run: submissions take turns, so that none has the machine's best hour."""
        return [
            Job(
                submission=source.name,
                path=str(source.path.resolve()),
                workload=workload,
                ruleset=self.ruleset.to_json(),
                seed=self.seed,
                study=study,
                trial=trial,
                self_tuning=source.self_tuning,
                folder=str(self.out / source.name / workload / f"study_{study}" / f"trial_{trial}"),
                checkpoint_seconds=self.checkpoint_seconds,
                isolation=self.isolation,
            )
            for workload in self.ruleset.workloads
            for study, trial, source in self._turns()
        ]

    def _turns(self) -> list[tuple[int, int, Source]]:
        turns: list[tuple[int, int, Source]] = []
        for source in self.sources:
            tuning = self.ruleset.tuning(self_tuning=source.self_tuning)
            turns += [(study, trial, source) for study in range(tuning.studies) for trial in range(tuning.trials)]
        return sorted(turns, key=lambda turn: turn[:2])

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kind": "campaign",
            "seed": self.seed,
            "ruleset": self.ruleset.to_json(),
            "ruleset_sha256": self.ruleset.sha256,
            "submissions": [source.name for source in self.sources],
            "submission_sha256": {source.name: source.sha256 for source in self.sources},
            "self_tuning": {source.name: source.self_tuning for source in self.sources},
            "workloads": list(self.ruleset.workloads),
        }


def open_folder(campaign: Campaign, *, resume: bool) -> None:
    """Makes the output folder, or takes up the one that is there; raises `UserError` where that was not asked for.

    Several processes may take up one folder: each trial is run by the one that claims it (`timetrial.claims`).
    """
    if campaign.out.exists() and not campaign.out.is_dir():
        raise UserError(f"{campaign.out} is a file; name a folder for --out")
    if campaign.out.exists() and any(campaign.out.iterdir()) and not resume:
        raise UserError(f"{campaign.out} exists; add --resume to go on with it, or name another folder with --out")
    try:
        campaign.out.mkdir(parents=True, exist_ok=True)
        with locked(campaign.out):
            _write_campaign(campaign)
    except OSError as error:
        raise UserError(f"cannot write to {campaign.out}: {error.strerror}") from None


def _write_campaign(campaign: Campaign) -> None:
    path, new = campaign.out / CAMPAIGN_NAME, campaign.to_json()
    if any(found.name != LOCK_NAME for found in campaign.out.iterdir()):
        old = read_campaign(path)
        for key, what in (("seed", "--seed"), ("ruleset_sha256", "ruleset, or another choice of workloads or studies")):
            if old[key] != new[key]:
                raise UserError(f"{campaign.out} was begun with another {what}; name another folder with --out")
        for name, sha256 in old["submission_sha256"].items():
            if new["submission_sha256"].get(name, sha256) != sha256:
                raise UserError(f"submission {name!r} has changed since {campaign.out} was begun; use another --out")
        for key in ("submission_sha256", "self_tuning"):
            new[key] = {**old[key], **new[key]}
        new["submissions"] = list(new["submission_sha256"])
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(new, indent=1) + "\n")
    scratch.replace(path)


def read_campaign(path: Path) -> dict[str, Any]:
    """What `campaign.json` says; raises `UserError` where there is none of this version."""
    try:
        data = json.loads(path.read_text())
        if data["schema"] != SCHEMA or data["kind"] != "campaign":
            raise UserError(f"{path} is no campaign of this version of timetrial")
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path.parent} is no campaign of timetrial: it has no readable {CAMPAIGN_NAME}") from None
    return data


class Watcher(Protocol):
    """Is told how a campaign goes, by one thread at a time."""

    def began(self, job: Job, number: int, total: int) -> None: ...

    def progressed(self, job: Job, progress: Mapping[str, Any]) -> None: ...

    def noted(self, job: Job, text: str) -> None: ...

    def ended(self, job: Job, end: EndLine) -> None: ...


def run_campaign(
    campaign: Campaign,
    watcher: Watcher,
    *,
    side_by_side: int = 1,
    retries: int = 0,
    worker: Sequence[str] = WORKER,
) -> list[tuple[Job, EndLine]]:
    """Runs every trial that has no result yet and that no other process runs; returns how each of them ended.

    A trial that fails stops nothing. KeyboardInterrupt passes, once the running trials' records are finished.
    `side_by_side` trials run at a time, each on its own share of the processor's cores. A trial that is interrupted by
    what is not the submission's doing (a killed process, a full disk) is tried again, `retries` times at most.
    """
    hang_seconds = campaign.ruleset.hang_seconds
    ended, _ = run_jobs(
        campaign.jobs(), hang_seconds, watcher, side_by_side=side_by_side, retries=retries, worker=worker
    )
    return ended


def run_jobs(
    jobs: Sequence[Job],
    hang_seconds: float,
    watcher: Watcher,
    *,
    side_by_side: int = 1,
    retries: int = 0,
    worker: Sequence[str] = WORKER,
) -> tuple[list[tuple[Job, EndLine]], list[Job]]:
    """Runs those of `jobs` that have no result yet, in their order, as `run_campaign`; also those that others run."""
    waiting = [job for job in jobs if not has_result(job)]
    ended: list[tuple[Job, EndLine]] = []
    elsewhere: list[Job] = []
    shares: Queue[tuple[int, ...]] = Queue()
    for share in core_shares(side_by_side):
        shares.put(share)
    stop, turn = _Stop(), threading.Lock()

    def run(number: int, job: Job, heart: Heart) -> None:
        if stop.asked.is_set() or has_result(job):
            return
        claim = take(Path(job.folder))
        if claim is None:
            elsewhere.append(job)
            return
        share = shares.get()
        try:
            if has_result(job):  # whoever held it before has just finished it
                return
            lost = heart.add(claim)
            with turn:
                watcher.began(job, number, len(waiting))
            own, tried = replace(job, cores=share), 0
            end = _run_job(own, hang_seconds, _TakingTurns(watcher, turn), worker, stop, lost)
            while end.status == "interrupted" and tried < retries and not (stop.asked.is_set() or lost.is_set()):
                tried += 1
                end = _run_job(own, hang_seconds, _TakingTurns(watcher, turn), worker, stop, lost)
            with turn:
                watcher.ended(job, end)
                ended.append((job, end))
        finally:
            heart.drop(claim)
            claim.release()
            shares.put(share)

    with Heart() as heart, ThreadPoolExecutor(side_by_side) as pool:
        running = [pool.submit(run, number, job, heart) for number, job in enumerate(waiting, start=1)]
        try:
            for trial in running:
                trial.result()
        except BaseException:
            stop.asked.set()
            try:
                wait(running)
            except KeyboardInterrupt:  # who asks twice waits no longer
                stop.at_once.set()
            raise
    return ended, elsewhere


class _Stop:
    """Tells the threads of a campaign to finish their trials' records, or not even that."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.at_once = threading.Event()


def core_shares(shares: int) -> list[tuple[int, ...]]:
    """The cores that this process may use, divided into `shares`; empty tuples, for all cores, where it is one share.

    Raises `UserError` where there are more shares than cores.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(machine.cores()))
    if shares == 1:
        return [()]
    if not 1 <= shares <= len(cores):
        raise UserError(f"--jobs must be from 1 to {len(cores)}, the cores of this machine; got {shares}")
    return [tuple(cores[i * len(cores) // shares : (i + 1) * len(cores) // shares]) for i in range(shares)]


class _TakingTurns:
    """What a running trial tells the watcher, one trial at a time."""

    def __init__(self, watcher: Watcher, turn: threading.Lock) -> None:
        self._watcher, self._turn = watcher, turn

    def progressed(self, job: Job, progress: Mapping[str, Any]) -> None:
        with self._turn:
            self._watcher.progressed(job, progress)

    def noted(self, job: Job, text: str) -> None:
        with self._turn:
            self._watcher.noted(job, text)


def has_result(job: Job) -> bool:
    try:
        end = read_record(Path(job.folder) / RECORD_NAME).end
    except RecordError:
        return False
    return end is not None and end.status != "interrupted"


def _run_job(
    job: Job,
    hang_seconds: float,
    watcher: _TakingTurns,
    worker: Sequence[str],
    stop: _Stop,
    lost: threading.Event,
) -> EndLine:
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    kills = _out_of_memory_kills()
    with open(folder / LOG_NAME, "ab") as log:
        process = subprocess.Popen(
            worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
    assert process.stdin is not None
    header: RunHeader | None = None
    failed = ""
    try:
        with contextlib.suppress(BrokenPipeError), process.stdin:  # who dies at once says why by the exit code
            process.stdin.write(json.dumps(asdict(job)).encode())
        for event in _events(process, hang_seconds, lambda: stop.asked.is_set() or lost.is_set()):
            if "header" in event:
                header = read_header(event["header"])
            elif "progress" in event:
                watcher.progressed(job, event["progress"])
            elif "note" in event:
                watcher.noted(job, event["note"])
            elif "failed" in event:
                failed = event["failed"]
        code = process.wait(hang_seconds)  # a thread of the submission's may outlive the worker's last report
    except _Stopped:
        if lost.is_set():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return end_after(None, "interrupted", "another process took the trial over")
        _stop(process, stop.at_once)
        return _finish(job, header, "interrupted", "stopped by a signal; run it again with --resume")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return _finish(job, header, "hung", f"no step finished for {hang_seconds:g} s (hang_seconds of the ruleset)")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what the submission may have left behind
    if code == -signal.SIGKILL and _out_of_memory_kills() > kills:
        return _finish(job, header, "out_of_memory", "the operating system ended the trial: no memory was left")
    if code < 0 and -code in _CRASHES:
        return _finish(job, header, "error", f"the process crashed in native code ({signal.Signals(-code).name})")
    if code < 0:
        return _finish(job, header, "interrupted", f"the process was killed ({signal.Signals(-code).name})")
    if failed:
        return _finish(job, header, "interrupted", failed)
    return _finish(job, header, "error", f"the submission ended the process (exit code {code})")


_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


def _finish(job: Job, header: RunHeader | None, status: Any, message: str) -> EndLine:
    """The end line of the trial's record; written here where the worker could not."""
    path = Path(job.folder) / RECORD_NAME
    try:
        return append_end(path, header, lambda last: end_after(last, status, message))
    except (OSError, RecordError) as error:
        return end_after(None, "interrupted", f"{message}; and its record cannot be ended: {error}")


def _stop(process: "subprocess.Popen[bytes]", at_once: threading.Event) -> None:
    """Asks the worker to finish its record; kills it, with all its children, when it does not."""
    process.terminate()
    until = time.monotonic() + _PATIENCE_SECONDS
    while process.poll() is None and not at_once.wait(0.1) and time.monotonic() < until:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Stopped(Exception):
    """The campaign was told to stop."""


def _events(
    process: "subprocess.Popen[bytes]", hang_seconds: float, stop: Callable[[], bool]
) -> Iterator[Mapping[str, Any]]:
    """The worker's reports until it is gone.

    Raises TimeoutExpired when there was none for `hang_seconds`, and _Stopped once `stop()` says so.
    """
    lines: Queue[bytes] = Queue()
    threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True).start()
    silent_since = time.monotonic()
    while True:
        if stop():
            raise _Stopped
        try:
            line = lines.get(timeout=0.5)
        except Empty:
            if process.poll() is not None:  # gone, though a process that it left behind may hold the pipe open
                return
            if time.monotonic() - silent_since > hang_seconds:
                raise subprocess.TimeoutExpired(process.args, hang_seconds) from None
            continue
        if not line:
            return
        silent_since = time.monotonic()
        yield json.loads(line)


def _read_lines(pipe: IO[bytes], lines: "Queue[bytes]") -> None:
    with pipe:
        for line in pipe:
            lines.put(line)
    lines.put(b"")


def _out_of_memory_kills() -> int:
    """How often Linux has ended a process for want of memory; 0 where it does not say."""
    try:
        counters = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(counters.get("oom_kill", 0))


def restrict(
    ruleset: Ruleset,
    *,
    workloads: Sequence[str] = (),
    studies: int | None = None,
    trials: int | None = None,
    points: Literal["default", "halton"] | None = None,
) -> Ruleset:
    """The ruleset with other workloads, studies, trials or points; its `modified` says what was changed.

    A workload may also be a variant of one of the ruleset's: it has its base's budget and grid, and its own target.
    """
    all_rules = dict(ruleset.workloads)
    for name in workloads:
        if name not in all_rules:
            all_rules[name] = _variant_rules(ruleset, name)
    modified = list(ruleset.modified)
    if workloads and set(workloads) != set(ruleset.workloads):
        kept = {name: rules for name, rules in all_rules.items() if name in workloads}
        modified.append(f"workloads: {', '.join(kept)}")
        lone = {name: replace(r, variant_of=r.variant_of if r.variant_of in kept else None) for name, r in kept.items()}
        ruleset = replace(ruleset, workloads=lone)
    for field, value in (("studies", studies), ("trials", trials)):
        if value is None:
            continue
        if value < 1:
            raise UserError(f"--{field} must be at least 1, not {value}")
        boards = {"external": ruleset.external} | ({"self_tuning": ruleset.self_tuning} if field == "studies" else {})
        changed = {name: replace(board, **{field: value}) for name, board in boards.items() if board is not None}
        if any(changed[name] != boards[name] for name in changed):
            modified.append(f"{field}: {value}")
            ruleset = replace(ruleset, **changed)
    if points is not None and ruleset.external is not None and ruleset.external.points != points:
        modified.append(f"points: {points}")
        ruleset = replace(ruleset, external=replace(ruleset.external, points=points))
    return replace(ruleset, modified=tuple(modified))


def _variant_rules(ruleset: Ruleset, name: str) -> WorkloadRules:
    try:
        base = base_of(name)
    except UserError:
        base = name
    if base not in ruleset.workloads:
        raise unknown("workload", name, ruleset.workloads, f"These are the workloads of ruleset {ruleset.name!r}.")
    rules = ruleset.workloads[base]
    return replace(rules, variant_of=base, target=None, test_target=None, anchor=None, milestones=())
