"""Runs a campaign's trials on this machine, one after the other or side by side."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any, Protocol

from timetrial.campaign import Campaign, has_result
from timetrial.claims import Heart, take
from timetrial.errors import UserError
from timetrial.launchers.process import WORKER, Listener, Stop, run_job
from timetrial.launchers.shares import Share, shares
from timetrial.record import EndLine, end_after
from timetrial.worker import Job, Unready

RETRIES = 2
"""Of a trial that was interrupted by what is not the submission's doing, unless somebody says otherwise."""


class Watcher(Listener, Protocol):
    """Is told how a campaign goes, by one thread at a time."""

    def began(self, job: Job, number: int, total: int) -> None: ...

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
    `side_by_side` trials run at a time, each on its own share of cores and GPUs. A trial that is interrupted by what is
    not the submission's doing (a killed process, a full disk) is tried again, `retries` times at most. Where the data
    of a workload cannot be had, one of its trials ends as interrupted, and the others are left for when they can.
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
    task: str | None = None,
) -> tuple[list[tuple[Job, EndLine]], list[Job]]:
    """Runs those of `jobs` that have no result yet, in their order, as `run_campaign`; also those that others run.

    `task` is the scheduler's name of what this process does (`timetrial.claims.take`). Raises `UserError` where a
    trial's folder cannot be written.
    """
    waiting = [job for job in jobs if not has_result(job)]
    ended: list[tuple[Job, EndLine]] = []
    elsewhere: list[Job] = []
    unready: set[str] = set()
    free: Queue[Share] = Queue()
    for share in shares(side_by_side):
        free.put(share)
    stop, turn = Stop(), threading.Lock()

    def run(number: int, job: Job, heart: Heart) -> None:
        try:
            run_claimed(number, job, heart)
        except OSError as error:
            raise UserError(
                f"the trial in {job.folder} cannot be run: {error.strerror}; what ran is kept: once that is mended, "
                "the same command goes on (`timetrial run` with --resume)"
            ) from error

    def run_claimed(number: int, job: Job, heart: Heart) -> None:
        if stop.asked.is_set() or job.workload in unready or has_result(job):
            return
        claim = take(Path(job.folder), task=task)
        if claim is None:
            elsewhere.append(job)
            return
        share = free.get()
        try:
            if has_result(job):  # whoever held it before has just finished it
                return
            lost = heart.add(claim)
            with turn:
                watcher.began(job, number, len(waiting))
            own, tried = replace(job, cores=share.cores), 0
            listener = _TakingTurns(watcher, turn)
            try:
                end = run_job(own, hang_seconds, listener, worker, share.environment, stop, lost)
                while end.status == "interrupted" and tried < retries and not (stop.asked.is_set() or lost.is_set()):
                    tried += 1
                    end = run_job(own, hang_seconds, listener, worker, share.environment, stop, lost)
            except Unready as error:
                unready.add(job.workload)
                end = end_after(None, "interrupted", str(error))
            with turn:
                watcher.ended(job, end)
                ended.append((job, end))
        finally:
            heart.drop(claim)
            claim.release()
            free.put(share)

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
