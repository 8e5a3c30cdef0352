"""`timetrial target`: derives the targets of workloads, and keeps the evidence beside them."""

import argparse
from pathlib import Path
from typing import Any

from timetrial import registry
from timetrial.commands.output import add_format, print_json, print_table
from timetrial.derivation import Derivation, Procedure
from timetrial.evidence import MOST_LOG_TIME_PER_SD, evidence_path, write_evidence
from timetrial.launchers.shares import shares
from timetrial.ruleset import load_ruleset
from timetrial.target import Target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workloads", nargs="+", metavar="W", help="workloads and variants; a base before its variants")
    parser.add_argument(
        "--ruleset", "-r", default="mini-v1", metavar="R", help="whose horizon and eval grid hold (default: mini-v1)"
    )
    parser.add_argument(
        "--points", type=int, default=Procedure.points, metavar="N",
        help=f"quasi-random points for each of the algorithms (default: {Procedure.points})",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=int, default=Procedure.seeds, metavar="N",
        help=f"fresh seeds of the best configuration (default: {Procedure.seeds})",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="the derivation's seed (default: 0)")
    parser.add_argument(
        "--out", "-o", type=Path, default=Path("runs/targets"), metavar="DIR",
        help="where the runs are kept, a folder a workload; the same command goes on with them (default: runs/targets)",
    )  # fmt: skip
    parser.add_argument("--jobs", "-j", type=int, default=1, metavar="N", help="runs side by side (default: 1)")
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Exit code 1 where a target is not to be used."""
    from rich.console import Console

    from timetrial.display import Display

    shares(args.jobs)
    ruleset = load_ruleset(args.ruleset)
    procedure = Procedure(points=args.points, seeds=args.seeds)
    console = Console(stderr=args.format == "json")
    found: list[dict[str, Any]] = []
    for name in args.workloads:
        folder = registry.shipped("workloads") / registry.base_of(name)
        derivation = Derivation(name, ruleset, procedure, args.out / name, args.seed)
        with Display(console) as display:
            evidence = derivation.run(display, args.jobs)
        path = evidence_path(folder, name)
        write_evidence(evidence, path)
        found.append(evidence)
        console.print(f"Evidence: {path}; `timetrial freeze {name}` locks the target.", soft_wrap=True)
    if args.format == "json":
        print_json(found)
    else:
        print_table("Targets", [summary(evidence) for evidence in found])
        for evidence in found:
            if not evidence["usable"]:
                print(
                    f"{evidence['workload']}: one standard deviation of this target moves the log time by "
                    f"{evidence['log_time_per_standard_deviation']:.2f}, more than {MOST_LOG_TIME_PER_SD}: it is not "
                    "used. Give the workload another horizon, or more valid examples."
                )
    return 0 if all(evidence["usable"] for evidence in found) else 1


def summary(evidence: dict[str, Any]) -> dict[str, Any]:
    """A row for people."""
    reach, best = evidence["reach_probability"], evidence["best_configuration"]
    return {
        "workload": evidence["workload"],
        "target": str(Target.from_json(evidence["target"])),
        "median in": "{low:.4g} … {high:.4g} ({coverage:.1%})".format(**evidence["median_interval"]),
        "reached by": f"{reach['share']:.0%} of {reach['runs']} ({reach['low']:.0%} … {reach['high']:.0%})",
        "log time per s.d.": evidence["log_time_per_standard_deviation"],
        "best configuration": best["submission"]
        + " "
        + ", ".join(f"{name}={value:.3g}" for name, value in best["hparams"].items()),
    }
