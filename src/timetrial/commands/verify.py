"""`timetrial verify`: is a bundle whole, and does what it says hold? Nothing of it is run."""

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path

from timetrial.commands.output import add_format, print_json
from timetrial.errors import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a zip that `timetrial submit` made")
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.text import Text

    from timetrial.validation.bundle import verify_bundle

    with tempfile.TemporaryDirectory(prefix="timetrial-verify-") as scratch:
        findings = verify_bundle(args.bundle, Path(scratch))
    holds = all(finding.holds for finding in findings)
    if args.format == "json":
        print_json({"bundle": str(args.bundle), "holds": holds, "findings": [asdict(f) for f in findings]})
        return 0 if holds else 1
    console = Console()
    for finding in findings:
        mark = ("ok   ", "green") if finding.holds else ("FAIL ", "bold red")
        console.print(Text.assemble(mark, printable(f"{finding.what}: {finding.message}")), soft_wrap=True)
    console.print(f"{args.bundle}: {'all of it holds' if holds else 'do not take it as it is'}", soft_wrap=True)
    return 0 if holds else 1
