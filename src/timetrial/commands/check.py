"""`timetrial check`: does a submission keep the rules, in its files and on every workload?"""

import argparse
import itertools
from collections.abc import Iterator

from timetrial.check.report import Verdict, report_of
from timetrial.check.static import check_static
from timetrial.commands.output import add_format, print_json
from timetrial.errors import printable
from timetrial.loading import Source, find_source
from timetrial.registry import base_of

_MARKS = {"pass": ("ok", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="a submission: its folder, its file or its name")
    parser.add_argument("--workload", "-w", nargs="+", metavar="W", help="workloads to try (default: the mini track)")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--static", action="store_true", help="read the files alone: nothing is imported or run")
    only.add_argument("--dynamic", action="store_true", help="run the submission alone: its files are not read")
    parser.add_argument("--traceback", action="store_true", help="print the traceback of what the submission raises")
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.text import Text

    source = find_source(args.path)
    for name in args.workload or ():
        base_of(name)  # a name that is none is said at once
    console = Console(stderr=args.format == "json")
    verdicts: list[Verdict] = []
    for verdict in itertools.chain(
        () if args.dynamic else check_static(source), () if args.static else _dynamic(source, args)
    ):
        verdicts.append(verdict)
        mark, style = _MARKS[verdict.status]
        todo = f"\n      -> {printable(verdict.todo)}" if verdict.todo else ""
        console.print(Text.assemble((f"{mark:<5}", style), " ", str(verdict), (todo, "dim")), soft_wrap=True)
    report = report_of(source, verdicts)
    if args.format == "json":
        print_json(report.to_json())
    else:
        counts = [(report.count("fail"), "failure"), (report.count("warn"), "warning")]
        found = [f"{count} {what}{'s' if count > 1 else ''}" for count, what in counts if count]
        console.print(f"{source.name}: {', '.join([*(['keeps the rules'] if report.passed else []), *found])}")
    return 0 if report.passed else 1


def _dynamic(source: Source, args: argparse.Namespace) -> Iterator[Verdict]:
    from absl import logging

    from timetrial.check.conformance import check
    from timetrial.compilation import cache_folder, use_cache
    from timetrial.registry import load_workload, workload_names

    if not args.traceback:
        logging.set_verbosity(logging.FATAL)
    workloads = [load_workload(name) for name in args.workload or workload_names("mini")]
    use_cache(cache_folder())
    yield from check(source, workloads)
