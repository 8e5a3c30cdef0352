"""The figures of a report as files: CSV always, PNG and SVG where matplotlib is installed.

The pictures are for papers and slides: all that the page shows, in one light drawing each.
"""

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from timetrial_scoring import render, tables
from timetrial_scoring.figure import COLOURS, STYLES, draw_profiles, step_figure
from timetrial_scoring.report.data import flat_rows
from timetrial_scoring.score import Result

NEEDS_MATPLOTLIB = "wrote no PNG and no SVG of the figures: pip install matplotlib"
MARKERS = "osD^vP*X"
Data = Mapping[str, Any]


def write_figures(result: Result, data: Data, folder: Path) -> str | None:
    """Writes `folder`/TUNING/FIGURE.csv, .png and .svg; returns what was not written, and what to do."""
    can_draw = find_spec("matplotlib") is not None
    for scored, board in zip(result.boards, data["boards"], strict=True):
        place = folder / board["tuning"]
        place.mkdir(parents=True, exist_ok=True)
        for name, rows in flat_rows(board).items():
            if not rows:
                continue
            (place / f"{name}.csv").write_text(render.to_csv(rows), encoding="utf-8")
            if can_draw and name == "profiles":
                draw_profiles(scored, place / name)
            elif can_draw:
                _save(_DRAW[name](data, board), place / name)
    return None if can_draw else NEEDS_MATPLOTLIB


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, stem: Path) -> None:
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": stem.name}):  # the same runs give the same file
        figure.savefig(stem.with_suffix(".png"), dpi=150)
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})


def _plain(text: str) -> str:
    """A name that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")


def _colour(s: int) -> str:
    return COLOURS[s % len(COLOURS)]


def _leaderboard(_: Data, board: Data) -> Any:
    lines = [line for line in board["leaderboard"] if line["score"] is not None]
    figure = _figure(8.0, 1.2 + 0.32 * len(lines))
    axes = figure.add_subplot()
    claimed = any(line["score_ci"] is not None for line in lines)
    xlabel = "score, 95 % interval" if claimed else "score (no interval is claimed)"
    for height, line in enumerate(lines):
        if line["score_ci"] is not None:
            axes.plot(line["score_ci"], [height, height], color="#0072b2", alpha=0.4, linewidth=5)
        axes.plot(line["score"], height, "o", color="#0072b2")
    axes.set(xlim=(-0.02, 1.02), ylim=(len(lines) - 0.4, -0.6), xlabel=xlabel)
    axes.set_yticks(range(len(lines)), [_plain(line["submission"]) for line in lines])
    axes.grid(axis="x", alpha=0.3)
    return figure


def _ecdf(data: Data, board: Data) -> Any:
    figure = step_figure({_plain(line["submission"]): (line["budget"], line["share"]) for line in board["ecdf"]}, 1.0)
    figure.axes[0].set(
        xlim=(0.0, 1.0),
        xlabel=f"charged {data['clock']}, share of the budget",
        ylabel="share of milestones and targets met",
        title=_plain(f"Run-time distributions: {data['ruleset']['name']}, {board['tuning']} tuning"),
    )
    return figure


def _times(data: Data, board: Data) -> Any:
    """Submissions x workloads, shaded by the ratio to the best."""
    rows = {(row["submission"], row["workload"]): row for row in board["times"]}
    names, workloads = board["submissions"], [entry["name"] for entry in board["workloads"]]
    figure = _figure(3.0 + 0.95 * len(workloads), 1.8 + 0.34 * len(names))
    axes = figure.add_subplot()
    shades = [[_shade(rows[name, w], data["tau_max"]) for w in workloads] for name in names]
    axes.imshow(shades, cmap="GnBu_r", vmin=-0.6, vmax=1.0, aspect="auto")
    for i, name in enumerate(names):
        for j, workload in enumerate(workloads):
            row = rows[name, workload]
            value = row[data["clock"]]
            text = "never" if value is None else tables.number(value)
            text = text if value is None or row["earns"] else f"({text})"
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color="#666666" if value is None else "#000000")
    held_out = [entry["name"] != entry["base"] for entry in board["workloads"]]
    labels = [_plain(name) for name in workloads]
    axes.set_xticks(range(len(workloads)), labels, rotation=30, ha="right")
    for label, variant in zip(axes.get_xticklabels(), held_out, strict=True):
        label.set_style("italic" if variant else "normal")
    axes.set_yticks(range(len(names)), [_plain(name) for name in names])
    kind = "; held-out variants in italics" if any(held_out) else ""
    axes.set_title(f"{data['clock']} to target; (…) earns nothing{kind}", fontsize=10)
    return figure


def _shade(row: Data, tau_max: float) -> float:
    """0 at the best, 1 at the ratio that earns nothing, NaN (no shade) where nothing is earned."""
    if row["ratio"] is None or not row["earns"]:
        return math.nan
    return min(1.0, math.log(max(row["ratio"], 1.0)) / math.log(tau_max))


def _panels(titles: Sequence[str], board: Data) -> tuple[Any, list[Any]]:
    """A figure of one panel for each title, and a legend of the submissions below."""
    columns = min(3, len(titles))
    rows = math.ceil(len(titles) / columns)
    figure = _figure(4.2 * columns, 2.9 * rows + 0.6)
    panels: list[Any] = []
    for i, title in enumerate(titles):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.set_title(_plain(title), fontsize=10)
        axes.tick_params(labelsize=8)
        panels.append(axes)
    from matplotlib.lines import Line2D

    keys = [
        Line2D([], [], color=_colour(s), linestyle=STYLES[s % len(STYLES)], marker=MARKERS[s % len(MARKERS)])
        for s in range(len(board["submissions"]))
    ]
    names = [_plain(name) for name in board["submissions"]]
    figure.legend(keys, names, loc="outside lower center", ncols=min(4, len(names)), fontsize=8, frameon=False)
    return figure, panels


def _curves(data: Data, board: Data) -> Any:
    figure, panels = _panels([chart["workload"] for chart in board["curves"]], board)
    for chart, axes in zip(board["curves"], panels, strict=True):
        for s in range(len(board["submissions"])):
            mine = [trial for trial in chart["trials"] if trial["s"] == s]
            best = [trial for trial in mine if trial["best"]]
            thin = [trial for trial in mine if not trial["best"]]
            axes.plot(*_line(thin), color=_colour(s), linewidth=0.5, alpha=0.25)
            axes.plot(*_line(best), STYLES[s % len(STYLES)], color=_colour(s), linewidth=1.8, zorder=3)
            for trial in best:
                if trial["crossing"] is not None:
                    axes.plot(*trial["crossing"], MARKERS[s % len(MARKERS)], color=_colour(s), zorder=4)
        if chart["target"] is not None:
            axes.axhline(chart["target"], color="#000000", linestyle="--", linewidth=1.0)
            axes.set_ylim(chart["range"])
        axes.set_xlabel(f"charged {data['clock']}", fontsize=8)
        axes.set_ylabel(_plain(chart["metric"] or ""), fontsize=8)
    return figure


def _line(trials: Sequence[Data]) -> list[list[float]]:
    """Charges and values of several curves, as one with gaps."""
    return [[math.nan if x is None else x for trial in trials for x in (*trial[axis], None)] for axis in "xy"]


def _tuning(data: Data, board: Data) -> Any:
    """All workloads together, so heights are shares of the budget."""
    tuning = board["tuning_points"]
    figure, panels = _panels(tuning["names"], board)
    budgets = [chart["budget"] for chart in board["curves"]]
    for h, axes in enumerate(panels):
        numeric = all(isinstance(point["values"][h], int | float | None) for point in tuning["points"])
        for s in range(len(board["submissions"])):
            shown = [
                (value if numeric else str(value), point["charge"] / budgets[point["w"]])
                for point in tuning["points"]
                if point["s"] == s and point["charge"] is not None and (value := point["values"][h]) is not None
            ]
            if shown:
                axes.scatter(
                    *zip(*shown, strict=True), s=10, marker=MARKERS[s % len(MARKERS)], color=_colour(s), alpha=0.6
                )
        if tuning["log"][h]:
            axes.set_xscale("log")
        axes.set_ylabel(f"{data['clock']} to target / budget", fontsize=8)
    return figure


def _separation(_: Data, board: Data) -> Any:
    separation = board["separation"]
    names = separation["submissions"]
    figure = _figure(3.0 + 0.6 * len(names), 1.5 + 0.4 * len(names))
    axes = figure.add_subplot()
    faster = separation["faster"]
    n = len(names)
    shades = [[int(faster[i][j]) - int(faster[j][i]) if i != j else 0 for j in range(n)] for i in range(n)]
    axes.imshow(shades, cmap="PuOr_r", vmin=-2, vmax=2, aspect="auto")
    for i in range(n):
        for j in range(n):
            word = {1: "faster", -1: "slower", 0: "tied"}[shades[i][j]]
            if i != j:
                text = f"{word}\np {separation['p_value'][i][j]:.3f}"
                axes.text(j, i, text, ha="center", va="center", fontsize=7)
    axes.set_xticks(range(n), [str(i + 1) for i in range(n)])
    axes.set_yticks(range(n), [_plain(f"{i + 1} {name}") for i, name in enumerate(names)])
    axes.set_title("Is the row faster than the column?", fontsize=10)
    return figure


_DRAW = {
    "leaderboard": _leaderboard,
    "ecdf": _ecdf,
    "times": _times,
    "curves": _curves,
    "tuning": _tuning,
    "separation": _separation,
}
