"""`timetrial export-algoperf`: runs as an AlgoPerf log tree."""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUNS", type=Path, help="a folder of run records")
    parser.add_argument("out", metavar="OUT", type=Path, help="a new folder for the logs")
    parser.add_argument("--ruleset", metavar="R", help="name or TOML file (default: the one the runs name)")


def run(args: argparse.Namespace) -> int:
    from timetrial_scoring.export import export_algoperf

    from timetrial.ruleset import load_ruleset

    ruleset = None if args.ruleset is None else load_ruleset(args.ruleset)
    for finding in export_algoperf(args.runs, args.out, ruleset=ruleset):
        print(finding, file=sys.stderr)
    print(f"AlgoPerf logs in {args.out}")
    return 0
