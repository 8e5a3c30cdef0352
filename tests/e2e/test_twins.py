"""Workloads of the full track from preparing data to an audit, on synthetic twins of their data."""

from collections import Counter

import pytest

from timetrial.campaign import restrict
from timetrial.cli import main
from timetrial.loading import find_source
from timetrial.lock import workload_sha256
from timetrial.record import read_record
from timetrial.registry import load_workload
from timetrial.ruleset import load_ruleset
from timetrial.trial import Trial, run_trial

RULESET = load_ruleset("twins")
CHEAP = "ogbg@twin"
NAMES = [pytest.param(name, marks=[] if name == CHEAP else pytest.mark.slow) for name in RULESET.workloads]


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMETRIAL_DATA", str(tmp_path / "data"))


def evals(path):
    return [(line.step, line.metrics) for line in read_record(path / "record.jsonl").evals]


@pytest.mark.usefixtures("data", "keep_programs")
@pytest.mark.parametrize("name", NAMES)
def test_a_trial_on_a_twin_goes_on_from_its_checkpoint_as_if_nothing_had_happened(name, tmp_path):
    workload, source = load_workload(name), find_source("adamw")

    def run(folder, leave=lambda: False):
        trial = Trial(seed=0, study=0, trial=0, self_tuning=False)
        ruleset = restrict(RULESET, workloads=[name])
        return run_trial(
            workload, source, ruleset, trial, folder, workload_sha256=workload_sha256(workload), leave=leave
        )

    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert run(whole).status == "budget"
    assert run(parted, leave=lambda: True).status == "interrupted"
    assert run(parted).status == "budget"
    assert read_record(parted / "record.jsonl").resumes
    assert evals(parted) == evals(whole)
    assert Counter(step for step, _ in evals(whole)) == {0: 1, 4: 1, 8: 1}
    assert read_record(whole / "record.jsonl").run.workload == name


@pytest.mark.slow
@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("name", RULESET.workloads)
def test_a_campaign_on_a_twin_prepares_its_data_and_holds_against_an_audit(name, tmp_path, capfd):
    assert main(["data", "prepare", name]) == 0
    out = str(tmp_path / "runs")
    assert main(["run", "-r", "twins", "-s", "adamw", "-w", name, "-o", out]) == 0
    assert main(["audit", out]) == 0
    assert "1 trials audited: 0 findings" in capfd.readouterr().out
