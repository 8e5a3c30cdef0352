"""A campaign's folder alone tells what is done, running, waiting and failed, and for how long it will go on."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from toy_trials import SGD, custom, rules, write

from timetrial.campaign import Campaign, open_folder
from timetrial.claims import CLAIM_NAME, take
from timetrial.cli import main
from timetrial.launchers.local import run_campaign
from timetrial.progress import campaign_state

WORKER = (sys.executable, str(Path(__file__).parents[1] / "support" / "toy_worker.py"))
FAILS = custom('raise ValueError("no")')


class Silent:
    def began(self, job, number, total): ...

    def progressed(self, job, progress): ...

    def noted(self, job, text): ...

    def ended(self, job, end): ...


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A campaign of a submission that trains and one that fails, two trials and one."""
    folder = tmp_path_factory.mktemp("campaign")
    board = {"studies": 1, "trials": 2, "points": "halton"}
    ruleset = rules(budget=320, eval_every=160, external=board)
    sources = (write(folder, SGD, "trains"), write(folder, FAILS, "fails"))
    campaign = Campaign(out=folder / "out", ruleset=ruleset, sources=sources, seed=0)
    open_folder(campaign, resume=False)
    run_campaign(campaign, Silent(), worker=WORKER)
    return folder / "out"


@pytest.fixture
def campaign(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def trial(campaign: Path, number: int) -> Path:
    return campaign / "trains" / "toy" / "study_0" / f"trial_{number}"


def test_a_finished_campaign_says_how_its_trials_ended(campaign: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["status", str(campaign)]) == 1
    shown = capsys.readouterr().out
    assert "3 of 3 trials done, 0 running, 0 waiting" in shown
    assert "error: fails on toy, study 0, trial 0" in shown
    assert main(["status", str(campaign), "--format", "json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["statuses"] == {"budget": 2, "error": 1}
    assert told["spent_hours"] > 0


def test_a_trial_without_a_record_waits_and_one_that_is_claimed_runs(campaign: Path, capsys):
    shutil.rmtree(trial(campaign, 1))
    waiting = campaign_state(campaign)
    assert (waiting.count("done"), waiting.count("running"), waiting.count("waiting")) == (2, 0, 1)
    assert waiting.left_seconds is not None
    claim = take(trial(campaign, 1))
    assert claim is not None
    running = campaign_state(campaign)
    assert (running.count("running"), running.count("waiting")) == (1, 0)
    main(["status", str(campaign)])
    assert f"process {os.getpid()}" in capsys.readouterr().out


def test_a_dead_process_s_trial_waits(campaign: Path):
    record = trial(campaign, 1) / "record.jsonl"
    record.write_text("".join(record.read_text().splitlines(keepends=True)[:-1]))
    assert take(trial(campaign, 1)) is not None
    assert campaign_state(campaign).count("running") == 1
    os.utime(trial(campaign, 1) / CLAIM_NAME, (0, 0))
    assert campaign_state(campaign).count("waiting") == 1


def test_a_folder_without_a_campaign_is_a_user_s_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["status", str(tmp_path)]) == 2
    assert "no campaign of timetrial" in capsys.readouterr().err


def test_what_was_done_is_not_read_again_and_what_changed_is(campaign: Path):
    record = trial(campaign, 1) / "record.jsonl"
    text = record.read_text()
    record.unlink()
    before = campaign_state(campaign)
    (trial(campaign, 0) / "record.jsonl").write_text("unreadable by now")
    record.write_text(text)
    after = campaign_state(campaign, before)
    assert [(state.place, state.status) for state in after.trials] == [
        (("trains", "toy", 0, 0), "budget"),
        (("trains", "toy", 0, 1), "budget"),
        (("fails", "toy", 0, 0), "error"),
    ]
