"""`timetrial run`: a campaign of trials, with live progress."""

import argparse
import hashlib
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from timetrial.campaign import FAILURES, Campaign, has_result, open_folder, require_parts, require_runnable, restrict
from timetrial.commands.output import add_format, print_json
from timetrial.errors import UserError
from timetrial.instrument_log import SETS, Choice
from timetrial.isolation.policy import add_isolation, require
from timetrial.launchers import slurm
from timetrial.launchers.local import RETRIES, run_campaign
from timetrial.launchers.shares import shares
from timetrial.loading import find_source
from timetrial.registry import submission_names
from timetrial.ruleset import Ruleset, load_ruleset

if TYPE_CHECKING:
    from rich.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--submission", "-s", nargs="+", required=True, metavar="S", action="extend",
        help="names, folders or files of submissions; `all` for every one that `timetrial list` shows",
    )  # fmt: skip
    parser.add_argument(
        "--workload", "-w", nargs="+", default=[], metavar="W", action="extend",
        help="workloads (default: all of the ruleset)",
    )  # fmt: skip
    parser.add_argument("--ruleset", "-r", required=True, metavar="R", help="a ruleset's name, or a TOML file")
    parser.add_argument("--studies", type=int, metavar="N", help="studies a submission (default: the ruleset's)")
    parser.add_argument("--trials", type=int, metavar="N", help="tuning trials a study (default: the ruleset's)")
    parser.add_argument(
        "--points", choices=("default", "halton"),
        help="where in its search space a submission is tried: its default point, or a quasi-random sequence "
        "(default: the ruleset's)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="the campaign's seed (default: 0)")
    parser.add_argument("--out", "-o", type=Path, required=True, metavar="DIR", help="where records are written")
    parser.add_argument(
        "--jobs", "-j", type=int, metavar="N",
        help="trials to run side by side, each on its share of cores and GPUs (default: 1); on a cluster: at most",
    )  # fmt: skip
    parser.add_argument(
        "--processes", type=int, default=Campaign.processes, metavar="N",
        help="split each trial over so many processes: on this machine, each with its share of cores and GPUs, or with "
        "--launcher slurm on so many nodes (default: 1; docs/cluster.md)",
    )  # fmt: skip
    parser.add_argument(
        "--accumulate", type=int, metavar="K",
        help="less memory: a batch goes through the loss in K parts, one after the other (default: the ruleset's, by "
        "workload; `timetrial doctor --memory W` says what it saves)",
    )  # fmt: skip
    parser.add_argument(
        "--remat", action=argparse.BooleanOptionalAction,
        help="less memory: the pass back computes again all but products (default: the ruleset's, by workload)",
    )  # fmt: skip
    parser.add_argument(
        "--launcher", choices=("local", "slurm"), default="local",
        help="where trials run: here (the default), or each as a task of a Slurm job array",
    )  # fmt: skip
    parser.add_argument(
        "--slurm-template", type=Path, default=slurm.TEMPLATE, metavar="FILE",
        help=f"the job script to fill in, a copy of {slurm.TEMPLATE} with your site's changes",
    )  # fmt: skip
    parser.add_argument("--container", default="", metavar="IMAGE", help="run Slurm's tasks in this image")
    parser.add_argument(
        "--checkpoint-every", type=float, default=Campaign.checkpoint_seconds, metavar="SECONDS",
        help="wall seconds between a trial's checkpoints, which are not charged (default: 30)",
    )  # fmt: skip
    parser.add_argument(
        "--instruments", choices=SETS, metavar="SET",
        help="look at single steps, uncharged: basic, economy, business or full (docs/instruments.md); "
        "`timetrial cockpit` shows what they saw",
    )  # fmt: skip
    parser.add_argument(
        "--every", default="16", metavar="N", help="steps between two looks, or log: 20 for each tenfold (default: 16)"
    )
    parser.add_argument(
        "--probe-rows", type=int, metavar="N",
        help="rows that a look takes its gradients from (default: an eighth of the batch, at least 8)",
    )  # fmt: skip
    parser.add_argument(
        "--held-out", metavar="SEED",
        help="add one held-out variant of each workload, drawn by this value, and derive its target first",
    )  # fmt: skip
    add_isolation(parser)
    parser.add_argument("--resume", action="store_true", help="go on with the campaign in DIR: run what has no result")
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from timetrial.display import Display

    names = submission_names() if args.submission == ["all"] else args.submission
    ruleset = restrict(
        load_ruleset(args.ruleset),
        workloads=args.workload,
        studies=args.studies,
        trials=args.trials,
        points=args.points,
        accumulate=args.accumulate,
        remat=args.remat,
    )
    require_runnable(ruleset)
    sources = tuple(find_source(name) for name in names)
    console = Console(stderr=args.format == "json")
    on_cluster = args.launcher == "slurm"
    side_by_side = 1 if on_cluster or args.jobs is None else args.jobs
    if args.processes < 1:
        raise UserError(f"--processes must be at least 1, not {args.processes}")
    if args.processes > 1 and args.container:
        raise UserError("--container: a trial of several processes cannot be started from within a container")
    shares(side_by_side if on_cluster else side_by_side * args.processes)
    if args.container and not on_cluster:
        raise UserError("--container is for --launcher slurm")
    if not args.checkpoint_every > 0:
        raise UserError(f"--checkpoint-every must be above 0, not {args.checkpoint_every:g}")
    campaign = Campaign(
        out=args.out,
        ruleset=ruleset,
        sources=sources,
        seed=args.seed,
        checkpoint_seconds=args.checkpoint_every,
        instruments=Choice.of(args.instruments, args.every, args.probe_rows) if args.instruments else None,
        isolation=args.isolation,
        processes=args.processes,
        accumulate=1 if args.accumulate is None else args.accumulate,
        remat=bool(args.remat),
    )
    require_parts(campaign)
    if args.held_out is not None:
        campaign = replace(campaign, ruleset=_with_held_out(ruleset, args, console, side_by_side))
        require_parts(campaign)
    if not on_cluster:  # there each trial looks at its own machine
        require(args.isolation)
    jobs = campaign.jobs()
    open_folder(campaign, resume=args.resume)
    if on_cluster:
        return _submit(campaign, args, console)
    if side_by_side > 1 and ruleset.clock == "seconds":
        console.print(
            "Warning: trials side by side disturb each other's seconds; for times to publish, run one at a time."
        )
    try:
        with Display(console) as display:
            ended = run_campaign(campaign, display, side_by_side=side_by_side, retries=RETRIES)
    except KeyboardInterrupt:
        console.print(f"Stopped; what ran is in {args.out}. The same command with --resume goes on.", soft_wrap=True)
        raise
    counts = Counter(end.status for _, end in ended)
    if args.format == "json":
        print_json({"out": str(args.out), "trials": len(jobs), "ran": len(ended), "statuses": dict(counts)})
    else:
        summary = ", ".join(f"{n} {status}" for status, n in counts.most_common())
        left = sum(not has_result(job) for job in jobs)
        done = f"{len(ended)} of {len(jobs)} trials run" + (f": {summary}" if summary else "")
        if left:
            done += f"; {left} still without a result (timetrial status {args.out})"
        elif not ended:
            done += "; all have their results"
        console.print(
            f"{done}. Records in {args.out}; next: timetrial score {args.out}", highlight=False, soft_wrap=True
        )
    return 1 if {*FAILURES, "interrupted"} & set(counts) else 0


def _submit(campaign: Campaign, args: argparse.Namespace, console: "Console") -> int:
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs must be at least 1, not {args.jobs}")
    arrays = slurm.submit(campaign, at_once=args.jobs, template=args.slurm_template, container=args.container)
    if args.format == "json":
        listed = [{"job_id": array.job_id, "trials": array.trials, "folder": str(array.folder)} for array in arrays]
        print_json({"out": str(args.out), "trials": len(campaign.jobs()), "arrays": listed})
        return 0
    tell = partial(console.print, highlight=False, soft_wrap=True)
    for array in arrays:
        tell(f"Job array {array.job_id}: {array.trials} trials; script and logs in {array.folder}")
    if arrays:
        tell(f"They run the submissions as they are now, from copies. Next: timetrial status {args.out} --watch")
    else:
        tell(f"All trials have their results. Next: timetrial score {args.out}")
    return 0


def _with_held_out(ruleset: Ruleset, args: argparse.Namespace, console: "Console", side_by_side: int) -> Ruleset:
    """The ruleset with held-out variants; their runs lie beside the campaign's folder, for the next campaign too."""
    from timetrial.display import Display
    from timetrial.held_out import with_held_out

    if args.out.exists() and not args.resume:
        raise UserError(f"{args.out} exists; add --resume to go on with it, or name another folder with --out")
    folder = args.out.parent / f"held-out-{hashlib.sha256(args.held_out.encode()).hexdigest()[:12]}"
    tell = partial(console.print, highlight=False, soft_wrap=True)
    with Display(console) as display:
        return with_held_out(ruleset, args.held_out, folder, display, side_by_side=side_by_side, tell=tell)
