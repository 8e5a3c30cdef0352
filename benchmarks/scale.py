"""What a campaign costs beside its training, as its trials grow in number: planning, claims, resuming, status, scoring.

    python benchmarks/scale.py [--trials 1000 10000 100000] [--out DIR]

Trials are simulated (a clock and a trainer that train nothing, under the judge) and leave real records; the rest is
what `timetrial run`, `status` and `score` do. Each step is a process of its own: seconds on the wall, seconds of
processor time, peak memory. 1,000 trials are one submission on eight workloads, five studies of 25 trials.
Expect every step in proportion to the trials, and 100,000 of them under 1 GB and within minutes (docs/scale.md).
"""

import argparse
import functools
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from timetrial.loading import Source
from timetrial.record import EndLine, to_line
from timetrial.ruleset import Ruleset
from timetrial.worker import Job

WORKLOADS, STUDIES, TRIALS = 8, 5, 25
EACH = WORKLOADS * STUDIES * TRIALS
SUBMISSION = '"""Trains nothing."""\nSEARCH_SPACE = {"rate": (0.1, 1.0)}\n'


def ruleset() -> Ruleset:
    target = {"metric": "error_rate", "value": 0.5, "better": "lower"}
    return Ruleset.from_json(
        {
            "name": "scale",
            "version": 1,
            "description": "Trials of 100 simulated seconds, ten evals each.",
            "clock": "seconds",
            "external": {"studies": STUDIES, "trials": TRIALS},
            "self_tuning": None,
            "workloads": {
                f"workload_{i}": {"budget": 100.0, "eval_every": 10.0, "horizon_examples": 1000, "target": target}
                for i in range(WORKLOADS)
            },
        }
    )


def sources(folder: Path, number: int) -> tuple[Source, ...]:
    paths = [folder / "submissions" / f"submission_{i:03}" / "submission.py" for i in range(number)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SUBMISSION)
    return tuple(Source(path.parent.name, path) for path in paths)


def plan(folder: Path, trials: int) -> list[Job]:
    from timetrial.campaign import Campaign, open_folder

    campaign = Campaign(out=folder / "runs", ruleset=ruleset(), sources=sources(folder, trials // EACH), seed=0)
    open_folder(campaign, resume=campaign.out.exists())
    return campaign.jobs()


def run(folder: Path, trials: int) -> None:
    """Every trial that has no result, through the scheduler of one machine."""
    from timetrial.launchers import local

    class Silent:
        def began(self, job: Job, number: int, total: int) -> None: ...

        def progressed(self, job: Job, progress: Mapping[str, Any]) -> None: ...

        def noted(self, job: Job, text: str) -> None: ...

        def ended(self, job: Job, end: EndLine) -> None: ...

    def simulated(job: Job, *_: object) -> EndLine:
        return simulate(job)

    local.run_job = simulated
    jobs = plan(folder, trials)
    local.run_jobs(jobs, 60.0, Silent())


def simulate(job: Job) -> EndLine:
    """A trial that reaches its target at a time of its own, or never; its record is written in one go."""
    from fakes import FakeClock, FakeTrainer, ListRecorder, header

    from timetrial.judge import Judge

    chance = random.Random(f"{job.submission} {job.workload} {job.study} {job.trial}")
    pace = random.Random(f"{job.submission} {job.workload}").uniform(20, 90)
    reached = pace * chance.uniform(0.7, 2.0)

    def evaluate(step: int, model_state: object, splits: Iterable[str]) -> Mapping[str, float]:
        del model_state
        error = 0.9 if step < reached else 0.1
        return {
            f"{split}/{name}": error + 1e-3 * chance.random() for split in splits for name in ("error_rate", "loss")
        }

    recorder, clock = ListRecorder(), FakeClock()
    line = header(
        workload=job.workload, submission=job.submission, ruleset="scale", ruleset_sha256=rules_sha256(),
        study=job.study, trial=job.trial, hparams={"rate": chance.random()},
    )  # fmt: skip
    end = Judge(FakeTrainer(clock), evaluate, recorder, line, now=clock).run()
    path = Path(job.folder) / "record.jsonl"
    path.write_text("".join(map(to_line, (line, *recorder.evals, end))))
    return end


@functools.cache
def rules_sha256() -> str:
    return ruleset().sha256


def status(folder: Path, trials: int) -> None:
    from timetrial.progress import campaign_state

    state = campaign_state(folder / "runs")
    assert state.count("done") == trials


def score(folder: Path, trials: int) -> None:
    from timetrial_scoring.score import score_folder

    result = score_folder(folder / "runs")
    assert len(result.runs.trials) == trials


def claims(folder: Path, trials: int) -> None:
    """`timetrial score` as a person calls it, intervals and order claims included."""
    del trials
    from timetrial_scoring.cli import main

    assert main([str(folder / "runs"), "--format", "json"]) == 0


STEPS: dict[str, Callable[[Path, int], object]] = {
    "plan": plan, "run": run, "resume": run, "status": status, "score": score, "claims": claims,
}  # fmt: skip


def measure(step: str, folder: Path, trials: int) -> None:
    """Prints wall seconds, processor seconds and peak memory of a step; imports are not counted, memory is."""
    began, used = time.monotonic(), time.process_time()
    STEPS[step](folder, trials)
    wall, cpu = time.monotonic() - began, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{trials:>8,}  {step:<7} {wall:>8.1f} s {cpu:>8.1f} s {peak:>7.0f} MB", file=sys.stderr)
    assert threading.active_count() == 1


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="How a campaign's own costs grow with its trials.")
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--out", type=Path, help="keep the simulated campaigns here (default: a temporary folder)")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.inside:
        measure(args.steps[0], args.out, args.trials[0])
        return
    print("  trials  step        wall  processor  memory", file=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        for trials in args.trials:
            folder = (args.out or Path(scratch)) / str(trials)
            for step in args.steps:
                own = ["--inside", "--trials", str(trials), "--steps", step, "--out", str(folder)]
                subprocess.run((sys.executable, __file__, *own), check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    main()
