"""The performance profiles of a board, and other step functions, as pictures; matplotlib is imported by drawing one."""

from collections.abc import Mapping, Sequence
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
    share = 1.0 / len(board.structure.bases)
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for line in board.standings:
        if line.score is not None:
            steps = sorted(ratio for ratio in board.ratios_sb[board.names.index(line.submission)] if ratio <= TAU_MAX)
            heights = [share * sum(ratio <= tau for ratio in steps) for tau in (1.0, *steps)]
            lines[f"{line.submission} ({line.score:.3f})"] = [1.0, *steps], heights
    try:
        figure = step_figure(lines, TAU_MAX)
    except ImportError:
        raise UserError(
            "--out draws profile.png and profile.svg, which needs matplotlib: pip install matplotlib"
        ) from None
    figure.axes[0].set(
        xlim=(1.0, TAU_MAX),
        xlabel=f"{board.times.clock} to target, over the best",
        ylabel="share of workloads",
        title=f"Performance profiles: {board.grid.ruleset.name}, {board.grid.tuning} tuning",
    )
    paths = [stem.with_suffix(suffix) for suffix in (".png", ".svg")]
    for path in paths:
        figure.savefig(path, dpi=150)
    return paths


def step_figure(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], end: float) -> Any:
    """A figure of step functions: for each label where its steps are, in order, and the share from each on to `end`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(8.0, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for i, (label, (steps, shares)) in enumerate(lines.items()):
        colour, style = COLOURS[i % len(COLOURS)], STYLES[i % len(STYLES)]
        axes.step([*steps, end], [*shares, shares[-1]], style, where="post", color=colour, label=label)
    axes.set_ylim(0.0, 1.03)
    if lines:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
    return figure
