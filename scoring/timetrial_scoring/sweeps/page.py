"""The report of a sweep: its summary in words and numbers, and its figures, as one HTML page."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from timetrial_scoring.report.markup import Html, join, tag
from timetrial_scoring.sweeps.figures import Figure
from timetrial_scoring.sweeps.load import Results
from timetrial_scoring.sweeps.numbers import Progress, gain_by_budget, gain_by_schedule, many_or_one, quartiles, ranks


def summary(results: Results, found: Progress) -> list[str]:
    """What the sweep shows, a line each; percent are of the way from the untrained model to the best result."""
    about, tuned = results.about, results.budgets[-1]
    diverged = float(np.mean([outcome.diverged for outcome in results.trials.values()]))
    seeds = f"seeds {', '.join(map(str, results.seeds))}"
    lines = [
        f"{results.name}: {about['configurations']:,} configurations, {about['trials']:,} trials, "
        f"{about['training_seconds'] / 3600:.2f} h of training. Points were chosen by validation on seed 0; what "
        f"follows is the test metric at the best validation, on {seeds}.",
        f"Diverged: {_percent(diverged)} of all trials.",
    ]
    gain_opb = gain_by_budget(found)
    for b, budget in list(enumerate(results.budgets))[1:]:
        lines.append(f"{budget} trials instead of {results.least} gain {_quartiles(gain_opb[:, :, b])}.")
    gain_ops = gain_by_schedule(found, -1)
    for s, schedule in list(enumerate(results.schedules))[1:]:
        lines.append(f"Schedule {schedule} instead of {results.schedules[0]} gains {_quartiles(gain_ops[:, :, s])}.")
    instead = many_or_one(results, found)
    tuned_o = instead.tuned_o
    lines.append(
        f"The best of {len(results.optimizers)} untuned optimizers, chosen by validation, comes to "
        f"{_percent(instead.of_untuned)}; one optimizer tuned with {tuned} trials to "
        f"{_percent(float(np.median(tuned_o)))} "
        f"(median; from {_percent(float(tuned_o.min()))} to {_percent(float(tuned_o.max()))})."
    )
    overall = ranks(found.tuned_opr().mean(axis=-1))
    order = np.argsort(-overall.mean_o, kind="stable")
    listed = ", ".join(f"{results.optimizers[o]} {_percent(float(overall.mean_o[o]))}" for o in order)
    lines.append(f"Tuned with {tuned} trials, mean over problems: {listed}.")
    lines.append(f"Were the problems others of their kind, {_separated(overall.rank_o2, len(order))}.")
    first_p = found.tuned_opr().mean(axis=-1).argmax(axis=0)
    winners = sorted({results.optimizers[o] for o in first_p})
    lines.append(f"First on some problem: {', '.join(winners)}.")
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _quartiles(gains: np.ndarray) -> str:
    low, middle, high = (round(100 * value, 1) + 0.0 for value in quartiles(gains))  # and no -0.0
    return f"{middle} points (median over optimizers and problems; quartiles {low} to {high})"


def _separated(rank_o2: np.ndarray, optimizers: int) -> str:
    sure = int(np.sum((rank_o2[:, 0] > 1) | (rank_o2[:, 1] < optimizers)))
    return "no optimizer's rank is known at 95 %" if sure == 0 else f"{sure} optimizers' ranks are bounded at 95 %"


def render_page(results: Results, found: Progress, drawn: Sequence[Figure], folder: Path) -> str:
    """The whole file; the pictures are those that `write_figures` left in `folder`."""
    style = files("timetrial_scoring.report").joinpath("report.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{results.name}: timetrial sweep"),
        tag("style", Html(style + "figure svg { max-width: 100%; height: auto; background: #fff; }")),
    )
    sections = [
        tag(
            "section",
            tag(
                "figure",
                tag("figcaption", tag("h2", figure.title), tag("p", figure.text)),
                _picture(folder / f"{figure.name}.svg"),
            ),
        )
        for figure in drawn
    ]
    body = tag(
        "body",
        tag(
            "header",
            tag("p", "timetrial sweep", class_="brand"),
            tag("h1", results.name),
            tag("p", results.description, class_="sub"),
        ),
        tag(
            "main",
            tag("section", tag("h2", "Summary"), tag("ul", *(tag("li", line) for line in summary(results, found)))),
            tag("section", tag("h2", "Every optimizer, tuned and not"), _overview(results, found)),
            join(sections),
        ),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _picture(path: Path) -> Html:
    """An SVG file's drawing, without what a file of its own has before it."""
    text = path.read_text(encoding="utf-8")
    return Html(text[text.index("<svg") :])


def _overview(results: Results, found: Progress) -> Html:
    """A line an optimizer: mean percent over problems of each budget, and of the last budget with each schedule."""
    shares_obs = found.shares_opbsr.mean(axis=(1, 4))
    order = np.argsort(-shares_obs[:, -1, 0], kind="stable")
    names = [f"{budget} trials" for budget in results.budgets] + [f"… {schedule}" for schedule in results.schedules[1:]]
    rows = [
        tag(
            "tr",
            tag("th", results.optimizers[o], scope="row"),
            *(tag("td", f"{100 * value:.1f}") for value in (*shares_obs[o, :, 0], *shares_obs[o, -1, 1:])),
        )
        for o in order
    ]
    return tag("table", tag("tr", tag("th", ""), *(tag("th", name, scope="col") for name in names)), *rows)
