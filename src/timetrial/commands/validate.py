"""`timetrial validate`: the official rehearsal, as `timetrial submit` has it too."""

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timetrial.campaign import require_runnable, restrict
from timetrial.commands.output import add_format, print_json
from timetrial.errors import UserError
from timetrial.isolation.policy import add_isolation, require
from timetrial.loading import Source, find_source
from timetrial.ruleset import Ruleset, load_ruleset

if TYPE_CHECKING:
    from rich.console import Console

_FRACTION = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="a submission: its folder, its file or its name")
    parser.add_argument("--ruleset", "-r", default="mini-v1", metavar="R", help="what it is for (default: mini-v1)")
    parser.add_argument("--workload", "-w", nargs="+", default=[], metavar="W", help="workloads (default: all of it)")
    parser.add_argument(
        "--fraction", type=float, default=_FRACTION, metavar="F",
        help=f"how much of each budget a rehearsal may use (default: {_FRACTION:g})",
    )  # fmt: skip
    add_isolation(parser)
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Rehearses, and says whether the submission is ready to be handed in."""
    with tempfile.TemporaryDirectory(prefix="timetrial-rehearsal-") as scratch:
        return rehearsed(args, Path(scratch) / "rehearsal", bundle=None)


def rehearsed(args: argparse.Namespace, out: Path, *, bundle: Path | None) -> int:
    """Checks and rehearses the submission, says how it went, and writes the bundle where all is well."""
    from rich.console import Console

    from timetrial.validation.rehearsal import best_isolation, isolated_check, rehearsal_rules, rehearse, to_json

    source, ruleset = find_source(args.path), _ruleset(args)
    isolation = args.isolation
    if isolation == "none":
        isolation = best_isolation()
    else:
        require(isolation)
    if not 0 < args.fraction <= 1:
        raise UserError(f"--fraction must be above 0 and at most 1, not {args.fraction:g}")
    console = Console(stderr=args.format == "json")
    if isolation == "none":
        console.print("Warning: neither bubblewrap nor Docker is here; this rehearses without isolation.")
    console.print(f"Checking {source.name} ({isolation})…")
    report = isolated_check(source, list(ruleset.workloads), isolation)
    for verdict in report.verdicts:
        if verdict.status != "pass":
            _say(console, verdict.status == "warn", f"{verdict.rule}: {verdict.message}", verdict.todo)
    console.print(f"{report.count('pass')} rules hold, {report.count('warn')} warn, {report.count('fail')} fail")
    trials = []
    if report.passed:
        from timetrial.display import Display

        with Display(console) as display:
            trials = rehearse(source, rehearsal_rules(ruleset, args.fraction), out, isolation, display)
    failed = [trial.workload for trial in trials if not trial.passed]
    passed = report.passed and bool(trials) and not failed
    if passed and bundle is not None:
        _write(bundle, source, ruleset, out, report.to_json(), to_json(trials), isolation)
    answer: dict[str, Any] = {
        "submission": source.name,
        "passed": passed,
        "isolation": isolation,
        "check": report.to_json(),
        "rehearsal": to_json(trials),
        "bundle": str(bundle) if passed and bundle is not None else None,
    }
    if args.format == "json":
        print_json(answer)
    elif not report.passed:
        console.print(f"{source.name} is not ready: {report.count('fail')} rules fail; it was not rehearsed")
    elif not passed:
        console.print(f"{source.name} is not ready: it fails on {', '.join(failed)}")
    elif bundle is None:
        console.print(f"{source.name} is ready to be handed in; `timetrial submit {args.path}` makes the bundle")
    else:
        console.print(f"{bundle} is ready to be handed in; `timetrial verify {bundle}` checks it again")
    return 0 if passed else 1


def _ruleset(args: argparse.Namespace) -> Ruleset:
    ruleset = restrict(load_ruleset(args.ruleset), workloads=args.workload)
    require_runnable(ruleset)
    return ruleset


def _write(bundle: Path, source: Source, ruleset: Ruleset, out: Path, check: Any, trials: Any, isolation: str) -> None:
    from timetrial.validation.bundle import write_bundle

    try:
        write_bundle(bundle, source, ruleset, out, check=check, trials=trials, isolation=isolation)
    except OSError as error:
        raise UserError(f"cannot write {bundle}: {error.strerror}") from None


def _say(console: "Console", warns: bool, line: str, todo: str | None) -> None:
    from rich.text import Text

    mark = ("warn ", "yellow") if warns else ("FAIL ", "bold red")
    console.print(Text.assemble(mark, line, (f"\n      -> {todo}" if todo else "", "dim")), soft_wrap=True)
