"""Turns tables into text of limited width, Markdown or CSV."""

import csv
import io
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timetrial_scoring import tables
from timetrial_scoring.board import Finding
from timetrial_scoring.score import Board, Result
from timetrial_scoring.tables import Table

WIDTH = 100
_COLUMN = 13
_SHOWN = 3
"""How many findings of a kind, and how many flips, the text shows; JSON lists all."""


def as_text(result: Result, *, clocks: bool = False) -> str:
    blocks = [text_table(table) for table in _tables(result, clocks=clocks)]
    blocks += [_flips(board) for board in result.boards if board.flips]
    return "\n\n".join([*blocks, _findings(result.findings, result.runs.root)]) + "\n"


def as_markdown(result: Result, *, clocks: bool = False) -> str:
    blocks = [markdown_table(table) for table in _tables(result, clocks=clocks)]
    blocks += [_flips(board) for board in result.boards if board.flips]
    findings = [f"- {_escape(str(relative(finding, result.runs.root)))}" for finding in result.findings]
    return "\n\n".join([*blocks, "\n".join([f"**Findings: {len(findings)}**", "", *findings]).rstrip()]) + "\n"


def as_csv(result: Result) -> str:
    """The leaderboard, full precision; an interval is two columns."""
    return to_csv([flat_standing(line) for line in tables.to_json(result)["leaderboard"]])


def flat_standing(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the leaderboard's JSON with an interval in two columns."""
    row: dict[str, Any] = {}
    for key, value in line.items():
        if key in ("score_ci", "rank_ci", "eval_grid", "speedup_ci"):
            row[f"{key}_low"], row[f"{key}_high"] = value or (None, None)
        elif key == "speedup":
            row["speedup"], row["speedup_workloads"] = (value["factor"], value["workloads"]) if value else (None, None)
        else:
            row[key] = value
    return row


def times_csv(result: Result) -> str:
    """One row for each submission, workload and study; empty fields for never reached or not known."""
    return to_csv(
        [
            {
                **{key: row[key] for key in ("tuning", "submission", "workload", "variant_of")},
                **study,
                "clock": result.ruleset.clock,
            }
            for board in result.boards
            for row in tables.times_json(board)
            for study in row["studies"]
        ]
    )


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _tables(result: Result, *, clocks: bool) -> list[Table]:
    found: list[Table] = []
    for board in result.boards:
        found += [tables.leaderboard(board), *tables.times_to_target(board)]
        if clocks:
            found.append(tables.clocks_table(board))
        if tables.has_spread(board):
            found.append(tables.spread_table(board))
        if result.mode == "published":
            found.append(tables.differences(board))
    return found


def text_table(table: Table, width: int = WIDTH) -> str:
    """Aligned columns; one too wide goes on below itself, its first column repeated."""
    headings = [_wrap(column) for column in table.columns]
    widths = [
        max(len(text) for text in (*heading, *(row[i] for row in table.rows))) for i, heading in enumerate(headings)
    ]
    blocks: list[str] = []
    for group in _groups(widths, width):
        height = max(len(headings[i]) for i in group)
        padded = {i: [""] * (height - len(headings[i])) + headings[i] for i in group}
        lines = [[padded[i][line] for i in group] for line in range(height)]
        lines += [["-" * widths[i] for i in group], *([row[i] for i in group] for row in table.rows)]
        left = [_is_name(table, i) for i in group]
        blocks.append("\n".join(_line(cells, [widths[i] for i in group], left) for cells in lines))
    return "\n".join([table.title, "", "\n\n".join(blocks), *table.notes])


def _groups(widths: Sequence[int], width: int) -> list[list[int]]:
    groups, used = [[0]], widths[0]
    for i in range(1, len(widths)):
        if used + 2 + widths[i] > width and len(groups[-1]) > 1:
            groups.append([0])
            used = widths[0]
        groups[-1].append(i)
        used += 2 + widths[i]
    return groups


def _is_name(table: Table, column: int) -> bool:
    return table.columns[column] in ("submission", "workload")


def _line(cells: Sequence[str], widths: Sequence[int], left: Sequence[bool]) -> str:
    padded = (c.ljust(w) if to_left else c.rjust(w) for c, w, to_left in zip(cells, widths, left, strict=True))
    return "  ".join(padded).rstrip()


def _wrap(heading: str) -> list[str]:
    """A heading over several lines, broken at spaces and underscores."""
    lines = [""]
    for word in heading.replace("_", "_ ").split(" "):
        joined = f"{lines[-1]}{'' if not lines[-1] or lines[-1].endswith('_') else ' '}{word}"
        if lines[-1] and (len(joined) > _COLUMN or word.startswith("[")):
            lines.append(word)
        else:
            lines[-1] = joined
    return lines


def markdown_table(table: Table) -> str:
    lines = [
        list(table.columns),
        [":--" if _is_name(table, i) else "--:" for i in range(len(table.columns))],
        *table.rows,
    ]
    body = ["| " + " | ".join(_escape(cell) for cell in line) + " |" for line in lines]
    return "\n".join([f"**{table.title}**", "", *body, *("\n" + note for note in table.notes)])


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def _flips(board: Board) -> str:
    shown = [flip for flip in board.flips if flip.first] or list(board.flips[:_SHOWN])
    lines = [f"- {flip}" for flip in shown]
    rest = len(board.flips) - len(shown)
    if rest:
        lines.append(f"- and {rest} more orders further down that one workload or submission decides (--format json)")
    return "\n".join(["What turns around when one workload or submission is left out", "", *lines])


def _findings(findings: Sequence[Finding], root: Path) -> str:
    if not findings:
        return "No findings."
    by_kind: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_kind[finding.kind].append(relative(finding, root))
    lines = [f"Findings: {len(findings)}", ""]
    for kind, found in by_kind.items():
        lines.append(f"{kind} ({len(found)})")
        for finding in found[:_SHOWN]:
            lines.append(f"  {finding.message}")
            if finding.file is not None:
                lines.append(f"    {finding.file}" + ("" if finding.line is None else f":{finding.line}"))
        if len(found) > _SHOWN:
            lines.append(f"  and {len(found) - _SHOWN} more; --format json lists all")
    return "\n".join(lines)


def relative(finding: Finding, root: Path) -> Finding:
    """The finding with its file as seen from the folder that was scored."""
    if finding.file is None:
        return finding
    return Finding(finding.kind, finding.message, os.path.relpath(finding.file, root.resolve()), finding.line)
