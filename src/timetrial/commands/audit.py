"""`timetrial audit`: whether records are what the rules, the source and the workloads give."""

import argparse
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timetrial.commands.output import add_format, print_json
from timetrial.errors import UserError, printable

if TYPE_CHECKING:
    from timetrial.audit.retime import Rerun
    from timetrial.audit.run import Audit, TrialAudit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUNS", help="campaigns' folders, or trials' own")
    parser.add_argument(
        "--retime", type=int, default=0, metavar="K",
        help="also run K trials again, drawn at random, and compare: this runs the submissions' code",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, metavar="S", help="draws the trials to run again (default: a random one)")
    parser.add_argument(
        "--factor", type=float, default=1.5, metavar="F",
        help="by how much times may differ when a trial is run again (default: 1.5)",
    )  # fmt: skip
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Exit code 1 where there are findings."""
    from timetrial.audit.run import run_audit

    if args.retime < 0:
        raise UserError(f"--retime must not be negative, got {args.retime}")
    if not args.factor > 1:
        raise UserError(f"--factor must be above 1, got {args.factor:g}")
    as_lines = args.format == "text" and sys.stdout.isatty()
    audit = run_audit(
        args.folders,
        tell=_tell if as_lines else lambda audited: None,
        retimes=args.retime,
        retime_seed=secrets.randbelow(2**31) if args.seed is None else args.seed,
        factor=args.factor,
    )
    if args.format == "json":
        print_json(to_json(audit))
    else:
        _print(audit)
    return 1 if audit.all_findings() else 0


def _tell(audited: "TrialAudit | Rerun") -> None:
    from timetrial.audit.run import TrialAudit

    count = len(audited.findings)
    how = f"compared {audited.compared}" if isinstance(audited, TrialAudit) else "run again"
    print(printable(f"{f'{count} findings' if count else 'ok':<12}{audited.trial.name}  {how}"), flush=True)


def _print(audit: "Audit") -> None:
    findings = audit.all_findings()
    for said in (*map(str, findings), *(f"note: {note}" for note in audit.notes)):
        print(printable(said))
    again = ""
    if audit.retime_seed is not None:
        again = f", {len(audit.reruns)} of them run again (--seed {audit.retime_seed})"
    found = f"{len(findings)} findings" if findings else "nothing found"
    print(f"{len(audit.trials)} trials audited{again}: {found}")


def to_json(audit: "Audit") -> dict[str, Any]:
    """Every trial with its findings, and all else that was found; paths as strings."""
    return {
        "trials": [
            {
                "name": audited.trial.name,
                "path": str(audited.trial.path),
                "status": None if audited.trial.record.end is None else audited.trial.record.end.status,
                "compared": audited.compared,
                "findings": [finding.to_json() for finding in audited.findings],
            }
            for audited in audit.trials
        ],
        "findings": [finding.to_json() for finding in audit.findings],
        "retimed": [
            {
                "name": again.trial.name,
                "path": str(again.trial.path),
                "compared": None if again.allowed is None else str(again.allowed),
                "findings": [finding.to_json() for finding in again.findings],
            }
            for again in audit.reruns
        ],
        "retime_seed": audit.retime_seed,
        "notes": audit.notes,
        "clean": not audit.all_findings(),
    }
