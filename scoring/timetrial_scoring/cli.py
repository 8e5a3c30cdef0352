"""`timetrial score`, and `python -m timetrial_scoring`: parses, calls, prints. Imports what it needs when it runs."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from timetrial.errors import UserError

if TYPE_CHECKING:
    from timetrial_scoring.score import Result

EPILOG = """\
examples:
  timetrial score runs/first                              a leaderboard of a campaign
  timetrial score logs --ruleset algoperf-v05-external    of AlgoPerf's logs
  timetrial score runs/first --reference adamw --out scores --strict
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "folder", metavar="DIR", type=Path, help="where the runs are: ours or AlgoPerf's logs, at any depth"
    )
    parser.add_argument("--ruleset", metavar="R", help="name or TOML file (default: the one the runs name)")
    parser.add_argument(
        "--mode",
        choices=("exact", "published"),
        default="exact",
        help="exact: fastest trial, closed form (default); published: AlgoPerf's own procedure, and what differs",
    )
    parser.add_argument("--no-intervals", action="store_true", help="point estimates only: quicker, and needs no scipy")
    parser.add_argument("--reference", metavar="S", help="submission to give speed-ups against")
    parser.add_argument(
        "--clocks", action="store_true", help="show seconds, steps and examples side by side in text and md"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="write scores.json, times.csv, profile.png, profile.svg here"
    )
    parser.add_argument("--format", choices=("text", "json", "csv", "md"), default="text", help="what to print")
    parser.add_argument(
        "--allow-mixed", action="store_true",
        help="compare seconds of different machines and of disturbed trials, and say so on the board",
    )  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="exit with 1 when there are findings")


def run(args: argparse.Namespace) -> int:
    """0 when all is well, 1 when --strict and there are findings. Raises UserError for a user's mistake."""
    import json
    from dataclasses import replace

    from timetrial_scoring import render
    from timetrial_scoring.claims import with_claims
    from timetrial_scoring.score import score_folder
    from timetrial_scoring.tables import to_json

    result = score_folder(
        args.folder, ruleset=args.ruleset, mode=args.mode, reference=args.reference, allow_mixed=args.allow_mixed
    )
    if not args.no_intervals:
        result = replace(result, boards=tuple(with_claims(board) for board in result.boards))
    if args.format == "json":
        sys.stdout.write(json.dumps(to_json(result), indent=1) + "\n")
    elif args.format == "csv":
        sys.stdout.write(render.as_csv(result))
    else:
        formats = {"text": render.as_text, "md": render.as_markdown}
        sys.stdout.write(formats[args.format](result, clocks=args.clocks))
    if args.out is not None:
        _write(result, args.out)
    return 1 if args.strict and result.findings else 0


def _write(result: "Result", out: Path) -> None:
    import json

    from timetrial_scoring.figure import draw_profiles
    from timetrial_scoring.render import times_csv
    from timetrial_scoring.tables import to_json

    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "scores.json").write_text(json.dumps(to_json(result), indent=1) + "\n")
        (out / "times.csv").write_text(times_csv(result))
        for board in result.boards:
            draw_profiles(board, out / ("profile" if len(result.boards) == 1 else f"profile_{board.grid.tuning}"))
    except OSError as error:
        raise UserError(f"cannot write to {str(out)!r}: {error.strerror}") from None
    print(f"wrote {', '.join(sorted(path.name for path in out.iterdir()))} in {out}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("timetrial_scoring", description="Scores runs: from records to a leaderboard.")
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
