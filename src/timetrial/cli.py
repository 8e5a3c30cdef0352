"""The command `timetrial`: finds the verb, reads its arguments, calls it. Imports a verb's module when it is called."""

import argparse
import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import logging
from absl.flags import argparse_flags

import timetrial
from timetrial.errors import UserError, unknown


class Verb(NamedTuple):
    help: str
    module: str
    """Has `add_arguments(parser)` and `run(args) -> int`: the exit code, 0 for well and 1 for a finding."""
    example: str


VERBS = {
    "list": Verb(
        "show workloads, submissions and rulesets",
        "timetrial.commands.list",
        "timetrial list --format json",
    ),
    "data": Verb(
        "prepare the data of workloads, or show what is there",
        "timetrial.commands.data",
        "timetrial data prepare lobes flights",
    ),
    "new": Verb(
        "make a submission to start from",
        "timetrial.commands.new",
        "timetrial new submission my_optimizer",
    ),
    "check": Verb(
        "say whether a submission keeps the rules: its files, and a few steps on every workload of the mini track",
        "timetrial.commands.check",
        "timetrial check ./my_optimizer",
    ),
    "validate": Verb(
        "rehearse as an organiser would: the check, and a short trial on every workload, in isolation",
        "timetrial.commands.validate",
        "timetrial validate ./my_optimizer --sandbox",
    ),
    "submit": Verb(
        "validate a submission and make the bundle to hand in",
        "timetrial.commands.submit",
        "timetrial submit ./my_optimizer --out my_optimizer.zip",
    ),
    "verify": Verb(
        "check a bundle without running anything in it",
        "timetrial.commands.verify",
        "timetrial verify my_optimizer.zip",
    ),
    "run": Verb(
        "train workloads with submissions under a ruleset, and keep records",
        "timetrial.commands.run",
        "timetrial run --submission adamw ./mine --workload lobes --ruleset demo --out runs/first",
    ),
    "trial": Verb(
        "run one trial of a campaign that is there; what a cluster's tasks do",
        "timetrial.commands.trial",
        "timetrial trial runs/first/adamw/lobes/study_0/trial_0",
    ),
    "status": Verb(
        "show what a campaign has done, does and has still to do",
        "timetrial.commands.status",
        "timetrial status runs/first --watch",
    ),
    "score": Verb(
        "turn run records into a leaderboard",
        "timetrial_scoring.cli",
        "timetrial score runs/demo",
    ),
    "report": Verb(
        "draw run records as one HTML page, and its figures as files",
        "timetrial_scoring.report.command",
        "timetrial report runs/demo",
    ),
    "audit": Verb(
        "check records against their parameters, sources, rules and workloads",
        "timetrial.commands.audit",
        "timetrial audit runs/first --retime 2",
    ),
    "cockpit": Verb(
        "show what instruments saw of a trial: step size, gradients, curvature",
        "timetrial_scoring.cockpit.command",
        "timetrial cockpit runs/first/adamw/lobes/study_0/trial_0 --live",
    ),
    "sweep": Verb(
        "try optimizers x problems x tuning budgets x schedules, many trials at once",
        "timetrial.commands.sweep",
        "timetrial sweep sweeps/crowded_valley_reduced.toml --jobs 2",
    ),
    "sweep-report": Verb(
        "draw what a sweep shows: who wins, what tuning and schedules gain, how sure it is",
        "timetrial_scoring.sweeps.command",
        "timetrial sweep-report runs/crowded_valley_reduced",
    ),
    "import-algoperf": Verb(
        "turn logs of MLCommons AlgoPerf into run records",
        "timetrial.commands.import_algoperf",
        "timetrial import-algoperf logs runs/imported --ruleset algoperf-v05-external",
    ),
    "export-algoperf": Verb(
        "write runs as logs that MLCommons AlgoPerf's own scorer reads",
        "timetrial.commands.export_algoperf",
        "timetrial export-algoperf runs/first logs",
    ),
    "target": Verb(
        "derive the targets of workloads from runs of tuned baselines",
        "timetrial.commands.target",
        "timetrial target lobes --jobs 2",
    ),
    "freeze": Verb(
        "lock workloads, or check their locks",
        "timetrial.commands.freeze",
        "timetrial freeze --check",
    ),
    "doctor": Verb(
        "show what this machine is and how steady its clock, what a ruleset costs, what memory a workload needs",
        "timetrial.commands.doctor",
        "timetrial doctor --cost full-v1 --devices 8",
    ),
}


class _Terminated(KeyboardInterrupt):
    """SIGTERM came: everything finishes what it has to, as on Ctrl-C."""


def _terminated(*_: Any) -> None:
    raise _Terminated


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    0 well, 1 a finding, 2 wrong usage, 75 stopped by SIGTERM (a scheduler's; the same command goes on), 130 by Ctrl-C.
    """
    logging.use_absl_handler()
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except UserError as error:
        print(f"timetrial: {error}", file=sys.stderr)
        return 2
    except _Terminated:
        print("timetrial: terminated", file=sys.stderr)
        return 75
    except KeyboardInterrupt:
        print("timetrial: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has seen enough; the interpreter's own flush at exit must not complain either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if not _of_the_machine(error):
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"timetrial: {where}{error.strerror}; put that right, and try again", file=sys.stderr)
        return 2
    return code


def _of_the_machine(error: OSError) -> bool:
    """Whether it is a matter of room or of rights, that a user can mend, rather than a mistake of ours."""
    no_temporary_folder = error.errno == errno.ENOENT and error.filename is None
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM) or no_temporary_folder


def _run(argv: Sequence[str]) -> int:
    top = _top_parser()
    args = top.parse_args(argv)
    if args.verb is None:
        top.print_help()
        return 2
    if args.verb not in VERBS:
        raise unknown("verb", args.verb, VERBS, "`timetrial --help` explains them.")
    verb = VERBS[args.verb]
    parser = _parser(f"timetrial {args.verb}", verb.help, f"example:\n  {verb.example}")
    module: Any = importlib.import_module(verb.module)
    module.add_arguments(parser)
    return module.run(parser.parse_args(args.arguments))


def _top_parser() -> argparse.ArgumentParser:
    width = max(map(len, VERBS))
    listing = "\n".join(f"  {name:<{width}}  {verb.help}" for name, verb in VERBS.items())
    parser = _parser(
        "timetrial",
        "A benchmark of neural-network training algorithms.",
        f"verbs:\n{listing}\n\n`timetrial VERB --help` explains a verb.\n\nexample:\n  timetrial list",
    )
    parser.add_argument("--version", action="version", version=f"timetrial {timetrial.__version__}")
    parser.add_argument("verb", nargs="?", help="what to do")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the verb's own arguments")
    return parser


def _parser(program: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser that takes absl's flags without listing them (its own --helpfull line included)."""
    parser = argparse_flags.ArgumentParser(
        prog=program,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="help", help="show this help and exit")
    return parser
