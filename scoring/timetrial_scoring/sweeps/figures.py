"""The figures of a sweep: each a table (CSV), and a drawing of it (PNG and SVG)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from timetrial_scoring.figure import COLOURS
from timetrial_scoring.render import to_csv
from timetrial_scoring.sweeps.load import Results
from timetrial_scoring.sweeps.numbers import (
    Floats,
    Progress,
    Ranks,
    gain_by_budget,
    gain_by_schedule,
    improvement,
    quartiles,
    ranks,
    sensitivity,
)

Table = list[dict[str, Any]]


class Figure(NamedTuple):
    name: str
    title: str
    text: str
    """What it shows and how to read it."""
    table: Table
    draw: Callable[[], Any]
    """Makes the matplotlib figure."""


def figures(results: Results, found: Progress) -> list[Figure]:
    """All figures that a sweep has."""
    tuned, first = results.budgets[-1], results.schedules[0]
    by_problem = {p.name: ranks(found.tuned_opr()[:, i]) for i, p in enumerate(results.problems)}
    return [
        Figure(
            "improvement",
            "Improvement by tuning",
            f"What is gained by going from an untuned optimizer (row: {results.least}) to a tuned one (column, {tuned} "
            f"trials), schedule {first}, in percent of the way to the best result; the mean over problems.",
            _improvement_table(results, found),
            lambda: _heat_map(results.optimizers, results.optimizers, 100 * improvement(found).mean(axis=-1)),
        ),
        Figure(
            "budgets",
            "Gain by tuning budget",
            f"Percent of the way gained over {results.least}, schedule {first}: quartiles over problems, by optimizer.",
            _gain_table(results, "budget", results.budgets, gain_by_budget(found)),
            lambda: _gains(results.optimizers, [str(b) for b in results.budgets], gain_by_budget(found), "trials"),
        ),
        Figure(
            "schedules",
            "Gain by schedule",
            f"Percent of the way gained over schedule {first}, tuned with {tuned} trials: quartiles over problems, by "
            "optimizer.",
            _gain_table(results, "schedule", results.schedules, gain_by_schedule(found, -1)),
            lambda: _gains(results.optimizers, results.schedules, gain_by_schedule(found, -1), "schedule"),
        ),
        Figure(
            "parallel",
            "Every optimizer on every problem",
            f"Percent of the way to the best result: tuned with {tuned} trials, schedule {first}. Lines that cross are "
            "optimizers that win on different problems.",
            _parallel_table(results, found),
            lambda: _parallel(results, 100 * found.tuned_opr().mean(axis=-1)),
        ),
        Figure(
            "learning_rate",
            "Sensitivity to the learning rate",
            f"Every tuning trial with schedule {first}: how far it came by validation, against its learning rate. "
            "Other hyperparameters vary along. A cross is a trial that diverged.",
            _sensitivity_table(results),
            lambda: _sensitivities(results),
        ),
        Figure(
            "ranks",
            "Ranks on each problem",
            f"Tuned with {tuned} trials, schedule {first}: the ranks that reruns of the chosen points leave open "
            "(paired t tests over seeds, Holm's correction over all pairs of a problem, 95 %). The luck of the draw of "
            "points is not in them.",
            _rank_table(results, by_problem),
            lambda: _ranks(results, by_problem),
        ),
    ]


def write_figures(drawn: Sequence[Figure], folder: Path) -> None:
    """Writes `folder`/NAME.csv, .png and .svg."""
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    for figure in drawn:
        stem = folder / figure.name
        stem.with_suffix(".csv").write_text(to_csv(figure.table), encoding="utf-8")
        picture = figure.draw()
        with rc_context({"svg.hashsalt": figure.name}):  # the same results give the same file
            picture.savefig(stem.with_suffix(".png"), dpi=120)
            picture.savefig(stem.with_suffix(".svg"), metadata={"Date": None})


def _improvement_table(results: Results, found: Progress) -> Table:
    gained = improvement(found)
    return [
        {"problem": problem.name, "untuned": row, "tuned": column, "gain": gained[i, j, p]}
        for p, problem in enumerate(results.problems)
        for i, row in enumerate(results.optimizers)
        for j, column in enumerate(results.optimizers)
    ]


def _gain_table(results: Results, kind: str, names: Sequence[Any], gains_opn: Floats) -> Table:
    return [
        {"optimizer": optimizer, "problem": problem.name, kind: name, "gain": gains_opn[o, p, n]}
        for o, optimizer in enumerate(results.optimizers)
        for p, problem in enumerate(results.problems)
        for n, name in enumerate(names)
    ]


def _parallel_table(results: Results, found: Progress) -> Table:
    shares_op = found.tuned_opr().mean(axis=-1)
    return [
        {"optimizer": optimizer, **{problem.name: shares_op[o, p] for p, problem in enumerate(results.problems)}}
        for o, optimizer in enumerate(results.optimizers)
    ]


def _sensitivity_table(results: Results) -> Table:
    return [
        {
            "optimizer": optimizer,
            "problem": problem.name,
            "learning_rate": rate,
            "share": held.share_pn[p, n],
            "diverged": bool(held.diverged_pn[p, n]),
        }
        for optimizer, held in sensitivity(results).items()
        for p, problem in enumerate(results.problems)
        for n, rate in enumerate(held.rate_n)
    ]


def _rank_table(results: Results, by_problem: Mapping[str, Ranks]) -> Table:
    return [
        {
            "problem": problem,
            "optimizer": optimizer,
            "share": held.mean_o[o],
            "rank_low": int(held.rank_o2[o, 0]),
            "rank_high": int(held.rank_o2[o, 1]),
        }
        for problem, held in by_problem.items()
        for o, optimizer in enumerate(results.optimizers)
    ]


# The drawings.


def _canvas(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Picture

    picture: Any = Picture(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(picture)
    return picture, picture.subplots(rows, columns, squeeze=False, **options)


def _heat_map(rows: Sequence[str], columns: Sequence[str], values: Floats) -> Any:
    picture, ((axes,),) = _canvas(3.0 + 0.5 * len(columns), 2.0 + 0.4 * len(rows))
    most = max(1e-9, float(np.abs(values).max()))
    axes.imshow(values, cmap="RdBu", vmin=-most, vmax=most, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel="tuned", ylabel="untuned")
    for i, j in np.ndindex(*values.shape):
        dark = abs(values[i, j]) > 0.6 * most
        axes.text(
            j, i, f"{round(float(values[i, j]))}", ha="center", va="center", color="w" if dark else "k", fontsize=7
        )
    return picture


def _gains(optimizers: Sequence[str], names: Sequence[str], gains_opn: Floats, what: str) -> Any:
    """A point an optimizer and name, its median over problems, with the quartiles; the first name has no gain."""
    picture, ((axes,),) = _canvas(9.0, 4.5)
    shown = range(1, len(names))
    width = 0.8 / max(1, len(shown))
    for k, n in enumerate(shown):
        held = np.array([quartiles(100 * gains_opn[o, :, n]) for o in range(len(optimizers))])
        x = np.arange(len(optimizers)) + (k - (len(shown) - 1) / 2) * width
        spread = np.abs(held[:, [0, 2]] - held[:, [1]]).T
        axes.errorbar(x, held[:, 1], spread, fmt="o", color=COLOURS[k % len(COLOURS)], label=f"{what} {names[n]}")
    axes.axhline(0.0, color="0.5", linewidth=0.8)
    axes.set_xticks(range(len(optimizers)), optimizers, rotation=45, ha="right")
    axes.set_ylabel("percent of the way")
    if shown:
        axes.legend(frameon=False, fontsize="small")
    return picture


def _parallel(results: Results, shares_op: Floats) -> Any:
    picture, ((axes,),) = _canvas(9.0, 5.0)
    for o, optimizer in enumerate(results.optimizers):
        style = ("-", "--", ":")[o // len(COLOURS) % 3]
        axes.plot(shares_op[o], style, marker="o", markersize=3, color=COLOURS[o % len(COLOURS)], label=optimizer)
    axes.set_xticks(
        range(len(results.problems)), [problem.name for problem in results.problems], rotation=30, ha="right"
    )
    axes.set_ylabel("percent of the way")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
    return picture


def _sensitivities(results: Results) -> Any:
    held = sensitivity(results)
    columns = min(5, len(held))
    rows = -(-len(held) // columns)
    picture, panels = _canvas(2.6 * columns + 1.5, 2.2 * rows + 0.5, rows, columns, sharex=True, sharey=True)
    for axes in panels.flat[len(held) :]:
        axes.set_axis_off()
    for axes, (optimizer, each) in zip(panels.flat, held.items(), strict=False):
        for p, problem in enumerate(results.problems):
            colour, marker, fine = COLOURS[p % len(COLOURS)], "o^s"[p // len(COLOURS) % 3], ~each.diverged_pn[p]
            label = problem.name if axes is panels.flat[0] else None
            axes.plot(each.rate_n[fine], 100 * each.share_pn[p, fine], marker, markersize=3, color=colour, label=label)
            axes.plot(each.rate_n[~fine], 100 * each.share_pn[p, ~fine], "x", markersize=4, color=colour)
        axes.set(xscale="log", title=optimizer)
    picture.supxlabel("learning rate")
    picture.supylabel("percent of the way")
    picture.legend(loc="outside right upper", fontsize="small", frameon=False)
    return picture


def _ranks(results: Results, by_problem: Mapping[str, Ranks]) -> Any:
    columns = min(4, len(by_problem))
    rows = -(-len(by_problem) // columns)
    height = 1.0 + 0.2 * len(results.optimizers)
    picture, panels = _canvas(3.2 * columns + 1.0, height * rows, rows, columns, sharex=True)
    for axes in panels.flat[len(by_problem) :]:
        axes.set_axis_off()
    for axes, (problem, held) in zip(panels.flat, by_problem.items(), strict=False):
        order = np.argsort(-held.mean_o, kind="stable")
        for line, o in enumerate(order):
            axes.plot(held.rank_o2[o], [line, line], color=COLOURS[0], linewidth=4, alpha=0.4, solid_capstyle="round")
            axes.plot(line + 1, line, "o", markersize=3, color=COLOURS[0])
        axes.set_yticks(range(len(order)), [results.optimizers[o] for o in order], fontsize=7)
        axes.invert_yaxis()
        axes.set(title=problem, xlabel="rank")
    return picture
