"""The performance profiles of a board as a picture; matplotlib is imported when one is drawn."""

from pathlib import Path
from typing import Any

from timetrial.errors import UserError
from timetrial_scoring.profiles import TAU_MAX
from timetrial_scoring.score import Board

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito (2008): told apart by the colour-blind, too. With the line styles they make 28 kinds of line."""
STYLES = ("-", "--", ":", "-.")


def draw_profiles(board: Board, stem: Path) -> list[Path]:
    """Writes `stem`.png and `stem`.svg, and returns their paths. Raises UserError where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(
            "--out draws profile.png and profile.svg, which needs matplotlib: pip install matplotlib"
        ) from None
    figure: Any = Figure(figsize=(8.0, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    share = 1.0 / len(board.structure.bases)
    for rank, line in enumerate(line for line in board.standings if line.score is not None):
        steps = sorted(ratio for ratio in board.ratios_sb[board.names.index(line.submission)] if ratio <= TAU_MAX)
        taus = [1.0, *steps, TAU_MAX]
        heights = [share * sum(ratio <= tau for ratio in steps) for tau in taus]
        colour, style = COLOURS[rank % len(COLOURS)], STYLES[rank % len(STYLES)]
        axes.step(taus, heights, style, where="post", color=colour, label=f"{line.submission} ({line.score:.3f})")
    axes.set(
        xlim=(1.0, TAU_MAX),
        ylim=(0.0, 1.03),
        xlabel=f"{board.times.clock} to target, over the best",
        ylabel="share of workloads",
        title=f"Performance profiles: {board.grid.ruleset.name}, {board.grid.tuning} tuning",
    )
    if board.ranked:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
    paths = [stem.with_suffix(suffix) for suffix in (".png", ".svg")]
    for path in paths:
        figure.savefig(path, dpi=150)
    return paths
