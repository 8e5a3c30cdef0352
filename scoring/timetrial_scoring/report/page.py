"""The page: tables as HTML, places for the charts that report.js draws, and the data inside."""

import base64
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from timetrial_scoring.report.markup import Html, breakable, join, tag
from timetrial_scoring.tables import number

Board = Mapping[str, Any]
_TUNING = {"external": "External tuning", "self": "Self-tuning"}
_CLOCK = {"seconds": "time", "steps": "steps", "examples": "examples"}
_NO_CLAIM = Html('<span class="none">no claim</span>')
_OPEN = 8
"""Findings of a kind that are listed before one has to ask for more."""


def render_page(data: Mapping[str, Any]) -> str:
    """The whole file. Nothing in it is fetched, and a content policy lets no script run but our own."""
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    title = f"{data['ruleset']['name']}: timetrial report"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(style)),
    )
    body = tag(
        "body",
        _header(data),
        tag("main", *(_board(data, b) for b in range(len(data["boards"]))), _findings(data), _environment(data)),
        tag("div", id="tip", role="status", hidden=True),
        tag("script", Html(_embedded(data)), type="application/json", id="data"),
        tag("script", Html(script)),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON without a character that HTML could take for markup."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _header(data: Mapping[str, Any]) -> Html:
    links = [tag("a", _TUNING[board["tuning"]], href=f"#{board['tuning']}") for board in data["boards"]]
    links += [tag("a", "Findings", href="#findings"), tag("a", "Environment", href="#environment")]
    rules = data["ruleset"]
    changed = ", changed" if rules["modified"] else ""
    return tag(
        "header",
        tag("p", "timetrial report", class_="brand"),
        tag("h1", breakable(rules["name"])),
        tag(
            "p", f"Version {rules['version']}{changed} · charged in {data['clock']} · {data['mode']} mode", class_="sub"
        ),
        tag("nav", *links, aria_label="Sections"),
        tag("button", "◐ Light or dark", type="button", id="theme", class_="quiet"),
        tag(
            "noscript", tag("p", "The charts need JavaScript; the tables, and the CSV files beside this page, do not.")
        ),
    )


def _board(data: Mapping[str, Any], b: int) -> Html:
    board: Board = data["boards"][b]
    clock, unit = data["clock"], data["unit"]
    tuning = board["tuning_points"]
    studies = "one study" if board["studies"] == 1 else f"{board['studies']} studies"
    counts = f"{len(board['submissions'])} submissions, {len(board['workloads'])} workloads, {studies}"
    efficiency = "" if clock == "seconds" else " This is data efficiency, not time." if clock == "examples" else ""
    sections = [
        _figure("Leaderboard", "", _leaderboard(board), board["notes"]),
        _figure(
            "Performance profiles",
            f"The share of base workloads on which a submission needs at most τ times the {clock} of the best. "
            "The area under a profile is the score. Curves of equal height are drawn a hair apart.",
            _chart("profiles", b, "Performance profiles: share of workloads against the ratio to the best"),
        ),
        _figure(
            f"{_CLOCK[clock].capitalize()} to target",
            f"In {unit}, median over studies. Shaded by the ratio to the best of the workload, ★. "
            "In parentheses: reached, but earns nothing (over 4 × the best, or base or held-out variant not reached).",
            _times(data, board),
        ),
        _figure(
            "What the data separate",
            "Row against column: paired tests over workloads and studies, corrected over all pairs "
            f"(family-wise error {data['level']:.0%}). A p-value shows when a cell is pointed at.",
            _separation(data, board),
        ),
        _figure(
            "Training curves",
            "Validation metric against the charged clock. Thin: every trial of every study; bold: the trial whose time "
            "stands on the board, or the one that came nearest; the marker is where it crossed the dashed target.",
            _curves(board, b, clock),
        ),
        _figure(
            "Tuning",
            "One point a trial, for each hyperparameter that varied. Log axes where values span a factor of ten.",
            _tuning(board, b, clock),
        )
        if tuning["names"]
        else _figure("Tuning", "", tag("p", "No submission varied a hyperparameter.", class_="note")),
    ]
    if board["flips"]:
        flips = tag("ul", *(tag("li", flip) for flip in board["flips"]))
        folded = tag("details", tag("summary", f"{len(board['flips'])} orders depend on one entry"), flips)
        sections.append(_figure("What turns around when one workload or submission is left out", "", folded))
    return tag(
        "section",
        tag("h2", _TUNING[board["tuning"]]),
        tag("p", f"{counts}.{efficiency}", class_="sub"),
        _legend(board),
        *sections,
        class_="board",
        id=board["tuning"],
        data_b=b,
    )


def _figure(title: str, text: str, body: Html, notes: Sequence[str] = ()) -> Html:
    return tag(
        "figure",
        tag("figcaption", tag("h3", title), tag("p", text) if text else None),
        body,
        tag("ul", *(tag("li", note) for note in notes), class_="notes") if notes else None,
    )


def _chart(kind: str, b: int, label: str, **attributes: str | int) -> Html:
    return tag("div", class_=f"plot {kind}", data_chart=kind, data_board=b, data_label=label, **attributes)


def _legend(board: Board) -> Html:
    keys = [
        tag(
            "button",
            tag("svg", class_="swatch", data_s=s),
            name,
            type="button",
            class_="key",
            aria_pressed="true",
            data_s=s,
        )
        for s, name in enumerate(board["submissions"])
    ]
    every = tag("button", "All", type="button", class_="quiet every", aria_label="Show all submissions, or none")
    return tag("div", every, *keys, class_="legend", role="group", aria_label="Show or hide submissions")


def _scroll(table: Html, label: str) -> Html:
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=label)


def _leaderboard(board: Board) -> Html:
    lines: Sequence[Mapping[str, Any]] = board["leaderboard"]
    columns: dict[str, list[Html | str]] = {
        "rank": [_or_dash(line["rank"]) for line in lines],
        "submission": [breakable(line["submission"]) for line in lines],
        "score": ["–" if line["score"] is None else f"{line['score']:.4f}" for line in lines],
        "0 to 1": [_bar(line) for line in lines],
        "95 % interval": [_interval(line["score_ci"], 3) for line in lines],
        "ranks": [_interval(line["rank_ci"], 0) for line in lines],
        "P(first)": [_NO_CLAIM if line["p_first"] is None else f"{line['p_first']:.2f}" for line in lines],
        "eval grid": [_interval(line["eval_grid"], 3) for line in lines],
    }
    if any(line["anchored"] is not None for line in lines):
        columns["anchored score"] = ["–" if line["anchored"] is None else f"{line['anchored']:.4f}" for line in lines]
    if board["reference"] is not None:
        columns[f"speed-up on {board['reference']}"] = [_speedup(line) for line in lines]
        columns["95 % interval of it"] = [_interval(line["speedup_ci"], 2) for line in lines]
    head = tag("tr", *(tag("th", name, scope="col", class_=_class(name)) for name in columns))
    rows = [tag("tr", *(_cell(name, cells[i]) for name, cells in columns.items()), data_s=i) for i in range(len(lines))]
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="leaderboard")
    return _scroll(table, "Leaderboard")


def _class(column: str) -> str | None:
    return {"submission": "name", "0 to 1": "bar"}.get(column)


def _cell(column: str, content: str) -> Html:
    if column == "submission":
        return tag("th", content, scope="row", class_="name")
    return tag("td", content, class_=_class(column))


def _or_dash(value: int | None) -> str:
    return "–" if value is None else str(value)


def _interval(interval: Sequence[float] | None, digits: int) -> str:
    if interval is None:
        return _NO_CLAIM
    low, high = (f"{end:.{digits}f}" for end in interval)
    return low if low == high else f"{low} – {high}"


def _speedup(line: Mapping[str, Any]) -> str:
    speedup = line["speedup"]
    if speedup is None:
        return "–"
    return f"{speedup['factor']:.2f} × ({speedup['workloads']})"


def _bar(line: Mapping[str, Any]) -> Html:
    """The score on a line from 0 to 1, and its interval where one is claimed."""
    if line["score"] is None:
        return Html("")
    interval = line["score_ci"]
    whisker = (
        None
        if interval is None
        else tag("i", class_="whisker", style=f"left:{interval[0]:.2%};width:{interval[1] - interval[0]:.2%}")
    )
    dot = tag("i", class_="dot", style=f"left:{line['score']:.2%}")
    return tag("div", whisker, dot, class_="track", aria_hidden="true")


def _families(board: Board) -> list[tuple[str, list[str]]]:
    """Base workloads, each with its held-out variants."""
    bases = [entry["name"] for entry in board["workloads"] if entry["name"] == entry["base"]]
    return [(base, [entry["name"] for entry in board["workloads"] if entry["base"] == base]) for base in bases]


def _times(data: Mapping[str, Any], board: Board) -> Html:
    clock = data["clock"]
    by_cell = {(row["submission"], row["workload"]): row for row in board["times"]}
    families = _families(board)
    has_variants = any(len(names) > 1 for _, names in families)
    top = [
        tag("th", breakable(base), colspan=len(names), scope="colgroup" if has_variants else "col", class_="base")
        for base, names in families
    ]
    head = [tag("tr", tag("th", "submission", scope="col", class_="name", rowspan=2 if has_variants else None), *top)]
    if has_variants:
        kinds = [
            tag("th", "base", scope="col", class_="base")
            if name == base
            else tag(
                "th", "held out", tag("br"), tag("b", breakable(_short(name, base))), scope="col", class_="variant"
            )
            for base, names in families
            for name in names
        ]
        head.append(tag("tr", *kinds))
    rows = [
        tag(
            "tr",
            tag("th", breakable(name), scope="row", class_="name"),
            *(
                _time(by_cell[name, workload], clock, data["tau_max"], "base" if workload == base else "variant")
                for base, names in families
                for workload in names
            ),
            data_s=s,
        )
        for s, name in enumerate(board["submissions"])
    ]
    table = tag("table", tag("thead", *head), tag("tbody", *rows), class_="heat")
    scale = tag("p", tag("span", class_="ramp"), f" the best … {data['tau_max']:g} × the best", class_="note")
    return join([_scroll(table, "Time to target"), scale])


def _short(variant: str, base: str) -> str:
    return variant.removeprefix(f"{base}_") or variant


def _time(row: Mapping[str, Any], clock: str, tau_max: float, kind: str) -> Html:
    value, ratio, spread = row[clock], row["ratio"], row["spread"]
    reached = f"{spread['reached']} of {spread['trials']} trials reached the target"
    tip = f"{row['submission']}\n{row['workload']}\n{reached}"
    if value is None:
        return tag("td", "never", class_=f"{kind} never", data_tip=tip)
    text = number(value)
    shade = 1.0 if ratio is None else min(1.0, math.log(max(ratio, 1.0)) / math.log(tau_max))
    tip += "" if ratio is None else f"\n{ratio:.3g} × the best"
    best = Html('<span class="best">★</span>') if ratio == 1.0 else None
    if not row["earns"]:
        return tag("td", f"({text})", best, class_=f"{kind} idle", data_tip=tip)
    return tag("td", text, best, class_=kind, style=f"--t:{shade:.3f}", data_tip=tip)


def _separation(data: Mapping[str, Any], board: Board) -> Html:
    separation = board["separation"]
    if separation is None:
        return tag("p", f"No claim: {board['reasons'].get('separation', 'no submission is ranked')}.", class_="note")
    names: Sequence[str] = separation["submissions"]
    numbers = [tag("th", str(i + 1), tag("span", f" {name}", class_="sr"), scope="col") for i, name in enumerate(names)]
    rows = [
        tag(
            "tr",
            tag("th", f"{i + 1}  ", breakable(name), scope="row", class_="name"),
            *(_pair(separation, i, j) for j in range(len(names))),
            data_s=board["submissions"].index(name),
        )
        for i, name in enumerate(names)
    ]
    head = tag("tr", tag("th", "row is …", scope="col", class_="name"), *numbers)
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="matrix")
    return _scroll(table, "Which pairs the data separate")


def _pair(separation: Mapping[str, Any], i: int, j: int) -> Html:
    if i == j:
        return tag("td", class_="self")
    names, p = separation["submissions"], separation["p_value"][i][j]
    kind, sign, verb = "tied", "tied", "is tied with"
    if separation["faster"][i][j]:
        kind, sign, verb = "faster", "▲ faster", "is faster than"
    elif separation["faster"][j][i]:
        kind, sign, verb = "slower", "▽ slower", "is slower than"
    value = f"p = {p:.4f}"
    tip = f"{names[i]}\n{verb} {names[j]}\n{value}"
    glyph, _, word = sign.partition(" ")
    text = [glyph, tag("span", f" {word}", class_="word")] if word else [sign]
    return tag("td", *text, tag("span", f", {value}", class_="sr"), class_=kind, data_tip=tip)


def _curves(board: Board, b: int, clock: str) -> Html:
    control = _choice(f"Charged {clock}", "scale", {"linear": "linear", "log": "log"})
    cards = (_curve(board, b, w) for w in range(len(board["workloads"])))
    return join([tag("div", control, class_="controls"), tag("div", *cards, class_="grid")])


def _choice(label: str, name: str, options: Mapping[str, str]) -> Html:
    chosen = (tag("option", text, value=value) for value, text in options.items())
    return tag("label", f"{label} ", tag("select", *chosen, class_=name))


def _curve(board: Board, b: int, w: int) -> Html:
    chart = board["curves"][w]
    base = board["workloads"][w]["base"]
    kind = "" if base == chart["workload"] else f" held-out variant of {base}"
    goal = (
        "no target"
        if chart["target"] is None
        else f"{chart['metric']} {'≤' if chart['better'] == 'lower' else '≥'} {chart['target']:g}"
    )
    title = tag("h4", breakable(chart["workload"]), tag("small", f" {goal}{',' if kind else ''}{kind}"))
    label = f"Training curves of {chart['workload']}, target {goal}"
    return tag("div", title, _chart("curves", b, label, data_w=w), class_="card")


def _tuning(board: Board, b: int, clock: str) -> Html:
    workloads = {str(w): entry["name"] for w, entry in enumerate(board["workloads"])}
    heights = {"charge": f"{_CLOCK[clock]} to target", "metric": "best value of the metric"}
    controls = tag(
        "div", _choice("Workload", "workload", workloads), _choice("Height", "height", heights), class_="controls"
    )
    charts = [
        tag("div", tag("h4", breakable(name)), _chart("tuning", b, f"Trials by {name}", data_h=h), class_="card")
        for h, name in enumerate(board["tuning_points"]["names"])
    ]
    return join([controls, tag("div", *charts, class_="grid small")])


def _findings(data: Mapping[str, Any]) -> Html:
    kinds: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for finding in data["findings"]:
        kinds[finding["kind"]].append(finding)
    groups = [
        tag(
            "details",
            tag("summary", f"{kind} ", tag("span", str(len(found)), class_="count")),
            tag("ul", *(_finding(finding) for finding in found)),
            open=len(found) <= _OPEN,
        )
        for kind, found in kinds.items()
    ]
    text = "Nothing is left out of a score without a line here." if groups else "None: the input is as prescribed."
    return tag("section", tag("h2", "Findings"), tag("p", text, class_="sub"), *groups, id="findings", class_="lists")


def _finding(finding: Mapping[str, Any]) -> Html:
    where = finding["file"]
    if where is not None and finding["line"] is not None:
        where = f"{where}:{finding['line']}"
    return tag("li", finding["message"], None if where is None else tag("code", where))


def _environment(data: Mapping[str, Any]) -> Html:
    tables = [
        tag(
            "div",
            tag("h3", title),
            tag(
                "table", *(tag("tr", tag("th", row[0], scope="row"), tag("td", row[1])) for row in rows), class_="facts"
            ),
        )
        for title, rows in data["environment"].items()
    ]
    return tag("section", tag("h2", "Environment"), *tables, id="environment", class_="lists")
