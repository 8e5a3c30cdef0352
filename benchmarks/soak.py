"""A campaign under kill -9, at random, for as long as asked: nothing may be lost, and nothing may differ.

It runs twice, first undisturbed. Budgets of the mini track are scaled so that all trials together train for about
--share of the time, and targets are its first milestones. Prints a summary for docs/reliability.md; exit code 1 where
a trial is lost, a metric differs, or the leaderboard does.

    python benchmarks/soak.py --minutes 60 --out runs/soak
    python benchmarks/soak.py --minutes 1 --every 5 -s adamw nesterov -w flights -n 1 --out runs/short
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from timetrial.campaign import Campaign, has_result, open_folder
from timetrial.launchers.local import RETRIES, run_campaign
from timetrial.loading import find_source
from timetrial.record import RECORD_NAME, EndLine, RecordError, read_record
from timetrial.ruleset import Ruleset, Tuning, WorkloadRules, load_ruleset
from timetrial.worker import Job

SUBMISSIONS = ("adamw", "lion", "muon", "nadamw", "nesterov", "schedule_free_adamw")
WORST = {"worker": 6, "campaign": 2, "machine": 1}
"""What is killed, and how often beside each other: a trial, the process that runs the campaign, or all of it."""


class Silent:
    """A campaign's watcher that shows nothing."""

    def began(self, job: Job, number: int, total: int) -> None: ...

    def progressed(self, job: Job, progress: Any) -> None: ...

    def noted(self, job: Job, text: str) -> None: ...

    def ended(self, job: Job, end: EndLine) -> None: ...


def scaled(workloads: list[str], studies: int, submissions: int, minutes: float) -> Ruleset:
    """The mini track with budgets that take so many minutes together, measured here."""
    from timetrial.check.pace import seconds_a_step
    from timetrial.compilation import cache_folder, use_cache
    from timetrial.registry import load_workload

    use_cache(cache_folder())
    mini = load_ruleset("mini-v1")
    names = workloads or list(mini.workloads)
    seconds = 60 * minutes / (len(names) * studies * submissions)

    def rules(name: str) -> WorkloadRules:
        workload, old = load_workload(name), mini.workloads[name]
        steps = max(24, int(seconds / seconds_a_step(workload)) // 4 * 4)
        examples = steps * workload.default_batch_size
        assert old.target is not None
        target = replace(old.target, value=old.milestones[0])
        return replace(
            old, budget=examples, eval_every=examples // 4, horizon_examples=examples, target=target,
            milestones=(), anchor=None,
        )  # fmt: skip

    board = Tuning(studies=studies, trials=1, points="default")
    return replace(
        mini, external=board, self_tuning=board, workloads={name: rules(name) for name in names}, modified=("a soak",)
    )


def campaign(folder: Path) -> Campaign:
    """The campaign in `folder`, by the plan beside it."""
    plan = json.loads((folder.parent / "plan.json").read_text())
    return Campaign(
        out=folder,
        ruleset=Ruleset.from_json(plan["ruleset"]),
        sources=tuple(find_source(name) for name in plan["submissions"]),
        seed=plan["seed"],
        checkpoint_seconds=plan["checkpoint_seconds"],
    )


def run_once(folder: Path) -> None:
    """Runs, in this process, what has no result yet."""
    todo = campaign(folder)
    open_folder(todo, resume=True)
    run_campaign(todo, Silent(), retries=RETRIES)


def run_to_the_end(folder: Path, disturb: Callable[["subprocess.Popen[bytes]"], None]) -> None:
    """Starts the campaign's process again until every trial has its result; `disturb` watches over each."""
    jobs = campaign(folder).jobs()
    while not all(has_result(job) for job in jobs):
        process = subprocess.Popen((sys.executable, __file__, "--campaign", str(folder)))
        disturb(process)
        process.wait()
        if not all(has_result(job) for job in jobs):
            time.sleep(10)  # a trial of a dead process can be had when its lease is over


def children(pid: int) -> list[int]:
    """The processes that any of its threads has started."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):  # the thread is over
            found += map(int, (thread / "children").read_text().split())
    return found


class Killer:
    """Ends processes at random moments, `every` seconds apart on average, until `until`."""

    def __init__(self, seed: int, every: float, until: float) -> None:
        self._random = random.Random(seed)
        self._every = every
        self._until = until
        self.killed: Counter[str] = Counter()

    def __call__(self, process: "subprocess.Popen[bytes]") -> None:
        while process.poll() is None and time.monotonic() < self._until:
            try:
                process.wait(self._random.expovariate(1 / self._every))
            except subprocess.TimeoutExpired:
                self._kill(process)

    def _kill(self, process: "subprocess.Popen[bytes]") -> None:
        (what,) = self._random.choices(list(WORST), list(WORST.values()))
        workers = children(process.pid)
        victims = ([] if what == "campaign" else workers) + ([] if what == "worker" else [process.pid])
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        if victims:
            self.killed[what] += 1


def differences(calm: Campaign, rough: Campaign) -> list[str]:
    """What the disturbed campaign lacks of the undisturbed one, or has otherwise."""
    found: list[str] = []
    for one, other in zip(calm.jobs(), rough.jobs(), strict=True):
        where = str(Path(other.folder).relative_to(rough.out))
        try:
            found += [f"{where}: {what} differs" for what, same in _compared(one, other).items() if not same]
        except RecordError as error:
            found.append(f"{where}: {error}")
    if _board(calm.out) != _board(rough.out):
        found.append("the leaderboards differ")
    return found


def _compared(one: Job, other: Job) -> dict[str, bool]:
    a, b = (read_record(Path(job.folder) / RECORD_NAME) for job in (one, other))
    ends = [end and (end.status, end.message, end.step, end.examples, end.crossing) for end in (a.end, b.end)]
    evals = [[(line.step, line.examples, line.metrics) for line in record.evals] for record in (a, b)]
    return {"the end": ends[0] == ends[1], "an eval": evals[0] == evals[1]}


def _board(folder: Path) -> Any:
    command = (sys.executable, "-m", "timetrial", "score", str(folder), "--format", "json", "--allow-mixed")
    scores = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return scores["leaderboard"], scores["claims"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long to kill (default: 60)")
    parser.add_argument("--every", type=float, default=20.0, help="mean seconds between two kills (default: 20)")
    parser.add_argument("--share", type=float, default=0.3, help="of those minutes that training takes (default: .3)")
    parser.add_argument("--submissions", "-s", nargs="+", default=list(SUBMISSIONS))
    parser.add_argument("--workloads", "-w", nargs="+", default=[], help="(default: all of the mini track)")
    parser.add_argument("--studies", "-n", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a new folder, or one to go on with")
    parser.add_argument("--campaign", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.campaign is not None:
        run_once(args.campaign)
        return 0
    if args.out is None:
        parser.error("name a new folder with --out")
    if not (args.out / "plan.json").is_file():
        args.out.mkdir(parents=True)
        rules = scaled(args.workloads, args.studies, len(args.submissions), args.share * args.minutes)
        plan = {
            "ruleset": rules.to_json(), "submissions": args.submissions, "seed": args.seed, "checkpoint_seconds": 2.0
        }  # fmt: skip
        (args.out / "plan.json").write_text(json.dumps(plan))
    began = time.monotonic()
    run_to_the_end(args.out / "calm", lambda process: None)
    between = time.monotonic()
    killer = Killer(args.seed, args.every, between + 60 * args.minutes)
    run_to_the_end(args.out / "rough", killer)
    calm, rough = campaign(args.out / "calm"), campaign(args.out / "rough")
    found = differences(calm, rough)
    trials = len(rough.jobs())
    shape = len(rough.sources), len(rough.ruleset.workloads), rough.ruleset.tuning(self_tuning=False).studies
    grid = "{} submissions x {} workloads x {} studies".format(*shape)
    records = [read_record(Path(job.folder) / RECORD_NAME) for job in rough.jobs()]
    ends = Counter(record.end.status for record in records if record.end is not None)
    resumes = sum(len(record.resumes) for record in records)
    print("| soak | undisturbed | disturbed | killed | taken up | ends | lost or different |")
    print("| --- | --: | --: | --- | --: | --- | --: |")
    print(
        f"| {grid}: {trials} trials | {(between - began) / 60:.1f} min | {(time.monotonic() - between) / 60:.1f} min "
        f"| {', '.join(f'{n} x {what}' for what, n in killer.killed.items()) or 'nothing'} "
        f"| {resumes} | {', '.join(f'{n} {status}' for status, n in ends.items())} "
        f"| {len(found)} |"
    )
    for line in found:
        print(f"- {line}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
