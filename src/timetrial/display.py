"""What a person sees while a campaign runs: a live panel on a terminal, one line a trial elsewhere."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from timetrial.record import EndLine
from timetrial.ruleset import Ruleset
from timetrial.worker import Job

_STYLES = {"reached": "green", "budget": "yellow", "diverged": "yellow"}


@dataclass
class _Running:
    """A trial that is under way."""

    job: Job
    rules: Ruleset
    number: int
    began: float
    progress: Mapping[str, Any] = field(default_factory=dict[str, Any])
    note: str = "starting"


class Display:
    """A `timetrial.launchers.local.Watcher` that prints; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._total = 0
        self._finished = 0
        self._running: dict[str, _Running] = {}
        self._live = Live(get_renderable=self._panel, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def began(self, job: Job, number: int, total: int) -> None:
        self._total = total
        self._running[job.folder] = _Running(job, Ruleset.from_json(job.ruleset), number, time.monotonic())

    def progressed(self, job: Job, progress: Mapping[str, Any]) -> None:
        running = self._running[job.folder]
        running.progress, running.note = progress, ""

    def noted(self, job: Job, text: str) -> None:
        self._running[job.folder].note = text
        if not self._console.is_terminal:
            self._console.print(text, highlight=False, markup=False)

    def ended(self, job: Job, end: EndLine) -> None:
        running = self._running.pop(job.folder)
        self._finished += 1
        line = Text.assemble(
            f"[{running.number}/{self._total}] ",
            (f"{end.status:<9}", _STYLES.get(end.status, "red bold")),
            f" {_title(job)}: {end.message}; {end.step:,} steps, {end.seconds:.1f} s charged",
        )
        if end.crossing is not None:
            line.append(f", target at {_amount(end.crossing.charge, running.rules.clock)}", style="bold")
        self._console.print(line, soft_wrap=True)

    def _panel(self) -> Group:
        shown = list(self._running.values())
        if not shown:
            return Group(Text("planning"))
        grid = Table.grid(padding=(0, 1))
        for running in shown:
            _add_rows(grid, running, self._total)
        elapsed = time.monotonic() - self._began
        left = max(self._left(running) for running in shown)
        grid.add_row("time", f"{clock_of(elapsed)} used, at most {clock_of(left)} left")
        return Group(Text(""), grid)

    def _left(self, running: _Running) -> float:
        """Seconds left at most: every remaining trial spends its whole budget at the pace seen so far."""
        charge, budget = _spent(running)
        turns = (self._total - self._finished - len(self._running)) / len(self._running)
        if running.rules.clock == "seconds":
            own = running.job.self_tuning
            budgets = [running.rules.budget(name, self_tuning=own) for name in running.rules.workloads]
            return max(0.0, budget - charge) + turns * sum(budgets) / len(budgets)
        spent = time.monotonic() - running.began
        pace = spent / charge if charge else 0.0
        return pace * max(0.0, budget - charge) + turns * pace * budget


def _add_rows(grid: Table, running: _Running, total: int) -> None:
    charge, budget = _spent(running)
    title = Text(_title(running.job), style="bold")
    grid.add_row(Text(f"trial {running.number}/{total}", style="bold"), title)
    used = f"{_amount(charge, running.rules.clock)} of {_amount(budget, running.rules.clock)}"
    grid.add_row("budget", ProgressBar(total=budget, completed=min(charge, budget), width=40), used)
    target = running.rules.workloads[running.job.workload].target
    grid.add_row("", _state(running, str(target) if target else "the workload's target"))


def _spent(running: _Running) -> tuple[float, float]:
    """What the trial has charged, and its budget."""
    budget = running.rules.budget(running.job.workload, self_tuning=running.job.self_tuning)
    return float(running.progress.get("charge", 0.0)), budget


def _state(running: _Running, target: str) -> str:
    if running.note or not running.progress:
        return running.note or "starting"
    metric = running.progress.get("metric")
    value = "" if metric is None else f"now {metric:.4g}, "
    return f"step {running.progress['step']:,} · {value}target {target}"


def _title(job: Job) -> str:
    return f"{job.submission} on {job.workload}, study {job.study}, trial {job.trial}"


def _amount(charge: float, clock: str) -> str:
    return f"{charge:.1f} s" if clock == "seconds" else f"{charge:,.0f} {clock}"


def clock_of(seconds: float) -> str:
    """Minutes and seconds, and hours where there are any."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
