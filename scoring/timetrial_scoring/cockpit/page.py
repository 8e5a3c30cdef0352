"""The cockpit's page: three columns of gauges, hyperparameters and performance below, and what they say above."""

from collections.abc import Mapping, Sequence
from importlib.resources import files

import numpy as np

from timetrial_scoring.cockpit.drawing import Series, heat_map, line_chart
from timetrial_scoring.cockpit.gauges import COLUMNS, Gauge, Heat, Panel, hyperparameters, performance
from timetrial_scoring.cockpit.hints import hints
from timetrial_scoring.cockpit.run import Run
from timetrial_scoring.report.markup import Html, tag

_REFRESH_SECONDS = 5
_LIGHTEST, _DARKEST = -6.0, -1.0
"""Powers of ten between which a heat map of ratios shades."""


def render_page(runs: Sequence[Run], *, live: bool = False) -> str:
    """The whole file for one or two runs. Nothing is fetched and nothing runs; `live` makes it load itself anew."""
    style = files("timetrial_scoring.report").joinpath("report.css").read_text(encoding="utf-8") + style_sheet()
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'"),
        tag("meta", http_equiv="refresh", content=_REFRESH_SECONDS) if live else None,
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{' and '.join(run.title for run in runs)}: timetrial cockpit"),
        tag("style", Html(style)),
    )
    body = tag(
        "body",
        tag("header", tag("p", "timetrial cockpit", class_="brand"), *(_heading(i, run) for i, run in enumerate(runs))),
        tag("main", *sections(runs)),
        class_="cockpit",
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def style_sheet() -> str:
    """What the sections need beside the style sheet of reports."""
    return files("timetrial_scoring.cockpit").joinpath("cockpit.css").read_text(encoding="utf-8")


def sections(runs: Sequence[Run]) -> list[Html]:
    """What the gauges say, the gauges, and what is not there, of one or two runs."""
    columns = [_column(title, panel, runs) for title, panel in COLUMNS.items()]
    below = [
        _column("Hyperparameters", hyperparameters(runs), runs, tag("div", *map(_hparams, runs))),
        _column("Performance", performance(runs), runs),
    ]
    said = [_said(i, run) for i, run in enumerate(runs)]
    return [
        tag("section", tag("h2", "What the gauges say"), *said, class_="hints"),
        tag("section", *columns, class_="columns"),
        tag("section", *below, class_="below"),
        tag("section", tag("h2", "What is not there"), *map(_absent, runs)),
    ]


def _heading(number: int, run: Run) -> Html:
    log, end = run.log.headers[-1], run.record.end
    cost = sum(look.wall_seconds for look in run.looks)
    last = run.looks[-1] if run.looks else None
    seen = "no look yet" if last is None else f"step {last.step:,}, {len(run.looks):,} looks that took {cost:.1f} s"
    rows = f", probe batches of {log.probe_rows}" if log.probe_rows else ""
    state = "training" if end is None else f"{end.status}: {end.message}"
    return tag(
        "div",
        tag("h1", tag("span", "", class_=f"swatch run{number}"), run.title),
        tag("p", tag("code", str(run.record.path.parent))),
        tag(
            "p", f"{state}. {seen}. Set {log.set}, every {log.every}; batches of {log.batch_size}{rows}.", class_="sub"
        ),
    )


def _said(number: int, run: Run) -> Html:
    found = hints(run)
    items = [tag("li", tag("b", hint.says), tag("small", f" {hint.because}")) for hint in found]
    if not items:
        items = [tag("li", "Nothing stands out.", class_="none")]
    return tag("div", tag("h3", run.title), tag("ul", *items), class_=f"said run{number}")


def _column(title: str, panel: Panel, runs: Sequence[Run], *more: Html) -> Html:
    cards = [card for gauge in panel if (card := _card(gauge, runs)) is not None]
    if not cards and not more:
        cards = [tag("p", "No instrument of this kind looked.", class_="none")]
    return tag("div", tag("h2", title), *more, tag("div", *cards, class_="cards"), class_="column")


def _card(gauge: Gauge | Heat, runs: Sequence[Run]) -> Html | None:
    """None where no run has what the gauge shows."""
    if isinstance(gauge, Heat):
        pictures = [picture for run in runs if (picture := _heat(gauge, run)) is not None]
    else:
        found = [series for i, run in enumerate(runs) for series in _series(gauge, i, run)]
        pictures = []
        if found:
            chart = line_chart(found, label=gauge.title, log=gauge.log, rules=gauge.rules, within=gauge.within)
            pictures.append(chart)
    if not pictures:
        return None
    key = tag("p", *(tag("span", name, class_=f"key dash{d}") for d, name in enumerate(gauge.names))) if (
        isinstance(gauge, Gauge) and len(gauge.names) > 1
    ) else None  # fmt: skip
    return tag(
        "figure", tag("figcaption", tag("h3", gauge.title), tag("p", gauge.reads)), *pictures, key, class_="card"
    )


def _series(gauge: Gauge, number: int, run: Run) -> list[Series]:
    """What a gauge draws of a run; nothing where all of it is missing."""
    found: list[Series] = []
    for dash, name in enumerate(gauge.names):
        x, y = run.metric(name) if "/" in name else (run.steps, run.values(name))
        if np.isfinite(y).any():
            found.append(Series(f"{run.title}\n{name}", number, dash, x, y))
    return found


def _heat(gauge: Heat, run: Run) -> Html | None:
    label = f"{gauge.title}, {run.title}"
    if gauge.name == "update_ratio":
        size, norm = run.by_array("update_size"), run.by_array("param_norm")
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.log10(np.where(norm > 0, size / norm, np.nan))
        shade = np.clip((ratio - _LIGHTEST) / (_DARKEST - _LIGHTEST), 0.1, 0.99)
        return heat_map(shade, run.steps, run.arrays, label=label) if len(shade) else None
    x, counts = run.histograms(gauge.name)
    if not len(x):
        return None
    if gauge.name.endswith("_2d"):
        share = np.sqrt(counts[-1] / max(1.0, counts[-1].max()))
        names = _bins(range(-8, 3))
        return heat_map(share, np.arange(len(share)), names, label=label, ends=("≤ -10", "≥ 10"))
    share = np.sqrt(counts / np.maximum(1.0, counts.max(axis=1, keepdims=True)))
    return heat_map(share, x, _bins([k / 2 for k in range(-16, 5)]), label=label)


def _bins(powers: Sequence[float] | range) -> list[str]:
    """Names of the bins between the mirrored edges, by the edge nearer to 0."""
    edges = [f"{10.0**k:.0e}".replace("e-0", "e-").replace("e+0", "e") for k in powers]
    return [f"-{edge}" for edge in reversed(edges)] + ["0"] + edges


def _hparams(run: Run) -> Html:
    rows: Mapping[str, object] = run.record.run.hparams
    cells = [
        tag("tr", tag("th", name), tag("td", f"{value:.6g}" if isinstance(value, float) else str(value)))
        for name, value in rows.items()
    ]
    return tag("table", tag("caption", run.title), *cells, class_="facts")


def _absent(run: Run) -> Html:
    absent = run.log.headers[-1].absent
    items = [tag("li", tag("b", name), f": {why}") for name, why in sorted(absent.items())]
    if not items:
        items = [tag("li", "Everything that the set holds is there.", class_="none")]
    return tag("div", tag("h3", run.title), tag("ul", *items))
