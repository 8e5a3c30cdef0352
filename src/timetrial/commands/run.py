"""`timetrial run`: a campaign of trials, with live progress."""

import argparse
import hashlib
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from timetrial.campaign import Campaign, core_shares, has_result, open_folder, restrict, run_campaign
from timetrial.commands.output import add_format, print_json
from timetrial.errors import UserError
from timetrial.evidence import derived_targets, evidence_path
from timetrial.isolation.policy import add_isolation, require
from timetrial.loading import find_source
from timetrial.registry import base_of, shipped, submission_names
from timetrial.ruleset import Ruleset, load_ruleset

if TYPE_CHECKING:
    from rich.console import Console

_RETRIES = 2
"""Of a trial that was interrupted by what is not the submission's doing."""
_FINDINGS = {"error", "out_of_memory", "hung", "interrupted"}


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
        "--jobs", "-j", type=int, default=1, metavar="N",
        help="trials to run side by side, each on its share of the cores (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint-every", type=float, default=Campaign.checkpoint_seconds, metavar="SECONDS",
        help="wall seconds between a trial's checkpoints, which are not charged (default: 30)",
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
    )
    bases = {name: base_of(name) for name in ruleset.workloads}
    if not all(rules.eval_every and rules.horizon_examples for rules in ruleset.workloads.values()):
        raise UserError(
            f"ruleset {ruleset.name!r} is for scoring logs: it gives its workloads no eval grid and horizon"
        )
    for name, rules in ruleset.workloads.items():
        evidence = evidence_path(shipped("workloads") / bases[name], name)
        if rules.target is None and derived_targets(evidence)[0] is None:
            raise UserError(
                f"workload {name!r} has no target yet: `timetrial target {name}` derives one; "
                "until then name others with --workload"
            )
    sources = tuple(find_source(name) for name in names)
    console = Console(stderr=args.format == "json")
    core_shares(args.jobs)
    if args.held_out is not None:
        ruleset = _with_held_out(ruleset, args, console)
    if not args.checkpoint_every > 0:
        raise UserError(f"--checkpoint-every must be above 0, not {args.checkpoint_every:g}")
    campaign = Campaign(
        out=args.out,
        ruleset=ruleset,
        sources=sources,
        seed=args.seed,
        checkpoint_seconds=args.checkpoint_every,
        isolation=args.isolation,
    )
    require(args.isolation)
    jobs = campaign.jobs()
    open_folder(campaign, resume=args.resume)
    if args.jobs > 1 and ruleset.clock == "seconds":
        console.print(
            "Warning: trials side by side disturb each other's seconds; for times to publish, run one at a time."
        )
    try:
        with Display(console) as display:
            ended = run_campaign(campaign, display, side_by_side=args.jobs, retries=_RETRIES)
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
    return 1 if _FINDINGS & set(counts) else 0


def _with_held_out(ruleset: Ruleset, args: argparse.Namespace, console: "Console") -> Ruleset:
    """The ruleset with held-out variants; their runs lie beside the campaign's folder, for the next campaign too."""
    from timetrial.display import Display
    from timetrial.held_out import with_held_out

    if args.out.exists() and not args.resume:
        raise UserError(f"{args.out} exists; add --resume to go on with it, or name another folder with --out")
    folder = args.out.parent / f"held-out-{hashlib.sha256(args.held_out.encode()).hexdigest()[:12]}"
    tell = partial(console.print, highlight=False, soft_wrap=True)
    with Display(console) as display:
        return with_held_out(ruleset, args.held_out, folder, display, side_by_side=args.jobs, tell=tell)
