"""`timetrial check`: does a submission keep the contract on every workload?"""

import argparse
from dataclasses import asdict

from absl import logging

from timetrial.commands.output import add_format, print_json
from timetrial.loading import find_source

_MARKS = {"pass": ("ok", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="a submission: its folder, its file or its name")
    parser.add_argument("--workload", "-w", nargs="+", metavar="W", help="workloads to try (default: the mini track)")
    parser.add_argument("--traceback", action="store_true", help="print the traceback of what the submission raises")
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.text import Text

    from timetrial.check.conformance import check
    from timetrial.compilation import cache_folder, use_cache
    from timetrial.registry import load_workload, workload_names

    if not args.traceback:
        logging.set_verbosity(logging.FATAL)
    source = find_source(args.path)
    workloads = [load_workload(name) for name in args.workload or workload_names("mini")]
    use_cache(cache_folder())
    console = Console(stderr=args.format == "json")
    verdicts = []
    for verdict in check(source, workloads):
        verdicts.append(verdict)
        mark, style = _MARKS[verdict.status]
        where = f" on {verdict.workload}" if verdict.workload else ""
        console.print(Text.assemble((f"{mark:<5}", style), f"{verdict.rule}{where}: {verdict.message}"), soft_wrap=True)
    failed = sum(verdict.status == "fail" for verdict in verdicts)
    if args.format == "json":
        print_json({"submission": source.name, "passed": not failed, "verdicts": [asdict(v) for v in verdicts]})
    else:
        console.print(f"{source.name}: {f'{failed} of {len(verdicts)} rules fail' if failed else 'keeps the contract'}")
    return 1 if failed else 0
