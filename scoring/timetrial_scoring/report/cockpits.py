"""The report's cockpits: one for each submission and workload of which a trial ran with instruments."""

from pathlib import Path

from timetrial.errors import UserError
from timetrial.instrument_log import LOG_NAME
from timetrial_scoring.cockpit.hints import hints
from timetrial_scoring.cockpit.page import sections
from timetrial_scoring.cockpit.run import read_run
from timetrial_scoring.report.markup import Html, counted, tag

_SHOWN = 12
"""Cockpits in a page: each is about 100 kB."""


def cockpits(root: Path) -> Html | None:
    """The section of the page, closed cockpits with what their gauges say; None where no trial has instruments."""
    found: dict[tuple[str, ...], Path] = {}
    trials = sorted(path.parent for path in root.rglob(LOG_NAME))
    for folder in trials:
        found.setdefault(folder.parts[-4:-2], folder)
    if not found:
        return None
    shown = list(found.values())[:_SHOWN]
    left = len(trials) - len(shown)
    more = f" {counted(left, 'other trial')} with instruments: `timetrial cockpit TRIAL` shows each." if left else ""
    return tag(
        "section",
        tag("h2", "Cockpits"),
        tag(
            "p",
            "What instruments saw, off the clock, of the first trial of each submission on each workload that had "
            f"them.{more}",
            class_="sub",
        ),
        *(_cockpit(folder, root) for folder in shown),
        id="cockpits",
        class_="lists",
    )


def _cockpit(folder: Path, root: Path) -> Html:
    try:
        run = read_run(folder)
    except UserError as error:
        return tag("p", f"{folder.relative_to(root)}: {error}", class_="note")
    says = [hint.says for hint in hints(run)] or ["nothing stands out"]
    return tag(
        "details",
        tag("summary", tag("b", run.title), tag("small", f" {'; '.join(says)}")),
        tag("p", tag("code", str(folder.relative_to(root))), class_="note"),
        *sections([run]),
        class_="cockpit",
    )
