"""`timetrial validate`: the official rehearsal, as `timetrial submit` has it too."""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timetrial.campaign import Campaign, require_parts, require_runnable, restrict
from timetrial.commands.output import add_format, print_json
from timetrial.errors import UserError, printable
from timetrial.isolation.policy import Isolation, add_isolation, require
from timetrial.loading import Source, find_source
from timetrial.ruleset import Ruleset, load_ruleset

if TYPE_CHECKING:
    from rich.console import Console

    from timetrial.check.report import Report, Verdict
    from timetrial.validation.rehearsal import Rehearsed

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

    from timetrial.validation.rehearsal import best_isolation, to_json

    source, ruleset = find_source(args.path), _ruleset(args)
    isolation, why = args.isolation, ""
    if isolation == "none":
        isolation, why = best_isolation()
    else:
        require(isolation)
    if not 0 < args.fraction <= 1:
        raise UserError(f"--fraction must be above 0 and at most 1, not {args.fraction:g}")
    source = _kept(source, out.parent / "kept")
    console = Console(stderr=args.format == "json")
    if isolation == "none":
        console.print(f"Warning: this rehearses without isolation. {why}", soft_wrap=True, highlight=False)
    try:
        report, trials = _tried(source, ruleset, args.fraction, out, isolation, console)
    except KeyboardInterrupt:
        console.print("Stopped; a rehearsal is done at a stretch: the same command begins it anew.", soft_wrap=True)
        raise
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
        return 0 if passed else 1
    lacks = [*ruleset.modified, *(["no isolation"] if isolation == "none" else [])]
    if not report.passed:
        said = f"{source.name} is not ready: {report.count('fail')} rules fail; it was not rehearsed"
    elif not passed:
        look = _closer_look(args, isolation, failed[0])
        said = f"{source.name} is not ready: it fails on {', '.join(failed)}. {look}"
    elif lacks:
        made = "" if bundle is None else f"; {bundle} was written, and `timetrial verify` will not take it"
        said = f"{source.name} did well, but this was no whole rehearsal ({'; '.join(lacks)}){made}"
    elif bundle is None:
        said = f"{source.name} is ready to be handed in; `timetrial submit {args.path}` makes the bundle"
    else:
        said = f"{bundle} is ready to be handed in; `timetrial verify {bundle}` checks it again"
    console.print(said, soft_wrap=True, highlight=False, markup=False)
    return 0 if passed else 1


def _kept(source: Source, folder: Path) -> Source:
    """A copy, in which what somebody edits meanwhile changes nothing."""
    source.copy_to(folder)
    return Source(source.name, folder / source.path.name)


def _tried(
    source: Source, ruleset: Ruleset, fraction: float, out: Path, isolation: Isolation, console: "Console"
) -> "tuple[Report, list[Rehearsed]]":
    """The check's report, which it prints, and the trials of the rehearsal: none where a rule fails."""
    from timetrial.display import Display
    from timetrial.validation.rehearsal import isolated_check, rehearsal_rules, rehearse

    rules = rehearsal_rules(ruleset, fraction)
    campaign = Campaign(out=out, ruleset=rules, sources=(source,), seed=0, isolation=isolation)
    require_parts(campaign)
    console.print(f"Checking {source.name} ({isolation})…")
    report = isolated_check(source, list(ruleset.workloads), isolation)
    for verdict in report.verdicts:
        if verdict.status != "pass":
            _say(console, verdict)
    console.print(f"{report.count('pass')} rules hold, {report.count('warn')} warn, {report.count('fail')} fail")
    if not report.passed:
        return report, []
    with Display(console) as display:
        return report, rehearse(campaign, display)


def _closer_look(args: argparse.Namespace, isolation: Isolation, workload: str) -> str:
    """The command whose folder keeps the trial's log."""
    apart = "" if isolation == "none" else f" --{isolation}"
    return (
        f"`timetrial run --submission {args.path} --ruleset {args.ruleset} --workload {workload}{apart} --out DIR` "
        "keeps what it prints, in trial.log"
    )


def _ruleset(args: argparse.Namespace) -> Ruleset:
    ruleset = restrict(load_ruleset(args.ruleset), workloads=args.workload)
    require_runnable(ruleset)
    return ruleset


def _write(bundle: Path, source: Source, ruleset: Ruleset, out: Path, check: Any, trials: Any, isolation: str) -> None:
    """Writes it, where that cannot be among the temporary files: a rehearsal takes too long to be lost."""
    from timetrial.validation.bundle import write_bundle

    made = partial(write_bundle, check=check, trials=trials, isolation=isolation)
    try:
        made(bundle, source, ruleset, out)
    except OSError as error:
        kept = Path(tempfile.mkdtemp(prefix="timetrial-bundle-")) / bundle.name
        try:
            made(kept, source, ruleset, out)
        except OSError:
            raise UserError(f"cannot write {bundle}: {error.strerror}; make room, and submit again") from None
        raise UserError(f"cannot write {bundle}: {error.strerror}; the bundle is {kept}, move it from there") from None


def _say(console: "Console", verdict: "Verdict") -> None:
    from rich.text import Text

    mark = ("warn ", "yellow") if verdict.status == "warn" else ("FAIL ", "bold red")
    todo = f"\n      -> {printable(verdict.todo)}" if verdict.todo else ""
    console.print(Text.assemble(mark, str(verdict), (todo, "dim")), soft_wrap=True)
