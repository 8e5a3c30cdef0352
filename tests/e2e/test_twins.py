"""Workloads of the full track from preparing data to an audit, on synthetic twins of their data."""

from dataclasses import replace
from importlib import import_module

import pytest
from small_models import SMALLER

from timetrial.campaign import restrict
from timetrial.cli import main
from timetrial.loading import find_source
from timetrial.record import read_record
from timetrial.registry import load_workload, workload_names
from timetrial.ruleset import load_ruleset
from timetrial.trial import Trial, run_trial

TWINS = load_ruleset("twins")
CHEAP = ("ogbg@twin", "criteo1tb_test@twin")
"""With models that a processor trains in minutes, whole."""
pytestmark = pytest.mark.slow


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMETRIAL_DATA", str(tmp_path / "data"))


def smaller(name):
    """The workload of that name with less of each kind of layer."""
    workload, module = load_workload(name), import_module(f"timetrial.workloads.{name.partition('@')[0]}")
    less = {field: value for field, value in SMALLER[module.WORKLOAD.name].items() if field != "symbols"}
    made = module.build(replace(module.MODEL, **less), workload.data)
    sizes = ("name", "default_batch_size", "max_batch_size", "eval_batch_size", "train_eval_rows")
    return replace(made, **{field: getattr(workload, field) for field in sizes})


def test_the_ruleset_has_a_twin_of_every_workload_of_the_track():
    assert {*TWINS.workloads} - {"criteo1tb_test@twin"} == {f"{base}@twin" for base in workload_names("full")}


@pytest.mark.usefixtures("data", "keep_programs")
@pytest.mark.parametrize("base", workload_names("full"))
def test_a_trial_on_a_twin_goes_on_from_its_checkpoint_as_if_nothing_had_happened(base, tmp_path):
    workload, source = smaller(f"{base}@twin"), find_source("adamw")
    ruleset = restrict(TWINS, workloads=[workload.name])

    def run(folder, leave=lambda: False):
        trial = Trial(seed=0, study=0, trial=0, self_tuning=False)
        end = run_trial(workload, source, ruleset, trial, folder, workload_sha256="f" * 64, leave=leave)
        record = read_record(folder / "record.jsonl")
        return end.status, record, [(line.step, line.metrics) for line in record.evals]

    status, record, whole = run(tmp_path / "whole")
    assert (status, record.run.workload) == ("budget", f"{base}@twin")
    assert [step for step, _ in whole] == [0, 4, 8]
    assert whole[-1][1]["train_eval/loss"] < whole[0][1]["train_eval/loss"]
    assert run(tmp_path / "parted", leave=lambda: True)[0] == "interrupted"
    status, record, parted = run(tmp_path / "parted")
    assert record.resumes
    assert (status, parted) == ("budget", whole)


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("name", CHEAP)
def test_a_campaign_on_a_twin_prepares_its_data_and_holds_against_an_audit(name, tmp_path, capfd):
    assert main(["data", "prepare", name]) == 0
    out = str(tmp_path / "runs")
    assert main(["run", "-r", "twins", "-s", "adamw", "-w", name, "-o", out]) == 0
    assert main(["audit", out]) == 0
    assert "1 trials audited: 0 findings" in capfd.readouterr().out
