"""`timetrial import-algoperf`: an AlgoPerf log tree as run records."""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("logs", metavar="LOGS", type=Path, help="a folder of AlgoPerf's logs: SUBMISSION/study_N/…")
    parser.add_argument("out", metavar="OUT", type=Path, help="a new folder for the records")
    parser.add_argument(
        "--ruleset", "-r", metavar="R", required=True, help="name or TOML file: AlgoPerf's targets and budgets"
    )


def run(args: argparse.Namespace) -> int:
    from timetrial_scoring.importer import import_algoperf

    from timetrial.ruleset import load_ruleset

    for finding in import_algoperf(args.logs, args.out, ruleset=load_ruleset(args.ruleset)):
        print(finding, file=sys.stderr)
    print(f"Run records in {args.out}; next: timetrial score {args.out} --ruleset {args.ruleset}")
    return 0
