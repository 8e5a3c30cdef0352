"""`timetrial sweep-report`: reads a sweep's results, prints what they show, writes the page and its figures."""

import argparse
from pathlib import Path

from timetrial.errors import UserError

PAGE = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", type=Path, help="what `timetrial sweep` wrote; trials.csv is in it")
    parser.add_argument(
        "--out", "-o", metavar="DIR", type=Path, help=f"write {PAGE} and figures/ here (default: report/ in DIR)"
    )


def run(args: argparse.Namespace) -> int:
    """0 when the report is written. Raises UserError for a user's mistake."""
    from timetrial_scoring.sweeps.figures import figures, write_figures
    from timetrial_scoring.sweeps.load import load_results
    from timetrial_scoring.sweeps.numbers import progress
    from timetrial_scoring.sweeps.page import render_page, summary

    results = load_results(args.folder)
    found = progress(results)
    out: Path = args.folder / "report" if args.out is None else args.out
    drawn = figures(results, found)
    try:
        write_figures(drawn, out / "figures")
        (out / PAGE).write_text(render_page(results, found, drawn, out / "figures"), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {str(out)!r}: {error.strerror}") from None
    print("\n".join(summary(results, found)))
    print(out / PAGE)
    return 0
