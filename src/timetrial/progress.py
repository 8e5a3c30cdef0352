"""How far a campaign is, read from its folder alone: no process is asked, and nothing is written."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from timetrial.campaign import CAMPAIGN_NAME, read_campaign
from timetrial.claims import holder
from timetrial.record import RECORD_NAME, RecordError, RunRecord, Status, read_record
from timetrial.ruleset import Ruleset

State = Literal["done", "running", "waiting"]


class Place(NamedTuple):
    """Which trial of a campaign."""

    submission: str
    workload: str
    study: int
    trial: int


@dataclass(frozen=True, kw_only=True)
class TrialState:
    """One trial of a campaign."""

    submission: str
    workload: str
    study: int
    trial: int
    state: State
    status: Status | None
    """How it ended; for a waiting one `interrupted` where an attempt was made."""
    message: str
    holder: Mapping[str, Any] | None
    """Host and process of a running one."""
    charge_share: float
    """Of the budget, at the newest eval."""
    wall_seconds: float
    """From its beginning to its newest line."""

    @property
    def place(self) -> Place:
        return Place(self.submission, self.workload, self.study, self.trial)


@dataclass(frozen=True, kw_only=True)
class CampaignState:
    """A campaign, as its folder shows it."""

    trials: tuple[TrialState, ...]
    left_seconds: float | None
    """Estimated wall seconds to the end, with as many trials at a time as run now (at least one); None: no idea yet."""
    spent_hours: float
    """Wall hours of all trials together, newest attempts alone."""

    def count(self, state: State) -> int:
        return sum(trial.state == state for trial in self.trials)

    def statuses(self) -> Counter[str]:
        """How many of those that are done ended how."""
        return Counter(str(trial.status) for trial in self.trials if trial.state == "done")


def campaign_state(folder: Path, before: CampaignState | None = None) -> CampaignState:
    """What the folder shows; trials that were done `before` are not read again, as nothing about them changes.

    Raises `UserError` where the folder holds no campaign.
    """
    campaign = read_campaign(folder / CAMPAIGN_NAME)
    ruleset = Ruleset.from_json(campaign["ruleset"], where=str(folder / CAMPAIGN_NAME))
    done = {trial.place: trial for trial in before.trials if trial.state == "done"} if before is not None else {}
    places = _places(ruleset, campaign["self_tuning"])
    trials = tuple(done.get(place) or _trial(folder, place) for place in places)
    return CampaignState(
        trials=trials, left_seconds=_left(trials), spent_hours=sum(trial.wall_seconds for trial in trials) / 3600
    )


def _places(ruleset: Ruleset, self_tuning: Mapping[str, bool]) -> Iterator[Place]:
    for workload in ruleset.workloads:
        for submission, tunes_itself in self_tuning.items():
            tuning = ruleset.tuning(self_tuning=tunes_itself)
            for study in range(tuning.studies):
                for trial in range(tuning.trials):
                    yield Place(submission, workload, study, trial)


def _trial(folder: Path, place: Place) -> TrialState:
    where = folder / place.submission / place.workload / f"study_{place.study}" / f"trial_{place.trial}"
    record = _record(where / RECORD_NAME)
    end = None if record is None else record.end
    held = holder(where)
    over = end is not None and end.status != "interrupted"
    return TrialState(
        **place._asdict(),
        state="done" if over else "running" if held is not None else "waiting",
        status=None if end is None else end.status,
        message="" if end is None else end.message,
        holder=None if over else held,
        charge_share=_share(record),
        wall_seconds=_wall_seconds(record),
    )


def _record(path: Path) -> RunRecord | None:
    try:
        return read_record(path)
    except RecordError:  # none, or one that has not begun; a damaged one is told by `timetrial score`
        return None


def _share(record: RunRecord | None) -> float:
    if record is None or not record.evals:
        return 0.0
    return min(1.0, record.evals[-1].charge(record.run.clock) / record.run.budget)


def _wall_seconds(record: RunRecord | None) -> float:
    if record is None:
        return 0.0
    return max(0.0, record.path.stat().st_mtime - datetime.fromisoformat(record.run.created).timestamp())


def _left(trials: tuple[TrialState, ...]) -> float | None:
    """A trial still to come takes as long as the mean one on its workload did; a running one what it lacks of that."""
    done = [trial for trial in trials if trial.state == "done"]
    if not done:
        return None
    overall = sum(trial.wall_seconds for trial in done) / len(done)
    mean: dict[str, float] = {}
    for workload in {trial.workload for trial in trials}:
        own = [trial.wall_seconds for trial in done if trial.workload == workload]
        mean[workload] = sum(own) / len(own) if own else overall
    left = sum(
        mean[trial.workload] if trial.state == "waiting" else max(0.0, mean[trial.workload] - trial.wall_seconds)
        for trial in trials
        if trial.state != "done"
    )
    return left / max(1, sum(trial.state == "running" for trial in trials))
