"""How verbs print: tables for people, JSON for programs."""

import argparse
import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

FILE_WIDTH = 160
"""Characters a line where the output is no terminal."""


def add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("text", "json"), default="text", help="tables (the default), or JSON")


def print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=2)
    print()


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as a table, their keys as its columns; numbers flush right, None as nothing."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for name, value in (rows[0] if rows else {}).items():
        numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    terminal = sys.stdout.isatty()
    text = io.StringIO()  # rich would answer a closed pipe with an exit of its own
    console = Console(
        file=text, force_terminal=terminal, markup=False, highlight=False, width=None if terminal else FILE_WIDTH
    )
    console.print(table if rows else f"{title}: none")
    for line in text.getvalue().splitlines():
        print(line.rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
