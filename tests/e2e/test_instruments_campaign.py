"""A campaign with instruments: each trial leaves a log, which the cockpit shows while it grows and when it is whole."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from timetrial_scoring.cockpit.page import render_page
from timetrial_scoring.cockpit.run import read_run
from toy_trials import SGD, rules, write

from timetrial.campaign import Campaign, open_folder
from timetrial.cli import main
from timetrial.instrument_log import LOG_NAME, Choice, read_log
from timetrial.launchers.local import run_campaign
from timetrial.record import read_record

WORKER = (sys.executable, str(Path(__file__).parents[1] / "support" / "toy_worker.py"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", str(tmp_path / "cache"))


class Pilot:
    """A watcher that draws the cockpit whenever a trial makes progress."""

    def __init__(self) -> None:
        self.pages = 0

    def began(self, job: Any, number: int, total: int) -> None: ...

    def progressed(self, job: Any, progress: Any) -> None:
        log = Path(job.folder) / LOG_NAME
        if log.exists() and b"\n" in log.read_bytes():
            self.pages += "timetrial cockpit" in render_page([read_run(Path(job.folder))], live=True)

    def noted(self, job: Any, text: str) -> None: ...

    def ended(self, job: Any, end: Any) -> None: ...


def test_a_trial_can_be_seen_from_the_cockpit_while_it_trains_and_afterwards(tmp_path: Path):
    campaign = Campaign(
        out=tmp_path / "out",
        ruleset=rules("examples", budget=1600, eval_every=160),
        sources=(write(tmp_path, SGD),),
        seed=3,
        instruments=Choice(set="economy", every=10),
    )
    open_folder(campaign, resume=False)
    pilot = Pilot()
    run_campaign(campaign, pilot, worker=WORKER)
    assert pilot.pages > 0
    trial = tmp_path / "out" / "mine" / "toy" / "study_0" / "trial_0"
    assert main(["cockpit", str(tmp_path / "out")]) == 0
    end = read_record(trial / "record.jsonl").end
    assert end is not None
    assert [look.step for look in read_log(trial / LOG_NAME).looks] == list(range(0, end.step, 10))
    assert "budget: error_rate" in (trial / "cockpit.html").read_text()
