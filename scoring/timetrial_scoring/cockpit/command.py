"""`timetrial cockpit`: parses, calls, writes; with --live again and again, until the trials are over."""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from timetrial.errors import UserError
from timetrial.instrument_log import LOG_NAME, LogError
from timetrial.record import RecordError
from timetrial_scoring.cockpit.hints import hints
from timetrial_scoring.cockpit.page import render_page
from timetrial_scoring.cockpit.run import Run, find_run, read_run

if TYPE_CHECKING:
    from rich.console import RenderableType

PAGE = "cockpit.html"
_LOOK_SECONDS = 2.0
_SHOWN = (
    *("step_loss", "alpha", "update_ratio", "gradient_norm", "cosine", "noise_scale", "hessian_trace"),
    *("hessian_max_eigenvalue", "learning_rate"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN",
        help="the folder of a trial that ran with --instruments (or one above it, where it is the only one); "
        "two are drawn over each other",
    )  # fmt: skip
    parser.add_argument(
        "--out", "-o", type=Path, metavar="FILE", help=f"the page (default: {PAGE} in the first trial's folder)"
    )
    parser.add_argument(
        "--live", action="store_true", help="show it in the terminal too, and keep both new until the trials end"
    )


def run(args: argparse.Namespace) -> int:
    """0 when the page is written. Raises UserError for a user's mistake."""
    if len(args.runs) > 2:
        raise UserError(f"the cockpit draws one trial, or two over each other; got {len(args.runs)}")
    if args.live:
        return _live(args.runs, args.out)
    runs = [read_run(folder) for folder in args.runs]
    print(_write(runs, args.runs, args.out))
    return 0


def _write(runs: Sequence[Run], folders: Sequence[Path], out: Path | None, *, live: bool = False) -> Path:
    """One rename, so that a browser never reads half a page."""
    path = find_run(folders[0]) / PAGE if out is None else out
    scratch = path.with_name(path.name + ".tmp")
    try:
        scratch.write_text(render_page(runs, live=live), encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        raise UserError(f"cannot write to {str(path)!r}: {error.strerror}") from None
    return path


def _live(folders: Sequence[Path], out: Path | None, wait: Callable[[float], None] = time.sleep) -> int:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    with Live(Text("waiting for the first look"), console=console, auto_refresh=False) as panel:
        while True:
            runs = _begun(folders)
            if runs is not None:
                over = all(run.over for run in runs)
                page = _write(runs, folders, out, live=not over)
                panel.update(_panel(runs, page), refresh=True)
                if over:
                    return 0
            wait(_LOOK_SECONDS)


def _begun(folders: Sequence[Path]) -> list[Run] | None:
    """The trials, or None where one of them has nothing to show yet."""
    if not all(folder.is_dir() and any(folder.rglob(LOG_NAME)) for folder in folders):
        return None
    try:
        return [read_run(folder) for folder in folders]
    except (LogError, RecordError) as error:
        if "killed before it began" in str(error):  # its first line is still being written
            return None
        raise


def _panel(runs: Sequence[Run], page: Path) -> "RenderableType":
    """The newest values of each trial, and what its gauges say."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for each in runs:
        table.add_column(Text(each.title), justify="right")
    table.add_row("step", *(f"{each.steps[-1]:,.0f}" if len(each.steps) else "" for each in runs))
    for name in _SHOWN:
        newest = [_newest(each.values(name)) for each in runs]
        if any(newest):
            table.add_row(name, *newest)
    said = [Text(f"{hint.says} ({hint.because})", style="yellow") for each in runs for hint in hints(each)]
    return Group(table, *said, Text(f"{page}: open it in a browser", style="dim"))


def _newest(values: np.ndarray) -> str:
    there = values[np.isfinite(values)]
    return f"{there[-1]:.4g}" if len(there) else ""
