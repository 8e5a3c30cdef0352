"""What a person sees while a campaign runs: a live panel on a terminal, one line a trial elsewhere."""

import time
from collections.abc import Mapping
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


class Display:
    """A `timetrial.campaign.Watcher` that prints; use it as a context manager."""

    def __init__(self, ruleset: Ruleset, console: Console) -> None:
        self._ruleset = ruleset
        self._console = console
        self._began = time.monotonic()
        self._trial_began = self._began
        self._number = 0
        self._total = 0
        self._job: Job | None = None
        self._progress: Mapping[str, Any] = {}
        self._note = ""
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
        self._job, self._number, self._total = job, number, total
        self._progress, self._note, self._trial_began = {}, "starting", time.monotonic()

    def progressed(self, job: Job, progress: Mapping[str, Any]) -> None:
        del job
        self._progress, self._note = progress, ""

    def noted(self, job: Job, text: str) -> None:
        del job
        self._note = text
        if not self._console.is_terminal:
            self._console.print(text, highlight=False, markup=False)

    def ended(self, job: Job, end: EndLine) -> None:
        line = Text.assemble(
            f"[{self._number}/{self._total}] ",
            (f"{end.status:<9}", _STYLES.get(end.status, "red bold")),
            f" {_title(job)}: {end.message}; {end.step:,} steps, {end.seconds:.1f} s charged",
        )
        if end.crossing is not None:
            line.append(f", target at {_amount(end.crossing.charge, self._ruleset.clock)}", style="bold")
        self._console.print(line, soft_wrap=True)

    def _panel(self) -> Group:
        job = self._job
        if job is None:
            return Group(Text("planning"))
        rules = self._ruleset.workloads[job.workload]
        budget = self._ruleset.budget(job.workload, self_tuning=job.self_tuning)
        charge = float(self._progress.get("charge", 0.0))
        grid = Table.grid(padding=(0, 1))
        grid.add_row(Text(f"trial {self._number}/{self._total}", style="bold"), Text(_title(job), style="bold"))
        used = f"{_amount(charge, self._ruleset.clock)} of {_amount(budget, self._ruleset.clock)}"
        grid.add_row("budget", ProgressBar(total=budget, completed=min(charge, budget), width=40), used)
        grid.add_row("", self._state(str(rules.target) if rules.target else "the workload's target"))
        elapsed = time.monotonic() - self._began
        left = self._left(charge, budget, self_tuning=job.self_tuning)
        grid.add_row("time", f"{_clock(elapsed)} used, at most {_clock(left)} left")
        return Group(Text(""), grid)

    def _state(self, target: str) -> str:
        if self._note or not self._progress:
            return self._note or "starting"
        metric = self._progress.get("metric")
        value = "" if metric is None else f"now {metric:.4g}, "
        return f"step {self._progress['step']:,} · {value}target {target}"

    def _left(self, charge: float, budget: float, *, self_tuning: bool) -> float:
        """Seconds left at most: every remaining trial spends its whole budget at the pace seen so far."""
        trials = self._total - self._number
        if self._ruleset.clock == "seconds":
            budgets = [self._ruleset.budget(name, self_tuning=self_tuning) for name in self._ruleset.workloads]
            return max(0.0, budget - charge) + trials * sum(budgets) / len(budgets)
        spent = time.monotonic() - self._trial_began
        pace = spent / charge if charge else 0.0
        return pace * max(0.0, budget - charge) + trials * pace * budget


def _title(job: Job) -> str:
    return f"{job.submission} on {job.workload}, study {job.study}, trial {job.trial}"


def _amount(charge: float, clock: str) -> str:
    return f"{charge:.1f} s" if clock == "seconds" else f"{charge:,.0f} {clock}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
