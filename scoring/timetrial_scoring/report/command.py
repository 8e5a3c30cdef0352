"""`timetrial report`, and `python -m timetrial_scoring.report`: parses, calls, writes."""

import argparse
import sys
from pathlib import Path

from timetrial.errors import UserError

PAGE = "report.html"
EPILOG = """\
examples:
  timetrial report runs/first                                       writes runs/first/report/report.html
  timetrial report logs --ruleset algoperf-v05-external --out page  of AlgoPerf's logs
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "folder", metavar="DIR", type=Path, help="where the runs are: ours or AlgoPerf's logs, at any depth"
    )
    parser.add_argument("--ruleset", metavar="R", help="name or TOML file (default: the one the runs name)")
    parser.add_argument("--mode", choices=("exact", "published"), default="exact", help="as in `timetrial score`")
    parser.add_argument("--reference", metavar="S", help="submission to give speed-ups against")
    parser.add_argument("--allow-mixed", action="store_true", help="as in `timetrial score`")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help=f"write {PAGE} and figures/ here (default: report/ in the runs' folder)"
    )


def run(args: argparse.Namespace) -> int:
    """0 when the report is written. Raises UserError for a user's mistake."""
    from dataclasses import replace

    from timetrial_scoring.claims import with_claims
    from timetrial_scoring.report.cockpits import cockpits
    from timetrial_scoring.report.data import report_data
    from timetrial_scoring.report.figures import write_figures
    from timetrial_scoring.report.page import render_page
    from timetrial_scoring.score import score_folder

    result = score_folder(
        args.folder, ruleset=args.ruleset, mode=args.mode, reference=args.reference, allow_mixed=args.allow_mixed
    )
    result = replace(result, boards=tuple(with_claims(board) for board in result.boards))
    data = report_data(result)
    out: Path = args.folder / "report" if args.out is None else args.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        page = out / PAGE
        page.write_text(render_page(data, cockpits(args.folder)), encoding="utf-8")
        note = write_figures(result, data, out / "figures")
    except OSError as error:
        raise UserError(f"cannot write to {str(out)!r}: {error.strerror}") from None
    print(page)
    if note is not None:
        print(note, file=sys.stderr)
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "timetrial_scoring.report", description="Writes a report of runs as one HTML file."
    )
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
