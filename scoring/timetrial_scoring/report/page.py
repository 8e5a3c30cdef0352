"""The page: tables as HTML, places for the charts that report.js draws, and the data inside."""

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from timetrial_scoring.cockpit.page import style_sheet
from timetrial_scoring.report.markup import TIMES, Html, breakable, counted, join, tag
from timetrial_scoring.report.page_tables import Board, leaderboard, sensitivity, separation, times

_TUNING = {"external": "External tuning", "self": "Self-tuning"}
_CLOCK = {"seconds": "time", "steps": "steps", "examples": "examples"}
_OPEN = 8
"""Findings of a kind that are listed before one has to ask for more."""


def render_page(data: Mapping[str, Any], cockpits: Html | None = None) -> str:
    """The whole file. Nothing in it is fetched, and a content policy lets no script run but our own."""
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    if cockpits is not None:
        style += style_sheet()
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
        _header(data, cockpits is not None),
        tag(
            "main",
            *(_board(data, b) for b in range(len(data["boards"]))),
            cockpits,
            _findings(data),
            _environment(data),
        ),
        tag("div", id="tip", role="status", hidden=True),
        tag("script", Html(_embedded(data)), type="application/json", id="data"),
        tag("script", Html(script)),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _asset(name: str) -> str:
    return files("timetrial_scoring.report").joinpath(name).read_text(encoding="utf-8")


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON without a character that HTML could take for markup."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _header(data: Mapping[str, Any], has_cockpits: bool) -> Html:
    links = [tag("a", _TUNING[board["tuning"]], href=f"#{board['tuning']}") for board in data["boards"]]
    links += [tag("a", "Cockpits", href="#cockpits")] if has_cockpits else []
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
    clock = data["clock"]
    tuning = board["tuning_points"]
    sizes = {"submission": len(board["submissions"]), "workload": len(board["workloads"]), "study": board["studies"]}
    counts = ", ".join(counted(size, noun) for noun, size in sizes.items())
    efficiency = " This is data efficiency, not time." if clock == "examples" else ""
    beside = "" if clock == "seconds" else ", and below the seconds, which do not rank"
    sections: list[Html | None] = [
        _figure("Leaderboard", "", leaderboard(board), board["notes"]),
        _figure(
            "Performance profiles",
            f"The share of base workloads on which a submission needs at most τ times the {clock} of the best. "
            "The area under a profile is the score. Curves of equal height are drawn a hair apart.",
            _chart("profiles", b, "Performance profiles: share of workloads against the ratio to the best"),
        ),
        _figure(
            "Run-time distributions",
            "The share of milestones, targets and studies met, against the share of the budget spent. Each study "
            "contributes the trial that reached the target first or, where none did, came nearest. Curves of equal "
            "height are drawn a hair apart.",
            _ecdf(b, clock),
        )
        if board["ecdf"]
        else None,
        _figure(
            f"{_CLOCK[clock].capitalize()} to target",
            f"{clock.capitalize()}, median over studies{beside}. Shaded by the ratio to the best of the workload, ★. "
            f"In parentheses: reached, but earns nothing (over {data['tau_max']:g} {TIMES} the best, or base or "
            "held-out variant not reached).",
            times(data, board),
        ),
        _figure(
            "What the data separate",
            "Row against column: paired tests over workloads and studies, corrected over all pairs "
            f"(family-wise error {data['level']:.0%}). A p-value shows when a cell is pointed at.",
            separation(board),
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
        _figure(
            "Sensitivity to hyperparameters",
            "Of the trials of all studies, how many reached the target, and "
            f"the {clock} that the fastest · median · slowest of those took.",
            sensitivity(board),
        )
        if board["has_spread"]
        else None,
    ]
    if board["flips"]:
        flips = tag("ul", *(tag("li", flip) for flip in board["flips"]))
        folded = tag(
            "details", tag("summary", f"{counted(len(board['flips']), 'order')} that one entry decides"), flips
        )
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


def _ecdf(b: int, clock: str) -> Html:
    label = "Run-time distributions: share of milestones, targets and studies met, against the share of the budget"
    return join([_scale(clock), _chart("ecdf", b, label)])


def _curves(board: Board, b: int, clock: str) -> Html:
    cards = (_curve(board, b, w) for w in range(len(board["workloads"])))
    return join([_scale(clock), tag("div", *cards, class_="grid")])


def _scale(clock: str) -> Html:
    control = _choice(f"Charged {clock}", "scale", {"linear": "linear", "log": "log"})
    return tag("div", control, class_="controls")


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
