"""The figures of a report that are tables: leaderboard, times to target, spread over trials, separated pairs."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from timetrial_scoring.report.markup import DASH, TIMES, Html, breakable, join, tag
from timetrial_scoring.tables import number

Board = Mapping[str, Any]
_NO_CLAIM = Html('<span class="none">no claim</span>')


def _scroll(table: Html, label: str) -> Html:
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=label)


def leaderboard(board: Board) -> Html:
    lines: Sequence[Mapping[str, Any]] = board["leaderboard"]
    columns: dict[str, list[Html | str]] = {
        "rank": [_or_dash(line["rank"]) for line in lines],
        "submission": [breakable(line["submission"]) for line in lines],
        "score": [DASH if line["score"] is None else f"{line['score']:.4f}" for line in lines],
        "0 to 1": [_bar(line) for line in lines],
        "95 % interval": [_interval(line["score_ci"], 3) for line in lines],
        "ranks": [_interval(line["rank_ci"], 0) for line in lines],
        "P(first)": [_NO_CLAIM if line["p_first"] is None else f"{line['p_first']:.2f}" for line in lines],
        "eval grid": [_interval(line["eval_grid"], 3, DASH) for line in lines],
    }
    if any(line["anchored"] is not None for line in lines):
        columns["anchored score"] = [DASH if line["anchored"] is None else f"{line['anchored']:.4f}" for line in lines]
    if board["reference"] is not None:
        columns[f"speed-up on {board['reference']}"] = [_speedup(line) for line in lines]
        columns["its 95 % interval"] = [_interval(line["speedup_ci"], 2) for line in lines]
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
    return DASH if value is None else str(value)


def _interval(interval: Sequence[float] | None, digits: int, absent: str = _NO_CLAIM) -> str:
    if interval is None:
        return absent
    low, high = (f"{end:.{digits}f}" for end in interval)
    return low if low == high else f"{low} {DASH} {high}"


def _speedup(line: Mapping[str, Any]) -> str:
    speedup = line["speedup"]
    if speedup is None:
        return DASH
    return f"{speedup['factor']:.2f} {TIMES} ({speedup['workloads']})"


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


def times(data: Mapping[str, Any], board: Board) -> Html:
    table = _by_workload(board, "heat", lambda row, kind: _time(row, data["clock"], data["tau_max"], kind))
    scale = tag("p", tag("span", class_="ramp"), f" the best … {data['tau_max']:g} {TIMES} the best", class_="note")
    return join([_scroll(table, "Time to target"), scale])


def sensitivity(board: Board) -> Html:
    return _scroll(_by_workload(board, "heat spread", _spread), "Sensitivity to hyperparameters")


def _by_workload(board: Board, class_: str, cell: Callable[[Mapping[str, Any], str], Html]) -> Html:
    """Submissions x workloads, a held-out variant beside its base; `cell` makes one of a row of times and its kind."""
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
                cell(by_cell[name, workload], "base" if workload == base else "variant")
                for base, names in families
                for workload in names
            ),
            data_s=s,
        )
        for s, name in enumerate(board["submissions"])
    ]
    return tag("table", tag("thead", *head), tag("tbody", *rows), class_=class_)


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
    tip += "" if ratio is None else f"\n{ratio:.3g} {TIMES} the best"
    best = Html('<span class="best">★</span>') if ratio == 1.0 else None
    seconds = None if clock == "seconds" else tag("small", f"{number(row['seconds'])} s")
    if not row["earns"]:
        return tag("td", f"({text})", best, seconds, class_=f"{kind} idle", data_tip=tip)
    return tag("td", text, best, seconds, class_=kind, style=f"--t:{shade:.3f}", data_tip=tip)


def _spread(row: Mapping[str, Any], kind: str) -> Html:
    spread = row["spread"]
    reached = f"{spread['reached']} / {spread['trials']}"
    if not spread["reached"]:
        return tag("td", reached, class_=f"{kind} never")
    fastest, median, slowest = (number(spread[key]) for key in ("fastest", "median", "slowest"))
    return tag("td", reached, tag("small", f"{fastest} · ", tag("b", median), f" · {slowest}"), class_=kind)


def separation(board: Board) -> Html:
    pairs = board["separation"]
    if pairs is None:
        return tag("p", f"No claim: {board['reasons'].get('separation', 'no submission is ranked')}.", class_="note")
    names: Sequence[str] = pairs["submissions"]
    numbers = [tag("th", str(i + 1), tag("span", f" {name}", class_="sr"), scope="col") for i, name in enumerate(names)]
    rows = [
        tag(
            "tr",
            tag("th", f"{i + 1}  ", breakable(name), scope="row", class_="name"),
            *(_pair(pairs, i, j) for j in range(len(names))),
            data_s=board["submissions"].index(name),
        )
        for i, name in enumerate(names)
    ]
    head = tag("tr", tag("th", "row is …", scope="col", class_="name"), *numbers)
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="matrix")
    return _scroll(table, "Which pairs the data separate")


def _pair(pairs: Mapping[str, Any], i: int, j: int) -> Html:
    if i == j:
        return tag("td", class_="self")
    names, p = pairs["submissions"], pairs["p_value"][i][j]
    kind, sign, verb = "tied", "tied", "is tied with"
    if pairs["faster"][i][j]:
        kind, sign, verb = "faster", "▲ faster", "is faster than"
    elif pairs["faster"][j][i]:
        kind, sign, verb = "slower", "▽ slower", "is slower than"
    value = f"p = {p:.4f}"
    tip = f"{names[i]}\n{verb} {names[j]}\n{value}"
    glyph, _, word = sign.partition(" ")
    text = [glyph, tag("span", f" {word}", class_="word")] if word else [sign]
    return tag("td", *text, tag("span", f", {value}", class_="sr"), class_=kind, data_tip=tip)
