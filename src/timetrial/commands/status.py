"""`timetrial status`: what a campaign has done, does and has still to do."""

import argparse
import time
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from timetrial.campaign import FAILURES
from timetrial.commands.output import add_format, print_json
from timetrial.display import clock_of
from timetrial.progress import CampaignState, TrialState, campaign_state

if TYPE_CHECKING:
    from rich.console import RenderableType

_WATCH_SECONDS = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="the campaign's folder (--out of `timetrial run`)")
    parser.add_argument("--watch", action="store_true", help="keep showing it until all trials are done, or Ctrl-C")
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Exit code 1 where a trial failed."""
    state = campaign_state(args.folder)
    if args.format == "json":
        counts = {name: state.count(name) for name in ("done", "running", "waiting")}
        print_json(
            {
                **counts,
                "statuses": dict(state.statuses()),
                "left_seconds": state.left_seconds,
                "spent_hours": state.spent_hours,
                "trials": [asdict(trial) for trial in state.trials],
            }
        )
    else:
        state = _show(args.folder, state, watch=args.watch)
    return 1 if any(trial.status in FAILURES for trial in state.trials) else 0


def _show(folder: Path, state: CampaignState, *, watch: bool) -> CampaignState:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if not (watch and console.is_terminal):
        console.print(render(folder, state), crop=False)
        return state
    with Live(render(folder, state), console=console, auto_refresh=False) as live:
        while state.count("done") < len(state.trials):
            time.sleep(_WATCH_SECONDS)
            state = campaign_state(folder, state)
            live.update(render(folder, state), refresh=True)
    return state


def render(folder: Path, state: CampaignState) -> "RenderableType":
    """One line for the whole, a row a submission, a line for each trial that runs or failed."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table

    total, done, running = len(state.trials), state.count("done"), state.count("running")
    head = f"{folder}: {done} of {total} trials done, {running} running, {state.count('waiting')} waiting"
    if done < total and state.left_seconds is not None:
        until = time.strftime("%H:%M", time.localtime(time.time() + state.left_seconds))
        head += f"; about {clock_of(state.left_seconds)} left (until {until})"
    head += f"; {state.spent_hours:.2f} hours of trials so far"

    by_submission: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for trial in state.trials:
        by_submission[trial.submission][str(trial.status) if trial.state == "done" else trial.state] += 1
    columns = sorted({key for counts in by_submission.values() for key in counts})
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("submission", *columns):
        table.add_column(name, justify="left" if name == "submission" else "right")
    for submission, counts in by_submission.items():
        table.add_row(submission, *(str(counts[key] or "") for key in columns))

    lines = [
        f"running: {_title(trial)}: {trial.charge_share:.0%} of the budget, {clock_of(trial.wall_seconds)} "
        f"({trial.holder['host']}, process {trial.holder['pid']})"
        for trial in state.trials
        if trial.state == "running" and trial.holder is not None
    ] + [
        f"{trial.status}: {_title(trial)}: {trial.message}"
        for trial in state.trials
        if trial.status in {*FAILURES, "interrupted"} and trial.state != "running"
    ]
    return Group(_line(head), table, *map(_line, lines))


def _line(text: str) -> "RenderableType":
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ignore")


def _title(trial: TrialState) -> str:
    return f"{trial.submission} on {trial.workload}, study {trial.study}, trial {trial.trial}"
