"""`timetrial trial`: one trial of a campaign that is there, as a task of a cluster runs it."""

import argparse
from pathlib import Path

from timetrial.campaign import FAILURES, has_result, kept_job
from timetrial.isolation.policy import require
from timetrial.launchers import slurm
from timetrial.launchers.local import RETRIES, run_jobs
from timetrial.ruleset import Ruleset
from timetrial.worker import PREEMPTED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="TRIAL", help="the trial's folder, within the campaign's")


def run(args: argparse.Namespace) -> int:
    """0 with a result, also one that was there already, and where another process runs it; 1 where the trial failed.

    75 where it was interrupted: the same command goes on.
    """
    from rich.console import Console

    from timetrial.display import Display

    job = kept_job(args.folder)
    require(job.isolation)
    console = Console()
    with Display(console) as display:
        hang_seconds = Ruleset.from_json(job.ruleset).hang_seconds
        ended, elsewhere = run_jobs((job,), hang_seconds, display, retries=RETRIES, task=slurm.task())
    if not ended:
        console.print("another process runs it" if elsewhere else "it has its result already")
        return 0
    if not has_result(job):
        return PREEMPTED
    return 1 if ended[0][1].status in FAILURES else 0
